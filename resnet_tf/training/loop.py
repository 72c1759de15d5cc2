"""The training loop, one for all strategies."""

import contextlib
import dataclasses
import logging
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from resnet_tf.config import CONFIG_FILE, Config
from resnet_tf.core import files, selection
from resnet_tf.core.calibration_check import calibrate
from resnet_tf.core.errors import Interrupted, UserError, plain_reason
from resnet_tf.core.metrics import Evaluation, NonFiniteError
from resnet_tf.core.signals import StopRequested, StopSignals
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.core.text import counted
from resnet_tf.data import pipeline, service, unreadable
from resnet_tf.data.sources import Source
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.training import checkpoint, proof, run
from resnet_tf.training.callbacks import MetricsFile, Profile, ProgressLine, TensorBoard
from resnet_tf.training.cluster import Cluster, translate_lost_workers
from resnet_tf.training.evaluation import Evaluator
from resnet_tf.training.optimizers.create import last_learning_rate, learning_rate_factor
from resnet_tf.training.pace import Pace
from resnet_tf.training.progress import RunState
from resnet_tf.training.start import Start, check_workers_agree
from resnet_tf.training.time_budget import Deadline
from resnet_tf.training.trackers import check_trackers, open_trackers
from resnet_tf.training.trainer import Trainer
from resnet_tf.training.workdir import write_config

logger = logging.getLogger(__name__)


# Plots an evaluation, such as its confusion matrix, uint8 [H, W, 4], with its class names.
PlotEvaluation = Callable[[Evaluation, Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """Outcome of `fit`.

    Attributes:
        evaluation: the last evaluation.
        step: training steps behind the weights.
        source: the data set of the run.
    """

    evaluation: Evaluation
    step: int
    source: Source


def fit(
    started: Start,
    workdir: Path,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    plot_evaluation: PlotEvaluation,
) -> Fitted:
    """Train and evaluate a run; see `train_and_evaluate`, which supplies the plots that TensorBoard shows.

    Args:
        started: configuration, data and strategy.
        workdir: the run directory, see `exclusive_workdir`.
        callbacks: additional Keras callbacks.
        plot_evaluation: see `PlotEvaluation`.
    """
    config = started.config
    _check_callbacks(config, callbacks)
    check_trackers(config.runtime.trackers)
    cluster = Cluster(started.strategy)
    with translate_lost_workers(cluster):
        check_workers_agree(config, cluster)
        trainer = Trainer(config, started.source, started.strategy, _find_newest(workdir, cluster))
    with translate_lost_workers(cluster, lambda: f"after step {trainer.state.step}"):
        return _Fit(trainer, workdir, callbacks, plot_evaluation, started.deadline).run()


def _find_newest(workdir: Path, cluster: Cluster) -> Path | None:
    """Return the newest intact checkpoint of a run, after writes that a killed process left are undone; on the chief.

    Raises:
        UserError: if there are checkpoints, but all are corrupt.
    """
    if not cluster.is_chief:
        return None
    for directory in (workdir, workdir / run.CHECKPOINTS):
        files.remove_abandoned(directory)
    return checkpoint.latest(workdir / run.CHECKPOINTS)


class _Fit:
    """One call of `fit`: trains in a run directory, evaluates, reports and saves."""

    def __init__(
        self,
        trainer: Trainer,
        workdir: Path,
        callbacks: Sequence[keras.callbacks.Callback],
        plot_evaluation: PlotEvaluation,
        deadline: Deadline,
    ):
        config, source = trainer.config, trainer.source
        trainer.log_summary()
        self._trainer, self._config = trainer, config
        self._workdir, self._checkpoints = workdir, workdir / run.CHECKPOINTS
        self._cluster = trainer.cluster
        self._saved: RunState | None = None  # progress of the newest checkpoint, if the weights are those of it
        self._resume()
        self._evaluator = Evaluator(
            trainer.model,
            source.validation,
            trainer.preprocess,
            batch_size=config.data.batch_size,
            strategy=trainer.strategy,
            memory_limit_mb=config.data.memory_limit_mb,
        )
        listed = workdir / unreadable.FILE_NAME if self._cluster.is_chief else None
        self._unreadable = UnreadableExamples(source.train, trainer.preprocess, config.data, listed)
        self._signals = StopSignals()
        self._pace = Pace(config.runtime.steps_per_loop)
        self._profile = Profile(config.runtime.profile, workdir / run.TENSORBOARD, is_chief=self._cluster.is_chief)
        self._callbacks, self._plot_evaluation, self._deadline = callbacks, plot_evaluation, deadline
        self._evaluation_seconds = 0.0
        self._evaluation: Evaluation | None = None  # of the newest checkpoint, `_saved`, that this process wrote
        self._batches: Any = None
        self._board: TensorBoard | None = None
        self._metrics_file = MetricsFile(workdir / run.METRICS) if self._cluster.is_chief else None
        self._trackers: Sequence[keras.callbacks.Callback] = ()

    def run(self) -> Fitted:
        """Train to the last epoch."""
        state, model = self._trainer.state, self._trainer.model
        if state.epochs == self._config.train.epochs or state.ended:
            return self._evaluate_finished()
        model.stop_training = False
        evaluation: Evaluation | None = None
        opened = open_trackers(self._config, self._workdir, is_chief=self._cluster.is_chief)
        with contextlib.closing(self._profile), opened as self._trackers, self._signals:
            observers = self._observers()
            try:
                self._call_back(observers.on_train_begin)
                while self._trainer.state.epochs < self._config.train.epochs and not self._is_ended:
                    evaluation = self._epoch(observers)
                changed = self._call_back(observers.on_train_end)
                if evaluation is None or changed:
                    reason = "a callback changed the weights" if changed else "the run ended between two evaluations"
                    evaluation = self._evaluate_late(reason)
                    self._save(evaluation)
                self._check_signals()  # those since the last step, before an export begins
            except StopRequested as request:
                raise Interrupted(self._stop(str(request))) from None
        if self._board:
            self._show_evaluation(self._board, evaluation)
        if self._unreadable.count:
            file = self._workdir / unreadable.FILE_NAME
            logger.warning("skipped %s; see %s", counted(self._unreadable.count, "unreadable example"), file)
        return self._fitted(evaluation)

    def _evaluate_finished(self) -> Fitted:
        """Evaluate a run that has no epoch left, and save the metrics if a signal came in its last evaluation."""
        state = self._trainer.state
        if state.ended:
            other = "train.minutes or a callback" if self._config.train.minutes else "a callback"
            cause = "train.patience" if state.out_of_patience else other
            logger.info("%s ended the run at step %d", cause, state.step)
        evaluation, logs = self._evaluate_to_logs()
        if self._metrics_file and not self._trainer.has_metrics:
            self._metrics_file.add(state.step, logs)
            self._save(evaluation)
        return self._fitted(evaluation)

    @property
    def _is_last_step(self) -> bool:
        return self._trainer.state.epochs + 1 == self._config.train.epochs and not self._steps_left()

    @property
    def _is_ended(self) -> bool:
        return self._trainer.state.ended or bool(self._trainer.model.stop_training)

    def _show_evaluation(self, board: TensorBoard, evaluation: Evaluation) -> None:
        try:
            plot = self._plot_evaluation(evaluation, self._trainer.source.class_names)
        except Exception as error:  # an error of plotting must not cost the export of a trained run
            logger.warning(
                "no plot of the evaluation in TensorBoard: %s: %s", type(error).__name__, plain_reason(error)
            )
        else:
            board.show_evaluation(plot, step=self._trainer.state.step)

    def _fitted(self, evaluation: Evaluation) -> Fitted:
        return Fitted(evaluation, self._trainer.state.step, self._trainer.source)

    def _epoch(self, observers: keras.callbacks.CallbackList) -> Evaluation | None:
        """Train, evaluate, report and save; return the evaluation, if this epoch has one."""
        epoch = self._trainer.state.epochs
        self._call_back(observers.on_epoch_begin, epoch)
        with service.translate_service_errors():
            logs = self._train(observers)
        state = self._trainer.state  # another one after a return to a checkpoint, which may be of another epoch
        epoch, evaluation, train = state.epochs, None, self._config.train
        if state.step == epoch * self._trainer.length.steps_per_epoch:  # ended by `on_epoch_begin` or `train.minutes`
            state.end(of=train.epochs)
            self._note_end()
            if self._saved is None or self._saved.step != state.step or self._evaluation is None:
                return None
            self._save(self._evaluation)  # with the end of the run
            return self._evaluation
        if (epoch + 1) % train.eval_every == 0 or epoch + 1 == train.epochs:
            evaluation, metrics = self._evaluate_to_logs()
            logs |= metrics
        # Before the checkpoint: a run that is killed in between repeats the epoch and overwrites its lines.
        changed = self._call_back(observers.on_epoch_end, epoch, logs)
        if changed:
            evaluation = self._evaluate_late("a callback changed the weights")
        if self._trainer.model.stop_training and not self._is_last_step:
            state.end(of=train.epochs)
        if evaluation is not None:
            self._check_patience(evaluation)
        self._check_deadline()
        if state.ended:
            self._note_end()
        if not self._steps_left():
            state.end_epoch()
        if evaluation is not None:
            self._save(evaluation)
        return evaluation

    def _note_end(self) -> None:
        """State in metrics.jsonl that the run ended early, after the newest step."""
        if self._metrics_file:
            self._metrics_file.add(self._trainer.state.step, {"stopped_early": True})

    def _save(self, evaluation: Evaluation | None) -> None:
        """Write a checkpoint, see `Trainer.save`."""
        self._trainer.save(self._checkpoints, evaluation)
        self._saved = dataclasses.replace(self._trainer.state)
        self._evaluation = evaluation

    def _check_deadline(self) -> None:
        """End the run after this epoch if another one would end after `train.minutes`, which the plan avoids."""
        state, epochs = self._trainer.state, self._config.train.epochs
        if not self._deadline.is_set or state.ended or state.epochs + 1 >= epochs:
            return
        epoch_seconds = self._trainer.length.steps_per_epoch * self._pace.step_seconds
        (late,) = self._cluster.from_chief([float(self._deadline.left(self._evaluation_seconds) < epoch_seconds)])
        if late:
            state.end(of=epochs)
            text = "train.minutes=%g: slower than measured; the run ends after epoch %d of %d"
            logger.warning(text, self._config.train.minutes, state.epochs + 1, epochs)

    def _check_patience(self, evaluation: Evaluation) -> None:
        """Compare an evaluation with those before, and end the run if there was no better one for too long."""
        state, train = self._trainer.state, self._config.train
        state.compare(selection.score(train.metric, evaluation.to_dict()))
        if not train.patience or state.stale < train.patience or state.ended or self._is_last_step:
            return
        state.end(of=train.epochs)
        state.out_of_patience = True
        evaluations = counted(state.stale, "evaluation")
        text = "train.patience=%d: %s without a better %s than %.4f of epoch %d; the run ends after epoch %d of %d"
        metric = selection.find_metric(train.metric, multi_label=self._trainer.source.targets is MULTI_LABEL)
        logger.info(
            text,
            train.patience,
            evaluations,
            metric,
            abs(state.best_score),
            state.best_epoch,
            state.epochs + 1,
            train.epochs,
        )

    def _call_back(self, call: Callable[..., None], *arguments: Any) -> bool:
        """Call the callbacks, and return True if they changed the weights.

        With a moving average, the model has the averaged weights meanwhile, which are those that are evaluated.
        """
        average, model, changed = self._trainer.average, self._trainer.model, False
        if self._callbacks and self._cluster.is_chief:
            with average.swap_weights() if average else contextlib.nullcontext():
                before = model.get_weights()
                call(*arguments)
                changed = not all(map(_are_equal, before, model.get_weights()))
                if changed and average:
                    average.set_from_model()
        else:
            call(*arguments)  # the package's own callbacks use no weights
        (changed_by_chief,) = self._cluster.from_chief([float(changed)])
        if changed_by_chief:
            self._saved = None
            averages = average.values.values() if average else ()
            self._cluster.broadcast_variables([*(each.value for each in model.variables), *averages])
        self._follow_callbacks()
        return bool(changed_by_chief)

    def _evaluate_late(self, reason: str) -> Evaluation:
        """Evaluate after an epoch was reported, and report the metrics, which replace those of other weights."""
        step = self._trainer.state.step
        evaluation, logs = self._evaluate_to_logs()
        logger.info("%s; evaluated at step %d: %s", reason, step, evaluation)
        if self._metrics_file:
            self._metrics_file.add(step, logs)
        epoch = max(step - 1, 0) // self._trainer.length.steps_per_epoch
        for each in (*([self._board] if self._board else []), *self._trackers):
            each.on_epoch_end(epoch, {"step": step, **logs})
        return evaluation

    def _evaluate_to_logs(self) -> tuple[Evaluation, dict[str, Any]]:
        """Evaluate, and return the metrics for the logs of an epoch as well."""
        start = time.monotonic()
        evaluation, raw = self._evaluate()
        self._evaluation_seconds = seconds = time.monotonic() - start
        return evaluation, _prefixed("val_", evaluation) | _prefixed("val_raw_", raw) | {"val_seconds": seconds}

    def _follow_callbacks(self, steps: int = 0, has_signal: bool = False) -> tuple[int, int]:
        """Send the decisions of the chief and its callbacks, end of training and learning rate, to all workers.

        Returns:
            The `steps` of the chief, and the number of workers with a signal.
        """
        if self._cluster.count == 1:  # reading the learning rate would wait for the steps before
            return steps, int(has_signal)
        model, factor = self._trainer.model, learning_rate_factor(self._trainer.optimizer)
        own = [float(model.stop_training), float(factor.value.numpy()), float(steps)]
        ended, value, agreed, signals = self._cluster.sum(
            [*(own if self._cluster.is_chief else [0.0] * len(own)), float(has_signal)]
        )
        model.stop_training = bool(ended)
        factor.assign(value)
        return int(agreed), int(signals)

    def _train(self, observers: keras.callbacks.CallbackList) -> dict[str, Any]:
        """Train to the end of the epoch, and return its metrics."""
        steps_per_epoch = self._trainer.length.steps_per_epoch
        while self._steps_left() > 0:
            count = self._agree_on_steps()
            if not count:
                break
            self._call(count)
            state = self._trainer.state
            if state.nonfinite_streak >= self._config.train.max_nonfinite_steps:
                self._roll_back(observers)
                continue
            # The averaged weights are not swapped in for each call: that would cost as much as a small network's step.
            observers.on_train_batch_end(state.step - state.epochs * steps_per_epoch - 1, self._logs())
            every = self._config.train.checkpoint_steps
            if every and state.step % every == 0 and self._steps_left():
                self._save(None)
        return self._logs()

    def _agree_on_steps(self) -> int:
        """Return the number of steps of the next call, equal on all workers, or 0 if a callback ended the run.

        A signal to one worker stops all.
        """
        state, every = self._trainer.state, self._config.train.checkpoint_steps
        steps = min(self._steps_left(), self._pace.count)
        if every:
            steps = min(steps, every - state.step % every)
        model = self._trainer.model
        if self._cluster.is_chief and self._is_late() and not model.stop_training:
            logger.warning("train.minutes=%g end within epoch %d", self._config.train.minutes, state.epochs + 1)
            model.stop_training = True
        return self._check_signals(0 if model.stop_training else self._profile.shorten(state.step, steps))

    def _check_signals(self, steps: int = 0) -> int:
        """Return the `steps` of the chief.

        Raises:
            StopRequested: on all workers, if one of them received a signal.
        """
        agreed, signals = self._follow_callbacks(steps, bool(self._signals.received))
        if signals:
            raise StopRequested(self._signals.received or "another worker was stopped")
        return agreed

    def _is_late(self) -> bool:
        """Return True if an evaluation, and what follows, would end after `train.minutes`."""
        is_running = self._deadline.is_set and self._batches is not None
        return is_running and self._deadline.left(self._evaluation_seconds) < 0

    def _call(self, count: int) -> None:
        """Take `count` steps in one call of the compiled function."""
        state, start = self._trainer.state, time.monotonic()
        if self._batches is None:
            self._batches = self._trainer.batches(self._unreadable)
        self._profile.begin(state.step)
        statistics, missing = self._trainer.take(self._batches, count)
        self._profile.end(state.step + count)
        seconds = time.monotonic() - start
        self._pace.note(count, seconds)
        # Those of all workers, so that all of them decide alike.
        found = self._cluster.concatenate(missing[missing >= 0].tolist())
        self._unreadable.record(np.array(found, np.int64))
        state.add(statistics, batch_size=self._config.data.batch_size)
        state.seconds += seconds

    def _steps_left(self) -> int:
        """Return the remaining steps of the current epoch."""
        state = self._trainer.state
        return (state.epochs + 1) * self._trainer.length.steps_per_epoch - state.step

    def _logs(self) -> dict[str, Any]:
        state = self._trainer.state
        return state.to_logs() | {
            "learning_rate": last_learning_rate(self._trainer.optimizer),
            "images_per_second": state.images / (state.seconds or np.nan),
            "train_seconds": state.seconds,
        }

    def _evaluate(self) -> tuple[Evaluation, Evaluation | None]:
        """Evaluate the averaged weights, if there are any, and the raw weights."""
        # An evaluation is collective, so a single worker must not end it.
        check = self._signals.check if self._cluster.count == 1 else lambda: None
        try:
            raw = self._evaluator(check)
            if not self._trainer.average:
                return self._fit(raw), None
            with self._trainer.average.swap_weights():
                return self._fit(self._evaluator(check)), raw.with_chosen_thresholds()
        except NonFiniteError as error:
            where = f"evaluation after step {self._trainer.state.step}"
            raise UserError(f"{where}: {error}; {self._remedies()}. Checkpoints are kept") from error

    def _fit(self, evaluation: Evaluation) -> Evaluation:
        """Return an evaluation with the calibration and the thresholds that fit it."""
        export = self._config.export
        if export.calibrate:
            calibration = calibrate(evaluation, target_precision=export.target_precision or None)
            evaluation = dataclasses.replace(evaluation, calibration=calibration)
        return evaluation.with_chosen_thresholds()

    def _resume(self) -> None:
        """Restore the checkpoint to resume from, if there is one, then store the settings that the run continues with.

        In this order, as a run that cannot continue keeps its settings.
        """
        extended = False
        if self._cluster.is_chief:
            _ = self._trainer.source.identity  # read now, as files may vanish before the first checkpoint
        resumed = self._trainer.resume()
        if self._cluster.is_chief:
            extended = "train.epochs" in write_config(self._workdir, self._config)
            run.repair_metrics(self._workdir)
        if resumed:
            state = self._trainer.state
            logger.info("resuming from step %d of %s", state.step, self._workdir)
            self._saved = dataclasses.replace(state)
            (changed,) = self._cluster.from_chief([float(extended)])
            state.extend(self._config.train.epochs, changed=bool(changed))
            if changed and self._cluster.is_chief:
                self._log_extension()
        if self._cluster.is_chief:
            proof.write_environment(self._workdir, self._trainer.state.step)

    def _log_extension(self) -> None:
        """Log the learning rate at which a longer run continues, by a schedule that the run did not have before."""
        state, total, epochs = self._trainer.state, self._trainer.length.total_steps, self._config.train.epochs
        rate, lines = float(self._trainer.optimizer.learning_rate), run.read_metrics(self._workdir)
        before = f", after {lines[-1]['learning_rate']:.4g} in the last step before" if lines else ""
        text = (
            "train.extend: the learning rate continues at %.4g%s: step %d of %d by optimizer.schedule=%s of %d epochs"
        )
        logger.info(text, rate, before, state.step, total, self._config.optimizer.schedule, epochs)

    def _roll_back(self, observers: keras.callbacks.CallbackList) -> None:
        """Restore the newest checkpoint after non-finite steps, once in a run; fail the second time."""
        state = self._trainer.state
        first = state.step - state.nonfinite_streak
        what = f"steps {first} to {state.step - 1} had non-finite losses or gradients"
        if state.rolled_back or not self._trainer.restore_newest(self._checkpoints):
            preview = f"python -m resnet_tf.preview --config={shlex.quote(str(self._workdir / CONFIG_FILE))}"
            raise UserError(
                f"{what}{', again' if state.rolled_back else ''}; {self._remedies()}. "
                f"`{preview} --step={first}` plots the batch of the first. Checkpoints are kept"
            )
        restored = self._trainer.state
        restored.rolled_back = True
        self._saved, self._batches = dataclasses.replace(restored), None
        logger.warning("%s; the run returns to step %d, once", what, restored.step)
        if restored.epochs != state.epochs:
            self._call_back(observers.on_epoch_begin, restored.epochs)

    def _remedies(self) -> str:
        rate = self._config.optimizer.base_lr
        return f"a lower optimizer.base_lr (now {rate}), a longer warmup or optimizer.clip_norm often helps"

    def _stop(self, signal: str) -> str:
        """Save a checkpoint, and return a message that names it; one of the same state keeps its metrics."""
        if self._trainer.state != self._saved:
            self._save(None)
        where = f"stopped at step {self._trainer.state.step}, saved in {str(self._checkpoints)!r}"
        return f"{signal}: {where}; the same command resumes"

    def _open_board(self) -> TensorBoard:
        trainer = self._trainer

        def inputs() -> np.ndarray:
            preprocess, unreadable = trainer.preprocess, self._unreadable
            examples, _ = pipeline.load_batch(self._config, trainer.source, preprocess, step=0, unreadable=unreadable)
            return np.stack([preprocess.plot(example) for example in examples])

        directory, first = self._workdir / run.TENSORBOARD, trainer.state.step == 0
        return TensorBoard(directory, config=self._config.to_json(), inputs=inputs if first else None)

    def _compile_seconds(self) -> float | None:
        """Return the time that compilation took in training and evaluation; None until it is known."""
        training = self._pace.compile_seconds
        return None if training is None else training + (self._evaluator.compile_seconds or 0.0)

    def _observers(self) -> keras.callbacks.CallbackList:
        epochs, steps_per_epoch = self._config.train.epochs, self._trainer.length.steps_per_epoch
        self._trainer.model.optimizer = self._trainer.optimizer  # callbacks read and set its learning rate
        chosen: list[keras.callbacks.Callback] = []
        if self._metrics_file:  # only the chief writes and decides
            self._board = self._open_board() if "tensorboard" in self._config.runtime.trackers else None
            chosen = [
                self._metrics_file,
                *([self._board] if self._board else []),
                *self._trackers,
                ProgressLine(
                    epochs=epochs,
                    steps_per_epoch=steps_per_epoch,
                    first_step=self._trainer.state.step,
                    compile_seconds=self._compile_seconds,
                ),
                *self._callbacks,
            ]
        return keras.callbacks.CallbackList(
            chosen, model=self._trainer.model, epochs=epochs, steps=steps_per_epoch, verbose=0
        )


def to_callbacks(callbacks: Any) -> tuple[keras.callbacks.Callback, ...]:
    """Return callbacks as `Model.fit` takes them, which are one, several or None, as a tuple.

    Raises:
        UserError: for anything else, such as a generator.
    """
    found = () if callbacks is None else tuple(keras.tree.flatten(callbacks))
    for each in found:
        if not isinstance(each, keras.callbacks.Callback):
            name = type(each).__name__
            raise UserError(f"callbacks takes keras.callbacks.Callback, got {name}; give one or a list of them")
    return found


def _check_callbacks(config: Config, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Refuse callbacks of Keras that do not work in this loop."""
    settings = config.optimizer
    constant = settings.schedule == "constant" and settings.warmup_epochs == 0
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, keras.callbacks.LearningRateScheduler) and not constant:
            raise UserError(
                f"{name} sets the learning rate of an epoch, and optimizer.schedule={settings.schedule} with "
                f"optimizer.warmup_epochs={settings.warmup_epochs:g} that of a step; optimizer.schedule=constant and "
                "optimizer.warmup_epochs=0 leave it to the callback"
            )
        for refused, instead in _REFUSED.items():
            if isinstance(callback, refused):
                raise UserError(f"{name} needs `Model.fit`; {instead}")


# Callbacks that work with `Model.fit` only, and what to use instead.
_REFUSED = {
    keras.callbacks.BackupAndRestore: "an interrupted run resumes by itself",
    keras.callbacks.SwapEMAWeights: "train.ema averages the weights, and callbacks see the average",
}


def _are_equal(before: np.ndarray, after: np.ndarray) -> bool:
    return before.shape == after.shape and before.tobytes() == after.tobytes()


def _prefixed(prefix: str, evaluation: Evaluation | None) -> dict[str, Any]:
    metrics = evaluation.to_dict() if evaluation else {}
    return {f"{prefix}{name}": value for name, value in metrics.items() if name != "examples"}
