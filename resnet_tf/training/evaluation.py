"""Evaluation that counts every example exactly once, for any batch size and number of replicas."""

import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.core import files
from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.calibration_check import check_if_calibrated
from resnet_tf.core.devices import translate_memory_errors
from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.targets import targets_of
from resnet_tf.core.text import counted
from resnet_tf.core.validation import find_mismatch
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source, Split, check_form, match_classes
from resnet_tf.data.unreadable import naming_nonfinite, translate_read_errors
from resnet_tf.inputs import Preprocess
from resnet_tf.training.run import TEST_METRICS, Run

_TEST_METRICS = ("test_examples", "test_top1", "test_top5", "test_loss")


class Evaluator:
    """Evaluation of a model on a split; repeated calls reuse the compiled function.

    Attributes:
        compile_seconds: duration of the first batch of the first call, with the start of the input, beyond that of
            another batch; None before.

    Args:
        model: network from preprocessed examples to logits.
        split: split to evaluate on.
        preprocess: preprocessing of the model.
        batch_size: global batch size.
        strategy: distribution strategy that the model was created under. Each worker evaluates its shard of the split,
            and gathers the logits of all workers.
        flip: average the logits of each image and its horizontal flip.
        thresholds: see `Targets.evaluate`.
        calibration: see `Targets.evaluate`.
        memory_limit_mb: largest size in MB of a preprocessed split that is cached in memory between calls.
    """

    def __init__(
        self,
        model: keras.Model,
        split: Split,
        preprocess: Preprocess,
        *,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        flip: bool = False,
        thresholds: Sequence[float] | None = None,
        calibration: Calibration = UNCALIBRATED,
        memory_limit_mb: int = 0,
    ):
        self._thresholds, self._calibration = thresholds, calibration
        self._strategy, self._split, self._preprocess = strategy, split, preprocess
        replicas = strategy.num_replicas_in_sync
        size = -(-min(batch_size, split.num_examples) // replicas) * replicas  # rounded up

        def create(shard: pipeline.Shard) -> tf.data.Dataset:
            return pipeline.eval_batches(
                split, preprocess, size // shard.count, shard=shard, memory_limit_mb=memory_limit_mb
            )

        self._batches = pipeline.distribute(create, strategy)

        def forward(images: tf.Tensor) -> tf.Tensor:
            logits = model(images, training=False)
            return (logits + model(images[:, :, ::-1], training=False)) / 2 if flip else logits

        @tf.function(reduce_retracing=True, autograph=False)
        def predict(images: tf.Tensor, labels: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
            logits = strategy.run(forward, args=(images,))
            return tuple(strategy.gather(value, axis=0) for value in (logits, indices))

        self._predict = predict
        self.compile_seconds: float | None = None
        self._memory = (
            f"an evaluation of {counted(batch_size, preprocess.noun)} at a time",
            lambda: "a smaller batch size takes less",
        )

    def __call__(self, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluate the current weights.

        Args:
            check: called before every batch; an exception that it raises ends the evaluation.
        """
        with translate_read_errors(self._split, self._preprocess), translate_memory_errors(*self._memory):
            batches = self._predict_all(check)
        logits, indices = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        # Order of the split. Padding of the last batches has negative indices, so it sorts first and is dropped.
        order = np.argsort(indices)[np.sum(indices < 0) :]
        with naming_nonfinite(self._split):
            labels = self._split.labels
            return targets_of(labels).evaluate(
                labels, logits[order], thresholds=self._thresholds, calibration=self._calibration
            )

    def _predict_all(self, check: Callable[[], None]) -> list[tuple[np.ndarray, ...]]:
        """Return the results of all batches; further calls show their progress on a terminal only."""
        total, batches = self._split.num_examples, []
        task, is_first = f"evaluating split {self._split.name!r}", self.compile_seconds is None
        with Progress(task, noun="example", total=total, transient=not is_first) as progress:
            for batch in self._predict_batches(check):
                batches.append(batch)
                progress.done = min(progress.done + len(batch[0]), total)
        return batches

    def _predict_batches(self, check: Callable[[], None]) -> Iterator[tuple[np.ndarray, ...]]:
        times = [time.monotonic()]
        for batch in self._batches:
            check()
            yield tuple(value.numpy() for value in self._predict(*batch))
            times.append(time.monotonic())
        if self.compile_seconds is None:
            first, *others = np.diff(times).tolist()
            self.compile_seconds = max(first - min(others, default=0.0), 0.0)


def evaluate_run(run: Run, source: Source, *, batch_size: int, flip: bool = False) -> Evaluation:
    """Evaluate a run on the validation split of a data source.

    The data may differ from those of its training.

    Args:
        run: see `load_run`.
        source: see `open_source`; it may lack classes of the run.
        batch_size: global batch size.
        flip: see `Evaluator`.

    Raises:
        UserError: if `source` has other classes than the run, the data cannot be read, or `flip` is set for signals.
    """
    matched = match_classes(run.labels, source, run.data_classes)
    return _evaluate(run, matched.validation, batch_size=batch_size, flip=flip)


def evaluate_test_split(run: Run, source: Source, *, batch_size: int) -> dict[str, float]:
    """Evaluate a run on the test split, once for its weights.

    Metrics of the calibrated probabilities, which the validation split fitted, have names such as
    `test_calibration_error_after`. The metrics are stored in `test_metrics.json` of the run directory, with
    `Run.identity`. If the file already has the metrics of these weights, they are returned without an evaluation.

    Returns:
        `test_loss`, `test_top1` and further metrics; empty if the source has no test split.

    Raises:
        UserError: if the data or the file cannot be read.
    """
    test = match_classes(run.labels, source, run.data_classes).test
    if test is None:
        return {}
    if stored := read_test_metrics(run):
        return stored
    evaluation = _evaluate(run, test, batch_size=batch_size)
    check = check_if_calibrated(evaluation, cross_fitted=False)
    known = (check.to_dict() if check else {}) | evaluation.to_dict()
    metrics = {f"test_{name}": value for name, value in known.items() if value is not None}
    text = files.to_json({**run.identity, **metrics}, indent=2) + "\n"
    with files.translate_write_errors(run.workdir / TEST_METRICS):
        files.write_atomically(run.workdir / TEST_METRICS, text)
    return metrics


def read_test_metrics(run: Run) -> dict[str, float]:
    """Return the stored test metrics of a run; empty if none are stored for its weights.

    Raises:
        UserError: if `test_metrics.json` of the run directory cannot be read.
    """
    path = run.workdir / TEST_METRICS
    if not path.is_file():
        return {}
    stored = files.read_json(path)
    digest = stored.pop("weights_sha256", None) if isinstance(stored, dict) else None
    if find_mismatch(stored, dict[str, float], "") or not {"step", *_TEST_METRICS} <= set(stored):
        raise UserError(
            f"{str(path)!r} must be a JSON object with the numbers step, {', '.join(_TEST_METRICS)}; "
            "delete it to evaluate the test split again"
        )
    identity = {"step": stored.pop("step"), "weights_sha256": digest}
    return stored if identity == run.identity else {}


def _evaluate(run: Run, split: Split, *, batch_size: int, flip: bool = False) -> Evaluation:
    if flip and "flip" not in run.preprocess.supported_augmentations:
        raise UserError(f"flip averages over mirror images, which {run.preprocess.plural} do not have")
    check_form(split, run.thresholds)
    strategy = tf.distribute.get_strategy()
    evaluator = Evaluator(
        run.model,
        split,
        run.preprocess,
        batch_size=batch_size,
        strategy=strategy,
        flip=flip,
        thresholds=run.thresholds,
        calibration=run.calibration,
    )
    return evaluator()
