"""Training runs: train, evaluate, export, verify and report."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from resnet_tf.config import Config, absolute_paths
from resnet_tf.core import selection
from resnet_tf.core.calibration_check import CalibrationCheck, check_if_calibrated
from resnet_tf.core.devices import default_type, full_float32
from resnet_tf.core.errors import Interrupted, UserError
from resnet_tf.core.logs import shown_log
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import is_within
from resnet_tf.core.signals import StopSignals, interrupted_by
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.data.sources import Source, warn_of_clash
from resnet_tf.inputs import find_origin, input_type
from resnet_tf.report.plots import plot_evaluation
from resnet_tf.serving.export import export_model, find_export
from resnet_tf.serving.verify import Verification, Verifier
from resnet_tf.training import loop
from resnet_tf.training.cluster import Cluster, is_chief, translate_lost_workers
from resnet_tf.training.evaluation import evaluate_run, evaluate_test_split
from resnet_tf.training.run import EXPORTS, REPORT, Run, load_run
from resnet_tf.training.runtime import restored_state
from resnet_tf.training.start import Start, start
from resnet_tf.training.workdir import check_workdir, exclusive_workdir, stored_config
from resnet_tf.workflows.reporting import write_run_report

logger = logging.getLogger(__name__)

# Loss of accuracy, and of correct examples, between training and float32 that is warned of.
_PRECISION_LOSS, _PRECISION_EXAMPLES = 0.02, 5
_STOPPED = "stopped before the first step or after the last one; the same command resumes"


@dataclass(frozen=True, repr=False)
class TrainResult:
    """Outcome of `train`.

    Attributes:
        run: the trained run, with the exported weights.
        evaluation: of these weights, on the validation split.
        test_metrics: of these weights, on the test split, see `train_and_evaluate`; empty without `data.test_split`.
        calibration: probabilities before and after calibration; None with `export.calibrate=false`.
        report: path of the report page.
        export: directory of the exported version.
        verification: comparison of the export, loaded in a new process, with the model.
    """

    run: Run
    evaluation: Evaluation
    test_metrics: dict[str, float]
    calibration: CalibrationCheck | None
    report: Path
    export: Path
    verification: Verification

    def to_dict(self) -> dict[str, Any]:
        """Return run directory, step, metrics, paths and verification as plain values, ready for JSON."""
        return {
            "workdir": str(self.run.workdir),
            "step": self.run.step,
            "metrics": self.evaluation.to_dict() | self.test_metrics,
            **({} if self.calibration is None else {"calibration": self.calibration.to_dict()}),
            "report": str(self.report),
            "export": str(self.export),
            "verification": asdict(self.verification),
        }

    def __repr__(self) -> str:
        return f"TrainResult({self.run!r}, {self.evaluation!r}, export={str(self.export)!r})"


@shown_log()
@restored_state()
@interrupted_by(StopSignals.WATCHED, _STOPPED)
def train(
    config: Config,
    workdir: str | Path | None = None,
    *,
    name: str = "run",
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None = None,
) -> TrainResult | None:
    """Train and evaluate a network, export it, verify the export, and write the report.

    Called again with the same arguments, it continues an interrupted run; for a finished one it evaluates and verifies
    only. The report is written to `workdir/report` and the export to `workdir/export/serving/VERSION`. For random
    generators and the dtype policy, see `train_and_evaluate`.

    Args:
        config: see `load_config`.
        workdir: the run directory, created if necessary; None creates `runs/NAME-TIME`. One training at a time uses it.
        name: name of a new run directory.
        callbacks: see `train_and_evaluate`.

    Returns:
        The run, its metrics and the paths of its files. None on the workers of a cluster other than the chief, which
        write nothing.

    Raises:
        UserError: as `train_and_evaluate`, for an export that answers differently from the model, or for an input type
            that is defined in the program itself, which the process that verifies the export cannot import.
        Interrupted: after a signal.
    """
    chosen = loop.to_callbacks(callbacks)
    started = start_run(config, workdir)
    config = started.config
    find_origin(input_type(config.data))  # refuses, before the training, a type that the verification cannot import
    with _exclusive(workdir, config, name) as directory:
        source = _fit(started, directory, chosen).source
        with _ending_together(started):
            return _finish(directory, source) if is_chief(config.runtime) else None


def _finish(workdir: Path, source: Source) -> TrainResult:
    """Evaluate, export, verify and report a trained run."""
    run = load_run(workdir)
    settings = run.config  # with the settings that follow from the data
    with Verifier(type(run.preprocess)) as verifier:
        with full_float32():  # its logits are compared with those of the export
            evaluation = evaluate_run(run, source, batch_size=settings.data.batch_size)
        _warn_of_precision(run, evaluation, source)
        test_metrics = evaluate_test_split(run, source, batch_size=settings.data.batch_size)
        versions = run.workdir / EXPORTS / "serving"
        export = find_export(run, versions) or export_model(run, versions)
        logits = evaluation.logits[: settings.export.verify_examples]
        verifier.begin(export, logits, batch_size=settings.data.batch_size, data=settings.data, device=default_type())
        # After the export, because an error of plotting must not cost it; meanwhile, it is verified.
        check = check_if_calibrated(evaluation, cross_fitted=True)
        report = write_run_report(
            run.workdir / REPORT,
            run,
            evaluation,
            source,
            test_metrics=test_metrics,
            calibration=check,
            robustness=run.robustness,
            serving=run.serving,
        )
        verification = verifier.result()
    return TrainResult(run, evaluation, test_metrics, check, report, export, verification)


def _warn_of_precision(run: Run, evaluation: Evaluation, source: Source) -> None:
    """Warn if the model is less accurate in float32, in which it is exported, than it was in training."""
    metric = selection.find_metric(selection.AUTO, multi_label=source.targets is MULTI_LABEL)
    metrics = evaluation.to_dict()
    before, now = selection.score(metric, run.metrics), selection.score(metric, metrics)
    if before is None or now is None or is_within(before - now, _PRECISION_LOSS):
        return
    if (before - now) * metrics["examples"] > _PRECISION_EXAMPLES:
        text = "%s was %.4f in training, and is %.4f in float32, in which the model is evaluated and exported"
        logger.warning(f"{text}; runtime.precision=float32 trains as it is exported", metric, before, now)


@shown_log()
@restored_state()
@interrupted_by(StopSignals.WATCHED, _STOPPED)
def train_and_evaluate(
    config: Config,
    workdir: str | Path,
    *,
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None = None,
) -> dict[str, Any]:
    """Train a network as configured; evaluate and save after every epoch.

    With `train.eval_every`, it is evaluated after every few epochs. Started again with the same `workdir` and
    configuration, it continues from the newest checkpoint. SIGTERM and SIGINT end it after one more checkpoint.

    Afterwards, the random generators of Python and NumPy and Keras's dtype policy are as they were before. The seeds of
    TensorFlow and Keras stay `runtime.seed`, and after `runtime.deterministic=true` TensorFlow's operations stay
    deterministic: no public function of these libraries restores them.

    Args:
        config: see `load_config`.
        workdir: the run directory, created if necessary. One training at a time uses it.
        callbacks: further Keras callbacks, one or several, such as `keras.callbacks.EarlyStopping()`. Their logs hold
            `step`, `loss`, `top1`, `gradient_norm`, `learning_rate`, `images_per_second` and `train_seconds` of the
            epoch; `val_loss`, `val_top1`, `val_top5` and further metrics of the validation split; and `val_seconds`,
            the duration of the evaluation. With `train.ema`, `val_*` belong to the averaged weights, which `model` has
            in all calls but those of batches, and `val_raw_*` to the raw weights. Weights that a callback sets are
            evaluated and saved. `model.stop_training` ends the run for good, and `model.optimizer.learning_rate` can be
            assigned. See docs/training.md for the calls.

    Returns:
        `examples`, `top1`, `top5`, `loss` and further metrics of the validation split, and `step`, of the checkpoint
        that `export.checkpoint` chooses. With `data.test_split`, also `test_loss`, `test_top1` and further metrics of
        the test split, evaluated once, on the same checkpoint. The workers of a cluster other than the chief have the
        validation metrics of the last evaluation only.

    Raises:
        UserError: for a configuration, data set or directory that does not fit, a directory that another training uses,
            or non-finite losses.
        Interrupted: after a signal.
    """
    chosen = loop.to_callbacks(callbacks)
    started = start_run(config, workdir)
    config = started.config
    with _exclusive(workdir, config) as directory:
        fitted = _fit(started, directory, chosen)
        metrics = fitted.evaluation.to_dict() | {"step": fitted.step}
        is_newest = config.export.checkpoint == "latest"
        with _ending_together(started):
            if not is_chief(config.runtime) or (is_newest and fitted.source.test is None):
                return metrics
            run = load_run(directory)
            if not is_newest:
                metrics = run.metrics | {"step": run.step}
            return metrics | evaluate_test_split(run, fitted.source, batch_size=run.config.data.batch_size)


def start_run(config: Config, workdir: str | Path | None) -> Start:
    """Start the devices and open the data; settings that follow from them are derived when a run begins.

    Raises:
        UserError: as `start` and `check_workdir`.
    """
    absolute = absolute_paths(config)
    if absolute.data != config.data:
        warn_of_clash(config.data)  # an absolute path is none
    stored = None
    if workdir and is_chief(config.runtime):  # other workers may not have the directory
        check_workdir(user_path(workdir))
        stored = stored_config(user_path(workdir))
    return start(absolute, stored)


@contextlib.contextmanager
def _exclusive(workdir: str | Path | None, config: Config, name: str = "") -> Iterator[Path]:
    """Yield the run directory, which the chief creates and keeps other trainings out of; others write nothing."""
    path = None if workdir is None else user_path(workdir)
    if not is_chief(config.runtime):
        yield path or Path(name)
        return
    with exclusive_workdir(path, config, name=name) as created:
        yield created


@contextlib.contextmanager
def _ending_together(started: Start) -> Iterator[None]:
    """Let no worker end before the chief has finished the run: if it is lost, all of them are started again.

    Raises:
        UserError: on all workers, if the chief cannot finish the run.
        Interrupted: on the other workers, if the chief is lost.
    """
    cluster = Cluster(started.strategy)
    try:
        yield
    except UserError:
        _meet(cluster, failed=True)
        raise
    if _meet(cluster, failed=False):
        raise UserError("the chief could not finish the run; its last line names the cause")


def _meet(cluster: Cluster, *, failed: bool) -> bool:
    """Wait for all workers, and return True if one of them failed; the chief needs no other worker any more."""
    try:
        with translate_lost_workers(cluster, lambda: "after the last step"):
            return cluster.sum([float(failed)])[0] > 0
    except Interrupted as error:
        if not cluster.is_chief:
            raise
        logger.warning("%s", error)
        return failed


def _fit(started: Start, workdir: Path, callbacks: Sequence[keras.callbacks.Callback]) -> loop.Fitted:
    """Train with the plots that TensorBoard shows: `training` has no plots of its own."""
    return loop.fit(started, workdir, callbacks=callbacks, plot_evaluation=plot_evaluation)
