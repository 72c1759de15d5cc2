"""Training step: micro-batches, replicas, clipping, non-finite gradients, and averages."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LONG

from resnet_tf.config import load_config
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation
from resnet_tf.data.sources import open_source
from resnet_tf.model.layers import BatchNormalization
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.training import runtime, trainer
from resnet_tf.training.optimizers.create import list_optimizers
from resnet_tf.training.resize import resize
from resnet_tf.training.trainer import Trainer


def _config(digits_arrays, *overrides):
    base = [f"data.source={digits_arrays}", "model.name=resnet8_w32", "data.batch_size=64", "train.epochs=20"]
    base += ["optimizer.warmup_epochs=1", "optimizer.base_lr=0.1", "runtime.precision=float32"]
    return load_config("digits", [*base, *overrides])


def _trainer(config) -> Trainer:
    return Trainer(config, open_source(config.data), runtime.start(config.runtime))


def _take(trained: Trainer, count: int, batches=None) -> np.ndarray:
    return trained.step.run(batches or trained.batches(), tf.constant(count))[0].numpy()


def _values(trained: Trainer) -> list[np.ndarray]:
    return [np.array(each) for each in [*trained.model.variables, *trained.optimizer.variables]]


MIRRORED = ("runtime.strategy=mirrored", "runtime.logical_devices=2", "runtime.sync_batch_norm=true")


@pytest.mark.slow
@pytest.mark.parametrize(
    "further",
    [
        pytest.param((), id="whole", marks=LONG),
        pytest.param(("train.accumulate=2",), id="in parts"),
    ],
)
def test_two_replicas_with_common_statistics_are_one_device(digits_arrays, further):
    # At a high rate a difference in rounding doubles every few steps; from 0.002, some orders exceed the tolerance.
    settings = ["model.name=resnet8_w32", "optimizer.base_lr=0.001", *further]
    one = _take(_trainer(_config(digits_arrays, *settings)), 50)
    two = _take(_trainer(_config(digits_arrays, *settings, *MIRRORED)), 50)
    np.testing.assert_allclose(two[:, 0], one[:, 0], rtol=1e-5)
    assert one[-10:, 0].mean() < 0.98 * one[0, 0]


def _without_batch_norm(config, *, num_classes, weights=None):
    inputs = keras.Input((config.data.image_size, config.data.image_size, config.data.channels))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Flatten(name="flat")(x)
    return ResidualNetwork(inputs, keras.layers.Dense(num_classes, name="logits")(x))


def test_parts_add_up_to_the_batch(digits_arrays, monkeypatch):
    monkeypatch.setattr(trainer.run, "create_network", _without_batch_norm)
    whole, parts = (_trainer(_config(digits_arrays, f"train.accumulate={parts}")) for parts in (1, 4))
    np.testing.assert_allclose(_take(whole, 10), _take(parts, 10), rtol=1e-5)
    for ours, theirs in zip(_values(whole), _values(parts), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [pytest.param(("train.accumulate=4",), id="in parts"), pytest.param(MIRRORED[:2], id="mirrored", marks=LONG)],
)
def test_examples_without_a_class_do_not_count_in_the_accuracy(tmp_path, monkeypatch, settings):
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (64, 8, 8), np.uint8), generator.random((64, 4)) < 0.3
    path = tmp_path / "data.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    monkeypatch.setattr(trainer.run, "create_network", _without_batch_norm)
    fixed = ["augment.shift=0", "augment.scale=0", "augment.rotation=0"]
    trained = _trainer(_config(path, *fixed, *settings))
    evaluation = MultiLabelEvaluation(labels, trained.model(trained.preprocess.from_batch(images[..., None])).numpy())
    statistics = _take(trained, 1)  # of one batch, the complete split
    assert statistics[0, [1, 4]].tolist() == [sum(evaluation.ranks == 0), labels.any(1).sum()]
    trained.state.add(statistics, batch_size=64)
    assert trained.state.to_logs()["top1"] == pytest.approx(evaluation.top(1))


@pytest.mark.parametrize(
    "devices", [pytest.param((), id="single"), pytest.param(MIRRORED[:2], id="mirrored", marks=LONG)]
)
def test_gradients_are_clipped_by_the_norm_over_all_weights(digits_arrays, monkeypatch, devices):
    monkeypatch.setattr(trainer.run, "create_network", _without_batch_norm)
    settings = ["optimizer.name=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "optimizer.warmup_epochs=0"]
    free = _trainer(_config(digits_arrays, *settings))
    before = _values(free)[:4]
    norm = _take(free, 1)[0, 2]
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, _values(free)[:4], strict=True)))
    rate = free.config.peak_learning_rate
    assert moved == pytest.approx(rate * norm, rel=1e-3)
    clipped = _trainer(_config(digits_arrays, *settings, f"optimizer.clip_norm={norm / 5}", *devices))
    assert _take(clipped, 1)[0, 2] == pytest.approx(norm, rel=1e-4)
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, _values(clipped)[:4], strict=True)))
    assert moved == pytest.approx(rate * norm / 5, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "devices",
    [
        pytest.param((), id="single", marks=LONG),
        pytest.param(MIRRORED[:2], id="mirrored"),
    ],
)
def test_a_nonfinite_step_changes_only_the_step_number(digits_arrays, devices):
    trained = _trainer(_config(digits_arrays, "train.ema=0.9", *devices))
    _take(trained, 2)
    before, average = _values(trained), [value.numpy() for value in trained.average.values.values()]
    kernel = trained.model.layers[-1].kernel
    good = kernel.numpy()
    kernel.assign(np.full_like(good, np.nan))
    metrics = _take(trained, 3)
    assert metrics[:, 3].tolist() == [1, 1, 1]
    kernel.assign(good)
    number = trained.optimizer.iterations
    assert int(number.numpy()) == 5
    number.assign(2)
    for ours, theirs in zip(_values(trained), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(trained.average.values.values(), average, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert np.isfinite(_take(trained, 1)).all()


def _on_accelerator(monkeypatch, setting: bool) -> None:
    """Build the step for an accelerator, on the CPU."""
    monkeypatch.setattr(trainer.runtime, "is_on_accelerator", lambda strategy: setting)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adamw", ()),
        *(pytest.param(name, (), marks=LONG) for name in list_optimizers() if name != "adamw"),
        pytest.param("sgd", ("runtime.precision=mixed_float16", *MIRRORED[:2]), marks=LONG),
        pytest.param("lamb", ("optimizer.clip_norm=0.1",), marks=LONG),
    ],
)
def test_selected_updates_are_those_of_a_condition(digits_arrays, monkeypatch, name, settings):
    """On an accelerator, a step selects between values where a CPU takes one of two branches."""
    values = []
    for accelerated in (True, False):
        _on_accelerator(monkeypatch, accelerated)
        settings = ["model.name=resnet8_w32", f"optimizer.name={name}", "train.ema=0.9", "runtime.xla=false", *settings]
        if name == "ftrl":
            settings += ["optimizer.schedule=constant", "optimizer.warmup_epochs=0"]
        trained = _trainer(_config(digits_arrays, *settings))
        batches, kernel = trained.batches(), trained.model.layers[-1].kernel
        _take(trained, 2, batches)
        good = kernel.numpy()
        kernel.assign(np.full_like(good, np.nan))
        assert not np.isfinite(_take(trained, 1, batches)).all()
        kernel.assign(good)
        _take(trained, 2, batches)
        values.append([*_values(trained), *(each.numpy() for each in trained.average.values.values())])
    for ours, theirs in zip(*values, strict=True):
        # Muon's products of matrices are summed in another order.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 if name == "muon" else 0)


@pytest.mark.slow
@pytest.mark.long
def test_a_step_of_an_accelerator_is_compiled_in_one_piece(digits_arrays, monkeypatch):
    losses = []
    for accelerated in (True, False):
        _on_accelerator(monkeypatch, accelerated)
        trained = _trainer(_config(digits_arrays, "model.name=resnet8_w32", "train.start_size=4"))
        losses.append(trained.step.run(trained.batches(), tf.constant(5), size=4)[0].numpy()[:, 0])
        assert (trained.step._complete_step == trained.step._complete) == (not accelerated)
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("shape", [(224, 224), (33, 57), (5, 5), (1, 1), (300, 200)])
@pytest.mark.parametrize("size", [1, 7, 17, 128, 192, 224, 299])
def test_resizing_by_matrices_is_that_of_tensorflow(shape, size):
    images = tf.constant(np.random.default_rng(0).uniform(-2, 2, (2, *shape, 3)).astype(np.float32))
    for sizes in ((size, size), (size, 2 * size)):
        expected = tf.image.resize(images, sizes, antialias=True)
        np.testing.assert_allclose(resize(images, sizes), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([(6, 1)], "float32"),
        ([(7, 0)], "mixed_float16"),
        ([(7, 5)], "mixed_float16"),
        ([(8, 0)], "mixed_bfloat16"),
        ([(12, 0)], "mixed_bfloat16"),
        ([(9, 0), (7, 5)], "mixed_float16"),
    ],
)
def test_the_precision_is_that_of_the_oldest_gpu(monkeypatch, capabilities, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda device_type: list(capabilities))
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda capability: {"compute_capability": capability}
    )
    assert runtime.choose_precision("auto")[0] == expected
    assert runtime.choose_precision("float32")[0] == "float32"


def test_xla_is_on_where_it_is_faster(monkeypatch):
    strategy = tf.distribute.get_strategy()
    for accelerated in (False, True):
        _on_accelerator(monkeypatch, accelerated)
        assert runtime.uses_xla("auto", strategy) == accelerated
        assert (runtime.uses_xla("true", strategy), runtime.uses_xla("false", strategy)) == (True, False)


@pytest.mark.slow
def test_float16_shrinks_its_scale_until_gradients_are_finite(digits_arrays):
    trained = _trainer(_config(digits_arrays, "runtime.precision=mixed_float16"))
    trained.optimizer.dynamic_scale.assign(2.0**40)
    metrics = _take(trained, 40)
    skipped = ~np.isfinite(metrics[:, 2])
    assert 5 < skipped.sum() < 35
    assert not metrics[skipped, 3].any(), "a scale that can shrink is not a non-finite step"
    assert np.isfinite(metrics[-1]).all()
    assert trained.optimizer.dynamic_scale.numpy() == 2.0 ** (40 - skipped.sum())


@pytest.mark.slow
def test_the_average_follows_the_weights_and_their_statistics(digits_arrays):
    trained = _trainer(_config(digits_arrays, "train.ema=0.9"))
    expected = {each.path: each.numpy().astype(np.float64) for each in trained.model.weights}
    batches = trained.batches()
    for step in range(12):
        _take(trained, 1, batches)
        weight = 1 - min(0.9, (1 + step) / (10 + step))
        for each in trained.model.weights:
            expected[each.path] += weight * (each.numpy() - expected[each.path])
    assert any("moving_variance" in path for path in expected)
    for path, value in trained.average.values.items():
        np.testing.assert_allclose(value.numpy(), expected[path], rtol=1e-4, atol=1e-5)
    raw = trained.model.get_weights()
    with trained.average.swap_weights():
        for each in trained.model.weights:
            np.testing.assert_array_equal(each.numpy(), trained.average.values[each.path].numpy())
    for ours, theirs in zip(trained.model.get_weights(), raw, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_replicas_have_the_same_state_after_every_step(digits_arrays):
    trained = _trainer(_config(digits_arrays, "optimizer.name=adamw", *MIRRORED[:2]))
    _take(trained, 3)
    for variable in [*trained.model.variables, *trained.optimizer.variables]:
        first, second = trained.strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=variable.path)


def _with_batch_norm(config, *, num_classes, weights=None):
    inputs = keras.Input((config.data.image_size, config.data.image_size, config.data.channels))
    x = BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return ResidualNetwork(inputs, keras.layers.Dense(num_classes, name="logits")(x))


def test_moving_statistics_are_the_mean_over_replicas(digits_arrays, monkeypatch):
    """Without `runtime.sync_batch_norm`, each replica has the statistics of its own part of the batch."""
    monkeypatch.setattr(trainer.run, "create_network", _with_batch_norm)
    trained = _trainer(_config(digits_arrays, *MIRRORED[:2]))
    images, *_ = next(trained.batches())
    parts = [trained.preprocess.from_batch(each) for each in trained.strategy.experimental_local_results(images)]
    conv, norm = (trained.model.get_layer(name) for name in ("conv", "norm"))
    expected = np.mean([conv(each).numpy().mean(axis=(0, 1, 2)) for each in parts], axis=0)
    before = norm.moving_mean.numpy()
    _take(trained, 1)
    expected = norm.momentum * before + (1 - norm.momentum) * expected
    np.testing.assert_allclose(norm.moving_mean.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.long
def test_a_step_compiles_for_tpus(digits_arrays):
    """Without a TPU: XLA compiles the step with bfloat16 convolutions, fixed shapes and no custom calls."""
    config = _config(digits_arrays, "runtime.precision=mixed_bfloat16", "runtime.xla=true")
    trained = _trainer(config)
    images, labels, *_ = next(trained.batches())
    compiled = tf.function(lambda images, labels: trained.step.gradients(images, labels), jit_compile=True)
    text = compiled.experimental_get_compiler_ir(images, labels)(stage="hlo")
    convolutions = [line for line in text.splitlines() if " convolution(" in line]
    layers = sum(isinstance(each, keras.layers.Conv2D) for each in trained.model.layers)
    # Each layer computes its output, the gradient of its kernel and, except for the first, that of its input.
    assert len(convolutions) >= 3 * layers - 1
    assert all(" bf16[" in line.split("convolution(")[0] for line in convolutions)
    assert "custom-call" not in text
    assert "<=" not in text.split("ENTRY")[1], "bounded dynamic dimensions are written so"
    compiled_losses, losses = (
        _take(each, 3)[:, 0]
        for each in (
            trained,
            _trainer(dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, xla="false"))),
        )
    )
    np.testing.assert_allclose(compiled_losses, losses, rtol=0.05)
