"""Trainer: model, optimizer and data under a strategy, with steps, checkpoints and resume."""

import contextlib
import functools
import json
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.core import selection
from resnet_tf.core.calibration import UNCALIBRATED
from resnet_tf.core.devices import translate_memory_errors
from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.core.text import counted
from resnet_tf.data import pipeline
from resnet_tf.data.augmentation import mixing
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.data.sources import Source
from resnet_tf.data.sources.base import find_difference
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.inputs import Preprocess, create_preprocess, input_type
from resnet_tf.model.builder import LOGITS_LAYER
from resnet_tf.model.whitening import has_whitening_stem, whiten_stem
from resnet_tf.training import checkpoint, proof, run, runtime
from resnet_tf.training.cluster import Cluster
from resnet_tf.training.conflicts import describe_conflicts, describe_splits
from resnet_tf.training.image_size import describe_enlargement
from resnet_tf.training.memory import StepMemory, estimate_memory
from resnet_tf.training.objective import create_objective
from resnet_tf.training.optimizers import create
from resnet_tf.training.progress import RunState
from resnet_tf.training.step import TrainStep
from resnet_tf.training.teacher import Teacher
from resnet_tf.training.weight_average import WeightAverage

logger = logging.getLogger(__name__)

_WHITENED_EXAMPLES = 1_000  # determine the kernels of a whitening stem


class Trainer:
    """Model, optimizer and data of a run, with methods to take steps, save and resume.

    Args:
        config: see `load_config`.
        source: data set.
        strategy: distribution strategy.
        resume_from: on the chief, the checkpoint for `resume`, which replaces the initial weights: their file is not
            read, and may have moved since the run began.

    Attributes:
        config: see `load_config`.
        source: data set.
        strategy: distribution strategy.
        cluster: this worker and the others.
        length: steps per epoch and total steps.
        state: progress of the run.
        model: network.
        optimizer: optimizer, built for the model.
        average: moving average of the weights, or None.
        preprocess: preprocessing of the model.
        step: compiled training step.
        has_metrics: whether the restored checkpoint has metrics of an evaluation; only the chief knows.
    """

    def __init__(
        self, config: Config, source: Source, strategy: tf.distribute.Strategy, resume_from: Path | None = None
    ):
        input_type(config.data).check_config(config)
        _check_replicas(config, strategy)
        _check_metric(config, source)
        if config.export.target_precision and source.targets is MULTI_LABEL:
            raise UserError(
                f"export.target_precision does not apply to {source.name!r}, which has multi-label data: each class is "
                "selected by a threshold of its own"
            )
        self.config = config
        self.source = source
        self.strategy = strategy
        self.cluster = Cluster(strategy)
        self.length = TrainingLength.of(config, source)
        self.state = RunState()
        self.has_metrics = False
        self._resume_from = resume_from
        stored = self._stored_preprocess()
        # Directly before initialization: preparing a data set uses the same random generators.
        keras.utils.set_random_seed(config.runtime.seed)
        with strategy.scope():
            weights = None if stored else config.model.weights or None
            self.model = run.create_network(config, num_classes=_count_classes(config, source), weights=weights)
            prepare_layers(self.model, config)
            # Randomly initialized networks have no preprocessing of their own.
            self.preprocess = create_preprocess(config.data, stored or self.model.preprocess)
            if has_whitening_stem(self.model) and not config.model.weights:
                examples = pipeline.sample_examples(source.train, self.preprocess, _WHITENED_EXAMPLES)
                whiten_stem(self.model, self.preprocess.from_batch(tf.constant(examples)).numpy())
            self.optimizer = create.create_optimizer(config, self.length, self.model)
            self.average = WeightAverage(self.model, config.train.ema) if config.train.ema else None
            self.model.preprocess, self.model.labels = self.preprocess, source.class_names
            self.model.thresholds = source.targets.thresholds(None, len(source.class_names))
            self.model.calibration = UNCALIBRATED
        path = config.loss.teacher
        teacher = Teacher(path, self.preprocess, source.class_names, source.targets) if path else None
        self._compiled: set[tuple[object, ...]] = set()
        objective = create_objective(config.loss, source)
        self.step = TrainStep(
            config,
            self.model,
            self.optimizer,
            objective,
            self.average,
            strategy,
            self.preprocess,
            teacher,
            on_accelerator=runtime.is_on_accelerator(strategy),
            xla=runtime.uses_xla(config.runtime.xla, strategy),
        )

    def batches(self, unreadable: UnreadableExamples | None = None) -> Any:
        """Return an iterator over this worker's part of the batches, from the current step on."""

        def create(shard: pipeline.Shard) -> tf.data.Dataset:
            if self.config.data.service and shard.count > self.cluster.count:
                raise UserError(
                    "data.service sends batches to one machine, and this TPU has several; set data.service to nothing"
                )
            return pipeline.train_batches(
                self.config,
                self.source,
                self.preprocess,
                self.length,
                start=self.state.step,
                shard=shard,
                unreadable=unreadable,
            )

        return iter(pipeline.distribute(create, self.strategy))

    def take(self, batches: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Take `count` steps within one epoch; return statistics and unreadable examples, see `TrainStep`."""
        train, epoch = self.config.train, self.state.step // self.length.steps_per_epoch
        head_only = train.finetune == "probe" or (train.finetune == "head_then_all" and epoch < train.head_epochs)
        size = size_in_epoch(self.config, epoch)
        batch = self.config.data.batch_size
        memory = translate_memory_errors(f"a training step of data.batch_size={batch}", self._remedies)
        with memory, self._compilation(head_only, size):
            statistics, missing = self.step.run(batches, tf.constant(count), head_only=head_only, size=size)
        return statistics.numpy(), missing.numpy()

    def _compilation(self, *variant: object) -> contextlib.AbstractContextManager[Any]:
        """Return the progress of the first call of a variant of the step, which compiles it."""
        if variant in self._compiled:
            return contextlib.nullcontext()
        self._compiled.add(variant)
        return Progress("compiling the training step")

    def _remedies(self) -> str:
        """Return the estimate of a step's memory, and the settings that reduce it."""
        larger = 2 * self.config.train.accumulate
        half = "" if self.model.compute_dtype != "float32" else " or runtime.precision=mixed_bfloat16"
        return (
            f"it takes {self.estimate_memory()}; a smaller data.batch_size, train.accumulate={larger}{half} takes less"
        )

    def estimate_memory(self, sized: keras.Model | None = None) -> StepMemory:
        """Estimate the memory of a step on one replica; `sized` is the network with a fixed input size."""
        if sized is None:
            sized = run.create_network(self.config, num_classes=len(self.source.class_names), fixed_size=True)
        trainable, slots = (
            sum(each.value.shape.num_elements() for each in variables)
            for variables in (self.model.trainable_variables, self.optimizer.variables)
        )
        replicas = self.strategy.num_replicas_in_sync
        return estimate_memory(self.config, sized, trainable=trainable, slots=slots, replicas=replicas)

    def save(self, directory: Path, evaluation: Evaluation | None) -> None:
        """Write a checkpoint, on the chief, with the metrics of an evaluation at this step, or None."""
        if not self.cluster.is_chief:
            return
        thresholds = self.source.targets.thresholds(evaluation, len(self.source.class_names))
        is_fitted = evaluation is not None and evaluation.calibration != UNCALIBRATED
        calibration = evaluation.calibration.to_dict() if evaluation is not None and is_fitted else None
        metadata: checkpoint.CheckpointMetadata = {
            "step": self.state.step,
            "run": self.state.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "data": self.source.identity,
            "metrics": None if evaluation is None else evaluation.to_dict(),
            "thresholds": thresholds,
            "calibration": calibration,
        }
        train = self.config.train
        parts = self._parts()
        proof.write_hash(directory.parent, self.state.step, parts)
        checkpoint.save(directory, parts, metadata, keep=train.keep_checkpoints, metric=train.metric)

    def resume(self) -> bool:
        """Restore the chief's checkpoint `resume_from` on all workers; return False if there is none.

        Raises:
            UserError: if it has other data or another network.
        """
        return self._restore_on_all(self._resume_from)

    def restore_newest(self, directory: Path) -> bool:
        """Restore the chief's newest intact checkpoint on all workers; return False if there is none.

        Raises:
            UserError: if all checkpoints are corrupt, or the newest has other data or another network.
        """
        return self._restore_on_all(checkpoint.latest(directory) if self.cluster.is_chief else None)

    def _restore_on_all(self, path: Path | None) -> bool:
        if path:
            self._restore(path)
        (found,) = self.cluster.from_chief([float(path is not None)])
        if found:
            parts = self._parts()
            self.cluster.broadcast_variables([each for part in parts for each in parts[part].values()])
            self.state = RunState.from_numbers(self.cluster.from_chief(self.state.to_numbers()))
            create.skipped_steps(self.optimizer).assign(self.state.skipped)
        return bool(found)

    def _restore(self, path: Path) -> None:
        metadata = checkpoint.read_metadata(path)
        if difference := find_difference(metadata["data"], self.source.identity):
            name = self.source.name
            raise UserError(
                f"checkpoint {str(path)!r} was trained on other data than {name!r} holds now: {difference}; restore "
                "these data, or give another directory for a run with the data as they are now"
            )
        # The precision follows from the devices, which may be others now.
        checkpoint.restore(path, self._parts(), optional=create.LOSS_SCALE)
        with checkpoint.naming_metadata(path):
            state = RunState.from_dict(metadata["run"])
            taken = state.step - state.epochs * self.length.steps_per_epoch
            if state.step != metadata["step"] or not 0 <= taken <= self.length.steps_per_epoch:
                raise UserError(f"run.step is {state.step} in epoch {state.epochs}, at step {metadata['step']}")
            self.state, self.has_metrics = state, metadata["metrics"] is not None

    def _stored_preprocess(self) -> Preprocess | None:
        """Return the preprocessing of the chief's checkpoint `resume_from` on all workers; None without one."""
        text = ""
        if self._resume_from:
            fields = checkpoint.read_metadata(self._resume_from)["preprocess"]
            with checkpoint.naming_metadata(self._resume_from):
                text = json.dumps(Preprocess.from_dict(fields).to_dict())
        text = self.cluster.text_from_chief(text)
        return Preprocess.from_dict(json.loads(text)) if text else None

    def log_summary(self) -> None:
        """Log the network and the data, the classes, and warnings about conflicting settings."""
        source, config = self.source, self.config
        logger.info(
            "%s: %s; %s: %s, %s; %s an epoch, %s",
            config.model.name,
            counted(self.model.count_params(), "parameter"),
            source.name,
            source.describe_splits(),
            counted(len(source.class_names), "class"),
            counted(self.length.steps_per_epoch, "step"),
            counted(config.train.epochs, "epoch"),
        )
        balance = "" if config.data.balance == "none" else f" (data.balance={config.data.balance})"
        logger.info("training examples%s: %s", balance, source.describe_classes())
        for warning in self.warnings:
            logger.warning("%s", warning)

    @functools.cached_property
    def warnings(self) -> list[str]:
        """Conflicts between the settings, and defects of the splits; see `training.conflicts`."""
        conflicts = describe_conflicts(self.config, self.source, self.model, self.length)
        enlarged = describe_enlargement(self.config, self.source)
        return [*conflicts, *describe_splits(self.config, self.source), *([enlarged] if enlarged else [])]

    def _parts(self) -> checkpoint.Parts:
        parts = {"model": checkpoint.variables_of(self.model), "optimizer": checkpoint.variables_of(self.optimizer)}
        return parts | ({"average": self.average.values} if self.average else {})


def size_in_epoch(config: Config, epoch: int) -> int | None:
    """Return the image size of an epoch in pixels; None for that of evaluation.

    The size increases linearly in steps of 32 pixels (4 pixels below 64).

    References: Tan and Le, EfficientNetV2, 2021, sec. 4.2, for sizes that increase in stages; Touvron et al., Fixing
    the train-test resolution discrepancy, 2019, for training images smaller than those of evaluation.
    """
    train, eval_size = config.train, config.data.image_size
    end = train.end_size or eval_size
    start = train.start_size or end
    last = train.full_size_from * train.epochs
    size = end
    if epoch < last:
        grain = 32 if end >= 64 else 4
        size = int((start + (end - start) * epoch / last) // grain * grain)
        size = min(max(size, start), end)
    return None if size == eval_size else size


def _count_classes(config: Config, source: Source) -> int:
    """Return the number of classes of the data, which must agree with `model.num_classes`."""
    expected, present = config.model.num_classes, len(source.class_names)
    if expected not in (0, present):
        raise UserError(
            f"model.num_classes={expected}, but {source.name!r} has {present} classes; 0 takes the number from the data"
        )
    return present


def _check_metric(config: Config, source: Source) -> None:
    multi_label = source.targets is MULTI_LABEL
    if not selection.find_metric(config.train.metric, multi_label=multi_label):
        form, names = "multi-label" if multi_label else "single-label", selection.SELECTION_METRICS
        fitting = [name for name in names if selection.find_metric(name, multi_label=multi_label)]
        raise UserError(
            f"train.metric={config.train.metric} does not apply to {source.name!r}, which has {form} data; it takes "
            f"one of {', '.join(fitting)}"
        )


def prepare_layers(model: keras.Model, config: Config) -> None:
    """Set which layers are trainable and synchronized, before the optimizer is built."""
    train = config.train
    if train.finetune != "full" and not config.model.weights:
        raise UserError(f"train.finetune={train.finetune} needs pretrained weights; set model.weights")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = config.runtime.sync_batch_norm
            layer.trainable = not train.freeze_batch_norm
        if train.finetune == "probe" and layer.name != LOGITS_LAYER:
            layer.trainable = False


def _check_replicas(config: Config, strategy: tf.distribute.Strategy) -> None:
    replicas, count = strategy.num_replicas_in_sync, config.train.accumulate
    if config.augment.repeats > config.data.batch_size:
        raise UserError(
            f"augment.repeats={config.augment.repeats} exceeds data.batch_size={config.data.batch_size}: a batch would "
            "hold copies of one example only"
        )
    largest = config.train.end_size or config.data.image_size
    if config.train.start_size > largest:
        raise UserError(f"train.start_size={config.train.start_size} exceeds the image size at the end, {largest}")
    group = mixing.group_size(config.augment)
    if config.data.batch_size % (replicas * group):
        pairs = f" in groups of {group}, which are mixed" if group > 1 else ""
        raise UserError(
            f"data.batch_size={config.data.batch_size} does not divide among {counted(replicas, 'replica')}{pairs}"
        )
    if config.data.batch_size % (replicas * count):
        raise UserError(
            f"data.batch_size={config.data.batch_size} does not divide into train.accumulate={count} micro-batches on "
            f"each of {counted(replicas, 'replica')}"
        )
