"""Experiment trackers beside TensorBoard: Weights & Biases and MLflow, by their own Keras callbacks.

A run that continues goes on in the same run of a tracker, whose id lies in `trackers.json` of the run directory.
"""

import contextlib
import importlib.util
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from resnet_tf.config import Config
from resnet_tf.core import files
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.validation import find_mismatch

logger = logging.getLogger(__name__)

FILE_NAME = "trackers.json"
_PROJECT = "resnet_tf"  # unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME is set
_MAX_PARAMETER = 500  # characters of a parameter of MLflow


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed, and that no run of Weights & Biases is active.

    Raises:
        UserError: naming the extra of the first that is not installed, or the active run.
    """
    for name in names:
        if name in _OPEN and importlib.util.find_spec(name) is None:
            raise UserError(f"runtime.tracker={name} needs the package {name}: pip install 'resnet_tf[{name}]'")
    active = getattr(sys.modules.get("wandb"), "run", None)
    if "wandb" in names and active is not None:  # `init` would return it, and its id would be stored
        raise UserError(
            f"runtime.tracker=wandb begins a run of its own, and run {active.id!r} is active: end it by "
            "wandb.finish(), or log to it by callbacks=[WandbMetricsLogger()] without the tracker"
        )


@contextlib.contextmanager
def open_trackers(config: Config, workdir: Path, *, is_chief: bool = True) -> Iterator[list[keras.callbacks.Callback]]:
    """Yield the callbacks of the trackers in `runtime.tracker` other than TensorBoard, and close them at the end.

    Only the chief has trackers.

    Raises:
        UserError: if a tracker cannot be reached, or `trackers.json` is corrupt.
    """
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(_OPEN[name](config, workdir, _run_id(workdir, name)))
            for name in config.runtime.trackers
            if name in _OPEN and is_chief
        ]


@contextlib.contextmanager
def _open_wandb(config: Config, workdir: Path, run_id: str) -> Iterator[keras.callbacks.Callback]:
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    identifier = run_id or uuid.uuid4().hex[:8]
    with _naming("wandb", "`wandb login`, or WANDB_MODE=offline"):
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            dir=str(workdir),
            id=identifier,
            name=workdir.name,
            resume="allow",
            config=config.to_dict(),
        )
    _store_id(workdir, "wandb", identifier)
    with _reporting("wandb", lambda failed: run.finish(exit_code=int(failed))):
        yield WandbMetricsLogger()


@contextlib.contextmanager
def _open_mlflow(config: Config, workdir: Path, run_id: str) -> Iterator[keras.callbacks.Callback]:
    import mlflow
    from mlflow.keras import MlflowCallback

    with _naming("mlflow", "MLFLOW_TRACKING_URI names the server or file"):
        _select_experiment(mlflow, workdir)
        run = mlflow.start_run(run_id=run_id or None, run_name=None if run_id else workdir.name)
        if not run_id:
            mlflow.log_params({key: str(value)[:_MAX_PARAMETER] for key, value in config.values.items()})
    _store_id(workdir, "mlflow", run.info.run_id)
    with _reporting("mlflow", lambda failed: mlflow.end_run("FAILED" if failed else "FINISHED")):
        yield MlflowCallback()


_OPEN: dict[str, Callable[[Config, Path, str], contextlib.AbstractContextManager[keras.callbacks.Callback]]] = {
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
}


def _select_experiment(mlflow: Any, workdir: Path) -> None:
    """Select the experiment; without MLFLOW_TRACKING_URI, runs are stored in `mlflow.db` beside the run directory."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
    with _unchanged_variables("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        if "MLFLOW_TRACKING_URI" not in os.environ:
            parent = workdir.absolute().parent
            mlflow.set_tracking_uri(f"sqlite:///{parent / 'mlflow.db'}")
            if mlflow.get_experiment_by_name(name) is None:
                mlflow.create_experiment(name, artifact_location=(parent / "mlartifacts").as_uri())
        mlflow.set_experiment(name)


@contextlib.contextmanager
def _unchanged_variables(*names: str) -> Iterator[None]:
    """Restore environment variables: MLflow sets them to what it uses, which another run would take for the user's."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _naming(tracker: str, advice: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any type of the package, such as one for a server that does not answer
        raise UserError(f"runtime.tracker={tracker} cannot be used: {plain_reason(error)}; {advice}") from error


@contextlib.contextmanager
def _reporting(tracker: str, finish: Callable[[bool], Any]) -> Iterator[None]:
    """Call `finish` at the end of the block: with True after an exception, such as a stop signal.

    An error of `finish` is logged: a server that is gone must not cost the export, or the reason of a stop.
    """
    failed = True
    try:
        yield
        failed = False
    finally:
        try:
            finish(failed)
        except Exception as error:  # of any type of the package
            logger.warning("runtime.tracker=%s did not receive the end of the run: %s", tracker, plain_reason(error))


def _run_id(workdir: Path, tracker: str) -> str:
    """Return the id of a run of a tracker; empty if there is none yet."""
    return _read(workdir).get(tracker, "")


def _store_id(workdir: Path, tracker: str, run_id: str) -> None:
    stored = _read(workdir)
    if stored.get(tracker) != run_id:
        with files.translate_write_errors(workdir / FILE_NAME):
            files.write_atomically(workdir / FILE_NAME, files.to_json(stored | {tracker: run_id}, indent=2) + "\n")


def _read(workdir: Path) -> dict[str, str]:
    path = workdir / FILE_NAME
    stored: Any = files.read_json(path) if path.is_file() else {}
    if find_mismatch(stored, dict[str, str], ""):
        raise UserError(f"{str(path)!r} must be a JSON object of texts; delete it to begin new runs of the trackers")
    return stored
