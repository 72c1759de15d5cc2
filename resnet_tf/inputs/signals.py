"""Preprocessing of signals (samples over time) for 1D networks."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from resnet_tf.config import DataConfig
from resnet_tf.core.ranges import MAX_VALUES, check_integer
from resnet_tf.core.text import counted
from resnet_tf.inputs.arrays import ArrayPreprocess
from resnet_tf.inputs.base import Preprocess, register_input_type, resolve_statistics

_PLOT_WIDTH, _PLOT_HEIGHT = 96, 64  # pixels; the height is divided among the channels
_LEAST_CHANNEL_HEIGHT = 16  # pixels


@register_input_type("signal")
@dataclass(frozen=True, kw_only=True)
class SignalPreprocess(ArrayPreprocess):
    """Preprocessing of signals, float32 [length, channels]: normalize each channel.

    >>> SignalPreprocess(length=16000, channels=1).input_shape
    (16000, 1)

    Attributes:
        length: number of samples per channel.
        channels: number of channels, at least 1.
        mean: subtracted from the samples: one value per channel, or one for all channels.
        std: divisor of the centered samples: one value per channel, or one for all channels.
    """

    length: int

    noun: ClassVar[str] = "signal"
    plural: ClassVar[str] = "signals"
    size_key: ClassVar[str] = "data.length"
    supported_augmentations: ClassVar[frozenset[str]] = ArrayPreprocess.supported_augmentations | {"pad_crop"}
    unused_settings: ClassVar[tuple[str, ...]] = (
        *("data.image_size", "data.crop_fraction", "data.interpolation", "data.channel_order"),
        *("data.exif_orientation", "data.max_pixels"),
    )
    example_file: ClassVar[str] = "signal.npy"
    axes: ClassVar[str] = "L"
    value_range: ClassVar[str] = "samples"
    origins: ClassVar[str] = "sensors"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("length", self.length, minimum=1, maximum=MAX_VALUES)
        self.check_number_of_values()

    @classmethod
    def from_config(cls, data: DataConfig, weights: Preprocess | None = None) -> Self:
        """Create the preprocessing for `data.length` and `data.channels`, with default statistics of `weights`."""
        length, channels = cls.shape_from_config(data)
        mean, std = resolve_statistics(data, weights or cls(length=length, channels=channels))
        return cls(length=length, channels=channels, mean=mean, std=std)

    @classmethod
    def shape_from_config(cls, data: DataConfig) -> tuple[int, ...]:
        """Return (data.length, data.channels)."""
        return data.length, data.channels

    @classmethod
    def from_input_shape(cls, shape: tuple[int | None, ...]) -> Self | None:
        """Return preprocessing without normalization for a 1D network of fixed length."""
        if len(shape) != 2 or shape[0] is None or shape[1] is None:
            return None
        return cls(length=shape[0], channels=shape[1])

    def with_size(self, sizes: tuple[int, ...]) -> Self:
        """Return a copy for another input size, (length,)."""
        (length,) = sizes
        return dataclasses.replace(self, length=length)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input: (length, channels)."""
        return self.length, self.channels

    @property
    def size_text(self) -> str:
        """Length in words, such as `16,000 samples`."""
        return counted(self.length, "sample")

    @property
    def description(self) -> str:
        """Description of the examples for model cards, one sentence."""
        return f"A signal of {counted(self.length, 'sample')} in {counted(self.channels, 'channel')}, not normalized."

    def plot(self, example: np.ndarray) -> np.ndarray:
        """Plot the curve of each channel, black on white, uint8 [H, W, 1].

        The channels are stacked in bands. Zero is at the middle of a band, the largest absolute sample at an edge. A
        column covers the range of the samples in its interval.
        """
        length, channels = example.shape
        edges = np.linspace(0, length, min(length, _PLOT_WIDTH) + 1).astype(int)
        following = example[np.minimum(edges[1:], length - 1)]  # so that adjacent columns join
        low = np.minimum(np.minimum.reduceat(example, edges[:-1]), following)
        high = np.maximum(np.maximum.reduceat(example, edges[:-1]), following)
        scale = np.maximum(np.abs(example).max(axis=0), np.finfo(np.float32).tiny)
        height = max(_PLOT_HEIGHT // channels, _LEAST_CHANNEL_HEIGHT)
        top, bottom = (np.rint((1 - edge / scale) / 2 * (height - 1)) for edge in (high, low))
        rows = np.arange(height)[:, np.newaxis, np.newaxis]
        ink = (rows >= top) & (rows <= bottom)  # [height, width, channels]
        bands = ink.transpose(2, 0, 1).reshape(channels * height, -1, 1)
        return np.where(bands, 0, 255).astype(np.uint8)
