"""Options of networks: wrong values, and values that have no effect, are errors for every option and every network."""

import dataclasses
import inspect
import math
import re

import numpy as np
import pytest

from resnet_tf.core.errors import UserError
from resnet_tf.model import options
from resnet_tf.model.arch import Arch
from resnet_tf.model.builder import build
from resnet_tf.model.create import create_model
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.zoo import MODELS

FIELDS = {field.name: field for field in dataclasses.fields(Arch)}
SMALL = {"num_classes": 3, "input_shape": (32, 32, 3)}

# Values of each field that no network takes.
_NOT_INTEGERS = [None, "1", 1.0, True, math.nan, (1,), 10**400]
_NOT_NUMBERS = [None, "0.1", True, math.nan, math.inf, -math.inf, -0.1, (0.1,), 10**400]
_NOT_STAGES = [
    None,
    3,
    "3",
    (),
    [1, 1, 1],
    (1.0,) * 3,
    (True,) * 3,
    (0, 1, 1),
    (-1, 1, 1),
    (10**9,) * 3,
    (1,) * 99,
    (1,),
]
_NOT_CHOICES = [None, 0, 1.5, "none of them", ["first"], {}, True]
_NOT_BOOLEANS = [None, 0, 1, "true", 0.0, []]
WRONG = {
    "depths": _NOT_STAGES,
    "widths": _NOT_STAGES,
    "strides": _NOT_STAGES,
    **{name: [*_NOT_INTEGERS, 0, -1, 2**20] for name in ("groups", "base_width", "stem_width")},
    "output_stride": [*_NOT_INTEGERS, -1, 3, 5, 2**20],
    **{name: [*_NOT_NUMBERS, 1.1] for name in options._NUMBERS},
    **dict.fromkeys(options._CHOICES, tuple(_NOT_CHOICES)),
    **dict.fromkeys(options._BOOLEANS, tuple(_NOT_BOOLEANS)),
    "activation": [None, 0, "", "re lu", "softmax", "glu", "threshold", "get", "no_such_activation", max, "relu/x"],
}
# Another valid value of each field.
OTHER = {
    "depths": lambda arch: (arch.depths[0] + 1, *arch.depths[1:]),
    "block": lambda arch: "basic" if arch.block != "basic" else "bottleneck",
    "widths": lambda arch: (*arch.widths[:-1], 2 * arch.widths[-1]),
    "strides": lambda arch: (1,) * len(arch.strides) if max(arch.strides) > 1 else (2,) * len(arch.strides),
    "groups": lambda arch: 2 if arch.groups == 1 else 1,
    "base_width": lambda arch: 128 if arch.base_width == 64 else 64,
    "stem": lambda arch: "deep" if arch.stem != "deep" else "conv7",
    "stem_width": lambda arch: 2 * arch.stem_width,
    "stem_pool": lambda arch: "none" if arch.stem_pool != "none" else "max",
    "shortcut": lambda arch: "average" if arch.shortcut != "average" else "projection",
    "transition": lambda arch: "pool" if arch.transition == "block" else "block",
    "stride_conv": lambda arch: 3 - arch.stride_conv,
    "stride_block": lambda arch: "first" if arch.stride_block == "last" else "last",
    "preactivation": lambda arch: not arch.preactivation,
    "conv_bias": lambda arch: not arch.conv_bias,
    "se_ratio": lambda arch: 0.5,
    "standardize": lambda arch: not arch.standardize,
    "activation": lambda arch: "silu",
    "norm": lambda arch: "batch" if arch.norm == "group" else "group",
    "norm_momentum": lambda arch: 0.5,
    "norm_epsilon": lambda arch: 1e-3,
    "zero_gamma": lambda arch: not arch.zero_gamma,
    "stochastic_depth": lambda arch: 0.5,
    "dropout": lambda arch: 0.5,
    "dimensions": lambda arch: 3 - arch.dimensions,
    "output_stride": lambda arch: arch.total_stride // 2 or 2,
}
# A network of each family, of all that differ in more than their size.
FAMILIES = {
    tuple(
        (name, value if not isinstance(value, tuple) else len(value))
        for name, value in vars(arch).items()
        if name not in ("depths", "widths", "stem_width", "base_width")
    ): name
    for name, arch in reversed(MODELS.items())
}.values()


def _shallow(name):
    """Return an architecture with two narrow blocks in each stage, which is quick to build."""
    arch = MODELS[name]
    widths = tuple(min(each, 64) for each in arch.widths)
    return dataclasses.replace(arch, depths=(2,) * len(arch.depths), widths=widths)


def _graph(model):
    """Return the configurations of all layers, without the seeds of random generators."""
    configs = [(type(layer).__name__, layer.get_config(), layer.output.shape) for layer in model.layers]
    return re.sub(r"'seed': \d+", "", repr(configs))


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_values_of_an_option_are_refused(field):
    for value in WRONG[field]:
        with pytest.raises(UserError) as caught:
            create_model("resnet20", **SMALL, **{field: value})
        message = str(caught.value)
        assert re.fullmatch(r".{1,400}", message), message
        assert field in message or ("an Arch has as many" in message and field in options._STAGES), message
        if field != "activation":
            with pytest.raises(UserError):
                dataclasses.replace(MODELS["resnet20"], **{field: value})


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_every_option_changes_the_network_or_is_refused(name):
    arch = _shallow(name)
    graphs = {}
    for field in (None, *FIELDS):
        changes = {field: OTHER[field](arch)} if field else {}
        try:
            changed = dataclasses.replace(arch, **changes)
            options.check_effects(changed, arch, changes)
            shape = (*(64,) * changed.dimensions, 3)
            graphs[field] = _graph(build(changed, input_shape=shape, num_classes=3, name=name))
        except UserError:
            continue
    assert [field for field, graph in graphs.items() if field and graph == graphs[None]] == []


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("resnet18", {"groups": 2}, "groups=2 has no effect on this network: it needs block='bottleneck'"),
        ("resnet18", {"base_width": 128}, "base_width=128 has no effect on this network: it needs block='bottleneck'"),
        ("resnet50_v2", {"se_ratio": 0.25}, "se_ratio=0.25 has no effect on this network: it needs pre"),
        ("resnet50_v2", {"shortcut": "average"}, "shortcut='average' has no effect on this network"),
        ("resnet50_v2", {"groups": 32}, "groups=32 has no effect on this network: it needs pre"),
        ("resnet50_v2", {"zero_gamma": False}, "zero_gamma=False has no effect on this network"),
        ("resnet18", {"stride_conv": 1}, "stride_conv=1 has no effect on this network: it needs block='bottleneck'"),
        ("resnet18", {"conv_bias": True}, "conv_bias=True has no effect on this network: it needs preactivation=True"),
        ("resnet20", {"stem_pool": "none"}, "stem_pool='none' has no effect on this network: it needs stem='conv7'"),
        ("resnet_article", {"stem_width": 8}, "stem_width=8 has no effect on this network: it needs a stem"),
        ("bit_r50x1", {"norm_momentum": 0.99}, "norm_momentum=0.99 has no effect on this network: it needs norm"),
        ("plain20", {"stochastic_depth": 0.1}, "stochastic_depth=0.1 has no effect on this network: it needs a"),
        ("resnet8_w32", {"stride_block": "last"}, "stride_block='last' has no effect on this network"),
        ("resnet8_pool", {"stem_width": 8}, "stem_width=8 has no effect on this network: it needs a stem with learned"),
        ("resnet8_pool", {"shortcut": "average"}, "shortcut='average' has no effect on this network: it needs a block"),
        ("resnet8_pool", {"output_stride": 4}, "transition='pool' takes preactivation=False and output_stride=0"),
        ("resnet34", {"transition": "pool", "stride_block": "last"}, "it needs transition='block'"),
        ("resnet50_v2", {"transition": "pool"}, "transition='pool' takes preactivation=False"),
        ("resnet18", {"dropout": 0.1, "num_classes": 0}, "dropout=0.1 has no effect on a network without a head"),
        ("resnet18", {"dropout": 0.1, "features": ("stage1",)}, "dropout=0.1 has no effect on a network"),
        ("resnet18", {"new_head": True}, "new_head=True has no effect without weights"),
        ("resnet50", {"preactivation": True, "block": "single"}, "preactivation=True takes block="),
        ("resnet18", {"stem": "deep", "stem_width": 1}, "stem='deep' takes a stem_width of at least 2"),
        ("resnet50", {"base_width": 1, "widths": (8, 8, 8, 8)}, "give 0 to 0 channels"),
        ("resnet20", {"norm": "group"}, "norm='group' takes multiples of 32 channels; stem_conv has 16"),
        ("resnet20", {"widths": (64, 32, 16)}, "shortcut='pad' cannot reduce channels"),
        ("resnet20", {"se_ratio": 1e-9}, "se_ratio=1e-09 leaves none of the 16 channels"),
        ("resnet18", {"strides": (1, 4, 2, 2), "output_stride": 8}, "output_stride=8 is impossible here; it can be ["),
        ("resnet50", {"strides": (1, 3, 1, 1), "output_stride": 6}, "output_stride=6 is impossible here; it can be ["),
        ("resnet18", {"activation": "rellu"}, "activation='rellu'; it takes "),
        ("resnet18", {"depths": (1, 1)}, "an Arch has as many depths as widths and strides"),
    ],
)  # fmt: skip
def test_options_without_effect_and_contradictions(name, knobs, message):
    with pytest.raises(UserError, match=re.escape(message)):
        create_model(name, **{**SMALL, "input_shape": (64, 64, 3), **knobs})


def test_options_that_a_network_has_anyway_are_accepted():
    model = create_model("resnet18", **SMALL, groups=1, se_ratio=0, stride_conv=2, output_stride=32)
    assert model.arch == dataclasses.replace(MODELS["resnet18"], output_stride=32)


def test_options_change_networks_whose_other_options_lose_their_effect():
    create_model("resnet_rs50", num_classes=3, input_shape=(32, 32, 3), stem="small")
    create_model("resnet50_v1", num_classes=3, input_shape=(32, 32, 3), block="basic")


NUMBERS_OF_CLASSES = [-1, 10**9, 2**20 + 1, 10**400, 1.0, "10", True, None, math.nan, (3,)]
SHAPES = [
    *(None, 3, 32.0, "32", (), (3,), (32, 32), (32, 32, 32, 3), (32, 32, None), (32, 32, 0), (32, 32, -1), (0, 32, 3)),
    *((-32, 32, 3), (32.0, 32, 3), (32, 32, 3.0), (True, 32, 3), ("a", "b", "c"), (3, 3, 3), (10**9, 32, 3)),
    *((32, 32, 10**9), (32, 32, 10**400), (2**14, 2**14, 64), {32: 1, 33: 2, 3: 3}, (math.nan, 32, 3)),
]


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("name", [None, 3, ["resnet18"], "resnet18 ", b"resnet18"]),
        ("num_classes", NUMBERS_OF_CLASSES),
        ("input_shape", SHAPES),
        ("weights", [3, True, ["a"], b"a", "no_such_weights"]),
        ("new_head", [None, 1, "true", True]),
        ("adapt_channels", [None, 3, ["repeat"], "timm", "Repeat", "zero"]),
        ("features", ["stage1", ("stage9",), (1,), (None,), ("",)]),
        ("model_name", [3, "", "a/b", "a b", b"a", "_a", "ä\n"]),
    ],
)
def test_arguments_of_create_model(argument, values):
    for value in values:
        arguments = {"name": "resnet18", **SMALL, argument: value}
        with pytest.raises(UserError, match=r"^.{1,700}$"):
            create_model(**arguments)


def test_every_argument_and_option_has_a_case():
    arguments = set(inspect.signature(create_model).parameters) - {"knobs"}
    marks = test_arguments_of_create_model.pytestmark
    assert {case[0] for case in marks[0].args[1]} == arguments
    assert set(WRONG) == set(OTHER) == set(FIELDS)
    checked = [*options._CHOICES, *options._INTEGERS, *options._NUMBERS, *options._BOOLEANS, *options._STAGES]
    assert sorted([*checked, "activation"]) == sorted(FIELDS)


def test_arguments_of_build():
    arch = MODELS["resnet20"]
    for argument, values in (("num_classes", NUMBERS_OF_CLASSES), ("input_shape", SHAPES)):
        for value in values:
            if value == (3, 3, 3):
                value = (2, 2, 3)
            with pytest.raises(UserError):
                build(arch, **{"name": "resnet20", **SMALL, argument: value})


def test_integers_of_numpy_are_accepted():
    model = create_model("resnet20", num_classes=np.int64(3), input_shape=tuple(np.array([32, 32, 3])))
    assert isinstance(model, ResidualNetwork)
    assert model.output_shape == (None, 3)
    assert create_model("resnet20", num_classes=0, input_shape=[None, None, 3]).output_shape == (None, 64)
