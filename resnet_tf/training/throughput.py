"""How many images per second the input gives and the training step takes."""

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source, open_source
from resnet_tf.data.sources.arrays import array_split
from resnet_tf.inputs import input_type
from resnet_tf.training import default_settings, runtime
from resnet_tf.training.trainer import Trainer

_STEPS = 4  # of the model in one timed call


@dataclass(frozen=True)
class Throughput:
    """Images per second.

    Attributes:
        stages: what the input gives up to each of its stages, by name; the last is the whole of it.
        model: what the model takes when its batches are there already.
    """

    stages: dict[str, float]
    model: float

    @property
    def verdict(self) -> str:
        """Which of the two is the limit, in a sentence."""
        given = list(self.stages.values())[-1]
        if given >= self.model:
            return f"The model is the limit: the input could feed {given / self.model:.1f} times as much."
        return f"The input is the limit: the model would wait {1 - given / self.model:.0%} of the time."


def measure_input(config: Config, *, seconds: float) -> Throughput:
    """Time each stage of a recipe's input and its training step, one after another, `seconds` each."""
    config = default_settings.resolve(config)
    strategy = runtime.start(config.runtime)
    source = open_source(config.data)
    trainer = Trainer(config, source, strategy)
    stages = pipeline.stages(config, source, trainer.preprocess, trainer.length)
    given = {name: _rate(_endless(dataset), seconds) for name, dataset in stages.items()}
    return Throughput(given, _rate(_steps(trainer), seconds))


def measure_training(config: Config, *, seconds: float) -> float:
    """Images per second of a recipe's training step alone, for `seconds`; on random ones, so that it takes no data.

    Raises:
        UserError: for a network or settings that do not fit.
    """
    strategy = runtime.start(config.runtime)
    return _rate(_steps(Trainer(config, _random_source(config), strategy)), seconds)


def _random_source(config: Config) -> Source:
    """One batch to train on, of `model.num_classes` or 1,000 classes."""
    data, classes, generator = config.data, config.model.num_classes or 1000, np.random.default_rng(0)
    examples = input_type(data).random_examples(data, data.batch_size, generator)
    labels = np.arange(data.batch_size) % classes
    train, test = (array_split(Path("random"), name, examples, labels) for name in ("train", "test"))
    return Source("random examples", tuple(map(str, range(classes))), train, test)


def _endless(dataset: tf.data.Dataset) -> Iterator[int]:
    return (int(images) for images in itertools.chain.from_iterable(itertools.repeat(dataset)))


def _steps(trainer: Trainer) -> Iterator[int]:
    batches = pipeline.train_batches(trainer.config, trainer.source, trainer.preprocess, trainer.length, start=0)
    iterator = iter(trainer.strategy.experimental_distribute_dataset(batches.take(1).cache().repeat()))
    while True:
        trainer.step.run(iterator, tf.constant(_STEPS))[0].numpy()
        yield _STEPS * trainer.config.data.batch_size


def _rate(counts: Iterable[int], seconds: float) -> float:
    """Images per second, once the first have come."""
    iterator = iter(counts)
    next(iterator)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images += next(iterator)
    return images / (time.perf_counter() - start)
