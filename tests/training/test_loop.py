"""The loop, end to end on a few digits: learning, continuing, several replicas, callbacks, failures."""

import dataclasses
import json
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.config import load_config
from resnet_tf.data.sources import open_source
from resnet_tf.errors import UserError
from resnet_tf.training import checkpoint, optimizers, run, runtime
from resnet_tf.training.loop import Trainer, train_and_evaluate
from resnet_tf.training.progress import read_metrics
from resnet_tf.training.run import load_run


def _weights(workdir) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in load_run(workdir).model.get_weights()]


def _override(config, **groups):
    return dataclasses.replace(
        config, **{group: dataclasses.replace(getattr(config, group), **keys) for group, keys in groups.items()}
    )


class Stop(keras.callbacks.Callback):
    """Ends training after some epochs, as a user's callback may."""

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.epochs


def test_a_golden_run_learns_and_leaves_its_files(data_dir, tmp_path):
    config = load_config("digits", [f"data.data_dir={data_dir}", "train.epochs=12"])
    result = train_and_evaluate(config, tmp_path / "run")
    assert result["examples"] == 899
    assert result["step"] == 12 * 14
    assert result["top1"] > 0.9
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    assert lines[-1]["test_top1"] == result["top1"]
    assert lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    assert load_config(tmp_path / "run" / "config.json") == config
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [11 * 14, 12 * 14]
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_a_continued_run_ends_bitwise_as_an_uninterrupted_one(tiny_config, tiny_run, tmp_path):
    interrupted = train_and_evaluate(tiny_config, tmp_path, callbacks=[Stop(1)])
    assert interrupted["step"] == 7
    with (tmp_path / "metrics.jsonl").open("a") as file:  # as if killed between the metrics and the checkpoint
        file.write(json.dumps({"epoch": 2, "step": 14, "loss": 0.0}) + "\n" + '{"epo')
    finished = train_and_evaluate(tiny_config, tmp_path)
    assert finished["step"] == 14
    for ours, theirs in zip(_weights(tmp_path), _weights(tiny_run), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    lines, expected = (read_metrics(each / "metrics.jsonl") for each in (tmp_path, tiny_run))
    assert [line["step"] for line in lines] == [7, 14]
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]


def test_a_finished_run_is_only_tested_again(tiny_config, tiny_run):
    before = (tiny_run / "metrics.jsonl").read_text()
    result = train_and_evaluate(tiny_config, tiny_run)
    assert result["step"] == 14
    assert result["top1"] == read_metrics(tiny_run / "metrics.jsonl")[-1]["test_top1"]
    assert (tiny_run / "metrics.jsonl").read_text() == before


def test_the_number_of_steps_in_a_call_changes_nothing(tiny_config, tiny_run, tmp_path):
    train_and_evaluate(_override(tiny_config, runtime={"steps_per_loop": 3}), tmp_path)
    for ours, theirs in zip(_weights(tmp_path), _weights(tiny_run), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_callbacks_see_the_logs(tiny_config, tmp_path):
    seen = []
    spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, dict(logs))))
    train_and_evaluate(tiny_config, tmp_path, callbacks=[spy, keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    assert [epoch for epoch, _ in seen] == [0, 1]
    names = {"step", "loss", "top1", "test_loss", "test_top1", "test_top5", "learning_rate", "images_per_second"}
    assert set(seen[0][1]) == names
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def _without_batch_norm(config, *, num_classes, weights=None):
    """Its result does not depend on how a batch is divided, as BatchNorm's would."""
    data = config.data
    inputs = keras.Input((data.image_size, data.image_size, data.channels))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Flatten(name="flat")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_two_replicas_equal_one(tiny_config, tmp_path, monkeypatch, name):
    monkeypatch.setattr(run, "create_network", _without_batch_norm)
    base = _override(
        tiny_config, optimizer={"name": name, "weight_decay": 0.05, "base_lr": 0.02}, data={"batch_size": 64}
    )
    results = {}
    for strategy in ("single", "mirrored"):
        config = _override(base, runtime={"strategy": strategy, "logical_devices": 2})
        results[strategy] = train_and_evaluate(config, tmp_path / strategy)
    for ours, theirs in zip(_weights(tmp_path / "single"), _weights(tmp_path / "mirrored"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert results["single"] == pytest.approx(results["mirrored"], rel=1e-4)


def test_two_replicas_mix_pictures_as_one_does(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "create_network", _without_batch_norm)
    mixed = _override(tiny_config, augment={"mixup": 0.4, "cutmix": 1.0}, data={"batch_size": 64}, train={"epochs": 1})
    for strategy in ("single", "mirrored"):
        config = _override(mixed, runtime={"strategy": strategy, "logical_devices": 2})
        train_and_evaluate(config, tmp_path / strategy)
    plain = train_and_evaluate(_override(mixed, augment={"mixup": 0.0, "cutmix": 0.0}), tmp_path / "plain")
    lines = [read_metrics(tmp_path / each / "metrics.jsonl")[-1] for each in ("single", "mirrored", "plain")]
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=1e-4)
    assert abs(lines[0]["loss"] - lines[2]["loss"]) > 1e-3, "mixing changes what is learned"
    for ours, theirs in zip(_weights(tmp_path / "single"), _weights(tmp_path / "mirrored"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert plain["examples"] == 100
    odd = _override(mixed, data={"batch_size": 66}, runtime={"strategy": "mirrored", "logical_devices": 2})
    message = r"data.batch_size=66 does not divide among 2 replicas in groups of 2, as the pictures are mixed"
    with pytest.raises(UserError, match=message):
        train_and_evaluate(odd, tmp_path / "odd")


def test_two_replicas_average_their_statistics(tiny_config, tmp_path):
    config = _override(tiny_config, runtime={"strategy": "mirrored", "logical_devices": 2}, train={"epochs": 1})
    result = train_and_evaluate(config, tmp_path)
    loaded = load_run(tmp_path)
    assert result["examples"] == 100
    assert loaded.metrics["top1"] == result["top1"]
    with pytest.raises(UserError, match=r"data.batch_size=127 does not divide among 2 replicas"):
        train_and_evaluate(_override(config, data={"batch_size": 127}), tmp_path / "odd")


def test_mixed_precision_trains(tiny_config, tmp_path):
    for precision in ("mixed_bfloat16", "mixed_float16"):
        config = _override(tiny_config, runtime={"precision": precision}, train={"epochs": 1})
        assert np.isfinite(train_and_evaluate(config, tmp_path / precision)["loss"])
        assert load_run(tmp_path / precision).model.dtype_policy.name == "float32"


def test_a_loss_that_is_not_finite_stops_the_run(tiny_config, tmp_path):
    config = _override(tiny_config, optimizer={"base_lr": 1e20, "warmup_epochs": 0.0})
    with pytest.raises(UserError, match=r"the loss is (nan|inf) within steps 0 to 7; a lower optimizer.base_lr"):
        train_and_evaluate(config, tmp_path)


def test_other_data_under_the_same_name_is_refused(tiny_config, tiny_run, tmp_path):
    import shutil

    shutil.copytree(tiny_run, tmp_path / "run")
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    metadata = json.loads((newest / "metadata.json").read_text())
    metadata["data"]["class_names"][0] = "zero"
    (newest / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"was trained on .*'zero'.*but data.source now gives"):
        train_and_evaluate(tiny_config, tmp_path / "run")


def test_the_seed_decides_the_start_whatever_came_before(tiny_config, data_dir):
    """Preparing a data set draws random numbers; the weights must not depend on it."""
    source, strategy = open_source(tiny_config.data), runtime.start(tiny_config.runtime)
    starts = []
    for draws in range(2):
        np.random.uniform(size=draws)
        random.random()
        starts.append(Trainer(tiny_config, source, strategy).model.get_weights())
    for ours, theirs in zip(*starts, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(tiny_config):
    config = _override(tiny_config, train={"epochs": 10}, optimizer={"warmup_epochs": 2.0, "base_lr": 0.2})
    schedule = optimizers.Schedule(steps_per_epoch=7, total_steps=70)
    rate = optimizers.learning_rate(config, schedule)
    peak = 0.2 * 128 / 256
    expected = [
        peak * step / 14 if step < 14 else peak * 0.5 * (1 + np.cos(np.pi * (step - 14) / 56)) for step in range(71)
    ]
    np.testing.assert_allclose([float(rate(step)) for step in range(71)], expected, atol=1e-7)


def test_sgd_steps_as_the_papers_write_it(tiny_config):
    """v <- momentum v - lr (g + decay w), w <- w + v, decaying kernels only."""
    config = _override(
        tiny_config,
        optimizer={"warmup_epochs": 0.0, "weight_decay": 0.1, "momentum": 0.5, "nesterov": False},
        train={"epochs": 1000},
    )
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, bias_initializer="ones")(inputs))
    optimizer = optimizers.create_optimizer(config, optimizers.Schedule(100, 100_000), model)
    kernel, bias = (variable.numpy().astype("float64") for variable in model.trainable_variables)
    velocity = [0.0, 0.0]
    for _ in range(4):
        gradients = [tf.ones([3, 2]), tf.ones([2])]
        gradients = optimizers.add_coupled_decay(gradients, model, optimizer, config, replicas=1)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        velocity = [
            0.5 * velocity[0] - config.peak_learning_rate * (1 + 0.1 * kernel),
            0.5 * velocity[1] - config.peak_learning_rate,
        ]
        kernel, bias = kernel + velocity[0], bias + velocity[1]
    np.testing.assert_allclose(model.trainable_variables[0].numpy(), kernel, rtol=1e-4)
    np.testing.assert_allclose(model.trainable_variables[1].numpy(), bias, rtol=1e-4)
