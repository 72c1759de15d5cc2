"""What is trained: a model, its optimizer and its data under a strategy, and where the run is."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.core.errors import UserError
from resnet_tf.data import pipeline
from resnet_tf.data.augmentation import mixing
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.data.sources import Source
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.inputs import create_preprocess, input_type
from resnet_tf.model.builder import LOGITS_LAYER
from resnet_tf.training import checkpoint, run
from resnet_tf.training.cluster import Cluster
from resnet_tf.training.losses import Objective
from resnet_tf.training.optimizers import create
from resnet_tf.training.progress import RunState
from resnet_tf.training.step import TrainStep
from resnet_tf.training.teacher import Teacher
from resnet_tf.training.weight_average import WeightAverage

logger = logging.getLogger(__name__)

_RARE = 10  # times as many examples of one class as of another


class Trainer:
    """Ready to take steps, to save where it is, and to continue from there.

    Attributes:
        config: see `load_config`.
        source: the data.
        strategy: what it runs under.
        cluster: this worker among all.
        length: steps per epoch and total steps.
        state: where the run is.
        model: the network.
        optimizer: built for it.
        average: the average of its weights, or None.
        preprocess: how examples become its input.
        step: the compiled training step.
    """

    def __init__(self, config: Config, source: Source, strategy: tf.distribute.Strategy):
        input_type(config.data).check_config(config)
        _check_replicas(config, strategy)
        self.config = config
        self.source = source
        self.strategy = strategy
        self.cluster = Cluster(strategy)
        self.length = TrainingLength.of(config, source)
        self.state = RunState()
        # Just before the weights are drawn: preparing a data set draws from the same generators.
        keras.utils.set_random_seed(config.runtime.seed)
        with strategy.scope():
            self.model = run.create_network(
                config, num_classes=_count_classes(config, source), weights=config.model.weights or None
            )
            _prepare_layers(self.model, config)
            self.optimizer = create.create_optimizer(config, self.length, self.model)
            self.average = WeightAverage(self.model, config.train.ema) if config.train.ema else None
            # A random start has no preprocessing of its own.
            self.preprocess = create_preprocess(config.data, self.model.preprocess)
            self.model.preprocess, self.model.labels = self.preprocess, source.class_names
            path = config.loss.teacher
            teacher = Teacher(path, self.preprocess, source.class_names) if path else None
        objective = Objective(config.loss, source.class_counts)
        self.step = TrainStep(
            config, self.model, self.optimizer, objective, self.average, strategy, self.preprocess, teacher
        )

    def batches(self, unreadable: UnreadableExamples | None = None) -> Any:
        """An iterator of distributed batches, from the run's step on; this worker's part of them."""
        shard = pipeline.Shard(self.cluster.index, self.cluster.count)
        batches = pipeline.train_batches(
            self.config,
            self.source,
            self.preprocess,
            self.length,
            start=self.state.step,
            shard=shard,
            unreadable=unreadable,
        )
        parts = pipeline.among_replicas(batches, self.cluster.replicas)
        return iter(self.strategy.distribute_datasets_from_function(lambda context: parts))

    def take(self, batches: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Take steps that lie in one epoch: their figures and what was missing, see `TrainStep.run`."""
        train, epoch = self.config.train, self.state.step // self.length.steps_per_epoch
        head_only = train.finetune == "probe" or (train.finetune == "head_then_all" and epoch < train.head_epochs)
        size = size_in_epoch(self.config, epoch)
        figures, missing = self.step.run(batches, tf.constant(count), head_only=head_only, size=size)
        return figures.numpy(), missing.numpy()

    def save(self, directory: Path, metrics: dict[str, Any] | None) -> None:
        """Write a checkpoint, if this is the chief; `metrics` are those of a test at this step, if there was one."""
        if not self.cluster.is_chief:
            return
        metadata = {
            "run": self.state.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "data": self.source.identity,
            "metrics": metrics,
        }
        keep = self.config.train.keep_checkpoints
        checkpoint.save(directory, self._parts(), step=self.state.step, metadata=metadata, keep=keep)

    def restore_newest(self, directory: Path) -> bool:
        """Continue from the chief's newest checkpoint that is whole; whether there was one.

        Raises:
            UserError: if all are damaged, or it was trained on other data, or does not fit.
        """
        newest = checkpoint.latest(directory) if self.cluster.is_chief else None
        if newest:
            self._restore(newest)
        (found,) = self.cluster.from_chief([float(newest is not None)])
        if found:
            parts = self._parts()
            self.cluster.broadcast_variables([each for part in parts for each in parts[part].values()])
            self.state = RunState.from_numbers(self.cluster.from_chief(self.state.to_numbers()))
        return bool(found)

    def _restore(self, path: Path) -> None:
        metadata = checkpoint.read_metadata(path)
        before, now = metadata["data"], self.source.identity
        if before != now:
            raise UserError(f"checkpoint {str(path)!r} was trained on {before}, but data.source now gives {now}")
        checkpoint.restore(path, self._parts())
        self.state = RunState(**metadata["run"])

    def log_what_is_trained(self) -> None:
        """Log the network and the data, the classes, and a warning if some of them are rare."""
        source, config = self.source, self.config
        logger.info(
            "%s: %s parameters; %s: %s, %d classes; %d steps an epoch, %d epochs",
            config.model.name,
            f"{self.model.count_params():,}",
            source.name,
            source.describe_splits(),
            len(source.class_names),
            self.length.steps_per_epoch,
            config.train.epochs,
        )
        balance = "" if config.data.balance == "none" else f" (data.balance={config.data.balance})"
        logger.info("training examples%s: %s", balance, source.describe_classes())
        if warning := _warn_of_rare_classes(config, source):
            logger.warning("%s", warning)

    def _parts(self) -> checkpoint.Parts:
        parts = {"model": checkpoint.variables_of(self.model), "optimizer": checkpoint.variables_of(self.optimizer)}
        return parts | ({"average": self.average.values} if self.average else {})


def size_in_epoch(config: Config, epoch: int) -> int | None:
    """The side of the pictures, growing linearly in steps of 32 pixels (of 4 below 64); None for that of testing.

    References: Tan and Le, EfficientNetV2, 2021, sec. 4.2, which grows it in stages; Touvron et al., Fixing the
    train-test resolution discrepancy, 2019, for pictures that stay smaller than those of testing.
    """
    train, tested = config.train, config.data.image_size
    end = train.end_size or tested
    start = train.start_size or end
    last = train.full_size_from * train.epochs
    size = end
    if epoch < last:
        grain = 32 if end >= 64 else 4
        size = int((start + (end - start) * epoch / last) // grain * grain)
        size = min(max(size, start), end)
    return None if size == tested else size


def _warn_of_rare_classes(config: Config, source: Source) -> str:
    """A line, if some classes are rare and nothing is done about it."""
    loss = config.loss
    met = config.data.balance != "none" or loss.class_weights != "none" or loss.logit_adjustment or loss.name == "focal"
    counts = source.class_counts
    fewest, most = int(counts.argmin()), int(counts.argmax())
    if met or counts[most] < _RARE * max(counts[fewest], 1):
        return ""
    return (
        f"class {source.class_names[fewest]!r} has {counts[fewest]:,} training examples where "
        f"{source.class_names[most]!r} has {counts[most]:,}: rare classes are found less often; "
        "loss.logit_adjustment=1 or data.balance=uniform makes up for that (docs/training.md)"
    )


def _count_classes(config: Config, source: Source) -> int:
    """The classes of the data, checked against what the configuration says."""
    asked, present = config.model.num_classes, len(source.class_names)
    if asked not in (0, present):
        raise UserError(
            f"model.num_classes={asked}, but {source.name!r} has {present} classes; 0 takes the number from the data"
        )
    return present


def _prepare_layers(model: keras.Model, config: Config) -> None:
    """Say what is trained and what is synchronized, before the optimizer is built."""
    train = config.train
    if train.finetune != "full" and not config.model.weights:
        raise UserError(f"train.finetune={train.finetune} starts from model.weights, and there are none")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = config.runtime.sync_batch_norm
            layer.trainable = not train.freeze_batch_norm
        if train.finetune == "probe" and layer.name != LOGITS_LAYER:
            layer.trainable = False


def _check_replicas(config: Config, strategy: tf.distribute.Strategy) -> None:
    replicas, parts = strategy.num_replicas_in_sync, config.train.accumulate
    group = mixing.group_size(config.augment)
    if config.data.batch_size % (replicas * group):
        pairs = f" in groups of {group}, as the pictures are mixed" if group > 1 else ""
        raise UserError(f"data.batch_size={config.data.batch_size} does not divide among {replicas} replicas{pairs}")
    if config.data.batch_size % (replicas * parts):
        raise UserError(
            f"data.batch_size={config.data.batch_size} does not divide into train.accumulate={parts} parts on each of "
            f"{replicas} replica(s)"
        )
