"""Batches for training and testing.

Training batch k is a function of (config, seed, k) alone: a run that starts at step k decodes nothing to get there.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data import augment, mixing, order, preprocess, service
from resnet_tf.data.bad_inputs import BadInputs, name_unreadable
from resnet_tf.data.preprocess import to_bytes
from resnet_tf.data.sources import Source, Split
from resnet_tf.errors import UserError
from resnet_tf.spec import Preprocess

# From an example's row in its batch, a scalar, to its picture, uint8 [H, W, C].
LoadRow = Callable[[tf.Tensor], tf.Tensor]


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


@dataclass(frozen=True)
class Shard:
    """The part of every global batch that one of several workers feeds: part `index` of `count`, in order."""

    index: int = 0
    count: int = 1


def train_batches(
    config: Config,
    source: Source,
    spec: Preprocess,
    schedule: Schedule,
    *,
    start: int,
    shard: Shard = Shard(),
    bad: BadInputs | None = None,
) -> tf.data.Dataset:
    """Batches `start`, `start` + 1, ... of a run.

    A picture that cannot be read is replaced by the next of its batch and noted in `bad`.

    Returns:
        A dataset of (images: uint8 [B, H, W, C], which `preprocess.from_pixels` makes the network's input on its own
        device, a quarter of the bytes to move; labels: int64 [B]), B being the shard's part of the global batch. With
        mixup or cutmix in the recipe there is a third part, float32 [B, 5], which `mixing` takes.

    Raises:
        UserError: if a batch does not divide among the workers, or too much of the split is unreadable.
    """
    group = mixing.group_size(config.augment) * shard.count
    if config.data.batch_size % group:
        raise UserError(
            f"data.batch_size={config.data.batch_size} must be a multiple of {group}, for {shard.count} workers"
            + (" with pictures mixed in pairs" if mixing.wanted(config.augment) else "")
        )
    bad = bad or BadInputs(source.train, spec, config.data)
    rows = _memory_rows if _fits_in_memory(config, source.train, spec) else _streamed_rows
    batch = _batch_function(config, source.train, schedule, shard, spec, rows(config, source.train, spec, bad))
    options = tf.data.Options()
    options.deterministic = True
    steps = tf.data.Dataset.range(start, schedule.total_steps).with_options(options)
    if config.data.service:
        numbered = steps.map(lambda step: (step, *batch(step)), num_parallel_calls=_parallel_batches())
        end = schedule.total_steps
        batches = service.distribute(numbered, config.data.service, start=start, end=end, fail=bad.fail)
    else:
        batches = steps.map(batch, num_parallel_calls=_parallel_batches())
    return batches.map(_noting(bad)).prefetch(tf.data.AUTOTUNE).with_options(options)


def fed_pictures(config: Config, source: Source, *, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Training batch `step` as the network sees it: uint8 [B, H, W, C], and float32 [B, C] shares of the classes.

    Raises:
        UserError: if the run has no such step.
    """
    spec = preprocess.from_config(config.data)
    schedule = Schedule.of(config, source)
    if step >= schedule.total_steps:
        raise UserError(f"the run has steps 0 to {schedule.total_steps - 1}; there is no step {step}")
    bad = BadInputs(source.train, spec, config.data)
    with bad.raising():
        images, labels, *mix = next(iter(train_batches(config, source, spec, schedule, start=step, bad=bad)))
    classes = len(source.class_names)
    if not mix:
        return images.numpy(), tf.one_hot(labels, classes).numpy()
    blended = mixing.blend(tf.cast(images, tf.float32), mix[0], config.augment)
    shares = mixing.targets(labels, mix[0], config.augment, num_classes=classes, size=spec.size)
    return tf.cast(tf.round(blended), tf.uint8).numpy(), shares.numpy()


def eval_batches(split: Split, spec: Preprocess, batch_size: int) -> tf.data.Dataset:
    """Every picture of a split once, in order; the last batch is filled up with examples of weight 0.

    Read it within `naming_failures`.

    Returns:
        A dataset of (images: float32 [B, H, W, C], labels: int64 [B], weights: float32 [B]).

    Raises:
        UserError: if the split's files are damaged.
    """
    split.check_whole()

    def load(picture: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = preprocess.normalize(preprocess.center_crop(preprocess.decode(picture, spec), spec), spec)
        return image, label, tf.constant(1.0)

    dataset = split.examples().map(load, num_parallel_calls=tf.data.AUTOTUNE)
    missing = -split.num_examples % batch_size
    if missing:
        blank = (tf.zeros([missing, *spec.size, spec.channels]), tf.zeros([missing], tf.int64), tf.zeros([missing]))
        dataset = dataset.concatenate(tf.data.Dataset.from_tensor_slices(blank))
    return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


@contextlib.contextmanager
def naming_failures(split: Split, spec: Preprocess) -> Iterator[None]:
    """Around a test: a picture that cannot be read becomes a `UserError` with its name; a test never skips one."""
    try:
        yield
    except tf.errors.OpError as error:
        if named := name_unreadable(split, spec):
            raise UserError(f"split {split.name!r} cannot be tested: {named}") from error
        raise


def load_images(split: Split, spec: Preprocess, bad: BadInputs) -> np.ndarray:
    """A whole split, decoded, cropped and rounded: uint8 [N, H, W, C]. The unreadable are replaced and noted."""
    load, count, size = _center_crop_row(split, spec), split.num_examples, 1024

    def part(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        places = tf.range(first, tf.minimum(first + size, count))
        images, missing, _ = _readable_rows(lambda row: load(places[row]), tf.size(places), spec)
        return images, tf.where(missing, places, -1)

    parts = tf.data.Dataset.range(0, count, size).map(part, num_parallel_calls=_parallel_batches())
    images = []
    for pixels, missing in parts.as_numpy_iterator():
        bad.note(missing)
        images.append(pixels)
    return np.concatenate(images)


def load_pictures(split: Split, spec: Preprocess, indices: Sequence[int]) -> list[np.ndarray]:
    """The pictures at some places of a split as the network is shown them, each float32 [H, W, 3] in [0, 1]."""
    pictures = (split.load(tf.constant(index, tf.int64)) for index in indices)
    return [preprocess.center_crop(preprocess.decode(picture, spec), spec).numpy() for picture in pictures]


def _fits_in_memory(config: Config, split: Split, spec: Preprocess) -> bool:
    megabytes = split.num_examples * spec.size[0] * spec.size[1] * spec.channels / 2**20
    random_crops = config.augment.random_resized_crop  # these are taken of the original pictures
    return megabytes <= config.data.memory_limit_mb and not random_crops and not config.data.service


def _parallel_batches() -> int:
    """Batches in the making: enough that the cores never wait, and no more, since each takes its memory."""
    return 2 + _cores() // 8


def _cores() -> int:
    return os.cpu_count() or 1


# From the places in the run and the examples of a batch to its images, uint8 [B, H, W, C], which of them are missing,
# bool [B], and the row that stands in for each.
Rows = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def _batch_function(
    config: Config, split: Split, schedule: Schedule, shard: Shard, spec: Preprocess, rows: Rows
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """From a step to its batch: (images, labels, missing examples or -1) or, mixed, (images, labels, mix, missing)."""
    global_size = config.data.batch_size
    size = global_size // shard.count
    labels = tf.constant(split.labels)
    examples_at = order.examples_at(config, split.labels, places_per_epoch=schedule.steps_per_epoch * global_size)

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        first = step * global_size + shard.index * size
        places = first + tf.range(size, dtype=tf.int64)
        examples = examples_at(places)
        images, missing, shown = rows(places, examples)
        images = tf.ensure_shape(images, (size, *spec.size, spec.channels))
        parts = [images, tf.gather(labels, tf.gather(examples, shown))]
        if mixing.wanted(config.augment):
            parts.append(mixing.draw(config.runtime.seed, first, size, config.augment, spec.size))
        return *parts, tf.where(missing, examples, -1)

    return batch


def _memory_rows(config: Config, split: Split, spec: Preprocess, bad: BadInputs) -> Rows:
    """Small pictures are decoded once, kept as uint8, and augmented a batch at a time."""
    with tf.device("CPU"):
        images = tf.constant(load_images(split, spec, bad))

    def rows(places: tf.Tensor, examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        numbers = augment.random_numbers(config.runtime.seed, places[0], places.shape[0])
        augmented = augment.augment_batch(tf.gather(images, examples), numbers, config.augment, spec)
        return augmented, tf.zeros_like(examples, tf.bool), tf.range(places.shape[0])

    return rows


def _streamed_rows(config: Config, split: Split, spec: Preprocess, bad: BadInputs) -> Rows:
    """Large pictures stay encoded until they are needed."""
    center_crop = _center_crop_row(split, spec)
    settings, seed = config.augment, config.runtime.seed

    def rows(places: tf.Tensor, examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        numbers = augment.random_numbers(seed, places[0], places.shape[0])
        crops = augment.crop_numbers(seed, places[0], places.shape[0])

        def load(row: tf.Tensor) -> tf.Tensor:
            if settings.random_resized_crop:
                image = augment.random_resized_crop(
                    split.load(examples[row]),
                    crops[row],
                    spec,
                    min_area=settings.min_crop_area,
                    antialias=settings.antialias,
                )
                image = preprocess.to_channels(image, spec)
            else:
                image = center_crop(examples[row])
            # One at a time: on all cores, and without what only another image's operation would need.
            return augment.augment_batch(image[tf.newaxis], numbers[row][tf.newaxis], settings, spec)[0]

        return _readable_rows(load, places.shape[0], spec)

    return rows


def _center_crop_row(split: Split, spec: Preprocess) -> LoadRow:
    def load(example: tf.Tensor) -> tf.Tensor:
        pixels = to_bytes(preprocess.center_crop(preprocess.decode(split.load(example), spec), spec))
        return preprocess.to_channels(pixels, spec)

    return load


def _readable_rows(load: LoadRow, count: tf.Tensor | int, spec: Preprocess) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Rows 0 to `count` - 1, side by side; one that cannot be read is replaced by the next that can.

    Which one that is follows from the batch alone, so that no later batch shifts. A batch without one readable picture
    is black.
    """
    count = tf.cast(count, tf.int64)

    def row_and_image(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return row, tf.ensure_shape(load(row), (*spec.size, spec.channels))

    loaded = tf.data.Dataset.range(count).map(row_and_image, num_parallel_calls=min(_cores(), 8)).ignore_errors()
    black = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), tf.zeros((*spec.size, spec.channels), tf.uint8)))
    found, images = loaded.concatenate(black).batch(count + 1).get_single_element()
    found, images = found[:-1], images[:-1]
    rows = tf.range(count)
    # The place, among those found, of the first row from each on; the last one found for the rest.
    following = tf.minimum(tf.searchsorted(found, rows), tf.maximum(tf.size(found) - 1, 0))
    complete = tf.size(found, tf.int64) == count

    def filled() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if_any = tf.concat([images, tf.zeros((1, *spec.size, spec.channels), tf.uint8)], 0)
        shown = tf.gather(tf.concat([found, [0]], 0), following)
        return tf.gather(if_any, following), ~tf.reduce_any(rows[:, None] == found[None, :], axis=1), shown

    return tf.cond(complete, lambda: (images, tf.zeros_like(rows, tf.bool), rows), filled)


def _noting(bad: BadInputs) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Drops the last part of a batch, the missing examples, after they were noted."""

    def take_down(examples: np.ndarray) -> np.ndarray:
        bad.note(examples)
        return np.zeros((), bool)

    def note(*parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
        *batch, missing = parts
        noted = tf.cond(
            tf.reduce_any(missing >= 0),
            lambda: tf.ensure_shape(tf.numpy_function(take_down, [missing], tf.bool), []),
            lambda: False,
        )
        with tf.control_dependencies([noted]):
            return tuple(tf.identity(part) for part in batch)

    return note
