"""Parts of a page about single-label examples."""

from collections.abc import Sequence

import numpy as np

from resnet_tf.core.metrics import METRIC_TITLES, ClassMetrics, SingleLabelEvaluation
from resnet_tf.core.text import shows_top5
from resnet_tf.report import elements
from resnet_tf.report.content import Report, captioned
from resnet_tf.report.elements import cell, escape, row

_MAX_ERRORS = 24
_MAX_PAIRS, _MAX_IMAGES_PER_PAIR = 8, 4


def tiles(report: Report) -> dict[str, str]:
    """Return headline values: name -> text."""
    metrics = report.evaluation.to_dict()
    top5 = ["top5"] if shows_top5(report.evaluation.logits.shape[1]) else []
    return {
        **{METRIC_TITLES[name]: f"{100 * metrics[name]:.2f} %" for name in ("top1", *top5, "balanced_accuracy")},
        METRIC_TITLES["loss"]: f"{metrics['loss']:.4f}",
        METRIC_TITLES["calibration_error"]: _calibration_error(report),
    }


def _calibration_error(report: Report) -> str:
    check = report.calibration
    if check is None:
        return f"{100 * _evaluation(report).calibration_error:.1f} %"
    before, after = (100 * each.calibration_error for each in (check.before, check.after))
    return f"{before:.1f} → {after:.1f}\N{NO-BREAK SPACE}%"


def sections(report: Report) -> dict[str, str]:
    """Return sections as HTML: title -> content."""
    return {
        "Most confused pairs of classes": _confused_pairs(report),
        "Most confident errors": _errors(report),
        "Metrics per class, lowest recall first": _classes(report),
    }


def errors(report: Report, count: int) -> dict[int, tuple[str, str]]:
    """Return the index of at most `count` errors, the most confident ones first -> true and predicted class."""
    evaluation, names = _evaluation(report), report.class_names
    return {
        index: (names[evaluation.targets[index]], names[evaluation.predictions[index]])
        for index in evaluation.worst_errors(count)
    }


def _evaluation(report: Report) -> SingleLabelEvaluation:
    assert isinstance(report.evaluation, SingleLabelEvaluation)
    return report.evaluation


def _confused_pairs(report: Report) -> str:
    """Return the most confused pairs of classes as HTML, with their counts and some images."""
    evaluation, names = _evaluation(report), report.class_names
    pairs = []
    for true, predicted, count in evaluation.confused_pairs(_MAX_PAIRS):
        indices = evaluation.worst_errors(_MAX_IMAGES_PER_PAIR, pair=(true, predicted))
        total = np.sum(evaluation.targets == true)
        fraction = f"{count:,} of {total:,}".replace(" ", "\N{NO-BREAK SPACE}")
        heading = escape(f"{names[true]} predicted as {names[predicted]}: {fraction}")
        pairs.append(f'<div class="pair"><h3>{heading}</h3>{_images(report, indices)}</div>')
    return f'<div class="pairs">{"".join(pairs)}</div>' if pairs else "<p>No class is predicted as another.</p>"


def _errors(report: Report) -> str:
    indices = _evaluation(report).worst_errors(_MAX_ERRORS)
    legend = "<p>True class → predicted class, each with its predicted probability.</p>"
    return legend + _images(report, indices) if indices else "<p>No errors.</p>"


def _images(report: Report, indices: Sequence[int]) -> str:
    """Return images as HTML, with true and predicted class and their probabilities as captions."""
    evaluation, names = _evaluation(report), report.class_names
    probabilities = evaluation.probabilities

    def caption(index: int) -> tuple[str, str]:
        true, predicted, scores = evaluation.targets[index], evaluation.predictions[index], probabilities[index]
        return f"{names[true]} ({scores[true]:.0%})", f"→ {names[predicted]} ({scores[predicted]:.0%})"

    return captioned(report.load_images, indices, caption)


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
    return elements.table(map(describe, _evaluation(report).by_class), head=head)
