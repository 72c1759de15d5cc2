"""Signals: samples over time, for the networks of one dimension."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from resnet_tf.config import DataConfig
from resnet_tf.inputs.arrays import ArrayPreprocess, numbers_text
from resnet_tf.inputs.base import Preprocess, check_count, register_input_type, resolve_statistics

_PLOT_WIDTH, _PLOT_HEIGHT = 96, 64  # pixels, the height shared by the channels
_LEAST_CHANNEL_HEIGHT = 16  # pixels


@register_input_type("signal")
@dataclass(frozen=True, kw_only=True)
class SignalPreprocess(ArrayPreprocess):
    """Preprocessing of signals, float32 [length, channels]: each channel is normalized.

    >>> SignalPreprocess(length=16000, channels=1).input_shape
    (16000, 1)

    Attributes:
        length: samples.
        channels: any number.
        mean: subtracted from the samples, one value a channel or one for all; 0 leaves them.
        std: divides them after that, one value a channel or one for all; 1 leaves them.
    """

    length: int

    noun: ClassVar[str] = "signal"
    plural: ClassVar[str] = "signals"
    size_key: ClassVar[str] = "data.length"
    supported_augmentations: ClassVar[frozenset[str]] = ArrayPreprocess.supported_augmentations | {"pad_crop"}
    example_file: ClassVar[str] = "signal.npy"
    axes: ClassVar[str] = "L"
    value_range: ClassVar[str] = "samples"
    origins: ClassVar[str] = "sensors"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("length", self.length)

    @classmethod
    def from_config(cls, data: DataConfig, weights: Preprocess | None = None) -> Self:
        """Return what `data.length` and `data.channels` ask for, normalized as the weights were, or not at all."""
        length, channels = cls.shape_from_config(data)
        mean, std = resolve_statistics(data, weights or cls(length=length, channels=channels))
        return cls(length=length, channels=channels, mean=mean, std=std)

    @classmethod
    def shape_from_config(cls, data: DataConfig) -> tuple[int, ...]:
        """Return (data.length, data.channels)."""
        return data.length, data.channels

    @classmethod
    def from_input_shape(cls, shape: tuple[int | None, ...]) -> Self | None:
        """Return signals as they are, for a network of one dimension whose length is fixed."""
        if len(shape) != 2 or shape[0] is None or shape[1] is None:
            return None
        return cls(length=shape[0], channels=shape[1])

    def with_size(self, sizes: tuple[int, ...]) -> Self:
        """Return the same for (length,)."""
        (length,) = sizes
        return dataclasses.replace(self, length=length)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(length, channels)."""
        return self.length, self.channels

    @property
    def size_text(self) -> str:
        """The length, such as `16,000 samples`."""
        return f"{self.length:,} samples"

    @property
    def description(self) -> str:
        """A sentence for model cards."""
        normalized = f"minus {numbers_text(self.mean)}, divided by {numbers_text(self.std)}"
        return f"A signal of {self.length:,} samples in {self.channels} channel(s), {normalized}."

    def plot(self, example: np.ndarray) -> np.ndarray:
        """Return the curve of each channel, black on white, uint8 [H, W, 1].

        Each channel has a band of its own: zero is in its middle, the largest sample at an edge. A column spans all
        samples that it stands for.
        """
        length, channels = example.shape
        edges = np.linspace(0, length, min(length, _PLOT_WIDTH) + 1).astype(int)
        following = example[np.minimum(edges[1:], length - 1)]  # so that columns join
        low = np.minimum(np.minimum.reduceat(example, edges[:-1]), following)
        high = np.maximum(np.maximum.reduceat(example, edges[:-1]), following)
        scale = np.maximum(np.abs(example).max(axis=0), np.finfo(np.float32).tiny)
        height = max(_PLOT_HEIGHT // channels, _LEAST_CHANNEL_HEIGHT)
        top, bottom = (np.rint((1 - edge / scale) / 2 * (height - 1)) for edge in (high, low))
        row = np.arange(height)[:, np.newaxis, np.newaxis]
        ink = (row >= top) & (row <= bottom)  # [height, width, channels]
        bands = ink.transpose(2, 0, 1).reshape(channels * height, -1, 1)
        return np.where(bands, 0, 255).astype(np.uint8)
