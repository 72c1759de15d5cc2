"""Random configurations whose values are valid one by one: a plan is made, or one line states what is wrong."""

import math
import random
import re

import keras
import pytest

from resnet_tf.config import Config, iterate_keys, override
from resnet_tf.core.errors import UserError
from resnet_tf.workflows.plan import plan

# Text, and keys that change the process or wait for a network.
SKIPPED = {"runtime.strategy", "runtime.logical_devices", "runtime.deterministic", "data.length", "data.channels"}
NAMES = ["resnet8_w32", "resnet18", "resnet20_w8", "plain20", "resnet_article", "wrn_16_4", "resnet18_1d", "bit_r50x1"]
BASE = {
    "model.name": "resnet8_w32",
    "data.image_size": 16,
    "data.channels": 1,
    "data.mean": (0.5,),
    "data.std": (0.25,),
    "data.batch_size": 64,
    "augment.mixup": 0.0,
}


def _random_value(generator, key, item):
    default, valid = item.default, item.metadata["valid"]
    if item.metadata["choices"]:
        return generator.choice(item.metadata["choices"])
    if isinstance(default, bool):
        return generator.random() < 0.5
    low = valid.minimum if valid.minimum is not None else valid.above
    high = valid.maximum if valid.maximum is not None else valid.below
    if type(default) is int:
        return generator.choice([low, high, generator.randint(low, min(high, low + 9)), generator.randint(low, high)])
    lowest = low if valid.minimum is not None else math.nextafter(low, math.inf)
    highest = high if valid.maximum is not None else math.nextafter(high, -math.inf)
    small = min(max(generator.uniform(0, 2), lowest), highest)
    numbers = [lowest, highest, small, generator.uniform(lowest, highest)]
    if isinstance(default, tuple):
        return tuple(sorted(set(generator.choices(numbers, k=generator.choice([0, 1, 1, 2, 3])))))
    return generator.choice(numbers)


def random_settings(generator):
    """Return 1 to 8 random settings."""
    keys = {
        key: item
        for key, item in iterate_keys()
        if key not in SKIPPED and (item.metadata["choices"] or not isinstance(item.default, str))
    }
    chosen = generator.sample(sorted(keys), generator.randint(1, 8))
    settings = BASE | {key: _random_value(generator, key, keys[key]) for key in chosen}
    if generator.random() < 0.3:
        settings["model.name"] = generator.choice(NAMES)
    return settings


def check(settings, data_dir, path):
    """Make the plan of settings, with a plot of the first batch, and return the message of a user's mistake."""
    keras.config.set_dtype_policy("float32")
    try:
        plan(override(Config(), {"data.data_dir": str(data_dir), **settings}), path=path)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_random_configurations_are_planned_or_refused_in_one_line(seed, data_dir, tmp_path):
    generator = random.Random(seed)
    for _ in range(6):
        settings = random_settings(generator)
        assert re.fullmatch(r".{0,600}", check(settings, data_dir, tmp_path / "batch.png")), settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment.repeats": 65}, "augment.repeats=65 exceeds data.batch_size=64"),
        ({"train.start_size": 64}, "train.start_size=64 exceeds the image size at the end, 16"),
        ({"train.start_size": 64, "train.end_size": 32}, "train.start_size=64 exceeds the image size at the end, 32"),
        ({"train.accumulate": 3}, "data.batch_size=64 does not divide into train.accumulate=3 micro-batches"),
        ({"model.num_classes": 9}, "model.num_classes=9, but 'digits/1.0.0' has 10 classes"),
        ({"model.name": "resnet18", "model.dropout": 0.5, "data.image_size": 31}, "input of 31x31 pixels is too small"),
        (
            {"model.name": "plain20", "model.stochastic_depth": 0.5},
            "stochastic_depth=0.5 has no effect on this",
        ),
        ({"model.name": "resnet18_1d"}, "input_shape=(16, 16, 1) is not (length, channels)"),
        ({"data.mean": (123.7,)}, "mean=123.7 is that of no image: pixels are in [0, 1]"),
        ({"data.channels": 2, "data.mean": (0.5, 0.5)}, "data.channels must be 3 (RGB) or 1 (gray), got 2"),
        (
            {"train.finetune": "head_then_all", "train.head_epochs": 90},
            "train.head_epochs=90 of train.epochs=90",
        ),
        (
            {"augment.mixup": 1.0, "data.batch_size": 63},
            "data.batch_size=63 does not divide among 1 replica in",
        ),
        ({"train.start_size": 8, "model.name": "resnet18", "data.image_size": 64}, ""),
    ],
)
def test_combinations_that_make_no_plan(settings, message, data_dir, tmp_path):
    assert message in check(BASE | settings, data_dir, tmp_path / "batch.png")
