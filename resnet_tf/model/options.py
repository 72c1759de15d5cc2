"""Validation of the fields of an `Arch`: types, ranges, contradictions, and values that would have no effect."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import Range, check_integer, check_number, shorten

Arch = Any  # `resnet_tf.model.arch` imports this module

EXPANSION = {"basic": 1, "bottleneck": 4, "single": 1}  # output channels of a block by its filters
STEM_STRIDES = {"conv7": 2, "deep": 2, "small": 1, "whitening": 1, "none": 1}
WHITENING_KERNEL = 2  # size of the kernels of stem="whitening"
# Channels of a layer: a 3x3 kernel of 16,384 x 16,384 channels has 9.7 GB.
_MAX_WIDTH = 2**14
# Blocks of a stage: networks of more layers exceed the recursion of Keras's graph.
_MAX_BLOCKS = 1000
_MAX_STAGES = 16

_CHOICES: dict[str, tuple[str | int, ...]] = {
    "block": ("basic", "bottleneck", "single"),
    "stem": tuple(STEM_STRIDES),
    "stem_pool": ("max", "conv", "none"),
    "shortcut": ("projection", "pad", "average", "none"),
    "transition": ("block", "pool"),
    "stride_conv": (1, 2),
    "stride_block": ("first", "last"),
    "norm": ("batch", "group"),
    "dimensions": (1, 2),
}
_INTEGERS = {
    "groups": (1, _MAX_WIDTH),
    "base_width": (1, _MAX_WIDTH),
    "stem_width": (1, _MAX_WIDTH),
    "output_stride": (0, 2**16),
}
_NUMBERS = {
    "se_ratio": Range(minimum=0, maximum=1),
    "norm_momentum": Range(minimum=0, below=1),
    "norm_epsilon": Range(above=0, maximum=1),
    # A higher rate would scale what is kept beyond the range of float16, and its gradients to infinity times 0.
    "stochastic_depth": Range(minimum=0, maximum=0.999),
    "dropout": Range(minimum=0, maximum=0.999),
}
_BOOLEANS = ("preactivation", "conv_bias", "standardize", "zero_gamma")
# One number for each stage.
_STAGES = {"depths": (1, _MAX_BLOCKS), "widths": (1, _MAX_WIDTH), "strides": (1, 16)}
# Activations of `keras.activations` that change the shape, mix the channels, or take arguments.
_NOT_ELEMENTWISE = {"softmax", "log_softmax", "sparsemax", "glu", "threshold", "get", "serialize", "deserialize"}


def check_fields(arch: Arch) -> None:
    """Check type and range of every field, and that the fields fit together.

    Raises:
        UserError: for the first field that is wrong.
    """
    for name, choices in _CHOICES.items():
        value = getattr(arch, name)
        if value not in choices or type(value) is not type(choices[0]):
            raise UserError(f"{name}={shorten(value)}; it takes {', '.join(map(repr, choices))}")
    for name, (minimum, maximum) in _INTEGERS.items():
        check_integer(name, getattr(arch, name), minimum=minimum, maximum=maximum)
    for name, valid in _NUMBERS.items():
        check_number(name, getattr(arch, name), valid)
    for name in _BOOLEANS:
        if not isinstance(getattr(arch, name), bool):
            raise UserError(f"{name} takes True or False, got {shorten(getattr(arch, name))}")
    for name, (minimum, maximum) in _STAGES.items():
        _check_stages(name, getattr(arch, name), minimum, maximum)
    counts = {name: len(getattr(arch, name)) for name in _STAGES}
    if len(set(counts.values())) > 1:
        raise UserError(f"an Arch has as many depths as widths and strides, not {counts}")
    if not isinstance(arch.activation, str) or not arch.activation.isidentifier():
        raise UserError(f"activation takes the name of a Keras activation, got {shorten(arch.activation)}")
    _check_combinations(arch)


def whitening_width(channels: int, dimensions: int) -> int:
    """Return the output channels of stem="whitening": a principal axis and its negative for each value of a patch.

    >>> whitening_width(3, dimensions=2)
    24
    """
    return 2 * channels * WHITENING_KERNEL**dimensions


def squeezed_width(channels: int, ratio: float) -> int:
    """Return the channels inside squeeze-and-excitation: the nearest multiple of 8, at least 8, as in timm.

    >>> squeezed_width(80, 0.25)
    24
    """
    return max(8, int(channels * ratio + 4) // 8 * 8)


def check_activation(name: str) -> None:
    """Check that a name is that of an elementwise activation of Keras.

    Raises:
        UserError: if it is not; it lists them.
    """
    import keras  # here, so that architectures are listed and compared without TensorFlow

    known = {each for each, value in vars(keras.activations).items() if callable(value)} - _NOT_ELEMENTWISE
    if name not in known:
        raise UserError(f"activation={name!r}; it takes {', '.join(map(repr, sorted(known)))}")


def check_effects(arch: Arch, base: Arch, given: Iterable[str]) -> None:
    """Check that options have an effect on the network.

    Args:
        arch: network with the options.
        base: network without them; an option that has its value is none.
        given: names of the options.

    Raises:
        UserError: for the first option without effect; it states what the option needs.
    """
    for name in given:
        if getattr(arch, name) != getattr(base, name):
            _check_effect(arch, name)


def _check_stages(name: str, values: Any, minimum: int, maximum: int) -> None:
    if not isinstance(values, tuple) or not 1 <= len(values) <= _MAX_STAGES:
        raise UserError(f"{name} takes a tuple of 1 to {_MAX_STAGES} whole numbers, got {shorten(values)}")
    for each in values:
        check_integer(name, each, minimum=minimum, maximum=maximum)


def _check_combinations(arch: Arch) -> None:
    for name, default in _NEUTRAL.items():
        if getattr(arch, name) != default:
            _check_effect(arch, name)
    if arch.transition == "pool" and (arch.preactivation or arch.output_stride):
        raise UserError("transition='pool' takes preactivation=False and output_stride=0")
    if arch.preactivation and arch.block == "single":
        raise UserError("preactivation=True takes block='basic' or 'bottleneck'")
    if arch.standardize and arch.dimensions != 2:
        raise UserError("standardize=True takes dimensions=2")
    if arch.stem == "deep" and arch.stem_width < 2:
        raise UserError("stem='deep' takes a stem_width of at least 2")
    inner = [arch.inner_width(filters) for filters in arch.widths]
    if not 1 <= min(inner) <= max(inner) <= 4 * _MAX_WIDTH:
        raise UserError(
            f"base_width={arch.base_width} and groups={arch.groups} give {min(inner)} to {max(inner)} channels in a "
            f"bottleneck; 1 to {4 * _MAX_WIDTH} are possible"
        )
    if arch.output_stride and arch.output_stride not in arch.cumulative_strides:
        largest = _INTEGERS["output_stride"][1]
        possible = sorted({each for each in arch.cumulative_strides if each <= largest})
        raise UserError(f"output_stride={arch.output_stride} is impossible here; it can be {possible}")


def _check_effect(arch: Arch, name: str) -> None:
    for requirement, is_met in _REQUIREMENTS.get(name, ()):
        if not is_met(arch):
            raise UserError(f"{name}={getattr(arch, name)!r} has no effect on this network: it needs {requirement}")


def _is_strided(arch: Arch) -> bool:
    return max(arch.strides) > 1


def _is_projected(arch: Arch) -> bool:
    """Return whether the shape changes in any block, so that a shortcut is more than the input itself."""
    widths = [width * EXPANSION[arch.block] for width in arch.widths]
    if arch.transition == "pool":
        return False
    return _is_strided(arch) or [*_stem_widths(arch), *widths[:-1]] != widths


def _stem_widths(arch: Arch) -> list[int | None]:
    """Return the channels before the first block: None where they depend on the channels of the input."""
    return [None if arch.stem in ("whitening", "none") else arch.stem_width]


# Field -> (what it needs, whether a network has it). Fields that are not listed always have an effect.
_Requirement = tuple[str, Callable[[Arch], bool]]
_POST_ACTIVATION: _Requirement = ("preactivation=False", lambda arch: not arch.preactivation)
_BOTTLENECK: _Requirement = ("block='bottleneck'", lambda arch: arch.block == "bottleneck")
_STRIDED_BLOCK: _Requirement = ("transition='block'", lambda arch: arch.transition == "block")
_STRIDED: _Requirement = ("a stage with a stride", _is_strided)
_REQUIREMENTS: Mapping[str, tuple[_Requirement, ...]] = {
    "groups": (_BOTTLENECK, _POST_ACTIVATION),
    "base_width": (_BOTTLENECK, _POST_ACTIVATION),
    "stem_width": (("a stem with learned kernels", lambda arch: arch.stem not in ("whitening", "none")),),
    "stem_pool": (("stem='conv7' or 'deep'", lambda arch: STEM_STRIDES[arch.stem] > 1),),
    "shortcut": (
        _POST_ACTIVATION,
        ("a block that changes the shape", lambda arch: arch.shortcut == "none" or _is_projected(arch)),
        ("a stage with a stride", lambda arch: arch.shortcut != "average" or _is_strided(arch)),
    ),
    "stride_conv": (_BOTTLENECK, _STRIDED, _STRIDED_BLOCK),
    "stride_block": (
        _STRIDED_BLOCK,
        (
            "a stage with a stride and more than one block",
            lambda arch: any(map(lambda stride, depth: min(stride, depth) > 1, arch.strides, arch.depths)),
        ),
    ),
    "conv_bias": (("preactivation=True", lambda arch: arch.preactivation),),
    "se_ratio": (_POST_ACTIVATION,),
    "norm_momentum": (("norm='batch'", lambda arch: arch.norm == "batch"),),
    "zero_gamma": (_POST_ACTIVATION, ("a shortcut", lambda arch: arch.shortcut != "none")),
    "stochastic_depth": (("a shortcut", lambda arch: arch.shortcut != "none"),),
}
# Fields whose other values contradict the network where they have no effect. The rest may be left over from a network
# that was changed by other options: `stem_pool` of ResNet-RS with stem='small', for example.
_NEUTRAL: Mapping[str, Any] = {
    "groups": 1,
    "base_width": 64,
    "shortcut": "projection",
    "conv_bias": False,
    "se_ratio": 0,
}
