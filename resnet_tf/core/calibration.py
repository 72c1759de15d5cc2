"""Calibration of a network: the map from its logits to probabilities, and the confidence of a certain prediction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted
from resnet_tf.core.validation import check_types

_LIMIT = 1e6  # largest temperature, inverse temperature and bias in a file


class CalibrationFields(TypedDict):
    """Calibration as JSON values; see `Calibration`."""

    temperatures: list[float]
    biases: list[float]
    threshold: NotRequired[float]
    target_precision: NotRequired[float]
    held_out: NotRequired[dict[str, float | None]]


@dataclass(frozen=True)
class Calibration:
    """Map from logits to probabilities: softmax or sigmoid of scaled and shifted logits.

    Probabilities are those of `logits / temperatures + biases`. One temperature of all classes keeps their order. With
    a temperature and a bias for each class, the order of the examples by each class stays the same.

    Reference: Guo et al., On Calibration of Modern Neural Networks, 2017.

    Attributes:
        temperatures: one for all classes, of a softmax; one for each class, of sigmoids (vector scaling).
        biases: as many as temperatures; 0 for a softmax.
        threshold: confidence below which a prediction is unsure, in [0, 1]; None without a target precision, or if the
            evaluation split does not reach it.
        target_precision: fraction of the predictions from `threshold` on that are to be right; None without one.
        held_out: metrics on examples that did not fit, see `CalibrationCheck.to_dict`; None if unknown.
    """

    temperatures: tuple[float, ...] = (1.0,)
    biases: tuple[float, ...] = (0.0,)
    threshold: float | None = None
    target_precision: float | None = None
    held_out: Mapping[str, float | None] | None = None

    def __post_init__(self) -> None:
        if not self.temperatures or len(self.temperatures) != len(self.biases):
            raise UserError(f"{counted(len(self.temperatures), 'temperature')} for {len(self.biases)} biases")
        for each in self.temperatures:
            if not 1 / _LIMIT <= each <= _LIMIT:  # nor is NaN
                raise UserError(f"a temperature is {each}; expected a positive number")
        for each in self.biases:
            if not -_LIMIT <= each <= _LIMIT:
                raise UserError(f"a bias is {each}; expected a number")
        for name in ("threshold", "target_precision"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} is {value}; expected a probability in [0, 1]")
        if self.threshold is not None and self.target_precision is None:
            raise UserError("threshold is set, and target_precision is not")

    @property
    def is_identity(self) -> bool:
        """Return True if the probabilities are the softmax or sigmoid of the logits themselves."""
        return set(self.temperatures) == {1.0} and set(self.biases) == {0.0}

    @property
    def temperature(self) -> float:
        """Temperature of all classes, or the geometric mean of those of the classes."""
        return math.exp(sum(map(math.log, self.temperatures)) / len(self.temperatures))

    def apply(self, logits: Any) -> Any:
        """Return calibrated logits, [B, C], of an array or a tensor of that shape; float32 stays float32."""
        if self.is_identity:
            return logits
        return logits * (1 / np.array(self.temperatures)).astype(np.float32) + np.array(self.biases, np.float32)

    def ranking(self, logits: Any) -> Any:
        """Return values that rank the classes of each example as their probabilities do, [B, C].

        These are the logits, for one temperature of all classes: rounding cannot change their order.
        """
        return logits if len(self.temperatures) == 1 else self.apply(logits)

    def check_classes(self, count: int) -> "Calibration":
        """Return this calibration, checked to be of a network with `count` classes.

        Raises:
            UserError: for another number of temperatures than 1 or `count`.
        """
        if len(self.temperatures) not in (1, count):
            raise UserError(f"{counted(len(self.temperatures), 'temperature')} for {counted(count, 'class')}")
        return self

    def to_dict(self) -> CalibrationFields:
        """Return the fields as JSON values, without those that are None."""
        fields: CalibrationFields = {"temperatures": list(self.temperatures), "biases": list(self.biases)}
        if self.threshold is not None:
            fields["threshold"] = self.threshold
        if self.target_precision is not None:
            fields["target_precision"] = self.target_precision
        if self.held_out is not None:
            fields["held_out"] = dict(self.held_out)
        return fields

    def to_entry(self) -> dict[str, CalibrationFields]:
        """Return {"calibration": `to_dict()`} for metadata; empty for probabilities of the logits as they are."""
        return {} if self == UNCALIBRATED else {"calibration": self.to_dict()}

    @classmethod
    def from_dict(cls, fields: Any, classes: int | None = None) -> "Calibration":
        """Return the calibration that `to_dict` described; None gives that of probabilities as they are.

        Args:
            fields: JSON values.
            classes: number of classes of the network; None for any.

        Raises:
            UserError: for a field of the wrong type, value or length, as in a corrupt file.
        """
        if fields is None:
            return UNCALIBRATED
        check_types(fields, CalibrationFields)
        known: Sequence[float] = fields["temperatures"]
        found = cls(
            temperatures=tuple(map(float, known)),
            biases=tuple(map(float, fields["biases"])),
            threshold=fields.get("threshold"),
            target_precision=fields.get("target_precision"),
            held_out=fields.get("held_out"),
        )
        return found if classes is None else found.check_classes(classes)


UNCALIBRATED = Calibration()
