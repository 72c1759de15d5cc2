"""Preprocessing of multispectral images and other stacks of planes: float arrays with any number of channels."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import MAX_SIZE, check_integer, shorten
from resnet_tf.core.text import counted
from resnet_tf.inputs.arrays import ArrayPreprocess
from resnet_tf.inputs.base import Preprocess, register_input_type, resolve_statistics


@register_input_type("bands")
@dataclass(frozen=True, kw_only=True)
class BandsPreprocess(ArrayPreprocess):
    """Preprocessing of stacks of planes, float32 [H, W, C]: normalize each channel.

    For images with other channels than gray or RGB, such as the 13 bands of Sentinel-2, or color with depth.

    >>> BandsPreprocess(size=(64, 64), channels=13).input_shape
    (64, 64, 13)

    Attributes:
        size: (height, width), in pixels.
        channels: number of channels, at least 1.
        mean: subtracted from the values: one value per channel, or one for all channels.
        std: divisor of the centered values: one value per channel, or one for all channels.
    """

    size: tuple[int, int]

    noun: ClassVar[str] = "band stack"
    plural: ClassVar[str] = "bands"
    size_key: ClassVar[str] = "data.image_size"
    supported_augmentations: ClassVar[frozenset[str]] = ArrayPreprocess.supported_augmentations | {
        *("flip", "alternating_flip", "pad_crop", "erasing", "cutout", "cutmix"),
    }
    unused_settings: ClassVar[tuple[str, ...]] = (
        *("data.length", "data.crop_fraction", "data.interpolation", "data.channel_order"),
        *("data.exif_orientation", "data.max_pixels"),
    )
    example_file: ClassVar[str] = "bands.npy"
    axes: ClassVar[str] = "H, W"
    value_range: ClassVar[str] = "in the units of the training data"
    origins: ClassVar[str] = "sensors or locations"

    def __post_init__(self) -> None:
        if not isinstance(self.size, tuple | list) or len(self.size) != 2:
            raise UserError(f"size takes (height, width), such as (64, 64), got {shorten(self.size)}")
        super().__post_init__()
        for each in self.size:
            check_integer("size", each, minimum=1, maximum=MAX_SIZE)
        object.__setattr__(self, "size", tuple(self.size))
        self.check_number_of_values()

    @classmethod
    def from_config(cls, data: DataConfig, weights: Preprocess | None = None) -> Self:
        """Create the preprocessing for `data.image_size` and `data.channels`.

        Unset statistics are those of `weights` for bands, otherwise 0 and 1: images have other units.
        """
        height, width, channels = cls.shape_from_config(data)
        own = cls(size=(height, width), channels=channels)
        mean, std = resolve_statistics(data, weights.with_channels(channels) if isinstance(weights, cls) else own)
        return dataclasses.replace(own, mean=mean, std=std)

    @classmethod
    def shape_from_config(cls, data: DataConfig) -> tuple[int, ...]:
        """Return (data.image_size, data.image_size, data.channels)."""
        return data.image_size, data.image_size, data.channels

    def with_size(self, sizes: tuple[int, ...]) -> Self:
        """Return a copy for another input size, (height, width)."""
        height, width = sizes
        return dataclasses.replace(self, size=(height, width))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input: (height, width, channels)."""
        return *self.size, self.channels

    @property
    def size_text(self) -> str:
        """Input size in words, such as `64x64 pixels`."""
        return f"{self.size[0]}x{self.size[1]} pixels"

    @property
    def description(self) -> str:
        """Description of the examples for model cards, one sentence."""
        return f"A stack of {counted(self.channels, 'band')} of {self.size_text}, not normalized."

    def plot(self, example: np.ndarray) -> np.ndarray:
        """Plot the first three channels as red, green and blue, or else the first one, uint8 [H, W, 3 or 1].

        Each is scaled from its smallest to its largest value.
        """
        shown = example[..., : 3 if example.shape[-1] >= 3 else 1].astype(np.float32)
        low, high = shown.min(axis=(0, 1)), shown.max(axis=(0, 1))
        return np.rint(255 * (shown - low) / np.maximum(high - low, np.finfo(np.float32).tiny)).astype(np.uint8)
