"""Early stopping and the selection of the best checkpoint by `train.metric`."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import override_groups, train_and_kill, untimed_metrics

from resnet_tf.config import load_config
from resnet_tf.core import selection
from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.core.targets import targets_of
from resnet_tf.data.sources import open_source
from resnet_tf.serving.card import model_card
from resnet_tf.serving.export import _exportable
from resnet_tf.training import checkpoint, trainer
from resnet_tf.training.evaluation import evaluate_run
from resnet_tf.training.progress import RunState
from resnet_tf.training.run import load_run
from resnet_tf.workflows.reporting import write_run_report
from resnet_tf.workflows.train import train_and_evaluate

METRICS = {
    2: {"top1": 0.5, "balanced_accuracy": 0.9, "loss": 0.7},
    4: {"top1": 0.8, "balanced_accuracy": 0.6, "loss": 0.9},
    6: {"top1": 0.7, "balanced_accuracy": 0.7, "loss": 0.6},
    8: {"top1": 0.6, "balanced_accuracy": 0.5, "loss": None},
}


@pytest.mark.parametrize(("metric", "step"), [("auto", 4), ("accuracy", 4), ("balanced_accuracy", 2), ("loss", 6)])
def test_the_metric_selects_the_best_checkpoint(monkeypatch, metric, step):
    monkeypatch.setattr(checkpoint, "steps", lambda directory: list(METRICS))
    monkeypatch.setattr(checkpoint, "read_metadata", lambda path: {"metrics": METRICS[int(path.name)]})
    monkeypatch.setattr(checkpoint, "find_corruption", lambda path: "")
    assert int(checkpoint.best(Path(), metric).name) == step
    assert checkpoint._superfluous(Path(), 1, metric) == [each for each in (2, 4, 6) if each != step]


def test_metrics_of_multi_label_data_need_one_row():
    values = {"mean_average_precision": 0.4, "loss": 0.1}
    assert selection.score("auto", values) == 0.4
    assert selection.score("auto", {"top1": 0.3}) == 0.3
    assert selection.score("mean_average_precision", {"mean_average_precision": np.nan}) is None
    evaluation = SingleLabelEvaluation(np.array([0, 1]), np.eye(2)).to_dict()
    for name, metric in selection.SELECTION_METRICS.items():
        assert (metric.key in evaluation) == (metric.multi_label is not True), name


@pytest.mark.parametrize(
    ("metric", "labels", "names"),
    [
        ("mean_average_precision", np.zeros(3, int), "single-label data; .* accuracy, balanced_accuracy, loss"),
        (
            "balanced_accuracy",
            np.zeros((3, 2), bool),
            "multi-label data; .* mean_average_precision, f1_micro, f1_macro, loss",
        ),
    ],
)
def test_a_metric_that_the_data_lack_is_refused_before_the_first_step(tiny_config, metric, labels, names):
    source = SimpleNamespace(name="photos", targets=targets_of(labels))
    config = override_groups(tiny_config, train={"metric": metric})
    with pytest.raises(UserError, match=f"train.metric={metric} does not apply to 'photos', which has {names}"):
        trainer._check_metric(config, source)


def test_unknown_metrics_are_refused_by_name():
    with pytest.raises(UserError, match=r"train.metric takes one of auto, mean_average_precision, accuracy, .*'top1'"):
        load_config("digits", ["train.metric=top1"])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1, 0.2, 0.3], (3, 0.3, 0)),
        ([0.3, 0.3, 0.2], (1, 0.3, 2)),
        ([None, 0.2, None], (2, 0.2, 1)),
        ([-0.9, -0.5, -0.7], (2, -0.5, 1)),
    ],
)
def test_evaluations_are_compared_with_the_best_before(scores, expected):
    state = RunState()
    for each in scores:
        state.compare(each)
        state.end_epoch()
        state = RunState.from_dict(json.loads(json.dumps(state.to_dict())))  # as when the run is resumed
    assert (state.best_epoch, state.best_score, state.stale) == expected


@pytest.fixture(scope="module")
def stagnating(tiny_config):
    """Return a run whose accuracy does not change after its first epoch."""
    return override_groups(
        tiny_config,
        train={"epochs": 5, "patience": 2, "keep_checkpoints": 1},
        optimizer={"base_lr": 1e-9},
        export={"checkpoint": "best"},
    )


@pytest.fixture(scope="module")
def stopped(stagnating, tmp_path_factory):
    """Return the directory of the run, which ended after three epochs."""
    workdir = tmp_path_factory.mktemp("stopped")
    train_and_evaluate(stagnating, workdir)
    return workdir


@pytest.mark.slow
def test_a_run_without_improvement_ends_and_states_it(stagnating, stopped, tmp_path):
    lines = untimed_metrics(stopped)
    assert [(each["epoch"], each.get("stopped_early", False)) for each in lines] == [(1, False), (2, False), (3, True)]
    run = load_run(stopped)
    assert (run.step, run.stopped_epoch, run.to_dict()["stopped_epoch"]) == (7, 3, 3)
    assert load_run(stopped, checkpoint="latest").stopped_epoch == 3
    source = open_source(stagnating.data)
    page = write_run_report(tmp_path, run, evaluate_run(run, source, batch_size=50), source)
    assert "<b>3 of 5</b>stopped early (epoch)" in page.read_text()


@pytest.mark.slow
def test_the_counter_survives_a_kill(stagnating, stopped, tmp_path, caplog):
    assert train_and_kill(stagnating, tmp_path, epochs=2) == 14
    with caplog.at_level("INFO", "resnet_tf"):
        train_and_evaluate(stagnating, tmp_path)
    assert "train.patience=2: 2 evaluations without a better accuracy than" in caplog.text
    assert untimed_metrics(tmp_path) == untimed_metrics(stopped)
    for ours, theirs in zip(*(load_run(each).model.get_weights() for each in (tmp_path, stopped)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert checkpoint.steps(tmp_path / "checkpoints") == [7, 21]
    caplog.clear()
    with caplog.at_level("INFO", "resnet_tf"):
        train_and_evaluate(stagnating, tmp_path)
    assert "train.patience ended the run at step 21" in caplog.text


def test_exports_of_a_stopped_run_state_it(stopped):
    exported = _exportable(load_run(stopped), None, None, None, needs_head=True)
    assert exported.metadata["stopped_epoch"] == 3
    rest = {"model": "x", "target": "serving", "precision": "float32", "parameters": 1, "labels": ["a", "b"]}
    rest |= {"preprocess": exported.preprocess.to_dict(), "versions": {"resnet_tf": "1"}}
    assert "in a run of 5 epochs, which ended early after epoch 3." in model_card(
        rest | exported.metadata, signature="images"
    )


def test_a_stopped_run_is_extended_also_after_a_kill():
    state = RunState(ended=True, ended_of=5, out_of_patience=True, stale=2)
    state.extend(5, changed=False)
    assert state.ended
    state.extend(9, changed=False)  # the kill came after config.json was written
    assert (state.ended, state.out_of_patience, state.stale) == (False, False, 0)
    earlier = RunState(ended=True)  # of a version that does not store `ended_of`
    earlier.extend(9, changed=False)
    assert earlier.ended
    earlier.extend(9, changed=True)
    assert not earlier.ended
