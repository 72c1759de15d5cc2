"""Report of a run: a self-contained HTML page, and its plots as PNG files."""

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib import image as image_writer

from resnet_tf.core import files
from resnet_tf.core.metrics import ClassMetrics, Evaluation
from resnet_tf.core.text import printable
from resnet_tf.report.plots import SUMMARY_IMAGES, plot_panels, plot_summary

PAGE, SUMMARY = "index.html", "summary.png"

_MAX_ERRORS = 24
_MAX_PAIRS, _MAX_IMAGES_PER_PAIR = 8, 4
_SMALL_IMAGE = 64  # pixels; a browser enlarges smaller images without smoothing

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
        _section("Training and evaluation", _plots(panels)),
        _section("Most confused pairs of classes", _confused_pairs(report)),
        _section("Most confident errors", _errors(report)),
        _section("Metrics per class, lowest recall first", _classes(report)),
        _section("Configuration", f"<pre>{_escape(report.config)}</pre>" if report.config else ""),
        _section("Environment", _environment(report)),
    ]
    if report.metrics:
        _plot_summary(directory / SUMMARY, report)
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    text = template.substitute(title=_escape(report.title), body="\n".join(sections))
    (directory / PAGE).write_text(text, encoding="utf-8")


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
    tiles = {
        "top-1 accuracy": f"{100 * metrics['top1']:.2f} %",
        "top-5 accuracy": f"{100 * metrics['top5']:.2f} %",
        "mean recall of the classes": f"{100 * metrics['balanced_accuracy']:.2f} %",
        "loss (nats)": f"{metrics['loss']:.4f}",
        "calibration error": f"{100 * metrics['calibration_error']:.1f} %",
        "evaluated examples": f"{metrics['examples']:,}",
        **({"epochs": str(last["epoch"])} if last else {}),
        **(report.facts or {}),
    }
    cells = (f"<div><b>{_escape(value)}</b>{_escape(name)}</div>" for name, value in tiles.items())
    return f'<div class="tiles">{"".join(cells)}</div>'


def _plots(panels: Mapping[str, Path]) -> str:
    images = (_image(path.read_bytes(), alt=name.replace("_", " ")) for name, path in panels.items())
    return f'<div class="plots">{"".join(images)}</div>'


def _confused_pairs(report: Report) -> str:
    """Return the most confused pairs of classes as HTML, with their counts and some images."""
    evaluation, names = report.evaluation, report.class_names
    pairs = []
    for true, predicted, count in evaluation.confused_pairs(_MAX_PAIRS):
        indices = evaluation.worst_errors(_MAX_IMAGES_PER_PAIR, pair=(true, predicted))
        total = np.sum(evaluation.targets == true)
        fraction = f"{count:,} of {total:,}".replace(" ", "\N{NO-BREAK SPACE}")
        heading = _escape(f"{names[true]} predicted as {names[predicted]}: {fraction}")
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
    for index, image, row in zip(indices, report.load_images(indices), probabilities, strict=True):
        true, predicted = evaluation.targets[index], evaluation.predictions[index]
        lines = (f"{names[true]} ({row[true]:.0%})", f"→ {names[predicted]} ({row[predicted]:.0%})")
        caption = "<br>".join(map(_escape, lines))
        small = min(image.shape[:2]) < _SMALL_IMAGE
        element = _image(_png(image), alt=f"image {index} of the evaluated split", small=small)
        captioned.append(f"<figure>{element}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="images">{"".join(captioned)}</div>'


def _classes(report: Report) -> str:
    names, counts = report.class_names, report.train_counts

    def row(each: ClassMetrics) -> str:
        precision = "never predicted" if np.isnan(each.precision) else f"{each.precision:.4f}"
        numbers = [f"{each.examples:,}", f"{each.recall:.4f}", precision]
        if counts is not None:
            numbers.insert(0, f"{counts[each.index]:,}")
        confused = f"{names[each.confused_with]} ({each.confusions:,})" if each.confusions else ""
        return _row(_cell(names[each.index]), *(_cell(number, "number") for number in numbers), _cell(confused))

    columns = [] if counts is None else ["trained on"]
    columns += ["evaluated on", "recall", "precision"]
    numbers = (f'<th class="number">{name}</th>' for name in columns)
    head = _row("<th>class</th>", *numbers, "<th>confused with</th>")
    return _table(map(row, report.evaluation.by_class), head=f"<thead>{head}</thead>")


def _environment(report: Report) -> str:
    entries = (report.environment or {}).items()
    rows = [_row(_cell(name, "name"), _cell(value)) for name, value in entries]
    return _table(rows) if rows else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>" if content else ""


def _table(rows: Iterable[str], *, head: str = "") -> str:
    return f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _row(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _cell(text: str, css_class: str = "") -> str:
    attribute = f' class="{css_class}"' if css_class else ""
    return f"<td{attribute}>{_escape(text)}</td>"


def _escape(text: str) -> str:
    """Escape text for HTML; replace control characters except line feeds."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))


def _image(png: bytes, *, alt: str, small: bool = False) -> str:
    attribute = ' class="small"' if small else ""
    return f'<img{attribute} src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{_escape(alt)}">'


def _png(image: np.ndarray) -> bytes:
    colored = np.broadcast_to(image, (*image.shape[:2], 3))
    file = io.BytesIO()
    image_writer.imsave(file, np.clip(colored, 0.0, 1.0), format="png")
    return file.getvalue()
