"""Robustness to common corruptions: the metric of a network on corrupted images, by corruption and severity.

Reference: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions, 2019.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import MAIN_METRICS, METRIC_TITLES
from resnet_tf.core.text import counted
from resnet_tf.core.validation import check_types

# Corruptions by group, in the order of the paper.
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTION_NAMES = tuple(name for names in GROUPS.values() for name in names)
# The published frost is cut from photographs; this package synthesizes its own, so that results are not comparable.
NOT_COMPARABLE = ("frost",)
SEVERITIES = (1, 2, 3, 4, 5)


class _Stored(TypedDict):
    metric: str
    clean: float
    examples: int
    parameters: str
    seed: int
    corruptions: dict[str, list[float]]


@dataclass(frozen=True, repr=False)
class Robustness:
    """Metric on images with each common corruption.

    Attributes:
        metric: `top1`, or `mean_average_precision` of multi-label targets.
        clean: value without corruption, a fraction in [0, 1].
        scores: corruption -> its values at severities 1 to 5.
        parameters: data set whose parameters the corruptions have, such as `CIFAR-10-C`.
        examples: number of images.
        seed: of the random numbers.
    """

    metric: str
    clean: float
    scores: Mapping[str, tuple[float, ...]]
    parameters: str
    examples: int
    seed: int = 0

    @classmethod
    def from_dict(cls, stored: Any) -> "Robustness":
        """Create the object from the result of `to_dict`, also if read from JSON.

        Raises:
            UserError: for missing corruptions, or values of other types or ranges.
        """
        check_types(stored, _Stored)
        scores = {name: tuple(values) for name, values in stored["corruptions"].items()}
        if set(scores) != set(CORRUPTION_NAMES) or any(len(values) != len(SEVERITIES) for values in scores.values()):
            raise UserError(f"corruptions must be {', '.join(CORRUPTION_NAMES)}, with five values each")
        found = [stored["clean"], *(value for values in scores.values() for value in values)]
        if not all(0 <= value <= 1 for value in found):
            raise UserError("a value of a corruption is outside of [0, 1]")
        if stored["metric"] not in MAIN_METRICS:
            raise UserError(f"metric is {stored['metric']!r}, not one of {', '.join(MAIN_METRICS)}")
        ordered = {name: scores[name] for name in CORRUPTION_NAMES}
        return cls(stored["metric"], stored["clean"], ordered, stored["parameters"], stored["examples"], stored["seed"])

    def to_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON.

        `mean_error` and `error_increase`, over the clean error, are means over all corruptions and severities; they are
        not divided by errors of AlexNet, as the mCE of ImageNet-C is. `mean_comparable` leaves out `not_comparable`.
        """
        return {
            "metric": self.metric,
            "clean": self.clean,
            "mean": self.mean,
            "mean_error": 1 - self.mean,
            "error_increase": self.clean - self.mean,
            "mean_comparable": self.mean_comparable,
            "not_comparable": list(NOT_COMPARABLE),
            "examples": self.examples,
            "parameters": self.parameters,
            "seed": self.seed,
            "corruptions": {name: list(values) for name, values in self.scores.items()},
        }

    @property
    def mean(self) -> float:
        """Mean over all corruptions and severities."""
        return self.mean_of(self.scores)

    @property
    def mean_comparable(self) -> float:
        """Mean over the corruptions that are computed as published, all but `NOT_COMPARABLE`."""
        return self.mean_of(set(self.scores) - set(NOT_COMPARABLE))

    def mean_of(self, names: Iterable[str]) -> float:
        """Return the mean over some corruptions and all severities."""
        return float(np.mean([self.scores[name] for name in names]))

    def by_severity(self, names: Iterable[str]) -> list[float]:
        """Return the mean over some corruptions at severities 1 to 5."""
        return np.mean([self.scores[name] for name in names], axis=0).tolist()

    @property
    def title(self) -> str:
        """Name of the metric in words."""
        return METRIC_TITLES[self.metric]

    @property
    def summary(self) -> str:
        """Means and parameters, complete sentences."""
        return (
            f"Mean {self.title} over {len(self.scores)} corruptions in {len(SEVERITIES)} severities: "
            f"{self.mean:.2%}, on images without corruption {self.clean:.2%}. "
            f"Without {', '.join(NOT_COMPARABLE)}, whose texture is that of resnet_tf and not of the published data: "
            f"{self.mean_comparable:.2%}. Parameters of {self.parameters}, on {counted(self.examples, 'example')}."
        )

    def describe(self) -> str:
        """Return one line for each corruption, and one for the mean."""
        lines = {**self.scores, "mean": tuple(self.by_severity(self.scores))}
        return "\n".join(
            f"{name:18} {float(np.mean(values)):.4f}  {'  '.join(f'{value:.4f}' for value in values)}"
            for name, values in lines.items()
        )

    def __repr__(self) -> str:
        return f"Robustness(clean={self.clean:.4f}, mean={self.mean:.4f}, examples={self.examples})"
