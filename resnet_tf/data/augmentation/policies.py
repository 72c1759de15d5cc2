"""Augmentation policies: random operations and magnitudes of RandAugment, TrivialAugment and AutoAugment.

Operations, magnitudes and bins are those of torchvision's `transforms.autoaugment`.

References: Cubuk et al., RandAugment, 2019; Mueller and Hutter, TrivialAugment, 2021; Cubuk et al., AutoAugment, 2018,
tables 7 and 9.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from resnet_tf.data.augmentation.operations import NAMES

# Random numbers in [0, 1), float32 [B], by their use.
Uniform = Mapping[str, tf.Tensor]

# Largest number of operations on one image, and the random numbers of each operation.
MAX_LAYERS = 4
USES = ("choice", "strength", "sign")
COLUMNS = tuple(f"policy_{use}_{layer}" for layer in range(MAX_LAYERS) for use in USES)

RANDAUGMENT_BINS = 31
_COMMON = tuple(name for name in NAMES if name != "Invert")
_SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")


def sample(
    policy: str, uniform: Uniform, size: tuple[int, int], *, layers: int, magnitude: int
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Sample the operations of a batch, layer by layer.

    Args:
        policy: `randaugment`, `trivialaugment`, `autoaugment_imagenet` or `autoaugment_cifar10`.
        uniform: random numbers in [0, 1), float32 [B], for each of `COLUMNS`.
        size: (height, width) of the images, in pixels; translations are proportional to it.
        layers: number of operations on each image, for RandAugment.
        magnitude: bin of the magnitude, from 0 to 30, for RandAugment.

    Yields:
        Operations, int32 [B], as indices in `operations.NAMES`, and their magnitudes, float32 [B].
    """
    if policy == "randaugment":
        table = _magnitudes(RANDAUGMENT_BINS, size)
        for layer in range(layers):
            operations = _pick(uniform[f"policy_choice_{layer}"])
            yield operations, _strength(table, operations, magnitude, uniform[f"policy_sign_{layer}"])
    elif policy == "trivialaugment":
        operations = _pick(uniform["policy_choice_0"])
        strength = tf.cast(uniform["policy_strength_0"] * RANDAUGMENT_BINS, tf.int32)
        yield operations, _strength(_wide_magnitudes(), operations, strength, uniform["policy_sign_0"])
    else:
        yield from _sample_autoaugment(_AUTOAUGMENT[policy], uniform, size)


def _sample_autoaugment(
    policies: Sequence[tuple], uniform: Uniform, size: tuple[int, int]
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Sample one of the sub-policies; each of its two operations is applied with its own probability."""
    table = _magnitudes(10, size)
    index = tf.cast(uniform["policy_choice_0"] * len(policies), tf.int32)
    for layer in range(2):
        names, probabilities, strengths = zip(*(pair[layer] for pair in policies), strict=True)
        operations = tf.gather(tf.constant([NAMES.index(name) for name in names]), index)
        skipped = uniform[f"policy_strength_{layer}"] >= tf.gather(tf.constant(probabilities), index)
        strength = tf.gather(tf.constant(strengths), index)
        magnitudes = _strength(table, operations, strength, uniform[f"policy_sign_{layer}"])
        yield tf.where(skipped, NAMES.index("Identity"), operations), magnitudes


def _pick(uniform: tf.Tensor) -> tf.Tensor:
    """Sample operations with equal probability, int32 [B]."""
    indices = tf.constant([NAMES.index(name) for name in _COMMON])
    return tf.gather(indices, tf.cast(uniform * len(_COMMON), tf.int32))


def _strength(table: np.ndarray, operations: tf.Tensor, bins: tf.Tensor | int, sign: tf.Tensor) -> tf.Tensor:
    """Return the magnitudes of operations, float32 [B]; operations with a direction get a random sign."""
    bins = tf.zeros_like(operations) + bins
    values = tf.gather_nd(tf.constant(table, tf.float32), tf.stack([operations, bins], axis=1))
    signed = tf.gather(tf.constant([name in _SIGNED for name in NAMES]), operations)
    return tf.where(signed & (sign < 0.5), -values, values)


def _magnitudes(bins: int, size: tuple[int, int]) -> np.ndarray:
    """Return the magnitudes of RandAugment and AutoAugment, float64 [operations, bins], by increasing strength."""
    height, width = size
    strongest = {
        "ShearX": 0.3,
        "ShearY": 0.3,
        "TranslateX": 150 / 331 * width,
        "TranslateY": 150 / 331 * height,
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.9),
        "Rotate": 30.0,
    }
    return _table(bins, strongest, fewest_bits=4)


def _wide_magnitudes() -> np.ndarray:
    """Return the magnitudes of TrivialAugment, float64 [operations, bins], by increasing strength."""
    strongest = {
        "ShearX": 0.99,
        "ShearY": 0.99,
        "TranslateX": 32.0,
        "TranslateY": 32.0,
        "Rotate": 135.0,
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.99),
    }
    return _table(RANDAUGMENT_BINS, strongest, fewest_bits=2)


def _table(bins: int, strongest: Mapping[str, float], *, fewest_bits: int) -> np.ndarray:
    steps = np.arange(bins) / (bins - 1)
    magnitudes = {name: value * steps for name, value in strongest.items()}
    magnitudes["Posterize"] = 8 - np.round(steps * (8 - fewest_bits))
    magnitudes["Solarize"] = 255.0 * (1 - steps)
    return np.stack([magnitudes.get(name, np.zeros(bins)) for name in NAMES])


# Sub-policies: pairs of (operation, probability, bin of 10).
_IMAGENET = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)
_CIFAR10 = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
_AUTOAUGMENT = {"autoaugment_imagenet": _IMAGENET, "autoaugment_cifar10": _CIFAR10}
