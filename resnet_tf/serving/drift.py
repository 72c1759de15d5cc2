"""Drift: differences between the logits of an export and of its network in float32."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import is_within
from resnet_tf.core.text import counted


@dataclass(frozen=True)
class Drift:
    """Differences caused by the arithmetic of an export.

    Attributes:
        examples: number of examples compared.
        data: origin of the examples.
        same_top1: number of examples with the same top-1 class.
        logits: root mean square of the differences between logits, relative to the standard deviation of the logits.
        top1_before: top-1 accuracy of the network in float32, in [0, 1]; None if the targets are unknown, or no
            example has a class.
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
        same = f"{self.same_top1} of {counted(self.examples, 'example')} ({self.data}) have the same top-1 class"
        return f"{same}, logit drift {self.logits:.2%}{accuracy}"


def measure_drift(
    exact: Callable[[np.ndarray], np.ndarray],
    export: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray | None]],
    data: str,
) -> Drift:
    """Compare the logits of a network and of its export.

    Args:
        exact: function of the network in float32, from inputs to logits, float32 [B, C].
        export: function of the export, from inputs to logits, float32 [B, C].
        batches: pairs of images, float32 [B, H, W, 3] in [0, 1], or signals, float32 [B, L, C], and labels, see
            `core.targets`, or None.
        data: origin of the examples, for messages.
    """
    before, after, known_targets = [], [], []
    for inputs, batch_targets in batches:
        before.append(exact(inputs))
        after.append(export(inputs))
        known_targets += [] if batch_targets is None else [batch_targets]
    expected, found = np.concatenate(before), np.concatenate(after)
    targets = np.concatenate(known_targets) if known_targets else None
    best_before, best_after = expected.argmax(axis=1), found.argmax(axis=1)
    return Drift(
        examples=len(expected),
        data=data,
        same_top1=int(np.sum(best_before == best_after)),
        logits=float(np.sqrt(np.mean(np.square(found - expected))) / np.std(expected)),
        top1_before=None if targets is None else _accuracy(targets, best_before),
        top1_after=None if targets is None else _accuracy(targets, best_after),
    )


def _accuracy(labels: np.ndarray, best: np.ndarray) -> float | None:
    """Return the fraction of the examples with a class that have the best one by the logits; None without any."""
    is_right = best == labels if labels.ndim == 1 else labels[np.arange(len(best)), best][labels.any(axis=1)]
    return float(np.mean(is_right)) if len(is_right) else None


def check_drift(drift: Drift, *, max_logit_drift: float, max_accuracy_drop: float) -> None:
    """Refuse an export whose drift exceeds a tolerance.

    Args:
        drift: the measured drift.
        max_logit_drift: largest `Drift.logits`.
        max_accuracy_drop: largest difference between top-1 accuracies before and after, a fraction in [0, 1].

    Raises:
        UserError: naming the tolerance.
    """
    if not drift.logits <= max_logit_drift:
        raise UserError(
            f"export rejected: {drift}; the logit drift exceeds export.max_logit_drift={max_logit_drift}. "
            "Choose a higher precision or a larger limit"
        )
    drop = (drift.top1_before or 0.0) - (drift.top1_after or 0.0)
    if not is_within(drop, max_accuracy_drop):
        raise UserError(
            f"export rejected: {drift}; the accuracy drop exceeds export.max_accuracy_drop={max_accuracy_drop}. "
            "Choose a higher precision or a larger limit"
        )
