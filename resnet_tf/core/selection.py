"""Metrics of the validation split that select the best checkpoint, by their names in `train.metric`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUTO = "auto"


@dataclass(frozen=True)
class SelectionMetric:
    """A metric by which evaluations are compared.

    Attributes:
        key: name in `Evaluation.to_dict`.
        higher_is_better: direction of improvement.
        multi_label: True or False if only multi-label or only single-label data have it; None for both.
    """

    key: str
    higher_is_better: bool = True
    multi_label: bool | None = None


# In the order in which `auto` takes the first that the data have.
SELECTION_METRICS = {
    "mean_average_precision": SelectionMetric("mean_average_precision", multi_label=True),
    "accuracy": SelectionMetric("top1", multi_label=False),
    "balanced_accuracy": SelectionMetric("balanced_accuracy", multi_label=False),
    "f1_micro": SelectionMetric("f1_micro", multi_label=True),
    "f1_macro": SelectionMetric("f1_macro", multi_label=True),
    "loss": SelectionMetric("loss", higher_is_better=False),
}


def find_metric(name: str, *, multi_label: bool) -> str:
    """Return the name of the metric that `train.metric` stands for; empty if the data do not have it.

    >>> find_metric("auto", multi_label=False), find_metric("auto", multi_label=True)
    ('accuracy', 'mean_average_precision')
    """
    fitting = [each for each, metric in SELECTION_METRICS.items() if metric.multi_label in (None, multi_label)]
    return fitting[0] if name == AUTO else name if name in fitting else ""


def score(name: str, metrics: Mapping[str, Any] | None) -> float | None:
    """Return a number that is higher for a better evaluation; None without the metric, or if it is not finite.

    >>> score("loss", {"top1": 0.9, "loss": 0.25})
    -0.25

    Args:
        name: value of `train.metric`.
        metrics: see `Evaluation.to_dict`; None without an evaluation.
    """
    for each in SELECTION_METRICS if name == AUTO else [name]:
        metric = SELECTION_METRICS[each]
        if metric.key in (metrics or {}):
            value = metrics[metric.key]  # type: ignore[index]
            if value is None or not math.isfinite(value):
                return None
            return float(value) if metric.higher_is_better else -float(value)
    return None
