"""The loop, end to end on a few digits: learning, continuing, several replicas, callbacks, failures."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import signal
import time
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from conftest import (
    LONG,
    KilledError,
    make_first_checkpoint_best,
    override_groups,
    train_and_kill,
    untimed_metrics,
    writing_tensorboard,
)

import resnet_tf
from resnet_tf.config import list_configs, load_config
from resnet_tf.core import files
from resnet_tf.core.errors import Interrupted, UserError
from resnet_tf.core.signals import StopSignals, interrupted_by
from resnet_tf.data.sources import open_source
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.training import checkpoint, default_settings, evaluation, loop, run, runtime, start, throughput
from resnet_tf.training.callbacks import ProgressLine
from resnet_tf.training.evaluation import Evaluator, evaluate_run
from resnet_tf.training.progress import RunState
from resnet_tf.training.run import load_run
from resnet_tf.training.trainer import Trainer
from resnet_tf.workflows.train import train_and_evaluate


def _weights(workdir) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in load_run(workdir).model.get_weights()]


def _end_before_the_first_step(function, config, workdir):
    callback = keras.callbacks.LambdaCallback(on_train_begin=Mock(side_effect=KilledError))
    with pytest.raises(KilledError):
        function(config, workdir, callbacks=callback)


STATE_CALLS = {
    "train": lambda config, path: _end_before_the_first_step(resnet_tf.train, config, path),
    "train_and_evaluate": lambda config, path: _end_before_the_first_step(train_and_evaluate, config, path),
    "plan": lambda config, path: resnet_tf.plan(config),
    "benchmark": lambda config, path: resnet_tf.benchmark(config, what="train"),
    "preview": lambda config, path: resnet_tf.preview(
        override_groups(config, train={"minutes": 1.0}), path.with_suffix(".png"), count=1
    ),
}


@pytest.mark.parametrize("name", STATE_CALLS)
def test_random_generators_and_the_dtype_policy_stay_as_they_were(tiny_config, tmp_path, monkeypatch, name):
    """Regression: a loop of trials that sampled by `np.random` had the same sample from the second trial on."""
    used = Mock(side_effect=runtime.start)
    monkeypatch.setattr(runtime, "start", used)
    monkeypatch.setattr(throughput, "_rate", lambda counts, seconds: 1.0)
    monkeypatch.setattr(start, "fit_into_minutes", lambda config, *others: config)
    config = override_groups(tiny_config, runtime={"precision": "mixed_bfloat16"})
    random.seed(1)
    np.random.seed(2)
    before, expected = random.getstate(), np.random.RandomState(2).uniform(size=3)
    STATE_CALLS[name](config, tmp_path / "run")
    assert used.called
    assert random.getstate() == before
    np.testing.assert_array_equal(np.random.uniform(size=3), expected)
    assert keras.config.dtype_policy().name == "float32"


def test_a_golden_run_reaches_its_accuracy_and_writes_its_files(data_dir, tmp_path):
    config = load_config("digits", [f"data.data_dir={data_dir}", "train.epochs=6"])
    with writing_tensorboard():
        result = train_and_evaluate(config, tmp_path / "run")
    assert result["examples"] == 899
    assert result["step"] == 6 * 7
    assert result["top1"] > 0.9
    lines = files.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == list(range(1, 7))
    assert lines[-1]["val_top1"] == result["top1"]
    smallest = 0.5003  # cross-entropy of labels of 0.91, and 0.01 for each of the nine other classes
    assert lines[-1]["loss"] - smallest < 0.3 * (lines[0]["loss"] - smallest)
    assert load_config(tmp_path / "run" / "config.json") == default_settings.resolve(config)
    best = max(files.read_json_lines(tmp_path / "run" / "metrics.jsonl"), key=lambda line: line["val_top1"])["step"]
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == sorted({best, 5 * 7, 6 * 7})
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_a_continued_run_ends_bitwise_as_an_uninterrupted_one(tiny_config, tiny_run, tmp_path):
    assert train_and_kill(tiny_config, tmp_path, epochs=1) == 7
    with (tmp_path / "metrics.jsonl").open("a") as file:  # as if killed between the metrics and the checkpoint
        file.write(json.dumps({"epoch": 2, "step": 14, "loss": 0.0}) + "\n" + '{"epo')
    finished = train_and_evaluate(tiny_config, tmp_path)
    assert finished["step"] == 14
    for ours, theirs in zip(_weights(tmp_path), _weights(tiny_run), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    lines, expected = (files.read_json_lines(each / "metrics.jsonl") for each in (tmp_path, tiny_run))
    assert [line["step"] for line in lines] == [7, 14]
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]


def test_a_finished_run_is_only_tested_again(tiny_config, tiny_run):
    before = (tiny_run / "metrics.jsonl").read_text()
    result = train_and_evaluate(tiny_config, tiny_run)
    assert result["step"] == 14
    assert result["top1"] == files.read_json_lines(tiny_run / "metrics.jsonl")[-1]["val_top1"]
    assert (tiny_run / "metrics.jsonl").read_text() == before


def _assert_same_run(ours, theirs):
    for mine, other in zip(_weights(ours), _weights(theirs), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert untimed_metrics(ours) == untimed_metrics(theirs)


@pytest.mark.parametrize("moment", ["in an epoch", pytest.param("in an evaluation", marks=LONG)])
def test_a_run_stopped_by_a_signal_resumes_bitwise(tiny_config, tiny_run, tmp_path, monkeypatch, moment):
    """With one call per step: a signal in the third step, or in the first evaluation."""
    calls = []

    def after(original):
        def call(*arguments):
            calls.append(None)
            if len(calls) == (3 if moment == "in an epoch" else 1):
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments)

        return call

    owner, name = (loop._Fit, "_call") if moment == "in an epoch" else (Evaluator, "__call__")
    config = override_groups(tiny_config, runtime={"steps_per_loop": 1})
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, after(getattr(owner, name)))
        with pytest.raises(Interrupted, match=r"SIGTERM: stopped at step \d+, saved in .*; the same command resumes"):
            train_and_evaluate(config, tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
    assert checkpoint.steps(tmp_path / "checkpoints") == [3 if moment == "in an epoch" else 7]
    assert load_run(tmp_path).metrics == {}
    train_and_evaluate(config, tmp_path)
    _assert_same_run(tmp_path, tiny_run)


class _End(keras.callbacks.Callback):
    """Ends the run after its first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_a_signal_in_the_last_evaluation_of_an_ended_run_loses_no_metrics(tiny_config, tmp_path, monkeypatch):
    """Regression: the run that continued evaluated, and did not save metrics and calibration."""
    config, original = override_groups(tiny_config, train={"eval_every": 2}), Evaluator.__call__

    def stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", stop)
        with pytest.raises(Interrupted, match=r"SIGTERM: stopped at step 7, saved in "):
            train_and_evaluate(config, tmp_path, callbacks=[_End()])
    assert load_run(tmp_path).metrics == {}
    result = train_and_evaluate(config, tmp_path)
    assert (result["step"], load_run(tmp_path).metrics["top1"]) == (7, result["top1"])
    (line,) = files.read_json_lines(tmp_path / "metrics.jsonl")
    assert (line["val_top1"], line["stopped_early"]) == (result["top1"], True)


def test_a_signal_between_two_epochs_keeps_the_metrics_of_the_first(tiny_config, tmp_path):
    """Regression: the checkpoint at the end of the epoch was replaced by one without metrics."""
    stop = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: os.kill(os.getpid(), signal.SIGTERM) if epoch == 1 else None
    )
    with pytest.raises(Interrupted, match=r"SIGTERM: stopped at step 7, saved in "):
        train_and_evaluate(tiny_config, tmp_path, callbacks=[stop])
    (line,) = files.read_json_lines(tmp_path / "metrics.jsonl")
    assert load_run(tmp_path).metrics["top1"] == line["val_top1"]


def test_a_signal_after_the_last_evaluation_ends_the_run_before_the_export(tiny_config, tmp_path):
    """Regression: the signal was lost."""
    stop = keras.callbacks.LambdaCallback(on_train_end=lambda logs: os.kill(os.getpid(), signal.SIGTERM))
    config = override_groups(tiny_config, train={"epochs": 1})
    with pytest.raises(Interrupted, match=r"SIGTERM: stopped at step 7, saved in "):
        train_and_evaluate(config, tmp_path, callbacks=[stop])
    (line,) = files.read_json_lines(tmp_path / "metrics.jsonl")
    assert load_run(tmp_path).metrics["top1"] == line["val_top1"]


def test_a_signal_while_trackers_are_closed_is_not_lost(tiny_config, monkeypatch):
    @contextlib.contextmanager
    def open_trackers(config, workdir, *, is_chief):
        yield []
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "open_trackers", open_trackers)
    fit = Mock(_config=tiny_config, _signals=StopSignals(), _is_ended=True, _board=None, _unreadable=Mock(count=0))
    fit._trainer.state = RunState()
    with pytest.raises(Interrupted, match="SIGTERM: stopped"), interrupted_by(StopSignals.WATCHED, "stopped"):
        loop._Fit.run(fit)


@pytest.mark.parametrize(
    ("minutes", "patient", "cause"),
    [(0, True, "a callback"), (1, True, "train.minutes or a callback"), (1, False, "train.patience")],
)
def test_the_cause_of_an_early_end_is_named(tiny_config, caplog, minutes, patient, cause):
    state = RunState(step=21, ended=True, out_of_patience=not patient)
    trainer = SimpleNamespace(state=state, has_metrics=True)
    config = override_groups(tiny_config, train={"minutes": minutes})
    fit = SimpleNamespace(_trainer=trainer, _config=config, _metrics_file=None, _fitted=lambda evaluation: evaluation)
    fit._evaluate_to_logs = lambda: ("evaluation", {})
    with caplog.at_level("INFO", "resnet_tf"):
        assert loop._Fit._evaluate_finished(fit) == "evaluation"
    assert caplog.messages == [f"{cause} ended the run at step 21"]


@pytest.mark.slow
def test_checkpoints_within_an_epoch_and_after_corruption(tiny_config, tiny_run, tmp_path, caplog):
    config = override_groups(tiny_config, train={"checkpoint_steps": 3, "keep_checkpoints": 9})
    assert train_and_kill(config, tmp_path, epochs=1) == 7
    assert checkpoint.steps(tmp_path / "checkpoints") == [3, 6, 7]
    (tmp_path / "checkpoints" / "00000007" / "state.index").unlink()
    caplog.set_level("INFO", "resnet_tf")
    train_and_evaluate(config, tmp_path)
    message = "00000007' is corrupt: state.index: No such file or directory; using the checkpoint before it"
    assert message in caplog.text
    assert "resuming from step 6" in caplog.text
    assert checkpoint.steps(tmp_path / "checkpoints") == [3, 6, 7, 9, 12, 14]
    _assert_same_run(tmp_path, tiny_run)


def test_an_average_is_evaluated_saved_and_loaded(tiny_config, tmp_path):
    config = override_groups(tiny_config, train={"ema": 0.9})
    result = train_and_evaluate(config, tmp_path)
    line = files.read_json_lines(tmp_path / "metrics.jsonl")[-1]
    assert line["val_loss"] == result["loss"] != line["val_raw_loss"]
    loaded = load_run(tmp_path)
    assert evaluate_run(loaded, open_source(config.data), batch_size=100).loss == pytest.approx(
        result["loss"], rel=1e-5
    )


@pytest.mark.slow
def test_nonfinite_steps_restore_a_checkpoint_once(tiny_config, tmp_path, monkeypatch, caplog):
    """From step 9 on, steps are non-finite: first for five steps, then without end."""
    config = override_groups(tiny_config, train={"max_nonfinite_steps": 5}, runtime={"steps_per_loop": 1})
    original_call, taken = loop._Fit._call, []

    def spoil(self, steps):
        state = self._trainer.state
        spoiled = state.step >= 9 and len(taken) < 5 + 5 * forever
        taken.extend([state.step] if spoiled else [])
        kernel = self._trainer.model.layers[-1].kernel
        good = kernel.numpy()
        if spoiled:
            kernel.assign(np.full_like(good, np.nan))
        original_call(self, steps)
        if spoiled:
            kernel.assign(good)

    monkeypatch.setattr(loop._Fit, "_call", spoil)
    forever = False
    assert train_and_evaluate(config, tmp_path / "once")["step"] == 14
    assert taken == [9, 10, 11, 12, 13]
    assert "steps 9 to 13 had non-finite losses or gradients; the run returns to step 7, once" in caplog.text
    taken.clear()
    forever = True
    with pytest.raises(
        UserError, match=r"steps 9 to 13 had non-finite losses .*, again; a lower optimizer.base_lr .*--step=9"
    ):
        train_and_evaluate(config, tmp_path / "forever")
    assert checkpoint.steps(tmp_path / "forever" / "checkpoints") == [7]


def test_epochs_keep_their_numbers_after_a_return_over_several(tiny_config, tmp_path, monkeypatch):
    """Regression: an epoch after the return had the number of the one that failed."""
    original, begun = loop._Fit._call, []

    def spoil(self, steps):
        original(self, steps)
        state = self._trainer.state
        if state.step >= 23 and not state.rolled_back:
            state.nonfinite_streak = 5

    monkeypatch.setattr(loop._Fit, "_call", spoil)
    config = override_groups(tiny_config, train={"epochs": 4, "eval_every": 2, "max_nonfinite_steps": 5})
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    train_and_evaluate(config, tmp_path, callbacks=[note])
    assert begun == [0, 1, 2, 3, 2, 3]
    lines = files.read_json_lines(tmp_path / "metrics.jsonl")
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 7), (2, 14), (3, 21), (4, 28)]
    assert [line["epoch"] for line in lines if "val_top1" in line] == [2, 4]


@pytest.mark.slow
@pytest.mark.long
def test_the_number_of_steps_in_a_call_changes_nothing(tiny_config, tiny_run, tmp_path):
    train_and_evaluate(override_groups(tiny_config, runtime={"steps_per_loop": 3}), tmp_path)
    for ours, theirs in zip(_weights(tmp_path), _weights(tiny_run), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class _Forget(keras.callbacks.Callback):
    """Zeroes the classification head at the end of the second epoch, so that the first checkpoint is the best."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 1:
            for weight in self.model.layers[-1].weights:
                weight.assign(np.zeros(weight.shape))


@pytest.mark.slow
def test_a_test_split_is_evaluated_once_on_the_chosen_checkpoint(tiny_config, tmp_path, monkeypatch):
    config = override_groups(tiny_config, data={"test_split": "test[100:300]"}, export={"checkpoint": "best"})
    result = train_and_evaluate(config, tmp_path, callbacks=[_Forget()])
    chosen = load_run(tmp_path)
    assert (result["step"], chosen.step) == (7, 7)
    other = open_source(dataclasses.replace(config.data, eval_split="test[100:300]", test_split=""))
    found = {name.removeprefix("test_"): value for name, value in result.items() if name.startswith("test_")}
    expected = evaluate_run(chosen, other, batch_size=128).to_dict()
    # The calibration of the validation split is checked on the test split, see tests/workflows/test_trust.py.
    checked = {name: value for name, value in found.items() if name.endswith(("_before", "_after"))}
    assert checked["loss_before"] == pytest.approx(expected["loss"], rel=1e-5)
    expected |= checked
    assert found == expected
    stored = json.loads((tmp_path / "test_metrics.json").read_text())
    assert stored == {**chosen.identity, **{f"test_{name}": value for name, value in expected.items()}}
    monkeypatch.setattr(evaluation, "_evaluate", None)  # a finished run reads the file
    assert train_and_evaluate(config, tmp_path) == result


def test_test_metrics_that_are_no_numbers_are_refused(tiny_run, tmp_path):
    of_tiny = load_run(tiny_run)
    other = dataclasses.replace(of_tiny, workdir=tmp_path)
    assert evaluation.read_test_metrics(other) == {}
    numbers = {"step": 14, "test_examples": 5, "test_top1": 0.5, "test_top5": 1.0, "test_loss": 0.25}
    for stored in ([1], {"step": 14}, numbers | {"test_loss": "<b>"}):
        (tmp_path / "test_metrics.json").write_text(json.dumps(stored))
        with pytest.raises(UserError, match=r"test_metrics.json'"):
            evaluation.read_test_metrics(other)
    (tmp_path / "test_metrics.json").write_text(json.dumps(numbers | other.identity))
    assert evaluation.read_test_metrics(other) == {name: value for name, value in numbers.items() if name != "step"}
    assert evaluation.read_test_metrics(dataclasses.replace(other, step=7)) == {}
    assert evaluation.read_test_metrics(dataclasses.replace(other, weights_sha256="of a run that began anew")) == {}
    (tmp_path / "test_metrics.json").write_text(json.dumps(numbers))
    assert evaluation.read_test_metrics(other) == {}, "of unknown weights"


def _at_a_standstill(config, **train):
    """A run whose updates vanish in float32, so that its validation loss never improves."""
    optimizer = {"base_lr": 1e-20, "schedule": "constant"}
    return override_groups(config, optimizer=optimizer, train={"freeze_batch_norm": True, **train})


@pytest.mark.slow
@pytest.mark.long
def test_early_stopping_ends_a_run_with_its_defaults(tiny_config, tmp_path):
    stopping = keras.callbacks.EarlyStopping()
    config = _at_a_standstill(tiny_config, epochs=5)
    assert train_and_evaluate(config, tmp_path, callbacks=[stopping])["step"] == 14
    assert stopping.stopped_epoch == 1


@pytest.mark.slow
@pytest.mark.long
def test_reduce_lr_on_plateau_acts_with_its_defaults_and_is_resumed(tiny_config, tmp_path):
    reduction = keras.callbacks.ReduceLROnPlateau()
    config = _at_a_standstill(tiny_config, epochs=reduction.patience + 3)
    # The first epoch sets the best value, `patience` further ones do not improve on it; the last has the lower rate.
    train_and_kill(config, tmp_path, epochs=reduction.patience + 2, callbacks=[reduction])
    train_and_evaluate(config, tmp_path)
    rates = [line["learning_rate"] for line in files.read_json_lines(tmp_path / "metrics.jsonl")]
    peak = config.peak_learning_rate
    assert rates == pytest.approx([peak] * (reduction.patience + 1) + [reduction.factor * peak] * 2, rel=1e-6, abs=0)


def test_every_worker_follows_the_callbacks_of_the_chief(tiny_config):
    """On another worker than the chief, which ended training and halved the learning rate."""
    trainer = Trainer(tiny_config, open_source(tiny_config.data), runtime.start(tiny_config.runtime))
    trainer.model.stop_training = False
    before = float(trainer.optimizer.learning_rate)
    cluster = SimpleNamespace(count=2, is_chief=False, sum=lambda own: [1.0, 0.5, *own[2:]])
    worker = SimpleNamespace(_trainer=trainer, _cluster=cluster)
    loop._Fit._follow_callbacks(worker)
    assert trainer.model.stop_training
    assert float(trainer.optimizer.learning_rate) == 0.5 * before


@pytest.mark.slow
@pytest.mark.long
def test_model_checkpoint_writes_a_model_with_its_defaults(tiny_config, tmp_path):
    file = tmp_path / "{epoch}_{val_top1:.2f}.keras"
    train_and_evaluate(tiny_config, tmp_path / "run", callbacks=[keras.callbacks.ModelCheckpoint(file)])
    lines = files.read_json_lines(tmp_path / "run" / "metrics.jsonl")
    expected = [tmp_path / f"{line['epoch']}_{line['val_top1']:.2f}.keras" for line in lines]
    assert sorted(tmp_path.glob("*.keras")) == expected
    for ours, theirs in zip(
        keras.models.load_model(expected[-1]).get_weights(), _weights(tmp_path / "run"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.long
def test_keras_own_tensorboard_runs_in_the_loop(tiny_config, tmp_path):
    board = keras.callbacks.TensorBoard(tmp_path / "board", write_graph=False)
    train_and_evaluate(tiny_config, tmp_path / "run", callbacks=[board])
    assert any((tmp_path / "board").rglob("*.tfevents.*"))


@pytest.mark.slow
@pytest.mark.long
def test_tests_may_be_rare(tiny_config, tmp_path):
    rare = override_groups(tiny_config, train={"epochs": 5, "eval_every": 2})
    train_and_evaluate(rare, tmp_path / "rare")
    lines = files.read_json_lines(tmp_path / "rare" / "metrics.jsonl")
    assert [line["epoch"] for line in lines if "val_top1" in line] == [2, 4, 5]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    often = override_groups(tiny_config, train={"epochs": 5})
    train_and_evaluate(often, tmp_path / "often")
    assert load_run(tmp_path / "rare").metrics == load_run(tmp_path / "often").metrics

    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 2

    ended = train_and_evaluate(rare, tmp_path / "ended", callbacks=[Enough()])
    assert ended["step"] == 3 * lines[0]["step"]
    assert load_run(tmp_path / "ended").metrics["top1"] == ended["top1"]


@pytest.mark.slow
@pytest.mark.long
def test_steps_are_profiled_on_request(tiny_config, tmp_path):
    config = override_groups(tiny_config, runtime={"profile": "3:5"}, train={"epochs": 1})
    train_and_evaluate(config, tmp_path)
    assert any((tmp_path / "tensorboard" / "plugins" / "profile").rglob("*.xplane.pb"))
    with pytest.raises(UserError, match=r"runtime.profile='5' is not a range of steps, such as 100:110"):
        train_and_evaluate(override_groups(tiny_config, runtime={"profile": "5"}), tmp_path / "other")


# Between them these have every part that a recipe can have; CI leaves the others out.
_FAST_RECIPES = {"single": ("digits",), "mirrored": ()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        pytest.param(strategy, name, marks=() if name in _FAST_RECIPES[strategy] else LONG)
        for strategy in _FAST_RECIPES
        for name in list_configs()
    ],
)
def test_every_recipe_trains_and_continues(photos, tmp_path, name, strategy):
    """A small network and four images per step, with augmentation, schedule and loss of the recipe."""
    settings = [f"data.source={photos}", "model.name=resnet8_w32", "data.image_size=32", "data.batch_size=4"]
    settings += ["data.channels=3", "data.mean=0.5", "data.std=0.5", "train.epochs=2", f"runtime.strategy={strategy}"]
    settings += [
        "runtime.logical_devices=2",
        "optimizer.warmup_epochs=1",
        "augment.repeats=1",
        "model.stem=",
        "data.eval_split=test",
    ]
    if load_config(name).train.end_size:
        settings += ["train.end_size=24"]
    config = load_config(name, settings)
    assert train_and_kill(config, tmp_path / "run", epochs=1) == 3
    assert train_and_evaluate(config, tmp_path / "run")["step"] == 6


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        pytest.param(
            "train/red",
            r"\d of 12 images of split 'train' are unreadable, more .*red/\d.\w+; No such file",
            marks=LONG,
        ),
        pytest.param(
            "test/red",
            r"split 'test' cannot be evaluated: .*red/\d.\w+; No such file",
            marks=LONG,
        ),
    ],
)
def test_a_run_resumes_after_missing_images_ended_it(photos, tmp_path, gone, message):
    settings = [f"data.source={photos}", "model.name=resnet8_w32", "data.image_size=32", "data.batch_size=4"]
    # Read anew for each test: one that fits in memory would not miss them. And more steps than are read ahead.
    config = load_config("imagefolder", [*settings, "train.epochs=9", "data.memory_limit_mb=0"])
    vanish = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: (photos / gone).rename(tmp_path / "gone") if epoch == 0 else None
    )
    with pytest.raises(UserError, match=message):
        train_and_evaluate(config, tmp_path / "run", callbacks=[vanish])
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    (tmp_path / "gone").rename(photos / gone)
    assert train_and_evaluate(config, tmp_path / "run")["step"] == 27


def test_a_terminal_sees_a_moving_line(monkeypatch):
    monkeypatch.setattr(time, "monotonic", iter([100.0, 110.0, 130.0]).__next__)
    stream = io.StringIO()
    stream.isatty = lambda: True
    line = ProgressLine(epochs=4, steps_per_epoch=10, first_step=15, stream=stream)  # it continues from there
    line.on_epoch_begin(1)
    logs = {"loss": 0.5, "top1": 0.75, "learning_rate": 0.1, "images_per_second": 1234.0}
    line.on_train_batch_end(6, logs)  # 2 steps in 10 s, 23 left
    line.on_epoch_end(1, logs | {"val_loss": 0.25, "val_top1": 0.875})
    first, second = stream.getvalue().split("\r\x1b[K")[1:]
    assert first == "epoch 2/4  70%  loss 0.5000  lr 0.1  1,234 images/s  1:55 left"
    assert second == (
        "epoch 2/4  loss 0.5000  top-1 0.7500  |  val loss 0.2500  top-1 0.8750  |  lr 0.1  1,234 images/s  2:00 left\n"
    )


def test_callbacks_see_the_logs(tiny_config, tmp_path):
    seen = []
    spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, dict(logs))))
    train_and_evaluate(tiny_config, tmp_path, callbacks=[spy, keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    assert [epoch for epoch, _ in seen] == [0, 1]
    names = {"step", "loss", "top1", "gradient_norm", "learning_rate", "images_per_second"}
    assert all(logs["train_seconds"] > 0 and logs["val_seconds"] > 0 for _, logs in seen)
    assert names | {"val_loss", "val_top1", "val_top5"} <= set(seen[0][1])
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def _without_batch_norm(config, *, num_classes, weights=None):
    """Its result does not depend on how a batch is divided, as BatchNorm's would."""
    data = config.data
    inputs = keras.Input((data.image_size, data.image_size, data.channels))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Flatten(name="flat")(x)
    return ResidualNetwork(inputs, keras.layers.Dense(num_classes, name="logits")(x))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["sgd", pytest.param("adamw", marks=LONG)])
def test_two_replicas_equal_one(tiny_config, tmp_path, monkeypatch, name):
    monkeypatch.setattr(run, "create_network", _without_batch_norm)
    base = override_groups(
        tiny_config, optimizer={"name": name, "weight_decay": 0.05, "base_lr": 0.02}, data={"batch_size": 64}
    )
    results = {}
    for strategy in ("single", "mirrored"):
        config = override_groups(base, runtime={"strategy": strategy, "logical_devices": 2})
        results[strategy] = train_and_evaluate(config, tmp_path / strategy)
    for ours, theirs in zip(_weights(tmp_path / "single"), _weights(tmp_path / "mirrored"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert results["single"] == pytest.approx(results["mirrored"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.long
def test_two_replicas_mix_images_as_one_does(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "create_network", _without_batch_norm)
    mixed = override_groups(
        tiny_config, augment={"mixup": 0.4, "cutmix": 1.0}, data={"batch_size": 64}, train={"epochs": 1}
    )
    for strategy in ("single", "mirrored"):
        config = override_groups(mixed, runtime={"strategy": strategy, "logical_devices": 2})
        train_and_evaluate(config, tmp_path / strategy)
    plain = train_and_evaluate(override_groups(mixed, augment={"mixup": 0.0, "cutmix": 0.0}), tmp_path / "plain")
    lines = [files.read_json_lines(tmp_path / each / "metrics.jsonl")[-1] for each in ("single", "mirrored", "plain")]
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=1e-4)
    assert abs(lines[0]["loss"] - lines[2]["loss"]) > 1e-3, "mixing changes the loss"
    for ours, theirs in zip(_weights(tmp_path / "single"), _weights(tmp_path / "mirrored"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert plain["examples"] == 100
    odd = override_groups(mixed, data={"batch_size": 66}, runtime={"strategy": "mirrored", "logical_devices": 2})
    message = r"data.batch_size=66 does not divide among 2 replicas in groups of 2, which are mixed"
    with pytest.raises(UserError, match=message):
        train_and_evaluate(odd, tmp_path / "odd")


def test_the_best_checkpoint_is_loaded_on_request(tiny_config, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path, dirs_exist_ok=True)
    assert load_run(tmp_path).step == 14
    make_first_checkpoint_best(tmp_path)
    best = load_run(tmp_path, checkpoint="best")
    assert (best.step, best.metrics["top1"]) == (7, 1.0)
    (tmp_path / "config.json").write_text(override_groups(tiny_config, export={"checkpoint": "best"}).to_json())
    assert load_run(tmp_path).step == 7
    assert load_run(tmp_path, checkpoint="latest").step == 14
    with pytest.raises(UserError, match=r"checkpoint must be one of latest, best, got .newest."):
        load_run(tmp_path, checkpoint="newest")


def test_rare_classes_are_logged_unless_they_are_weighted(data_dir, tiny_config, tmp_path, caplog):
    uneven = override_groups(tiny_config, data={"long_tail": 20.0, "batch_size": 64}, train={"epochs": 1})
    source, strategy = open_source(uneven.data), runtime.start(uneven.runtime)
    Trainer(uneven, source, strategy).log_summary()
    counts = source.class_counts
    rare = (
        f"class '9' has {counts[9]} training examples where '0' has {counts[0]}: rare classes are recalled less often"
    )
    assert rare in caplog.text
    for change in (
        {"loss": {"logit_adjustment": 1.0}},
        {"loss": {"class_weights": "inverse"}},
        {"loss": {"name": "focal"}},
        {"data": {"balance": "uniform"}},
        {"data": {"long_tail": 5.0}},
    ):
        caplog.clear()
        met = override_groups(uneven, **change)
        Trainer(met, open_source(met.data), strategy).log_summary()
        assert "are recalled less often" not in caplog.text


@pytest.mark.slow
@pytest.mark.long
def test_two_replicas_average_their_statistics(tiny_config, tmp_path):
    config = override_groups(tiny_config, runtime={"strategy": "mirrored", "logical_devices": 2}, train={"epochs": 1})
    result = train_and_evaluate(config, tmp_path)
    loaded = load_run(tmp_path)
    assert result["examples"] == 100
    assert loaded.metrics["top1"] == result["top1"]
    with pytest.raises(UserError, match=r"data.batch_size=127 does not divide among 2 replicas"):
        train_and_evaluate(override_groups(config, data={"batch_size": 127}), tmp_path / "odd")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(tiny_config, tmp_path, precision):
    config = override_groups(tiny_config, runtime={"precision": precision}, train={"epochs": 1})
    assert np.isfinite(train_and_evaluate(config, tmp_path)["loss"])
    assert load_run(tmp_path).model.dtype_policy.name == "float32"


def test_a_loss_that_is_not_finite_stops_the_run(tiny_config, tmp_path):
    config = override_groups(tiny_config, optimizer={"base_lr": 1e4, "warmup_epochs": 0.0, "weight_decay": 10.0})
    message = r"steps \d+ to \d+ had non-finite losses or gradients; a lower optimizer.base_lr \(now 10000.0\)"
    with pytest.raises(UserError, match=message) as caught:
        train_and_evaluate(override_groups(config, train={"max_nonfinite_steps": 3}), tmp_path / "a run")
    assert f"preview --config='{tmp_path / 'a run' / 'config.json'}' --step=" in str(caught.value)


class _Spoil(keras.callbacks.Callback):
    """Gives a class logits that are not finite, as a learning rate that is too high does sooner or later."""

    def on_train_batch_end(self, batch, logs=None):
        bias = self.model.layers[-1].bias
        bias.assign(np.where(np.arange(bias.shape[0]) == 3, np.nan, bias.numpy()))


def test_an_evaluation_that_is_not_finite_stops_the_run(tiny_config, tmp_path):
    """NaN is neither below nor above the logit of the target, and must not count as a correct prediction."""
    message = (
        r"evaluation after step 7: 100 of 100 examples have logits that are not finite: "
        r"example 0 \([^)]*, index 0\).*; a lower optimizer"
    )
    with pytest.raises(UserError, match=message):
        train_and_evaluate(tiny_config, tmp_path, callbacks=[_Spoil()])


def test_other_data_under_the_same_name_is_refused(tiny_config, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    metadata = json.loads((newest / "metadata.json").read_text())
    metadata["data"]["class_names"][0] = "zero"
    (newest / "metadata.json").write_text(json.dumps(metadata))
    digests = json.loads((newest / "sha256.json").read_text())
    digests["metadata.json"] = hashlib.sha256((newest / "metadata.json").read_bytes()).hexdigest()
    (newest / "sha256.json").write_text(json.dumps(digests))
    with pytest.raises(UserError, match=r"was trained on other data than .*: the classes were zero"):
        train_and_evaluate(tiny_config, tmp_path / "run")


def test_initial_weights_depend_only_on_the_seed(tiny_config, data_dir):
    """Preparing a data set uses global random generators; the weights must not depend on their state."""
    source, strategy = open_source(tiny_config.data), runtime.start(tiny_config.runtime)
    starts = []
    for count in range(2):
        np.random.uniform(size=count)
        random.random()
        starts.append(Trainer(tiny_config, source, strategy).model.get_weights())
    for ours, theirs in zip(*starts, strict=True):
        np.testing.assert_array_equal(ours, theirs)
