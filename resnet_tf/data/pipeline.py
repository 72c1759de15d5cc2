"""Input pipeline: batches for training and evaluation.

Training batch k is a function of (config, seed, k), so that a run that starts at step k decodes no earlier batch.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from resnet_tf.config import AugmentConfig, Config
from resnet_tf.core.errors import UserError
from resnet_tf.core.graphs import without_autograph
from resnet_tf.core.machine import cores
from resnet_tf.core.text import counted
from resnet_tf.data import order, service
from resnet_tf.data.augmentation import mixing, transforms
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.sources import Source, Split
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.inputs import Preprocess

# (index in the batch, example of the source) -> training example, such as uint8 [H, W, C].
TransformExample = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# (positions in the run, int64 [B]; indices in the split, int64 [B]) -> random numbers for `augment_batch`.
SampleNumbers = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# (positions in the run, int64 [B]; indices in the split, int64 [B]) -> dataset of one batch: examples, such as uint8
# [B, H, W, C]; bool [B], True for unreadable examples; int64 [B], index in the batch of the example that is shown.
LoadBatch = Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]
_MAX_OMITTED = 0.01  # largest fraction of a split that an epoch omits by default
_PREFETCHED = 2  # batches: one is ready while another is transferred


@dataclass(frozen=True)
class TrainingLength:
    """Length of a run in training steps.

    Attributes:
        steps_per_epoch: batches in the training split, see `steps_per_epoch`; examples that an epoch omits differ
            between epochs.
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
        steps = steps_per_epoch(config.data.batch_size, source.train.num_examples, config.data.drop_remainder)
        if steps == 0:
            raise UserError(
                f"data.batch_size={config.data.batch_size} exceeds the "
                f"{counted(source.train.num_examples, 'example')} of split {source.train.name!r}"
            )
        return cls(steps, steps * config.train.epochs)


def steps_per_epoch(batch_size: int, num_examples: int, drop_remainder: str) -> int:
    """Return the number of batches in an epoch.

    >>> [steps_per_epoch(32, 38, drop) for drop in ("auto", "true", "false")], steps_per_epoch(128, 50_000, "auto")
    ([2, 1, 2], 390)

    Args:
        batch_size: `data.batch_size`.
        num_examples: examples in the training split.
        drop_remainder: `data.drop_remainder`. `auto` omits the examples beyond the last complete batch if they are at
            most 1 % of the split, as they always are from a hundred batches on.
    """
    complete, rest = divmod(num_examples, batch_size)
    few = complete > 0 and rest <= num_examples * _MAX_OMITTED
    drop = few if drop_remainder == "auto" else drop_remainder == "true"
    return complete if drop or not rest else complete + 1


@dataclass(frozen=True)
class Shard:
    """Part of every global batch that one host reads: part `index` of `count` equal parts, in order."""

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
    """Return training batches `start`, `start` + 1, ... of a run.

    An unreadable example is replaced by the next readable one of its batch.

    Args:
        config: configuration of the run.
        source: data source.
        preprocess: preprocessing of the examples.
        length: length of the run.
        start: first step.
        shard: this worker's part of each batch.
        unreadable: record of the examples that are found unreadable while the split is loaded into memory.

    Returns:
        A dataset of (examples, labels, missing), B being the shard's part of the global batch:
            examples: uint8 [B, H, W, C] images, a quarter of the bytes of float32, or float32 [B, L, C] signals;
                `Preprocess.from_batch` converts them to the model input on the device.
            labels: int64 [B], or bool [B, C], see `core.targets`.
            missing: int64 [B], indices of the examples that were unreadable, otherwise -1; for
                `UnreadableExamples.record`.
        With mixup or cutmix, a fourth element: random numbers of `mixing`, float32 [B, 5].

    Raises:
        UserError: if the batch size is not a multiple of the number of workers, with mixup or cutmix of that number
            times 2 * `augment.repeats`, or if too much of the split is unreadable.
    """
    group = mixing.group_size(config.augment) * shard.count
    if config.data.batch_size % group:
        raise UserError(
            f"data.batch_size={config.data.batch_size} must be a multiple of {group}, for "
            f"{counted(shard.count, 'worker')}"
            + (" with images mixed in pairs" if mixing.is_enabled(config.augment) else "")
        )
    create = _load_from_memory if fits_in_memory(config, source.train, preprocess) else _load_from_source
    load = create(config, source.train, preprocess, _number_sampler(config, source.train, length), unreadable)
    batch = _batch_function(config, source.train, length, shard, preprocess, load)
    steps = tf.data.Dataset.range(start, length.total_steps)
    if config.data.service:
        numbered = _interleave(steps, lambda step: batch(step).map(lambda *parts: (step, *parts)))
        seconds = config.runtime.wait_seconds
        batches = service.distribute(
            numbered, config.data.service, start=start, end=length.total_steps, seconds=seconds
        )
    else:
        batches = _interleave(steps, batch)
    return batches.prefetch(_PREFETCHED)


def load_batch(
    config: Config,
    source: Source,
    preprocess: Preprocess,
    *,
    step: int,
    unreadable: UnreadableExamples | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return one training batch, with mixup and cutmix applied. Only the examples of this batch are read.

    Args:
        config: configuration of the run.
        source: data source.
        preprocess: preprocessing of the examples.
        step: index of the batch in the run.
        unreadable: record of unreadable examples.

    Returns:
        Examples, `Preprocess.batch_dtype` [B, *input_shape], and the proportion of each class, float32 [B, C].

    Raises:
        UserError: if the run has no such step.
    """
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, memory_limit_mb=0, service=""))
    length = TrainingLength.of(config, source)
    if step >= length.total_steps:
        raise UserError(f"the run has steps 0 to {length.total_steps - 1}; there is no step {step}")
    unreadable = unreadable or UnreadableExamples(source.train, preprocess, config.data)
    images, labels, missing, *mix = next(
        iter(train_batches(config, source, preprocess, length, start=step, unreadable=unreadable))
    )
    unreadable.record(missing.numpy())
    classes = len(source.class_names)
    if not mix:
        return images.numpy(), source.targets.encode(labels, classes).numpy()
    blended = mixing.blend(tf.cast(images, tf.float32), mix[0], config.augment)
    targets = mixing.targets(labels, mix[0], config.augment, num_classes=classes, size=preprocess.spatial_shape)
    return preprocess.to_batch_dtype(blended).numpy(), targets.numpy()


def eval_batches(
    split: Split, preprocess: Preprocess, batch_size: int, *, shard: Shard = Shard(), memory_limit_mb: int = 0
) -> tf.data.Dataset:
    """Return every example of a split once, in order; the last batch is padded with zeros at index -1.

    Iterate within `unreadable.translate_read_errors`.

    Args:
        split: split to evaluate.
        preprocess: preprocessing of the examples.
        batch_size: examples in a batch of this worker.
        shard: this worker's part of the split; all workers have the same number of batches.
        memory_limit_mb: preprocessed examples of at most this size, in MB, are cached for the next iteration.

    Returns:
        A dataset of (model input: float32 [B, H, W, C] images or [B, L, C] signals; labels, see `Split`, [B] or
        [B, C]; indices in the split: int64 [B]).

    Raises:
        UserError: if files of the split are corrupt.
    """
    split.check_complete()
    per_worker = -(-split.num_examples // (batch_size * shard.count)) * batch_size
    indices = tf.range(split.num_examples, dtype=tf.int64)[shard.index * per_worker : (shard.index + 1) * per_worker]
    labels = tf.constant(split.labels)

    def load(position: tf.Tensor, example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return preprocess.to_input(example), labels[indices[position]], indices[position]

    dataset = split.map(indices, load)
    if padding := per_worker - len(indices):
        blank = (tf.zeros(preprocess.input_shape), tf.zeros_like(labels[0]), tf.constant(-1, tf.int64))
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(blank).repeat(padding))
    batches = dataset.batch(batch_size, drop_remainder=True)
    if 4 * per_worker * math.prod(preprocess.input_shape) <= memory_limit_mb * 2**20:
        batches = batches.cache()
    return without_autotune(batches.prefetch(_PREFETCHED))


def distribute(create: Callable[[Shard], tf.data.Dataset], strategy: tf.distribute.Strategy) -> Any:
    """Distribute batches: every host reads its shard of each, whose consecutive parts its replicas get, in order.

    Args:
        create: function from a shard to its batches. It is called for each host of this process: one for every worker,
            and several for a slice of a TPU pod.
        strategy: distribution strategy.

    Returns:
        A distributed dataset; a dataset under a strategy without replicas.
    """

    def parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shard = Shard(context.input_pipeline_id, context.num_input_pipelines)
        return split_among_replicas(create(shard), context.num_replicas_in_sync // shard.count)

    return strategy.distribute_datasets_from_function(parts)


def split_among_replicas(batches: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Split each batch of a worker into equal consecutive parts, one for each of its replicas."""
    if replicas == 1:
        return batches

    def split(*parts: tf.Tensor) -> tf.data.Dataset:
        divided = (tf.reshape(part, [replicas, part.shape[0] // replicas, *part.shape[1:]]) for part in parts)
        return tf.data.Dataset.from_tensor_slices(tuple(divided))

    return batches.flat_map(without_autograph(split))


def stages(
    config: Config, source: Source, preprocess: Preprocess, length: TrainingLength
) -> dict[str, tf.data.Dataset]:
    """Return the training input up to each of its stages, for measurements of throughput.

    Returns:
        By the name of the last stage, a dataset of numbers of examples that passed the stage. A split that fits in
        memory is decoded before its first batch.
    """
    split, size = source.train, config.data.batch_size
    examples_at = order.examples_at(config, split.labels, positions_per_epoch=length.steps_per_epoch * size)
    crops_only = AugmentConfig(
        random_resized_crop=config.augment.random_resized_crop, min_crop_area=config.augment.min_crop_area
    )
    undistorted = dataclasses.replace(config, augment=crops_only)
    sample = _number_sampler(config, split, length)

    def up_to(create: Callable[[tf.Tensor, tf.Tensor], TransformExample]) -> tf.data.Dataset:
        def count(step: tf.Tensor) -> tf.data.Dataset:
            positions = step * size + tf.range(size, dtype=tf.int64)
            indices = examples_at(positions)
            transform = create(positions, indices)
            values = split.map(indices, lambda position, example: _first_value(transform(position, example)))
            return values.ignore_errors().batch(size).map(tf.size)

        return _interleave(tf.data.Dataset.range(length.total_steps), count)

    complete = "batches, from memory" if fits_in_memory(config, split, preprocess) else "+ batches"
    return {
        "reading alone": up_to(lambda positions, indices: lambda position, example: example),
        "+ decoding": up_to(
            lambda positions, indices: _transform(undistorted, preprocess, positions, sample(positions, indices))
        ),
        "+ augmentation": up_to(
            lambda positions, indices: _transform(config, preprocess, positions, sample(positions, indices))
        ),
        complete: train_batches(config, source, preprocess, length, start=0).map(
            lambda examples, *_: tf.shape(examples)[0]
        ),
    }


def _first_value(example: tf.Tensor) -> tf.Tensor:
    """Return one value that depends on the decoded pixels, so that tf.data cannot skip the decode."""
    return tf.strings.length(example) if example.dtype == tf.string else tf.reshape(example, [-1])[0]


def load_images(split: Split, preprocess: Preprocess, unreadable: UnreadableExamples) -> np.ndarray:
    """Return all examples of a split as of `Preprocess.to_batch_element`, [N, *input_shape].

    Unreadable examples are recorded in `unreadable` and replaced by others.
    """
    count, size = split.num_examples, 1024

    def part(first: tf.Tensor) -> tf.data.Dataset:
        indices = tf.range(first, tf.minimum(first + size, count))
        batch = _readable_batch(
            split, indices, lambda position, example: preprocess.to_batch_element(example), preprocess
        )
        return batch.map(lambda images, missing, shown: (images, tf.where(missing, indices, -1)))

    images = []
    for pixels, missing in _interleave(tf.data.Dataset.range(0, count, size), part).as_numpy_iterator():
        unreadable.record(missing)
        images.append(pixels)
    return np.concatenate(images)


def sample_examples(split: Split, preprocess: Preprocess, count: int) -> np.ndarray:
    """Return `count` examples, evenly spaced across a split, as of `Preprocess.to_batch_element`, [N, *input_shape].

    Unreadable examples are replaced by others.
    """
    indices = tf.cast(tf.linspace(0.0, split.num_examples - 1.0, min(count, split.num_examples)), tf.int64)
    batch = _readable_batch(split, indices, lambda position, example: preprocess.to_batch_element(example), preprocess)
    return next(batch.as_numpy_iterator())[0]


def load_examples(split: Split, preprocess: Preprocess, indices: Sequence[int]) -> list[np.ndarray]:
    """Return examples of a split without normalization: images float32 [H, W, 3] in [0, 1], or signals [L, C]."""
    examples = (split.load(tf.constant(index, tf.int64)) for index in indices)
    return [preprocess.to_unnormalized(example).numpy() for example in examples]


def load_plots(split: Split, preprocess: Preprocess, indices: Sequence[int]) -> list[np.ndarray]:
    """Return examples of a split as images for plots, float [H, W, 1 or 3] in [0, 1]."""
    return [preprocess.plot(example) / 255 for example in load_examples(split, preprocess, indices)]


def fits_in_memory(config: Config, split: Split, preprocess: Preprocess) -> bool:
    """Return True if training loads the split into memory before the first step, see `data.memory_limit_mb`."""
    megabytes = split.num_examples * math.prod(preprocess.input_shape) * preprocess.batch_dtype.size / 2**20
    random_crops = config.augment.random_resized_crop  # need the images in their original size
    return megabytes <= config.data.memory_limit_mb and not random_crops and not config.data.service


def _interleave(steps: tf.data.Dataset, batch: Callable[[tf.Tensor], tf.data.Dataset]) -> tf.data.Dataset:
    """Return the batches of the steps in order, several computed in parallel: few, since each one occupies memory."""
    parallel = 2 + cores() // 8
    batches = steps.interleave(
        without_autograph(batch), cycle_length=parallel, num_parallel_calls=parallel, deterministic=True
    )
    return without_autotune(batches)


def _batch_function(
    config: Config, split: Split, length: TrainingLength, shard: Shard, preprocess: Preprocess, load: LoadBatch
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Return a function from a step to a dataset of its one batch, see `train_batches`."""
    global_size = config.data.batch_size
    size = global_size // shard.count
    labels = tf.constant(split.labels)
    examples_at = order.examples_at(config, split.labels, positions_per_epoch=length.steps_per_epoch * global_size)

    def batch(step: tf.Tensor) -> tf.data.Dataset:
        first = step * global_size + shard.index * size
        positions = first + tf.range(size, dtype=tf.int64)
        indices = examples_at(positions)

        def finish(images: tf.Tensor, missing: tf.Tensor, shown: tf.Tensor) -> tuple[tf.Tensor, ...]:
            parts: tuple[tf.Tensor, ...] = (
                tf.ensure_shape(images, (size, *preprocess.input_shape)),
                tf.ensure_shape(tf.gather(labels, tf.gather(indices, shown)), (size, *labels.shape[1:])),
                tf.ensure_shape(tf.where(missing, indices, -1), (size,)),
            )
            if mixing.is_enabled(config.augment):
                parts += (mixing.sample(config.runtime.seed, first, size, config.augment, preprocess.spatial_shape),)
            return parts

        return load(positions, indices).map(finish)

    return batch


def _number_sampler(config: Config, split: Split, length: TrainingLength) -> SampleNumbers:
    """Return the function that samples the random numbers of `transforms.augment_batch`."""
    seed = config.runtime.seed

    def sample(positions: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        return transforms.random_numbers(seed, positions[0], positions.shape[0])

    if not config.augment.alternating_flip:
        return sample
    alternate = transforms.alternate_flips(seed, split.num_examples)
    positions_per_epoch = length.steps_per_epoch * config.data.batch_size
    in_pass = order.pass_length(config, split.num_examples, positions_per_epoch)
    return lambda positions, indices: alternate(sample(positions, indices), indices, positions // in_pass)


def _load_from_memory(
    config: Config, split: Split, preprocess: Preprocess, sample: SampleNumbers, unreadable: UnreadableExamples | None
) -> LoadBatch:
    """Decode a small split once, keep it as uint8, and augment complete batches."""
    with tf.device("CPU"):
        images = tf.constant(
            load_images(split, preprocess, unreadable or UnreadableExamples(split, preprocess, config.data))
        )

    def load(positions: tf.Tensor, indices: tf.Tensor) -> tf.data.Dataset:
        def augment(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            pixels = transforms.augment_batch(
                tf.gather(images, indices), sample(positions, indices), config.augment, preprocess
            )
            return pixels, tf.zeros_like(indices, tf.bool), tf.range(positions.shape[0], dtype=tf.int64)

        return tf.data.Dataset.from_tensor_slices(indices[tf.newaxis]).map(augment)

    return load


def _load_from_source(
    config: Config, split: Split, preprocess: Preprocess, sample: SampleNumbers, unreadable: UnreadableExamples | None
) -> LoadBatch:
    """Read, decode and augment the examples of a large split for each batch."""

    def load(positions: tf.Tensor, indices: tf.Tensor) -> tf.data.Dataset:
        transform = _transform(config, preprocess, positions, sample(positions, indices))
        return _readable_batch(split, indices, transform, preprocess)

    return load


def _transform(config: Config, preprocess: Preprocess, positions: tf.Tensor, numbers: tf.Tensor) -> TransformExample:
    """Return the function that decodes, crops and augments one example of a batch.

    Random numbers are sampled for the complete batch at once.
    """
    settings, seed, count = config.augment, config.runtime.seed, positions.shape[0]
    if settings.random_resized_crop:
        crops = transforms.sample_crops(seed, positions[0], count, min_area=settings.min_crop_area)

    def transform(index: tf.Tensor, example: tf.Tensor) -> tf.Tensor:
        if settings.random_resized_crop:
            image = transforms.random_resized_crop(example, crops[index], preprocess, antialias=settings.antialias)
        else:
            image = preprocess.to_batch_element(example)
        # Batches of one run in parallel on all cores, and compute the sampled operations only.
        return transforms.augment_batch(image[tf.newaxis], numbers[index][tf.newaxis], settings, preprocess)[0]

    return transform


def _readable_batch(
    split: Split, indices: tf.Tensor, transform: TransformExample, preprocess: Preprocess
) -> tf.data.Dataset:
    """Return a dataset of one batch, see `LoadBatch`, with unreadable examples replaced.

    The replacement is the next readable example of the same batch, or the last one, so that no other batch changes. A
    batch without readable examples is black.
    """
    shape, dtype, count = preprocess.input_shape, preprocess.batch_dtype, tf.size(indices, tf.int64)
    loaded = split.map(indices, lambda index, example: (index, tf.ensure_shape(transform(index, example), shape)))
    black = tf.data.Dataset.from_tensor_slices((tf.constant([-1], tf.int64), tf.zeros((1, *shape), dtype)))

    def fill(readable: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Fill a batch from its readable examples, which `black` at index -1 follows."""
        batch = tf.range(count)
        # For each index, the position in `readable` of the next index, else of the last, else of `black`.
        replacement = tf.minimum(tf.searchsorted(readable[:-1], batch), tf.maximum(tf.size(readable) - 2, 0))

        def filled() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            missing = ~tf.reduce_any(batch[:, None] == readable[None, :], axis=1)
            return tf.gather(images, replacement), missing, tf.maximum(tf.gather(readable, replacement), 0)

        complete = tf.size(readable, tf.int64) == count + 1
        return tf.cond(complete, lambda: (images[:-1], tf.zeros_like(batch, tf.bool), batch), filled)

    return loaded.ignore_errors().concatenate(black).batch(count + 1).map(fill)
