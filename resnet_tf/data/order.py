"""Order of training examples: shuffled, balanced between classes, repeated.

Each order is a function of (seed, epoch, position), so that any position is reached without the positions before it.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config

# Exponent of a class's count in its sampling probability (Kang et al., Decoupling, 2020, sec. 4.1).
_POWERS = {"sqrt": 0.5, "uniform": 0.0}
# Of the block cipher that permutes the numbers. With the 4 of `tf.random.experimental.index_shuffle`, the orders of two
# epochs of 50,000 examples correlate by up to 0.7, and batches of small splits may hold one class only.
_ROUNDS = 12


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
        """Return the examples of a batch, which may span two passes, each with a permutation of its own."""
        passes, within = positions // length, positions % length // config.augment.repeats
        return pick(_shuffle(within, last, (seed, passes, passes)), passes)

    return examples


def pass_length(config: Config, num_examples: int, positions_per_epoch: int) -> int:
    """Return the number of positions in which every example occurs once, or `augment.repeats` times.

    Passes are epochs, which omit the examples beyond the last complete batch. Where an epoch has a batch for these
    examples, the batch continues with the next pass, so that all examples occur equally often in a run.
    """
    return positions_per_epoch if positions_per_epoch <= num_examples else num_examples * config.augment.repeats


def _shuffle(index: tf.Tensor, last: tf.Tensor, seeds: tuple[int | tf.Tensor, ...]) -> tf.Tensor:
    """Return numbers in [0, last] permuted as three seeds determine, int64 [n].

    Args:
        index: the numbers, int64 [n].
        last: int64 scalar, or one for each number.
        seeds: int64 scalars, or one for each number.
    """
    each = [tf.broadcast_to(tf.convert_to_tensor(seed, tf.int64), tf.shape(index)) for seed in seeds]
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=tf.stack(each, axis=1), max_index=last, rounds=_ROUNDS)


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
        member = _shuffle(rank, size - 1, (seed, epoch, tf.cast(label, tf.int64)))  # by class and epoch
        return tf.gather(members, tf.gather(first_member, label) + member)

    return pick


def _offset(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Return the offset of an epoch, float64 in [0, 1): multiples of the golden ratio are spread out."""
    offset = (tf.cast(epoch, tf.float64) + float(seed % 2**20)) * 0.6180339887498949
    return offset - tf.floor(offset)
