"""Mixup and cutmix: blending of each example, and of its label, with a partner in the batch.

Random numbers depend only on the seed and on the position in the run, and partners are neighbors in the batch, so that
a batch can be divided among workers and replicas. The input pipeline samples the numbers; the training step blends on
the accelerator, so that images are transferred as uint8.

References: Zhang et al., mixup, 2018; Yun et al., CutMix, 2019.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from resnet_tf.config import AugmentConfig
from resnet_tf.core.targets import targets_of
from resnet_tf.data.augmentation.transforms import MIX_STREAM, random_numbers

_QUANTILES = 4096  # intervals of the tabulated quantile function of the Beta distribution


def is_enabled(config: AugmentConfig) -> bool:
    """Return True if the configuration mixes any examples."""
    return config.mix_probability > 0 and (config.mixup > 0 or config.cutmix > 0)


def group_size(config: AugmentConfig) -> int:
    """Return the divisor that the batch size of each replica must have: pairs are formed within such groups."""
    return 2 * config.repeats if is_enabled(config) else 1


def sample(seed: int, first: tf.Tensor, count: int, config: AugmentConfig, size: tuple[int, ...]) -> tf.Tensor:
    """Sample the mixing of consecutive examples of a run.

    Mixup has an empty box; cutmix has weight 1. With both enabled, each applies to half of the mixed examples.

    Args:
        seed: seed of the run.
        first: position of the first example in the run, an int64 scalar.
        count: number of examples.
        config: its `mixup`, `cutmix` and `mix_probability` apply.
        size: (height, width) of images or (length,) of signals.

    Returns:
        float32 [count, 5]: weight of the example itself in [0, 1]; top, bottom, left and right, in pixels, of the box
        that the partner fills.
    """
    numbers = random_numbers(seed, first, count, uses=5, stream=MIX_STREAM)
    applied, method, quantile, row, column = tf.unstack(numbers, axis=1)
    use_cutmix = method < (0.5 if config.mixup else 1.0) if config.cutmix else tf.zeros_like(method, tf.bool)
    mixed = applied < config.mix_probability
    weight = tf.where(mixed & ~use_cutmix, _beta(quantile, config.mixup), 1.0) if config.mixup else tf.ones_like(method)
    if not config.cutmix:
        return tf.stack([weight, *4 * [tf.zeros_like(weight)]], axis=1)
    extent = tf.where(mixed & use_cutmix, tf.sqrt(1.0 - _beta(quantile, config.cutmix)), 0.0)
    return tf.stack([weight, *_box(row, extent, size[0]), *_box(column, extent, size[1])], axis=1)


def blend(examples: tf.Tensor, mix: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Mix examples with their partners.

    Args:
        examples: images float32 [B, H, W, C], or signals float32 [B, L, C].
        mix: random numbers from `sample`, float32 [B, 5].
        config: the configuration that `sample` had.

    Returns:
        Mixed examples, of the shape of `examples`.
    """
    if config.cutmix:
        own = _pixel_weights(mix, examples.shape[1:3])
    else:
        own = tf.reshape(mix[:, 0], [-1, *[1] * (examples.shape.rank - 1)])
    return own * examples + (1.0 - own) * tf.gather(examples, _partners(tf.shape(examples)[0], config))


def _pixel_weights(mix: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Return the weight of the image itself at each pixel, float32 [B, H, W, 1]."""
    row, column = (tf.range(length, dtype=tf.float32)[None, :] for length in size)
    weight, top, bottom, left, right = (part[:, None] for part in tf.unstack(mix, axis=1))
    inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]
    return tf.where(inside, 0.0, weight[:, :, None])[..., None]


def targets(
    labels: tf.Tensor, mix: tf.Tensor, config: AugmentConfig, *, num_classes: int, size: tuple[int, ...]
) -> tf.Tensor:
    """Return the proportion of each class in mixed examples.

    Args:
        labels: int64 [B], or bool [B, num_classes], see `core.targets`.
        mix: random numbers from `sample`, float32 [B, 5].
        config: the configuration that `sample` had.
        num_classes: number of classes.
        size: (height, width) of images or (length,) of signals.

    Returns:
        float32 [B, num_classes]; each row sums to 1, or is the union of both examples' classes for bool labels.
    """
    weight, top, bottom, left, right = tf.unstack(mix, axis=1)
    own = weight * (1.0 - (bottom - top) * (right - left) / float(math.prod(size)))
    form = targets_of(labels)
    encoded = form.encode(labels, num_classes)
    return form.mix(encoded, tf.gather(encoded, _partners(tf.shape(labels)[0], config)), own[:, None])


def _partners(count: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Return the index of each example's partner, int32 [count].

    Copies of one example (`repeats`) are adjacent; adjacent groups of copies are partners, so that no example is mixed
    with itself.
    """
    index = tf.range(count)
    step = config.repeats
    return tf.where(index // step % 2 == 0, index + step, index - step)


def _box(center: tf.Tensor, extent: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return start and end, in pixels, of an interval on an axis, clipped to [0, length].

    Both `center` and `extent` are fractions of `length`, float32 [B].
    """
    pixels, middle = tf.floor(extent * length), tf.floor(center * length)
    start = middle - tf.floor(pixels / 2)
    return tuple(tf.clip_by_value(edge, 0.0, float(length)) for edge in (start, start + pixels))


def _beta(uniform: tf.Tensor, alpha: float) -> tf.Tensor:
    """Transform uniform numbers in [0, 1) to Beta(alpha, alpha), by linear interpolation of the quantile function."""
    quantiles = tf.constant(_beta_quantiles(alpha), tf.float32)
    position = uniform * _QUANTILES
    below = tf.minimum(tf.cast(position, tf.int32), _QUANTILES - 1)
    low, high = tf.gather(quantiles, below), tf.gather(quantiles, below + 1)
    return low + (high - low) * (position - tf.cast(below, tf.float32))


@functools.cache
def _beta_quantiles(alpha: float) -> np.ndarray:
    """Return quantiles at 0, 1/n, ..., 1, by bisection of the regularized incomplete beta function."""
    probabilities = np.linspace(0.0, 1.0, _QUANTILES + 1)
    with tf.init_scope(), tf.device("CPU"):
        low, high = np.zeros(_QUANTILES + 1), np.ones(_QUANTILES + 1)
        for _ in range(60):
            middle = (low + high) / 2
            below = tf.math.betainc(np.float64(alpha), np.float64(alpha), middle).numpy() < probabilities
            low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
