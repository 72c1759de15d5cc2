"""Weather: snow, frost, fog and brightness."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_tf.data.corruptions import axes, blur

Generators = Sequence[np.random.Generator]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# Measured on crops of the photographs of the published frost: mean and standard deviation of the brightness of crops,
# standard deviation within a crop, and differences of the channels from the brightness.
_FROST_MEAN, _FROST_DEVIATION, _FROST_CONTRAST = 0.634, 0.151, 0.087
_FROST_TINT = np.array([-0.070, 0.011, 0.058], np.float32)
_FROST_STRETCH = 3.0  # of the needles, which have one direction in a crop


def snow(images: np.ndarray, parameters: tuple[float, ...], generators: Generators) -> np.ndarray:
    """Whiten, and add falling flakes.

    `parameters` are mean and standard deviation of the flakes, their zoom, the threshold below which there is none,
    radius and sigma of their motion, and the weight of the image.
    """
    mean, deviation, zoom, threshold, radius, sigma, weight = parameters
    height, width = images.shape[1:3]
    flakes, angles = [], []
    for generator in generators:
        flakes.append(generator.normal(mean, deviation, (height, width)))
        angles.append(generator.uniform(-135, -45))
    layer = axes.apply(np.stack(flakes)[..., np.newaxis], [axes.zoom(height, zoom)], [axes.zoom(width, zoom)])
    layer = np.floor(np.where(layer < threshold, 0.0, np.clip(layer, 0.0, 1.0)) * 255.0) / 255.0
    layer = blur.move(layer.astype(np.float32), radius, sigma, angles)
    gray = (images @ _LUMA)[..., np.newaxis]
    whitened = weight * images + (1 - weight) * np.maximum(images, gray * 1.5 + 0.5)
    return whitened + layer + layer[:, ::-1, ::-1]


def frost(images: np.ndarray, parameters: tuple[float, float, float], generators: Generators) -> np.ndarray:
    """Add a texture of ice needles.

    The published data sets add crops of six photographs of frost. This texture is synthesized instead: noise with a
    power-law spectrum, stretched in a random direction, with the brightness, contrast and tint of those photographs.
    `parameters` are the weights of image and texture, and the exponent of the spectrum.
    """
    weight, frost_weight, exponent = parameters
    height, width = images.shape[1:3]
    textures = np.stack([_frost_texture(height, width, exponent, each) for each in generators])
    return weight * images + frost_weight * np.clip(textures[..., np.newaxis] + _FROST_TINT, 0.0, 1.0)


def _frost_texture(height: int, width: int, exponent: float, generator: np.random.Generator) -> np.ndarray:
    """Return the brightness of a texture, [height, width]."""
    brightness = generator.normal(_FROST_MEAN, _FROST_DEVIATION)
    angle = generator.uniform(0, np.pi)
    spectrum = np.fft.rfft2(generator.normal(size=(height, width)))
    y, x = np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    frequency = np.hypot(along * _FROST_STRETCH, across)
    frequency[0, 0] = np.inf  # no mean
    texture = np.fft.irfft2(spectrum / frequency**exponent, (height, width))
    return brightness + _FROST_CONTRAST / max(float(texture.std()), 1e-9) * texture


def fog(images: np.ndarray, parameters: tuple[float, float], generators: Generators) -> np.ndarray:
    """Add a fractal cloud; `parameters` are its amount and the decay of its roughness at each finer scale."""
    amount, decay = parameters
    height, width = images.shape[1:3]
    clouds = plasma(1 << (max(height, width) - 1).bit_length(), decay, generators)[:, :height, :width, np.newaxis]
    largest = images.max(axis=(1, 2, 3), keepdims=True)
    return (images + amount * clouds) * largest / (largest + amount)


def plasma(size: int, decay: float, generators: Generators) -> np.ndarray:
    """Return fractal height maps by the diamond-square algorithm, float64 [B, size, size] in [0, 1].

    The map is periodic. `size` is a power of two.
    """
    uniform = [2 * each.random(size**2 - 1) - 1 for each in generators]
    heights, step, roughness, used = np.zeros((len(uniform), size, size)), size, 100.0, 0

    def displaced(total: Any) -> Any:
        nonlocal used
        noise = np.stack([values[used : used + total[0].size] for values in uniform]).reshape(total.shape)
        used += total[0].size
        return total / 4 + roughness**2 * noise

    while step >= 2:
        corners, centers = (slice(None, None, step),) * 2, (slice(step // 2, None, step),) * 2
        corner = heights[:, *corners]
        beside = corner + np.roll(corner, -1, axis=1)
        heights[:, *centers] = center = displaced(beside + np.roll(beside, -1, axis=2))
        above = center + np.roll(center, 1, axis=1) + corner + np.roll(corner, -1, axis=2)
        heights[:, corners[0], centers[1]] = displaced(above)
        left = center + np.roll(center, 1, axis=2) + beside
        heights[:, centers[0], corners[1]] = displaced(left)
        step, roughness = step // 2, roughness / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / np.maximum(heights.max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)


def brightness(images: np.ndarray, amount: float, generators: Generators) -> np.ndarray:
    """Add to the value of HSV, which scales the channels of a pixel alike; black becomes gray."""
    value = images.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + np.float32(amount), 1.0)
    return np.where(value > 0, images * (brighter / np.where(value > 0, value, 1.0)), brighter)
