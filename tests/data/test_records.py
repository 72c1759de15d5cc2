"""TFRecord files: the layout of ImageNet, random access, and the readable part of corrupt files."""

import dataclasses
import logging
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_imagenet_records

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import imagenet_labels
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source, records
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.inputs import ImagePreprocess

PREPROCESS = ImagePreprocess(size=(8, 8))


def _image(number: int) -> bytes:
    return tf.io.encode_png(np.full((8, 8, 3), number % 256, np.uint8)).numpy()


def _examples(count: int, first_label: int = 1, classes: int = 3, **further):
    return [
        (
            _image(index),
            first_label + index % classes,
            {name: names[index % classes] for name, names in further.items()},
        )
        for index in range(count)
    ]


@pytest.fixture
def shards(tmp_path):
    """Write two training files and one validation file, with labels from 1 on and WordNet identifiers."""
    synsets = [b"n01440764", b"n01443537", b"n01484850"]
    examples = _examples(20, synset=synsets)
    write_imagenet_records(tmp_path / "train-00000-of-00002", examples[:12])
    write_imagenet_records(tmp_path / "train-00001-of-00002", examples[12:])
    write_imagenet_records(tmp_path / "validation-00000-of-00001", _examples(6, synset=synsets))
    return DataConfig(source=str(tmp_path), eval_split="validation")


def _numbers(split) -> list[int]:
    return [int(tf.io.decode_png(image)[0, 0, 0]) for image, _ in split.examples()]


def test_layout_of_imagenet(shards):
    source = open_source(shards)
    assert source.class_names == imagenet_labels()[:3] == ("tench", "goldfish", "great white shark")
    assert source.train.labels.tolist() == [index % 3 for index in range(20)]
    assert _numbers(source.train) == list(range(20))
    assert [int(label) for _, label in source.train.examples()] == source.train.labels.tolist()
    assert source.validation.num_examples == 6
    for index in (0, 11, 12, 19):
        location = source.train.locate(index)
        record = records.read_at(
            tf.constant(location["file"]), tf.constant(location["offset"], tf.int64)
        ).get_single_element()
        assert _image(index) in record.numpy()
        assert source.train.load(tf.constant(index, tf.int64)).numpy() == _image(index)


def test_other_file_names_labels_and_class_names(tmp_path):
    write_imagenet_records(
        tmp_path / "train" / "part.tfrecord", _examples(6, first_label=0, text=[b"cat", b"dog", b"cow"])
    )
    write_imagenet_records(
        tmp_path / "test" / "part.tfrecord", _examples(3, first_label=0, text=[b"cat", b"dog", b"cow"])
    )
    source = open_source(DataConfig(source=str(tmp_path)))
    assert source.class_names == ("cat", "dog", "cow")
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    write_imagenet_records(tmp_path / "bare" / "train.tfrecords", _examples(4, first_label=0))
    write_imagenet_records(tmp_path / "bare" / "test.tfrecords", _examples(4, first_label=0))
    assert open_source(DataConfig(source=str(tmp_path / "bare"))).class_names == ("0", "1", "2")
    with pytest.raises(UserError, match=r"no record files of split 'val', such as val-00000-of-00001; it has bare, te"):
        open_source(DataConfig(source=str(tmp_path), eval_split="val"))


def test_a_thousand_unnamed_classes_have_the_labels_of_imagenet(tmp_path):
    write_imagenet_records(tmp_path / "train-00000-of-00001", _examples(1000, classes=1000))
    write_imagenet_records(tmp_path / "test-00000-of-00001", _examples(1))
    assert open_source(DataConfig(source=str(tmp_path))).class_names == imagenet_labels()


def test_records_of_another_format_are_refused(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "train-00000-of-00001")) as writer:
        writer.write(b"hello")
    shutil.copy(tmp_path / "train-00000-of-00001", tmp_path / "test-00000-of-00001")
    with pytest.raises(UserError, match=r"no record of .* has image/encoded and image/class/label: .*tf.train.Example"):
        open_source(DataConfig(source=str(tmp_path)))


@pytest.mark.parametrize("number", [0, 1])
def test_an_empty_file_is_a_shard_without_records(shards, tmp_path, number):
    others = _numbers(open_source(shards).train)
    count = len(others) - 12 if number == 0 else 12
    (tmp_path / f"train-0000{number}-of-00002").write_bytes(b"")
    source = open_source(shards)
    assert _numbers(source.train) == (others[-count:] if number == 0 else others[:count])
    assert source.train.labels.dtype == np.int64
    assert source.train.corruption == ()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_of_empty_files_is_refused(shards, tmp_path, split):
    for path in tmp_path.glob(f"{split}-*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=rf"no record of .*{split}-00000-of-0000\d' has .*: it is empty"):
        open_source(shards)


def test_an_empty_tfds_file_is_incomplete(tmp_path, data_dir):
    open_source(DataConfig(source="digits", data_dir=str(data_dir)))
    shutil.copytree(data_dir / "digits" / "1.0.0", tmp_path / "digits")
    (file,) = (tmp_path / "digits").glob("*-test.*")
    file.write_bytes(b"")
    validation = open_source(DataConfig(source=str(tmp_path / "digits"))).validation
    with pytest.raises(UserError, match=r"split 'test' is corrupt: .* 899 of 899 examples are missing"):
        validation.check_complete()


def _corrupt(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))


def _flip(offset):
    def change(data):
        data[offset] ^= 1

    return change


@pytest.mark.parametrize(
    ("change", "lost", "reason"),
    [
        ("payload", [3], "wrong checksum"),
        ("last payload", [11], "wrong checksum"),
        ("length", [3, 4, 5, 6, 7, 8, 9, 10, 11], "the rest of the file is lost"),
        ("cut", [9, 10, 11], "the rest of the file is lost"),
        ("cut in header", [9, 10, 11], "the rest of the file is lost"),
        ("payload and cut", [3, 9, 10, 11], "wrong checksum"),
    ],
)
def test_corruption_is_reported_and_other_records_are_read(shards, tmp_path, change, lost, reason):
    path = tmp_path / "train-00000-of-00002"
    offsets = write_imagenet_records(
        tmp_path / "again", _examples(12, synset=[b"n01440764", b"n01443537", b"n01484850"])
    )
    if "payload" in change:
        _corrupt(path, _flip(offsets[11 if "last" in change else 3] + 40))
    if change == "length":
        _corrupt(path, _flip(offsets[3] + 1))
    if "cut" in change:
        _corrupt(path, lambda data: data.__delitem__(slice(offsets[9] + (5 if "header" in change else 60), None)))
    source = open_source(shards)
    assert _numbers(source.train) == [number for number in range(20) if number not in lost]
    first = source.train.corruption[0]
    assert (first.file, first.offset) == (str(path), offsets[lost[0]])
    assert reason in first.reason
    unreadable = UnreadableExamples(source.train, PREPROCESS, DataConfig(max_unreadable_fraction=0.5))
    assert unreadable.count == len(source.train.corruption)
    with pytest.raises(
        UserError, match=r"are unreadable, more than data.max_unreadable_fraction=0.01; .*train-00000-of-00002, of"
    ):
        UnreadableExamples(source.train, PREPROCESS, DataConfig())
    reversed_ = open_source(DataConfig(source=shards.source, train_split="validation", eval_split="train"))
    with pytest.raises(UserError, match=rf"split 'train' is corrupt: '{path}' at byte {first.offset}"):
        reversed_.validation.check_complete()


def _evaluated(shards, **splits) -> str:
    """Return why evaluation refuses the validation split; empty if it is complete."""
    try:
        open_source(dataclasses.replace(shards, **splits), for_training=False).validation.check_complete()
    except UserError as error:
        return str(error)
    return ""


def test_a_sum_of_splits_is_as_corrupt_as_its_splits(shards, tmp_path):
    _corrupt(tmp_path / "validation-00000-of-00001", lambda data: data.__delitem__(slice(20, None)))  # all records
    for name in ("validation", "train+validation", "validation+train", "all"):
        assert "validation-00000-of-00001' at byte 0" in _evaluated(shards, eval_split=name)
    assert _evaluated(shards, eval_split="train") == ""


def test_slices_are_as_corrupt_as_the_files_in_them(shards, tmp_path):
    """Record 9 to 11 of the first file, or all of the second one, are lost: 17 or 12 of 20 are left."""
    first, second = (tmp_path / f"train-0000{number}-of-00002" for number in (0, 1))
    content = first.read_bytes()
    _corrupt(first, lambda data: data.__delitem__(slice(len(data) * 9 // 12 + 60, None)))
    names = ("train[:8]", "train[:9]", "train[5:12]", "train[9:]", "train[-4:]")
    assert [bool(_evaluated(shards, eval_split=name)) for name in names] == [False, True, True, False, False]
    first.write_bytes(content)
    _corrupt(second, lambda data: data.__delitem__(slice(20, None)))
    names = ("train[:6]", "train[:11]", "train[6:]", "train[11:]", "train[:100%]")
    assert [bool(_evaluated(shards, eval_split=name)) for name in names] == [False, False, True, True, True]


def test_a_corrupt_tfds_file_has_a_number_of_lost_examples(tmp_path, data_dir):
    open_source(DataConfig(source="digits", data_dir=str(data_dir)))
    shutil.copytree(data_dir / "digits" / "1.0.0", tmp_path / "digits")
    (file,) = (tmp_path / "digits").glob("*-train.*")
    size = file.stat().st_size
    _corrupt(file, lambda data: data.__delitem__(slice(size // 2, None)))
    source = open_source(DataConfig(source=str(tmp_path / "digits")))
    (corrupt,) = source.train.corruption
    assert corrupt.examples + source.train.num_examples == 898
    assert 300 < source.train.num_examples < 600
    early = open_source(DataConfig(source=str(tmp_path / "digits"), train_split="train[:20%]"))
    assert early.train.corruption == ()
    assert early.train.num_examples == 180


def test_the_index_of_large_files_is_cached(shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(records, "_CACHED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO, logger="resnet_tf"):
        first = open_source(shards)
    assert "indexing 2 record files" in caplog.text
    index_files = records._index_files
    monkeypatch.setattr(records, "_index_files", None)
    again = open_source(shards)
    assert again.identity == first.identity
    assert _numbers(again.train) == list(range(20))
    assert again.class_names == first.class_names
    monkeypatch.setattr(records, "_index_files", index_files)
    _corrupt(tmp_path / "train-00000-of-00002", _flip(60))
    os.utime(tmp_path / "train-00000-of-00002", (1, 1))  # file systems may store times in seconds
    assert open_source(shards).train.num_examples == 19, "a changed file is indexed again"
    monkeypatch.setattr(records, "_index_files", None)
    cached = open_source(shards).train
    assert (len(cached.corruption), cached.num_examples) == (1, 19), "corruption is in the index"


def test_an_index_of_another_version_is_not_read(shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(records, "_CACHED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = open_source(shards)
    monkeypatch.setattr(records, "_INDEX_VERSION", records._INDEX_VERSION + 1)
    with caplog.at_level(logging.INFO, logger="resnet_tf"):
        assert open_source(shards).identity == first.identity
    assert "indexing 2 record files" in caplog.text


def test_an_index_that_cannot_be_written_is_a_warning(shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(records, "_CACHED_FROM", 0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_source(shards).train.num_examples == 20
    assert "cannot write the index" in caplog.text


@pytest.mark.parametrize("text", ["", "[", "7", "[7]", "[{}]", '[{"file": "x", "offsets": ["a"]}]', "[" * 100_000])
def test_a_corrupt_index_is_replaced(shards, tmp_path, monkeypatch, caplog, text):
    monkeypatch.setattr(records, "_CACHED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = open_source(shards)
    cached = list((tmp_path / "cache").rglob("*.json"))
    for path in cached:
        path.write_text(text)
    assert open_source(shards).identity == first.identity
    assert "corrupt index" in caplog.text
    caplog.clear()
    assert open_source(shards).identity == first.identity
    assert "corrupt index" not in caplog.text
    assert list((tmp_path / "cache").rglob("*.json")) == cached
