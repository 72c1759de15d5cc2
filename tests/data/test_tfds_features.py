"""Prepared data sets whose metadata names foreign classes are refused, and their modules are never imported."""

import json
import sys
from pathlib import Path

import pytest

from resnet_tf.config import Config, DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.data.sources.tfds_features import check_features

OWN = "tensorflow_datasets.core.features"
DICT = f"{OWN}.features_dict.FeaturesDict"
STRANGER = "stranger.payload.Text"


def _dict_of(feature: dict) -> dict:
    return {"pythonClassName": DICT, "featuresDict": {"features": {"label": feature}}}


LAYOUTS = {
    "nested": _dict_of({"pythonClassName": STRANGER, "text": {}}),
    "outermost": {"pythonClassName": STRANGER, "featuresDict": {"features": {}}},
    "name of the field": _dict_of({"python_class_name": STRANGER, "text": {}}),
    "before TFDS 4.3": {"type": DICT, "content": {"label": {"type": STRANGER, "content": {}}}},
    "inside a sequence": _dict_of(
        {
            "pythonClassName": f"{OWN}.sequence_feature.Sequence",
            "sequence": {"feature": {"pythonClassName": STRANGER, "text": {}}},
        }
    ),
    "JSON as text": _dict_of(
        {
            "pythonClassName": DICT,
            "jsonFeature": {"json": json.dumps({"x": {"type": STRANGER, "content": {}}})},
        }
    ),
    "other class of TFDS": _dict_of({"pythonClassName": "tensorflow_datasets.testing.mocking.X", "text": {}}),
    "similar prefix": _dict_of({"pythonClassName": f"{OWN}_stranger.Text", "text": {}}),
    "no text": _dict_of({"pythonClassName": 7, "text": {}}),
}


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> Path:
    """A prepared data set of a stranger beside a module that leaves a file behind when it is imported."""
    version = tmp_path / "stranger" / "ds" / "photos" / "1.0.0"
    version.mkdir(parents=True)
    (tmp_path / "stranger" / "payload.py").write_text("open('EXECUTED', 'w')\n\nclass Text:\n    pass\n")
    split = {"name": "train", "numBytes": "0", "shardLengths": ["0"]}
    split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {"name": "photos", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    info["moduleName"] = "stranger.payload"
    (version / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield version
    assert not (tmp_path / "EXECUTED").exists(), "the foreign module was imported"
    assert "stranger.payload" not in sys.modules


@pytest.mark.parametrize("layout", LAYOUTS)
def test_foreign_classes_are_refused(stranger, layout):
    (stranger / "features.json").write_text(json.dumps(LAYOUTS[layout]))
    for directory in (stranger, stranger.parent, stranger.parent.parent):
        with pytest.raises(UserError, match=r"features.json' names the class .* would be imported and run"):
            open_source(DataConfig(source=str(directory)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"cannot be read as the features"),
        ("{", r"cannot be read as the features"),
        ("[]", r"holds list, not the features"),
        ("[" * 100_000, r"cannot be read as the features"),
        ('{"pythonClassName": null}', r"names the class None"),
        ("{}", r"is not a TFDS data set that can be read"),
        (json.dumps(_dict_of({"pythonClassName": f"{OWN}.nothing.Here", "text": {}})), r"is not a TFDS data set"),
        (json.dumps(_dict_of({"unknown": 1})), r"is not a TFDS data set"),
    ],
    ids=["empty", "cut", "list", "deep", "null", "no class", "no such class", "unknown field"],
)
def test_corrupt_features_are_one_line(stranger, content, message):
    (stranger / "features.json").write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=str(stranger)))


def test_the_module_in_dataset_info_is_not_imported(stranger):
    (stranger / "features.json").write_text(json.dumps(_dict_of({"pythonClassName": f"{OWN}.scalar.Scalar"})))
    with pytest.raises(UserError):
        open_source(DataConfig(source=str(stranger)))


def test_a_run_directory_of_a_stranger_runs_nothing(stranger, command):
    (stranger / "features.json").write_text(json.dumps(LAYOUTS["nested"]))
    (run := Path("run")).mkdir()
    (run / "config.json").write_text(Config(data=DataConfig(source="stranger/ds")).to_json())
    for arguments in (("train", f"--config={run}/config.json", "--dry-run"), ("evaluate", f"--workdir={run}")):
        outcome = command(*arguments)
        assert outcome.code == 2
        assert outcome.err.splitlines()[-1].startswith("error: ")


def test_data_sets_in_data_dir_are_checked_too(stranger):
    (stranger / "features.json").write_text(json.dumps(LAYOUTS["nested"]))
    with pytest.raises(UserError, match=r"would be imported and run"):
        open_source(DataConfig(source="photos", data_dir="stranger/ds"))


@pytest.mark.parametrize("name", ["huggingface:mnist", "kaggle:cats", "somebody:photos"])
def test_community_data_sets_are_refused(name):
    with pytest.raises(UserError, match=r"names a community data set, whose code would be downloaded and run"):
        open_source(DataConfig(source=name))


def test_own_data_sets_pass(data_dir):
    source = open_source(DataConfig(source="digits", data_dir=str(data_dir)))
    check_features(data_dir / "digits" / "1.0.0")
    assert open_source(DataConfig(source="digits", data_dir=str(data_dir))).class_names == source.class_names
