"""Table of the named architectures; names follow torchvision and timm."""

import dataclasses
import fnmatch

from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.ranges import shorten
from resnet_tf.model.arch import Arch

# Blocks per stage of the bottleneck networks with 50 to 200 layers.
_50, _101, _152, _200 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)


def _cifar(blocks: int, *, width: int = 16) -> Arch:
    """Return the CIFAR network with 6 * blocks + 2 layers and option A shortcuts (He et al. 2015, sec. 4.2)."""
    return Arch(
        depths=(blocks,) * 3,
        block="basic",
        widths=(width, 2 * width, 4 * width),
        strides=(1, 2, 2),
        stem="small",
        stem_width=width,
        shortcut="pad",
        zero_gamma=False,
    )


def _pooled(*widths: int) -> Arch:
    """Return a network of one residual block after each of three max poolings, with a whitening stem."""
    return Arch(
        depths=(1, 1, 1),
        block="single",
        widths=widths,
        strides=(2, 2, 2),
        stem="whitening",
        stem_width=24,
        transition="pool",
        zero_gamma=False,
    )


def _cifar_preactivated(blocks: int, *, block: str = "bottleneck", widen: int = 1) -> Arch:
    """Return a pre-activation CIFAR network, a v2 (He et al. 2016) or a wide one (Zagoruyko and Komodakis 2016).

    The number of layers in its name is 9 * blocks + 2 for bottleneck blocks, 6 * blocks + 4 for basic blocks.
    """
    return Arch(
        depths=(blocks,) * 3,
        block=block,
        widths=(16 * widen, 32 * widen, 64 * widen),
        strides=(1, 2, 2),
        stem="small",
        stem_width=16,
        stride_conv=1,
        preactivation=True,
    )


def _applications_v2(depths: tuple[int, ...]) -> Arch:
    """Return a ResNetV2 of keras.applications: with biases, and strides in the last block of each stage."""
    return Arch(
        depths=depths,
        preactivation=True,
        conv_bias=True,
        strides=(2, 2, 2, 1),
        stride_block="last",
        norm_momentum=0.99,
        norm_epsilon=1.001e-5,
    )


def _d(depths: tuple[int, ...], *, block: str = "bottleneck") -> Arch:
    """Return a ResNet-D (He et al. 2018, Bag of Tricks), as implemented in timm."""
    return Arch(depths=depths, block=block, stem="deep", shortcut="average")


def _rs(depths: tuple[int, ...]) -> Arch:
    """Return a ResNet-RS (Bello et al. 2021), as implemented in timm."""
    return Arch(depths=depths, stem="deep", stem_pool="conv", shortcut="average", se_ratio=0.25)


def _bit(depths: tuple[int, ...], *, width: int) -> Arch:
    """Return a BiT (Kolesnikov et al. 2019, Big Transfer)."""
    return Arch(
        depths=depths,
        widths=(64 * width, 128 * width, 256 * width, 512 * width),
        stem_width=64 * width,
        preactivation=True,
        norm="group",
        standardize=True,
    )


MODELS: dict[str, Arch] = {
    # torchvision ("v1.5": stride in the 3x3 convolution of a bottleneck)
    "resnet18": Arch(depths=(2, 2, 2, 2), block="basic"),
    "resnet34": Arch(depths=(3, 4, 6, 3), block="basic"),
    "resnet50": Arch(depths=_50),
    "resnet101": Arch(depths=_101),
    "resnet152": Arch(depths=_152),
    "resnext50_32x4d": Arch(depths=_50, groups=32, base_width=4),
    "resnext101_32x8d": Arch(depths=_101, groups=32, base_width=8),
    "resnext101_64x4d": Arch(depths=_101, groups=64, base_width=4),
    "wide_resnet50_2": Arch(depths=_50, base_width=128),
    "wide_resnet101_2": Arch(depths=_101, base_width=128),
    # He et al. 2015 and keras.applications (stride in the first 1x1 convolution of a bottleneck)
    "resnet50_v1": Arch(depths=_50, stride_conv=1),
    "resnet101_v1": Arch(depths=_101, stride_conv=1),
    "resnet152_v1": Arch(depths=_152, stride_conv=1),
    # keras.applications
    "resnet50_v2": _applications_v2(_50),
    "resnet101_v2": _applications_v2(_101),
    "resnet152_v2": _applications_v2(_152),
    # He et al. 2016
    "resnet200_v2": Arch(depths=_200, preactivation=True),
    # timm
    "resnet18_d": _d((2, 2, 2, 2), block="basic"),
    "resnet34_d": _d((3, 4, 6, 3), block="basic"),
    "resnet50_d": _d(_50),
    "resnet101_d": _d(_101),
    "resnet152_d": _d(_152),
    "resnet200_d": _d(_200),
    "seresnet50": Arch(depths=_50, se_ratio=1 / 16),
    "seresnext50_32x4d": Arch(depths=_50, groups=32, base_width=4, se_ratio=1 / 16),
    "resnet_rs50": _rs(_50),
    "resnet_rs101": _rs(_101),
    "resnet_rs152": _rs(_152),
    "resnet_rs200": _rs(_200),
    "resnet_rs270": _rs((4, 29, 53, 4)),
    "resnet_rs350": _rs((4, 36, 72, 4)),
    "resnet_rs420": _rs((4, 44, 87, 4)),
    "bit_r50x1": _bit(_50, width=1),
    "bit_r101x1": _bit(_101, width=1),
    "bit_r50x3": _bit(_50, width=3),
    "bit_r152x2": _bit(_152, width=2),
    # 1D convolutions, for signals and sequences [N, L, C]
    "resnet18_1d": Arch(depths=(2, 2, 2, 2), block="basic", dimensions=1),
    "resnet34_1d": Arch(depths=(3, 4, 6, 3), block="basic", dimensions=1),
    # CIFAR, with option A shortcuts (zero padding); shortcut="projection" gives option B
    "resnet20": _cifar(3),
    "resnet32": _cifar(5),
    "resnet44": _cifar(7),
    "resnet56": _cifar(9),
    "resnet110": _cifar(18),
    "resnet1202": _cifar(200),
    "resnet164_v2": _cifar_preactivated(18),
    "resnet1001_v2": _cifar_preactivated(111),
    "wrn_16_4": _cifar_preactivated(2, block="basic", widen=4),
    "wrn_16_8": _cifar_preactivated(2, block="basic", widen=8),
    "wrn_28_10": _cifar_preactivated(4, block="basic", widen=10),
    "wrn_40_4": _cifar_preactivated(6, block="basic", widen=4),
    # Without residual connections (He et al. 2015, sec. 4)
    "plain18": Arch(depths=(2, 2, 2, 2), block="basic", shortcut="none"),
    "plain34": Arch(depths=(3, 4, 6, 3), block="basic", shortcut="none"),
    "plain20": dataclasses.replace(_cifar(3), shortcut="none"),
    "plain32": dataclasses.replace(_cifar(5), shortcut="none"),
    "plain44": dataclasses.replace(_cifar(7), shortcut="none"),
    "plain56": dataclasses.replace(_cifar(9), shortcut="none"),
    # For images of 8 to 16 pixels
    "resnet20_w8": _cifar(3, width=8),
    "resnet8_w32": dataclasses.replace(_cifar(1, width=32), shortcut="projection", zero_gamma=True),
    # Similar number of operations to resnet20, but in fewer and larger matrix products, which run faster.
    "resnet8_w64": dataclasses.replace(
        _cifar(1, width=64), strides=(2, 2, 2), stem_width=32, shortcut="projection", zero_gamma=False
    ),
    # Most accurate in a few minutes on a CPU, and in an hour; residual blocks between the poolings of Page's ResNet-9.
    "resnet8_pool": _pooled(64, 128, 256),
    "resnet8_pool_wide": _pooled(64, 256, 256),
    # Five 3x3 convolutions with the residual connections that the original lacks; see examples/article_keras.py.
    "resnet_article": Arch(
        depths=(2, 2, 1), block="single", widths=(64, 128, 256), strides=(1, 1, 1), stem="none", zero_gamma=False
    ),
}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the networks that match a shell pattern.

    >>> list_models("resnet*_v2")[:3]
    ['resnet50_v2', 'resnet101_v2', 'resnet152_v2']
    """
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def get_arch(name: str) -> Arch:
    """Return the architecture of a named network.

    Raises:
        UserError: if the name is unknown; the message suggests the closest names.
    """
    if not isinstance(name, str):
        raise UserError(f"the name of a model is text, such as 'resnet50', not {shorten(name)}")
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; did you mean {closest(name, MODELS)}?")
    return MODELS[name]
