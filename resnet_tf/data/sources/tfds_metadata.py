"""Check of the metadata of a prepared data set, before TFDS reads them.

TFDS stores the full Python name of each feature's class, in `features.json` or in the field `features` of
`dataset_info.json`, and imports the module in it (`FeatureConnector.cls_from_name`). A data set of unknown origin would
thereby run code, so that only TFDS's own feature classes are accepted. `dataset_info.json` also names a module, which
TFDS stores as text and does not import, and templates of file names, which TFDS formats.
"""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from resnet_tf.core.bounded import parse_json, read_regular
from resnet_tf.core.errors import UserError
from resnet_tf.core.files import read_json
from resnet_tf.core.text import counted
from resnet_tf.core.validation import find_mismatch

_FEATURES, _INFO = "features.json", "dataset_info.json"
_AUTHORS = "metadata.json"  # of the data set's author, if there are any
_LABELS_SUFFIX = ".labels.txt"
# Further files that TFDS opens: names of classes, and dictionaries of text features.
_OTHERS = (f"*{_LABELS_SUFFIX}", "*.text*", "*.tokens", "*.subwords")
# Both spellings of the protocol buffers' fields, which their JSON parser accepts.
_CLASS_KEYS = ("pythonClassName", "python_class_name")
_FORMAT_KEYS = ("fileFormat", "file_format")
_TEMPLATE_KEYS = ("filepathTemplate", "filepath_template")
_LENGTH_KEYS = ("shardLengths", "shard_lengths")
_TEMPLATE_FIELDS = re.compile(r"\{(DATASET|SPLIT|FILEFORMAT|SHARD_INDEX|NUM_SHARDS|SHARD_X_OF_Y)\}")


def check_metadata(version: Path) -> None:
    """Check the metadata of a prepared data set.

    Args:
        version: directory of one version.

    Raises:
        UserError: if a file is not a regular file inside the directory, is too large or is corrupt, if it names a class
            that is not TFDS's own, or another record format than TFRecord.
    """
    info, features = (read_json(version / name, inside=version) for name in (_INFO, _FEATURES))
    for path, content in ((version / _INFO, info), (version / _FEATURES, features)):
        _check_classes(path, content)
    _check_info(version / _INFO, info)
    others = sorted(path for pattern in _OTHERS for path in version.glob(pattern))
    for path in (*others, *([version / _AUTHORS] if os.path.lexists(version / _AUTHORS) else [])):
        _read_text(path)


def check_label_file(version: Path, feature_name: str, feature: tfds.features.ClassLabel) -> None:
    """Check that the file of class names, if there is one, names each class once.

    TFDS reports no error then, and loads other names or none.

    Raises:
        UserError: if it does not.
    """
    path = version / f"{feature_name.replace('/', '.')}{_LABELS_SUFFIX}"
    if not path.exists():
        return
    names = [name.strip() for name in _read_text(path).split("\n") if name.strip()]
    if names != feature.names or len(set(names)) != len(names) or len(names) != feature.num_classes:
        raise UserError(
            f"{str(path)!r} has {counted(len(set(names)), 'different name')} for "
            f"{counted(feature.num_classes, 'class')}"
        )


def _read_text(path: Path) -> str:
    try:
        return read_regular(path, inside=path.parent).decode()
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r} of a TFDS data set: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r} of a TFDS data set is not text in UTF-8: {error}") from error


def _check_info(path: Path, info: dict[str, Any]) -> None:
    for file_format in _values(info, _FORMAT_KEYS):
        if file_format not in ("", "tfrecord"):
            raise UserError(
                f"the data set at {str(path.parent)!r} is stored as {file_format!r}; only tfrecord is supported, to "
                "which `tfds convert_format` converts"
            )
    splits = info.get("splits", [])
    if mismatch := find_mismatch(splits, list[dict[str, Any]], "splits"):
        raise UserError(f"{str(path)!r} is invalid: {mismatch}")
    for split in splits:
        for template in _values(split, _TEMPLATE_KEYS):
            if not isinstance(template, str) or re.search(r"[{}]", _TEMPLATE_FIELDS.sub("", template)):
                raise UserError(f"{str(path)!r} has a template of file names that TFDS does not have: {template!r}")
        for lengths in _values(split, _LENGTH_KEYS):
            if not isinstance(lengths, list) or not all(map(_is_count, lengths)):
                raise UserError(f"{str(path)!r} is invalid: the shard lengths of {split.get('name')!r} are not numbers")


def _is_count(length: Any) -> bool:
    """Return True for a count in [0, 2**62), as a number or, as protocol buffers write it, as text."""
    return bool(re.fullmatch(r"\d{1,19}", str(length), re.ASCII)) and int(length) < 2**62


def _values(fields: dict[str, Any], keys: tuple[str, str]) -> list[Any]:
    """Return the values of a field in both spellings, of which TFDS uses the last one in the file."""
    return [fields[key] for key in keys if key in fields]


def _check_classes(path: Path, content: dict[str, Any]) -> None:
    try:
        names = list(_class_names(content))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} holds a feature that is not JSON: {error}") from error
    foreign = [name for name in names if not (isinstance(name, str) and name in _own_classes())]
    if foreign:
        raise UserError(
            f"{str(path)!r} names the class {foreign[0]!r}, whose module would be imported and run; only the feature "
            "classes of tensorflow_datasets.features are accepted"
        )


@functools.cache
def _own_classes() -> frozenset[str]:
    """Return the full Python names of the feature classes that TFDS exports, and has imported."""
    public = (each for each in vars(tfds.features).values() if isinstance(each, type))
    own = (each for each in public if issubclass(each, tfds.features.FeatureConnector))
    return frozenset(f"{each.__module__}.{each.__name__}" for each in own)


def _class_names(value: Any) -> Iterator[Any]:
    """All class names in any of TFDS's layouts: protocol buffers as JSON, `type` with `content`, and JSON as text."""
    if isinstance(value, list):
        for item in value:
            yield from _class_names(item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        # Two features of a data set may have the names `type` and `content`; they are objects.
        if key in _CLASS_KEYS or (key == "type" and "content" in value and not isinstance(item, dict)):
            yield item
        if key == "json" and isinstance(item, str):  # the protocol buffer JsonFeature
            item = parse_json(item)
        yield from _class_names(item)
