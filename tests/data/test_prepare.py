"""A prepared folder is a TFDS directory with the same bytes."""

import json
import shutil

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.data.sources import open_source


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
