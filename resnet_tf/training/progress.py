"""Training progress stored in checkpoints, so that a resumed run reports the same metrics."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.validation import find_mismatch

_LATER = ("ended", "ended_of", "out_of_patience", "best_epoch", "best_score", "stale")


@dataclass
class RunState:
    """Counters of a run.

    Attributes:
        step: training steps.
        epochs: completed epochs.
        loss: sum of the losses of the current epoch, without skipped steps.
        correct: correct predictions of these steps.
        images: images of these steps.
        labeled: images of these steps with a class, which all but those of multi-label targets have.
        gradient_norm: sum of the gradient norms of these steps.
        taken: number of these steps.
        seconds: training time of the current epoch, input included.
        skipped: steps of the run that were skipped as non-finite.
        nonfinite_streak: number of consecutive non-finite steps up to the latest.
        rolled_back: True if the run has returned to a checkpoint because of such steps.
        ended: True if a callback, `train.patience` or `train.minutes` ended the run.
        ended_of: `train.epochs` when it ended, so that a longer run continues; 0 before.
        out_of_patience: True if `train.patience` ended the run.
        best_epoch: number of the epoch with the best evaluation; 0 before the first evaluation.
        best_score: its score, see `selection.score`.
        stale: evaluations since then.
    """

    step: int = 0
    epochs: int = 0
    loss: float = 0.0
    correct: float = 0.0
    images: int = 0
    labeled: float = 0.0
    gradient_norm: float = 0.0
    taken: int = 0
    seconds: float = 0.0
    skipped: int = 0
    nonfinite_streak: int = 0
    rolled_back: bool = False
    ended: bool = False
    ended_of: int = 0
    out_of_patience: bool = False
    best_epoch: int = 0
    best_score: float = 0.0
    stale: int = 0

    def add(self, statistics: np.ndarray, *, batch_size: int) -> None:
        """Add steps, float32 [count, 5], see `step.STATISTICS`.

        Steps are added one by one, so that sums do not depend on how steps are grouped into calls.
        """
        for loss, correct, norm, nonfinite, labeled in statistics.astype(np.float64).tolist():
            self.step += 1
            self.nonfinite_streak = self.nonfinite_streak + 1 if nonfinite else 0
            if not np.isfinite([loss, norm]).all():
                self.skipped += 1
                continue
            self.loss += loss
            self.correct += correct
            self.labeled += labeled
            self.gradient_norm += norm
            self.images += batch_size
            self.taken += 1

    def end_epoch(self) -> None:
        """Count an epoch and reset its sums."""
        self.epochs += 1
        self.loss = self.correct = self.labeled = self.gradient_norm = self.seconds = 0.0
        self.images = self.taken = 0

    def compare(self, score: float | None) -> None:
        """Compare the evaluation of the current epoch, by its `selection.score`, with the best one before."""
        if score is not None and (not self.best_epoch or score > self.best_score):
            self.best_epoch, self.best_score, self.stale = self.epochs + 1, score, 0
        else:
            self.stale += 1

    def end(self, *, of: int) -> None:
        """Mark the run as ended before the last of its epochs."""
        self.ended, self.ended_of = True, of

    def extend(self, epochs: int, *, changed: bool) -> None:
        """Continue a run that ended before, if it has other epochs now; patience begins anew.

        Args:
            epochs: `train.epochs`.
            changed: whether it changed since the run was last started; earlier versions do not store `ended_of`.
        """
        if self.ended and (changed or self.ended_of not in (0, epochs)):
            self.ended, self.ended_of, self.out_of_patience, self.stale = False, 0, False, 0

    def to_logs(self) -> dict[str, float]:
        """Return means over the current epoch, NaN before its first step; accuracy is that of images with a class."""
        images, labeled, taken = self.images or np.nan, self.labeled or np.nan, self.taken or np.nan
        logs = {"step": self.step, "loss": self.loss / images, "top1": self.correct / labeled}
        logs["gradient_norm"] = self.gradient_norm / taken
        return logs | ({"skipped": self.skipped} if self.skipped else {})

    def to_numbers(self) -> list[float]:
        """Return all counters as numbers, to send them to other workers."""
        return [float(value) for value in dataclasses.astuple(self)]

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "RunState":
        """Return the counters of `to_numbers`."""
        return cls(*(type(value)(number) for value, number in zip(dataclasses.astuple(cls()), numbers, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Return the counters for the metadata of a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "RunState":
        """Return the state that `to_dict` described.

        Raises:
            UserError: if a field is missing, unknown or not of its type.
        """
        hints = get_type_hints(cls)
        # Checkpoints of earlier versions do not state the last of the fields, and their accuracy is that of all images.
        later = {name: value for name, value in dataclasses.asdict(cls()).items() if name in _LATER}
        fields = later | {"labeled": fields.get("images", 0)} | dict(fields)
        if different := sorted(set(hints) ^ set(fields)):
            raise UserError(f"run.{different[0]} is {'missing' if different[0] in hints else 'unknown'}")
        for name, value in fields.items():
            if mismatch := find_mismatch(value, hints[name], f"run.{name}"):
                raise UserError(mismatch)
            lowest = -np.inf if name == "best_score" else 0
            if not (np.isfinite(value) and value >= lowest):
                raise UserError(f"run.{name} is {value}, not a finite number of at least 0")
        return cls(**fields)
