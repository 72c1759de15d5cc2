"""Detection of examples of another distribution by a score, and its metrics."""

from dataclasses import asdict, dataclass

import numpy as np

_RECALL = 0.95  # fraction of examples of the own distribution that are accepted


@dataclass(frozen=True)
class OutOfDistribution:
    """Separation of two data sets by the energy, which is higher for unknown examples.

    Reference: Liu et al., Energy-based Out-of-distribution Detection, 2020.

    Attributes:
        data: name of the other data set.
        examples: number of its examples.
        auroc: probability that an example of the other data set has a higher energy than one of the own, in [0, 1];
            ties count as half. 0.5 is chance.
        false_positive_rate: fraction of the other data set that is accepted by the energy that accepts 95 % of the own.
    """

    data: str
    examples: int
    auroc: float
    false_positive_rate: float

    def to_dict(self) -> dict[str, str | float]:
        """Return the fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"AUROC {self.auroc:.4f}, false positive rate {self.false_positive_rate:.4f} at 95 % true positives, "
            f"against {self.examples:,} examples of {self.data}"
        )


def separate(known: np.ndarray, other: np.ndarray, data: str) -> OutOfDistribution:
    """Return the separation by energies of examples of the own and of another distribution, float [N] and [M]."""
    return OutOfDistribution(data, len(other), _auroc(known, other), _false_positive_rate(known, other))


def _auroc(known: np.ndarray, other: np.ndarray) -> float:
    """Return the area under the ROC curve as the normalized rank sum of Mann and Whitney, with midranks for ties."""
    ordered = np.sort(known)
    below, up_to = (np.searchsorted(ordered, other, end) for end in ("left", "right"))
    return float(np.mean(below + up_to) / 2 / len(known))


def _false_positive_rate(known: np.ndarray, other: np.ndarray) -> float:
    limit = np.sort(known)[int(np.ceil(_RECALL * len(known))) - 1]
    return float(np.mean(other <= limit))
