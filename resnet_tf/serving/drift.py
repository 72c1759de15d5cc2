"""Drift: differences between the answers of an export and those of the network that it was made from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from resnet_tf.core.errors import UserError


@dataclass(frozen=True)
class Drift:
    """Differences that an export's arithmetic causes.

    Attributes:
        examples: number of examples compared.
        data: origin of the examples.
        same_top1: number of examples with the same best class.
        logits: root mean square of the differences between logits, relative to the standard deviation of the logits.
        top1_before: top-1 accuracy of the network in float32, in [0, 1]; None if the classes of the examples are
            unknown.
        top1_after: top-1 accuracy of the export, in [0, 1]; None as above.
    """

    examples: int
    data: str
    same_top1: int
    logits: float
    top1_before: float | None
    top1_after: float | None

    def __str__(self) -> str:
        accuracy = "" if self.top1_before is None else f", top-1 {self.top1_before:.4f} to {self.top1_after:.4f}"
        alike = f"{self.same_top1} of {self.examples} examples ({self.data}) answered alike"
        return f"{alike}, logit drift {self.logits:.2%}{accuracy}"


def measure_drift(
    exact: Callable[[np.ndarray], np.ndarray],
    export: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray | None]],
    data: str,
) -> Drift:
    """Compare the logits of a network and of its export.

    Args:
        exact: the network in float32, from inputs to logits, float32 [B, C].
        export: the export, likewise.
        batches: images, float32 [B, H, W, 3] in [0, 1], or signals, float32 [B, L, C]; and labels, int64 [B], or None.
        data: origin of the examples, for messages.
    """
    before, after, labels = [], [], []
    for inputs, targets in batches:
        before.append(exact(inputs))
        after.append(export(inputs))
        labels += [] if targets is None else [targets]
    ours, theirs = np.concatenate(before), np.concatenate(after)
    known = np.concatenate(labels) if labels else None
    best, best_after = ours.argmax(axis=1), theirs.argmax(axis=1)
    return Drift(
        examples=len(ours),
        data=data,
        same_top1=int(np.sum(best == best_after)),
        logits=float(np.sqrt(np.mean(np.square(theirs - ours))) / np.std(ours)),
        top1_before=None if known is None else float(np.mean(best == known)),
        top1_after=None if known is None else float(np.mean(best_after == known)),
    )


def check_drift(drift: Drift, *, max_logit_drift: float, max_accuracy_drop: float) -> None:
    """Refuse an export beyond a tolerance.

    Raises:
        UserError: naming the tolerance.
    """
    if not drift.logits <= max_logit_drift:
        raise UserError(
            f"the export is not kept: {drift}; export.max_logit_drift={max_logit_drift} allows less. "
            "A higher precision has less drift"
        )
    drop = (drift.top1_before or 0.0) - (drift.top1_after or 0.0)
    if drop > max_accuracy_drop:
        raise UserError(
            f"the export is not kept: {drift}; export.max_accuracy_drop={max_accuracy_drop} allows less. "
            "A higher precision loses less"
        )
