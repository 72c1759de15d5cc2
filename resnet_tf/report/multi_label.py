"""Parts of a page about multi-label examples."""

from collections.abc import Iterable

import numpy as np

from resnet_tf.core.metrics import METRIC_TITLES
from resnet_tf.core.multi_label_metrics import LabelMetrics, MultiLabelEvaluation
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.report import elements
from resnet_tf.report.content import Report, captioned
from resnet_tf.report.elements import cell, row

_FRACTIONS = ("mean_average_precision", "f1_micro", "f1_macro")  # metrics shown in percent
_MAX_ERRORS = 24
_MAX_PAIRS = 24
_NONE = "no class"


def tiles(report: Report) -> dict[str, str]:
    """Return headline values: name -> text."""
    metrics = report.evaluation.to_dict()
    return {
        **{METRIC_TITLES[name]: f"{100 * metrics[name]:.2f} %" for name in _FRACTIONS},
        "best class is right": f"{100 * metrics['top1']:.2f} %",
        METRIC_TITLES["loss"]: f"{metrics['loss']:.4f}",
    }


def sections(report: Report) -> dict[str, str]:
    """Return sections as HTML: title -> content."""
    return {
        "Most confident errors": _errors(report),
        "Metrics per class, lowest average precision first": _classes(report),
        "Classes that occur together": _pairs(report),
    }


def errors(report: Report, count: int) -> dict[int, tuple[str, str]]:
    """Return the index of at most `count` examples, the most confident errors first -> true and selected classes."""
    evaluation, names = _evaluation(report), report.class_names
    return {
        index: (
            _join(MULTI_LABEL.names(evaluation.targets[index], names)),
            _join(MULTI_LABEL.names(evaluation.selected[index], names)),
        )
        for index in evaluation.worst_errors(count)
    }


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or _NONE


def _evaluation(report: Report) -> MultiLabelEvaluation:
    assert isinstance(report.evaluation, MultiLabelEvaluation)
    return report.evaluation


def _errors(report: Report) -> str:
    """Return the most confident errors as HTML: classes that are missed, and those that are selected wrongly."""
    evaluation, names, probabilities = _evaluation(report), report.class_names, _evaluation(report).probabilities

    def caption(index: int) -> list[str]:
        targets, selected = evaluation.targets[index], evaluation.selected[index]
        parts = {"right": targets & selected, "missed": targets & ~selected, "wrong": selected & ~targets}
        found = {word: np.flatnonzero(part).tolist() for word, part in parts.items() if part.any()}
        return [
            f"{word}: {_join(f'{names[label]} ({probabilities[index, label]:.0%})' for label in labels)}"
            for word, labels in found.items()
        ]

    indices = evaluation.worst_errors(_MAX_ERRORS)
    legend = "<p>Classes with their predicted probability.</p>"
    return legend + captioned(report.load_images, indices, caption) if indices else "<p>No errors.</p>"


def _classes(report: Report) -> str:
    names, counts = report.class_names, report.train_counts

    def describe(each: LabelMetrics) -> str:
        precision = "never selected" if np.isnan(each.precision) else f"{each.precision:.4f}"
        numbers = [f"{each.examples:,}", f"{each.average_precision:.4f}", f"{each.f1:.4f}", precision]
        numbers += [f"{each.recall:.4f}", f"{each.threshold:.4f}"]
        if counts is not None:
            numbers.insert(0, f"{counts[each.index]:,}")
        return row(cell(names[each.index]), *(cell(number, "number") for number in numbers))

    columns = [] if counts is None else ["trained on"]
    columns += ["evaluated on", "average precision", "F1", "precision", "recall", "threshold"]
    return elements.table(
        map(describe, _evaluation(report).by_class), head=elements.head(["class", *columns], numbers=columns)
    )


def _pairs(report: Report) -> str:
    """Return the pairs of classes that most examples have, and how many of them are selected together."""
    evaluation, names = _evaluation(report), report.class_names
    selected = evaluation.selected.astype(np.int64)
    true, predicted = np.triu(evaluation.co_occurrence, 1), selected.T @ selected
    order = np.argsort(-true, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [np.unravel_index(index, true.shape) for index in order]
    rows = [
        row(
            cell(names[one]),
            cell(names[other]),
            *(cell(f"{each[one, other]:,}", "number") for each in (true, predicted)),
        )
        for one, other in pairs
        if true[one, other]
    ]
    numbers = ("examples", "selected together")
    return elements.table(rows, head=elements.head(["class", "and", *numbers], numbers=numbers)) if rows else ""
