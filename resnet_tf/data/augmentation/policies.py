"""Which operations a picture gets, and how strongly: RandAugment, TrivialAugment and AutoAugment.

Operations, magnitudes and their bins are those of torchvision's `transforms.autoaugment`. References: Cubuk et al.,
RandAugment, 2019; Mueller and Hutter, TrivialAugment, 2021; Cubuk et al., AutoAugment, 2018, tables 7 and 9.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from resnet_tf.data.augmentation.operations import NAMES

Uniform = Mapping[str, tf.Tensor]

# The most operations that one picture gets, and the random numbers that each of them uses.
MAX_LAYERS = 4
USES = ("choice", "strength", "sign")
COLUMNS = tuple(f"policy_{use}_{layer}" for layer in range(MAX_LAYERS) for use in USES)

RANDAUGMENT_BINS = 31
_COMMON = tuple(name for name in NAMES if name != "Invert")
_SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")


def draw(
    policy: str, uniform: Uniform, size: tuple[int, int], *, layers: int, magnitude: int
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The operations of a batch, one after another: int32 [B], places in `operations.NAMES`, and magnitudes [B].

    Args:
        policy: `randaugment`, `trivialaugment`, `autoaugment_imagenet` or `autoaugment_cifar10`.
        uniform: float32 [B] in [0, 1) for each of `COLUMNS`.
        size: (height, width) of the pictures: translations are shares of it.
        layers: operations a picture, for RandAugment.
        magnitude: strength from 0 to 30, for RandAugment.
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
        yield from _draw_learned(_LEARNED[policy], uniform, size)


def _draw_learned(
    policies: Sequence[tuple], uniform: Uniform, size: tuple[int, int]
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """One pair of operations of a learned list, each done with the probability that belongs to it."""
    table = _magnitudes(10, size)
    row = tf.cast(uniform["policy_choice_0"] * len(policies), tf.int32)
    for layer in range(2):
        names, probabilities, strengths = zip(*(pair[layer] for pair in policies), strict=True)
        operations = tf.gather(tf.constant([NAMES.index(name) for name in names]), row)
        skipped = uniform[f"policy_strength_{layer}"] >= tf.gather(tf.constant(probabilities), row)
        strength = tf.gather(tf.constant(strengths), row)
        magnitudes = _strength(table, operations, strength, uniform[f"policy_sign_{layer}"])
        yield tf.where(skipped, NAMES.index("Identity"), operations), magnitudes


def _pick(uniform: tf.Tensor) -> tf.Tensor:
    """All operations equally often."""
    places = tf.constant([NAMES.index(name) for name in _COMMON])
    return tf.gather(places, tf.cast(uniform * len(_COMMON), tf.int32))


def _strength(table: np.ndarray, operations: tf.Tensor, bins: tf.Tensor | int, sign: tf.Tensor) -> tf.Tensor:
    """The magnitude in an operation's bin, turned round half of the time where that has a meaning."""
    bins = tf.zeros_like(operations) + bins
    values = tf.gather_nd(tf.constant(table, tf.float32), tf.stack([operations, bins], axis=1))
    signed = tf.gather(tf.constant([name in _SIGNED for name in NAMES]), operations)
    return tf.where(signed & (sign < 0.5), -values, values)


def _magnitudes(bins: int, size: tuple[int, int]) -> np.ndarray:
    """[operations, bins]: from no effect to the strongest."""
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
    rows = {name: value * steps for name, value in strongest.items()}
    rows["Posterize"] = 8 - np.round(steps * (8 - fewest_bits))
    rows["Solarize"] = 255.0 * (1 - steps)
    return np.stack([rows.get(name, np.zeros(bins)) for name in NAMES])


# Pairs of (operation, probability, bin of 10).
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
_LEARNED = {"autoaugment_imagenet": _IMAGENET, "autoaugment_cifar10": _CIFAR10}
