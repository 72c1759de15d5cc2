"""One builder for every residual network: an `Arch` says what differs, `build` turns it into a Keras model."""

import math
from dataclasses import dataclass

import keras
from keras import KerasTensor, layers
from keras.initializers import VarianceScaling

from resnet_tf.errors import UserError
from resnet_tf.model import blocks

POOL_LAYER = "pool"
LOGITS_LAYER = "logits"


@dataclass(frozen=True)
class Arch:
    """A residual network as data.

    Attributes:
        depths: residual blocks in each stage.
        block: `basic` (two 3x3), `bottleneck` (1x1, 3x3, 1x1) or `single` (one 3x3).
        widths: channels of the 3x3 convolutions in each stage; a bottleneck puts out four times as many.
        strides: stride of each stage.
        stem: `conv7` (7x7 stride 2 and max pooling), `small` (3x3) or `none`.
        shortcut: `projection` (option B of the paper) or `pad` (option A, without parameters).
        stride_conv: which convolution of a bottleneck strides: 1 (v1, He et al. 2015) or 2 (v1.5, torchvision).
        stride_block: whether the `first` or the `last` block of a stage strides (keras.applications V2: the last).
        preactivation: normalise and activate before each convolution (v2, He et al. 2016).
        conv_bias: biases on the convolutions that no normalisation follows (keras.applications V2).
        zero_gamma: start every post-activation block as the identity.
        norm_momentum: share of the old moving statistics kept at each step (Keras's convention).
        norm_epsilon: added to the variance.
    """

    depths: tuple[int, ...]
    block: str = "bottleneck"
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    stem: str = "conv7"
    shortcut: str = "projection"
    stride_conv: int = 2
    stride_block: str = "first"
    preactivation: bool = False
    conv_bias: bool = False
    zero_gamma: bool = True
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5

    @property
    def total_stride(self) -> int:
        """Input pixels for one pixel of the last feature map."""
        return math.prod(self.strides) * (4 if self.stem == "conv7" else 1)


def build(arch: Arch, *, input_shape: tuple[int | None, int | None, int], num_classes: int, name: str) -> keras.Model:
    """Build a Functional Keras model.

    Args:
        arch: what to build.
        input_shape: (height, width, channels); a height or width of None leaves it open.
        num_classes: outputs of the last Dense layer; 0 stops at the pooled features.
        name: name of the model.

    Returns:
        A model from float [N, H, W, C], already normalised, to float32 [N, num_classes] logits, or to float32
        [N, features] for `num_classes=0`.

    Raises:
        UserError: for an input smaller than one pixel of the last feature map.
    """
    _check_input_shape(arch, input_shape, name)
    inputs = layers.Input(input_shape, name="images")
    x = _stem(inputs, arch)
    for stage in range(len(arch.depths)):
        x = _stage(x, arch, stage)
    if arch.preactivation:
        x = blocks.norm(x, arch, relu_after=True, name="final")
    # The mean over pixels and the head are float32 under every policy: they cost nothing, and logits stay exact.
    x = layers.GlobalAveragePooling2D(name=POOL_LAYER, dtype="float32")(x)
    if num_classes:
        # torch.nn.Linear's kernel initialisation, uniform in +-1/sqrt(features).
        initializer = VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
        x = layers.Dense(num_classes, kernel_initializer=initializer, name=LOGITS_LAYER, dtype="float32")(x)
    return keras.Model(inputs, x, name=name)


def _stem(x: KerasTensor, arch: Arch) -> KerasTensor:
    if arch.stem == "none":
        return x
    kernel, stride = (7, 2) if arch.stem == "conv7" else (3, 1)
    if arch.preactivation:  # the first block normalises
        x = blocks.conv(x, arch.widths[0], kernel, stride=stride, use_bias=arch.conv_bias, name="stem_conv")
    else:
        x = blocks.conv_norm(x, arch, arch.widths[0], kernel, stride=stride, name="stem_conv")
    if arch.stem == "conv7":
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    return x


def _stage(x: KerasTensor, arch: Arch, stage: int) -> KerasTensor:
    depth, filters = arch.depths[stage], arch.widths[stage]
    striding = 0 if arch.stride_block == "first" else depth - 1
    for block in range(depth):
        name = f"stage{stage + 1}_block{block + 1}"
        stride = arch.strides[stage] if block == striding else 1
        if arch.preactivation:
            project = x.shape[-1] != filters * blocks.EXPANSION[arch.block]
            x = blocks.preactivated_residual(x, arch, filters, stride, project=project, name=name)
        else:
            x = blocks.residual(x, arch, filters, stride, name=name)
    return x


def _check_input_shape(arch: Arch, input_shape: tuple[int | None, int | None, int], name: str) -> None:
    height, width, _ = input_shape
    smallest = min((side for side in (height, width) if side is not None), default=arch.total_stride)
    if smallest < arch.total_stride:
        raise UserError(
            f"an input of {height}x{width} pixels is too small for {name}, whose last feature map has one pixel "
            f"for {arch.total_stride}x{arch.total_stride} of the input"
        )
