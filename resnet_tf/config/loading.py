"""Loading of configurations by name or path, and overrides by dotted key."""

import dataclasses
import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from resnet_tf.config.effects import check_effects
from resnet_tf.config.schema import Config, flatten, iterate_keys
from resnet_tf.core.errors import UserError, closest, prefix_errors
from resnet_tf.core.files import read_json
from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import shorten

CONFIG_FILE = "config.json"
# Values by which runs of versions without a key continue, where the default of the key is another one.
_BEFORE = {"data.drop_remainder": "true"}
_PATHS = ("data.source", "data.image_folder", "data.data_dir", "model.weights", "loss.teacher")


def list_configs() -> list[str]:
    """Return the names of the recipes of the package."""
    return sorted(path.stem for path in _config_directory().glob("*.py") if path.stem != "__init__")


def load_config(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Load a configuration by name or path, and apply `key=value` overrides in order.

    >>> config = load_config("cifar10_resnet20", ["data.batch_size=256"])
    >>> config.model.name, config.peak_learning_rate
    ('resnet20', 0.2)

    Args:
        name_or_path: name of a recipe, see `list_configs`; or path of a `.py` file, which defines `get_config()` and
            returns a `Config` from it, or of a `.json` file, such as the `config.json` of a run.
        overrides: assignments such as `data.batch_size=256`; the last one of a key is used.

    Raises:
        UserError: for an unknown name or key, an invalid value, or an override without effect.
    """
    path = user_path(name_or_path)
    if path.suffix == ".json":
        values = flatten(_read_json(path))
        # That of a run lists every key of the version that wrote it; one written by hand lists a few.
        is_complete = len(values) > len(dict(iterate_keys())) / 2
        with prefix_errors(f"config {str(path)!r}"):
            config = override(Config(), {**_BEFORE, **values} if is_complete else values)
            if not is_complete:
                check_effects(config, values)
    elif path.suffix == ".py":
        config = _run_config(path)
    elif (_config_directory() / f"{name_or_path}.py").is_file():
        config = _run_config(_config_directory() / f"{name_or_path}.py")
    else:
        raise UserError(
            f"unknown config {str(name_or_path)!r}; did you mean {closest(str(name_or_path), list_configs())}?"
        )
    assignments = parse_assignments(overrides)
    config = override(config, assignments)
    check_effects(config, assignments)
    return config


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Parse ["data.batch_size=64"] to {"data.batch_size": "64"}; the last assignment of a key is used."""
    return dict(_split_assignment(text) for text in texts)


def override(config: Config, values: dict[str, Any]) -> Config:
    """Return a copy of `config` with new values at dotted keys; text is parsed to the type of the key.

    Raises:
        UserError: for an unknown key or an invalid value.
    """
    keys = dict(iterate_keys())
    groups: dict[str, dict[str, Any]] = {}
    for dotted, value in values.items():
        if dotted not in keys:
            raise UserError(f"unknown key {dotted!r}; did you mean {closest(dotted.lower(), keys)}?")
        group, name = dotted.split(".")
        groups.setdefault(group, {})[name] = _parse(dotted, keys[dotted], value)
    changes = {group: dataclasses.replace(getattr(config, group), **new) for group, new in groups.items()}
    return dataclasses.replace(config, **changes, given=config.given | set(values))


def absolute_paths(config: Config) -> Config:
    """Return a configuration that names existing files and folders by absolute paths, for use in any working directory.

    Names of data sets and weights, and paths of remote file systems, are unchanged, as is `digits`, the data set in the
    package. Published weights may have the name of a folder of data, such as `imagenet`.
    """
    from resnet_tf.core.export_metadata import holds_weights  # imports TensorFlow, without which commands start

    for dotted in _PATHS:
        group, name = dotted.split(".")
        value = getattr(getattr(config, group), name)
        path = user_path(value)
        exists = holds_weights(path) if dotted == "model.weights" else path.exists()
        if value not in ("", "digits") and exists:
            changed = dataclasses.replace(getattr(config, group), **{name: str(path.absolute())})
            config = dataclasses.replace(config, **{group: changed})
    return config


def describe_keys() -> Iterator[tuple[str, str]]:
    """Yield every key with its default, and its meaning, for `--help`."""
    for dotted, item in iterate_keys():
        choices = item.metadata["choices"]
        meaning = item.metadata["meaning"] + (f" ({' | '.join(choices)})" if choices else "")
        yield f"{dotted}={_format(item.default)}", meaning


def _config_directory() -> Path:
    """Return `resnet_tf/configs` of an installed wheel, or `configs/` of the checkout with this file."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _read_json(path: Path) -> dict[str, dict[str, Any]]:
    groups = read_json(path)
    if not all(isinstance(values, dict) for values in groups.values()):
        raise UserError(f"config {str(path)!r} is not an object of groups, such as {{'data': {{'batch_size': 64}}}}")
    return groups


def _run_config(path: Path) -> Config:
    if not path.is_file():
        raise UserError(f"no config file {str(path)!r}; recipes by name are {', '.join(list_configs())}")
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except UserError:
        raise
    except Exception as error:  # a config is code of the user, which may raise any type
        raise UserError(f"config {str(path)!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise UserError(f"get_config() in {str(path)!r} returned {type(config).__name__}, not a resnet_tf Config")
    return config


def _split_assignment(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"--set takes key=value, such as data.batch_size=64; got {text!r}")
    return key.strip(), value.strip()


def _parse(dotted: str, item: dataclasses.Field, value: Any) -> Any:
    """Convert `value`, text or a JSON value, to the type of its key."""
    key_type: Any = type(item.default)
    words = item.metadata["words"]
    if isinstance(value, str) and value in words:
        return words[value]
    try:
        if key_type is tuple:
            return tuple(_number(each) for each in _items(value))
        if key_type is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[value.lower()]
        if key_type is str and isinstance(value, bool) and str(value).lower() in item.metadata["choices"]:
            return str(value).lower()  # JSON's true for a key that takes true, false or auto
        if key_type is str and not isinstance(value, str):
            raise ValueError
        if isinstance(value, bool) or (key_type is int and isinstance(value, float)):
            raise ValueError
        return key_type(value)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        name = expected.get(key_type, "numbers separated by commas")
        raise UserError(f"{dotted} takes {name}, got {shorten(value)}") from None


def _items(value: Any) -> list[Any]:
    """Return the items of a JSON list, or of text such as `1,2`, `[1, 2]` and `(1,)`."""
    if isinstance(value, str):
        text = value.strip("()[] ").removesuffix(",")
        return text.split(",") if text else []
    if not isinstance(value, list | tuple):
        raise ValueError
    return list(value)


def _number(item: Any) -> float:
    if isinstance(item, bool):
        raise ValueError
    return float(item)


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
