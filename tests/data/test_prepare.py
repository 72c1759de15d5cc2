"""A prepared source is a TFDS directory with the same images, labels and splits."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import write_imagenet_records
from PIL import Image

from resnet_tf import prepare
from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import create_preprocess


def _content(source, split) -> dict[bytes, str]:
    return {image: source.class_names[label] for image, label in getattr(source, split).examples().as_numpy_iterator()}


def test_a_prepared_folder_has_the_images_of_the_folder(command, photos, tmp_path):
    outcome = command("prepare", f"--from={photos}", f"--to={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    assert outcome.out == (f"test: 6 images in 1 file\ntrain: 12 images in 1 file\ndata.source={tmp_path / 'out'}\n")
    assert outcome.err == ""
    before = open_source(DataConfig(source=str(photos)))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photos"]
    for directory in ("out", "out/photos", "out/photos/1.0.0"):
        after = open_source(DataConfig(source=str(tmp_path / directory)))
        assert after.class_names == before.class_names
        for split in ("train", "validation"):
            assert _content(after, split) == _content(before, split)
    info = json.loads((tmp_path / "out" / "photos" / "1.0.0" / "dataset_info.json").read_text())
    assert [split["shardLengths"] for split in info["splits"]] == [["6"], ["12"]]
    (example, *_) = tfds.builder_from_directory(tmp_path / "out" / "photos" / "1.0.0").as_dataset(split="train")
    assert set(example) == {"image", "label", "file_name"}


@pytest.mark.parametrize("source", ["./digits", "digits/", "~/digits", Path("digits")])
def test_a_folder_named_as_a_data_set_is_prepared_by_its_path(photos, tmp_path, monkeypatch, source):
    photos.rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    result = prepare(source, tmp_path / "out")
    assert {name: split.examples for name, split in result.splits.items()} == {"train": 12, "test": 6}


def test_class_folders_have_the_same_splits(photos, tmp_path):
    plain = tmp_path / "2024 Holiday"
    for label in ("blue", "red"):
        (plain / label).mkdir(parents=True)
        for index in range(20):
            shutil.copy(
                photos / "train" / label / f"{index % 6}.{'png' if index % 2 else 'jpg'}",
                plain / label / f"{index}.jpg",
            )
    info = prepare_folder(plain, tmp_path / "out", eval_fraction=0.3)
    assert info.name == "images_2024_holiday"
    config = DataConfig(source=str(plain), eval_fraction=0.3)
    before, after = open_source(config), open_source(DataConfig(source=str(tmp_path / "out")))
    for split in ("train", "validation"):
        assert getattr(after, split).num_examples == getattr(before, split).num_examples > 0


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("none", "out", r"--from='.*none': no such folder"),
        ("photos", "full", r"--to='.*full' is not empty; expected a new or an empty directory"),
        ("photos", "full/file", r"--to='.*file' is not empty"),
        ("empty", "out", r"'.*empty' contains neither split/class/file nor class/file images"),
        ("photos", "sealed/out", r"--to='.*out' cannot be written"),
    ],
)
def test_invalid_paths_are_refused_and_no_files_are_left(photos, tmp_path, source, target, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sealed").write_text("a file where a directory would be")
    with pytest.raises(UserError, match=message):
        prepare_folder(tmp_path / source, tmp_path / target, eval_fraction=0.1)
    assert (tmp_path / "full" / "file").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_several_data_sets_in_one_directory_are_refused(photos, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(photos, tmp_path / name)
        prepare_folder(tmp_path / name, tmp_path / f"out_{name}", eval_fraction=0.1)
        shutil.copytree(tmp_path / f"out_{name}" / name, tmp_path / "all" / name)
    with pytest.raises(UserError, match=r"all' contains several TFDS data sets; use one of .*all/a, .*all/b"):
        open_source(DataConfig(source=str(tmp_path / "all")))


def test_a_failure_leaves_no_files(photos, tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(photos / "train" / "red" / "gone.png")
    (photos / "train" / "red" / "link.png").symlink_to(photos / "nowhere.png")
    with pytest.raises(UserError, match=r"link\.png' cannot be read: No such file"):
        prepare_folder(photos, tmp_path / "out", eval_fraction=0.1)
    assert not (tmp_path / "out").exists()


def _write_npz(path):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 1), np.uint8)
    labels = np.arange(20) % 3
    np.savez(
        path / "ten.npz",
        **{f"x_{name}": images[part] for name, part in SPLITS.items()},
        **{f"y_{name}": labels[part] for name, part in SPLITS.items()},
        class_names=["10", "9", "x"],
    )
    return path / "ten.npz"


def _write_sets(path):
    """Write labels of several classes; those of the validation split are one-hot."""
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)
    labels = np.arange(20)[:, None] >> np.arange(3) & 1
    labels[SPLITS["val"]] = np.eye(3)[np.arange(5) % 3]
    np.savez(
        path / "sets.npz",
        **{f"x_{name}": images[part] for name, part in SPLITS.items()},
        **{f"y_{name}": labels[part] for name, part in SPLITS.items()},
    )
    return path / "sets.npz"


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _write_records(path):
    for name, part in SPLITS.items():
        numbers = np.arange(20)[part]
        examples = [(_png(int(number)), 9 + int(number) % 3, {}) for number in numbers]
        write_imagenet_records(path / f"{name}-00000-of-00001", examples)
    return path


def _write_table(path):
    for number in range(20):
        (path / f"{number}.png").write_bytes(_png(number))
    names = np.array(list(SPLITS))[(np.arange(20) >= 15).astype(int)]
    frame = pd.DataFrame({"image": range(20), "label": 9 + np.arange(20) % 3, "split": names})
    frame.to_csv(path / "labels.csv", index=False)
    return path / "labels.csv"


def _write_parquet(path):
    frame = pd.DataFrame({"image": map(_png, range(20)), "label": [f"c{number % 3}" for number in range(20)]})
    for name, part in SPLITS.items():
        frame[part].to_parquet(path / f"{name}-00000-of-00001.parquet")
    return path


SPLITS = {"train": slice(0, 15), "val": slice(15, 20)}
SOURCES = {
    "npz": _write_npz,
    "labels of several classes": _write_sets,
    "records": _write_records,
    "table": _write_table,
    "parquet": _write_parquet,
    "tfds": lambda path: "digits",
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_prepared(command, tmp_path, data_dir, name):
    (tmp_path / "data").mkdir()
    source = str(SOURCES[name](tmp_path / "data"))
    data = f"--set=data.data_dir={data_dir}"
    outcome = command("prepare", f"--from={source}", f"--to={tmp_path / 'out'}", data)
    assert outcome.code == 0, outcome.err
    before, after = (
        open_source(DataConfig(source=str(path), data_dir=str(data_dir))) for path in (source, tmp_path / "out")
    )
    assert after.class_names == before.class_names
    assert {name: split.name for name, split in after.splits.items()} == {
        name: split.name for name, split in before.splits.items()
    }
    preprocess = create_preprocess(DataConfig(image_size=4, channels=1))
    for one, other in zip(before.splits.values(), after.splits.values(), strict=True):
        examples = [
            [
                (preprocess.to_input(tf.constant(image)).numpy().tobytes(), np.asarray(label).tolist())
                for image, label in split.examples(40).as_numpy_iterator()
            ]
            for split in (one, other)
        ]
        if name in ("table", "parquet"):  # their slices do not depend on the order
            examples = [sorted(each, key=repr) for each in examples]
        assert examples[0] == examples[1]


def test_a_table_is_divided_by_prepare_as_by_training(tmp_path):
    _write_table(tmp_path)
    frame = pd.read_csv(tmp_path / "labels.csv").drop(columns="split").rename(columns={"label": "x", "image": "y"})
    frame.to_csv(tmp_path / "columns.csv", index=False)
    overrides = ["data.label_column=x", "data.image_column=y"]
    result = prepare(tmp_path / "columns.csv", tmp_path / "out", eval_fraction=0.3, overrides=overrides)
    assert sum(split.examples for split in result.splits.values()) == 20
    settings = {"label_column": "x", "image_column": "y", "eval_fraction": 0.3}
    before = open_source(DataConfig(source=str(tmp_path / "columns.csv"), **settings))
    after = open_source(DataConfig(source=str(tmp_path / "out")))
    for split in ("train", "validation"):
        assert _content(before, split) == _content(after, split)
    for key, message in (("data.label_colum=x", "did you mean"), ("train.epochs=3", "train.epochs has no effect")):
        with pytest.raises(UserError, match=message):
            prepare(tmp_path / "columns.csv", tmp_path / "more", overrides=[key])


def test_signals_are_not_prepared(tmp_path):
    signals = np.zeros((8, 16, 1), np.float32)
    arrays = {"x_train": signals, "y_train": np.arange(8) % 2, "x_test": signals, "y_test": np.arange(8) % 2}
    np.savez(tmp_path / "signals.npz", **arrays)
    with pytest.raises(UserError, match=r"holds float32 arrays of 16x1; `prepare` writes"):
        prepare(tmp_path / "signals.npz", tmp_path / "out", overrides=["data.length=16", "data.channels=1"])
    with pytest.raises(UserError, match=r"no such folder or file|unknown data set"):
        prepare(tmp_path / "none.npz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
