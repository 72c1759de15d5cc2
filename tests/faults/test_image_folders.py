"""Files of image folders: recognized by suffix or content, never passed over in silence, in every command alike."""

import io
import logging
import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from resnet_tf.config import DataConfig
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import ImagePreprocess, files
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
    assert {os.path.relpath(each, tmp_path / "photos"): reason for each, reason in listing.skipped.items()} == {
        "linked/back": "link to a folder above it",
        "loop": "link to a folder above it",
        "pipe.jpg": "device, pipe or socket",
    }


# Links below a folder with the classes cat and dog -> (classes, number of images, links that the log names).
LINKS = {
    "the folder itself": ({"loop": "."}, ("cat", "dog"), 4, ["loop"]),
    "a folder above": ({"up": ".."}, ("cat", "dog"), 4, ["up"]),
    "the root": ({"root": "/"}, ("cat", "dog"), 4, ["root"]),
    "the folder of the classes": ({"cat/loop": ".."}, ("cat", "dog"), 4, ["cat/loop"]),
    "the class itself": ({"cat/loop": "."}, ("cat", "dog"), 4, ["cat/loop"]),
    "itself": ({"cat/1.jpg.link": "1.jpg.link"}, ("cat", "dog"), 4, ["cat/1.jpg.link"]),
    "another class": ({"puppy": "dog"}, ("cat", "dog", "puppy"), 6, []),
    "a folder elsewhere": ({"cow": "../elsewhere"}, ("cat", "cow", "dog"), 5, []),
    "a folder elsewhere, in a class": ({"cat/more": "../../elsewhere"}, ("cat", "dog"), 5, []),
    "a folder elsewhere, twice": (
        {"cat/more": "../../elsewhere", "cat/again": "../../elsewhere"},
        ("cat", "dog"),
        5,
        ["cat/more"],
    ),
    "a file elsewhere": ({"cat/more.jpg": "../../elsewhere/1.jpg"}, ("cat", "dog"), 5, []),
}


@pytest.mark.parametrize("name", LINKS)
def test_links_are_followed_alike(tmp_path, tiny_export, caplog, name):
    links, classes, count, skipped = LINKS[name]
    root = tmp_path / "data" / "photos"
    _write(root, dict.fromkeys(("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"), JPEG))
    _write(tmp_path / "data" / "elsewhere", {"1.jpg": JPEG})
    for link, target in links.items():
        (root / link).symlink_to(target)
    source = open_source(DataConfig(source=str(root), train_split="all", eval_split="all"))
    assert source.class_names == classes
    assert source.train.num_examples == count
    assert all(f"({each})" in caplog.text for each in skipped)
    info = prepare_folder(root, tmp_path / "out", eval_fraction=0.0)
    assert tuple(info.features["label"].names) == classes
    assert info.splits["train"].num_examples == count
    unique = {os.path.realpath(split.locate(each)["file"]) for split in (source.train,) for each in range(count)}
    assert {os.path.realpath(each.file) for each in predict(tiny_export, root)} == unique


def test_links_in_folders_of_splits_are_followed_alike(tmp_path):
    _write(tmp_path / "train", dict.fromkeys(("cat/1.jpg", "dog/1.jpg"), JPEG))
    (tmp_path / "test").symlink_to("train")
    (tmp_path / "train" / "loop").symlink_to("..")
    (tmp_path / "again").symlink_to(".")
    source = open_source(DataConfig(source=str(tmp_path)))
    assert source.class_names == ("cat", "dog")
    assert [split.num_examples for split in source.splits.values()] == [2, 2]


def test_many_links_to_links_end(tmp_path):
    """Each level has two links to the next: 2**20 paths."""
    for level in range(20):
        for link in ("a", "b"):
            (tmp_path / str(level)).mkdir(exist_ok=True)
            (tmp_path / str(level) / link).symlink_to(f"../{level + 1}")
    _write(tmp_path / "20", {"1.jpg": JPEG})
    assert len(files.list_files(str(tmp_path / "0"), ImagePreprocess).files) == 1


SYSTEM_NAMES = [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", ".thumbnails", "System Volume Information"]
SYSTEM_NAMES += ["._cat", ".hidden", "Thumbs.db", "desktop.ini", ".DS_Store"]


@pytest.mark.parametrize("where", ["", "cat/", "train/", "train/cat/"])
def test_hidden_and_system_folders_are_no_classes(tmp_path, tiny_export, caplog, where):
    caplog.set_level(logging.INFO)
    root = tmp_path / "photos"
    names = ("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg") if "train" in where else ("cat/1.jpg", "dog/1.jpg")
    _write(root, dict.fromkeys(names, JPEG))
    for name in SYSTEM_NAMES:
        _write(root, {f"{where}{name}/1.jpg": JPEG, f"{where}{name}/cat/1.jpg": JPEG})
    splits = {} if "train" in where else {"train_split": "all", "eval_split": "all"}
    source = open_source(DataConfig(source=str(root), **splits))
    assert source.class_names == ("cat", "dog")
    assert source.train.num_examples == 2
    info = prepare_folder(root, tmp_path / "out", eval_fraction=0.0)
    assert info.features["label"].names == ["cat", "dog"]
    assert sum(split.num_examples for split in info.splits.values()) == len(names)
    assert len(list(predict(tiny_export, root))) == len(names)
    assert "skipped" not in caplog.text


def test_images_with_names_that_are_not_utf_8_are_prepared(tmp_path):
    names = [b"\xe9.jpg", b"\\xe9.jpg", "\u00e9.jpg".encode()]  # the first two are the same text
    for label in ("cat", "dog"):
        _write(tmp_path / "photos" / label, {os.fsdecode(name): JPEG for name in names})
    prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.0)
    prepared = tfds.builder_from_directory(tmp_path / "out" / "photos" / "1.0.0").as_dataset(split="train")
    texts = [r"\xe9.jpg", r"\xe9.jpg", "\u00e9.jpg"]
    expected = sorted(f"{label}/{text}" for label in ("cat", "dog") for text in texts)
    assert sorted(example["file_name"].numpy().decode() for example in prepared) == expected


def test_folders_nested_deeper_than_the_limit_of_recursion_are_listed(tmp_path):
    folders = [str(tmp_path / "/".join("d" * depth)) for depth in range(1, sys.getrecursionlimit() + 100)]
    for folder in folders:
        os.mkdir(folder)
    try:
        _write(tmp_path, {"c.jpg": JPEG, "d/e.jpg": JPEG, "f.jpg": JPEG})
        image = os.path.join(folders[-1], "1.jpg")
        with open(image, "wb") as file:
            file.write(JPEG)
        listed = files.list_files(str(tmp_path), ImagePreprocess).files
        assert listed == [str(tmp_path / "c.jpg"), image, str(tmp_path / "d/e.jpg"), str(tmp_path / "f.jpg")]
    finally:
        os.remove(image)
        os.remove(tmp_path / "d/e.jpg")
        for folder in reversed(folders):  # pytest removes folders by recursion
            os.rmdir(folder)
