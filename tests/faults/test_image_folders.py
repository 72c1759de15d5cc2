"""Files of image folders: recognized by suffix or content, never passed over in silence, in every command alike."""

import io
import logging
import os

import numpy as np
import pytest
from PIL import Image

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import ImagePreprocess, SignalPreprocess, files
from resnet_tf.workflows.predict import predict


def _encoded(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, file_format)
    return buffer.getvalue()


def _array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 1), np.float32))
    return buffer.getvalue()


JPEG, HEIC = _encoded("JPEG"), b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
# Name of a file -> its content.
IMAGES = {
    "a.jfif": JPEG,
    "b.JPG": JPEG,
    "c": JPEG,
    "d.Jpeg": JPEG,
    "e.dat": _encoded("PNG"),
    "f.img": _encoded("GIF"),
    "g.dib": _encoded("BMP"),
    "h.tmp": _encoded("WEBP"),
    "i.tif": JPEG,
    "j.jpg": b"unreadable, and counted as such",
    "sub/folder/k.png": _encoded("PNG"),
}
# Name of a file -> its content and its description in the log.
SKIPPED = {
    "a.tif": (_encoded("TIFF"), "TIFF"),
    "b.heic": (HEIC, "HEIC"),
    "c.avif": (HEIC.replace(b"heic", b"avif"), "AVIF"),
    "d.txt": (b"BMW and other cars", ".txt"),
    "README": (b"text", "without suffix"),
    "f.dat": (b"", "empty"),
    "sub/g.jp2": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "h.psd": (b"8BPS\x00\x01", "Photoshop"),
}
HIDDEN = ["._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"]
HIDDEN += ["__MACOSX/a.jpg", "@eaDir/a.jpg", ".ipynb_checkpoints/a.jpg", ".git/a.jpg"]


def _write(root, contents) -> None:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@pytest.fixture
def mixed(tmp_path):
    """Write class/file: each class has all files above; hidden ones also lie beside the classes."""
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        _write(root / name, IMAGES)
        _write(root / name, {name: content for name, (content, _) in SKIPPED.items()})
        _write(root / name, dict.fromkeys(HIDDEN, JPEG))
    _write(root, dict.fromkeys(HIDDEN, JPEG))
    return root


def _expected(root) -> list[str]:
    return sorted(str(root / label / name) for label in ("cat", "dog") for name in IMAGES)


def _check_log(caplog) -> None:
    (message,) = (each.getMessage() for each in caplog.records if "skipped" in each.getMessage())
    assert message.startswith(f"skipped {2 * len(SKIPPED)} files of ")
    for _, description in SKIPPED.values():
        assert f"2 {description}" in message
    assert "cat/README, cat/a.tif" in message


def test_folders_of_classes(mixed, caplog):
    caplog.set_level(logging.INFO)
    source = open_source(DataConfig(source=str(mixed), eval_fraction=0.3))
    assert source.class_names == ("cat", "dog")
    found = [split.locate(each)["file"] for split in source.splits.values() for each in range(split.num_examples)]
    assert sorted(found) == _expected(mixed)
    _check_log(caplog)


def test_folders_of_splits(mixed, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "splits").mkdir()
    mixed.rename(tmp_path / "splits" / "train")
    for name in ("cat", "dog"):
        _write(tmp_path / "splits" / "test" / name, {"1.jfif": JPEG})
    source = open_source(DataConfig(source=str(tmp_path / "splits")))
    assert [source.train.locate(each)["file"] for each in range(source.train.num_examples)] == _expected(
        tmp_path / "splits" / "train"
    )
    assert source.validation.num_examples == 2
    assert "train/cat/README" in caplog.text


def test_prepare(mixed, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for label in ("cat", "dog"):
        (mixed / label / "j.jpg").write_bytes(JPEG)  # TFDS stores readable images only
    info = prepare_folder(mixed, tmp_path / "out", eval_fraction=0.3)
    assert sum(split.num_examples for split in info.splits.values()) == 2 * len(IMAGES)
    assert info.features["label"].names == ["cat", "dog"]
    _check_log(caplog)


def test_predict(mixed, tiny_export, caplog):
    caplog.set_level(logging.INFO)
    for label in ("cat", "dog"):
        (mixed / label / "j.jpg").write_bytes(JPEG)
    assert [each.file for each in predict(tiny_export, mixed)] == _expected(mixed)
    _check_log(caplog)


def test_images_outside_of_class_folders_are_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    _write(tmp_path, {f"{label}/{index}.jpg": JPEG for label in ("cat", "dog") for index in range(20)})
    _write(tmp_path, {"stray.jpg": JPEG, "cow/1.heic": HEIC, "labels.csv": b"x"})
    assert open_source(DataConfig(source=str(tmp_path), eval_fraction=0.5)).class_names == ("cat", "dog")
    assert "1 outside of a class folder" in caplog.text
    assert "cow/1.heic" in caplog.text
    assert "1 .csv" in caplog.text


def test_links_are_followed_and_loops_end(tmp_path, caplog):
    _write(tmp_path / "elsewhere", {"1.jpg": JPEG, "2.jpg": JPEG})
    _write(tmp_path / "photos", {"3.jpg": JPEG})
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "4.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "photos" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "photos" / "pipe.jpg")
    listing = files.list_files(str(tmp_path / "photos"), ImagePreprocess)
    assert [os.path.relpath(each, tmp_path / "photos") for each in listing.files] == [
        *("3.jpg", "4.jpg", "gone.jpg", "linked/1.jpg", "linked/2.jpg")
    ]
    assert list(listing.skipped.values()) == ["device, pipe or socket"]


def test_signals_are_recognized_by_content(tmp_path):
    _write(tmp_path, {"1.npy": _array(), "2.dat": _array(), "3.jpg": JPEG})
    listing = files.list_files(str(tmp_path), SignalPreprocess)
    assert listing.files == [str(tmp_path / "1.npy"), str(tmp_path / "2.dat")]
    assert listing.skipped == {str(tmp_path / "3.jpg"): ".jpg"}


# Files -> whether the layout is class/file, split/class/file, or ambiguous.
LAYOUTS = {
    "subfolders of some classes": (["cat/1.jpg", "cat/kittens/2.jpg", "dog/puppies/3.jpg"], "classes"),
    "subfolders of all classes": (["cat/kittens/2.jpg", "dog/puppies/3.jpg"], "classes"),
    "the same subfolder of all classes": (["cat/1.jpg", "cat/night/2.jpg", "dog/1.jpg", "dog/night/2.jpg"], "classes"),
    "other names of splits": (["one/cat/1.jpg", "one/dog/1.jpg", "two/cat/1.jpg", "two/dog/2.jpg"], "splits"),
    "one split": (["one/cat/1.jpg", "one/dog/1.jpg"], "splits"),
    "classes of one split each": (["training/cat/1.jpg", "validation/dog/1.jpg"], "splits"),
    "both": (["cat/1.jpg", "dog/1.jpg", "training/cat/1.jpg", "training/dog/1.jpg"], "both"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_subfolders_are_splits_or_parts_of_a_class(tmp_path, name):
    names, layout = LAYOUTS[name]
    _write(tmp_path / "photos", dict.fromkeys(names, JPEG))
    config = DataConfig(source=str(tmp_path / "photos"), eval_fraction=0.0)
    with pytest.raises(UserError) as caught:
        open_source(config)
    expected = "leaves no image" if layout == "classes" else "has no folder 'train'"
    assert expected in str(caught.value)
    if layout == "both":
        with pytest.raises(UserError, match="both split/class/file and class/file"):
            prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.0)
    else:
        splits = prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.0).splits
        assert set(splits) == ({"train"} if layout == "classes" else {each.split("/")[0] for each in names})
        assert sum(split.num_examples for split in splits.values()) == len(names)
