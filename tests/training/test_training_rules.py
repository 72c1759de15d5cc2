"""Tables of training behavior beside independent calculations: limits of losses, selections by rank and name."""

import contextlib
import dataclasses
import io
import json
import logging
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import make_first_checkpoint_best
from scipy.special import log_softmax, softmax

import resnet_tf
from resnet_tf.config import (
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    list_configs,
    load_config,
    override,
    parse_assignments,
)
from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.logs import shown_log
from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.core.targets import SINGLE_LABEL
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.data.sources import Source, Split, open_source
from resnet_tf.data.unreadable import naming_nonfinite
from resnet_tf.model.builder import build
from resnet_tf.model.zoo import MODELS
from resnet_tf.training import default_settings, runtime
from resnet_tf.training.callbacks import MetricsFile, ProgressLine
from resnet_tf.training.conflicts import describe_conflicts
from resnet_tf.training.evaluation import Evaluator
from resnet_tf.training.learning_rate import learning_rate
from resnet_tf.training.losses import Objective, class_weights
from resnet_tf.training.optimizers.create import create_optimizer
from resnet_tf.training.pace import Pace
from resnet_tf.training.progress import RunState
from resnet_tf.training.run import load_run, read_metrics
from resnet_tf.training.trainer import Trainer
from resnet_tf.training.workdir import check_workdir, stored_config

# Logits at which a probability, or its complement, has no digits left in float32.
EXTREME = np.array(
    [
        [200, 0, 0, 0],
        [0, 200, 0, 0],
        [20, 0, -5, 0],
        [0, 0, 0, 0],
        [1e30, 0, 0, -1e30],
        [17, 17, -100, 3],
        [6e4, -6e4, 0, 0],
    ]
)


def _loss_and_gradient(config: LossConfig, targets, logits, teacher=None) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses and their gradients by the logits, float32 [B] and [B, C]."""
    objective = Objective(config, np.array([1000, 10, 3, 1]))
    values = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(values)
        soft = None if teacher is None else tf.constant(teacher, tf.float32)
        losses = objective(tf.constant(targets, tf.float32), values, soft)
    return losses.numpy(), tape.gradient(losses, values).numpy()


def _focal(logits: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the focal loss of class 0 (Lin et al. 2017) and its gradient, float64, with 1 - p as a sum."""
    chances = softmax(logits, axis=-1)
    chance, rest = chances[:, 0], chances[:, 1:].sum(-1)
    log_chance = np.where(rest < 0.5, np.log1p(-np.minimum(rest, 0.5)), log_softmax(logits, axis=-1)[:, 0])
    own = rest**gamma * (gamma * chance * log_chance - rest)
    others = -own[:, None] * np.divide(
        chances[:, 1:], rest[:, None], out=np.zeros((len(rest), 3)), where=rest[:, None] > 0
    )
    return -(rest**gamma) * log_chance, np.concatenate([own[:, None], others], 1)


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.1, 0.5, 0.9, 1.0, 1.5, 2.0, 5.0, 100.0])
def test_focal_loss_has_its_limits(gamma):
    config, target = LossConfig(name="focal", focal_gamma=gamma), np.eye(4)[[0] * len(EXTREME)]
    losses, gradients = _loss_and_gradient(config, target, EXTREME)
    expected, slopes = _focal(EXTREME, gamma)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients, slopes, rtol=1e-4, atol=1e-6 if gamma < 50 else 1e-4)
    if not gamma:
        plain, plain_gradients = _loss_and_gradient(LossConfig(), target, EXTREME)
        np.testing.assert_allclose(losses, plain, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(gradients, plain_gradients, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"label_smoothing": 0.999},
        {"name": "binary"},
        {"name": "binary", "label_smoothing": 0.1},
        {"name": "focal", "focal_gamma": 0.01, "label_smoothing": 0.1},
        {"name": "focal", "focal_gamma": 0.5, "logit_adjustment": 100.0},
        {"logit_adjustment": 100.0},
        {"class_weights": "inverse"},
        {"class_weights": "effective", "effective_beta": 0.0},
        {"class_weights": "effective", "effective_beta": np.nextafter(1, 0)},
        {"teacher": "x", "teacher_weight": 1.0, "temperature": 0.01},
        {"teacher": "x", "teacher_weight": 0.5, "temperature": 1000.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("label", [0, 3])
def test_losses_and_gradients_are_finite(settings, label):
    teacher = EXTREME[::-1].clip(-1e5, 1e5) if "teacher" in settings else None
    logits = EXTREME.clip(-1e5, 1e5) if "teacher" in settings else EXTREME
    losses, gradients = _loss_and_gradient(LossConfig(**settings), np.eye(4)[[label] * len(logits)], logits, teacher)
    assert np.isfinite(losses).all()
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0, 30.0, 1000.0])
@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_distillation_is_exact_at_every_temperature(temperature, scale):
    """The squared temperature multiplies what remains of a difference of two logarithms."""
    generator = np.random.default_rng(0)
    student, teacher = (scale * generator.normal(size=(5, 4)) for _ in range(2))
    config = LossConfig(teacher="x", teacher_weight=1.0, temperature=temperature)
    losses, gradients = _loss_and_gradient(config, np.eye(4)[[0] * 5], student, teacher)
    theirs, own = (
        log_softmax(each.astype(np.float32).astype(float) / temperature, axis=-1) for each in (teacher, student)
    )
    np.testing.assert_allclose(losses, temperature**2 * (np.exp(theirs) * (theirs - own)).sum(-1), rtol=2e-4, atol=1e-8)
    slopes = temperature * (np.exp(own) - np.exp(theirs))
    np.testing.assert_allclose(gradients, slopes, rtol=1e-3, atol=1e-4 * np.abs(slopes).max())


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999, 1 - 1e-12, float(np.nextafter(1, 0))])
def test_effective_numbers_have_their_limits(beta):
    """The effective number is a geometric sum: 1 for beta 0, the count for beta 1 (Cui et al. 2019)."""
    counts = np.array([1, 3, 10, 0, 1000])
    numbers = np.array([sum(beta**power for power in range(count)) for count in counts])
    expected = np.divide(1, numbers, out=np.zeros(5), where=numbers > 0)
    found = class_weights(LossConfig(class_weights="effective", effective_beta=beta), counts)
    np.testing.assert_allclose(found, expected * 4 / expected.sum(), rtol=1e-6)


NETWORKS = {
    "one dimension": ("resnet18_1d", (64, 2), {}),
    "one dimension, group norm": ("resnet18_1d", (64, 2), {"norm": "group"}),
    "two dimensions": ("resnet18", (32, 32, 3), {}),
    "group norm": ("bit_r50x1", (32, 32, 3), {}),
    "squeeze and excitation": ("seresnet50", (32, 32, 3), {}),
}


@pytest.fixture(scope="module")
def networks() -> dict[str, keras.Model]:
    """Return networks of every rank and normalization by name."""
    return {
        key: build(
            dataclasses.replace(MODELS[name], depths=(1,) * 4, **knobs), name=name, input_shape=shape, num_classes=3
        )
        for key, (name, shape, knobs) in NETWORKS.items()
    }


def _optimizer(model: keras.Model, name: str, **settings) -> keras.optimizers.Optimizer:
    group = OptimizerConfig(name=name, base_lr=0.1, schedule="constant", warmup_epochs=0.0, **settings)
    config = Config(data=DataConfig(batch_size=256), optimizer=group)
    return create_optimizer(config, TrainingLength(10, 100), model)


@pytest.mark.parametrize("network", NETWORKS)
def test_selections_by_rank_and_name_hold_for_every_network(networks, network):
    model = networks[network]
    convolutions = [each for each in model.layers if isinstance(each, keras.layers.Conv1D | keras.layers.Conv2D)]
    kernels = {id(each.kernel) for each in [*convolutions, model.get_layer("logits")]}
    muon = _optimizer(model, "muon", weight_decay=0.1, layer_decay=0.5)
    for index, variable in enumerate(model.trainable_variables):
        by_muon = muon.adam_velocities[index] is None
        assert by_muon == (id(variable) in kernels and not variable.path.startswith("logits")), variable.path
        assert (muon.decay_of(variable) is not None) == (id(variable) in kernels), variable.path
    levels = {}
    for variable, factor in zip(model.trainable_variables, muon._factors, strict=True):
        levels.setdefault(variable.path.split("/")[0].split("_")[0], set()).add(factor)
    assert levels["logits"] == {1.0}
    stages = [max(levels[f"stage{number}"]) for number in range(1, 5)]
    assert stages == sorted(set(stages)), "each block has a lower learning rate than the next"
    assert max(levels["stem"]) < stages[0]


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("name", ["lars", "lamb"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_trust_ratios_follow_the_role_of_a_variable(name, rank, decay):
    """A weight decay of 0 leaves the trust ratio as it is; biases have neither (You et al. 2017, 2019)."""
    shape, layer = ((5, 4), keras.layers.Conv1D) if rank == 3 else ((5, 5, 4), keras.layers.Conv2D)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(8, 3, name="conv")(inputs))
    optimizer = _optimizer(model, name, weight_decay=decay, momentum=0.0)
    generator = np.random.default_rng(0)
    kernel, bias = (generator.normal(size=each.shape) for each in model.trainable_variables)
    slopes = [generator.normal(size=each.shape) for each in (kernel, bias)]
    for variable, value in zip(model.trainable_variables, (kernel, bias), strict=True):
        variable.assign(value)
    optimizer.apply([tf.constant(each, tf.float32) for each in slopes], model.trainable_variables)
    norm = np.linalg.norm
    if name == "lars":
        ratio = 0.001 * norm(kernel) / (norm(slopes[0]) + decay * norm(kernel))
        expected = kernel - 0.1 * ratio * (slopes[0] + decay * kernel), bias - 0.1 * slopes[1]
    else:  # after the first step, the mean over the root of the mean square is the sign
        update = np.sign(slopes[0]) + decay * kernel
        expected = kernel - 0.1 * norm(kernel) / norm(update) * update, bias - 0.1 * np.sign(slopes[1])
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-5)


def _config(*settings: str, given: bool = False) -> Config:
    """Return a configuration with settings that a recipe made, or with `given`, the command line."""
    config = override(Config(), parse_assignments(settings))
    return config if given else dataclasses.replace(config, given=frozenset())


@pytest.mark.parametrize(
    ("settings", "given", "warmup"),
    [
        (["train.epochs=90"], False, 5.0),
        (["train.epochs=20"], False, 2.0),
        (["train.epochs=3"], False, 0.3),
        (["train.epochs=1"], False, 0.1),
        (["train.epochs=3", "optimizer.schedule=one_cycle"], False, 5.0),
        (["train.epochs=5", "optimizer.warmup_epochs=4"], False, 4.0),
        (["train.epochs=5", "optimizer.warmup_epochs=5"], True, 5.0),
    ],
)
def test_the_default_warmup_is_a_part_of_the_run(settings, given, warmup):
    config = default_settings.resolve(_config(*settings, given=given))
    assert config.optimizer.warmup_epochs == warmup
    assert default_settings.resolve(config) == config
    if config.optimizer.schedule == "one_cycle" or warmup != config.train.epochs / 10:
        return
    rate = learning_rate(config, TrainingLength(20, 20 * config.train.epochs))
    rates = [float(rate(step)) for step in range(20 * config.train.epochs)]
    assert np.argmax(rates) == len(rates) / 10
    assert rates[-1] < 0.1 * max(rates)


def test_the_warmup_of_a_recipe_is_for_its_own_epochs():
    """signals: 1 of 12 epochs; a run of 5 epochs has half an epoch, unless the warmup is set."""
    for settings, warmup in (([], 1.0), (["train.epochs=5"], 0.5), (["train.epochs=40"], 1.0)):
        config = default_settings.resolve(load_config("signals", settings))
        assert config.optimizer.warmup_epochs == warmup
        assert default_settings.resolve(config) == config
    settings = ["train.epochs=5", "optimizer.warmup_epochs=1"]
    assert default_settings.resolve(load_config("signals", settings)).optimizer.warmup_epochs == 1


def test_a_run_that_continues_keeps_its_warmup(tmp_path):
    """Of earlier versions, whose warmup took a quarter, and of a run that is extended."""
    stored = _config("train.epochs=10", "optimizer.warmup_epochs=2.5")
    (tmp_path / "config.json").write_text(stored.to_json())
    for epochs in (10, 20):
        config = default_settings.resolve(_config(f"train.epochs={epochs}"), stored=stored_config(tmp_path))
        assert config.optimizer.warmup_epochs == 2.5
    given = _config("train.epochs=10", "optimizer.warmup_epochs=2", given=True)
    assert default_settings.resolve(given, stored=stored).optimizer.warmup_epochs == 2
    assert stored_config(tmp_path / "new") is None


CONFLICTS = {
    "takes all of train.epochs=5: the learning rate ends at its peak": [
        ["train.epochs=5", "optimizer.warmup_epochs=5"],
        ["train.epochs=5", "optimizer.warmup_epochs=7", "optimizer.schedule=constant"],
        ["train.epochs=5", "optimizer.warmup_epochs=5", "optimizer.schedule=polynomial"],
    ],
    "takes most of train.epochs=5": [["train.epochs=5", "optimizer.warmup_epochs=4.9"]],
    "train.epochs=50 end before the decays of optimizer.decay_epochs=60,80": [
        ["train.epochs=50", "optimizer.schedule=step"]
    ],
    "optimizer.decay_epochs=2,3 lie within optimizer.warmup_epochs=5": [
        ["optimizer.schedule=step", "optimizer.decay_epochs=2,3,30"]
    ],
    "data.balance=uniform and loss.logit_adjustment=1 compensate for the same imbalance": [
        ["data.balance=uniform", "loss.logit_adjustment=1"]
    ],
    "loss.class_weights=inverse and loss.logit_adjustment=0.5 compensate": [
        ["loss.class_weights=inverse", "loss.logit_adjustment=0.5"]
    ],
    "data.balance=sqrt and loss.class_weights=effective and loss.logit_adjustment=1 compensate": [
        ["data.balance=sqrt", "loss.class_weights=effective", "loss.logit_adjustment=1", "loss.name=focal"]
    ],
    "class 'b' has 4 training examples where 'a' has 400": [[], ["loss.label_smoothing=0.1"]],
    "runtime.profile=900:910 begins after the last step, 899": [["runtime.profile=900:910"]],
    "runtime.profile=890:901 ends after the last step, 899": [["runtime.profile=890:901"]],
    "train.patience=10 ends a run that many evaluations after its best one": [["train.patience=10"]],
    "train.patience=30 never ends a run of 30 evaluations": [["train.patience=30", "train.eval_every=3"]],
    "has no BatchNorm, so that train.freeze_batch_norm=true changes nothing": [
        ["train.freeze_batch_norm=true", "model.name=bit"]
    ],
    "has no BatchNorm, so that runtime.sync_batch_norm=true changes nothing": [
        ["runtime.sync_batch_norm=true", "model.name=bit"]
    ],
    "": [
        ["loss.logit_adjustment=1"],
        ["data.balance=uniform"],
        ["loss.class_weights=inverse"],
        ["loss.name=focal"],
        ["optimizer.schedule=one_cycle", "train.epochs=3", "loss.name=focal"],
        ["optimizer.schedule=step", "optimizer.decay_epochs=30,60", "loss.name=focal"],
        ["runtime.profile=890:900", "loss.name=focal", "train.freeze_batch_norm=true"],
        ["train.patience=10", "export.checkpoint=best", "loss.name=focal"],
    ],
}


@pytest.mark.parametrize(
    ("expected", "settings"), [(text, each) for text, rows in CONFLICTS.items() for each in rows], ids=str
)
def test_settings_that_conflict_are_warned_of(networks, expected, settings):
    config = _config(*settings)
    source = SimpleNamespace(targets=SINGLE_LABEL, class_counts=np.array([400, 4]), class_names=("a", "b"))
    model = networks["group norm" if config.model.name == "bit" else "two dimensions"]
    found = describe_conflicts(config, source, model, TrainingLength(10, 10 * config.train.epochs))
    if not expected:
        assert found == []
        return
    assert [expected in each for each in found].count(True) == 1, found
    source.class_counts = np.array([40, 40])
    found = describe_conflicts(config, source, model, TrainingLength(10, 10 * config.train.epochs))
    assert len(found) == (0 if "compensate" in expected or "has 4 training" in expected else 1)


def test_runs_of_earlier_versions_keep_their_batches(tmp_path):
    """They omitted all examples beyond the last complete batch, which their steps and epochs are counted by."""
    fields = _config("train.epochs=10").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert stored_config(tmp_path).data.drop_remainder == "auto"
    del fields["data"]["drop_remainder"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    stored = stored_config(tmp_path)
    assert stored.data.drop_remainder == "true"
    assert default_settings.resolve(_config("train.epochs=10"), stored=stored).data.drop_remainder == "true"
    given = _config("train.epochs=10", "data.drop_remainder=false", given=True)
    assert default_settings.resolve(given, stored=stored).data.drop_remainder == "false"
    (tmp_path / "some.json").write_text('{"data": {"batch_size": 64}}')
    assert load_config(tmp_path / "some.json").data.drop_remainder == "auto", "written by hand"


@pytest.mark.parametrize(
    ("schedule", "steps", "reached"),
    [("one_cycle", 1, 4e-7), ("one_cycle", 2, 0.08117), ("one_cycle", 3, None), ("cosine", 1, None), ("step", 2, None)],
)
def test_a_schedule_that_never_reaches_its_peak_is_warned_of(networks, schedule, steps, reached):
    """PyTorch's OneCycleLR with `total_steps=1` begins at its end."""
    config = _config(f"optimizer.schedule={schedule}", "train.epochs=1", "optimizer.warmup_epochs=0", "loss.name=focal")
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, decay_epochs=(0.5,)))
    source = SimpleNamespace(targets=SINGLE_LABEL, class_counts=np.array([4, 4]), class_names=("a", "b"))
    found = describe_conflicts(config, source, networks["two dimensions"], TrainingLength(steps, steps))
    assert [each.split(" of its peak")[0] for each in found] == (
        [] if reached is None else [f"the learning rate reaches at most {reached:.4g}"]
    )


def test_no_recipe_has_conflicts_of_its_own(networks):
    source = SimpleNamespace(targets=SINGLE_LABEL, class_counts=np.array([400, 4]), class_names=("a", "b"))
    for name in list_configs():
        config = load_config(name)
        if config.train.defaults == "none":
            length = TrainingLength(10, 10 * config.train.epochs)
            found = describe_conflicts(config, source, networks["two dimensions"], length)
            assert [each for each in found if "rare classes are recalled" not in each] == [], name


def test_the_plan_shows_conflicts(data_dir):
    settings = [f"data.data_dir={data_dir}", "train.epochs=2", "optimizer.warmup_epochs=2", "model.name=resnet8_w32"]
    plan = resnet_tf.plan(load_config("digits", settings))
    assert plan.facts["warnings"].startswith("optimizer.warmup_epochs=2 takes all of train.epochs=2")
    assert "warnings" not in resnet_tf.plan(load_config("digits", settings[:2])).facts


def test_the_best_checkpoint_gives_the_metrics(tiny_config, tiny_run, tmp_path):
    """The first of two checkpoints is the better one; a finished run is not trained again."""
    shutil.copytree(tiny_run, tmp_path, dirs_exist_ok=True)
    metrics = make_first_checkpoint_best(tmp_path)
    config = override(tiny_config, {"export.checkpoint": "best"})
    (tmp_path / "config.json").write_text(config.to_json())
    assert resnet_tf.train_and_evaluate(config, tmp_path) == metrics | {"step": 7}
    (tmp_path / "config.json").write_text(tiny_config.to_json())
    newest = json.loads((tmp_path / "checkpoints" / "00000014" / "metadata.json").read_text())
    assert resnet_tf.train_and_evaluate(tiny_config, tmp_path) == newest["metrics"] | {"step": 14}


def _parse_strictly(text: str) -> Any:
    """Parse JSON as its standard defines it, which has neither NaN nor Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_become_null(tmp_path):
    lines = [
        {"a": np.nan, "b": [np.inf, {"c": (-np.inf, 1.5)}], "d": np.float64("nan"), "e": True, "f": None, "g": "NaN"}
    ]
    expected = {"a": None, "b": [None, {"c": [None, 1.5]}], "d": None, "e": True, "f": None, "g": "NaN"}
    files.write_json_lines(tmp_path / "replaced.jsonl", lines)
    files.append_json_lines(tmp_path / "appended.jsonl", lines)
    texts = [(tmp_path / f"{name}.jsonl").read_text() for name in ("replaced", "appended")]
    for text in [*texts, files.to_json(lines[0]), files.to_json(lines[0], indent=2)]:
        assert _parse_strictly(text) == expected


def test_metrics_of_an_epoch_without_steps_are_json(tmp_path):
    """All steps of an epoch may be skipped as non-finite; further lines are appended to the file."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    rates = {"learning_rate": 0.1, "images_per_second": np.nan, "train_seconds": 0.0}
    for epoch in range(2):
        file.on_epoch_end(epoch, RunState(step=7 * epoch + 7).to_logs() | rates | {"val_loss": np.inf})
    lines = [_parse_strictly(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(each["epoch"], each["loss"], each["val_loss"]) for each in lines] == [(1, None, None), (2, None, None)]
    assert np.isnan([each["loss"] for each in read_metrics(tmp_path)]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_examples_without_a_finite_loss_are_named(value):
    """NaN must not count as right, nor end in an error of NumPy; the first three are named."""
    targets, logits = np.zeros(9, int), np.zeros((9, 3))
    logits[[0, 2, 3, 5, 6, 8], 0] = value
    split = SimpleNamespace(locate=lambda index: {"file": f"{index}.jpg"} | ({"index": 7} if index == 2 else {}))
    with pytest.raises(UserError) as error, naming_nonfinite(split):
        SingleLabelEvaluation(targets, logits)
    names = "example 0 (0.jpg), example 2 (2.jpg, index 7), example 3 (3.jpg)"
    assert str(error.value) == f"6 of 9 examples have logits that are not finite: {names} and 3 more"


def test_evaluations_of_runs_and_exports_name_examples(tiny_run, tiny_export, tiny_images, monkeypatch):
    run = load_run(tiny_run)
    kernel = run.model.get_layer("logits").kernel
    kernel.assign(tf.fill(kernel.shape, 3e38))
    with pytest.raises(UserError, match=r"of 100 examples have logits .*: example 0 \(.*, index \d+\), "):
        resnet_tf.evaluate(run)
    predictor = resnet_tf.Predictor(tiny_export)
    predict = predictor.predict_batch

    def overflow(encoded, **options):
        outputs = {name: value.copy() for name, value in predict(encoded, **options).items()}
        outputs["logits"][1] = outputs["probabilities"][1] = np.nan
        return outputs

    monkeypatch.setattr(predictor, "predict_batch", overflow)
    split = open_source(run.config.data).validation
    with pytest.raises(UserError, match=r"^2 of 40 examples .*: example 1 \(.*\), example 33 \(.*\)$"):
        predictor.evaluate(split, count=40)
    with pytest.raises(UserError, match=r"the prediction for .* 1.* is not finite"):
        predictor(tiny_images[:3])


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("train.log", True),
        ("nohup.out", True),
        ("slurm-17.err", True),
        ("log.TXT", True),
        ("train_log_2.txt", True),
        ("stderr", True),
        ("catalog.txt", False),
        ("out.jpg", False),
        ("thesis.txt", False),
        ("cat.jpg", False),
        ("notes.md", False),
        ("weights.h5", False),
        ("folder.log/", False),
    ],
)
def test_logs_may_lie_in_a_run_directory(tmp_path, tiny_config, name, accepted):
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.write_text("output of the command")
    with contextlib.nullcontext() if accepted else pytest.raises(UserError, match="is not empty and holds no run"):
        check_workdir(tmp_path, tiny_config)


def _bare_logger(monkeypatch) -> logging.Logger:
    """Return the logger of the package as a script has it that configured none, not even pytest's."""
    logger = logging.getLogger("resnet_tf")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    return logger


def test_python_shows_the_log_of_the_command(monkeypatch, capsys):
    bare_logger = _bare_logger(monkeypatch)
    with shown_log():
        bare_logger.info("precision \x1b[2J")
    bare_logger.info("after the block")
    assert capsys.readouterr().err == "precision \\x1b[2J\n"
    assert (bare_logger.level, bare_logger.handlers) == (logging.NOTSET, [])


def test_the_log_of_an_application_stays(monkeypatch, capsys):
    bare_logger = _bare_logger(monkeypatch)
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    bare_logger.addHandler(handler)
    with shown_log():
        bare_logger.info("shown")
    bare_logger.setLevel(logging.WARNING)
    with shown_log():
        bare_logger.info("hidden")
        bare_logger.warning("kept")
    assert records == ["shown", "kept"]
    assert capsys.readouterr().err == ""


def test_trainings_from_python_show_their_log(monkeypatch, tiny_config, tiny_run, tmp_path, capsys):
    _bare_logger(monkeypatch)
    shutil.copytree(tiny_run, tmp_path, dirs_exist_ok=True)
    resnet_tf.train_and_evaluate(tiny_config, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    for start in ("precision float32", "resnet8_w32: ", "training examples: ", "resuming from step 14"):
        assert [line.startswith(start) for line in lines].count(True) == 1, start


SCRIPT = """
import os
import tensorflow as tf
from resnet_tf.core.native_log import filtered
from resnet_tf.data.augmentation import operations, transforms
from resnet_tf.inputs import orientation

images, numbers = tf.zeros([2, 8, 8, 3], tf.uint8), tf.fill([2], 0.5)
tf.function(lambda: orientation.rotate(images[0], tf.constant(6)))()
tf.function(lambda: transforms.pad_and_crop(images, {"pad_row": numbers, "pad_column": numbers}, 2))()
tf.function(lambda: operations._equalize(images, None, None))()
with filtered(lambda line: b"hidden" not in line):
    os.write(2, b"shown\\nhidden\\n")
"""


@pytest.mark.slow
def test_transposition_of_pixels_is_quiet():
    """TensorFlow prints an error for integers on CPUs whose oneDNN lacks them, once in a process."""
    child = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    assert "oneDNN supports" not in child.stderr
    assert "shown\n" in child.stderr
    assert "hidden" not in child.stderr


@pytest.mark.parametrize(
    ("compilation", "expected"),
    [(0.0, "3:00 left"), (40.0, "1:00 left"), (70.0, "0:00 left"), (None, "")],
)
def test_the_time_left_leaves_out_compilation(monkeypatch, compilation, expected):
    """One of four epochs in 60 seconds, of which compilation took a part."""
    monkeypatch.setattr(time, "monotonic", iter([100.0, 160.0]).__next__)
    stream = io.StringIO()
    line = ProgressLine(epochs=4, steps_per_epoch=10, first_step=0, compile_seconds=lambda: compilation, stream=stream)
    line.on_epoch_begin(0)
    line.on_epoch_end(0, {"loss": 0.5, "top1": 0.75, "learning_rate": 0.1, "images_per_second": 1234.0})
    assert stream.getvalue().endswith(f"images/s  {expected}\n" if expected else "images/s\n")


def test_compilation_is_what_the_first_call_takes_longer():
    pace = Pace(50)
    assert pace.compile_seconds is None
    pace.note(1, 30.0)
    assert pace.compile_seconds is None
    pace.note(4, 8.0)
    assert pace.compile_seconds == 28.0
    pace.note(1, 40.0)  # a slow call is no compilation
    assert pace.compile_seconds == 0.0


def test_an_evaluation_reports_its_compilation(tiny_run):
    run = load_run(tiny_run)
    split, strategy = open_source(run.config.data).validation, tf.distribute.get_strategy()
    evaluator = Evaluator(run.model, split, run.preprocess, batch_size=20, strategy=strategy)
    assert evaluator.compile_seconds is None
    evaluator()
    first = evaluator.compile_seconds
    assert first is not None
    assert first > 0
    evaluator()
    assert evaluator.compile_seconds == first


def test_a_run_of_one_is_described_in_the_singular(caplog):
    """One example in each split, one class, one step, one epoch, one replica."""
    split = Split("train", np.array([0]), lambda index: index, lambda index: {})
    source = Source("photos", ("cat",), split, dataclasses.replace(split, name="test"))
    assert source.describe_splits() == "1 training and 1 validation example (splits 'train', 'test')"
    assert repr(source) == "Source('photos', 1 class, train=1, test=1)"
    config = _config("train.epochs=1", "optimizer.warmup_epochs=0", "loss.name=focal")
    trainer = SimpleNamespace(
        config=config,
        source=source,
        model=SimpleNamespace(count_params=lambda: 1, layers=[], name="x"),
        length=TrainingLength(1, 1),
        warnings=[],
    )
    with caplog.at_level(logging.INFO, "resnet_tf"):
        Trainer.log_summary(trainer)
        runtime.start(dataclasses.replace(config.runtime, precision="float32"))
    data = "photos: 1 training and 1 validation example (splits 'train', 'test'), 1 class"
    assert f"resnet50: 1 parameter; {data}; 1 step an epoch, 1 epoch" in caplog.text
    assert "precision float32 (as configured); 1 replica: " in caplog.text
