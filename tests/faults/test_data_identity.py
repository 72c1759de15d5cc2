"""Identity of the data: a resumed run notices swapped, renamed, reordered and replaced examples in every source."""

import gzip
import json
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_imagenet_records
from PIL import Image

from resnet_tf.config import load_config, override
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.data.sources.base import find_difference
from resnet_tf.workflows.prepare import prepare
from resnet_tf.workflows.train import train_and_evaluate

COUNT = 6
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16, 3), np.uint8)
LABELS = np.arange(COUNT) % 2
SAME_NUMBER = "examples as before, but their names or sizes differ"


def _encode(index):
    """Return a PNG whose size in bytes differs between indices."""
    pixels = PIXELS[index].copy()
    pixels[: 2 * index] = 0
    return tf.io.encode_png(pixels).numpy()


def _write_folder(root):
    for split in ("train", "test"):
        for index in range(COUNT):
            folder = root / split / "ab"[LABELS[index]]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.png").write_bytes(_encode(index))
    return root


def _write_npz(root, order=range(COUNT), pixels=PIXELS):
    order = list(order)
    root.mkdir(exist_ok=True)
    arrays = {"x_train": pixels[order], "y_train": LABELS[order], "x_test": PIXELS, "y_test": LABELS}
    np.savez_compressed(root / "data.npz", **arrays)
    return root / "data.npz"


def _write_idx(root, order=range(COUNT), pixels=PIXELS):
    order = list(order)
    root.mkdir(exist_ok=True)
    for split, images, labels in (("train", pixels[order], LABELS[order]), ("t10k", PIXELS, LABELS)):
        gray = np.ascontiguousarray(images[..., 0])
        header = struct.pack(">I3i", 0x803, *gray.shape)
        (root / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + gray.tobytes()))
        content = struct.pack(">Ii", 0x801, len(labels)) + labels.astype(np.uint8).tobytes()
        (root / f"{split}-labels-idx1-ubyte").write_bytes(content)
    return root


def _write_records(root, order=range(COUNT), encode=_encode):
    for split, indices in (("train", order), ("test", range(COUNT))):
        examples = [(encode(index), int(LABELS[index]) + 1, {}) for index in indices]
        write_imagenet_records(root / f"{split}-00000-of-00001", examples)
    return root


def _write_tfds(root, swapped=False):
    folder = _write_folder(root / "images")
    if swapped:
        _swap(folder / "train" / "a" / "0.png", folder / "train" / "a" / "2.png")
    prepare(folder, root / "prepared")
    shutil.rmtree(folder)
    return root / "prepared"


def _swap(first, second):
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def _replace_by_other_size(path):
    path.write_bytes(_encode(5))


CHANGED = PIXELS.copy()
CHANGED[0, 0, 0] ^= 1

# Source -> (write it, changes that are noticed). The order of examples of one class changes; their labels do not.
SWAPPED = (2, 1, 0, 3, 4, 5)
SOURCES = {
    "folder": (
        _write_folder,
        {
            "swapped": lambda root: _swap(root / "train/a/0.png", root / "train/a/2.png"),
            "renamed": lambda root: (root / "train/a/0.png").rename(root / "train/a/1.png"),
            "moved": lambda root: shutil.move(shutil.move(root / "train/a", root / "b"), root / "train/a/s"),
            "replaced": lambda root: _replace_by_other_size(root / "train/b/1.png"),
        },
    ),
    "npz": (
        _write_npz,
        {
            "swapped": lambda path: _write_npz(path.parent, SWAPPED),
            "replaced by values of the same size": lambda path: _write_npz(path.parent, pixels=CHANGED),
        },
    ),
    "idx": (
        _write_idx,
        {
            "swapped": lambda root: _write_idx(root, SWAPPED),
            "replaced by values of the same size": lambda root: _write_idx(root, pixels=CHANGED),
        },
    ),
    "records": (
        _write_records,
        {
            "swapped": lambda root: _write_records(root, SWAPPED),
            "replaced": lambda root: _write_records(root, encode=lambda index: _encode(5 - index)),
            "renamed": lambda root: (root / "train-00000-of-00001").rename(root / "train.tfrecord"),
        },
    ),
    "tfds": (
        _write_tfds,
        {"swapped": lambda root: shutil.rmtree(root) or _write_tfds(root.parent, swapped=True)},
    ),
}  # fmt: skip


def _identity(path):
    """Return the identity as a checkpoint stores it."""
    return json.loads(json.dumps(open_source(load_config("digits", [f"data.source={path}"]).data).identity))


@pytest.mark.parametrize("source", SOURCES)
def test_changes_that_keep_the_number_of_examples_are_noticed(source, tmp_path):
    write, changes = SOURCES[source]
    for name, change in changes.items():
        path = write(tmp_path / name)
        before = _identity(path)
        assert find_difference(before, _identity(path)) == ""
        change(path)
        assert find_difference(before, _identity(path)) == f"train: {COUNT} {SAME_NUMBER}", name


@pytest.mark.parametrize("source", SOURCES)
def test_moved_data_are_accepted(source, tmp_path):
    path = SOURCES[source][0](tmp_path / "one")
    before = _identity(path)
    shutil.move(tmp_path / "one", tmp_path / "other")
    assert find_difference(before, _identity(tmp_path / "other" / path.relative_to(tmp_path / "one"))) == ""


def test_the_first_difference_is_named(tmp_path):
    root = _write_folder(tmp_path / "images")
    before = _identity(root)
    (root / "train/a/6.png").write_bytes(_encode(0))
    assert find_difference(before, _identity(root)) == "train: 6 examples then, 7 now"
    (root / "train/a/6.png").unlink()
    (root / "train/a/0.png").rename(root / "train/b/0.png")
    assert find_difference(before, _identity(root)) == (
        "train: 6 examples as before, but their labels or their order differ"
    )
    shutil.move(root / "train/b", root / "train/c")
    shutil.move(root / "test/b", root / "test/c")
    assert find_difference(before, _identity(root)) == "the classes were a, b; they are a, c now"
    more = {**before, "splits": {**before["splits"], "more": before["splits"]["train"]}}
    assert find_difference(before, more) == "the splits were train, test; they are train, test, more now"


def test_checkpoints_that_do_not_state_the_content_are_accepted(tmp_path):
    now = _identity(_write_folder(tmp_path))
    before = json.loads(json.dumps(now))
    for split in before["splits"].values():
        del split["content"]
    assert find_difference(before, now) == ""


def test_a_file_that_disappeared_is_named(tmp_path):
    root = _write_folder(tmp_path)
    source = open_source(load_config("digits", [f"data.source={root}"]).data)
    (root / "train/a/0.png").unlink()
    with pytest.raises(UserError, match=r"cannot read '.*0.png': No such file"):
        source.identity  # noqa: B018


def test_a_refused_start_changes_nothing(tiny_config, tiny_run, tmp_path):
    """Regression: the stored settings named the other data from then on, which `evaluate` and `export` used."""
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write("corrupt\n")
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with np.load(tiny_config.data.source) as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "moved.npz", **arrays)
    arrays["x_train"][0, 0, 0] ^= 1
    np.savez(tmp_path / "other.npz", **arrays)
    message = f"was trained on other data than .*: train: 898 {SAME_NUMBER}; restore these data, or give another direct"
    with pytest.raises(UserError, match=message):
        train_and_evaluate(override(tiny_config, {"data.source": str(tmp_path / "other.npz")}), workdir)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    train_and_evaluate(override(tiny_config, {"data.source": str(tmp_path / "moved.npz")}), workdir)
    assert load_config(workdir / "config.json").data.source == str(tmp_path / "moved.npz")


@pytest.mark.slow
def test_a_run_does_not_continue_with_swapped_images(tmp_path):
    """Example files of the same label are swapped between two starts of a run."""
    root = tmp_path / "images"
    for split in ("train", "test"):
        for index in range(8):
            folder = root / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[index % COUNT][: 8 + index]).save(folder / f"{index}.png")
    settings = ["model.name=resnet8_w32", "data.batch_size=4", "train.epochs=1", "data.channels=3"]
    config = load_config("digits", [*settings, f"data.source={root}"])
    first = train_and_evaluate(config, tmp_path / "run")
    assert train_and_evaluate(config, tmp_path / "run") == first
    _swap(root / "train/a/0.png", root / "train/a/2.png")
    with pytest.raises(UserError, match=f"was trained on other data than .*: train: 8 {SAME_NUMBER}"):
        train_and_evaluate(config, tmp_path / "run")
