"""Where a run is: what a checkpoint holds beside variables, so that a run that continues tells the same figures."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class RunState:
    """Counts of a run.

    Attributes:
        step: training steps taken.
        epochs: epochs that are trained and tested.
        loss: sum of the losses in the epoch under way, of the steps that were not skipped.
        right: right answers among them.
        images: their images.
        gradient_norm: sum of their gradients' norms.
        taken: their number.
        seconds: what training took in the epoch under way, input included.
        skipped: steps of the run whose loss or gradient was not finite.
        bad_in_a_row: how many of the newest steps were bad, the newest included.
        went_back: whether the run went back to a checkpoint for such steps already.
    """

    step: int = 0
    epochs: int = 0
    loss: float = 0.0
    right: float = 0.0
    images: int = 0
    gradient_norm: float = 0.0
    taken: int = 0
    seconds: float = 0.0
    skipped: int = 0
    bad_in_a_row: int = 0
    went_back: bool = False

    def add(self, figures: np.ndarray, *, batch_size: int) -> None:
        """Take in steps: float32 [count, 4], see `step.FIGURES`. One by one, so that it is the same in any portions."""
        for loss, right, norm, bad in figures.astype(np.float64).tolist():
            self.step += 1
            self.bad_in_a_row = self.bad_in_a_row + 1 if bad else 0
            if not np.isfinite([loss, norm]).all():
                self.skipped += 1
                continue
            self.loss += loss
            self.right += right
            self.gradient_norm += norm
            self.images += batch_size
            self.taken += 1

    def end_epoch(self) -> None:
        """The next epoch's sums start at 0."""
        self.epochs += 1
        self.loss = self.right = self.gradient_norm = self.seconds = 0.0
        self.images = self.taken = 0

    def to_logs(self) -> dict[str, float]:
        """Means over the epoch so far; not a number before its first step."""
        images, taken = self.images or np.nan, self.taken or np.nan
        logs = {"step": self.step, "loss": self.loss / images, "top1": self.right / images}
        logs["gradient_norm"] = self.gradient_norm / taken
        return logs | ({"skipped": self.skipped} if self.skipped else {})

    def to_numbers(self) -> list[float]:
        """All counts, for other workers."""
        return [float(value) for value in dataclasses.astuple(self)]

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "RunState":
        """The inverse of `to_numbers`."""
        return cls(*(type(value)(number) for value, number in zip(dataclasses.astuple(cls()), numbers, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's metadata."""
        return dataclasses.asdict(self)
