"""Noise: Gaussian, shot and impulse."""

from collections.abc import Sequence

import numpy as np


def gaussian_noise(images: np.ndarray, scale: float, generators: Sequence[np.random.Generator]) -> np.ndarray:
    """Add normal noise of a standard deviation."""
    return images + np.stack([each.normal(scale=scale, size=images.shape[1:]) for each in generators])


def shot_noise(images: np.ndarray, photons: float, generators: Sequence[np.random.Generator]) -> np.ndarray:
    """Sample a Poisson distribution, in which white is `photons` events."""
    pairs = zip(images.astype(np.float64), generators, strict=True)
    return np.stack([generator.poisson(image * photons) for image, generator in pairs]) / photons


def impulse_noise(images: np.ndarray, amount: float, generators: Sequence[np.random.Generator]) -> np.ndarray:
    """Set a fraction `amount` of the values, each channel on its own, to 0 or 1 with equal probability."""
    # For each image, first the values that are replaced, then those of them that are 1.
    uniform = np.stack([[each.random(images.shape[1:]) for _ in range(2)] for each in generators])
    replaced, is_white = uniform[:, 0] <= amount, uniform[:, 1] <= 0.5
    return np.where(replaced, is_white, images)
