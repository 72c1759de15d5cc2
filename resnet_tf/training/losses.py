"""Training losses of single-label targets: cross-entropy, sigmoid, focal, and distillation."""

import math

import numpy as np
import tensorflow as tf

from resnet_tf.config import LossConfig
from resnet_tf.core.errors import UserError
from resnet_tf.core.targets import SINGLE_LABEL

# Largest difference of logits for which divergences are computed from the differences.
_NEAR = 0.5
# Coefficients of (exp(d) - 1 - d) / d^2, the highest power first.
_SERIES = [1 / math.factorial(power) for power in range(9, 1, -1)]


class Objective:
    """Training loss per example, with class weights, logit adjustment and distillation.

    Args:
        config: the `loss` group of a configuration.
        class_counts: number of training examples of each class, int [C], for class weights and logit adjustment.

    Raises:
        UserError: if `loss.logit_adjustment` is combined with `loss.name=binary`, or for a loss of multi-label targets.
    """

    def __init__(self, config: LossConfig, class_counts: np.ndarray):
        if config.name not in _LOSSES:
            raise UserError(
                f"loss.name={config.name} is a multi-label loss, and each example has one class; expected one of "
                f"{', '.join(_LOSSES)}"
            )
        if config.logit_adjustment and config.name == "binary":
            raise UserError(
                "loss.logit_adjustment is for softmax losses; loss.name=binary has one sigmoid for each class"
            )
        self._config = config
        self._weights = class_weights(config, class_counts)
        # Menon et al. 2020. A class without an example counts as one example, so that the logarithm is finite.
        priors = np.maximum(class_counts, 1) / max(class_counts.sum(), 1)
        self._offsets = (config.logit_adjustment * np.log(priors)).astype(np.float32)

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, teacher_logits: tf.Tensor | None = None) -> tf.Tensor:
        """Return the loss of each example, float32 [B].

        The caller averages over the *global* batch. Keras's mean over replicas would be wrong for replicas with batches
        of different sizes.

        Args:
            targets: proportion of each class, float32 [B, C].
            logits: logits of the model, float32 [B, C].
            teacher_logits: logits of the teacher, float32 [B, C]; None without distillation. The Kullback-Leibler
                divergence from the teacher is multiplied by the squared temperature, which keeps the scale of the
                gradients independent of the temperature (Hinton et al. 2015, sec. 2).
        """
        unadjusted_logits = logits  # a teacher's logits have no logit adjustment
        weights = tf.linalg.matvec(targets, self._weights)
        targets = SINGLE_LABEL.smooth(targets, self._config.label_smoothing)
        if self._config.logit_adjustment:
            logits = logits + self._offsets
        losses = weights * _LOSSES[self._config.name](targets, logits, self._config)
        if teacher_logits is None:
            return losses
        weight, temperature = self._config.teacher_weight, self._config.temperature
        divergence = _divergence(teacher_logits / temperature, unadjusted_logits / temperature) * temperature**2
        return (1.0 - weight) * losses + weight * divergence


def class_weights(config: LossConfig, class_counts: np.ndarray) -> np.ndarray:
    """Return the weight of each class, float32 [C].

    - `none`: 1.
    - `inverse`: proportional to 1 / count, with mean 1 over the examples.
    - `effective`: proportional to (1 - beta) / (1 - beta^count), with mean 1 over the classes that have examples (Cui
      et al. 2019, Class-Balanced Loss).

    With `inverse` and `effective`, a class without an example has weight 0.
    """
    counts = class_counts.astype(np.float64)
    present = counts > 0
    if config.class_weights == "none":
        weights = np.ones_like(counts)
    elif config.class_weights == "inverse":
        weights = np.divide(counts.sum() / present.sum(), counts, out=np.zeros_like(counts), where=present)
    else:
        # The constant factor 1 - beta cancels in the normalization. The logarithm keeps digits that 1 - beta^count has
        # not: for beta near 1 it is proportional to the counts. A beta of 0 gives equal weights.
        effective = -np.expm1(counts * np.log(max(config.effective_beta, np.finfo(float).tiny)))
        weights = np.divide(1.0, effective, out=np.zeros_like(counts), where=present)
        weights *= present.sum() / weights.sum()
    return weights.astype(np.float32)


def _divergence(teacher_logits: tf.Tensor, student_logits: tf.Tensor) -> tf.Tensor:
    """Return the Kullback-Leibler divergence KL(teacher || student), float32 [B].

    At a high temperature, the difference of two logarithms would have no digits left, and the squared temperature would
    multiply its rounding error. There, the divergence is computed from the small differences d of the logits, centered
    so that their mean under the teacher is 0: as log1p of the mean of exp(d) - 1 - d.
    """
    teacher, student = tf.nn.log_softmax(teacher_logits), tf.nn.log_softmax(student_logits)
    chances = tf.exp(teacher)
    far = tf.reduce_sum(chances * (teacher - student), axis=-1)
    differences = student_logits - teacher_logits
    differences -= tf.reduce_sum(chances * differences, axis=-1, keepdims=True)
    is_near = tf.reduce_max(tf.abs(differences), axis=-1) < _NEAR
    # The unused branch must be finite, as its gradient is multiplied by 0.
    differences = tf.where(is_near[:, tf.newaxis], differences, 0.0)
    remainder = tf.square(differences) * tf.math.polyval(_SERIES, differences)  # exp(d) - 1 - d
    near = tf.math.log1p(tf.reduce_sum(chances * remainder, axis=-1))
    return tf.where(is_near, near, far)


def _cross_entropy(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def binary_targets(targets: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """Return targets, float32 [B, C], that are 1 above `loss.target_threshold` and 0 up to it, or unchanged."""
    threshold = config.target_threshold
    return tf.cast(targets > threshold, targets.dtype) if threshold and config.name == "binary" else targets


def _binary(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """Return sigmoid cross-entropy averaged over classes, as in timm (Wightman et al. 2021, ResNet strikes back)."""
    targets = binary_targets(targets, config)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


def _focal(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """Return the softmax focal loss (Lin et al. 2017).

    The power of 1 - p is computed from its logarithm: the derivative of a power below 1 is infinite at p = 1, and
    multiplied there by log p = 0.
    """
    log_probabilities = tf.nn.log_softmax(logits)
    modulation = tf.exp(config.focal_gamma * _log_complement(logits, log_probabilities))
    return tf.reduce_sum(targets * modulation * -log_probabilities, axis=-1)


def _log_complement(logits: tf.Tensor, log_probabilities: tf.Tensor) -> tf.Tensor:
    """Return log(1 - p) of each class, float32 [B, C], finite with bounded gradients for all finite logits."""
    is_largest = tf.one_hot(tf.argmax(logits, axis=-1), logits.shape[-1], on_value=True, off_value=False)
    # 1 - p has no digits left for the most probable class: it is the sum over the other ones.
    others = tf.reduce_logsumexp(tf.where(is_largest, logits.dtype.min / 4, logits), axis=-1, keepdims=True)
    largest = others - tf.reduce_logsumexp(logits, axis=-1, keepdims=True)
    smaller = tf.math.log1p(-tf.exp(tf.where(is_largest, -1.0, log_probabilities)))  # at most 1/2
    return tf.where(is_largest, largest, smaller)


_LOSSES = {"cross_entropy": _cross_entropy, "binary": _binary, "focal": _focal}
