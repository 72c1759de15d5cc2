"""Experiment trackers: W&B and MLflow offline, with the same run after a resume."""

import contextlib
import json
import os
import sys
import types
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import KilledError, override_groups, train_and_kill, writing_tensorboard

from resnet_tf.config import load_config
from resnet_tf.core.errors import Interrupted, UserError
from resnet_tf.core.files import read_json_lines
from resnet_tf.training import trackers
from resnet_tf.training.run import load_run
from resnet_tf.training.trackers import FILE_NAME, check_trackers, open_trackers
from resnet_tf.workflows.train import train_and_evaluate

# MLflow uses an option of SQLAlchemy, and W&B of pydantic, that newer releases deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Keep both trackers on this machine, and return the directory of a run."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def _mlflow_runs(workdir: Path) -> list:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{workdir.parent / 'mlflow.db'}")
    return mlflow.search_runs(experiment_names=["resnet_tf"], output_format="list")


@pytest.mark.slow
def test_a_resumed_run_continues_in_the_same_run_of_each_tracker(tiny_config, offline):
    pytest.importorskip("wandb", reason="an optional package")
    mlflow = pytest.importorskip("mlflow", reason="an optional package")
    config = override_groups(tiny_config, runtime={"tracker": "tensorboard,wandb,mlflow"})
    train_and_kill(config, offline, epochs=1)
    first = json.loads((offline / FILE_NAME).read_text())
    (run,) = _mlflow_runs(offline)
    assert (run.info.run_id, run.info.status) == (first["mlflow"], "FAILED")
    with writing_tensorboard():
        train_and_evaluate(config, offline)
    assert json.loads((offline / FILE_NAME).read_text()) == first
    (run,) = _mlflow_runs(offline)
    assert (run.info.status, run.data.params["data.batch_size"]) == ("FINISHED", "128")
    lines = list(read_json_lines(offline / "metrics.jsonl"))
    for name in ("val_loss", "top1", "learning_rate"):
        history = mlflow.MlflowClient().get_metric_history(first["mlflow"], name)
        assert [each.value for each in sorted(history, key=lambda each: each.step)] == [each[name] for each in lines]
    files = list((offline / "wandb").glob("offline-run-*/*.wandb"))
    assert {path.stem for path in files} == {f"run-{first['wandb']}"}
    assert len(files) == 2, "one file for each start, which `wandb sync` appends to one run"
    assert (offline / "tensorboard").is_dir()
    assert load_run(offline).config.runtime.tracker == "tensorboard,wandb,mlflow"


def test_runs_of_mlflow_hold_the_configuration_and_the_outcome(tiny_config, offline):
    pytest.importorskip("mlflow", reason="an optional package")
    config = override_groups(tiny_config, runtime={"tracker": "mlflow"})
    with pytest.raises(KilledError), open_trackers(config, offline):
        raise KilledError
    with open_trackers(config, offline) as (callback,):
        callback.on_epoch_end(0, {"val_loss": 0.5})
    (run,) = _mlflow_runs(offline)
    assert (run.info.run_name, run.info.status, run.data.metrics) == ("run", "FINISHED", {"val_loss": 0.5})
    assert run.data.params["model.name"] == "resnet8_w32"


def test_each_run_of_mlflow_selects_the_store_beside_it(offline, monkeypatch):
    """Regression: MLflow sets MLFLOW_TRACKING_URI to the store of the first run, which the next ones took."""
    stores = []

    def set_tracking_uri(uri):
        stores.append(uri)
        os.environ["MLFLOW_TRACKING_URI"] = uri

    package = Mock(set_tracking_uri=set_tracking_uri)
    for name in ("first", "second"):
        trackers._select_experiment(package, offline.parent / name / "run")
        assert "MLFLOW_TRACKING_URI" not in os.environ
    assert stores == [f"sqlite:///{offline.parent / name / 'mlflow.db'}" for name in ("first", "second")]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    trackers._select_experiment(package, offline)
    assert (len(stores), os.environ["MLFLOW_TRACKING_URI"]) == (2, "http://server")


@pytest.mark.slow
def test_runs_of_mlflow_are_beside_their_directories(tiny_config, offline):
    pytest.importorskip("mlflow", reason="an optional package")
    config = override_groups(tiny_config, runtime={"tracker": "mlflow"})
    parents = [offline.parent / name for name in ("first", "second", "first")]
    for parent in parents:
        (parent / "run").mkdir(parents=True, exist_ok=True)
        with open_trackers(config, parent / "run"):
            assert not {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys()
    for parent in parents:
        assert len(_mlflow_runs(parent / "run")) == 1, "the third one resumes the first"


def test_an_active_run_of_wandb_is_not_taken_over(tiny_config, offline, monkeypatch):
    """Regression: `wandb.init` returned it, its id was stored, and it was finished with the training."""
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=types.SimpleNamespace(id="mine")))
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda module: module)
    config = override_groups(tiny_config, runtime={"tracker": "wandb"})
    message = r"and run 'mine' is active: end it by wandb\.finish\(\), or log to it by callbacks="
    with pytest.raises(UserError, match=message):
        train_and_evaluate(config, offline / "run")
    assert not (offline / "run").exists()


def test_no_tracker_is_opened_without_being_named(tiny_config, offline):
    with open_trackers(tiny_config, offline) as callbacks:
        assert callbacks == []
    assert list(offline.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line_with_its_extra(monkeypatch, name):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda module: None)
    check_trackers(["tensorboard"])
    with pytest.raises(UserError) as error:
        check_trackers(["tensorboard", name])
    assert str(error.value) == f"runtime.tracker={name} needs the package {name}: pip install 'resnet_tf[{name}]'"


def test_unknown_trackers_are_refused():
    assert load_config("digits", ["runtime.tracker="]).runtime.trackers == ()
    with pytest.raises(UserError, match=r"runtime.tracker takes tensorboard, wandb, mlflow, separated .*; got 'comet'"):
        load_config("digits", ["runtime.tracker=tensorboard, comet"])


def test_a_tracker_that_fails_is_one_line(monkeypatch, tiny_config, offline):
    class Broken:
        run = None

        @staticmethod
        def init(**settings):
            raise RuntimeError("no API key\nconfigured")

    monkeypatch.setitem(sys.modules, "wandb", Broken)
    monkeypatch.setitem(sys.modules, "wandb.integration.keras", type(sys)("keras"))
    sys.modules["wandb.integration.keras"].WandbMetricsLogger = object
    config = override_groups(tiny_config, runtime={"tracker": "wandb"})
    message = r"runtime.tracker=wandb cannot be used: no API key.*; `wandb login`, or WANDB_MODE=offline"
    with pytest.raises(UserError, match=message), open_trackers(config, offline):
        pass
    (offline / FILE_NAME).write_text("[1]")
    with pytest.raises(UserError, match=r"trackers.json"), open_trackers(config, offline):
        pass


@pytest.mark.parametrize("failure", [None, Interrupted("SIGTERM: stopped at step 7")])
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_gone_at_the_end_is_one_warning(monkeypatch, tiny_config, offline, caplog, name, failure):
    """Regression: its error cost the export, and replaced the reason of a stop and its exit code."""

    def fail(*status, exit_code=0):
        ended.append(status or exit_code)
        raise ConnectionError("HTTPConnectionPool: Max retries exceeded\nfor /api/2.0/mlflow/runs/update")

    ended, run = [], Mock(finish=fail)
    package = Mock(end_run=fail, init=lambda **settings: run, run=None)
    package.start_run().info.run_id = "1"
    for module in (name, f"{name}.keras", f"{name}.integration.keras"):
        monkeypatch.setitem(sys.modules, module, package)
    config = override_groups(tiny_config, runtime={"tracker": name})
    stopped = pytest.raises(Interrupted, match="at step 7") if failure else contextlib.nullcontext()
    with stopped, open_trackers(config, offline):
        if failure:
            raise failure
    assert ended == [{"wandb": int(bool(failure)), "mlflow": ("FAILED" if failure else "FINISHED",)}[name]]
    reason = "HTTPConnectionPool: Max retries exceeded"
    assert caplog.messages == [f"runtime.tracker={name} did not receive the end of the run: {reason}"]
