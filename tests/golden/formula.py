"""Weights and images computed from name and shape, so that fixtures store outputs only."""

import zlib

import numpy as np


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 values for a variable of a PyTorch state dict or a Keras layer, neither trivial nor extreme."""
    uniform = _uniform(name, shape)
    if len(shape) > 1:
        # Kernels: variance 2 / fan-in; [out, in, ...] for PyTorch, [..., in, out] for Keras.
        fan_in = np.prod(shape[1:]) if name.endswith("weight") else np.prod(shape[:-1])
        # Gates of squeeze-and-excitation must not saturate: a network of switches is chaotic in any framework.
        gain = 0.3 if ".se." in name else 1.0
        return ((uniform - 0.5) * gain * np.sqrt(12 * 2 / fan_in)).astype(np.float32)
    if name.endswith(("running_var", "moving_variance")):
        return (0.5 + uniform).astype(np.float32)
    if name.endswith(("weight", "gamma")):
        return (0.6 + 0.8 * uniform).astype(np.float32)
    return (0.2 * (uniform - 0.5)).astype(np.float32)


def images(count: int, size: int) -> np.ndarray:
    """Return normalized float32 [count, size, size, 3] with some structure."""
    rows, columns = (axis[..., None] for axis in np.mgrid[:size, :size] / size)
    image, channel = np.arange(count)[:, None, None, None], np.arange(3)
    waves = np.sin((7 + 9 * image) * rows + channel) * np.cos(5 * columns - channel + image)
    noise = _uniform("pictures", (count, size, size, 3)) - 0.5
    return (2 * waves + noise).astype(np.float32)


def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return values in [0, 1): Weyl's sequence of an irrational that the name selects."""
    count = int(np.prod(shape))
    start = zlib.crc32(name.encode()) / 2**32
    index = np.arange(1, count + 1, dtype=np.float64)
    # Two incommensurate steps, the second quadratic: neighbors do not correlate.
    return np.reshape((start + index * 0.6180339887498949 + index * index * (0.1414213562373095 + start)) % 1.0, shape)


def photo(size: int) -> np.ndarray:
    """Return an image with smooth areas, edges and colors, uint8 [size, size, 3]."""
    y, x = np.mgrid[:size, :size] / size
    smooth = np.stack([np.sin(3 * x + 2 * y), np.cos(4 * y - x), np.sin(5 * x * y + 1)], axis=-1)
    edges = ((np.hypot(x - 0.4, y - 0.6) < 0.3) ^ ((7 * x).astype(int) % 2 == 0))[..., np.newaxis]
    return np.rint(127.5 + 80 * smooth + 40 * edges * [1, -1, 0.5]).clip(0, 255).astype(np.uint8)
