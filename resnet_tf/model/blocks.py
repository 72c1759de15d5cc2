"""Residual blocks: functions from one Keras tensor [N, H, W, C] to another.

One-dimensional networks have [N, L, C]. Layer names start with the name of the block.

References: He et al., Deep Residual Learning for Image Recognition, 2015 (post-activation);
He et al., Identity Mappings in Deep Residual Networks, 2016 (pre-activation);
He et al., Bag of Tricks for Image Classification, 2018 (ResNet-D);
Xie et al., Aggregated Residual Transformations, 2016 (groups); Hu et al., Squeeze-and-Excitation Networks, 2017.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import KerasTensor, layers

from resnet_tf.core.errors import UserError
from resnet_tf.model.arch import Arch
from resnet_tf.model.initializers import FanOutNormal
from resnet_tf.model.layers import BatchNormalization, PadShortcut, StandardizedConv2D
from resnet_tf.model.options import EXPANSION, squeezed_width


@dataclass(frozen=True)
class BlockConfig:
    """Settings that differ between the blocks of one network.

    Attributes:
        name: prefix of the layer names.
        filters: channels of the stage before expansion.
        stride: 1, or 2 in a downsampling block.
        dilation: dilation of the 3x3 convolutions; above 1 where `output_stride` replaced a stride.
        first_dilation: dilation of the convolution whose stride was replaced.
        drop_rate: probability of dropping the residual branch in training.
    """

    name: str
    filters: int
    stride: int = 1
    dilation: int = 1
    first_dilation: int = 1
    drop_rate: float = 0.0


def residual(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Return activation(shortcut(x) + branch(x)), the post-activation block."""
    name = block.name
    branch = {"basic": basic, "bottleneck": bottleneck, "single": single}[arch.block]
    y = branch(x, arch, block)
    if arch.se_ratio:
        y = squeeze_excite(y, arch, name=f"{name}_se")
    if arch.shortcut != "none":
        skip = shortcut(x, arch, block)
        y = layers.Add(name=f"{name}_add")([skip, drop_path(y, arch, block)])
    return activate(y, arch, name=name)


def preactivated_residual(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Return x + branch(activation(norm(x))); a projection shortcut starts from the activated input."""
    name, stride, width = block.name, block.stride, block.filters * EXPANSION[arch.block]
    activated = norm(x, arch, name=f"{name}_preact")
    if x.shape[-1] != width:
        skip = conv(activated, arch, width, 1, stride=stride, use_bias=arch.conv_bias, name=f"{name}_shortcut_conv")
    elif stride > 1:
        skip = spatial_layer("MaxPooling", arch)(1, strides=stride, name=f"{name}_shortcut_pool")(x)
    else:
        skip = x
    branch = {"basic": preactivated_basic, "bottleneck": preactivated_bottleneck}[arch.block]
    return layers.Add(name=f"{name}_add")([skip, drop_path(branch(activated, arch, block), arch, block)])


def preactivated_basic(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Apply two 3x3 convolutions to an activated input."""
    name, filters = block.name, block.filters
    y = conv_norm(x, arch, filters, 3, stride=block.stride, dilation=block.first_dilation, name=f"{name}_conv1")
    return conv(y, arch, filters, 3, dilation=block.dilation, use_bias=arch.conv_bias, name=f"{name}_conv2")


def preactivated_bottleneck(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Apply 1x1, 3x3 and expanding 1x1 convolutions to an activated input."""
    name, filters = block.name, block.filters
    first, second = _bottleneck_strides(arch, block)
    y = conv_norm(x, arch, filters, 1, stride=first, name=f"{name}_conv1")
    y = conv_norm(y, arch, filters, 3, stride=second, dilation=_bottleneck_dilation(arch, block), name=f"{name}_conv2")
    return conv(y, arch, 4 * filters, 1, use_bias=arch.conv_bias, name=f"{name}_conv3")


def basic(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Apply two 3x3 convolutions."""
    name, filters = block.name, block.filters
    y = conv_norm(x, arch, filters, 3, stride=block.stride, dilation=block.first_dilation, name=f"{name}_conv1")
    return conv_norm(y, arch, filters, 3, dilation=block.dilation, ends_branch=True, name=f"{name}_conv2")


def bottleneck(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Apply 1x1, grouped 3x3 and expanding 1x1 convolutions."""
    name = block.name
    first, second = _bottleneck_strides(arch, block)
    width = arch.inner_width(block.filters)
    y = conv_norm(x, arch, width, 1, stride=first, name=f"{name}_conv1")
    dilation = _bottleneck_dilation(arch, block)
    y = conv_norm(y, arch, width, 3, stride=second, dilation=dilation, groups=arch.groups, name=f"{name}_conv2")
    return conv_norm(y, arch, 4 * block.filters, 1, ends_branch=True, name=f"{name}_conv3")


def _bottleneck_strides(arch: Arch, block: BlockConfig) -> tuple[int, int]:
    """Return the strides of the 1x1 and the 3x3 convolution: v1 strides in the first, v1.5 in the second."""
    return (block.stride, 1) if arch.stride_conv == 1 else (1, block.stride)


def _bottleneck_dilation(arch: Arch, block: BlockConfig) -> int:
    """Return the dilation of the 3x3 convolution: with strides in the 1x1 (v1), it sees what they have left."""
    return block.dilation if arch.stride_conv == 1 else block.first_dilation


def single(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Apply one 3x3 convolution, the block of `resnet_article`."""
    name, dilation = f"{block.name}_conv1", block.first_dilation
    return conv_norm(x, arch, block.filters, 3, stride=block.stride, dilation=dilation, ends_branch=True, name=name)


def shortcut(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Return x itself where its shape fits, otherwise the shortcut that `arch.shortcut` names."""
    width, stride, name = block.filters * EXPANSION[arch.block], block.stride, f"{block.name}_shortcut"
    if stride == 1 and x.shape[-1] == width:
        return x
    if arch.shortcut == "pad":
        if x.shape[-1] > width:
            raise UserError(f"shortcut='pad' cannot reduce channels; {block.name} has {x.shape[-1]} before {width}")
        return PadShortcut(width, stride=stride, name=f"{name}_pad")(x)
    if arch.shortcut == "average" and stride > 1:
        # Pooling uses every pixel; a strided 1x1 convolution reads one in four (He et al. 2018, sec. 4.2).
        x = spatial_layer("AveragePooling", arch)(2, strides=stride, padding="same", name=f"{name}_pool")(x)
        stride = 1
    elif arch.shortcut == "average" and block.dilation > block.first_dilation:
        # Where dilation replaces the stride, timm still pools, with zeros beyond the border.
        after = (0, 1) if arch.dimensions == 1 else ((0, 1), (0, 1))
        x = spatial_layer("ZeroPadding", arch)(after, name=f"{name}_pool_pad")(x)
        x = spatial_layer("AveragePooling", arch)(2, strides=1, name=f"{name}_pool")(x)
    return conv_norm(x, arch, width, 1, stride=stride, activated=False, name=f"{name}_conv")


def squeeze_excite(x: KerasTensor, arch: Arch, *, name: str) -> KerasTensor:
    """Scale each channel by a gate computed from the global average (Hu et al. 2017)."""
    channels = x.shape[-1]
    gate = spatial_layer("GlobalAveragePooling", arch)(keepdims=True, name=f"{name}_squeeze")(x)
    if not round(channels * arch.se_ratio):
        raise UserError(f"se_ratio={arch.se_ratio} leaves none of the {channels} channels of {name}")
    gate = conv(gate, arch, squeezed_width(channels, arch.se_ratio), 1, use_bias=True, name=f"{name}_reduce")
    gate = layers.ReLU(name=f"{name}_relu")(gate)
    gate = conv(gate, arch, channels, 1, use_bias=True, name=f"{name}_expand")
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def pool_transition(x: KerasTensor, arch: Arch, filters: int, *, stride: int, name: str) -> KerasTensor:
    """Apply a 3x3 convolution, max pooling, normalization and activation, the start of a stage in Page's ResNet-9.

    Normalization after the pooling reads a quarter of the values.
    """
    x = conv(x, arch, filters, 3, name=name)
    if stride > 1:
        x = spatial_layer("MaxPooling", arch)(stride, name=f"{name}_pool")(x)
    return norm(x, arch, name=name)


def drop_path(x: KerasTensor, arch: Arch, block: BlockConfig) -> KerasTensor:
    """Drop the residual branch of an example with probability `block.drop_rate` (Huang et al. 2016)."""
    if not block.drop_rate:
        return x
    noise_shape = (None, *(1,) * (arch.dimensions + 1))
    return layers.Dropout(block.drop_rate, noise_shape=noise_shape, name=f"{block.name}_drop")(x)


def conv_norm(
    x: KerasTensor,
    arch: Arch,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activated: bool = True,
    ends_branch: bool = False,
    name: str,
) -> KerasTensor:
    """Apply convolution, normalization and, except at the end of a branch, activation."""
    x = conv(x, arch, filters, kernel, stride=stride, dilation=dilation, groups=groups, name=name)
    # Zero gamma initializes a block as the identity (Goyal et al. 2017, sec. 5.1), which needs a shortcut.
    zero_gamma = ends_branch and arch.zero_gamma and arch.shortcut != "none"
    return norm(x, arch, activated=activated and not ends_branch, zero_gamma=zero_gamma, name=name)


def conv(
    x: KerasTensor,
    arch: Arch,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    name: str,
) -> KerasTensor:
    """Apply a convolution with symmetric padding of kernel // 2, as in PyTorch."""
    if stride > 1 and kernel > 1:
        # "same" pads a strided convolution asymmetrically.
        x = spatial_layer("ZeroPadding", arch)(kernel // 2, name=f"{name}_pad")(x)
    layer = channels_last(StandardizedConv2D) if arch.standardize else spatial_layer("Conv", arch)
    return layer(
        filters,
        kernel,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        dilation_rate=dilation if kernel > 1 else 1,
        groups=groups,
        use_bias=use_bias,
        kernel_initializer=FanOutNormal(),
        name=name,
    )(x)


def norm(x: KerasTensor, arch: Arch, *, activated: bool = True, zero_gamma: bool = False, name: str) -> KerasTensor:
    """Apply BatchNorm or GroupNorm and, if `activated`, the activation."""
    gamma = "zeros" if zero_gamma else "ones"
    if arch.norm == "group":
        if x.shape[-1] % 32:
            raise UserError(f"norm='group' takes multiples of 32 channels; {name} has {x.shape[-1]}")
        layer = layers.GroupNormalization(32, epsilon=arch.norm_epsilon, gamma_initializer=gamma, name=f"{name}_gn")
    else:
        layer = BatchNormalization(
            momentum=arch.norm_momentum, epsilon=arch.norm_epsilon, gamma_initializer=gamma, name=f"{name}_bn"
        )
    x = layer(x)
    return activate(x, arch, name=name) if activated else x


def spatial_layer(name: str, arch: Arch) -> Callable[..., keras.Layer]:
    """Return the constructor of Keras's layer of a name, such as `Conv`, for the dimensions of the network.

    The layer is channels-last, whatever the global `keras.config.image_data_format()`.
    """
    return channels_last(getattr(layers, f"{name}{arch.dimensions}D"))


def channels_last(layer: Callable[..., keras.Layer]) -> Callable[..., keras.Layer]:
    """Return a constructor of layers with channels-last as their data format."""
    return functools.partial(layer, data_format="channels_last")


def activate(x: KerasTensor, arch: Arch, *, name: str) -> KerasTensor:
    """Apply the activation of the network."""
    return layers.Activation(arch.activation, name=f"{name}_{arch.activation}")(x)
