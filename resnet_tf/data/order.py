"""Order of training examples: shuffled, balanced between classes, repeated.

Each order is a function of (seed, epoch, position), so that any position is reached without the positions before it.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config

# Exponent of a class's count in its sampling probability (Kang et al., Decoupling, 2020, sec. 4.1).
_POWERS = {"sqrt": 0.5, "uniform": 0.0}


def examples_at(config: Config, labels: np.ndarray, *, positions_per_epoch: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from positions in a run to indices of examples in the training split.

    In each pass every example occurs at most once, or `augment.repeats` times in a row, see `pass_length`. With
    `data.balance`, classes occur in their proportions to within one position, and the examples of a class equally often
    to within one.

    Args:
        config: configuration of the run.
        labels: labels of the training split, int64 [N].
        positions_per_epoch: examples in an epoch, counting repeats.

    Returns:
        A function of positions of one batch, int64 [n], that returns indices, int64 [n].
    """
    seed, last = config.runtime.seed, tf.constant(len(labels) - 1, tf.int64)
    length = pass_length(config, len(labels), positions_per_epoch)
    pick = _balanced(labels, _POWERS[config.data.balance], seed) if config.data.balance in _POWERS else _unbalanced

    def examples(positions: tf.Tensor) -> tf.Tensor:
        epoch, within = positions[0] // positions_per_epoch, positions % positions_per_epoch
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.index_shuffle(within // config.augment.repeats, epoch_seed, last)
        return pick(shuffled, epoch)

    def examples_of_passes(positions: tf.Tensor) -> tf.Tensor:
        """Return examples of batches that span two passes, each with a permutation of its own."""
        passes, within = positions // length, positions % length // config.augment.repeats
        seeds = tf.stack([tf.fill(tf.shape(passes), tf.constant(seed, tf.int64)), passes, passes], axis=1)
        shuffled = tf.raw_ops.RandomIndexShuffle(index=within, seed=seeds, max_index=last, rounds=4)
        return pick(shuffled, passes)

    return examples if length == positions_per_epoch else examples_of_passes


def pass_length(config: Config, num_examples: int, positions_per_epoch: int) -> int:
    """Return the number of positions in which every example occurs once, or `augment.repeats` times.

    Passes are epochs, which omit the examples beyond the last complete batch. Where an epoch has a batch for these
    examples, the batch continues with the next pass, so that all examples occur equally often in a run.
    """
    return positions_per_epoch if positions_per_epoch <= num_examples else num_examples * config.augment.repeats


def _unbalanced(shuffled: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    return shuffled


def _balanced(labels: np.ndarray, power: float, seed: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return a function of shuffled numbers in [0, N) and an epoch that selects examples by systematic sampling.

    [0, N) is divided into one interval per class, of a width proportional to its sampling probability, and each
    interval equally among the examples of the class.
    """
    classes, counts = np.unique(labels, return_counts=True)
    widths = counts**power * (len(labels) / np.sum(counts**power))
    ends = tf.constant(np.cumsum(widths))
    starts, lengths, sizes = tf.constant(np.cumsum(widths) - widths), tf.constant(widths), tf.constant(counts, tf.int64)
    members = tf.constant(np.argsort(labels, kind="stable"), tf.int64)
    first_member = tf.constant(np.cumsum(counts) - counts, tf.int64)

    def pick(shuffled: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        # The offset differs between epochs: otherwise every epoch would omit the same examples of large classes.
        point = tf.cast(shuffled, tf.float64) + _offset(seed, epoch)
        label = tf.minimum(tf.searchsorted(ends, point, side="right"), len(classes) - 1)
        fraction = (point - tf.gather(starts, label)) / tf.gather(lengths, label)
        size = tf.gather(sizes, label)
        rank = tf.clip_by_value(tf.cast(fraction * tf.cast(size, tf.float64), tf.int64), 0, size - 1)
        # Members are shuffled by class and epoch; the raw operation takes a seed per element, unlike `index_shuffle`.
        parts = (tf.constant(seed, tf.int64), epoch, tf.cast(label, tf.int64))
        seeds = tf.stack([tf.broadcast_to(part, tf.shape(shuffled)) for part in parts], axis=1)
        member = tf.raw_ops.RandomIndexShuffle(index=rank, seed=seeds, max_index=size - 1, rounds=4)
        return tf.gather(members, tf.gather(first_member, label) + member)

    return pick


def _offset(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Return the offset of an epoch, float64 in [0, 1): multiples of the golden ratio are spread out."""
    offset = (tf.cast(epoch, tf.float64) + float(seed % 2**20)) * 0.6180339887498949
    return offset - tf.floor(offset)
