"""TFRecord files: ImageNet's layout, places in them, and what is left of damaged ones."""

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


def _picture(number: int) -> bytes:
    return tf.io.encode_png(np.full((8, 8, 3), number % 256, np.uint8)).numpy()


def _examples(count: int, first_label: int = 1, classes: int = 3, **further):
    return [
        (
            _picture(index),
            first_label + index % classes,
            {name: names[index % classes] for name, names in further.items()},
        )
        for index in range(count)
    ]


@pytest.fixture
def shards(tmp_path):
    """Two files for training, one for testing; labels from 1 on, with WordNet's identifiers."""
    synsets = [b"n01440764", b"n01443537", b"n01484850"]
    examples = _examples(20, synset=synsets)
    write_imagenet_records(tmp_path / "train-00000-of-00002", examples[:12])
    write_imagenet_records(tmp_path / "train-00001-of-00002", examples[12:])
    write_imagenet_records(tmp_path / "validation-00000-of-00001", _examples(6, synset=synsets))
    return DataConfig(source=str(tmp_path), eval_split="validation")


def _numbers(split) -> list[int]:
    return [int(tf.io.decode_png(picture)[0, 0, 0]) for picture, _ in split.examples()]


def test_imagenets_layout(shards):
    source = open_source(shards)
    assert source.class_names == imagenet_labels()[:3] == ("tench", "goldfish", "great white shark")
    assert source.train.labels.tolist() == [index % 3 for index in range(20)]
    assert _numbers(source.train) == list(range(20))
    assert [int(label) for _, label in source.train.examples()] == source.train.labels.tolist()
    assert source.validation.num_examples == 6
    for place in (0, 11, 12, 19):
        where = source.train.locate(place)
        record = records.read_at(
            tf.constant(where["file"]), tf.constant(where["offset"], tf.int64)
        ).get_single_element()
        assert _picture(place) in record.numpy()
        assert source.train.load(tf.constant(place, tf.int64)).numpy() == _picture(place)


def test_other_names_labels_and_places(tmp_path):
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


def test_a_thousand_numbers_are_imagenets_labels(tmp_path):
    write_imagenet_records(tmp_path / "train-00000-of-00001", _examples(1000, classes=1000))
    write_imagenet_records(tmp_path / "test-00000-of-00001", _examples(1))
    assert open_source(DataConfig(source=str(tmp_path))).class_names == imagenet_labels()


def test_records_of_something_else_are_named(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "train-00000-of-00001")) as writer:
        writer.write(b"hello")
    shutil.copy(tmp_path / "train-00000-of-00001", tmp_path / "test-00000-of-00001")
    with pytest.raises(UserError, match=r"no record of .* has image/encoded and image/class/label: .*tf.train.Example"):
        open_source(DataConfig(source=str(tmp_path)))


def _damage(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))


def _flip(place):
    def change(data):
        data[place] ^= 1

    return change


@pytest.mark.parametrize(
    ("change", "lost", "reason"),
    [
        ("payload", [3], "checksum is wrong"),
        ("last payload", [11], "checksum is wrong"),
        ("length", [3, 4, 5, 6, 7, 8, 9, 10, 11], "the rest of the file is lost"),
        ("cut", [9, 10, 11], "the rest of the file is lost"),
        ("cut in header", [9, 10, 11], "the rest of the file is lost"),
        ("payload and cut", [3, 9, 10, 11], "checksum is wrong"),
    ],
)
def test_damage_is_named_and_costs_no_more_than_it_must(shards, tmp_path, change, lost, reason):
    path = tmp_path / "train-00000-of-00002"
    offsets = write_imagenet_records(
        tmp_path / "again", _examples(12, synset=[b"n01440764", b"n01443537", b"n01484850"])
    )
    if "payload" in change:
        _damage(path, _flip(offsets[11 if "last" in change else 3] + 40))
    if change == "length":
        _damage(path, _flip(offsets[3] + 1))
    if "cut" in change:
        _damage(path, lambda data: data.__delitem__(slice(offsets[9] + (5 if "header" in change else 60), None)))
    source = open_source(shards)
    assert _numbers(source.train) == [number for number in range(20) if number not in lost]
    first = source.train.corruption[0]
    assert (first.file, first.offset) == (str(path), offsets[lost[0]])
    assert reason in first.reason
    unreadable = UnreadableExamples(source.train, PREPROCESS, DataConfig(max_unreadable_fraction=0.5))
    assert unreadable.count == len(source.train.corruption)
    with pytest.raises(
        UserError, match=r"cannot be read, more than data.max_unreadable_fraction=0.01 .*train-00000-of-00002, of"
    ):
        UnreadableExamples(source.train, PREPROCESS, DataConfig())
    reversed_ = open_source(DataConfig(source=shards.source, train_split="validation", eval_split="train"))
    with pytest.raises(UserError, match=rf"split 'train' is corrupt: '{path}' at byte {first.offset}"):
        reversed_.validation.check_complete()


def test_a_damaged_tfds_file_says_how_many_examples_went(tmp_path, data_dir):
    open_source(DataConfig(source="digits", data_dir=str(data_dir)))
    shutil.copytree(data_dir / "digits" / "1.0.0", tmp_path / "digits")
    (file,) = (tmp_path / "digits").glob("*-train.*")
    size = file.stat().st_size
    _damage(file, lambda data: data.__delitem__(slice(size // 2, None)))
    source = open_source(DataConfig(source=str(tmp_path / "digits")))
    (corruption,) = source.train.corruption
    assert corruption.examples + source.train.num_examples == 898
    assert 300 < source.train.num_examples < 600
    early = open_source(DataConfig(source=str(tmp_path / "digits"), train_split="train[:20%]"))
    assert early.train.corruption == ()
    assert early.train.num_examples == 180


def test_the_index_of_large_files_is_kept(shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(records, "_CACHED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO, logger="resnet_tf"):
        first = open_source(shards)
    assert "reading 2 record files" in caplog.text
    walk = records._scan_all
    monkeypatch.setattr(records, "_scan_all", None)
    again = open_source(shards)
    assert again.identity == first.identity
    assert _numbers(again.train) == list(range(20))
    assert again.class_names == first.class_names
    monkeypatch.setattr(records, "_scan_all", walk)
    _damage(tmp_path / "train-00000-of-00002", _flip(60))
    os.utime(tmp_path / "train-00000-of-00002", (1, 1))  # file systems tell times to a second
    assert open_source(shards).train.num_examples == 19, "a changed file is read anew"
    monkeypatch.setattr(records, "_scan_all", None)
    assert len(open_source(shards).train.corruption) == 1, "corruption is cached, too"


def test_an_index_that_cannot_be_kept_is_no_failure(shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(records, "_CACHED_FROM", 0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_source(shards).train.num_examples == 20
    assert "cannot be cached" in caplog.text


@pytest.mark.parametrize("text", ["", "[", "7", "[7]", "[{}]", '[{"file": "x", "offsets": ["a"]}]', "[" * 100_000])
def test_a_corrupt_index_is_written_anew(shards, tmp_path, monkeypatch, caplog, text):
    monkeypatch.setattr(records, "_CACHED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = open_source(shards)
    kept = list((tmp_path / "cache").rglob("*.json"))
    for path in kept:
        path.write_text(text)
    assert open_source(shards).identity == first.identity
    assert "is corrupt" in caplog.text
    caplog.clear()
    assert open_source(shards).identity == first.identity
    assert "is corrupt" not in caplog.text
    assert list((tmp_path / "cache").rglob("*.json")) == kept
