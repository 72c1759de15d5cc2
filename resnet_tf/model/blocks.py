"""Residual blocks. Every function maps a [N, H, W, C] Keras tensor to another, and names its layers after itself.

In a network of one dimension it is [N, L, C].

References: He et al., Deep Residual Learning for Image Recognition, 2015 (post-activation);
He et al., Identity Mappings in Deep Residual Networks, 2016 (pre-activation);
He et al., Bag of Tricks for Image Classification, 2018 (ResNet-D);
Xie et al., Aggregated Residual Transformations, 2016 (groups); Hu et al., Squeeze-and-Excitation Networks, 2017.
"""

from dataclasses import dataclass

import keras
from keras import KerasTensor, layers

from resnet_tf.model.arch import Arch
from resnet_tf.model.initializers import FanOutNormal
from resnet_tf.model.layers import BatchNormalization, PadShortcut, StandardizedConv2D

EXPANSION = {"basic": 1, "bottleneck": 4, "single": 1}


@dataclass(frozen=True)
class Place:
    """Where a block stands: what differs between the blocks of a network.

    Attributes:
        name: prefix of its layers' names.
        filters: channels of its stage before expansion.
        stride: 1, or 2 where the map shrinks.
        dilation: of its 3x3 convolutions; above 1 where a stride was taken away.
        first_dilation: of the convolution that would have had the stride.
        drop_rate: probability with which training leaves its branch out.
    """

    name: str
    filters: int
    stride: int = 1
    dilation: int = 1
    first_dilation: int = 1
    drop_rate: float = 0.0


def residual(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """activation(x + branch(x)), with a projection or padding of x where the shape changes."""
    name = place.name
    branch = {"basic": basic, "bottleneck": bottleneck, "single": single}[arch.block]
    y = branch(x, arch, place)
    if arch.se_ratio:
        y = squeeze_excite(y, arch, name=f"{name}_se")
    if arch.shortcut != "none":
        skip = shortcut(x, arch, place)
        y = layers.Add(name=f"{name}_add")([skip, drop_path(y, arch, place)])
    return activate(y, arch, name=name)


def preactivated_residual(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """x + branch(activation(norm(x))); a projection starts from the activated input, an identity does not."""
    name, stride, width = place.name, place.stride, place.filters * EXPANSION[arch.block]
    activated = norm(x, arch, name=f"{name}_preact")
    if x.shape[-1] != width:
        skip = conv(activated, arch, width, 1, stride=stride, use_bias=arch.conv_bias, name=f"{name}_shortcut_conv")
    elif stride > 1:
        skip = of_dimensions("MaxPooling", arch)(1, strides=stride, name=f"{name}_shortcut_pool")(x)
    else:
        skip = x
    branch = {"basic": preactivated_basic, "bottleneck": preactivated_bottleneck}[arch.block]
    return layers.Add(name=f"{name}_add")([skip, drop_path(branch(activated, arch, place), arch, place)])


def preactivated_basic(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """Two 3x3 convolutions of an activated input."""
    name, filters = place.name, place.filters
    y = conv_norm(x, arch, filters, 3, stride=place.stride, dilation=place.first_dilation, name=f"{name}_conv1")
    return conv(y, arch, filters, 3, dilation=place.dilation, use_bias=arch.conv_bias, name=f"{name}_conv2")


def preactivated_bottleneck(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """1x1 down, 3x3, 1x1 up, of an activated input."""
    name, filters = place.name, place.filters
    first, second = _bottleneck_strides(arch, place)
    y = conv_norm(x, arch, filters, 1, stride=first, name=f"{name}_conv1")
    y = conv_norm(y, arch, filters, 3, stride=second, dilation=place.first_dilation, name=f"{name}_conv2")
    return conv(y, arch, 4 * filters, 1, use_bias=arch.conv_bias, name=f"{name}_conv3")


def basic(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """Two 3x3 convolutions."""
    name, filters = place.name, place.filters
    y = conv_norm(x, arch, filters, 3, stride=place.stride, dilation=place.first_dilation, name=f"{name}_conv1")
    return conv_norm(y, arch, filters, 3, dilation=place.dilation, ends_branch=True, name=f"{name}_conv2")


def bottleneck(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """1x1 down, 3x3 in groups, 1x1 up."""
    name = place.name
    first, second = _bottleneck_strides(arch, place)
    width = place.filters * arch.base_width // 64 * arch.groups
    y = conv_norm(x, arch, width, 1, stride=first, name=f"{name}_conv1")
    y = conv_norm(
        y, arch, width, 3, stride=second, dilation=place.first_dilation, groups=arch.groups, name=f"{name}_conv2"
    )
    return conv_norm(y, arch, 4 * place.filters, 1, ends_branch=True, name=f"{name}_conv3")


def _bottleneck_strides(arch: Arch, place: Place) -> tuple[int, int]:
    """Strides of the 1x1 and the 3x3: v1 strides in the first, v1.5 in the second."""
    return (place.stride, 1) if arch.stride_conv == 1 else (1, place.stride)


def single(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """One 3x3 convolution, the block of the article that `resnet_article` mends."""
    return conv_norm(x, arch, place.filters, 3, stride=place.stride, ends_branch=True, name=f"{place.name}_conv1")


def shortcut(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """The identity where it fits, else what `arch.shortcut` says."""
    width, stride, name = place.filters * EXPANSION[arch.block], place.stride, f"{place.name}_shortcut"
    if stride == 1 and x.shape[-1] == width:
        return x
    if arch.shortcut == "pad":
        return PadShortcut(width, stride=stride, name=f"{name}_pad")(x)
    if arch.shortcut == "average" and stride > 1:
        # Every pixel counts, where a strided 1x1 convolution reads one in four (He et al. 2018, sec. 4.2).
        x = of_dimensions("AveragePooling", arch)(2, strides=stride, padding="same", name=f"{name}_pool")(x)
        stride = 1
    elif arch.shortcut == "average" and place.dilation > place.first_dilation:
        # Where dilation took the stride's place, timm pools all the same, zeros beyond the border included.
        after = (0, 1) if arch.dimensions == 1 else ((0, 1), (0, 1))
        x = of_dimensions("ZeroPadding", arch)(after, name=f"{name}_pool_pad")(x)
        x = of_dimensions("AveragePooling", arch)(2, strides=1, name=f"{name}_pool")(x)
    return conv_norm(x, arch, width, 1, stride=stride, activated=False, name=f"{name}_conv")


def squeeze_excite(x: KerasTensor, arch: Arch, *, name: str) -> KerasTensor:
    """Scale each channel by a gate that sees all of the picture (Hu et al. 2017)."""
    channels = x.shape[-1]
    gate = of_dimensions("GlobalAveragePooling", arch)(keepdims=True, name=f"{name}_squeeze")(x)
    gate = conv(gate, arch, round(channels * arch.se_ratio / 8) * 8, 1, use_bias=True, name=f"{name}_reduce")
    gate = layers.ReLU(name=f"{name}_relu")(gate)
    gate = conv(gate, arch, channels, 1, use_bias=True, name=f"{name}_expand")
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def drop_path(x: KerasTensor, arch: Arch, place: Place) -> KerasTensor:
    """Stochastic depth: leave the branch of an example out with some probability (Huang et al. 2016)."""
    if not place.drop_rate:
        return x
    noise_shape = (None, *(1,) * (arch.dimensions + 1))
    return layers.Dropout(place.drop_rate, noise_shape=noise_shape, name=f"{place.name}_drop")(x)


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
    """Convolution, normalisation and, unless a sum comes first, activation."""
    x = conv(x, arch, filters, kernel, stride=stride, dilation=dilation, groups=groups, name=name)
    # Zero gamma starts a block as the identity (Goyal et al. 2017, sec. 5.1), which takes a shortcut.
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
    """Convolution padded by kernel // 2 on every side, as PyTorch does it."""
    if stride > 1 and kernel > 1:
        # "same" would pad a strided convolution by one side more than the other.
        x = of_dimensions("ZeroPadding", arch)(kernel // 2, name=f"{name}_pad")(x)
    layer = StandardizedConv2D if arch.standardize else of_dimensions("Conv", arch)
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
    """BatchNorm or GroupNorm and, on request, activation."""
    gamma = "zeros" if zero_gamma else "ones"
    if arch.norm == "group":
        layer = layers.GroupNormalization(32, epsilon=arch.norm_epsilon, gamma_initializer=gamma, name=f"{name}_gn")
    else:
        layer = BatchNormalization(
            momentum=arch.norm_momentum, epsilon=arch.norm_epsilon, gamma_initializer=gamma, name=f"{name}_bn"
        )
    x = layer(x)
    return activate(x, arch, name=name) if activated else x


def of_dimensions(kind: str, arch: Arch) -> type[keras.Layer]:
    """`Conv`, `MaxPooling`, ... of Keras for the network's number of dimensions."""
    return getattr(layers, f"{kind}{arch.dimensions}D")


def activate(x: KerasTensor, arch: Arch, *, name: str) -> KerasTensor:
    return layers.Activation(arch.activation, name=f"{name}_{arch.activation}")(x)
