"""Every source gives labelled pictures in an order that follows from a seed; what is wrong with one is named."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from resnet_tf.config import DataConfig
from resnet_tf.data import preprocess
from resnet_tf.data.sources import Split, open_source
from resnet_tf.errors import UserError
from resnet_tf.spec import Preprocess


def _read(split: Split) -> list[tuple[bytes, int]]:
    return [(bytes(image), int(label)) for image, label in split.examples().as_numpy_iterator()]


@pytest.fixture
def digits(data_dir):
    return open_source(DataConfig(source="digits", data_dir=str(data_dir), channels=1, mean=(0.0,), std=(1.0,)))


def test_digits_are_scikit_learns_in_its_order(digits):
    expected = load_digits()
    records = [*_read(digits.train), *_read(digits.test)]
    assert (digits.train.num_examples, digits.test.num_examples) == (898, 899)
    assert [label for _, label in records] == expected.target.tolist()
    pixels = np.stack([preprocess.decode(tf.constant(image), Preprocess(size=(8, 8)))[..., 0] for image, _ in records])
    np.testing.assert_array_equal(pixels, np.round(expected.images * 255 / 16))
    assert digits.class_names == tuple("0123456789")


def test_tfds_slices_are_splits(data_dir):
    config = DataConfig(source="digits", data_dir=str(data_dir), train_split="train[:50%]", eval_split="train[50%:]")
    source = open_source(config)
    assert source.train.num_examples + source.test.num_examples == 898
    assert _read(source.train) + _read(source.test) == _read(
        open_source(DataConfig(source="digits", data_dir=str(data_dir))).train
    )


@pytest.mark.parametrize("place", ["digits/1.0.0", "digits"])
def test_a_tfds_directory_is_read_as_its_name_is(digits, data_dir, place):
    source = open_source(DataConfig(source=str(data_dir / place)))
    assert _read(source.test) == _read(digits.test)
    assert source.class_names == digits.class_names


def test_a_download_without_a_network_says_what_to_put_where(tmp_path, monkeypatch):
    """A proxy that nobody listens on is as good as no network, wherever the test runs."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"data set 'mnist/3.0.1' could not be prepared in .*copy a prepared directory"):
        open_source(DataConfig(source="mnist", data_dir=str(tmp_path)))


def test_a_folder_of_images(photos):
    source = open_source(DataConfig(source=str(photos)))
    assert source.class_names == ("blue", "red")
    assert (source.train.num_examples, source.test.num_examples) == (12, 6)
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
        (["training/cat/1.png", "test/cat/1.png"], r"has no folder 'train'; it has test, training"),
        (["train/cat/1.txt", "test/cat/1.png"], r"no images under '.*train'"),
        (["train/1.png", "test/1.png"], r"no images under '.*train'"),
        (["train/cat/1.png", "test/cat/1.png"], r"train' has one class, 'cat'; training takes two or more"),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/cow/1.png"],
            r"class 'cow' is in '.*test' but not in '.*train'",
        ),
    ],
)
def test_wrong_folders_are_named(tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        open_source(_folder(tmp_path, files))


def test_wrong_names_are_named(tmp_path, data_dir):
    (tmp_path / "file.zip").write_text("")
    for source, message in (
        ("fashion_mnits", r"unknown data set 'fashion_mnits'; did you mean 'fashion_mnist'"),
        (str(tmp_path / "none"), r"there is no such folder"),
        (str(tmp_path / "file.zip"), r"is a file, but not an .npz; give that, a folder"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(DataConfig(source=source, data_dir=str(data_dir)))


def test_a_data_set_without_labelled_pictures_is_refused(tmp_path):
    class Numbers(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"number": np.int64}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"number": 1}

    Numbers(data_dir=tmp_path).download_and_prepare()
    with pytest.raises(UserError, match=r"has no picture with a class label; it has \['number'\]"):
        open_source(DataConfig(source=str(tmp_path / "numbers")))
