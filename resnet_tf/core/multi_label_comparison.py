"""Comparison of two multi-label models on the same examples."""

import functools
from typing import Any

import numpy as np

from resnet_tf.core.comparison import Answers, Comparison, Slice
from resnet_tf.core.paired import Paired, adjust_p_values
from resnet_tf.core.paired_multi_label import Change, MultiLabelPaired
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.core.text import shortened

_MAX_NAME = 40  # characters of a name in a line
_MAX_LINES = 5  # classes with the largest drops
_NONE = "no class"


class MultiLabelComparison(Comparison):
    """Two multi-label models; `paired` and flips are those of exact matches.

    `Answers.predictions` are the selected classes, bool [N, C], `Answers.confidence` the probabilities, float64 [N, C],
    and `targets` the classes of each example, bool [N, C], all in the order of `class_names`.
    """

    accuracy_name = "exact match"

    @functools.cached_property
    def multi_label(self) -> MultiLabelPaired:
        """Changes of average precision and F1."""
        return MultiLabelPaired(
            self.targets,
            (self.old.ranking, self.new.ranking),
            (self.old.predictions, self.new.predictions),
        )

    @property
    def class_changes(self) -> list[tuple[str, int, Change, Change]]:
        """Name, number of examples, and changes of average precision and F1 of each class, largest drop of it first."""
        paired, counts = self.multi_label, self.targets.sum(axis=0).tolist()
        rows = zip(self.class_names, counts, paired.average_precision_by_class, paired.f1_by_class, strict=True)
        return sorted((row for row in rows if row[1]), key=lambda row: row[2].difference)

    @property
    def slices(self) -> dict[str, list[Slice]]:
        """Slices by each property; those by class compare the decisions about the class on all examples."""
        old, new = (each.predictions == self.targets for each in self.answers)
        parts = [Paired(*columns) for columns in zip(old.T, new.T, strict=True)]
        p_values = adjust_p_values([part.p_value for part in parts])
        slices = [Slice(*each) for each in zip(self.class_names, parts, p_values, strict=True)]
        return {"class": sorted(slices, key=lambda each: (each.paired.difference, each.p_value)), **super().slices}

    @property
    def _new_hits(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of examples of each class for which the new model selects it, and of all, int64 [C] each."""
        return (self.new.predictions & self.targets).sum(axis=0), self.targets.sum(axis=0)

    def reliability(self, each: Answers) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities of all decisions, and whether each example has the class, [N * C] each."""
        return each.reported_confidence.ravel(), self.targets.ravel()

    def name_target(self, index: int) -> str:
        """Return the names of the classes of an example."""
        return self._join(self.targets[index])

    def name_prediction(self, each: Answers, index: int) -> str:
        """Return the names of the classes that a model selects for an example."""
        return self._join(each.predictions[index])

    def is_correct(self, each: Answers) -> np.ndarray:
        """Return whether all decisions about each example are right, bool [N]."""
        return (each.predictions == self.targets).all(axis=1)

    def flip_confidence(self, index: np.ndarray) -> np.ndarray:
        """Return the largest probability of a wrong decision of the new model about each of some examples."""
        probabilities, selected = self.new.confidence[index], self.new.predictions[index]
        decided = np.where(selected, probabilities, 1 - probabilities)
        return np.where(selected != self.targets[index], decided, 0.0).max(axis=1, initial=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        classes = [
            {"name": name, "examples": count, "average_precision": precision.to_dict(), "f1": f1.to_dict()}
            for name, count, precision, f1 in self.class_changes
        ]
        return {
            **super().to_dict(),
            "mean_average_precision": self.multi_label.mean_average_precision.to_dict(),
            "f1_macro": self.multi_label.f1_macro.to_dict(),
            "classes": classes,
        }

    @property
    def _metric_lines(self) -> list[str]:
        known = self.multi_label
        lines = [f"mAP            {known.mean_average_precision}", f"mean F1        {known.f1_macro}"]
        return lines + super()._metric_lines

    @property
    def _slice_lines(self) -> list[str]:
        worse = [row for row in self.class_changes if row[2].difference < 0][:_MAX_LINES]
        lines = [f"  {precision}  {shortened(name, _MAX_NAME)} ({count:,})" for name, count, precision, _ in worse]
        head = "average precision by class" if worse else "average precision by class: no class is worse"
        return [head, *lines, *super()._slice_lines]

    def _join(self, classes: np.ndarray) -> str:
        return ", ".join(MULTI_LABEL.names(classes, self.class_names)) or _NONE
