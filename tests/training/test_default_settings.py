"""Default settings that depend on the number and the size of the images."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.config import CONFIG_FILE, list_configs, load_config, override
from resnet_tf.core.errors import UserError
from resnet_tf.data import pipeline
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.model.create import create_model
from resnet_tf.training import default_settings
from resnet_tf.training import image_size as image_size_module
from resnet_tf.training.learning_rate import learning_rate
from resnet_tf.training.run import load_run
from resnet_tf.workflows.train import train_and_evaluate


@pytest.fixture
def write_images(tmp_path):
    """Return a function that writes an `.npz` archive of gray images and returns its path."""

    def write(count: int, image_size: int = 8) -> str:
        arrays = {}
        for split, examples in (("train", count), ("test", 4)):
            arrays[f"x_{split}"] = np.zeros((examples, image_size, image_size), np.uint8)
            arrays[f"y_{split}"] = np.arange(examples) % 2
        np.savez(tmp_path / "images.npz", **arrays)
        return str(tmp_path / "images.npz")

    return write


@pytest.fixture
def simulate_data(monkeypatch):
    """Return a function that simulates a data set of a number of images of one size."""

    def simulate(examples: int, image_size: int) -> None:
        monkeypatch.setattr(
            default_settings,
            "open_source",
            lambda data: SimpleNamespace(train=SimpleNamespace(name="train", num_examples=examples)),
        )
        for module in (default_settings, image_size_module):
            monkeypatch.setattr(module, "median_size", lambda source: image_size)

    return simulate


def _big_transfer_learning_rate(step: int, end: tuple[int, ...]) -> float:
    """Return the learning rate of Kolesnikov et al. 2020, sec. 3.3, with 0.003 for batch size 512."""
    warmup, *decays, last = end
    assert step < last
    return 0.003 * step / warmup if step < warmup else 0.003 * 0.1 ** sum(step >= decay for decay in decays)


@pytest.mark.parametrize(
    ("examples", "steps", "mixup"),
    [
        (1_000, (100, 200, 300, 400, 500), 0.0),
        (19_999, (100, 200, 300, 400, 500), 0.0),
        (20_000, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
        (499_999, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
        (1_281_167, (500, 6_000, 12_000, 18_000, 20_000), 0.1),
    ],
)
def test_big_transfers_defaults(simulate_data, examples, steps, mixup):
    simulate_data(examples, 32)
    config = default_settings.resolve(load_config("bit_finetune"))
    assert (config.data.batch_size, config.data.image_size, config.augment.mixup) == (512, 128, mixup)
    per_epoch = pipeline.steps_per_epoch(512, examples, "auto")
    length = TrainingLength(per_epoch, per_epoch * config.train.epochs)
    assert steps[-1] <= length.total_steps < steps[-1] + per_epoch
    rate = learning_rate(config, length)
    for step in {0, 50, *(at + by for at in steps[:-1] for by in (-1, 0, 1)), steps[-1] - 1}:
        found, expected = float(rate(tf.constant(step))), _big_transfer_learning_rate(step, steps)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-9), f"step {step}"
    assert default_settings.resolve(config) == config


def test_large_images_are_evaluated_at_a_large_size(write_images):
    config = default_settings.resolve(load_config("bit_finetune", [f"data.source={write_images(20, 100)}"]))
    assert (config.data.image_size, config.data.batch_size, config.train.epochs) == (480, 20, 500)
    assert config.train.eval_every == 25


@pytest.mark.parametrize(
    ("count", "image_size", "epochs", "batch", "size"),
    [(20, 8, 40, 20, 128), (1_000, 150, 20, 32, 160), (8_000, 300, 3, 64, 224)],
)
def test_own_photos(simulate_data, count, image_size, epochs, batch, size):
    simulate_data(count, image_size)
    config = default_settings.resolve(load_config("finetune"))
    assert (config.train.epochs, config.data.batch_size, config.data.image_size) == (epochs, batch, size)


@pytest.mark.parametrize(("epochs", "head_epochs"), [(2, 1), (3, 1), (9, 1), (10, 2), (41, 8)])
def test_head_epochs_follow_the_epochs_that_apply(simulate_data, epochs, head_epochs):
    """They were a fifth of the default of 40 epochs, so that a run of 3 epochs trained only the head."""
    simulate_data(20, 8)
    config = default_settings.resolve(load_config("finetune", [f"train.epochs={epochs}"]))
    assert (config.train.epochs, config.train.head_epochs) == (epochs, head_epochs)
    assert config.train.finetune == "head_then_all"


def test_a_short_finetune_moves_the_backbone(write_images, tmp_path):
    weights = tmp_path / "start.weights.h5"
    create_model("resnet8_w32", num_classes=2, input_shape=(16, 16, 3)).save_weights(weights)
    settings = [f"data.source={write_images(40)}", "model.name=resnet8_w32", f"model.weights={weights}"]
    config = load_config("finetune", [*settings, "data.image_size=16", "train.epochs=3", "model.new_head=false"])
    train_and_evaluate(config, tmp_path / "run")
    before = create_model("resnet8_w32", num_classes=2, input_shape=(16, 16, 3), weights=weights)
    after = load_run(tmp_path / "run", checkpoint="latest").model
    kernels = [layer.name for layer in before.layers if "conv" in layer.name and layer.name.endswith("conv1")]
    for name in kernels:
        change = np.abs(after.get_layer(name).kernel.numpy() - before.get_layer(name).kernel.numpy()).max()
        assert change > 0, name


@pytest.mark.parametrize(
    "settings",
    [["train.epochs=1"], ["train.epochs=3", "train.head_epochs=3"], ["train.epochs=3", "train.head_epochs=9"]],
)
def test_a_run_of_the_head_alone_is_refused(settings):
    with pytest.raises(UserError, match=r"leaves no epoch for the other layers of train.finetune=head_then_all"):
        load_config("finetune", settings)


def test_a_run_of_the_head_alone_takes_any_number_of_epochs():
    load_config("finetune", ["train.epochs=1", "train.finetune=probe"])


@pytest.mark.parametrize("epochs", [2, 10, 40, 100])
def test_big_transfers_steps_lie_at_the_same_fractions_of_other_epochs(simulate_data, epochs):
    simulate_data(1_024, 32)
    settings = default_settings.resolve(load_config("bit_finetune", [f"train.epochs={epochs}"]))
    assert settings.train.eval_every == max(1, epochs // 20)
    assert settings.optimizer.warmup_epochs == pytest.approx(epochs / 5)
    assert settings.optimizer.decay_epochs == pytest.approx(tuple(epochs * tenths / 5 for tenths in (2, 3, 4)))


@pytest.mark.parametrize("batch", [100, 256, 2_048])
def test_big_transfers_steps_follow_the_batch_that_applies(simulate_data, batch):
    simulate_data(1_000, 32)
    config = default_settings.resolve(load_config("bit_finetune", [f"data.batch_size={batch}"]))
    steps = math.ceil(1_000 / batch)
    assert (config.data.batch_size, config.train.epochs) == (min(batch, 1_000), -(-500 // steps))
    assert config.optimizer.warmup_epochs * steps == pytest.approx(100)


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("finetune", {"train.epochs": 90, "data.image_size": 224, "data.batch_size": 256, "train.head_epochs": 1}),
        ("bit_finetune", {"train.epochs": 90, "augment.mixup": 0.0, "optimizer.warmup_epochs": 5.0}),
        ("bit_finetune", {"optimizer.decay_epochs": (30.0, 60.0, 80.0), "train.eval_every": 1}),
    ],
)
def test_a_key_that_is_set_to_its_default_stays(simulate_data, recipe, settings):
    """Regression: a setting that equals the default of the schema was replaced."""
    simulate_data(50_000, 32)
    texts = [f"{key}={str(value).strip('()')}" for key, value in settings.items()]
    resolved = default_settings.resolve(load_config(recipe, texts)).values
    assert {key: resolved[key] for key in settings} == settings


@pytest.mark.parametrize("settings", [[], ["train.epochs=5"]], ids=str)
@pytest.mark.parametrize("name", list_configs())
def test_a_run_that_continues_has_the_settings_of_its_start(simulate_data, name, settings):
    """Regression: from 2,106 photos on, `finetune` had a shorter warmup when it continued, and was refused."""
    for examples in (20, 1_000, 2_105, 2_106, 3_000, 30_000):
        simulate_data(examples, 300)
        source = default_settings.open_source(None)
        first = default_settings.resolve(load_config(name, settings), source)
        assert default_settings.resolve(load_config(name, settings), source, stored=first) == first, examples
        if first.train.defaults != "none":
            assert default_settings.resolve(load_config(name), source, stored=first) == first, examples


@pytest.mark.parametrize(
    ("stored", "replicas", "batch"),
    [(100, 1, 100), (100, 2, 100), (100, 5, 100), (100, 3, 99), (101, 1, 101), (51, 1, 51), (50, 1, 101), (64, 64, 64)],
)
def test_a_reduced_batch_stays_when_a_run_continues_on_other_devices(simulate_data, stored, replicas, batch):
    """Regression: that of 2 replicas was derived anew on 1, and the run was refused."""
    simulate_data(101, 8)
    source, config = default_settings.open_source(None), load_config("digits", ["data.batch_size=128"])
    before = override(config, {"data.batch_size": stored})
    found = default_settings.resolve(config, source, stored=before, replicas=replicas)
    assert found.data.batch_size == batch
    smaller = load_config("digits", ["data.batch_size=60"])  # no reduced one
    assert default_settings.resolve(smaller, source, stored=before, replicas=replicas).data.batch_size == 60


@pytest.mark.parametrize("name", ["finetune", "bit_finetune"])
def test_a_plan_for_minutes_is_kept_beside_other_default_settings(simulate_data, name):
    """Regression: only the keys of `train.defaults` were kept."""
    simulate_data(3_000, 300)
    config = load_config(name, ["train.minutes=10"])
    planned = {"data.image_size": 128, "train.eval_every": 3, "train.epochs": 20, "train.head_epochs": 4}
    stored = override(default_settings.resolve(config), planned)
    assert default_settings.resolve(config, stored=stored) == stored


def test_explicit_settings_are_kept(write_images):
    source = f"data.source={write_images(20)}"
    config = default_settings.resolve(load_config("finetune", [source, "train.epochs=2", "data.image_size=32"]))
    assert (config.train.epochs, config.data.image_size, config.data.batch_size) == (2, 32, 20)
    assert default_settings.resolve(load_config("digits")) == load_config("digits")


@pytest.mark.slow
def test_a_run_stores_its_default_settings_and_continues(tmp_path, write_images):
    settings = [f"data.source={write_images(40)}", "model.name=resnet8_w32", "model.weights=", "train.finetune=full"]
    config = load_config("finetune", [*settings, "data.image_size=16", "train.eval_every=20"])
    first = train_and_evaluate(config, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / CONFIG_FILE).read_text())
    assert (kept["train"]["defaults"], kept["train"]["epochs"], kept["data"]["batch_size"]) == ("photos", 40, 32)
    assert train_and_evaluate(config, tmp_path / "run") == first
    assert load_run(tmp_path / "run", checkpoint="latest").step == 80, "the second batch of an epoch is partly the next"
    assert load_run(tmp_path / "run").step == first["step"], "that of the best checkpoint, as the recipe chooses"
    write_images(39)
    with pytest.raises(UserError, match=r"was trained on other data than .*: "):
        train_and_evaluate(config, tmp_path / "run")
