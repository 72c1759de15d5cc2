"""Image size, stem and crop from the sizes of the images and the training size of the weights."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from conftest import override_groups
from PIL import Image

from resnet_tf.config import Config, load_config
from resnet_tf.data.sources import open_source
from resnet_tf.data.sources.base import sample_sizes
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.model.create import create_model
from resnet_tf.training import default_settings, image_size
from resnet_tf.training.image_size import choose_size, describe_enlargement, trained_size
from resnet_tf.training.trainer import Trainer
from resnet_tf.workflows.train import train_and_evaluate


@pytest.mark.parametrize(
    ("median", "weights", "size", "is_small"),
    [
        (28, 0, 28, True),
        (30, 0, 28, True),
        (2, 0, 4, True),
        (64, 0, 64, True),
        (95, 0, 64, True),
        (96, 0, 96, False),
        (300, 0, 224, False),
        (28, 224, 128, False),
        (150, 224, 160, False),
        (3000, 224, 224, False),
        (3000, 288, 288, False),
        (300, 32, 32, False),
        (28, 32, 32, False),
    ],
)
def test_sizes_are_those_of_the_images_or_the_weights(median, weights, size, is_small):
    choice = choose_size(median, weights)
    assert (choice.size, choice.is_small) == (size, is_small)
    assert weights or size <= max(median, 4)


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a folder of images of one size, a broken file among them."""

    def write(width: int, height: int) -> str:
        for split in ("train", "test"):
            for label in ("a", "b"):
                (tmp_path / "data" / split / label).mkdir(parents=True, exist_ok=True)
                for index, suffix in enumerate(("jpg", "png", "bmp", "gif", "webp")):
                    pixels = np.full((height, width, 3), 40 * index, np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{index}.{suffix}")
        (tmp_path / "data" / "train" / "a" / "x.jpg").write_bytes(b"\xff\xd8\xff cut")
        return str(tmp_path / "data")

    return write


def _resolve(source: str, *settings: str, recipe: str = "imagefolder") -> Config:
    config = load_config(recipe, [f"data.source={source}", *settings])
    return default_settings.resolve(config, open_source(config.data))


def test_headers_of_all_formats_are_read(folder):
    source = open_source(load_config("imagefolder", [f"data.source={folder(50, 28)}"]).data)
    assert sample_sizes(source.train).tolist() == [[28, 50]] * 10
    assert source.train.evenly_spaced(2).tolist() == [0, source.train.num_examples - 1]
    assert image_size.median_size(source) == 28


def test_small_images_are_not_enlarged(folder, caplog):
    with caplog.at_level(logging.INFO, "resnet_tf"):
        config = _resolve(folder(30, 28))
    assert (config.data.image_size, config.model.stem, config.data.crop_fraction) == (28, "small", 1.0)
    (line,) = (each for each in caplog.messages if each.startswith("data.image_size=auto"))
    assert "model.stem=small" in line
    assert "28 pixels (median of the shorter edge)" in line
    assert default_settings.resolve(config) == config


def test_settings_of_the_user_stay(folder):
    source = folder(30, 28)
    config = _resolve(source, "model.stem=deep", "data.crop_fraction=0.875")
    assert (config.data.image_size, config.model.stem, config.data.crop_fraction) == (28, "deep", 0.875)
    config = _resolve(source, "model.name=resnet20")
    assert (config.data.image_size, config.model.stem) == (28, ""), "its stem is small"
    assert _resolve(source, "data.image_size=96").data.image_size == 96
    config = _resolve(source, recipe="finetune")
    assert (config.data.image_size, config.model.stem, config.data.crop_fraction) == (128, "", 0.875)


def test_signals_have_no_size(folder):
    source = open_source(load_config("imagefolder", [f"data.source={folder(30, 28)}"]).data)
    config = override_groups(load_config("imagefolder"), data={"length": 64, "channels": 1, "source": "x"})
    assert image_size.resolve_size(config, source).data.image_size == 224


def test_weights_state_their_size(tmp_path):
    path = tmp_path / "x.weights.h5"
    model = create_model("resnet8_w32", num_classes=3, input_shape=(24, 24, 3))
    for size in (32, 24):  # unknown: that of CIFAR, whose networks have the stem of this one
        if size == 24:
            model.preprocess = ImagePreprocess(size=(24, 24))
        model.save_weights(path)
        config = override_groups(Config(), model={"name": "resnet8_w32", "weights": str(path)})
        assert trained_size(config) == size
    ours = create_model("resnet18", num_classes=3)
    ours.save_weights(tmp_path / "18.weights.h5")
    for stem, size in (("", 224), ("small", 32)):
        model = {"name": "resnet18", "weights": str(tmp_path / "18.weights.h5"), "stem": stem}
        assert trained_size(override_groups(Config(), model=model)) == size
    for weights, size in (("imagenet", 224), ("timm/a1_in1k", 288), ("", 0)):
        assert trained_size(override_groups(Config(), model={"name": "resnet18", "weights": weights})) == size
    assert trained_size(override_groups(Config(), model={"name": "resnet20", "weights": "cifar10"})) == 32


def test_enlarged_images_are_warned_of(folder):
    source = folder(30, 28)
    config = _resolve(source, "data.image_size=224", "data.batch_size=4", "runtime.precision=float32")
    expected = "data.image_size=224 enlarges images of 28 pixels (median of the shorter edge): 64 times the work of 28"
    opened = open_source(config.data)
    assert describe_enlargement(config, opened).startswith(expected)
    assert describe_enlargement(_resolve(source, "data.image_size=40"), opened) == ""
    assert describe_enlargement(_resolve(source), opened) == ""
    assert describe_enlargement(_resolve(source, recipe="finetune"), opened) == ""
    signals = override_groups(config, data={"length": 64, "channels": 1}, augment={"random_resized_crop": False})
    assert describe_enlargement(signals, opened) == ""
    small = override_groups(config, model={"name": "resnet8_w32"})
    trainer = Trainer(small, opened, tf.distribute.get_strategy())
    assert [each for each in trainer.warnings if "enlarges" in each]


@pytest.mark.slow
def test_a_run_stores_its_size_and_keeps_it(folder, tmp_path):
    source = folder(30, 28)
    settings = ["model.name=resnet8_w32", "train.epochs=1", "data.batch_size=64", "runtime.precision=float32"]
    config = load_config("imagefolder", [f"data.source={source}", *settings, "data.max_unreadable_fraction=0.5"])
    train_and_evaluate(config, tmp_path / "run")
    stored = load_config(tmp_path / "run" / "config.json")
    assert (stored.data.image_size, stored.data.crop_fraction, stored.data.batch_size) == (28, 1.0, 11)
    assert stored.peak_learning_rate == pytest.approx(0.1 * 11 / 256)
    assert default_settings.resolve(config, open_source(config.data), stored=stored) == stored
