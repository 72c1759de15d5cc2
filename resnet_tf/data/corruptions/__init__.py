"""Common corruptions of images: 15 corruptions in five severities, with the parameters of the published data sets.

Reference: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions, 2019.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.robustness import CORRUPTION_NAMES, SEVERITIES
from resnet_tf.data.corruptions import blur, digital, noise, weather
from resnet_tf.data.corruptions.parameters import CIFAR_10_C, IMAGENET_C, TINY_IMAGENET_C, ParameterSet

# Maps images, float32 [B, H, W, 3] in [0, 1], the parameters of a severity, and a random generator for each image to
# corrupted images, which are clipped to [0, 1] later.
Corruption = Callable[[np.ndarray, Any, Sequence[np.random.Generator]], np.ndarray]

# By the names of the files of CIFAR-10-C.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
# Beyond float32 rounding, in levels: a value that is exactly a level must not become the one below.
_ROUNDING = 1e-3


def parameters_for(height: int, width: int) -> ParameterSet:
    """Return the parameters for an image size, by its shorter edge: up to 32 pixels, up to 64 pixels, or more."""
    shorter = min(height, width)
    return CIFAR_10_C if shorter <= 32 else TINY_IMAGENET_C if shorter <= 64 else IMAGENET_C


def corrupt(images: np.ndarray, corruption: str, severity: int, *, indices: Sequence[int], seed: int = 0) -> np.ndarray:
    """Corrupt images at the input size of a network, as the published data sets do after resizing and cropping.

    The result for an image depends on `seed`, corruption, severity and index only, not on the other images. Images of
    sizes whose data set is stored as JPEG are compressed with its quality, too.

    Args:
        images: RGB, uint8 [B, H, W, 3].
        corruption: one of `CORRUPTIONS`.
        severity: 1 to 5.
        indices: index of each image in its data set, from 0.
        seed: of the random numbers, from 0.

    Returns:
        uint8 [B, H, W, 3].

    Raises:
        UserError: for an unknown corruption or severity.
    """
    if corruption not in CORRUPTIONS:
        raise UserError(f"unknown corruption {corruption!r}; did you mean {closest(corruption, CORRUPTIONS)}?")
    if severity not in SEVERITIES:
        raise UserError(f"severity={severity!r}; expected 1 to 5")
    position = CORRUPTION_NAMES.index(corruption)
    generators = [np.random.default_rng((seed, position, severity, int(index))) for index in indices]
    published = parameters_for(*images.shape[1:3])
    parameters = published.corruptions[corruption][severity - 1]
    corrupted = quantize(CORRUPTIONS[corruption](images / np.float32(255), parameters, generators))
    return digital.compress(corrupted, published.stored_quality) if published.stored_quality else corrupted


def quantize(images: np.ndarray) -> np.ndarray:
    """Return values clipped to [0, 1] as uint8, truncated as in the reference."""
    return (np.clip(images, 0.0, 1.0) * 255.0 + _ROUNDING).astype(np.uint8)
