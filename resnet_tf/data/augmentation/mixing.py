"""Mixup and cutmix: each picture with its partner, and the labels likewise.

Where a picture is mixed follows from its place in the run alone, and its partner is a neighbor in the batch, so that a
batch can be divided among workers and replicas. The pipeline draws, the training step mixes: on the accelerator that
costs nothing, and the pictures travel as bytes.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from resnet_tf.config import AugmentConfig
from resnet_tf.data.augmentation.transforms import MIX_STREAM, random_numbers

_LEVELS = 4096


def wanted(config: AugmentConfig) -> bool:
    """Whether a recipe mixes at all."""
    return config.mix_probability > 0 and (config.mixup > 0 or config.cutmix > 0)


def group_size(config: AugmentConfig) -> int:
    """A replica's share of a batch must be a multiple of this: pictures are paired within groups."""
    return 2 * config.repeats if wanted(config) else 1


def draw(seed: int, first: tf.Tensor, count: int, config: AugmentConfig, size: tuple[int, ...]) -> tf.Tensor:
    """How `count` pictures from place `first` (int64) of the run on are mixed, float32 [count, 5].

    Columns: weight of the picture itself, then top, bottom, left and right of the box that is its partner's. Mixup has
    an empty box, cutmix the weight 1. With both in the recipe, half of the pictures get the one and half the other.
    """
    numbers = random_numbers(seed, first, count, uses=5, stream=MIX_STREAM)
    applied, which, share, row, column = tf.unstack(numbers, axis=1)
    use_cutmix = which < (0.5 if config.mixup else 1.0) if config.cutmix else tf.zeros_like(which, tf.bool)
    mixed = applied < config.mix_probability
    weight = tf.where(mixed & ~use_cutmix, _beta(share, config.mixup), 1.0) if config.mixup else tf.ones_like(share)
    if not config.cutmix:
        return tf.stack([weight, *4 * [tf.zeros_like(weight)]], axis=1)
    side = tf.where(mixed & use_cutmix, tf.sqrt(1.0 - _beta(share, config.cutmix)), 0.0)
    return tf.stack([weight, *_box(row, side, size[0]), *_box(column, side, size[1])], axis=1)


def blend(images: tf.Tensor, mix: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Pictures float32 [B, H, W, C], or signals [B, L, C], mixed with their partners as `draw` said."""
    if config.cutmix:
        own = _own_shares(mix, images.shape[1:3])
    else:
        own = tf.reshape(mix[:, 0], [-1, *[1] * (images.shape.rank - 1)])
    return own * images + (1.0 - own) * tf.gather(images, _partners(tf.shape(images)[0], config))


def _own_shares(mix: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """How much of each pixel is the picture's own, float32 [B, H, W, 1]."""
    row, column = (tf.range(length, dtype=tf.float32)[None, :] for length in size)
    weight, top, bottom, left, right = (part[:, None] for part in tf.unstack(mix, axis=1))
    inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]
    return tf.where(inside, 0.0, weight[:, :, None])[..., None]


def targets(
    labels: tf.Tensor, mix: tf.Tensor, config: AugmentConfig, *, num_classes: int, size: tuple[int, ...]
) -> tf.Tensor:
    """Labels int64 [B] -> float32 [B, C]: each class has the share of the pixels that are its own."""
    weight, top, bottom, left, right = tf.unstack(mix, axis=1)
    own = weight * (1.0 - (bottom - top) * (right - left) / float(math.prod(size)))
    one_hot = tf.one_hot(labels, num_classes)
    return own[:, None] * one_hot + (1.0 - own)[:, None] * tf.gather(one_hot, _partners(tf.shape(labels)[0], config))


def _partners(count: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Neighboring runs of `repeats` pictures, which show one example each, change places."""
    place = tf.range(count)
    step = config.repeats
    return tf.where(place // step % 2 == 0, place + step, place - step)


def _box(center: tf.Tensor, side: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Begin and end, in pixels, of a share `side` of a length about a random center, cut to the picture."""
    pixels, middle = tf.floor(side * length), tf.floor(center * length)
    begin = middle - tf.floor(pixels / 2)
    return tuple(tf.clip_by_value(edge, 0.0, float(length)) for edge in (begin, begin + pixels))


def _beta(uniform: tf.Tensor, alpha: float) -> tf.Tensor:
    """Beta(alpha, alpha) numbers from uniform ones, by the inverse of its distribution function."""
    quantiles = tf.constant(_beta_quantiles(alpha), tf.float32)
    place = uniform * _LEVELS
    below = tf.minimum(tf.cast(place, tf.int32), _LEVELS - 1)
    low, high = tf.gather(quantiles, below), tf.gather(quantiles, below + 1)
    return low + (high - low) * (place - tf.cast(below, tf.float32))


@functools.cache
def _beta_quantiles(alpha: float) -> np.ndarray:
    """At 0, 1/n, ..., 1: bisection of the regularized incomplete beta function."""
    wanted_share = np.linspace(0.0, 1.0, _LEVELS + 1)
    with tf.init_scope(), tf.device("CPU"):
        low, high = np.zeros(_LEVELS + 1), np.ones(_LEVELS + 1)
        for _ in range(60):
            middle = (low + high) / 2
            below = tf.math.betainc(np.float64(alpha), np.float64(alpha), middle).numpy() < wanted_share
            low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
