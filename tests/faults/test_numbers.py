"""Numbers at and beyond the borders of every configuration key, preprocessing field and command-line flag."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest

from resnet_tf import config as config_lib
from resnet_tf.config import Config, iterate_keys, load_config, override
from resnet_tf.config.effects import REQUIREMENTS
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import ImagePreprocess, Preprocess, SignalPreprocess, input_type
from resnet_tf.serving.predictor import Predictor

KEYS = dict(iterate_keys())
NUMERIC = [key for key, item in KEYS.items() if type(item.default) in (int, float, tuple)]
# Settings that a key needs at its largest or smallest value, where another condition holds as well.
WITH = {
    "train.head_epochs": {"train.epochs": 10**6},
    "train.start_size": {"train.end_size": 0},
    "data.length": {"data.channels": 1},
}
HUGE = 10**5000  # Python prints at most 4,300 digits


def _set(key, value, **settings):
    """Return the value that a key has after an override, with the settings that it needs."""
    config = override(Config(), {**WITH.get(key, {}), **settings, key: value})
    group, name = key.split(".")
    return getattr(getattr(config, group), name)


def _is_tuple(key):
    return isinstance(KEYS[key].default, tuple)


def _is_integer(key):
    return type(KEYS[key].default) is int


def _neighbor(key, bound, direction):
    """Return the next number of the type of the key in a direction, -1 or 1."""
    return bound + direction if _is_integer(key) else math.nextafter(bound, direction * math.inf)


def _borders(key):
    """Yield (number, whether it is valid) at, and one step beyond, both bounds of a key."""
    valid = KEYS[key].metadata["valid"]
    for included, excluded, outside in ((valid.minimum, valid.above, -1), (valid.maximum, valid.below, 1)):
        if included is not None:
            yield included, True
            yield _neighbor(key, included, outside), False
        else:
            yield excluded, False
            yield _neighbor(key, excluded, -outside), True


@pytest.mark.parametrize("key", NUMERIC)
def test_every_number_has_a_finite_range_that_holds_its_default(key):
    item = KEYS[key]
    assert item.metadata["valid"].is_finite, f"{key} needs a lower and an upper bound"
    for each in item.default if _is_tuple(key) else [item.default]:
        item.metadata["valid"].check(key, each)


@pytest.mark.parametrize("key", NUMERIC)
def test_the_borders_of_every_key(key):
    for number, is_valid in _borders(key):
        value = (number,) if _is_tuple(key) else number
        for given in (
            value,
            json.loads(json.dumps(value)),
            ",".join(map(repr, value)) if _is_tuple(key) else repr(number),
        ):
            if is_valid:
                assert _set(key, given) == value
            else:
                with pytest.raises(UserError, match=rf"^{key} must be (at least|above|at most|below) "):
                    _set(key, given)


@pytest.mark.parametrize("key", NUMERIC)
def test_numbers_that_no_key_takes(key):
    numbers = [math.nan, math.inf, -math.inf, HUGE, -HUGE, 2**63, 10**400]
    texts = ["nan", "inf", "-inf", "1e400", "-1e400", "9" * 5000]
    lists = [each for number in numbers for each in ([number], [0.5, number])]
    for value in (lists if _is_tuple(key) else numbers) + texts:
        with pytest.raises(UserError) as caught:
            _set(key, value)
        message = str(caught.value)
        assert re.fullmatch(f"{key} .{{1,200}}", message)


@pytest.mark.parametrize("key", KEYS)
def test_values_of_another_type_are_refused(key):
    default = KEYS[key].default
    if KEYS[key].metadata["choices"]:
        named = KEYS[key].metadata["choices"]  # true and false are values of some, as words and as JSON
        wrong = [1.0, None, [], "", *(() if "true" in named else (True, "true"))]
    else:
        wrong = {
            bool: [1, 1.0, None, [], "", "yes"],
            str: [True, 1.0, None, {}, [], b"1"],
            int: [True, 1.0, "1.0", None, {}, [], "", "true"],
            float: [True, None, {}, [], "", "true", "1,2"],
            tuple: [True, 1.0, None, {}, [True], [[1]], ["a"], "true", "1;2"],
        }[type(default)]
    for value in wrong:
        with pytest.raises(UserError, match=f"^{key} "):
            _set(key, value)


@pytest.mark.parametrize("key", KEYS)
def test_values_of_another_type_are_refused_in_a_python_config(key):
    group, name = key.split(".")
    default = KEYS[key].default
    wrong = {
        bool: [1, "true"],
        str: [None, 3],
        int: [True, 1.0, "1"],
        float: [True, "1"],
        tuple: [[1.0], 1.0, (True,), ("1",)],
    }
    for value in wrong[type(default)]:
        changed = dataclasses.replace(getattr(Config, group), **{name: value})
        with pytest.raises(UserError, match=f"^{key} takes "):
            Config(**{group: changed})


def test_numbers_of_json_files(tmp_path):
    path = tmp_path / "config.json"
    for key in NUMERIC:
        group, name = key.split(".")
        for text in ("1e400", "-1e400", "NaN", "-Infinity", "9" * 400, "true", '"x"'):
            path.write_text(f'{{"{group}": {{"{name}": {f"[{text}]" if _is_tuple(key) else text}}}}}')
            with pytest.raises(UserError, match=re.escape(str(path))):
                load_config(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer.decay_epochs": "3,2"}, "optimizer.decay_epochs must increase, got 3.0,2.0"),
        ({"optimizer.decay_epochs": "2,2"}, "optimizer.decay_epochs must increase, got 2.0,2.0"),
        ({"data.mean": "1,,2"}, "data.mean takes numbers separated by commas"),
        ({"data.length": 2**20, "data.channels": 4096}, "data.length=1048576 times data.channels=4096 must be at most"),
    ],
)
def test_conditions_between_keys(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        override(Config(), settings)


def test_recipes_are_within_the_ranges():
    assert all(load_config(name) for name in config_lib.list_configs())


# Key -> (a value, settings with which it has no effect, settings with which it has one).
EFFECTS = {
    "model.new_head": ("true", [], ["model.weights=a.safetensors"]),
    "model.adapt_channels": ("zero", [], ["model.weights=a.safetensors"]),
    "model.stochastic_depth": ("0.1", ["train.finetune=probe"], ["train.finetune=head_then_all"]),
    "data.image_folder": ("photos", [], ["data.source=labels.csv"]),
    "data.image_column": ("path", [], ["data.source=labels.TSV"]),
    "data.label_column": ("name", ["data.source=arrays.npz"], ["data.source=labels.parquet"]),
    "data.label_separator": (";", [], ["data.source=labels.csv"]),
    "data.split_column": ("part", ["data.source=cifar10"], ["data.source=labels.csv"]),
    "data.group_column": ("patient", [], ["data.source=labels.csv"]),
    "data.channel_order": ("bgr", ["data.channels=1"], ["data.channels=3"]),
    "augment.min_crop_area": ("0.5", [], ["augment.random_resized_crop=true"]),
    "augment.antialias": ("true", [], ["augment.random_resized_crop=true"]),
    "augment.policy_layers": ("1", ["augment.policy=trivialaugment"], ["augment.policy=randaugment"]),
    "augment.policy_magnitude": ("1", [], ["augment.policy=randaugment"]),
    "augment.mix_probability": ("0.5", [], ["augment.cutmix=1"]),
    "train.head_epochs": ("2", [], ["train.finetune=head_then_all"]),
    "train.full_size_from": ("0.5", [], ["train.start_size=8"]),
    "optimizer.warmup_epochs": ("3", ["optimizer.schedule=one_cycle"], ["optimizer.schedule=step"]),
    "optimizer.end_lr_fraction": ("0.1", ["optimizer.schedule=step"], ["optimizer.schedule=linear"]),
    "optimizer.decay_epochs": ("1,2", ["optimizer.schedule=cosine"], ["optimizer.schedule=step", "train.epochs=3"]),
    "optimizer.decay_factor": ("0.5", ["optimizer.schedule=cosine"], ["optimizer.schedule=step"]),
    "optimizer.power": ("3", ["optimizer.schedule=linear"], ["optimizer.schedule=polynomial"]),
    "optimizer.rise_fraction": ("0.5", ["optimizer.schedule=step"], ["optimizer.schedule=one_cycle"]),
    "optimizer.momentum": ("0.5", ["optimizer.name=adamw"], ["optimizer.name=lars"]),
    "optimizer.nesterov": ("true", ["optimizer.momentum=0"], ["optimizer.momentum=0.9"]),
    "optimizer.decay_all": ("true", ["optimizer.weight_decay=0"], ["optimizer.weight_decay=1"]),
    "loss.teacher_weight": ("0.4", [], ["loss.teacher=exports"]),
    "loss.temperature": ("2", [], ["loss.teacher=exports"]),
    "loss.target_threshold": ("0.2", [], ["loss.name=binary"]),
    "loss.focal_gamma": ("1", [], ["loss.name=focal"]),
    "loss.positive_gamma": ("1", ["loss.name=focal"], ["loss.name=asymmetric"]),
    "loss.negative_gamma": ("1", [], ["loss.name=asymmetric"]),
    "loss.margin": ("0.1", [], ["loss.name=asymmetric"]),
    "loss.effective_beta": ("0.9", ["loss.class_weights=inverse"], ["loss.class_weights=effective"]),
    "export.target_precision": ("0.9", ["export.calibrate=false"], ["export.calibrate=true"]),
    "runtime.tpu": ("v5", ["runtime.strategy=single"], ["runtime.strategy=tpu"]),
}


@pytest.mark.parametrize("key", REQUIREMENTS)
def test_keys_without_effect_name_the_key_that_they_need(key, tmp_path):
    value, useless, useful = EFFECTS[key]
    with pytest.raises(UserError, match=rf"^{key}=.* has no effect: it needs "):
        load_config("digits", [*useless, f"{key}={value}"])
    config = load_config("digits", [*useful, f"{key}={value}"])
    stored = tmp_path / "config.json"
    # A recipe may have the key, and so may the configuration of a run, which lists every key.
    stored.write_text(override(config, config_lib.parse_assignments([*useless, f"{key}={value}"])).to_json())
    load_config(stored)
    group, name = key.split(".")
    by_hand = {group: {name: value}}
    for setting in useless:
        (other, text), *_ = config_lib.parse_assignments([setting]).items()
        by_hand.setdefault(other.split(".")[0], {})[other.split(".")[1]] = _from_text(other, text)
    by_hand[group][name] = _from_text(key, value)
    stored.write_text(json.dumps(by_hand))
    with pytest.raises(UserError, match=rf"config\.json': {key}=.* has no effect"):
        load_config(stored)


# Key -> (a value, the rest of a configuration that it has no effect on).
UNUSED = {
    "data.image_size": ("64", ["data.length=100"]),
    "data.channel_order": ("bgr", ["data.length=100"]),
    "data.crop_fraction": ("0.5", ["data.length=100"]),
    "data.interpolation": ("bicubic", ["data.length=100"]),
    "data.exif_orientation": ("true", ["data.length=100"]),
    "data.max_pixels": ("1000", ["data.length=100"]),
    "data.length": ("100", ["data.input_type=image"]),
}


@pytest.mark.parametrize("key", UNUSED)
def test_keys_of_other_inputs_are_refused(key):
    value, settings = UNUSED[key]
    config = override(Config(), config_lib.parse_assignments([f"{key}={value}", "data.channels=3", *settings]))
    with pytest.raises(UserError, match=rf"^{key}=.* has no effect on (images|signals)$"):
        input_type(config.data).check_config(config)


def _from_text(key, text):
    """Return the JSON value of a key."""
    return _set(key, text)


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.name=adamw", "optimizer.momentum=0"],
        ["optimizer.schedule=one_cycle", "optimizer.warmup_epochs=0"],
        ["model.new_head=false"],
        ["train.minutes=1", "model.new_head=true", "model.adapt_channels=zero"],
        ["train.defaults=bit", "optimizer.schedule=step", "optimizer.decay_epochs=500"],
    ],
)
def test_switching_off_what_is_not_on_is_accepted(settings):
    load_config("digits", settings)


def test_decays_and_warmup_beyond_the_end():
    with pytest.raises(UserError, match=r"optimizer.decay_epochs=1.0,3.0 has no effect: it needs train.epochs beyond"):
        load_config("digits", ["optimizer.schedule=step", "train.epochs=3", "optimizer.decay_epochs=1,3"])
    with pytest.raises(
        UserError, match=r"optimizer.warmup_epochs=5.0 has no effect: it needs train.epochs of at least"
    ):
        load_config("digits", ["optimizer.warmup_epochs=5", "train.epochs=3"])
    load_config("cifar10_resnet20", ["train.epochs=3"])  # a shortened recipe


IMAGES = {"size": (8, 8)}
# Fields of a preprocessing -> part of the message -> values that are refused.
WRONG_IMAGES = {
    "size": {
        "size takes (height, width)": [None, 8, (8,), (8, 8, 3), "88"],
        "size must be at least 1": [(8, 0), (-8, 8), (-(10**400), 8)],
        "size must be at most 16384": [(8, 2**14 + 1), (10**400, 8)],
        "size takes a whole number": [(8, 8.0), (8, True), ("8", 8), (math.nan, 8)],
    },
    "channels": {
        "channels must be 3 (color) or 1 (gray), got ": [2, 4, 0, -1, 10**10],
        "channels takes a whole number": [3.0, None, True, "3"],
    },
    "crop_fraction": {
        "crop_fraction must be above 0": [0, -0.5],
        "crop_fraction must be at most 1": [1.01, 10**400],
        "crop_fraction must be a finite number": [math.nan, math.inf],
        "crop_fraction takes a number": ["1", None, True],
    },
    "interpolation": {
        "did you mean 'bilinear'?": ["BILINEAR"],
        "expected bilinear or bicubic": ["lanczos", None, 3],
    },
    "antialias": {"antialias takes True or False": [1, "true", None]},
    "mean": {
        "pixels are in [0, 1]; values of pixels in [0, 255] are divided by 255: 0.4851,0.4561,0.4059": [
            (123.7, 116.3, 103.5)
        ],
        "mean=-0.1,-0.1,-0.1 is that of no image: pixels are in [0, 1]": [(-0.1,)],
        "mean must be a finite number": [(math.nan,), (math.inf,) * 3],
        "must have one value, or one for each of 3 channels": [(), (0.5, 0.5), (0.5,) * 4],
        "mean takes a tuple": [0.5, "0.5", None],
        "mean takes a number": [("0.5",), (True,), (None,)],
        "mean must be at most": [(10**400,), (1e300,)],
    },
    "std": {
        "std=58.4,57.1,57.4 is that of no image: pixels are in [0, 1]; values of pixels in [0, 255]": [
            (58.4, 57.1, 57.4)
        ],
        "std must be at least": [(0,), (0.5, 0, 0.5), (-1.0,), (1e-40,)],
        "std must be a finite number": [(math.nan,), (0.5, math.inf, 0.5)],
        "must have one value, or one for each of 3 channels": [(), (0.5,) * 4],
    },
    "channel_order": {
        "channel_order='BGR'; expected rgb or bgr; did you mean 'bgr'?": ["BGR"],
        "expected rgb or bgr": ["grb", None, 1],
    },
    "exif_orientation": {"exif_orientation takes True or False": [0, None, "false"]},
    "max_pixels": {
        "max_pixels must be at least 1": [0, -1],
        "max_pixels must be at most": [2**28 + 1],
        "max_pixels takes a whole number": [1e6, True],
    },
}
SIGNALS = {"length": 100, "channels": 2}
WRONG_SIGNALS = {
    "length": {
        "length must be at least 1": [0, -1],
        "length takes a whole number": [1.0, True, "100", None],
        "length must be at most": [2**31],
        "has 4,294,967,294 values": [2**31 - 1],
    },
    "channels": {
        "channels must be at least 1": [0],
        "channels takes a whole number": [True],
        "channels must be at most": [2**31],
    },
    "mean": {
        "mean must be a finite number": [(math.nan,)],
        "mean must be at most": [(1e300,)],
        "must have one value": [(1, 2, 3)],
        "mean takes a tuple": [1],
    },
    "std": {
        "std must be at least": [(0,), (-1,), (1, 0)],
        "std must be a finite number": [(math.inf,)],
    },
}


@pytest.mark.parametrize(
    ("input_type", "valid", "cases"),
    [(ImagePreprocess, IMAGES, WRONG_IMAGES), (SignalPreprocess, SIGNALS, WRONG_SIGNALS)],
)
def test_fields_of_a_preprocessing(input_type, valid, cases):
    assert set(cases) == {field.name for field in dataclasses.fields(input_type)}, "every field has cases"
    stored = input_type(**valid).to_dict()
    flat = [(name, message, value) for name in cases for message in cases[name] for value in cases[name][message]]
    for field, message, value in flat:
        with pytest.raises(UserError, match=re.escape(message)):
            input_type(**{**valid, field: value})
        with pytest.raises(UserError):  # as in the metadata of a file
            Preprocess.from_dict(stored | {field: list(value) if isinstance(value, tuple) else value})


def test_valid_statistics_of_images():
    bgr = ImagePreprocess(size=[8, 9], mean=np.array([0.4, 0.5, 0.6]), std=(1 / 255,), channel_order="bgr")
    assert (bgr.size, bgr.mean, bgr.std) == ((8, 9), (0.4, 0.5, 0.6), (1 / 255,) * 3)
    assert SignalPreprocess(length=10, channels=1, mean=(-(2.0**31),), std=(2.0**31,)).std == (2.0**31,)


FLAGS = [
    ("predict", "--model=x", "--batch_size=0", "x.png"),
    ("predict", "--model=x", "--batch_size=-1", "x.png"),
    ("predict", "--model=x", "--batch_size=1.5", "x.png"),
    ("predict", "--model=x", "--batch_size=99999999999", "x.png"),
    ("benchmark", "--seconds=nan"),
    ("benchmark", "--seconds=inf"),
    ("benchmark", "--seconds=-1"),
    ("benchmark", "--seconds=1e400"),
    ("prepare", "--source=x", "--target=y", "--eval_fraction=nan"),
    ("prepare", "--source=x", "--target=y", "--eval_fraction=1.5"),
    ("prepare", "--source=x", "--target=y", "--eval_fraction=0"),
    ("preview", "--out=x.png", "--count=0"),
    ("preview", "--out=x.png", "--count=1e3"),
    ("preview", "--out=x.png", "--step=-1"),
    ("preview", "--out=x.png", f"--step={10**30}"),
    ("data_service", "--port=65536"),
    ("data_service", "--port=-1"),
    ("data_service", "--worker_port=1e400"),
    ("demo", "--model=x", "--port=65536"),
    ("convert", "--weights=x", "--model=resnet18", "--to=y.keras", "--num_classes=-1"),
    ("train", "--set=optimizer.base_lr=-1"),
    ("train", "--set=runtime.seed=4294967296"),
]


@pytest.mark.parametrize("arguments", FLAGS, ids=" ".join)
def test_numbers_of_flags(arguments, command):
    module, *flags = arguments
    outcome = command(module, *flags)
    assert outcome.code == 2
    assert re.fullmatch(r"error: .{1,400}\n", outcome.err), outcome.err


def test_batch_sizes_of_a_predictor(tiny_export, tiny_images, tiny_config):
    predictor, split = Predictor(tiny_export), open_source(tiny_config.data).validation
    for size in (0, -1, 2.0, True, None, 10**400):
        with pytest.raises(UserError, match=r"^batch_size "):
            predictor(tiny_images, batch_size=size)
        with pytest.raises(UserError, match=r"^batch_size "):
            predictor.evaluate(split, batch_size=size)
