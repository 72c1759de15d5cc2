"""Adaptation of the first convolution to another number of input channels."""

import logging
from collections.abc import Callable, Mapping

import numpy as np

from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.ranges import shorten
from resnet_tf.core.text import counted

logger = logging.getLogger(__name__)

# First convolution of networks with a stem.
STEM_LAYERS = ("stem_conv", "stem_conv1")


def check_method(name: str) -> None:
    """Check the name of a method.

    Raises:
        UserError: if it is unknown.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise UserError(f"adapt_channels={shorten(name)}; did you mean {closest(name, METHODS)}?")


def fits_but_channels(kernel: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return True if a kernel [..., in, out] has another number of input channels than `shape`, and nothing else."""
    theirs, ours = kernel.shape, tuple(shape)
    same_rank = len(theirs) == len(ours) > 2
    return same_rank and theirs[-2] != ours[-2] and (*theirs[:-2], theirs[-1]) == (*ours[:-2], ours[-1])


def adapt_channels(kernel: np.ndarray, channels: int, *, method: str) -> np.ndarray:
    """Return the kernel of a first convolution for another number of input channels.

    Args:
        kernel: float [..., in, out].
        channels: number of input channels of the result.
        method: `repeat` sums the channels for one, and otherwise repeats them in their order, scaled by in / channels,
            as timm's `adapt_input_conv`; `average` gives each channel the mean of all, scaled likewise; `zero` keeps
            the channels and appends zeros.

    Raises:
        UserError: for an unknown method, or `zero` with fewer channels.
    """
    check_method(method)
    adapted = METHODS[method](kernel.astype(np.float32), channels)
    logger.info("the first convolution takes %d input channels instead of %d: %s", channels, kernel.shape[-2], method)
    return adapted


def _repeat(kernel: np.ndarray, channels: int) -> np.ndarray:
    count = kernel.shape[-2]
    if channels == 1:
        return kernel.sum(axis=-2, keepdims=True)
    return kernel[..., np.arange(channels) % count, :] * np.float32(count / channels)


def _average(kernel: np.ndarray, channels: int) -> np.ndarray:
    return np.repeat(kernel.sum(axis=-2, keepdims=True), channels, axis=-2) / np.float32(channels)


def _zero(kernel: np.ndarray, channels: int) -> np.ndarray:
    count = kernel.shape[-2]
    if channels < count:
        raise UserError(
            f"adapt_channels='zero' adds channels: the weights have {counted(count, 'input channel')}, the network "
            f"{channels}; 'repeat' and 'average' take any number"
        )
    return np.pad(kernel, [(0, 0)] * (kernel.ndim - 2) + [(0, channels - count), (0, 0)])


METHODS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "repeat": _repeat,
    "average": _average,
    "zero": _zero,
}
