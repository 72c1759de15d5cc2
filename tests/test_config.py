"""Configuration: recipes, overrides, JSON files and error messages."""

import re
from pathlib import Path

import pytest

from resnet_tf import config as config_lib
from resnet_tf.config import Config, list_configs, load_config
from resnet_tf.core.errors import UserError

PACKAGE = Path(config_lib.__file__).parents[1]


@pytest.mark.parametrize("name", list_configs())
def test_every_recipe_loads_and_documents_its_command(name):
    assert isinstance(load_config(name), Config)
    source = (Path(__file__).parents[1] / "configs" / f"{name}.py").read_text()
    assert "python -m resnet_tf.train" in source
    assert len(source.splitlines()) < 40


def test_overrides_are_converted_to_the_type_of_their_key():
    config = load_config(
        "digits",
        ["data.batch_size=32", "optimizer.base_lr=1e-3", "augment.flip=True", "data.mean=0.5", "data.source=a=b"],
    )
    assert config.data.batch_size == 32
    assert config.optimizer.base_lr == 1e-3
    assert config.augment.flip is True
    assert config.data.mean == (0.5,)
    assert config.data.source == "a=b"


def test_derived_values_follow_an_override():
    config = load_config("digits", ["data.batch_size=512", "optimizer.base_lr=0.1"])
    assert config.peak_learning_rate == pytest.approx(0.2)


def test_json_reproduces_a_config(tmp_path):
    config = load_config("cifar10_resnet20", ["data.mean=0.1,0.2,0.3", "runtime.deterministic=true"])
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    assert load_config(path) == config


def test_a_config_is_loaded_from_a_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from resnet_tf import Config\ndef get_config():\n    return Config()\n")
    assert load_config(path) == Config()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.batchsize=3"], r"unknown key 'data.batchsize'; did you mean 'data.batch_size'"),
        (["batch_size=3"], r"unknown key 'batch_size'; did you mean 'data.batch_size'"),
        (["data.batch_size=many"], r"data.batch_size takes a whole number, got 'many'"),
        (["data.batch_size=1.5"], r"data.batch_size takes a whole number, got '1.5'"),
        (["data.batch_size=0"], r"data.batch_size must be at least 1, got 0"),
        (["optimizer.base_lr=fast"], r"optimizer.base_lr takes a number, got 'fast'"),
        (["augment.flip=maybe"], r"augment.flip takes true or false, got 'maybe'"),
        (["augment.flip=true", "augment.alternating_flip=true"], r"augment.flip and augment.alternating_flip exclude"),
        (["data.mean=a,b"], r"data.mean takes numbers separated by commas, got 'a,b'"),
        (["data.mean=0.1,0.2"], r"data.mean has 2 values for data.channels=1"),
        (["data.test_split=test"], r"data.test_split='test' is data.eval_split as well; a test split takes part in no"),
        (["data.std=0"], r"data.std must be at least 1e-18, got 0"),
        (["data.crop_fraction=1.5"], r"data.crop_fraction must be at most 1, got 1.5"),
        (
            ["runtime.strategy=tpuu"],
            r"runtime.strategy takes one of auto, single, .*, tpu; got 'tpuu'",
        ),
        (["data.batch_size"], r"--set takes key=value, such as data.batch_size=64; got 'data.batch_size'"),
    ],
)
def test_errors_name_the_wrong_override(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config("digits", overrides)


def test_errors_name_the_wrong_config(tmp_path):
    with pytest.raises(UserError, match=r"unknown config 'digit'; did you mean 'digits'"):
        load_config("digit")
    with pytest.raises(UserError, match=r"no config file 'nowhere.py'; recipes by name are .*digits"):
        load_config("nowhere.py")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return ModelConfig(nam='x')\n")
    with pytest.raises(UserError, match=r"broken.py' failed: NameError"):
        load_config(broken)
    (tmp_path / "odd.py").write_text("def get_config():\n    return 3\n")
    with pytest.raises(UserError, match=r"returned int, not a resnet_tf Config"):
        load_config(tmp_path / "odd.py")
    for text in ("{", "[1]", '{"data": 3}'):
        (tmp_path / "odd.json").write_text(text)
        with pytest.raises(UserError, match=r"odd.json'"):
            load_config(tmp_path / "odd.json")
    (tmp_path / "some.json").write_text('{"augment": {"min_crop_area": 0.2}}')
    with pytest.raises(UserError, match=r"some.json': augment.min_crop_area=0.2 has no effect"):
        load_config(tmp_path / "some.json")
    (tmp_path / "flag.json").write_text('{"runtime": {"xla": true}}')  # a flag before it had the value auto
    assert load_config(tmp_path / "flag.json").runtime.xla == "true"
    (tmp_path / "old.json").write_text('{"train": {"test_every": 2}}')
    with pytest.raises(UserError, match=r"old.json': unknown key .*; did you mean .*'train.eval_every'"):
        load_config(tmp_path / "old.json")


def test_every_key_is_used():
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "schema.py")
    code += (PACKAGE / "config" / "schema.py").read_text().split("def peak_learning_rate")[1]
    read = set(re.findall(r"\b(\w+)(?=\.(\w+))", code))
    unread = []
    for key, item in config_lib.iterate_keys():
        group = key.partition(".")[0]  # `.name` alone is an attribute of many objects
        owners = {group} if item.name == "name" else {group, "config", "settings"}
        unread += [] if read & {(owner, item.name) for owner in owners} else [key]
    assert unread == []


def test_help_lists_every_key():
    described = dict(config_lib.describe_keys())
    for key, item in config_lib.iterate_keys():
        (meaning,) = (text for name, text in described.items() if name.startswith(f"{key}="))
        assert meaning.startswith(item.metadata["meaning"])
