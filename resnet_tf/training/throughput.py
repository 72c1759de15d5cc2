"""Measure throughput of the input pipeline and of the training step."""

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source
from resnet_tf.data.sources.arrays import array_split
from resnet_tf.inputs import input_type
from resnet_tf.training import runtime
from resnet_tf.training.start import start
from resnet_tf.training.trainer import Trainer

_STEPS = 4  # training steps in one timed call


@dataclass(frozen=True)
class Throughput:
    """Throughput in examples per second.

    Attributes:
        stages: throughput of the input pipeline up to each stage, by name; the last stage is the complete pipeline.
        model: throughput of the training step on batches in memory.
        network: name of the network, which `train.minutes` may have chosen.
    """

    stages: dict[str, float]
    model: float
    network: str

    @property
    def verdict(self) -> str:
        """Return a sentence that names the slower of the two."""
        pipeline_rate = list(self.stages.values())[-1]
        if pipeline_rate >= self.model:
            return f"The model is the limit: the input has {pipeline_rate / self.model:.1f} times its throughput."
        return f"The input is the limit: the model would wait {1 - pipeline_rate / self.model:.0%} of the time."


def measure_input(config: Config, *, seconds: float) -> Throughput:
    """Measure each stage of the input pipeline and the training step of a configuration, `seconds` each."""
    started = start(config)
    trainer = Trainer(started.config, started.source, started.strategy)
    stages = pipeline.stages(started.config, started.source, trainer.preprocess, trainer.length)
    rates = {name: _rate(_endless(dataset), seconds) for name, dataset in stages.items()}
    return Throughput(rates, _rate(_steps(trainer), seconds), started.config.model.name)


def measure_training(config: Config, *, seconds: float) -> float:
    """Return the examples per second of the training step on random examples, measured for `seconds`.

    Raises:
        UserError: for an unknown network or contradictory settings.
    """
    strategy = runtime.start(config.runtime)
    return _rate(_steps(Trainer(config, _random_source(config), strategy)), seconds)


def _random_source(config: Config) -> Source:
    """Return a source with one batch of random examples of `model.num_classes` or 1,000 classes."""
    data, classes, generator = config.data, config.model.num_classes or 1000, np.random.default_rng(0)
    examples = input_type(data).random_examples(data, data.batch_size, generator)
    labels = np.arange(data.batch_size) % classes
    splits = (array_split(Path("random"), name, examples, labels, "") for name in ("train", "test"))
    return Source("random examples", tuple(map(str, range(classes))), *splits)


def _endless(dataset: tf.data.Dataset) -> Iterator[int]:
    return (int(count) for count in itertools.chain.from_iterable(itertools.repeat(dataset)))


def _steps(trainer: Trainer) -> Iterator[int]:
    batches = pipeline.train_batches(trainer.config, trainer.source, trainer.preprocess, trainer.length, start=0)
    iterator = iter(trainer.strategy.experimental_distribute_dataset(batches.take(1).cache().repeat()))
    while True:
        trainer.step.run(iterator, tf.constant(_STEPS))[0].numpy()
        yield _STEPS * trainer.config.data.batch_size


def _rate(counts: Iterable[int], seconds: float) -> float:
    """Return examples per second after the first count, which includes the start."""
    iterator = iter(counts)
    next(iterator)
    begin, examples = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        examples += next(iterator)
    return examples / (time.perf_counter() - begin)
