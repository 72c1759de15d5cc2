"""Batches for training and testing.

Training batch k is a function of (config, seed, k) alone: a run that starts at step k decodes nothing to get there.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from resnet_tf.config import AugmentConfig, Config
from resnet_tf.core.errors import UserError
from resnet_tf.core.machine import cores
from resnet_tf.data import order, service
from resnet_tf.data.augmentation import mixing, transforms
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.sources import Source, Split
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.inputs import Preprocess, create_preprocess

# From an example's index in its batch, a scalar, and the example of its source to one for training, such as uint8
# [H, W, C].
ChangeRow = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# From the positions of a batch in the run and its examples to the random numbers of augmentation.
Draw = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# A dataset of one batch, from its places in the run and the examples there: images, uint8 [B, H, W, C], which of them
# are missing, bool [B], and the row that stands in for each, int64 [B].
Rows = Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]
_AHEAD = 2  # batches that are ready before they are asked for: one while the other is taken


@dataclass(frozen=True)
class TrainingLength:
    """Length of a run in training steps.

    Attributes:
        steps_per_epoch: whole batches in the training split; the examples left over differ in every epoch.
        total_steps: steps of the whole run.
    """

    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, config: Config, source: Source) -> "TrainingLength":
        """Return the length of a run.

        Raises:
            UserError: if the training split does not fill one batch.
        """
        steps = source.train.num_examples // config.data.batch_size
        if steps == 0:
            raise UserError(
                f"data.batch_size={config.data.batch_size} is more than the {source.train.num_examples} pictures of "
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
    preprocess: Preprocess,
    length: TrainingLength,
    *,
    start: int,
    shard: Shard = Shard(),
    unreadable: UnreadableExamples | None = None,
) -> tf.data.Dataset:
    """Batches `start`, `start` + 1, ... of a run.

    A picture that cannot be read is replaced by the next of its batch.

    Returns:
        A dataset of (images: uint8 [B, H, W, C], which `Preprocess.from_batch` makes the network's input on its own
        device, a quarter of the bytes to move, or signals, float32 [B, L, C]; labels: int64 [B]; missing: int64 [B],
        the examples that could not be read, for `UnreadableExamples.note`, and -1 for the others), B being the shard's
        part of the global batch. With mixup or cutmix in the recipe there is a fourth part, float32 [B, 5], which
        `mixing` takes.

    Raises:
        UserError: if a batch does not divide among the workers, or too much of the split is unreadable.
    """
    group = mixing.group_size(config.augment) * shard.count
    if config.data.batch_size % group:
        raise UserError(
            f"data.batch_size={config.data.batch_size} must be a multiple of {group}, for {shard.count} workers"
            + (" with pictures mixed in pairs" if mixing.is_enabled(config.augment) else "")
        )
    rows = _memory_rows if _fits_in_memory(config, source.train, preprocess) else _streamed_rows
    make = rows(config, source.train, preprocess, _draw_function(config, source.train, length), unreadable)
    batch = _batch_function(config, source.train, length, shard, preprocess, make)
    steps = tf.data.Dataset.range(start, length.total_steps)
    if config.data.service:
        numbered = _side_by_side(steps, lambda step: batch(step).map(lambda *parts: (step, *parts)))
        batches = service.distribute(numbered, config.data.service, start=start, end=length.total_steps)
    else:
        batches = _side_by_side(steps, batch)
    return batches.prefetch(_AHEAD)


def load_batch(
    config: Config,
    source: Source,
    preprocess: Preprocess | None = None,
    *,
    step: int,
    unreadable: UnreadableExamples | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return training batch `step`, mixed as for training, and the fractions of its classes, float32 [B, C].

    The examples are of `Preprocess.batch_dtype`. Only those of that batch are read, and by this process; without
    `preprocess`, they are prepared as the configuration says. Those that cannot be read are noted in `unreadable`.

    Raises:
        UserError: if the run has no such step.
    """
    preprocess = preprocess or create_preprocess(config.data)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, memory_limit_mb=0, service=""))
    length = TrainingLength.of(config, source)
    if step >= length.total_steps:
        raise UserError(f"the run has steps 0 to {length.total_steps - 1}; there is no step {step}")
    unreadable = unreadable or UnreadableExamples(source.train, preprocess, config.data)
    images, labels, missing, *mix = next(
        iter(train_batches(config, source, preprocess, length, start=step, unreadable=unreadable))
    )
    unreadable.note(missing.numpy())
    classes = len(source.class_names)
    if not mix:
        return images.numpy(), tf.one_hot(labels, classes).numpy()
    blended = mixing.blend(tf.cast(images, tf.float32), mix[0], config.augment)
    shares = mixing.targets(labels, mix[0], config.augment, num_classes=classes, size=preprocess.spatial_shape)
    return preprocess.to_batch_dtype(blended).numpy(), shares.numpy()


def eval_batches(
    split: Split, preprocess: Preprocess, batch_size: int, *, shard: Shard = Shard(), memory_limit_mb: int = 0
) -> tf.data.Dataset:
    """Every picture of a split once, in order; the last batch is filled up with examples of place -1.

    Read it within `unreadable.translate_read_errors`.

    Args:
        split: the pictures.
        preprocess: how they become the network's input.
        batch_size: of this worker.
        shard: the part of the split that is this worker's; all workers have as many batches.
        memory_limit_mb: what is made of it is kept for the next time that it is read, if it needs no more.

    Returns:
        A dataset of (images: float32 [B, H, W, C], or signals [B, L, C]; labels: int64 [B]; places in the split: int64
        [B]).

    Raises:
        UserError: if the split's files are damaged.
    """
    split.check_complete()
    per_worker = -(-split.num_examples // (batch_size * shard.count)) * batch_size
    places = tf.range(split.num_examples, dtype=tf.int64)[shard.index * per_worker : (shard.index + 1) * per_worker]
    labels = tf.constant(split.labels)

    def load(row: tf.Tensor, picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return preprocess.to_input(picture), labels[places[row]], places[row]

    dataset = split.map(places, load)
    if missing := per_worker - len(places):
        blank = (tf.zeros(preprocess.input_shape), tf.constant(0, tf.int64), tf.constant(-1, tf.int64))
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(blank).repeat(missing))
    batches = dataset.batch(batch_size, drop_remainder=True)
    if 4 * per_worker * math.prod(preprocess.input_shape) <= memory_limit_mb * 2**20:
        batches = batches.cache()
    return without_autotune(batches.prefetch(_AHEAD))


def among_replicas(batches: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Each batch in as many parts, one after the other, as a worker's replicas take them."""
    if replicas == 1:
        return batches

    def split(*parts: tf.Tensor) -> tf.data.Dataset:
        shares = (tf.reshape(part, [replicas, part.shape[0] // replicas, *part.shape[1:]]) for part in parts)
        return tf.data.Dataset.from_tensor_slices(tuple(shares))

    return batches.flat_map(split)


def stages(
    config: Config, source: Source, preprocess: Preprocess, length: TrainingLength
) -> dict[str, tf.data.Dataset]:
    """The input up to each of its stages, to be timed: datasets of how many images were made.

    Without end but for the run's. What is kept in memory is read and decoded once, before the first batch.
    """
    split, size = source.train, config.data.batch_size
    examples_at = order.examples_at(config, split.labels, places_per_epoch=length.steps_per_epoch * size)
    crops_only = AugmentConfig(
        random_resized_crop=config.augment.random_resized_crop, min_crop_area=config.augment.min_crop_area
    )
    undistorted = dataclasses.replace(config, augment=crops_only)

    draw = _draw_function(config, split, length)

    def up_to(change_row: Callable[[tf.Tensor, tf.Tensor], ChangeRow]) -> tf.data.Dataset:
        def count(step: tf.Tensor) -> tf.data.Dataset:
            places = step * size + tf.range(size, dtype=tf.int64)
            examples = examples_at(places)
            change = change_row(places, examples)
            rows = split.map(examples, lambda row, picture: _first_value(change(row, picture)))
            return rows.ignore_errors().batch(size).map(tf.size)

        return _side_by_side(tf.data.Dataset.range(length.total_steps), count)

    whole = "batches, from memory" if _fits_in_memory(config, split, preprocess) else "+ batches"
    return {
        "reading alone": up_to(lambda places, examples: lambda row, picture: picture),
        "+ decoding": up_to(
            lambda places, examples: _change_row(undistorted, preprocess, places, draw(places, examples))
        ),
        "+ augmentation": up_to(
            lambda places, examples: _change_row(config, preprocess, places, draw(places, examples))
        ),
        whole: train_batches(config, source, preprocess, length, start=0).map(lambda images, *_: tf.shape(images)[0]),
    }


def _first_value(picture: tf.Tensor) -> tf.Tensor:
    """Something small that takes the whole picture to know: its shape would be known without."""
    return tf.strings.length(picture) if picture.dtype == tf.string else tf.reshape(picture, [-1])[0]


def load_images(split: Split, preprocess: Preprocess, unreadable: UnreadableExamples) -> np.ndarray:
    """Return a whole split for training, see `Preprocess.to_batch_element`. The unreadable are replaced and noted."""
    count, size = split.num_examples, 1024

    def part(first: tf.Tensor) -> tf.data.Dataset:
        places = tf.range(first, tf.minimum(first + size, count))
        rows = _readable_rows(split, places, lambda row, picture: preprocess.to_batch_element(picture), preprocess)
        return rows.map(lambda images, missing, shown: (images, tf.where(missing, places, -1)))

    images = []
    for pixels, missing in _side_by_side(tf.data.Dataset.range(0, count, size), part).as_numpy_iterator():
        unreadable.note(missing)
        images.append(pixels)
    return np.concatenate(images)


def load_examples(split: Split, preprocess: Preprocess, indices: Sequence[int]) -> list[np.ndarray]:
    """Return some examples of a split, unnormalized: float32 [H, W, 3] in [0, 1], or signals [L, C]."""
    examples = (split.load(tf.constant(index, tf.int64)) for index in indices)
    return [preprocess.to_unnormalized(example).numpy() for example in examples]


def _fits_in_memory(config: Config, split: Split, preprocess: Preprocess) -> bool:
    megabytes = split.num_examples * math.prod(preprocess.input_shape) * preprocess.batch_dtype.size / 2**20
    random_crops = config.augment.random_resized_crop  # these are taken of the original pictures
    return megabytes <= config.data.memory_limit_mb and not random_crops and not config.data.service


def _side_by_side(steps: tf.data.Dataset, batch: Callable[[tf.Tensor], tf.data.Dataset]) -> tf.data.Dataset:
    """The batches of the steps in order: as many in the making that no core waits, since each takes its memory."""
    parallel = 2 + cores() // 8
    made = steps.interleave(batch, cycle_length=parallel, num_parallel_calls=parallel, deterministic=True)
    return without_autotune(made)


def _batch_function(
    config: Config, split: Split, length: TrainingLength, shard: Shard, preprocess: Preprocess, rows: Rows
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """From a step to a dataset of its one batch."""
    global_size = config.data.batch_size
    size = global_size // shard.count
    labels = tf.constant(split.labels)
    examples_at = order.examples_at(config, split.labels, places_per_epoch=length.steps_per_epoch * global_size)

    def batch(step: tf.Tensor) -> tf.data.Dataset:
        first = step * global_size + shard.index * size
        places = first + tf.range(size, dtype=tf.int64)
        examples = examples_at(places)

        def finish(images: tf.Tensor, missing: tf.Tensor, shown: tf.Tensor) -> tuple[tf.Tensor, ...]:
            parts: tuple[tf.Tensor, ...] = (
                tf.ensure_shape(images, (size, *preprocess.input_shape)),
                tf.ensure_shape(tf.gather(labels, tf.gather(examples, shown)), (size,)),
                tf.ensure_shape(tf.where(missing, examples, -1), (size,)),
            )
            if mixing.is_enabled(config.augment):
                parts += (mixing.sample(config.runtime.seed, first, size, config.augment, preprocess.spatial_shape),)
            return parts

        return rows(places, examples).map(finish)

    return batch


def _draw_function(config: Config, split: Split, length: TrainingLength) -> Draw:
    seed = config.runtime.seed

    def draw(places: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        return transforms.random_numbers(seed, places[0], places.shape[0])

    if not config.augment.alternating_flip:
        return draw
    alternate = transforms.alternate_flips(seed, split.num_examples)
    places_per_epoch = length.steps_per_epoch * config.data.batch_size
    return lambda places, examples: alternate(draw(places, examples), examples, places // places_per_epoch)


def _memory_rows(
    config: Config, split: Split, preprocess: Preprocess, draw: Draw, unreadable: UnreadableExamples | None
) -> Rows:
    """Small pictures are decoded once, kept as uint8, and augmented a batch at a time."""
    with tf.device("CPU"):
        images = tf.constant(
            load_images(split, preprocess, unreadable or UnreadableExamples(split, preprocess, config.data))
        )

    def rows(places: tf.Tensor, examples: tf.Tensor) -> tf.data.Dataset:
        def augmented(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            pixels = transforms.augment_batch(
                tf.gather(images, chosen), draw(places, chosen), config.augment, preprocess
            )
            return pixels, tf.zeros_like(chosen, tf.bool), tf.range(places.shape[0], dtype=tf.int64)

        return tf.data.Dataset.from_tensor_slices(examples[tf.newaxis]).map(augmented)

    return rows


def _streamed_rows(
    config: Config, split: Split, preprocess: Preprocess, draw: Draw, unreadable: UnreadableExamples | None
) -> Rows:
    """Large pictures stay encoded until they are needed."""

    def rows(places: tf.Tensor, examples: tf.Tensor) -> tf.data.Dataset:
        return _readable_rows(
            split, examples, _change_row(config, preprocess, places, draw(places, examples)), preprocess
        )

    return rows


def _change_row(config: Config, preprocess: Preprocess, places: tf.Tensor, numbers: tf.Tensor) -> ChangeRow:
    """A picture decoded, cropped and augmented: what is drawn for it is drawn for all rows at once."""
    settings, seed, count = config.augment, config.runtime.seed, places.shape[0]
    if settings.random_resized_crop:
        crops = transforms.sample_crops(seed, places[0], count, min_area=settings.min_crop_area)

    def change(row: tf.Tensor, picture: tf.Tensor) -> tf.Tensor:
        if settings.random_resized_crop:
            image = transforms.random_resized_crop(picture, crops[row], preprocess, antialias=settings.antialias)
        else:
            image = preprocess.to_batch_element(picture)
        # One at a time: on all cores, and without what only another image's operation would need.
        return transforms.augment_batch(image[tf.newaxis], numbers[row][tf.newaxis], settings, preprocess)[0]

    return change


def _readable_rows(split: Split, examples: tf.Tensor, change: ChangeRow, preprocess: Preprocess) -> tf.data.Dataset:
    """One batch of changed pictures; one that cannot be read is replaced by the next that can.

    Which one that is follows from the batch alone, so that no later batch shifts. A batch without one readable picture
    is black.
    """
    shape, kind, count = preprocess.input_shape, preprocess.batch_dtype, tf.size(examples, tf.int64)
    loaded = split.map(examples, lambda row, picture: (row, tf.ensure_shape(change(row, picture), shape)))
    black = tf.data.Dataset.from_tensor_slices((tf.constant([-1], tf.int64), tf.zeros((1, *shape), kind)))

    def fill(found: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows = tf.range(count)
        # The place, among those found, of the first row from each on; the last one found for the rest, or the black.
        following = tf.minimum(tf.searchsorted(found[:-1], rows), tf.maximum(tf.size(found) - 2, 0))

        def filled() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            missing = ~tf.reduce_any(rows[:, None] == found[None, :], axis=1)
            return tf.gather(images, following), missing, tf.maximum(tf.gather(found, following), 0)

        complete = tf.size(found, tf.int64) == count + 1
        return tf.cond(complete, lambda: (images[:-1], tf.zeros_like(rows, tf.bool), rows), filled)

    return loaded.ignore_errors().concatenate(black).batch(count + 1).map(fill)
