"""Whitening stem: a convolution with fixed kernels, computed from training examples."""

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.model.network import ResidualNetwork, layers_by_name
from resnet_tf.model.options import WHITENING_KERNEL

STEM_LAYER = "stem_conv"
_EPSILON = 5e-4  # added to variances: the smallest are noise
_MIN_SNR = 10  # signal-to-noise ratio of an axis: its variance relative to that of rounding to bfloat16


def is_whitening(layer: keras.Layer) -> bool:
    """Return True for the convolution of a whitening stem, also for a copy as part of another model."""
    is_stem = isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D) and STEM_LAYER in layer.name
    return is_stem and set(layer.kernel_size) == {WHITENING_KERNEL}  # other stems have larger kernels


def has_whitening_stem(model: ResidualNetwork) -> bool:
    """Return whether the kernels of the stem are computed from examples."""
    return model.arch is not None and model.arch.stem == "whitening"


def whiten_stem(model: ResidualNetwork, examples: np.ndarray) -> None:
    """Set the kernels of a whitening stem, which training leaves unchanged, from training examples.

    Args:
        model: network with `stem="whitening"`.
        examples: normalized model inputs, float [N, H, W, C] or [N, L, C]; a few hundred are enough.

    Reference: Jordan, 94% on CIFAR-10 in 3.29 seconds, 2024, sec. 3.1; the stem is by Page and by tysam-code.
    """
    convolution = layers_by_name(model)[STEM_LAYER]
    convolution.kernel.assign(whitening_kernel(np.asarray(examples, np.float32)))


def whitening_kernel(examples: np.ndarray) -> np.ndarray:
    """Return the kernel [k, k, C, 2 k k C], or [k, C, 2 k C], whose outputs on patches of the examples are white.

    The first half of the outputs are the principal axes of the patches, each scaled to a variance of 1, the axis of
    the largest variance first; the second half are their negatives, so that ReLU loses nothing. The kernels of axes
    without variance, such as the color axes of gray images, are zero: they would amplify rounding errors of bfloat16,
    which the network would fit in training, and which are absent when it is evaluated in float32.
    """
    space = tuple(range(1, examples.ndim - 1))
    size = (WHITENING_KERNEL,) * len(space)
    windows = np.lib.stride_tricks.sliding_window_view(examples, size, space)
    patches = np.moveaxis(windows, examples.ndim - 1, -1)  # [N, H - 1, W - 1, k, k, C]
    shape = patches.shape[-len(size) - 1 :]
    vectors = patches.reshape(-1, np.prod(shape))
    variances, axes = np.linalg.eigh(np.cov(vectors, rowvar=False))
    errors = vectors - vectors.astype(tf.bfloat16.as_numpy_dtype).astype(np.float32)
    has_signal = variances > _MIN_SNR * np.mean((errors @ axes) ** 2, axis=0)
    scales = np.where(has_signal, 1 / np.sqrt(np.maximum(variances, 0) + _EPSILON), 0)
    whitening = (axes * scales)[:, ::-1]
    return np.concatenate([whitening, -whitening], axis=1).reshape(*shape, -1).astype(np.float32)
