"""Callbacks of Keras in the loop: the weights they see, set and save are those that are evaluated."""

import contextlib
import errno
import io
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LONG, override_groups, train_and_kill

from resnet_tf.core.errors import UserError
from resnet_tf.core.files import read_json_lines
from resnet_tf.data.sources import open_source
from resnet_tf.training import checkpoint, loop
from resnet_tf.training.callbacks import MetricsFile, Profile, ProgressLine
from resnet_tf.training.evaluation import Evaluator, evaluate_run
from resnet_tf.training.run import load_run
from resnet_tf.workflows.train import train, train_and_evaluate


class SetWeights(keras.callbacks.Callback):
    """Sets the weights of an epoch that it saw before, at the end of another epoch or of the training."""

    def __init__(self, *, of: int = 0, at: int | None = None):
        super().__init__()
        self.of, self.at, self.kept, self.seen = of, at, None, {}

    def on_epoch_end(self, epoch, logs=None):
        self.seen[epoch] = logs["val_loss"]
        if epoch == self.of:
            self.kept = self.model.get_weights()
        if epoch == self.at:
            self.model.set_weights(self.kept)

    def on_train_end(self, logs=None):
        if self.at is None:
            self.model.set_weights(self.kept)


def _check_saved(workdir, config, result, expected_loss):
    """Compare the returned, stored and logged metrics with an evaluation of the saved weights."""
    run = load_run(workdir)
    measured = evaluate_run(run, open_source(config.data), batch_size=50).to_dict()
    assert measured["loss"] == pytest.approx(expected_loss, rel=1e-5)
    (*_, line) = read_json_lines(workdir / "metrics.jsonl")
    for name in ("loss", "top1"):
        assert result[name] == pytest.approx(measured[name], rel=1e-5), name
        assert run.metrics[name] == pytest.approx(measured[name], rel=1e-5), name
        assert line[f"val_{name}"] == pytest.approx(measured[name], rel=1e-5), name


@pytest.mark.parametrize(
    ("average", "at"),
    [
        pytest.param(0.0, 1, id="raw, at an epoch's end", marks=LONG),
        pytest.param(0.9, None, id="averaged, at the end"),
        pytest.param(0.0, None, id="raw, at the end", marks=LONG),
        pytest.param(0.9, 1, id="averaged, at an epoch's end", marks=LONG),
    ],
)
def test_weights_that_a_callback_sets_are_evaluated_saved_and_returned(tiny_config, tmp_path, average, at):
    config = override_groups(tiny_config, train={"ema": average})
    callback = SetWeights(at=at)
    result = train_and_evaluate(config, tmp_path, callbacks=[callback])
    assert callback.seen[0] != callback.seen[1]
    _check_saved(tmp_path, config, result, callback.seen[0])


@pytest.mark.slow
@pytest.mark.long
def test_the_best_weights_of_early_stopping_are_kept(tiny_config, tmp_path):
    config = override_groups(tiny_config, train={"epochs": 4}, optimizer={"base_lr": 2.0})
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=1, restore_best_weights=True)
    result = train_and_evaluate(config, tmp_path, callbacks=[stopping])
    _check_saved(tmp_path, config, result, stopping.best)


@pytest.mark.slow
def test_model_checkpoint_stores_the_average_that_it_chose_by(tiny_config, tmp_path):
    config = override_groups(tiny_config, train={"ema": 0.9})
    saver = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", monitor="val_loss", save_best_only=True, save_weights_only=True
    )
    train_and_evaluate(config, tmp_path / "run", callbacks=[saver])
    run = load_run(tmp_path / "run")
    run.model.load_weights(tmp_path / "best.weights.h5")
    measured = evaluate_run(run, open_source(config.data), batch_size=50)
    assert measured.loss == pytest.approx(saver.best, rel=1e-5)


class _Spy(keras.callbacks.Callback):
    """Stands for TensorBoard and a tracker."""

    def __init__(self):
        super().__init__()
        self.reported = []

    def on_epoch_end(self, epoch, logs=None):
        self.reported.append((epoch, logs["step"], "loss" in logs, logs.get("val_top1")))

    def show_evaluation(self, plot, *, step):
        pass


def test_a_run_that_ends_before_an_epoch_has_one_evaluation_of_the_last(tiny_config, tmp_path, monkeypatch):
    calls, original = [], Evaluator.__call__
    monkeypatch.setattr(Evaluator, "__call__", lambda *arguments: calls.append(1) or original(*arguments))
    stop = keras.callbacks.LambdaCallback()
    stop.on_epoch_begin = lambda epoch, logs=None: setattr(stop.model, "stop_training", epoch == 1)
    result = train_and_evaluate(tiny_config, tmp_path, callbacks=[stop])
    assert (result["step"], len(calls)) == (7, 1)
    run = load_run(tmp_path)
    assert (run.stopped_epoch, run.metrics["top1"]) == (1, result["top1"])


@pytest.mark.parametrize("moment", ["on_epoch_begin", pytest.param("on_epoch_end", marks=LONG)])
def test_the_last_evaluation_of_a_run_that_ends_between_two_is_reported(tiny_config, tmp_path, monkeypatch, moment):
    """Regression: it was in the checkpoint only; a stop at the beginning of an epoch replaced the last line by NaN."""

    class Stop(keras.callbacks.Callback):
        pass

    def stop(self, epoch, logs=None):
        self.model.stop_training = epoch == (2 if moment == "on_epoch_begin" else 1)

    setattr(Stop, moment, stop)
    tracker, board = _Spy(), _Spy()
    monkeypatch.setattr(loop, "open_trackers", lambda *arguments, **options: contextlib.nullcontext([tracker]))
    monkeypatch.setattr(loop._Fit, "_open_board", lambda fit: board)
    config = override_groups(tiny_config, train={"epochs": 5, "eval_every": 4})
    result = train_and_evaluate(config, tmp_path, callbacks=[Stop()])
    first, last = read_json_lines(tmp_path / "metrics.jsonl")
    assert [(each["epoch"], each["step"]) for each in (first, last)] == [(1, 7), (2, 14)]
    assert np.isfinite([first["loss"], last["loss"]]).all()
    assert (last["val_top1"], last["stopped_early"]) == (result["top1"], True)
    assert not {"val_top1", "stopped_early"} & first.keys()
    expected = [(0, 7, True, None), (1, 14, True, None), (1, 14, False, result["top1"])]
    assert tracker.reported == board.reported == expected
    run = load_run(tmp_path)
    assert (run.step, run.stopped_epoch, run.metrics["top1"]) == (14, 2, result["top1"])
    assert train_and_evaluate(config, tmp_path) == result, "it stays ended"


@pytest.mark.slow
def test_a_run_may_end_before_its_first_step(tiny_config, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.stop_training = True

    result = train(tiny_config, tmp_path, callbacks=[Stop()])
    assert result.run.step == 0
    assert not (tmp_path / "metrics.jsonl").exists()
    assert result.report.is_file()


def _logs(step: int, loss: float) -> dict[str, float]:
    rates = {"learning_rate": 0.1, "images_per_second": 1.0, "train_seconds": 1.0}
    return {"step": step, "loss": loss, "top1": 0.5, **rates}


def test_an_epoch_has_one_line_of_metrics(tmp_path):
    """Regression: the line of a part of an epoch stayed beside that of the epoch, in a run that was extended."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for epoch, step in ((0, 7), (1, 14), (2, 18), (2, 21), (3, 28)):
        file.on_epoch_end(epoch, _logs(step, 1.0))
    steps = [(line["epoch"], line["step"]) for line in read_json_lines(tmp_path / "metrics.jsonl")]
    assert steps == [(1, 7), (2, 14), (3, 21), (4, 28)]
    file.add(20, {"val_loss": 3.0})  # of no line
    file.add(21, {"val_loss": 2.0})  # that of step 28 was left by a killed run
    *before, last = read_json_lines(tmp_path / "metrics.jsonl")
    assert [line.get("val_loss") for line in before] == [None, None]
    assert last == {"epoch": 3, **_logs(21, 1.0), "val_loss": 2.0}


@pytest.fixture
def profiler(monkeypatch):
    """Return the list of starts and stops of TensorFlow's profiler, which is replaced."""
    calls = []
    for name in ("start", "stop"):
        monkeypatch.setattr(tf.profiler.experimental, name, lambda *directory, name=name: calls.append(name))
    return calls


def test_the_profiler_starts_once_and_is_stopped(profiler, tmp_path):
    profile = Profile("3:9", tmp_path)
    for step in (0, 3, 4, 2, 3, 4):  # from 4, a return to the checkpoint of step 2
        profile.begin(step)
        profile.end(step + 1)
    assert profiler == ["start"]
    profile.end(9)
    profile.close()
    assert profiler == ["start", "stop"]
    profile.begin(3)
    profile.close()
    assert profiler == ["start", "stop"] * 2


def test_only_the_chief_writes_a_profile(profiler, tmp_path):
    profile = Profile("3:9", tmp_path, is_chief=False)
    profile.begin(3)
    profile.close()
    assert profiler == []
    for steps in ("5", "9:3", "\u00b2:9"):
        with pytest.raises(UserError, match="is not a range of steps"):
            Profile(steps, tmp_path, is_chief=False)


def test_the_profiler_is_stopped_when_the_run_fails(profiler, tiny_config, tmp_path):
    """Regression: it was not where the run ended within the range, and the next one in the process failed."""
    train_and_kill(override_groups(tiny_config, runtime={"profile": "2:99"}), tmp_path, epochs=1)
    assert profiler == ["start", "stop"]


def test_a_run_that_a_callback_ended_stays_ended(tiny_config, tmp_path, caplog):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    ended = train_and_evaluate(tiny_config, tmp_path, callbacks=[Stop()])
    with caplog.at_level("INFO", logger="resnet_tf"):
        again = train_and_evaluate(tiny_config, tmp_path)
    assert again == ended
    assert any("a callback ended the run at step" in each for each in caplog.messages)
    assert len(read_json_lines(tmp_path / "metrics.jsonl")) == 1


@pytest.mark.slow
def test_the_last_epoch_does_not_end_early(tiny_config, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    config = override_groups(tiny_config, train={"epochs": 1, "patience": 1})
    train_and_evaluate(config, tmp_path, callbacks=[Stop()])
    (line,) = read_json_lines(tmp_path / "metrics.jsonl")
    assert "stopped_early" not in line


@pytest.mark.slow
@pytest.mark.long
def test_a_callback_ends_a_run_within_an_epoch(tiny_config, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 3

    config = override_groups(tiny_config, runtime={"steps_per_loop": 1})
    ended = train_and_evaluate(config, tmp_path, callbacks=[Stop()])
    assert ended["step"] == 4
    assert checkpoint.steps(tmp_path / "checkpoints") == [4]
    assert train_and_evaluate(config, tmp_path)["step"] == 4


def test_the_logged_learning_rate_is_that_of_the_last_step(tiny_config, tmp_path):
    rates = {"schedule": "step", "decay_epochs": (1.0,), "decay_factor": 0.1, "base_lr": 0.02}
    train_and_evaluate(override_groups(tiny_config, optimizer=rates), tmp_path)
    peak = 0.02 * tiny_config.data.batch_size / 256
    logged = [line["learning_rate"] for line in read_json_lines(tmp_path / "metrics.jsonl")]
    assert logged == pytest.approx([peak, 0.1 * peak], rel=1e-5)


def test_callbacks_are_none_one_or_several():
    """Regression: None and a single callback raised a TypeError after the data were opened."""
    first, second = keras.callbacks.Callback(), keras.callbacks.Callback()
    assert loop.to_callbacks(None) == loop.to_callbacks([]) == ()
    assert loop.to_callbacks(first) == (first,)
    assert loop.to_callbacks([first, (second,)]) == (first, second)


@pytest.mark.parametrize("function", [train, train_and_evaluate])
@pytest.mark.parametrize("callbacks", [(each for each in ()), keras.callbacks.EarlyStopping, "early_stopping"])
def test_what_is_no_callback_is_refused_before_the_data_are_opened(
    tiny_config, tmp_path, monkeypatch, function, callbacks
):
    """Regression: a generator was consumed by the check, and its callbacks were never called."""
    monkeypatch.setattr("resnet_tf.workflows.train.start_run", None)
    name = type(callbacks).__name__
    with pytest.raises(UserError, match=f"callbacks takes keras.callbacks.Callback, got {name}; give one or"):
        function(tiny_config, tmp_path / "run", callbacks=callbacks)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1), "optimizer.schedule=constant and"),
        (lambda: keras.callbacks.BackupAndRestore("backup"), "an interrupted run resumes by itself"),
        (lambda: keras.callbacks.SwapEMAWeights(), "train.ema averages the weights"),
        (lambda: print, "callbacks takes keras.callbacks.Callback, got builtin_function_or_method"),
    ],
)
def test_callbacks_that_do_not_work_are_refused_by_name(tiny_config, tmp_path, callback, message):
    with pytest.raises(UserError, match=message):
        train_and_evaluate(tiny_config, tmp_path / "run", callbacks=[callback()])
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_learning_rate_scheduler_has_a_constant_schedule_to_itself(tiny_config, tmp_path):
    config = override_groups(tiny_config, optimizer={"schedule": "constant", "warmup_epochs": 0.0})
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 / (epoch + 1))
    train_and_evaluate(config, tmp_path, callbacks=[scheduler])
    logged = [line["learning_rate"] for line in read_json_lines(tmp_path / "metrics.jsonl")]
    assert logged == pytest.approx([0.01, 0.005], rel=1e-5)


@pytest.mark.slow
def test_settings_that_touch_no_number_may_change(tiny_config, tmp_path):
    train_and_kill(tiny_config, tmp_path / "run", epochs=1)
    changed = override_groups(
        tiny_config,
        train={"keep_checkpoints": 5, "eval_every": 2},
        export={"checkpoint": "best", "top_k": 3},
        runtime={"profile": "1:2", "steps_per_loop": 3, "xla": "false"},
    )
    train_and_evaluate(changed, tmp_path / "run")
    assert load_run(tmp_path / "run").config.export.top_k == 3
    train_and_evaluate(tiny_config, tmp_path / "alone")
    for ours, theirs in zip(
        load_run(tmp_path / "run").model.get_weights(), load_run(tmp_path / "alone").model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match=r"another configuration \(optimizer.base_lr=0.02 there and 0.5 now\)"):
        train_and_evaluate(override_groups(tiny_config, optimizer={"base_lr": 0.5}), tmp_path / "run")


@pytest.mark.slow
def test_a_finished_run_is_extended_by_a_key(tiny_config, tmp_path, caplog):
    first = train_and_evaluate(tiny_config, tmp_path)
    longer = override_groups(tiny_config, train={"epochs": 3})
    with pytest.raises(UserError, match=r"train.epochs=2 there and 3 now\); .*; train.extend=true continues with more"):
        train_and_evaluate(longer, tmp_path)
    extended = override_groups(longer, train={"extend": True})
    with caplog.at_level("INFO", logger="resnet_tf"):
        result = train_and_evaluate(extended, tmp_path)
    assert result["step"] == 1.5 * first["step"]
    (text,) = (each for each in caplog.messages if each.startswith("train.extend: "))
    before, rate = (line["learning_rate"] for line in read_json_lines(tmp_path / "metrics.jsonl")[1:])
    assert f"continues at 0.0025, after {before:.4g} in the last step before: step 14 of 21 by" in text
    assert before < 0.001 < 0.0025 > rate
    assert [line["epoch"] for line in read_json_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert train_and_evaluate(extended, tmp_path)["step"] == result["step"]
    with pytest.raises(UserError, match=r"train.epochs=3 there and 2 now"):
        train_and_evaluate(tiny_config, tmp_path)


class FullDisk(io.StringIO):
    """The log of a run on a full disk; a terminal by its name only."""

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_line_of_an_epoch_that_cannot_be_written_ends_no_run():
    """Regression: the run ended before the checkpoint of the epoch."""
    line = ProgressLine(epochs=2, steps_per_epoch=7, first_step=0, stream=FullDisk())
    logs = {"loss": 1.0, "top1": 0.5, "learning_rate": 0.1, "images_per_second": 100.0}
    line.on_epoch_begin(0)
    line.on_train_batch_end(3, logs)
    line.on_epoch_end(0, logs)
