"""Metadata of exports is read by one function, which verifies files and checks types."""

import json
import re
import shutil
from pathlib import Path

import pytest

from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import MANIFEST, METADATA, read_export
from resnet_tf.model.create import create_model
from resnet_tf.serving.predictor import Predictor

PACKAGE = Path(files.__file__).parents[1]


def _rewrite(export: Path, **changes) -> None:
    """Change fields of the metadata, `...` removing one, with a manifest that fits."""
    metadata = json.loads((export / METADATA).read_text())
    for name, value in changes.items():
        if value is ...:
            del metadata[name]
        else:
            metadata[name] = value
    (export / METADATA).write_text(json.dumps(metadata))
    (export / MANIFEST).unlink()
    files.write_manifest(export, MANIFEST)


@pytest.fixture
def copied(tiny_export, tmp_path) -> Path:
    return shutil.copytree(tiny_export, tmp_path / "export" / "3")


@pytest.mark.slow
def test_the_newest_version_is_read(copied):
    for name in ("12", "²", ".resnet_tf-writing-x", "old"):
        (copied.parent / name).mkdir()
    assert list(files.list_numbered(copied.parent)) == [3, 12]
    (copied.parent / "12").rmdir()
    found = read_export(copied.parent)
    assert found == read_export(copied)
    assert found.directory == copied
    assert found.metadata["labels"] == [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "0123456789"}, "labels is a string, not a list"),
        ({"labels": [0, 1]}, r"labels\[0\] is an integer, not a string"),
        ({"labels": ...}, "it has no 'labels'"),
        ({"preprocess": None}, "preprocess is null, not an object"),
        ({"preprocess": {"type": "smell"}}, "unknown input type 'smell'"),
        ({"preprocess": {"type": "image", "size": [8, 8], "crop_fraction": "x"}}, "crop_fraction is a string"),
        ({"preprocess": {"type": "image", "size": [8]}}, r"size has 1 element, not 2"),
        ({"preprocess": {"type": "image", "size": [8, 8], "nonsense": 1}}, "nonsense"),
        ({"target": ["serving"]}, "target is a list, not a string"),
        ({"parameters": "many"}, "parameters is a string, not an integer"),
        ({"step": 1.5}, "step is a number, not an integer"),
        ({"metrics": [0.5]}, "metrics is a list, not an object"),
        ({"metrics": {"top1": "high"}}, "metrics.top1 is a string, not a number or null"),
        ({"config": {"data": 7}}, "config.data is an integer, not an object"),
        ({"config": {"data": {"sauce": "x"}}}, "sauce"),
        ({"config": {"data": {"batch_size": "x"}}}, "data.batch_size"),
        ({"versions": {"keras": 3}}, "versions.keras is an integer, not a string"),
        ({"speed": 7}, "speed is an integer, not an object"),
        ({"drift": {"logits": []}}, "drift.logits is a list"),
    ],
)
def test_a_field_of_another_type_is_named_with_its_file(copied, changes, message):
    _rewrite(copied, **changes)
    with pytest.raises(UserError) as caught:
        Predictor(copied)
    assert re.search(message, str(caught.value))
    assert str(copied / METADATA) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_target_is_refused(copied):
    _rewrite(copied, target="telepathy")
    with pytest.raises(UserError, match=r"export/3' has target 'telepathy', which this version of resnet_tf cannot"):
        Predictor(copied)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, "\x00"])
def test_what_is_no_object_is_refused(copied, content):
    (copied / METADATA).write_text(content)
    (copied / MANIFEST).unlink()
    files.write_manifest(copied, MANIFEST)
    with pytest.raises(UserError, match=r"resnet_tf.json' is not (JSON|a JSON object)"):
        read_export(copied)


def test_weights_of_a_changed_export_are_refused(copied):
    (copied / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match=r"weights are read from .*: exported model '.*' is corrupt: saved_model.pb"):
        create_model("resnet8_w32", num_classes=10, input_shape=(8, 8, 1), weights=copied)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_paths_are_written_down_once(path):
    code = re.sub(r'"""[\s\S]*?"""', "", path.read_text())
    found = re.findall(r'"assets\.extra"|"resnet_tf\.json"|"sha256\.json"', code)
    if path.name == "export_metadata.py":
        assert len(found) == 3
    elif path.name == "checkpoint.py":
        assert found == ['"sha256.json"'], "a checkpoint has a manifest of its own"
    else:
        assert not found
