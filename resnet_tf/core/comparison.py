"""Comparison of two models on the same examples, and the gates that a new model must pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.paired import Paired, adjust_p_values
from resnet_tf.core.ranges import Range, check_number
from resnet_tf.core.reliability import calibration_error
from resnet_tf.core.text import counted, printable, shortened

_MAX_NAME = 40  # characters of a name in a line
_MAX_LINES = 5  # slices with the largest drops


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of a model for the examples of a comparison, and its properties.

    Attributes:
        name: path of the model, or of a predictions file.
        description: network, target and precision; empty for a predictions file.
        predictions: predicted class of each example, index in `Comparison.class_names`, int64 [N].
        confidence: probability of the predicted class, float64 [N].
        held_out_confidence: the same, by a calibration that was not fitted to the example; None for `confidence`.
        logits: of a multi-label model, in the order of its probabilities but without their rounding, float32 [N, C];
            None if they are unknown.
        loss: mean cross-entropy in nats; None if only the best classes are known.
        preprocess: preprocessing as plain values; None for a predictions file.
        milliseconds: latency by batch size, measured in turns with the other model; empty if it was not measured.
        parameters: number of parameters; None for a predictions file.
        bytes: size of the files of an export; None otherwise.
    """

    name: str
    description: str
    predictions: np.ndarray
    confidence: np.ndarray
    held_out_confidence: np.ndarray | None = None
    logits: np.ndarray | None = None
    loss: float | None = None
    preprocess: Mapping[str, Any] | None = None
    milliseconds: Mapping[int, float] = field(default_factory=dict)
    parameters: int | None = None
    bytes: int | None = None

    @property
    def reported_confidence(self) -> np.ndarray:
        """Confidence from which the calibration error is computed."""
        return self.confidence if self.held_out_confidence is None else self.held_out_confidence

    @property
    def ranking(self) -> np.ndarray:
        """Values by which average precision ranks the examples."""
        return self.confidence if self.logits is None else self.logits


@dataclass(frozen=True)
class Slice:
    """A part of the examples.

    Attributes:
        name: such as the name of a class.
        paired: accuracies of both models on the part.
        p_value: of McNemar's test, adjusted for all slices by the same property (Holm 1979).
    """

    name: str
    paired: Paired
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        return {"name": self.name, **_numbers(self.paired), "p_value": self.p_value}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models on the same examples.

    Attributes:
        data: name of the data set and its split.
        old: the model in use.
        new: its replacement.
        targets: class of each example, index in `class_names`, int64 [N].
        class_names: names of the classes of the old model in its order, then those that only the new one has.
        groups: property -> name of each slice by this property -> indices of its examples.
    """

    data: str
    old: Answers
    new: Answers
    targets: np.ndarray
    class_names: Sequence[str]
    groups: Mapping[str, Mapping[str, np.ndarray]]

    accuracy_name: ClassVar[str] = "accuracy"

    @property
    def paired(self) -> Paired:
        """Accuracies of both models."""
        return Paired(self.is_correct(self.old), self.is_correct(self.new))

    def is_correct(self, each: Answers) -> np.ndarray:
        """Return whether each example is answered correctly, bool [N]."""
        return each.predictions == self.targets

    def reliability(self, each: Answers) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities, and whether what they belong to is true, [N] each."""
        return each.reported_confidence, self.is_correct(each)

    def name_target(self, index: int) -> str:
        """Return the name of the class of an example."""
        return self.class_names[self.targets[index]]

    def name_prediction(self, each: Answers, index: int) -> str:
        """Return the name of the class that a model predicts for an example."""
        return self.class_names[each.predictions[index]]

    def flip_confidence(self, index: np.ndarray) -> np.ndarray:
        """Return the probability of the wrong answer of the new model for each of some examples."""
        return self.new.confidence[index]

    @property
    def new_recalls(self) -> dict[str, float]:
        """Recall of the new model in each class that has examples, by name."""
        hits, counts = self._new_hits
        rows = zip(self.class_names, hits.tolist(), counts.tolist(), strict=True)
        return {name: hit / count for name, hit, count in rows if count}

    @property
    def _new_hits(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of examples of each class that the new model answers correctly, and of all, int64 [C] each."""
        right = self.targets[self.is_correct(self.new)]
        hits, counts = (np.bincount(each, minlength=len(self.class_names)) for each in (right, self.targets))
        return hits, counts

    @property
    def negative_flips(self) -> np.ndarray:
        """Return the indices of the negative flips, those with the most confident new prediction first, int64."""
        paired = self.paired
        indices = np.flatnonzero(paired.old & ~paired.new)
        return indices[np.argsort(-self.flip_confidence(indices), kind="stable")]

    @property
    def slices(self) -> dict[str, list[Slice]]:
        """Slices by each property, those with the largest drop of the accuracy first."""
        paired, found = self.paired, {}
        for name, groups in self.groups.items():
            parts = [Paired(paired.old[indices], paired.new[indices]) for indices in groups.values()]
            p_values = adjust_p_values([part.p_value for part in parts])
            slices = [Slice(*each) for each in zip(groups, parts, p_values, strict=True)]
            found[name] = sorted(slices, key=lambda each: (each.paired.difference, each.p_value))
        return found

    @property
    def calibration_errors(self) -> tuple[float, float]:
        """Return the expected calibration error of the old and of the new model."""
        old, new = (calibration_error(*self.reliability(each)) for each in self.answers)
        return old, new

    @property
    def answers(self) -> tuple[Answers, Answers]:
        """The old and the new model."""
        return self.old, self.new

    @property
    def latency_ratios(self) -> dict[int, float]:
        """Latency of the new model relative to the old one, by batch size; empty if it was not measured."""
        old, new = self.old.milliseconds, self.new.milliseconds
        return {size: new[size] / old[size] for size in old.keys() & new.keys()}

    @property
    def preprocess_differences(self) -> dict[str, tuple[Any, Any]] | None:
        """Settings of the preprocessing that differ: name -> (old, new); None if one of them is unknown."""
        old, new = self.old.preprocess, self.new.preprocess
        if old is None or new is None:
            return None
        names = [*old, *(name for name in new if name not in old)]
        return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON."""
        differences = self.preprocess_differences
        return {
            "data": self.data,
            **_numbers(self.paired),
            "p_value": self.paired.p_value,
            "old": self._describe(0),
            "new": self._describe(1),
            "latency_ratios": {str(size): ratio for size, ratio in sorted(self.latency_ratios.items())},
            "preprocess_agrees": None if differences is None else not differences,
            "preprocess_differences": {name: list(pair) for name, pair in (differences or {}).items()},
            "slices": {name: [each.to_dict() for each in slices] for name, slices in self.slices.items()},
        }

    def _describe(self, index: int) -> dict[str, Any]:
        each = self.answers[index]
        return {
            "name": each.name,
            "description": each.description,
            "accuracy": self.paired.accuracies[index],
            "loss": each.loss,
            "calibration_error": self.calibration_errors[index],
            "milliseconds": {str(size): value for size, value in each.milliseconds.items()},
            "parameters": each.parameters,
            "bytes": each.bytes,
        }

    def __str__(self) -> str:
        paired, errors = self.paired, self.calibration_errors
        lines = [
            f"data           {counted(paired.examples, 'example')} of {self.data}",
            *self._metric_lines,
            f"flips          {paired.negative:,} negative (right before, wrong now), {paired.positive:,} positive",
            f"calibration    error {errors[0]:.4f} to {errors[1]:.4f}{self._loss_text}",
            *self._cost_lines,
            f"preprocessing  {self._preprocess_text}",
            *self._slice_lines,
        ]
        return "\n".join(printable(line) for line in lines)

    @property
    def _metric_lines(self) -> list[str]:
        paired, (before, after), (low, high) = self.paired, self.paired.accuracies, self.paired.interval
        change = f"{before:.4f} to {after:.4f}: {paired.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
        return [f"{self.accuracy_name:<15}{change}, McNemar p={paired.p_value:.2g}"]

    @property
    def _slice_lines(self) -> list[str]:
        lines = []
        for name, slices in self.slices.items():
            worse = [each for each in slices if each.paired.difference < 0][:_MAX_LINES]
            lines += [f"by {name}", *map(_line, worse)] if worse else [f"by {name}: no slice is worse"]
        return lines

    @property
    def _loss_text(self) -> str:
        old, new = self.old.loss, self.new.loss
        return "" if old is None or new is None else f", loss {old:.4f} to {new:.4f}"

    @property
    def _cost_lines(self) -> list[str]:
        old, new, lines = self.old, self.new, []
        for size, ratio in sorted(self.latency_ratios.items()):
            pair = f"{old.milliseconds[size]:.4g} to {new.milliseconds[size]:.4g} ms"
            lines.append(f"latency        {pair} for {counted(size, 'example')}: {ratio:.2f} times")
        if old.bytes and new.bytes:
            lines.append(f"size           {old.bytes / 1e6:.4g} to {new.bytes / 1e6:.4g} MB")
        if old.parameters and new.parameters:
            lines.append(f"parameters     {old.parameters:,} to {new.parameters:,}")
        return lines

    @property
    def _preprocess_text(self) -> str:
        differences = self.preprocess_differences
        if differences is None:
            return "unknown for a predictions file"
        changed = (f"{name} {old} to {new}" for name, (old, new) in differences.items())
        return f"differs: {'; '.join(changed)}" if differences else "agrees"


@dataclass(frozen=True)
class Gate:
    """A condition that the new model must meet.

    Attributes:
        name: of the flag that states it.
        limit: as stated.
        value: the measured number.
        passed: whether it is met.
        text: the condition and the number in words.
    """

    name: str
    limit: float
    value: float
    passed: bool
    text: str


_LIMITS = {
    "max_accuracy_drop": Range(minimum=0, maximum=1),
    "max_negative_flips": Range(minimum=0),
    "max_latency_ratio": Range(above=0),
    "min_class_recall": Range(minimum=0, maximum=1),
}


def check_limits(limits: Mapping[str, float | None]) -> None:
    """Check the limits of gates before the models are evaluated; None is no limit.

    Raises:
        UserError: for a limit out of range.
    """
    for name, limit in limits.items():
        if limit is not None:
            check_number(name, limit, _LIMITS[name])


def check_gates(
    comparison: Comparison,
    *,
    max_accuracy_drop: float | None = None,
    max_negative_flips: float | None = None,
    max_latency_ratio: float | None = None,
    min_class_recall: float | None = None,
) -> list[Gate]:
    """Return the stated gates, each with its measured number; those that are None are not checked.

    Args:
        comparison: of two models; for a latency, it must have been measured.
        max_accuracy_drop: largest loss of accuracy, fraction in [0, 1].
        max_negative_flips: largest number of examples that were right and are wrong now.
        max_latency_ratio: largest latency for one example relative to the old model.
        min_class_recall: smallest recall of the new model in any class that has examples, fraction in [0, 1].

    Raises:
        UserError: for a recall, if no class has examples.
    """
    gates, paired = [], comparison.paired

    def check(name: str, limit: float | None, value: float, text: str, *, is_minimum: bool = False) -> None:
        if limit is not None:
            passed = value >= limit if is_minimum else value <= limit
            gates.append(Gate(name, limit, value, passed, f"{text}; the limit is {limit:g}"))

    # As a quotient of integers, which equals a limit such as 0.01 where the decimal numbers do.
    drop = (paired.negative - paired.positive) / paired.examples
    check("max_accuracy_drop", max_accuracy_drop, drop, f"the {comparison.accuracy_name} drops by {drop:.4f}")
    flips = counted(paired.negative, "negative flip")
    check("max_negative_flips", max_negative_flips, paired.negative, flips)
    if max_latency_ratio is not None:
        ratio = comparison.latency_ratios[1]
        check("max_latency_ratio", max_latency_ratio, ratio, f"the latency is {ratio:.2f} times that of the old model")
    if min_class_recall is not None:
        recalls = comparison.new_recalls
        if not recalls:
            raise UserError(f"min_class_recall cannot be measured: no example of {comparison.data} has a class")
        worst, recall = min(recalls.items(), key=lambda item: item[1])
        text = f"the recall of {shortened(worst, _MAX_NAME)!r} is {recall:.4f}"
        check("min_class_recall", min_class_recall, recall, text, is_minimum=True)
    return gates


def _numbers(paired: Paired) -> dict[str, Any]:
    return {
        "examples": paired.examples,
        "accuracies": list(paired.accuracies),
        "difference": paired.difference,
        "interval": list(paired.interval),
        "negative_flips": paired.negative,
        "positive_flips": paired.positive,
    }


def _line(each: Slice) -> str:
    (before, after), (low, high) = each.paired.accuracies, each.paired.interval
    return (
        f"  {each.paired.difference:+.4f}  {before:.4f} to {after:.4f}  [{low:+.4f}, {high:+.4f}]  p={each.p_value:.2g}"
        f"  {shortened(each.name, _MAX_NAME)} ({each.paired.examples:,})"
    )
