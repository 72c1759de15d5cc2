"""Prepared data sets whose metadata names foreign classes are refused, and their modules are never imported."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from resnet_tf.config import Config, DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.data.sources.tfds_builders import find_version
from resnet_tf.data.sources.tfds_metadata import check_metadata

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
    "test of TFDS": _dict_of({"pythonClassName": f"{OWN}.image_feature_test.X", "text": {}}),
    "script of TFDS": _dict_of({"pythonClassName": "tensorflow_datasets.scripts.cli.main.X", "text": {}}),
    "private class of TFDS": _dict_of({"pythonClassName": f"{OWN}.feature.FeatureConnector.X", "text": {}}),
    "namespace below TFDS": _dict_of({"pythonClassName": f"{OWN}.stranger.Text", "text": {}}),
    "no module": _dict_of({"pythonClassName": "Text", "text": {}}),
    "list of features": {"pythonClassName": DICT, "featuresDict": [{"x": [{"pythonClassName": STRANGER}]}]},
    "twice as text": _dict_of(
        {"jsonFeature": {"json": json.dumps({"json": json.dumps({"type": STRANGER, "content": {}})})}}
    ),
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
        ("", r"features.json' is not JSON"),
        ("{", r"features.json' is not JSON"),
        ("[]", r"features.json' is not a JSON object"),
        ("[" * 100_000, r"features.json' is not JSON"),
        ('{"pythonClassName": null}', r"names the class None"),
        ("{}", r"is not a TFDS data set that can be read"),
        (json.dumps(_dict_of({"pythonClassName": f"{OWN}.nothing.Here", "text": {}})), r"names the class"),
        (json.dumps({"pythonClassName": f"{OWN}.scalar.Scalar", "tensor": {}}), r"is not a TFDS data set"),
        (json.dumps({"pythonClassName": f"{OWN}.text_feature.Text", "text": {}}), r"its features are Text"),
        (json.dumps(_dict_of({"pythonClassName": f"{OWN}.text_feature.Text", "text": {}})), r"has no image with a"),
        (json.dumps(_dict_of({"unknown": 1})), r"is not a TFDS data set"),
    ],
    ids=[
        "empty",
        "cut",
        "list",
        "deep",
        "null",
        "no class",
        "no such class",
        "no dtype",
        "no dict",
        "no image",
        "unknown field",
    ],
)
def test_corrupt_features_are_one_line(stranger, content, message):
    (stranger / "features.json").write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=str(stranger)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_foreign_classes_in_dataset_info_are_refused(stranger, layout):
    (stranger / "features.json").write_text(json.dumps(_dict_of({"pythonClassName": f"{OWN}.text_feature.Text"})))
    info = json.loads((stranger / "dataset_info.json").read_text())
    (stranger / "dataset_info.json").write_text(json.dumps(info | {"features": LAYOUTS[layout]}))
    with pytest.raises(UserError, match=r"dataset_info.json' names the class .* would be imported and run"):
        open_source(DataConfig(source=str(stranger)))


@pytest.fixture
def photos(tmp_path, data_dir) -> Path:
    """A prepared data set of images with labels: the digits, with names of classes in a file."""
    open_source(DataConfig(source="digits", data_dir=str(data_dir)))
    return shutil.copytree(data_dir / "digits" / "1.0.0", tmp_path / "photos" / "1.0.0")


def test_a_copy_of_a_data_set_is_read(photos):
    source = open_source(DataConfig(source=str(photos.parent)))
    assert (source.train.num_examples, source.class_names) == (898, tuple("0123456789"))


def _in_split(**changes):
    return lambda info: info["splits"][0].update(changes) or info["splits"][1].update(changes)


TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
WRONG_INFO = {
    "file above": (_in_split(filepathTemplate=f"../../{TEMPLATE}"), r"has a file outside of it: '.*/\.\./"),
    "absolute file": (_in_split(filepathTemplate=f"/etc/{TEMPLATE}"), r"has a file outside of it: '/etc/"),
    "name above": (lambda info: info.update(name="../../x"), r"."),
    "other spelling": (_in_split(filepath_template="{SPLIT:>999999999999}"), r"has a template of file names"),
    "padding": (_in_split(filepathTemplate="{SPLIT:>999999999999}"), r"has a template of file names"),
    "attribute": (_in_split(filepathTemplate="{SPLIT.__class__}"), r"has a template of file names"),
    "half a field": (_in_split(filepathTemplate="{SPLIT"), r"has a template of file names"),
    "no file": (_in_split(filepathTemplate=f"other-{TEMPLATE}"), r"cannot read '.*other-"),
    "negative length": (_in_split(shardLengths=["-5"]), r"the shard lengths of '.*' are not numbers"),
    "huge length": (_in_split(shardLengths=[str(2**63)]), r"the shard lengths of '.*' are not numbers"),
    "length in words": (_in_split(shardLengths=["many"]), r"the shard lengths of '.*' are not numbers"),
    "length as object": (_in_split(shardLengths={"0": "5"}), r"the shard lengths of '.*' are not numbers"),
    "no length": (_in_split(shardLengths=[]), r"is empty"),
    "zero length": (_in_split(shardLengths=["0"]), r"is empty"),
    "other length": (_in_split(shardLengths=["10"]), r"has 89\d records, but the metadata of its data set 10"),
    "other number of lengths": (_in_split(shardLengths=["400", "498"]), r"cannot read '.*00000-of-00002"),
    "splits as object": (lambda info: info.update(splits={"train": {}}), r"splits is an object, not a list"),
    "split as text": (lambda info: info.update(splits=["train"]), r"splits\[0\] is a string, not an object"),
    "lengths twice": (_in_split(shard_lengths=["-898"]), r"the shard lengths of '.*' are not numbers"),
    "no splits": (lambda info: info.pop("splits"), r"has no split 'train'"),
    "split without a name": (lambda info: info["splits"][0].pop("name"), r"."),
    "riegeli": (lambda info: info.update(fileFormat="riegeli"), r"is stored as 'riegeli'; only tfrecord"),
    "parquet": (lambda info: info.update(file_format="parquet"), r"is stored as 'parquet'; only tfrecord"),
    "no format": (lambda info: info.update(fileFormat="stranger.Format"), r"is stored as 'stranger.Format'"),
    "format as list": (lambda info: info.update(fileFormat=["tfrecord"]), r"is stored as \['tfrecord'\]"),
    "version": (lambda info: info.update(version="newest"), r"is not a TFDS data set that can be read"),
    "no version": (lambda info: info.pop("version"), r"is not a TFDS data set that can be read"),
    "three keys": (
        lambda info: info.update(
            supervisedKeys={"tuple": {"items": [{"featureKey": each} for each in ("a", "b", "c")]}}
        ),
        r"has no image with a class label",
    ),
    "keys as objects": (
        lambda info: info.update(
            supervisedKeys={"tuple": {"items": [{"dict": {"dict": {}}}, {"featureKey": "label"}]}}
        ),
        r"has no image with a class label|is not a TFDS data set",
    ),
    "unknown keys": (
        lambda info: info.update(supervisedKeys={"input": "scan", "output": "label"}),
        r"has no image with a class label",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG_INFO.values(), ids=WRONG_INFO)
def test_wrong_values_in_dataset_info_are_one_line(photos, change, message):
    info = json.loads((photos / "dataset_info.json").read_text())
    change(info)
    (photos / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=message) as caught:
        open_source(DataConfig(source=str(photos)))
    assert "\n" not in str(caught.value)


LABELS = [str(digit) for digit in range(10)]
WRONG_NAMES = {
    "fewer": "\n".join(LABELS[:9]).encode(),
    "more": "\n".join([*LABELS, "10"]).encode(),
    "twice": "\n".join([*LABELS[:9], "0"]).encode(),
    "blank": "\n".join([*LABELS[:9], "  "]).encode(),
    "empty": b"",
    "bytes": "\n".join([*LABELS[:9], "\u00e9"]).encode("latin-1"),
}


@pytest.mark.parametrize("content", WRONG_NAMES.values(), ids=WRONG_NAMES)
def test_names_that_are_not_one_for_each_class_are_refused(photos, content):
    (photos / "label.labels.txt").write_bytes(content)
    with pytest.raises(
        UserError, match=r"label.labels.txt' (has \d+ different names for 10 classes|.*not text in UTF)"
    ):
        open_source(DataConfig(source=str(photos)))


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "label.labels.txt", "metadata.json"])
@pytest.mark.parametrize("target", ["/dev/zero", "/etc/hostname", "missing", "."])
def test_metadata_are_regular_files_inside_the_data_set(photos, file, target):
    (photos / file).unlink(missing_ok=True)
    (photos / file).symlink_to(target)
    with pytest.raises(UserError):
        open_source(DataConfig(source=str(photos)))


@pytest.mark.parametrize("file", ["features.json", "label.labels.txt", "digits-train.tfrecord-00000-of-00001"])
def test_a_pipe_is_not_waited_for(photos, file):
    (photos / file).unlink()
    os.mkfifo(photos / file)
    with pytest.raises(UserError, match="not a regular file"):
        open_source(DataConfig(source=str(photos)))


@pytest.mark.parametrize("count", ["0", "-3", "99999999999"])
def test_an_impossible_number_of_classes_is_refused(photos, count):
    text = (photos / "features.json").read_text()
    (photos / "features.json").write_text(text.replace('"numClasses": "10"', f'"numClasses": "{count}"'))
    (photos / "label.labels.txt").unlink()
    with pytest.raises(UserError, match=r"classes|is not a TFDS data set"):
        open_source(DataConfig(source=str(photos)))


def test_labels_beyond_the_classes_are_refused(photos):
    text = (photos / "features.json").read_text()
    (photos / "features.json").write_text(text.replace('"numClasses": "10"', '"numClasses": "9"'))
    (photos / "label.labels.txt").write_text("\n".join(LABELS[:9]))
    with pytest.raises(UserError, match=r"byte \d+, has label 9, but the number of classes is 9"):
        open_source(DataConfig(source=str(photos)))


def test_only_the_version_in_use_is_checked(photos):
    shutil.copytree(photos, photos.parents[1] / "digits" / "1.0.0")
    old = shutil.copytree(photos, photos.parents[1] / "digits" / "0.1.0")
    (old / "features.json").unlink()
    config = DataConfig(source="digits", data_dir=str(photos.parents[1]))
    assert open_source(config).train.num_examples == 898
    (photos.parents[1] / "digits" / "1.0.0" / "features.json").write_text(json.dumps(LAYOUTS["nested"]))
    with pytest.raises(UserError, match=r"would be imported and run"):
        open_source(config)


def test_directories_that_are_no_versions(photos):
    shutil.copytree(photos, photos.parent / "0.9.0")
    shutil.copytree(photos, photos.parent / "latest")
    shutil.copytree(photos, photos.parent / ".trash")
    assert find_version(photos.parent) == photos


def test_other_features_are_not_decoded(tmp_path):
    """A second image is not decoded, neither by TFDS nor at all."""
    (version := tmp_path / "two" / "1.0.0").mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2), "x": tfds.features.Image()}
    )
    features.save_config(str(version))
    record = {"image": np.zeros((4, 4, 3), np.uint8), "label": 1, "x": np.zeros((4, 4, 3), np.uint8)}
    with tf.io.TFRecordWriter(str(version / "two-train.tfrecord-00000-of-00001")) as writer:
        example = tf.train.Example.FromString(features.serialize_example(record))
        example.features.feature["x"].bytes_list.value[0] = b"no image"
        writer.write(example.SerializeToString())
    split = {"name": "train", "numBytes": "0", "shardLengths": ["1"]}
    info = {"name": "two", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    (version / "dataset_info.json").write_text(json.dumps(info))
    source = open_source(DataConfig(source=str(version), eval_split="train"), for_training=False)
    ((example, label),) = source.train.examples()
    assert (example.dtype, int(label)) == (tf.string, 1)


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
    check_metadata(data_dir / "digits" / "1.0.0")
    assert open_source(DataConfig(source="digits", data_dir=str(data_dir))).class_names == source.class_names
