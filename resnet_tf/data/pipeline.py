"""Batches for training and testing.

Training batch k is a function of (config, seed, k) alone: a run that starts at step k decodes nothing to get there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data import augment, preprocess
from resnet_tf.data.preprocess import to_bytes
from resnet_tf.data.sources import Source, Split
from resnet_tf.errors import UserError
from resnet_tf.spec import Preprocess


@dataclass(frozen=True)
class Schedule:
    """How many steps a run takes.

    Attributes:
        steps_per_epoch: whole batches in the training split; which images are left over differs every epoch.
        total_steps: steps of the whole run.
    """

    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, config: Config, source: Source) -> "Schedule":
        """Raises a `UserError` if the training split does not fill one batch."""
        steps = source.train.num_examples // config.data.batch_size
        if steps == 0:
            raise UserError(
                f"data.batch_size={config.data.batch_size} is more than the {source.train.num_examples} images of "
                f"split {source.train.name!r}"
            )
        return cls(steps, steps * config.train.epochs)


def train_batches(
    config: Config, source: Source, spec: Preprocess, schedule: Schedule, *, start: int
) -> tf.data.Dataset:
    """Batches `start`, `start` + 1, ... of a run.

    Returns:
        A dataset of (images: uint8 [B, H, W, C], which `preprocess.from_pixels` makes the network's input on its own
        device, a quarter of the bytes to move; labels: int64 [B]), B being the global batch.
    """
    height, width = spec.size
    megabytes = source.train.num_examples * height * width * spec.channels / 2**20
    in_memory = megabytes <= config.data.memory_limit_mb and not config.augment.random_resized_crop
    batches = _memory_batches if in_memory else _streamed_batches
    options = tf.data.Options()
    options.deterministic = True
    return batches(config, source.train, spec, schedule, start).prefetch(tf.data.AUTOTUNE).with_options(options)


def fed_pictures(config: Config, source: Source, *, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Training batch `step`: uint8 [B, H, W, C] and int64 [B] labels.

    Raises:
        UserError: if the run has no such step.
    """
    spec = preprocess.from_config(config.data)
    schedule = Schedule.of(config, source)
    if step >= schedule.total_steps:
        raise UserError(f"the run has steps 0 to {schedule.total_steps - 1}; there is no step {step}")
    images, labels = next(iter(train_batches(config, source, spec, schedule, start=step)))
    return images.numpy(), labels.numpy()


def eval_batches(split: Split, spec: Preprocess, batch_size: int) -> tf.data.Dataset:
    """Every picture of a split once, in order; the last batch is filled up with examples of weight 0.

    Returns:
        A dataset of (images: float32 [B, H, W, C], labels: int64 [B], weights: float32 [B]).
    """

    def load(encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = preprocess.normalize(preprocess.center_crop(preprocess.decode(encoded), spec), spec)
        return image, label, tf.constant(1.0)

    dataset = split.read(None, 0).map(load, num_parallel_calls=tf.data.AUTOTUNE)
    missing = -split.num_examples % batch_size
    if missing:
        blank = (tf.zeros([missing, *spec.size, spec.channels]), tf.zeros([missing], tf.int64), tf.zeros([missing]))
        dataset = dataset.concatenate(tf.data.Dataset.from_tensor_slices(blank))
    return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _memory_batches(config: Config, split: Split, spec: Preprocess, schedule: Schedule, start: int) -> tf.data.Dataset:
    """Small pictures are decoded once, kept as uint8, and augmented a batch at a time."""
    images, labels = (tf.constant(array) for array in load_images(split, spec))
    seed, batch_size = config.runtime.seed, config.data.batch_size
    last = tf.constant(split.num_examples - 1, tf.int64)

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, place = step // schedule.steps_per_epoch, step % schedule.steps_per_epoch
        within = tf.range(batch_size, dtype=tf.int64)
        index = tf.random.experimental.index_shuffle(place * batch_size + within, _epoch_seed(seed, epoch), last)
        numbers = augment.random_numbers(seed, step * batch_size, batch_size)
        return augment.augment_batch(tf.gather(images, index), numbers, config.augment, spec), tf.gather(labels, index)

    return tf.data.Dataset.range(start, schedule.total_steps).map(batch, num_parallel_calls=tf.data.AUTOTUNE)


def _streamed_batches(
    config: Config, split: Split, spec: Preprocess, schedule: Schedule, start: int
) -> tf.data.Dataset:
    """Large pictures stay encoded until they are needed."""
    seed, batch_size = config.runtime.seed, config.data.batch_size
    epoch_examples = schedule.steps_per_epoch * batch_size
    first_epoch, done = divmod(start * batch_size, epoch_examples)

    def epoch_examples_of(epoch: tf.Tensor) -> tf.data.Dataset:
        skip = tf.where(epoch == first_epoch, tf.constant(done, tf.int64), tf.constant(0, tf.int64))
        return split.read(_epoch_seed(seed, epoch), skip).take(epoch_examples - skip)

    def load(example: tf.Tensor, record: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = record
        if config.augment.random_resized_crop:
            image = augment.random_resized_crop(encoded, spec, seed=seed, example=example)
        else:
            image = to_bytes(preprocess.center_crop(preprocess.decode(encoded), spec))
        image = tf.ensure_shape(preprocess.to_channels(image, spec), (*spec.size, spec.channels))
        numbers = augment.random_numbers(seed, example, 1)
        # One at a time: on all cores, and without what only another image's operation would need.
        return augment.augment_batch(image[tf.newaxis], numbers, config.augment, spec)[0], label

    dataset = tf.data.Dataset.range(first_epoch, config.train.epochs).flat_map(epoch_examples_of)  # still encoded
    dataset = dataset.enumerate(start * batch_size)  # an image's place in the run seeds its augmentation
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_size, drop_remainder=True)


def load_images(split: Split, spec: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """A whole split, decoded, cropped and rounded: uint8 [N, H, W, C] and int64 [N]."""

    def load(encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = to_bytes(preprocess.center_crop(preprocess.decode(encoded), spec))
        return preprocess.to_channels(pixels, spec), label

    dataset = split.read(None, 0).map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(1024).prefetch(1)
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def load_pictures(split: Split, spec: Preprocess, indices: Sequence[int]) -> list[np.ndarray]:
    """The pictures at some places of a split as the network is shown them, each float32 [H, W, 3] in [0, 1]."""
    wanted = tf.constant(indices, tf.int64)
    records = split.read(None, 0).enumerate().filter(lambda index, _: tf.reduce_any(index == wanted))
    crops = {
        int(index): preprocess.center_crop(preprocess.decode(encoded), spec).numpy() for index, (encoded, _) in records
    }
    return [crops[index] for index in indices]


def _epoch_seed(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
