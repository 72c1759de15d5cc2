"""Numbers at and beyond the borders of every configuration key, preprocessing field and command-line flag."""

import dataclasses
import json
import math
import re

import pytest

from resnet_tf import config as config_lib
from resnet_tf.config import Config, iterate_keys, load_config, override
from resnet_tf.core.errors import UserError

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
        wrong = [True, 1.0, None, [], "", "true"]
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
        ({"train.start_size": 64, "train.end_size": 32}, "train.start_size=64 must not exceed train.end_size=32"),
    ],
)
def test_conditions_between_keys(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        override(Config(), settings)


def test_recipes_are_within_the_ranges():
    assert all(load_config(name) for name in config_lib.list_configs())
