"""`Arch`: a residual network as data."""

import math
from dataclasses import dataclass

from resnet_tf.core.errors import UserError

_STEM_STRIDES = {"conv7": 2, "deep": 2, "small": 1, "none": 1}


@dataclass(frozen=True)
class Arch:
    """A residual network as data.

    Attributes:
        depths: residual blocks in each stage.
        block: `basic` (two 3x3), `bottleneck` (1x1, 3x3, 1x1) or `single` (one 3x3).
        widths: channels of the 3x3 convolutions in each stage; a bottleneck puts out four times as many.
        strides: stride of each stage.
        groups: groups of a bottleneck's 3x3 (ResNeXt).
        base_width: channels a group for every 64 of `widths` (ResNeXt, wide ResNet).
        stem: `conv7` (7x7, stride 2), `deep` (three 3x3, stride 2; ResNet-D), `small` (3x3) or `none`.
        stem_width: channels that the stem puts out.
        stem_pool: how the stem halves the map again: `max`, `conv` (a strided 3x3; ResNet-RS) or `none`.
        shortcut: `projection` (option B of the paper), `pad` (option A, without parameters), `average` (pooling, then a
            projection; ResNet-D) or `none` (a plain network).
        stride_conv: which convolution of a bottleneck strides: 1 (v1, He et al. 2015) or 2 (v1.5, torchvision).
        stride_block: whether the `first` or the `last` block of a stage strides (keras.applications V2: the last).
        preactivation: normalise and activate before each convolution (v2, He et al. 2016).
        conv_bias: biases on the convolutions that no normalisation follows (keras.applications V2).
        se_ratio: channels inside squeeze-and-excitation as a share of the block's; 0 leaves it out.
        standardize: standardise the kernels of convolutions (BiT).
        activation: name of the activation, any that Keras knows.
        norm: `batch` or `group` (32 groups).
        norm_momentum: share of the old moving statistics kept at each step (Keras's convention).
        norm_epsilon: added to the variance.
        zero_gamma: start every post-activation block as the identity.
        stochastic_depth: probability of leaving out the last block in training; rises linearly with depth.
        dropout: dropout before the class head.
        dimensions: 2 for pictures, [N, H, W, C]; 1 for signals and sequences, [N, L, C], with kernels as long as those
            of pictures are wide.
        output_stride: input pixels for one pixel of the last feature map, if less than the network's own; strides
            beyond it become dilations (Chen et al. 2017). 0 is the network's own.
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
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                given = getattr(self, field)
                raise UserError(f"{field}={given!r}; it takes {', '.join(map(repr, choices))}")
        if self.standardize and self.dimensions != 2:
            raise UserError("standardize=True takes dimensions=2")
        if self.output_stride and (self.total_stride % self.output_stride or self.output_stride < self.stem_stride):
            possible = [size for size in (1, 2, 4, 8, 16, 32) if self.stem_stride <= size <= self.total_stride]
            raise UserError(f"output_stride={self.output_stride} is impossible here; it can be {possible}")

    @property
    def stem_stride(self) -> int:
        """Input pixels for one pixel behind the stem."""
        return _STEM_STRIDES[self.stem] * (2 if self.has_stem_pool else 1)

    @property
    def has_stem_pool(self) -> bool:
        """A stem for small pictures keeps them large."""
        return self.stem_pool != "none" and _STEM_STRIDES[self.stem] > 1

    @property
    def total_stride(self) -> int:
        """Input pixels for one pixel of the last feature map, before `output_stride`."""
        return math.prod(self.strides) * self.stem_stride


_CHOICES = {
    "block": ("basic", "bottleneck", "single"),
    "stem": tuple(_STEM_STRIDES),
    "stem_pool": ("max", "conv", "none"),
    "shortcut": ("projection", "pad", "average", "none"),
    "stride_conv": (1, 2),
    "stride_block": ("first", "last"),
    "norm": ("batch", "group"),
    "dimensions": (1, 2),
}
