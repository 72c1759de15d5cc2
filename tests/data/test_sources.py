"""Data sources: examples, labels and class names of each format, and messages for invalid ones."""

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import write_idx, write_imagenet_records
from PIL import Image
from sklearn.datasets import load_digits

from resnet_tf.config import DataConfig, load_config
from resnet_tf.core.errors import UserError
from resnet_tf.data import sources
from resnet_tf.data.sources import Corruption, Source, Split, open_source
from resnet_tf.data.sources.base import DataSet
from resnet_tf.inputs import ImagePreprocess


def _read(split: Split) -> list[tuple[bytes, int]]:
    return [(bytes(image), int(label)) for image, label in split.examples().as_numpy_iterator()]


@pytest.fixture
def digits(data_dir):
    return open_source(DataConfig(source="digits", data_dir=str(data_dir), channels=1, mean=(0.0,), std=(1.0,)))


def test_digits_equal_scikit_learn(digits):
    expected = load_digits()
    records = [*_read(digits.train), *_read(digits.validation)]
    assert (digits.train.num_examples, digits.validation.num_examples) == (898, 899)
    assert [label for _, label in records] == expected.target.tolist()
    pixels = np.stack([ImagePreprocess(size=(8, 8)).decode(tf.constant(image))[..., 0] for image, _ in records])
    np.testing.assert_array_equal(pixels, np.round(expected.images * 255 / 16))
    assert digits.class_names == tuple("0123456789")


def test_tfds_slices_are_splits(data_dir):
    config = DataConfig(source="digits", data_dir=str(data_dir), train_split="train[:50%]", eval_split="train[50%:]")
    source = open_source(config)
    assert source.train.num_examples + source.validation.num_examples == 898
    assert _read(source.train) + _read(source.validation) == _read(
        open_source(DataConfig(source="digits", data_dir=str(data_dir))).train
    )


@pytest.mark.parametrize("directory", ["digits/1.0.0", "digits"])
def test_a_tfds_directory_equals_its_data_set(digits, data_dir, directory):
    source = open_source(DataConfig(source=str(data_dir / directory)))
    assert _read(source.validation) == _read(digits.validation)
    assert source.class_names == digits.class_names


def test_a_download_without_a_network_is_reported(tmp_path, monkeypatch):
    """A proxy address without a server simulates a missing network."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"data set 'mnist/3.0.1' could not be prepared in .*copy a prepared directory"):
        open_source(DataConfig(source="mnist", data_dir=str(tmp_path)))


def test_a_folder_of_images(photos):
    source = open_source(DataConfig(source=str(photos)))
    assert source.class_names == ("blue", "red")
    assert (source.train.num_examples, source.validation.num_examples) == (12, 6)
    assert [label for _, label in _read(source.train)] == [0] * 6 + [1] * 6
    first = (photos / "train" / "blue" / "0.jpg").read_bytes()
    assert _read(source.train)[0] == (first, 0)


def _folder(root, files):
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path) if path.suffix == ".png" else path.write_text("")
    return DataConfig(source=str(root))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["notes.txt"], r"has no folder 'train'; it has no folders"),
        (["learn/cat/1.png", "test/cat/1.png"], r"has no folder 'train'; it has learn, test"),
        (["train/cat/1.txt", "test/cat/1.png"], r"no images under '.*train'"),
        (["train/1.png", "test/1.png"], r"no images under '.*train'"),
        (["train/cat/1.png", "test/cat/1.png"], r"train' has one class, 'cat'; training needs two or more"),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/cow/1.png"],
            r"class 'cow' is in '.*test' but not in '.*train'",
        ),
    ],
)
def test_invalid_folders_are_refused(tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        open_source(_folder(tmp_path, files))


def test_invalid_sources_are_refused(tmp_path, data_dir):
    (tmp_path / "file.zip").write_text("")
    for source, message in (
        ("fashion_mnits", r"unknown data set 'fashion_mnits'; did you mean 'fashion_mnist'"),
        (str(tmp_path / "none"), r"no such folder or file"),
        (str(tmp_path / "file.zip"), r"is no \.npz file and no table .*; expected one of these, a folder"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(DataConfig(source=source, data_dir=str(data_dir)))


def test_an_empty_source_is_refused():
    for value in ("", " "):
        with pytest.raises(UserError, match=r"^data.source is empty; .* data.source=\./ is this directory$"):
            load_config("digits", [f"data.source={value}"])


def test_a_data_set_without_labeled_images_is_refused(tmp_path):
    class Numbers(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"number": np.int64}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"number": 1}

    Numbers(data_dir=tmp_path).download_and_prepare()
    with pytest.raises(UserError, match=r"has no image with a class label; its features are \['number'\]"):
        open_source(DataConfig(source=str(tmp_path / "numbers")))


def _plain_folder(root, classes=("cat", "dog"), count=60):
    for label in classes:
        (root / label).mkdir(parents=True)
        for index in range(count):
            (root / label / f"{index}.png").write_bytes(b"x")
    return DataConfig(source=str(root))


def _names(split: Split) -> set[str]:
    return {"/".join(split.locate(index)["file"].split("/")[-2:]) for index in range(split.num_examples)}


def test_a_folder_of_classes_is_split_by_file_name(tmp_path):
    config = _plain_folder(tmp_path / "photos")
    before = open_source(config)
    train, test = _names(before.train), _names(before.validation)
    assert train | test == {f"{label}/{index}.png" for label in ("cat", "dog") for index in range(60)}
    assert not train & test
    assert 4 <= len(test) <= 22
    for label in ("cat", "cow"):
        (tmp_path / "photos" / label).mkdir(exist_ok=True)
        for index in range(60, 90):
            (tmp_path / "photos" / label / f"{index}.png").write_bytes(b"x")
    after = open_source(config)
    assert train <= _names(after.train), "the split of a file does not depend on other files"
    assert test <= _names(after.validation)
    moved = open_source(dataclasses.replace(config, source=str((tmp_path / "photos").rename(tmp_path / "other"))))
    assert _names(moved.validation) == _names(after.validation)
    half = open_source(dataclasses.replace(config, source=str(tmp_path / "other"), eval_fraction=0.5))
    assert _names(after.validation) < _names(half.validation)
    assert 0.35 < half.validation.num_examples / 210 < 0.65
    assert after.class_names == ("cat", "cow", "dog")


def test_a_split_by_hash_without_examples_is_refused(tmp_path):
    config = _plain_folder(tmp_path)
    with pytest.raises(UserError, match=r"data.eval_fraction=0 leaves no image of .* for evaluation"):
        open_source(dataclasses.replace(config, eval_fraction=0.0))
    with pytest.raises(UserError, match=r"has one class"):
        open_source(dataclasses.replace(config, eval_fraction=1.0))


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 7, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "keys"),
    [
        (IMAGES, ("x_train", "y_train", "x_test", "y_test")),
        (IMAGES[..., 0], ("x_train", "y_train", "x_test", "y_test")),
        (IMAGES[..., :1], ("train_images", "train_labels", "test_images", "test_labels")),
    ],
)
def test_a_numpy_archive(tmp_path, images, keys):
    labels = (np.arange(12) % 3).astype(np.uint8)
    np.savez(tmp_path / "data.npz", **dict(zip(keys, (images, labels[:, None], images[:5], labels[:5]), strict=True)))
    source = open_source(DataConfig(source=str(tmp_path / "data.npz")))
    assert source.class_names == ("0", "1", "2")
    assert source.class_counts.tolist() == [4, 4, 4]
    assert (source.train.num_examples, source.validation.num_examples) == (12, 5)
    for index, (image, label) in enumerate(source.train.examples().as_numpy_iterator()):
        expected = images[index] if images.ndim == 4 else images[index][..., None]
        np.testing.assert_array_equal(image, expected)
        assert label == labels[index]
    decoded = ImagePreprocess(size=(6, 7)).decode(source.train.load(tf.constant(3, tf.int64)))
    assert decoded.shape == (6, 7, 3)
    assert source.train.locate(3) == {"file": str(tmp_path / "data.npz"), "split": "train", "index": 3}


def test_a_numpy_archive_with_class_names(tmp_path):
    arrays = {"x_train": IMAGES, "y_train": np.arange(12) % 2, "x_test": IMAGES, "y_test": np.arange(12) % 2}
    np.savez(tmp_path / "data.npz", class_names=np.array(["cat", "dog", "cow"]), **arrays)
    source = open_source(DataConfig(source=str(tmp_path / "data.npz")))
    assert source.class_names == ("cat", "dog", "cow")
    assert source.describe_classes() == "cat 6, dog 6, cow 0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x_test": None},
            r"has no x_test and y_test, nor test_images and test_labels; it has x_train, y_train, y_test",
        ),
        ({"x_train": IMAGES / 255}, r"x_train of .* is float64 \[12, 6, 7, 3\]; images are uint8"),
        ({"x_train": IMAGES[..., :2]}, r"x_train of .* is uint8 \[12, 6, 7, 2\]; images are uint8"),
        ({"y_train": np.zeros(11, int)}, r"y_train of .* is int64 \[11\]; expected non-negative .* the 12 examples"),
        ({"y_train": np.zeros(12)}, r"y_train of .* is float64 \[12\]; expected non-negative integers"),
        ({"y_train": np.full(12, -1)}, r"expected non-negative integers"),
        (
            {"class_names": np.array(["cat"])},
            r"data.npz., index 1, has label 1, but the number of classes is 1",
        ),
        ({"x_train": np.array([object()] * 12)}, r"cannot read .*it holds Python objects, which could run code"),
    ],
)
def test_invalid_archives_are_refused(tmp_path, change, message):
    arrays = {"x_train": IMAGES, "y_train": np.arange(12) % 2, "x_test": IMAGES, "y_test": np.arange(12) % 2, **change}
    np.savez(tmp_path / "data.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=str(tmp_path / "data.npz")))


def test_a_file_that_is_not_an_archive_is_refused(tmp_path):
    (tmp_path / "data.npz").write_text("no")
    with pytest.raises(UserError, match=r"cannot read .*data.npz"):
        open_source(DataConfig(source=str(tmp_path / "data.npz")))


@pytest.mark.parametrize(
    ("split", "part"),
    [
        ("train[:9]", slice(0, 9)),
        ("train[9:]", slice(9, 12)),
        ("train[-4:-1]", slice(8, 11)),
        ("train[25%:75%]", slice(3, 9)),
        ("train[:10%]", slice(0, 1)),  # 1.2 examples
    ],
)
def test_a_part_of_an_archive(tmp_path, split, part):
    labels = np.arange(12) % 5
    np.savez(tmp_path / "data.npz", x_train=IMAGES, y_train=labels, x_test=IMAGES, y_test=labels)
    config = DataConfig(source=str(tmp_path / "data.npz"), train_split=split, eval_split="train")
    source = open_source(config, for_training=False)
    images, numbers = zip(*source.train.examples().as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(images, IMAGES[part])
    assert numbers == tuple(labels[part])
    assert source.train.locate(0)["index"] == part.start
    assert (source.train.name, source.validation.num_examples, source.class_names) == (split, 12, tuple("01234"))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[:13]", r"no split 'train\[:13\]' of 12 examples; expected a part such as train\[:200\], "),
        ("train[first:9]", r"no split 'train\[first:9\]' of 12 examples; expected a part such as train"),
        ("train[:9", r"no split 'train\[:9' of 12 examples"),
        ("train[5:5]", r"split 'train\[5:5\]' of 12 examples is empty"),
        ("validation[:9]", r"has no x_validation and y_validation"),
    ],
)
def test_invalid_parts_are_refused(tmp_path, split, message):
    np.savez(tmp_path / "data.npz", **{f"{each}_train": IMAGES if each == "x" else np.zeros(12, int) for each in "xy"})
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=str(tmp_path / "data.npz"), train_split="train", eval_split=split))


def test_description_of_class_counts():
    counts = np.repeat(np.arange(12), [5, 1, 7, *[3] * 9])
    split = Split("train", counts, load=None, locate=None)
    source = Source("s", tuple("abcdefghijkl"), split, split)
    assert source.describe_classes() == "12 classes of 1 (b) to 7 (c) examples, median 3"
    two = Split("train", np.array([0, 1, 1]), load=None, locate=None)
    described = Source("s", ("cat\x1b[2J", "dog\udcff"), two, two).describe_classes()
    assert described == "cat\\x1b[2J 1, dog\\xff 2"


@pytest.fixture
def mnist(tmp_path):
    """Write four files like those of MNIST, two of them compressed; return the folder and the test split."""
    generator = np.random.default_rng(0)
    for name, ending, count in (("train", "", 30), ("t10k", ".gz", 10)):
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(tmp_path / f"{name}-images-idx3-ubyte{ending}", images)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte{ending}", labels)
    return tmp_path, images, labels


def test_idx_files(mnist):
    folder, images, labels = mnist
    source = open_source(DataConfig(source=str(folder), channels=1, mean=(0.0,), std=(1.0,)))
    assert (source.train.num_examples, source.class_names) == (30, tuple("0123456789"))
    read = list(source.validation.examples().as_numpy_iterator())
    np.testing.assert_array_equal([image[..., 0] for image, _ in read], images)
    assert [label for _, label in read] == labels.tolist()
    assert source.validation.locate(3) == {
        "file": str(folder / "t10k-images-idx3-ubyte.gz"),
        "split": "test",
        "index": 3,
    }


def test_a_part_of_idx_files_has_all_classes(mnist):
    folder, images, labels = mnist
    splits = {"train_split": "train[:3]", "eval_split": "test[2:4]"}
    source = open_source(DataConfig(source=str(folder), channels=1, mean=(0.0,), std=(1.0,), **splits))
    assert (source.train.labels.tolist(), source.class_names) == ([0, 1, 2], tuple("0123456789"))
    read = list(source.validation.examples().as_numpy_iterator())
    np.testing.assert_array_equal([image[..., 0] for image, _ in read], images[2:4])
    assert [label for _, label in read] == labels[2:4].tolist()


def test_idx_files_of_kaggle_have_a_dot_and_folders_of_the_usual_names(mnist):
    folder, images, labels = mnist
    for file in list(folder.iterdir()):
        content = file.read_bytes()
        file.unlink()
        (folder / file.stem).mkdir()
        (folder / file.stem / file.stem).write_bytes(content)
        file.with_name(file.name.replace("-idx", ".idx")).write_bytes(content)
    source = open_source(DataConfig(source=str(folder), channels=1, mean=(0.0,), std=(1.0,)))
    assert (source.train.num_examples, source.validation.labels.tolist()) == (30, labels.tolist())
    read = [image[..., 0] for image, _ in source.validation.examples().as_numpy_iterator()]
    np.testing.assert_array_equal(read, images)
    assert source.validation.locate(0)["file"] == str(folder / "t10k-images.idx3-ubyte.gz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: file.unlink(),
            r"has no train-images-idx3-ubyte; it has t10k-images-idx3-ubyte.gz; data.train_spl",
        ),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"train-images-idx3-ubyte' is not a complete IDX file"),
        (lambda file: file.write_bytes(file.read_bytes()[:9]), r"train-images-idx3-ubyte' is not a complete IDX file"),
        (lambda file: write_idx(file, np.zeros((29, 28, 28), np.uint8)), r"has 29 images, .* 30 labels"),
        (lambda file: file.rename(f"{file}.gz"), r"cannot read .*train-images-idx3-ubyte.gz': Not a gzipped file"),
    ],
)
def test_invalid_idx_files_are_refused(mnist, change, message):
    change(mnist[0] / "train-images-idx3-ubyte")
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=str(mnist[0])))


FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian():
    source = open_source(DataConfig(source=str(FASHION), channels=1, mean=(0.0,), std=(1.0,)))
    assert np.bincount(source.train.labels).tolist() == [6000] * 10
    assert np.bincount(source.validation.labels).tolist() == [1000] * 10


def test_a_long_tail_has_the_published_counts(tmp_path):
    """CIFAR-10-LT with an imbalance ratio of 100 (Cui et al. 2019, Cao et al. 2019)."""
    labels = np.random.default_rng(0).permutation(np.arange(50_000) % 10)
    images = labels.astype(np.uint8).reshape(-1, 1, 1)
    np.savez(tmp_path / "c.npz", x_train=images, y_train=labels, x_test=images[:100], y_test=labels[:100])
    config = DataConfig(source=str(tmp_path / "c.npz"))
    source = open_source(dataclasses.replace(config, long_tail=100.0))
    assert source.class_counts.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert source.validation.num_examples == 100
    for index in (0, 7000, 12_405):
        assert int(source.train.load(tf.constant(index, tf.int64))[0, 0, 0]) == source.train.labels[index]
    index = source.train.locate(12_405)["index"]
    assert labels[index] == source.train.labels[12_405]
    assert open_source(config).train.num_examples == 50_000


THREE_SPLITS = {"train_split": "train[:20]", "eval_split": "train[20:]", "test_split": "test"}


def _three_splits(source_type: str, data_dir: Path, folder: Path) -> tuple[Source, Source]:
    """Return a source with a test split, and the same data with the test split as validation split."""
    splits = THREE_SPLITS
    if source_type == "tfds":
        config = DataConfig(source="digits", data_dir=str(data_dir), **splits)
    elif source_type == "npz":
        images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
        labels = np.arange(40) % 4
        np.savez(folder / "data.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
        config = DataConfig(source=str(folder / "data.npz"), **splits)
    elif source_type == "records":
        for split, count in (("train", 9), ("validation", 3), ("test", 6)):
            examples = [(bytes([index]), 1 + index % 3, {}) for index in range(count)]
            write_imagenet_records(folder / f"{split}-00000-of-00001", examples)
        config = DataConfig(source=str(folder), train_split="train", eval_split="validation", test_split="test")
    else:
        for split, count in (("train", 3), ("val", 1), ("test", 2)):
            _folder(folder, [f"{split}/{name}/{index}.jpg" for name in ("a", "b") for index in range(count)])
        config = DataConfig(source=str(folder), train_split="train", eval_split="val", test_split="test")
    return open_source(config), open_source(dataclasses.replace(config, eval_split="test", test_split=""))


@pytest.mark.parametrize("source_type", ["tfds", "npz", "records", "folder"])
def test_every_source_has_a_test_split_if_asked(data_dir, tmp_path, source_type):
    source, without = _three_splits(source_type, data_dir, tmp_path)
    assert without.test is None
    assert source.test is not None
    assert _read(source.test) == _read(without.validation) != _read(source.validation)
    assert source.test.name in source.identity["splits"]
    splits = (source.train, source.validation, source.test)
    counts, names = [f"{split.num_examples:,}" for split in splits], ", ".join(repr(split.name) for split in splits)
    expected = "{} training, {} validation and {} test examples (splits {})".format(*counts, names)
    assert source.describe_splits() == expected


def test_idx_files_have_a_test_split_if_asked(mnist):
    folder, images, labels = mnist
    source = open_source(DataConfig(source=str(folder), **THREE_SPLITS))
    read = list(source.test.examples().as_numpy_iterator())
    np.testing.assert_array_equal([image[..., 0] for image, _ in read], images)
    assert [label for _, label in read] == labels.tolist()
    assert source.validation.num_examples == 10


def test_a_class_of_the_test_split_only_is_refused(tmp_path):
    _folder(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "test/c/1.jpg"])
    with pytest.raises(UserError, match=r"class 'c' is in .*test' but not in .*train'"):
        open_source(DataConfig(source=str(tmp_path), eval_split="val", test_split="test"))


def test_a_folder_that_is_split_by_hash_has_no_test_split(tmp_path):
    _folder(tmp_path, [f"{name}/{index}.jpg" for name in ("a", "b") for index in range(20)])
    with pytest.raises(
        UserError, match=r"data.test_split='held_out' is a folder of .*with split/class/file; class/file"
    ):
        open_source(DataConfig(source=str(tmp_path), test_split="held_out"))


@pytest.mark.parametrize("use", ["validation", "test"])
@pytest.mark.parametrize(
    "corruption", [(), (Corruption("x.tfrecord", 0, "it is cut short"),)], ids=["empty", "corrupt"]
)
def test_evaluated_splits_have_examples(monkeypatch, use, corruption):
    """The examples of a corrupt split are lost, which evaluation names."""

    def split(name):
        rows = slice(0) if name == use else slice(4)
        lost = corruption if name == use else ()
        examples = Split(name, np.array([0, 1, 0, 1])[rows], lambda index: index, lambda index: {"file": "x"})
        return dataclasses.replace(examples, corruption=lost)

    found = Source("numbers", ("a", "b"), split("train"), split("validation"), split("test"))
    data = DataSet(("train", "validation", "test"), lambda config: found)
    monkeypatch.setattr(sources, "_find", lambda config, whole=False: data)
    if corruption:
        assert open_source(DataConfig(source="numbers")).splits[use].corruption
        return
    with pytest.raises(UserError, match=rf"split '{use}' of 'numbers' has no examples; evaluation needs at least one"):
        open_source(DataConfig(source="numbers"), for_training=False)


READERS = (open_source, sources.list_splits, sources.resolve_splits, sources.is_image_folder, sources.warn_of_clash)


@pytest.mark.parametrize("read", READERS)
def test_sources_that_the_system_refuses_are_named(tmp_path, monkeypatch, read):
    for name in ("a" * 300, str(tmp_path / ("a" * 300))):
        with pytest.raises(UserError, match=rf"^data.source='{name}' cannot be read: File name too long"):
            read(DataConfig(source=name))

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    for function in ("iterdir", "exists"):  # tests may run as root, who may read everything
        monkeypatch.setattr(Path, function, refuse)
    with pytest.raises(UserError, match=rf"^data.source='{tmp_path}' cannot be read: Permission denied: '{tmp_path}"):
        read(DataConfig(source=str(tmp_path)))
