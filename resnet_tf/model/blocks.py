"""Residual blocks. Every function maps a [N, H, W, C] Keras tensor to another, and names its layers after itself.

References: He et al., Deep Residual Learning for Image Recognition, 2015 (post-activation);
He et al., Identity Mappings in Deep Residual Networks, 2016 (pre-activation).
"""

from typing import TYPE_CHECKING

from keras import KerasTensor, layers
from keras.initializers import VarianceScaling

from resnet_tf.model.layers import BatchNormalization, PadShortcut

if TYPE_CHECKING:
    from resnet_tf.model.resnet import Arch

EXPANSION = {"basic": 1, "bottleneck": 4, "single": 1}


def residual(x: KerasTensor, arch: "Arch", filters: int, stride: int, *, name: str) -> KerasTensor:
    """relu(x + branch(x)), with a projection or padding of x where the shape changes."""
    branch = {"basic": basic, "bottleneck": bottleneck, "single": single}[arch.block]
    y = branch(x, arch, filters, stride, name=name)
    skip = shortcut(x, arch, filters * EXPANSION[arch.block], stride, name=f"{name}_shortcut")
    return relu(layers.Add(name=f"{name}_add")([skip, y]), name=f"{name}_relu")


def preactivated_residual(
    x: KerasTensor, arch: "Arch", filters: int, stride: int, *, project: bool, name: str
) -> KerasTensor:
    """x + branch(relu(norm(x))); a projection starts from the activated input, an identity does not."""
    width = filters * EXPANSION[arch.block]
    activated = norm(x, arch, relu_after=True, name=f"{name}_preact")
    if project:
        skip = conv(activated, width, 1, stride=stride, use_bias=arch.conv_bias, name=f"{name}_shortcut_conv")
    else:
        skip = layers.MaxPooling2D(1, strides=stride, name=f"{name}_shortcut_pool")(x) if stride > 1 else x
    if arch.block == "bottleneck":
        y = conv_norm(activated, arch, filters, 1, name=f"{name}_conv1")
        y = conv_norm(y, arch, filters, 3, stride=stride, name=f"{name}_conv2")
        y = conv(y, width, 1, use_bias=arch.conv_bias, name=f"{name}_conv3")
    else:
        y = conv_norm(activated, arch, filters, 3, stride=stride, name=f"{name}_conv1")
        y = conv(y, width, 3, use_bias=arch.conv_bias, name=f"{name}_conv2")
    return layers.Add(name=f"{name}_add")([skip, y])


def basic(x: KerasTensor, arch: "Arch", filters: int, stride: int, *, name: str) -> KerasTensor:
    """Two 3x3 convolutions."""
    y = conv_norm(x, arch, filters, 3, stride=stride, name=f"{name}_conv1")
    return conv_norm(y, arch, filters, 3, relu_after=False, zero_gamma=arch.zero_gamma, name=f"{name}_conv2")


def bottleneck(x: KerasTensor, arch: "Arch", filters: int, stride: int, *, name: str) -> KerasTensor:
    """1x1 down, 3x3, 1x1 up. v1 strides in the first convolution, v1.5 in the 3x3."""
    first, second = (stride, 1) if arch.stride_conv == 1 else (1, stride)
    y = conv_norm(x, arch, filters, 1, stride=first, name=f"{name}_conv1")
    y = conv_norm(y, arch, filters, 3, stride=second, name=f"{name}_conv2")
    return conv_norm(y, arch, 4 * filters, 1, relu_after=False, zero_gamma=arch.zero_gamma, name=f"{name}_conv3")


def single(x: KerasTensor, arch: "Arch", filters: int, stride: int, *, name: str) -> KerasTensor:
    """One 3x3 convolution, the block of the article that `resnet_article` mends."""
    return conv_norm(
        x, arch, filters, 3, stride=stride, relu_after=False, zero_gamma=arch.zero_gamma, name=f"{name}_conv1"
    )


def shortcut(x: KerasTensor, arch: "Arch", width: int, stride: int, *, name: str) -> KerasTensor:
    """The identity where it fits, else a strided 1x1 projection (option B) or subsampling and zeros (option A)."""
    if stride == 1 and x.shape[-1] == width:
        return x
    if arch.shortcut == "pad":
        return PadShortcut(width, stride=stride, name=f"{name}_pad")(x)
    return conv_norm(x, arch, width, 1, stride=stride, relu_after=False, name=f"{name}_conv")


def conv_norm(
    x: KerasTensor,
    arch: "Arch",
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    relu_after: bool = True,
    zero_gamma: bool = False,
    name: str,
) -> KerasTensor:
    """Convolution, normalisation and, unless the sum comes first, activation."""
    x = conv(x, filters, kernel, stride=stride, name=name)
    return norm(x, arch, relu_after=relu_after, zero_gamma=zero_gamma, name=name)


def conv(
    x: KerasTensor, filters: int, kernel: int, *, stride: int = 1, use_bias: bool = False, name: str
) -> KerasTensor:
    """Convolution padded by kernel // 2 on every side, as PyTorch does it."""
    if stride > 1 and kernel > 1:
        # "same" would pad a strided convolution by one side more than the other.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    padding = "same" if stride == 1 else "valid"
    # He et al. 2015, Delving Deep into Rectifiers; by fan-out as torchvision and the authors' code have it.
    initializer = VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
    return layers.Conv2D(
        filters, kernel, strides=stride, padding=padding, use_bias=use_bias, kernel_initializer=initializer, name=name
    )(x)


def norm(x: KerasTensor, arch: "Arch", *, relu_after: bool, zero_gamma: bool = False, name: str) -> KerasTensor:
    """BatchNorm and, on request, ReLU. Zero gamma starts a block as the identity (Goyal et al. 2017, sec. 5.1)."""
    x = BatchNormalization(
        momentum=arch.norm_momentum,
        epsilon=arch.norm_epsilon,
        gamma_initializer="zeros" if zero_gamma else "ones",
        name=f"{name}_bn",
    )(x)
    return relu(x, name=f"{name}_relu") if relu_after else x


def relu(x: KerasTensor, *, name: str) -> KerasTensor:
    return layers.ReLU(name=name)(x)
