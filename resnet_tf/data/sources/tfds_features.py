"""Check of a prepared data set's `features.json`, before TFDS imports the classes that the file names.

TFDS stores the full Python name of each feature's class, and `tfds.builder_from_directory` imports the module in it. A
data set of unknown origin would thereby run code (`FeatureConnector.cls_from_name`), so that only TFDS's own feature
classes are accepted. `dataset_info.json` also names a module, which TFDS stores as text and does not import.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resnet_tf.core.errors import UserError

_OWN_CLASS = re.compile(r"tensorflow_datasets\.core\.features(\.[A-Za-z_]\w*)+", re.ASCII)
# Both spellings of the protocol buffer's field, which its JSON parser accepts.
_NAME_KEYS = ("pythonClassName", "python_class_name")


def check_features(version: Path) -> None:
    """Check that `version/features.json` names only feature classes of TFDS itself.

    Args:
        version: directory of one version of a prepared data set.

    Raises:
        UserError: if the file is missing, is not a JSON object, or names any other class.
    """
    path = version / "features.json"
    try:
        content = json.loads(path.read_bytes())
        names = list(_class_names(content))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} cannot be read as the features of a TFDS data set: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} holds {type(content).__name__}, not the features of a TFDS data set")
    foreign = [name for name in names if not (isinstance(name, str) and _OWN_CLASS.fullmatch(name))]
    if foreign:
        raise UserError(
            f"{str(path)!r} names the class {foreign[0]!r}, whose module would be imported and run; only feature "
            "classes under tensorflow_datasets.core.features are accepted"
        )


def _class_names(value: Any) -> Iterator[Any]:
    """All class names in any of TFDS's layouts: protocol buffers as JSON, `type` with `content`, and JSON as text."""
    if isinstance(value, list):
        for item in value:
            yield from _class_names(item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in _NAME_KEYS or (key == "type" and "content" in value):
            yield item
        if key == "json" and isinstance(item, str):  # the protocol buffer JsonFeature
            item = json.loads(item)
        yield from _class_names(item)
