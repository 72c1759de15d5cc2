"""Naming schemes of weights in other libraries: tables of layer names, layouts, and implied architectures.

PyTorch stores convolutions as [out, in, height, width] and linear layers as [out, in], Keras as
[height, width, in, out] and [in, out]. Files do not store the momentum of BatchNorm, which is a setting of the layer
(PyTorch's 0.1 is Keras's 0.9).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resnet_tf.inputs import Preprocess, presets
from resnet_tf.model.builder import LOGITS_LAYER

_TORCH_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
KERAS_VARIABLES = {name: name for name in _TORCH_VARIABLES}


@dataclass(frozen=True)
class Dialect:
    """Naming scheme of another library.

    Attributes:
        name: name of the library.
        modules: pairs of (regular expression of Keras layer names, template of the library's module name). `BLOCK` in
            an expression matches the stage and block of a layer. In a template, `{stage}`, `{block}` and `{conv}` count
            from 1, `{stage0}` and `{block0}` from 0, `{stage_plus1}` from 2.
        variables: Keras variable name -> name in the library.
        separator: text between the names of module and variable.
        torch_layout: True if kernels are [out, in, ...].
        epsilon: BatchNorm epsilon of the library; None for files of this package.
        implies: field of `Arch` -> its possible values in the library, for fields that change the results of a network
            but neither the names nor the shapes of its weights.
        preprocess: preprocessing of the library's published networks; None for files of this package.
    """

    name: str
    modules: tuple[tuple[str, str], ...]
    variables: dict[str, str]
    separator: str
    torch_layout: bool
    epsilon: float | None
    implies: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    preprocess: Preprocess | None = None

    def key(self, layer: str, variable: str) -> str | None:
        """Return the library's name of a Keras variable; None if the library has no such layer."""
        for pattern, template in self.modules:
            match = re.fullmatch(pattern.replace("BLOCK", _BLOCK), layer)
            if match:
                numbers = {name: int(value) for name, value in match.groupdict().items()}
                numbers |= {f"{name}0": value - 1 for name, value in numbers.items()}
                module = template.format(stage_plus1=numbers.get("stage", 0) + 1, layer=layer, **numbers)
                return f"{module}{self.separator}{self.variables[variable]}"
        return None

    def part(self, array: str) -> str:
        """Return the part of a network that an array belongs to, `stem`, `block` or `final`; empty for the head."""
        if STAGE.match(array):
            return "block"
        module = array.rpartition(self.separator)[0]
        layers = [pattern for pattern, template in self.modules if template == module] or [module]
        return next((part for part in ("stem", "final") if layers[0].startswith(part)), "")


_BLOCK = r"stage(?P<stage>\d+)_block(?P<block>\d+)"
_CONV = r"conv(?P<conv>\d)"
# Numbers of stage and block in the array names of any dialect, of which `conv1.0` is in timm's deep stem. The pooling
# before the blocks of a stage, transition="pool", has no number of a block.
STAGE = re.compile(r"(?:stage|layer|stages\.|conv(?=\d+_block))(\d+)(?:_transition|(?:_block|\.blocks\.|\.)(\d+))")


def _torch(name: str, preprocess: Preprocess, *modules: tuple[str, str], **implies: tuple[Any, ...]) -> Dialect:
    return Dialect(
        name,
        modules,
        _TORCH_VARIABLES,
        ".",
        torch_layout=True,
        epsilon=1e-5,
        implies={"stride_conv": (2,), "stride_block": ("first",), **implies},
        preprocess=preprocess,
    )


def _keras(name: str, preprocess: Preprocess, *modules: tuple[str, str], **implies: tuple[Any, ...]) -> Dialect:
    """Return a dialect of keras.applications, whose BatchNorm epsilon is 1.001e-5 instead of 1e-5."""
    return Dialect(
        name,
        modules,
        KERAS_VARIABLES,
        "/",
        torch_layout=False,
        epsilon=1.001e-5,
        implies={"shortcut": ("projection",), **implies},
        preprocess=preprocess,
    )


_TORCH_BODY = (
    ("stem_conv", "conv1"),
    ("stem_conv_bn", "bn1"),
    (f"BLOCK_{_CONV}", "layer{stage}.{block0}.conv{conv}"),
    (f"BLOCK_{_CONV}_bn", "layer{stage}.{block0}.bn{conv}"),
    ("BLOCK_se_reduce", "layer{stage}.{block0}.se.fc1"),
    ("BLOCK_se_expand", "layer{stage}.{block0}.se.fc2"),
)
_DEEP_STEM = (
    ("stem_conv1", "conv1.0"),
    ("stem_conv1_bn", "conv1.1"),
    ("stem_conv2", "conv1.3"),
    ("stem_conv2_bn", "conv1.4"),
    ("stem_conv3", "conv1.6"),
    ("stem_conv3_bn", "bn1"),
    ("stem_pool_conv", "maxpool.0"),
    ("stem_pool_conv_bn", "maxpool.1"),
)
_CIFAR_BODY = (
    *_TORCH_BODY,
    ("BLOCK_shortcut_conv", "layer{stage}.{block0}.shortcut.0"),
    ("BLOCK_shortcut_conv_bn", "layer{stage}.{block0}.shortcut.1"),
    (LOGITS_LAYER, "linear"),
)
_APPLICATIONS_BODY = (
    ("stem_conv", "conv1_conv"),
    (f"BLOCK_{_CONV}", "conv{stage_plus1}_block{block}_{conv}_conv"),
    (f"BLOCK_{_CONV}_bn", "conv{stage_plus1}_block{block}_{conv}_bn"),
    ("BLOCK_shortcut_conv", "conv{stage_plus1}_block{block}_0_conv"),
    (LOGITS_LAYER, "predictions"),
)

DIALECTS = (
    # "akamaster CIFAR": github.com/akamaster/pytorch_resnet_cifar10.
    Dialect("resnet_tf", ((".*", "{layer}"),), KERAS_VARIABLES, "/", torch_layout=False, epsilon=None),
    _torch(
        "torchvision",
        presets.TORCHVISION,
        *_TORCH_BODY,
        ("BLOCK_shortcut_conv", "layer{stage}.{block0}.downsample.0"),
        ("BLOCK_shortcut_conv_bn", "layer{stage}.{block0}.downsample.1"),
        (LOGITS_LAYER, "fc"),
        shortcut=("projection", "pad"),  # without metadata, a network without shortcuts is taken for one with "pad"
    ),
    _torch(
        "timm",  # downsample.0 is the pooling before the projection
        presets.TIMM,
        *_DEEP_STEM,
        *_TORCH_BODY,
        ("BLOCK_shortcut_conv", "layer{stage}.{block0}.downsample.1"),
        ("BLOCK_shortcut_conv_bn", "layer{stage}.{block0}.downsample.2"),
        (LOGITS_LAYER, "fc"),
        shortcut=("average",),
    ),
    _torch(
        "timm BiT",
        presets.TIMM_BIT,
        ("stem_conv", "stem.conv"),
        ("BLOCK_preact_gn", "stages.{stage0}.blocks.{block0}.norm1"),
        ("BLOCK_conv1_gn", "stages.{stage0}.blocks.{block0}.norm2"),
        ("BLOCK_conv2_gn", "stages.{stage0}.blocks.{block0}.norm3"),
        (f"BLOCK_{_CONV}", "stages.{stage0}.blocks.{block0}.conv{conv}"),
        ("BLOCK_shortcut_conv", "stages.{stage0}.blocks.{block0}.downsample.conv"),
        ("final_gn", "norm"),
        (LOGITS_LAYER, "head.fc"),
        standardize=(True,),
        norm_epsilon=(1e-5,),
    ),
    _torch("akamaster CIFAR", presets.CIFAR, *_CIFAR_BODY, shortcut=("pad", "projection")),
    _keras(
        "keras.applications",
        presets.KERAS_V1,
        *_APPLICATIONS_BODY,
        ("stem_conv_bn", "conv1_bn"),
        ("BLOCK_shortcut_conv_bn", "conv{stage_plus1}_block{block}_0_bn"),
        stride_conv=(1,),
        stride_block=("first",),
    ),
    _keras(
        "keras.applications V2",
        presets.KERAS_V2,
        *_APPLICATIONS_BODY,
        ("BLOCK_preact_bn", "conv{stage_plus1}_block{block}_preact_bn"),
        ("final_bn", "post_bn"),
        stride_conv=(2,),
        stride_block=("last",),
    ),
)
