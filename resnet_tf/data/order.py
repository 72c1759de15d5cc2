"""Which example stands at which place of a run: shuffled, balanced between classes, repeated.

Each is a function of (seed, epoch, place), so that any place is reached without those before it.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config

# Power of a class's count that its share of an epoch is proportional to (Kang et al., Decoupling, 2020, sec. 4.1).
_POWERS = {"sqrt": 0.5, "uniform": 0.0}


def examples_at(config: Config, labels: np.ndarray, *, places_per_epoch: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from places of the run, int64 [n] within one epoch, to the examples there, int64 [n].

    In each epoch every example comes at most once, or `augment.repeats` times in a row; under `data.balance` the
    classes have their shares of the epoch to within one place, and the examples of a class come equally often to within
    one.
    """
    seed, last = config.runtime.seed, tf.constant(len(labels) - 1, tf.int64)
    pick = _balanced(labels, _POWERS[config.data.balance], seed) if config.data.balance in _POWERS else _as_it_is

    def examples(places: tf.Tensor) -> tf.Tensor:
        epoch, within = places[0] // places_per_epoch, places % places_per_epoch
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        drawn = tf.random.experimental.index_shuffle(within // config.augment.repeats, epoch_seed, last)
        return pick(drawn, epoch)

    return examples


def _as_it_is(drawn: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    return drawn


def _balanced(labels: np.ndarray, power: float, seed: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Systematic sampling: [0, N) is shared out among the classes, and within each among its examples."""
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts**power * (len(labels) / np.sum(counts**power))
    ends = tf.constant(np.cumsum(shares))
    starts, widths, sizes = tf.constant(np.cumsum(shares) - shares), tf.constant(shares), tf.constant(counts, tf.int64)
    members = tf.constant(np.argsort(labels, kind="stable"), tf.int64)
    first_member = tf.constant(np.cumsum(counts) - counts, tf.int64)

    def pick(drawn: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        # Another start in every epoch: or the same examples of a large class would be left out each time.
        point = tf.cast(drawn, tf.float64) + _start(seed, epoch)
        which = tf.minimum(tf.searchsorted(ends, point, side="right"), len(classes) - 1)
        share = (point - tf.gather(starts, which)) / tf.gather(widths, which)
        size = tf.gather(sizes, which)
        rank = tf.clip_by_value(tf.cast(share * tf.cast(size, tf.float64), tf.int64), 0, size - 1)
        # Another order of its members for each class and epoch; tf.random's own function takes one seed for all.
        parts = (tf.constant(seed, tf.int64), epoch, tf.cast(which, tf.int64))
        seeds = tf.stack([tf.broadcast_to(part, tf.shape(drawn)) for part in parts], axis=1)
        place = tf.raw_ops.RandomIndexShuffle(index=rank, seed=seeds, max_index=size - 1, rounds=4)
        return tf.gather(members, tf.gather(first_member, which) + place)

    return pick


def _start(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """In [0, 1), float64, the same for all places of an epoch: multiples of the golden ratio lie apart."""
    offset = (tf.cast(epoch, tf.float64) + float(seed % 2**20)) * 0.6180339887498949
    return offset - tf.floor(offset)
