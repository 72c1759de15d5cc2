"""Content of a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_tf.core.calibration_check import CalibrationCheck
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.robustness import Robustness
from resnet_tf.core.serving_benchmark import ServingBenchmark
from resnet_tf.report import elements

# Maps indices in the evaluated split to decoded and resized images, each float [H, W, 1 or 3] in [0, 1].
LoadImages = Callable[[Sequence[int]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Report:
    """Content of a report.

    Attributes:
        title: network and data set.
        evaluation: labels and logits of the evaluated split.
        class_names: names of the classes in label order.
        load_images: loads images of the evaluated split by index.
        metrics: records of metrics.jsonl; empty if the training run is unknown.
        train_counts: training examples per class, int [C], or None if unknown.
        calibration: probabilities before and after calibration; None without calibration.
        facts: additional headline values: name -> text.
        config: the resolved configuration as text.
        environment: versions and hardware: name -> text.
        robustness: metric on corrupted images, if it was measured.
        serving: speed, memory and accuracy of exports, if they were measured.
    """

    title: str
    evaluation: Evaluation
    class_names: Sequence[str]
    load_images: LoadImages
    metrics: Sequence[dict[str, Any]] = ()
    train_counts: np.ndarray | None = None
    calibration: CalibrationCheck | None = None
    facts: Mapping[str, str] | None = None
    config: str = ""
    environment: Mapping[str, str] | None = None
    robustness: Robustness | None = None
    serving: ServingBenchmark | None = None


def captioned(load_images: LoadImages, indices: Sequence[int], caption: Callable[[int], Sequence[str]]) -> str:
    """Return images of the evaluated split as HTML, each with lines of text that `caption` returns for its index."""
    elements_of_images = [
        elements.figure(image, caption(index), alt=f"image {index} of the evaluated split")
        for index, image in zip(indices, load_images(indices), strict=True)
    ]
    return elements.gallery(elements_of_images)
