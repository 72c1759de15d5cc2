"""Names of splits, slices and parts of every data source, compared with TFDS and NumPy."""

import dataclasses
import io
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import write_imagenet_records
from PIL import Image

from resnet_tf import evaluate
from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import Split, open_source


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, number // 2, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _write_classes(folder, sizes=(20, 30), first=0):
    number = first
    for label, size in enumerate(sizes):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        for _ in range(size):
            (folder / f"class{label}" / f"{number}.png").write_bytes(_png(number))
            number += 1
    return folder


def _write_split_folders(folder):
    _write_classes(folder / "train")
    _write_classes(folder / "test", first=100)
    return folder


def _write_records(folder):
    for split, shards, first in (("train", 3, 0), ("test", 2, 100)):
        for shard in range(shards):
            numbers = np.array_split(np.arange(first, first + 50), shards)[shard]
            examples = [(_png(number), int(number) % 2, {}) for number in numbers]
            write_imagenet_records(folder / f"{split}-{shard:05}-of-{shards:05}", examples)
    return folder


def _write_npz(folder):
    images = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    labels = np.arange(50) % 2
    np.savez(folder / "data.npz", x_train=images[:50], y_train=labels, x_test=images[50:], y_test=labels)
    return folder / "data.npz"


SOURCES = {
    "split/class/file": _write_split_folders,
    "class/file": _write_classes,
    "records": _write_records,
    "npz": _write_npz,
    "digits": lambda folder: "digits",
}


def _examples(split: Split) -> list[bytes]:
    return [np.asarray(each).tobytes() for each, _ in split.examples().as_numpy_iterator()]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("parts", [(":60%", "60%:"), (":7", "7:"), (":-3", "-3:")], ids=str)
def test_slices_of_every_source_have_the_sizes_of_tfds_and_are_disjoint(tmp_path, source, parts):
    config = DataConfig(source=str(SOURCES[source](tmp_path)))
    whole = open_source(config, for_training=False).train
    names = [f"train[{part}]" for part in parts]
    found = open_source(dataclasses.replace(config, train_split=names[0], eval_split=names[1]), for_training=False)
    info = tfds.core.SplitInfo(name="train", shard_lengths=[whole.num_examples], num_bytes=0)
    for name, split in zip(names, (found.train, found.validation), strict=True):
        (expected,) = tfds.core.ReadInstruction.from_spec(name).to_absolute({"train": info})
        start, end, _ = slice(expected.from_, expected.to).indices(whole.num_examples)
        assert split.num_examples == end - start
    assert Counter(_examples(found.train)) + Counter(_examples(found.validation)) == Counter(_examples(whole))
    assert len(found.class_names) == (10 if source == "digits" else 2)


@pytest.mark.parametrize("source", ["split/class/file", "class/file"])
def test_slices_of_folders_have_all_classes_in_proportion(tmp_path, source):
    config = DataConfig(source=str(SOURCES[source](tmp_path)), train_split="train[:50%]", eval_split="train[50%:]")
    whole = np.bincount(open_source(dataclasses.replace(config, train_split="train")).train.labels)
    for split in (open_source(config).train, open_source(config).validation):
        assert np.abs(np.bincount(split.labels) - whole / 2).max() <= 1


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("key", ["train_split", "eval_split"])
def test_unknown_splits_are_refused_with_the_names_that_exist(tmp_path, source, key):
    config = DataConfig(source=str(SOURCES[source](tmp_path)), **{key: "tset"})
    with pytest.raises(UserError, match=r"(?s)tset.*test"):
        open_source(config)


USUAL = ("test", "testing", "val", "valid", "validation", "eval", "dev")


@pytest.mark.parametrize("name", ["train", "training", "all", *USUAL])
def test_names_of_the_parts_of_a_folder_of_classes(tmp_path, name):
    config = DataConfig(source=str(_write_classes(tmp_path)))
    usual = open_source(config)
    expected = {"all": 50, "train": usual.train.num_examples, "training": usual.train.num_examples}
    found = open_source(dataclasses.replace(config, eval_split=name)).validation
    assert found.num_examples == expected.get(name, usual.validation.num_examples)
    other = usual.train if name.startswith("train") else usual.validation
    assert set(_examples(found)) >= set(_examples(other))


def test_a_folder_of_classes_has_a_test_split_by_slices(tmp_path):
    config = DataConfig(source=str(_write_classes(tmp_path)), eval_fraction=0.4)
    with pytest.raises(UserError, match=r"Slices divide it further: data.eval_split=test\[:50%\]"):
        open_source(dataclasses.replace(config, test_split="val"))
    found = open_source(dataclasses.replace(config, eval_split="test[:50%]", test_split="test[50%:]"))
    assert found.test is not None
    examples = [each for split in found.splits.values() for each in _examples(split)]
    assert len(set(examples)) == len(examples) == 50


def test_foreign_folders_of_classes_are_opened_whole(tmp_path):
    config = DataConfig(source=str(_write_classes(tmp_path / "classes")))
    assert open_source(config, for_training=False, whole=True).validation.num_examples == 50
    splits = DataConfig(source=str(_write_split_folders(tmp_path / "splits")))
    assert _examples(open_source(splits, whole=True).validation) == _examples(open_source(splits).validation)


RECORDS = {
    "longer names": (["train-00000-of-00001", "train_val-00000-of-00001"], ["train-00000-of-00001"]),
    "longer suffixes": (["train.tfrecord", "train-extra.tfrecord", "train_val.tfrecord"], ["train.tfrecord"]),
    "numbers": (["train_0.tfrecord", "train_1.tfrecord"], ["train_0.tfrecord", "train_1.tfrecord"]),
    "one longer name": (["train_images-00000-of-00001"], ["train_images-00000-of-00001"]),
    "parts": (["train-part1.tfrecord", "train-part2.tfrecord"], ["train-part1.tfrecord", "train-part2.tfrecord"]),
    "folders": (["train/x.tfrecord", "train_val/y.tfrecord"], ["x.tfrecord"]),
}


@pytest.mark.parametrize("name", RECORDS)
def test_record_files_of_a_split(tmp_path, name):
    present, expected = RECORDS[name]
    for number, each in enumerate([*present, "test-00000-of-00001"]):
        write_imagenet_records(tmp_path / each, [(_png(number + index), index, {}) for index in range(2)])
    split = open_source(DataConfig(source=str(tmp_path))).train
    files = {split.locate(index)["file"] for index in range(split.num_examples)}
    assert sorted(tf.io.gfile.join("", file).rpartition("/")[2] for file in files) == expected


def test_record_files_of_several_longer_names_are_refused(tmp_path):
    for each in ("train_a.tfrecord", "train_b.tfrecord", "test.tfrecord"):
        write_imagenet_records(tmp_path / each, [(_png(index), index, {}) for index in range(2)])
    with pytest.raises(UserError, match=r"no split 'train', but train_a, train_b; data.train_split"):
        open_source(DataConfig(source=str(tmp_path)))


def test_evaluate_takes_all_images_of_another_folder_of_classes(tiny_run, tmp_path):
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        for number in range(4):
            (tmp_path / str(label) / f"{number}.png").write_bytes(_png(10 * label + number))
    found = {
        overrides: evaluate(tiny_run, data=str(tmp_path), overrides=overrides).to_dict()["examples"]
        for overrides in ((), ("data.eval_split=test",), ("data.eval_split=all[:15]",), ("data.eval_split=train",))
    }
    assert list(found.values()) == [40, 10, 15, 30]
