"""Training losses: cross-entropy, sigmoid, focal, and distillation."""

import numpy as np
import tensorflow as tf

from resnet_tf.config import LossConfig
from resnet_tf.core.errors import UserError


class Objective:
    """Loss of each example, configured by the `loss` group.

    Args:
        config: the `loss` group.
        class_counts: examples of each class in the training split, int [C], for class weights and logit adjustment.

    Raises:
        UserError: for keys that exclude each other.
    """

    def __init__(self, config: LossConfig, class_counts: np.ndarray):
        if config.logit_adjustment and config.name == "binary":
            raise UserError(
                "loss.logit_adjustment is for softmax losses; loss.name=binary has one sigmoid for each class"
            )
        self._config = config
        self._weights = class_weights(config, class_counts)
        priors = np.maximum(class_counts, 1) / max(class_counts.sum(), 1)
        self._offsets = (config.logit_adjustment * np.log(priors)).astype(np.float32)

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, teacher_logits: tf.Tensor | None = None) -> tf.Tensor:
        """Return the losses, float32 [B].

        The caller averages over the *global* batch: Keras's reduction weighs replicas equally even if their batches
        differ in size.

        Args:
            targets: proportion of each class, float32 [B, C].
            logits: float32 [B, C].
            teacher_logits: float32 [B, C], or None. Their Kullback-Leibler divergence is multiplied by the squared
                temperature, so that its gradients have the same scale at any temperature (Hinton et al. 2015, sec. 2).
        """
        smoothing, classes = self._config.label_smoothing, logits.shape[-1]
        student_logits = logits
        weights = tf.linalg.matvec(targets, self._weights)
        targets = targets * (1.0 - smoothing) + smoothing / classes  # Szegedy et al. 2015
        if self._config.logit_adjustment:
            logits = logits + self._offsets
        losses = weights * _LOSSES[self._config.name](targets, logits, self._config)
        if teacher_logits is None:
            return losses
        weight, temperature = self._config.teacher_weight, self._config.temperature
        divergence = _divergence(teacher_logits / temperature, student_logits / temperature) * temperature**2
        return (1.0 - weight) * losses + weight * divergence


def class_weights(config: LossConfig, class_counts: np.ndarray) -> np.ndarray:
    """Return the weight of each class, float32 [C].

    `inverse` weights have equal sums per class and mean 1 over the examples. `effective` weights are proportional to
    (1 - beta) / (1 - beta^count) and have mean 1 over the classes (Cui et al. 2019, Class-Balanced Loss). Classes
    without an example have weight 0.
    """
    counts = class_counts.astype(np.float64)
    present = counts > 0
    if config.class_weights == "none":
        weights = np.ones_like(counts)
    elif config.class_weights == "inverse":
        weights = np.divide(counts.sum() / present.sum(), counts, out=np.zeros_like(counts), where=present)
    else:
        numbers = 1.0 - config.effective_beta**counts if config.effective_beta < 1 else counts
        weights = np.divide(1.0, numbers, out=np.zeros_like(counts), where=present)
        weights *= present.sum() / weights.sum()
    return weights.astype(np.float32)


def _divergence(teacher_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the Kullback-Leibler divergence KL(teacher || student), float32 [B]."""
    logs = tf.nn.log_softmax(teacher_logits)
    return tf.reduce_sum(tf.exp(logs) * (logs - tf.nn.log_softmax(logits)), axis=-1)


def _cross_entropy(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def _binary(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """Return sigmoid cross-entropy averaged over classes, as in timm (Wightman et al. 2021, ResNet strikes back)."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


def _focal(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    logs = tf.nn.log_softmax(logits)
    return -tf.reduce_sum(targets * (1.0 - tf.exp(logs)) ** config.focal_gamma * logs, axis=-1)


_LOSSES = {"cross_entropy": _cross_entropy, "binary": _binary, "focal": _focal}
