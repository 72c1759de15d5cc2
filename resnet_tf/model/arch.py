"""`Arch`: a residual network as data."""

import itertools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resnet_tf.core.errors import UserError
from resnet_tf.model import options

# Fields that act in training only, or that users of the same weights choose independently.
FREE_FIELDS = ("zero_gamma", "stochastic_depth", "dropout", "norm_momentum", "norm_epsilon", "output_stride")


@dataclass(frozen=True)
class Arch:
    """A residual network as data.

    Attributes:
        depths: residual blocks in each stage.
        block: `basic` (two 3x3), `bottleneck` (1x1, 3x3, 1x1) or `single` (one 3x3).
        widths: channels of the 3x3 convolutions in each stage; a bottleneck has four times as many output channels.
        strides: stride of each stage.
        groups: groups of a bottleneck's 3x3 (ResNeXt).
        base_width: channels per group for every 64 of `widths` (ResNeXt, wide ResNet).
        stem: `conv7` (7x7, stride 2), `deep` (three 3x3, stride 2; ResNet-D), `small` (3x3), `whitening` (fixed 2x2
            kernels, which training computes from its examples, see `whiten_stem`) or `none`.
        stem_width: output channels of the stem; one that whitens has 8 for each channel of an image.
        stem_pool: second downsampling of the stem: `max`, `conv` (a strided 3x3; ResNet-RS) or `none`.
        shortcut: `projection` (option B of the paper), `pad` (option A, parameter-free), `average` (pooling, then a
            projection; ResNet-D) or `none` (a plain network).
        transition: what changes the shape at the start of a stage: its first `block`, or `pool`, a 3x3 convolution with
            max pooling before the first block (Page 2018, ResNet-9; Jordan 2024).
        stride_conv: strided convolution of a bottleneck: 1 (v1, He et al. 2015) or 2 (v1.5, torchvision).
        stride_block: strided block of a stage: `first`, or `last` (keras.applications V2).
        preactivation: normalize and activate before each convolution (v2, He et al. 2016).
        conv_bias: add biases to the convolutions that no normalization follows (keras.applications V2).
        se_ratio: channels inside squeeze-and-excitation as a fraction of the block's channels; 0 disables it.
        standardize: standardize the kernels of convolutions (BiT).
        activation: name of a Keras activation.
        norm: `batch` or `group` (32 groups).
        norm_momentum: weight of the old moving statistics at each step (Keras's convention).
        norm_epsilon: added to the variance.
        zero_gamma: initialize every post-activation block as the identity (Goyal et al. 2017, sec. 5.1).
        stochastic_depth: probability of dropping the last block in training; rises linearly with depth (Huang et al.
            2016).
        dropout: dropout rate before the head.
        dimensions: 2 for images, [N, H, W, C]; 1 for signals and sequences, [N, L, C], with kernels of length k where
            images have k x k.
        output_stride: stride of the last feature map, if less than the network's own: that of the stem or of a stage,
            after which further strides become dilations (Chen et al. 2017). 0 is the network's own.

    Raises:
        UserError: for a value that a field does not take, or that contradicts another field: `groups`, `base_width` and
            `se_ratio` where no block has them, for example.
    """

    depths: tuple[int, ...]
    block: str = "bottleneck"
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    groups: int = 1
    base_width: int = 64
    stem: str = "conv7"
    stem_width: int = 64
    stem_pool: str = "max"
    shortcut: str = "projection"
    transition: str = "block"
    stride_conv: int = 2
    stride_block: str = "first"
    preactivation: bool = False
    conv_bias: bool = False
    se_ratio: float = 0.0
    standardize: bool = False
    activation: str = "relu"
    norm: str = "batch"
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    zero_gamma: bool = True
    stochastic_depth: float = 0.0
    dropout: float = 0.0
    dimensions: int = 2
    output_stride: int = 0

    def __post_init__(self) -> None:
        options.check_fields(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Arch":
        """Return the architecture with these fields, whose tuples may be lists, as JSON has them.

        Raises:
            UserError: for an unknown field, an invalid value, or missing `depths`.
        """
        if not isinstance(fields, Mapping):
            raise UserError(f"an Arch is an object of named fields, not {fields!r}")
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        try:
            return cls(**plain)
        except TypeError as error:
            raise UserError(f"not the fields of an Arch: {error}") from error

    def conflicts(self, implied: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        """Return the fields in which another network of the same names and shapes would compute other outputs.

        Args:
            implied: the possible values of fields of that network; keys that are no fields are ignored.

        Returns:
            Each field that has none of its possible values here, with these values.
        """
        return {
            name: values for name, values in implied.items() if self._acts(name) and getattr(self, name) not in values
        }

    def differences(self, other: "Arch") -> dict[str, Any]:
        """Return the fields of `other` that differ and change the outputs, with its values; see `conflicts`."""
        conflicts = self.conflicts({name: (value,) for name, value in vars(other).items()})
        return {name: value for name, (value,) in conflicts.items()}

    def _acts(self, name: str) -> bool:
        """Return True for a field that changes the outputs of this network with the same weights."""
        if name == "norm_epsilon":
            return self.norm == "group"  # that of BatchNorm is folded into the variances, see `load_weights`
        return hasattr(self, name) and name not in FREE_FIELDS and (name != "stride_conv" or self.block == "bottleneck")

    @property
    def stem_stride(self) -> int:
        """Stride of the stem: input pixels per output pixel."""
        return options.STEM_STRIDES[self.stem] * (2 if self.has_stem_pool else 1)

    @property
    def has_stem_pool(self) -> bool:
        """True if the stem pools; stems for small images never do."""
        return self.stem_pool != "none" and options.STEM_STRIDES[self.stem] > 1

    def strided_block(self, depth: int) -> int | None:
        """Return the index of the block with the stride of a stage of `depth` blocks; None if its pooling strides."""
        if self.transition == "pool":
            return None
        return {"first": 0, "last": depth - 1}[self.stride_block]

    def inner_width(self, filters: int) -> int:
        """Return the channels of the 3x3 convolution of a post-activation bottleneck."""
        return filters * self.base_width // 64 * self.groups

    @property
    def cumulative_strides(self) -> tuple[int, ...]:
        """Strides of the feature maps of the stem and of each stage without `output_stride`, which is one of them."""
        return tuple(itertools.accumulate(self.strides, operator.mul, initial=self.stem_stride))

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map without `output_stride`."""
        return self.cumulative_strides[-1]


def listed(fields: Mapping[str, Any]) -> str:
    """Return fields of an `Arch` as text for messages, such as `groups=32, base_width=4`."""
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())
