"""Report of a run: a self-contained HTML page, and its plots as PNG files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tf.core import files
from resnet_tf.core.metrics import ClassMetrics, Evaluation
from resnet_tf.report import elements
from resnet_tf.report.elements import cell, escape, row, section
from resnet_tf.report.plots import SUMMARY_IMAGES, plot_panels, plot_summary

PAGE, SUMMARY = "index.html", "summary.png"

_MAX_ERRORS = 24
_MAX_PAIRS, _MAX_IMAGES_PER_PAIR = 8, 4

# Maps indices in the evaluated split to decoded and resized images, each float [H, W, 1 or 3] in [0, 1].
LoadImages = Callable[[Sequence[int]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Report:
    """Content of a report.

    Attributes:
        title: network and data set.
        evaluation: labels and logits of the evaluated split.
        class_names: names of the classes in label order.
        load_images: loads images of the evaluated split by index.
        metrics: records of metrics.jsonl; empty if the training run is unknown.
        train_counts: training examples per class, int [C], or None if unknown.
        facts: additional headline values: name -> text.
        config: the resolved configuration as text.
        environment: versions and hardware: name -> text.
    """

    title: str
    evaluation: Evaluation
    class_names: Sequence[str]
    load_images: LoadImages
    metrics: Sequence[dict[str, Any]] = ()
    train_counts: np.ndarray | None = None
    facts: Mapping[str, str] | None = None
    config: str = ""
    environment: Mapping[str, str] | None = None


def write_page(directory: Path, report: Report) -> Path:
    """Write `index.html` and its plots as PNG files to `directory`; return the path of the page.

    If the report has training metrics, `summary.png` combines the main plots. A missing directory is created. Of
    several reports written to one directory at once, all files are those of the last.

    Raises:
        UserError: if `directory` cannot be written.
    """
    with files.translate_write_errors(directory / PAGE), files.atomic_files(directory) as staging:
        _write_files(staging, report)
    return directory / PAGE


def _write_files(directory: Path, report: Report) -> None:
    panels = plot_panels(
        directory,
        metrics=report.metrics,
        evaluation=report.evaluation,
        class_names=report.class_names,
        train_counts=report.train_counts,
    )
    sections = [
        _headline(report),
        section("Training and evaluation", elements.plots(panels)),
        section("Most confused pairs of classes", _confused_pairs(report)),
        section("Most confident errors", _errors(report)),
        section("Metrics per class, lowest recall first", _classes(report)),
        section("Configuration", f"<pre>{escape(report.config)}</pre>" if report.config else ""),
        section("Environment", _environment(report)),
    ]
    if report.metrics:
        _plot_summary(directory / SUMMARY, report)
    (directory / PAGE).write_text(elements.document(report.title, sections), encoding="utf-8")


def _plot_summary(path: Path, report: Report) -> None:
    evaluation, names = report.evaluation, report.class_names
    indices = evaluation.worst_errors(SUMMARY_IMAGES)
    errors = [
        (image, names[evaluation.targets[index]], names[evaluation.predictions[index]])
        for index, image in zip(indices, report.load_images(indices), strict=True)
    ]
    plot_summary(
        path,
        title=f"{report.title}: {evaluation}",
        metrics=report.metrics,
        evaluation=evaluation,
        class_names=names,
        errors=errors,
    )


def _headline(report: Report) -> str:
    metrics, last = report.evaluation.to_dict(), report.metrics[-1] if report.metrics else {}
    facts = {
        "top-1 accuracy": f"{100 * metrics['top1']:.2f} %",
        "top-5 accuracy": f"{100 * metrics['top5']:.2f} %",
        "mean recall of the classes": f"{100 * metrics['balanced_accuracy']:.2f} %",
        "loss (nats)": f"{metrics['loss']:.4f}",
        "calibration error": f"{100 * metrics['calibration_error']:.1f} %",
        "evaluated examples": f"{metrics['examples']:,}",
        **({"epochs": str(last["epoch"])} if last else {}),
        **(report.facts or {}),
    }
    return elements.tiles(facts)


def _confused_pairs(report: Report) -> str:
    """Return the most confused pairs of classes as HTML, with their counts and some images."""
    evaluation, names = report.evaluation, report.class_names
    pairs = []
    for true, predicted, count in evaluation.confused_pairs(_MAX_PAIRS):
        indices = evaluation.worst_errors(_MAX_IMAGES_PER_PAIR, pair=(true, predicted))
        total = np.sum(evaluation.targets == true)
        fraction = f"{count:,} of {total:,}".replace(" ", "\N{NO-BREAK SPACE}")
        heading = escape(f"{names[true]} predicted as {names[predicted]}: {fraction}")
        pairs.append(f'<div class="pair"><h3>{heading}</h3>{_images(report, indices)}</div>')
    return f'<div class="pairs">{"".join(pairs)}</div>' if pairs else "<p>No class is predicted as another.</p>"


def _errors(report: Report) -> str:
    indices = report.evaluation.worst_errors(_MAX_ERRORS)
    legend = "<p>True class → predicted class, each with its predicted probability.</p>"
    return legend + _images(report, indices) if indices else "<p>No errors.</p>"


def _images(report: Report, indices: Sequence[int]) -> str:
    """Return images as HTML, with true and predicted class and their probabilities as captions."""
    evaluation, names = report.evaluation, report.class_names
    probabilities = evaluation.probabilities[list(indices)]
    captioned = []
    for index, image, scores in zip(indices, report.load_images(indices), probabilities, strict=True):
        true, predicted = evaluation.targets[index], evaluation.predictions[index]
        lines = (f"{names[true]} ({scores[true]:.0%})", f"→ {names[predicted]} ({scores[predicted]:.0%})")
        captioned.append(elements.figure(image, lines, alt=f"image {index} of the evaluated split"))
    return elements.gallery(captioned)


def _classes(report: Report) -> str:
    names, counts = report.class_names, report.train_counts

    def describe(each: ClassMetrics) -> str:
        precision = "never predicted" if np.isnan(each.precision) else f"{each.precision:.4f}"
        numbers = [f"{each.examples:,}", f"{each.recall:.4f}", precision]
        if counts is not None:
            numbers.insert(0, f"{counts[each.index]:,}")
        confused = f"{names[each.confused_with]} ({each.confusions:,})" if each.confusions else ""
        return row(cell(names[each.index]), *(cell(number, "number") for number in numbers), cell(confused))

    columns = [] if counts is None else ["trained on"]
    columns += ["evaluated on", "recall", "precision"]
    head = elements.head(["class", *columns, "confused with"], numbers=columns)
    return elements.table(map(describe, report.evaluation.by_class), head=head)


def _environment(report: Report) -> str:
    entries = (report.environment or {}).items()
    rows = [row(cell(name, "name"), cell(value)) for name, value in entries]
    return elements.table(rows) if rows else ""
