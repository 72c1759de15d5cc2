"""How much an export answers otherwise than the network it was made of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from resnet_tf.core.errors import UserError


@dataclass(frozen=True)
class Change:
    """What an export's arithmetic does to the answers.

    Attributes:
        pictures: how many were compared.
        data: where they are from.
        same_top1: how many of them have the same best class.
        logits: root of the mean square of the logits' differences, relative to the logits' standard deviation.
        top1_before: accuracy of the network in float32; None where nobody knows what the examples are.
        top1_after: accuracy of the export.
    """

    pictures: int
    data: str
    same_top1: int
    logits: float
    top1_before: float | None
    top1_after: float | None

    def __str__(self) -> str:
        accuracy = "" if self.top1_before is None else f", top-1 {self.top1_before:.4f} to {self.top1_after:.4f}"
        alike = f"{self.same_top1} of {self.pictures} examples ({self.data}) answered alike"
        return f"{alike}, logits changed by {self.logits:.2%}{accuracy}"


def measure_change(
    exact: Callable[[np.ndarray], np.ndarray],
    export: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray | None]],
    data: str,
) -> Change:
    """Ask both for the logits of batches, (images [B, H, W, 3] in [0, 1] or signals [B, L, C], labels [B] or None).

    `data` says where these are from.
    """
    before, after, labels = [], [], []
    for images, classes in batches:
        before.append(exact(images))
        after.append(export(images))
        labels += [] if classes is None else [classes]
    ours, theirs = np.concatenate(before), np.concatenate(after)
    known = np.concatenate(labels) if labels else None
    best, best_after = ours.argmax(axis=1), theirs.argmax(axis=1)
    return Change(
        pictures=len(ours),
        data=data,
        same_top1=int(np.sum(best == best_after)),
        logits=float(np.sqrt(np.mean(np.square(theirs - ours))) / np.std(ours)),
        top1_before=None if known is None else float(np.mean(best == known)),
        top1_after=None if known is None else float(np.mean(best_after == known)),
    )


def check_change(change: Change, *, max_logit_change: float, max_accuracy_loss: float) -> None:
    """Refuse an export that answers too differently.

    Raises:
        UserError: naming the tolerance that it is beyond.
    """
    if not change.logits <= max_logit_change:
        raise UserError(
            f"the export is not kept: {change}; export.max_logit_change={max_logit_change} allows less. "
            "A higher precision changes less"
        )
    loss = (change.top1_before or 0.0) - (change.top1_after or 0.0)
    if loss > max_accuracy_loss:
        raise UserError(
            f"the export is not kept: {change}; export.max_accuracy_loss={max_accuracy_loss} allows less. "
            "A higher precision loses less"
        )
