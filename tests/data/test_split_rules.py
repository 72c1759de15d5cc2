"""Names of splits, slices and parts of every data source, compared with TFDS and NumPy."""

import dataclasses
import io
import logging
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import write_idx, write_imagenet_records
from PIL import Image

from resnet_tf import evaluate, train_and_evaluate
from resnet_tf.config import CONFIG_FILE, DataConfig, absolute_paths, load_config, override
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import Split, digests, open_source, overlaps
from resnet_tf.data.sources.overlaps import describe_evaluation, describe_overlaps
from resnet_tf.training.workdir import check_workdir, write_config


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


def _write_idx(folder):
    images = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    for prefix, part in (("train", images[:50]), ("t10k", images[50:])):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", part)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.arange(50, dtype=np.uint8) % 2)
    return folder


SOURCES = {
    "split/class/file": _write_split_folders,
    "class/file": _write_classes,
    "records": _write_records,
    "npz": _write_npz,
    "idx": _write_idx,
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


# Sum -> part of the training split, and of the test split, that it selects.
SUMS = {
    "all": (slice(None), slice(None)),
    "train+test": (slice(None), slice(None)),
    "train[:10] + test[-5:]": (slice(10), slice(-5, None)),
    "train[:2]+train[2:4]": (slice(4), slice(0)),
}


@pytest.mark.parametrize("source", [each for each in SOURCES if each != "digits"])
@pytest.mark.parametrize("name", SUMS)
def test_sums_of_splits_of_every_source(tmp_path, source, name):
    config = DataConfig(source=str(SOURCES[source](tmp_path)))
    parts = (dataclasses.replace(config, train_split=each) for each in ("train[:100%]", "test[:100%]"))
    train, test = (_examples(open_source(part, for_training=False).train) for part in parts)
    if source.endswith("file"):  # slices of folders have an order of their own
        found = [
            dataclasses.replace(config, train_split=f"{each}[{part}]")
            for each, part in (("train", ":10"), ("test", "-5:"), ("train", ":2"), ("train", "2:4"))
        ]
        head, tail, first, second = (_examples(open_source(each, for_training=False).train) for each in found)
        expected = {"all": train + test, "train+test": train + test, "train[:10] + test[-5:]": head + tail}
        expected["train[:2]+train[2:4]"] = first + second
        expected = expected[name]
    else:
        expected = train[SUMS[name][0]] + test[SUMS[name][1]]
    found = open_source(dataclasses.replace(config, train_split=name), for_training=False).train
    assert Counter(_examples(found)) == Counter(expected)
    labels = [int(label) for _, label in found.examples().as_numpy_iterator()]
    assert labels == found.labels.tolist()


@pytest.mark.parametrize("source", SOURCES)
def test_slices_of_all_are_disjoint_and_complete(tmp_path, source):
    config = DataConfig(source=str(SOURCES[source](tmp_path)))
    whole = open_source(dataclasses.replace(config, train_split="train+test"), for_training=False).train
    halves = dataclasses.replace(config, train_split="all[:50%]", eval_split="all[50%:]")
    found = open_source(halves, for_training=False)
    assert Counter(_examples(found.train)) + Counter(_examples(found.validation)) == Counter(_examples(whole))
    assert abs(found.train.num_examples - found.validation.num_examples) <= 1
    assert describe_overlaps(found) == []


def test_examples_of_a_sum_are_located(tmp_path):
    config = DataConfig(source=str(_write_npz(tmp_path)), train_split="train[40:]+test[:3]")
    train = open_source(config, for_training=False).train
    path = config.source
    assert [train.locate(index) for index in (0, 9, 10, 12)] == [
        {"file": path, "split": "train", "index": 40},
        {"file": path, "split": "train", "index": 49},
        {"file": path, "split": "test", "index": 0},
        {"file": path, "split": "test", "index": 2},
    ]


@pytest.mark.parametrize("name", ["train+tset", "train+", "+", "all+tset", "tset[:5]+train", "train[:0]+test"])
@pytest.mark.parametrize("source", SOURCES)
def test_sums_of_unknown_splits_are_refused(tmp_path, source, name):
    config = DataConfig(source=str(SOURCES[source](tmp_path)), train_split=name)
    with pytest.raises(UserError, match=r"split|no folder"):
        open_source(config)


def test_numbered_record_files_are_splits_of_their_own(tmp_path):
    for number in (1, 2, 3):
        examples = [(_png(10 * number + index), index % 2, {}) for index in range(4)]
        write_imagenet_records(tmp_path / f"fold_{number}.tfrecord", examples)
    config = DataConfig(source=str(tmp_path), train_split="fold_1+fold_2", eval_split="fold_3")
    source = open_source(config)
    files = [{split.locate(index)["file"] for index in range(split.num_examples)} for split in source.splits.values()]
    assert files == [{str(tmp_path / f"fold_{n}.tfrecord") for n in numbers} for numbers in ((1, 2), (3,))]
    for train, count in (("fold", 12), ("all", 12), ("fold_2", 4)):
        assert open_source(dataclasses.replace(config, train_split=train)).train.num_examples == count


@pytest.mark.parametrize("source", SOURCES)
def test_splits_of_every_source_may_be_in_the_wrong_order(tmp_path, source):
    config = DataConfig(source=str(SOURCES[source](tmp_path)))
    swapped = open_source(dataclasses.replace(config, train_split="test", eval_split="train"))
    usual = open_source(config)
    assert _examples(swapped.train) == _examples(usual.validation)
    assert _examples(swapped.validation) == _examples(usual.train)


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


@pytest.mark.slow
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


@pytest.mark.parametrize("source", ["split/class/file", "records", "npz", "idx"])
def test_foreign_data_need_no_split_but_the_evaluated_one(tiny_run, tmp_path, source):
    images = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    labels, data = np.arange(20) % 10, tmp_path / "data"
    if source == "npz":
        data = tmp_path / "data.npz"
        np.savez(data, x_test=images, y_test=labels)
    elif source == "idx":
        data.mkdir()
        write_idx(data / "t10k-images-idx3-ubyte.gz", images)
        write_idx(data / "t10k-labels-idx1-ubyte.gz", labels.astype(np.uint8))
    elif source == "records":
        write_imagenet_records(data / "test.tfrecord", [(_png(int(n)), int(n), {}) for n in labels])
    else:
        for number, label in enumerate(labels):
            (data / "test" / str(label)).mkdir(parents=True, exist_ok=True)
            (data / "test" / str(label) / f"{number}.png").write_bytes(_png(number))
    result = evaluate(tiny_run, data=str(data))
    assert result.to_dict()["examples"] == 20
    assert np.bincount(result.source.validation.labels).tolist() == [2] * 10


def _split_names(train, validation, test=""):
    return {"train_split": train, "eval_split": validation, "test_split": test}


OVERLAPS = {
    "equal": (_split_names("train", "train"), "50 of 50 examples of split 'train' are also in 'train'"),
    "slices": (
        _split_names("train[:60%]", "train[50%:]"),
        r"5 of 25 examples of split 'train[50%:]' are also in 'train",
    ),
    "part": (
        _split_names("train", "train[:10]", "test"),
        r"10 of 10 examples of split 'train[:10]' are also in 'train'",
    ),
}


@pytest.mark.parametrize("source", ["split/class/file", "records", "npz", "idx"])
@pytest.mark.parametrize("name", OVERLAPS)
def test_overlapping_splits_are_reported(tmp_path, source, name):
    keys, expected = OVERLAPS[name]
    config = DataConfig(source=str(SOURCES[source](tmp_path)))
    assert describe_overlaps(open_source(config)) == []
    (text,) = describe_overlaps(open_source(dataclasses.replace(config, **keys)))
    assert text.startswith(expected)


def test_copies_in_another_split_are_reported(tmp_path):
    folder = _write_split_folders(tmp_path / "files")
    for number in (3, 5):
        (folder / "test" / "class1" / f"copy{number}.png").write_bytes(_png(number))
    (text,) = describe_overlaps(open_source(DataConfig(source=str(folder))))
    assert text.startswith("2 of 52 examples of split 'test' are copies of some in 'train'")
    images = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    labels = np.arange(50) % 2
    np.savez(tmp_path / "data.npz", x_train=images[:50], y_train=labels, x_test=images[47:97], y_test=labels)
    (text,) = describe_overlaps(open_source(DataConfig(source=str(tmp_path / "data.npz"))))
    assert text.startswith("3 of 50 examples of split 'test' are copies of some in 'train'")


@pytest.mark.parametrize("layout", ["files", "arrays"])
def test_digests_of_large_splits_are_cached_until_they_change(tmp_path, monkeypatch, layout):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_CACHED_FROM", 1)
    monkeypatch.setattr(digests, "_CACHED_ARRAYS", 1)
    if layout == "files":
        source = _write_split_folders(tmp_path / "files")
        copy = source / "test" / "class1" / "copy.png"
        copy.write_bytes(_png(3))
    else:
        source = _write_npz(tmp_path)
    first = describe_overlaps(open_source(DataConfig(source=str(source))))
    assert len(first) == (1 if layout == "files" else 0)
    stored = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert len(stored) == (4 if layout == "files" else 2)
    with monkeypatch.context() as patch:
        patch.setattr(digests, "_digest", None)  # nothing is read again
        assert describe_overlaps(open_source(DataConfig(source=str(source)))) == first
    for path in stored:
        path.write_bytes(b"short")
    assert describe_overlaps(open_source(DataConfig(source=str(source)))) == first
    assert {path: path.read_bytes() for path in stored} == stored
    if layout == "files":
        copy.write_bytes(_png(3)[:-1])
        assert describe_overlaps(open_source(DataConfig(source=str(source)))) == []


def test_only_files_with_equal_sizes_and_ends_are_read_whole(tmp_path, monkeypatch):
    contents = {"one": (b"a" * 9000, b"b" * 9000, b"c" * 8999 + b"d"), "other": (b"a" * 9000, b"c" * 9000, b"b" * 8000)}
    for split, each in contents.items():
        for index, content in enumerate(each):
            (tmp_path / f"{split}{index}").write_bytes(content)
    read, digest = [], digests._digest
    monkeypatch.setattr(digests, "_digest", lambda content: read.append(len(content)) or digest(content))
    files = [[str(tmp_path / f"{split}{index}") for index in range(3)] for split in contents]
    assert overlaps._count_equal_files(*files) == 1
    assert sorted(read) == 5 * [4096] + 2 * [9000]


def test_copies_among_records_are_reported(tmp_path):
    for split, numbers in (("train", range(20)), ("test", range(17, 30))):
        write_imagenet_records(tmp_path / f"{split}.tfrecord", [(_png(each), each % 2, {}) for each in numbers])
    (text,) = describe_overlaps(open_source(DataConfig(source=str(tmp_path))))
    assert text.startswith("3 of 13 examples of split 'test' are copies of some in 'train'")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 2] * 7, []),
        ([0, 1, 2] * 4, ["split 'test' has 12 examples: each is 8 % of its metrics"]),
        ([0] * 20, ["split 'test' has no example of 2 of 3 classes: b, c"]),
        ([1], ["split 'test' has 1 example: each is 100 % of its metrics", "split 'test' has no example of 2 of 3"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("chooses", [False, True])
def test_small_splits_and_missing_classes_are_reported(labels, expected, chooses):
    split = Split("test", np.array(labels), load=lambda index: index, locate=lambda index: {"file": str(index)})
    found = describe_evaluation(split, ("a", "b", "c"), chooses=chooses)
    assert len(found) == len(expected)
    assert all(text.startswith(each) for text, each in zip(found, expected, strict=True))
    assert any("they choose the best checkpoint" in text for text in found) == (chooses and len(labels) < 20)


def test_a_folder_named_as_the_embedded_data_is_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        open_source(DataConfig())
        assert "./digits" not in caplog.text
        _write_classes(tmp_path / "digits")
        assert len(open_source(DataConfig()).class_names) == 10
    assert "data.source=./digits is the file or folder" in caplog.text
    assert len(open_source(DataConfig(source="./digits")).class_names) == 2


def test_a_folder_named_as_a_data_set_of_tfds_is_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for name in ("mnist", "photos"):
        _write_classes(tmp_path / name)
        assert len(open_source(DataConfig(source=name)).class_names) == 2
        open_source(DataConfig(source=f"./{name}"))
    warnings = [each.getMessage() for each in caplog.records if "of TFDS" in each.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].startswith("data.source='mnist' is the file or folder, not the data set of TFDS; write ")


def test_paths_of_a_run_are_absolute(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "weights.h5").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = {
        ("data.source", "photos"): str(tmp_path / "photos"),
        ("data.source", "~/photos"): str(tmp_path / "photos"),
        ("data.source", "mnist"): "mnist",
        ("data.source", "digits"): "digits",
        ("data.source", "missing/"): "missing/",
        ("model.weights", "weights.h5"): str(tmp_path / "weights.h5"),
        ("model.weights", "imagenet"): "imagenet",
        ("loss.teacher", "photos"): str(tmp_path / "photos"),
        ("data.data_dir", "~"): str(tmp_path),
        ("data.data_dir", ""): "",
        ("data.data_dir", "gs://bucket/data"): "gs://bucket/data",
    }
    for (key, value), path in expected.items():
        config = absolute_paths(override(load_config("imagefolder"), {key: value}))
        assert config.values[key] == path
    (tmp_path / "digits").mkdir()
    assert absolute_paths(load_config("digits")).data.source == "digits"


@pytest.mark.slow
def test_a_run_works_from_another_working_directory(tiny_config, tmp_path, monkeypatch):
    _write_classes(tmp_path / "photos", (30, 30))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    values = {"data.source": "photos", "data.train_split": "train", "data.eval_split": "test", "data.batch_size": 16}
    config = override(tiny_config, values)
    first = train_and_evaluate(config, "run")
    train_and_evaluate(config, "run")  # from the same directory, it is the same run
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate("../run").evaluation.top(1) == first["top1"]
    again = train_and_evaluate(load_config("../run/config.json"), "../run")
    assert again["loss"] == first["loss"]


def test_a_run_that_exceeded_the_limit_of_unreadable_images_takes_another_limit(tmp_path):
    config = load_config("imagefolder", ["data.max_unreadable_fraction=0.01"])
    write_config(tmp_path, config)
    corrected = override(config, {"data.max_unreadable_fraction": "0.5"})
    check_workdir(tmp_path, corrected)
    write_config(tmp_path, corrected)
    assert load_config(tmp_path / CONFIG_FILE).data.max_unreadable_fraction == 0.5
    with pytest.raises(UserError, match=r"holds a run of another configuration \(data.batch_size="):
        check_workdir(tmp_path, override(corrected, {"data.batch_size": "7"}))
