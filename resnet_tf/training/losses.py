"""What training minimizes."""

import numpy as np
import tensorflow as tf

from resnet_tf.config import LossConfig
from resnet_tf.core.errors import UserError


class Objective:
    """The loss of each example, by `loss.name` and the other keys of its group.

    Args:
        config: the group's keys.
        class_counts: int [C], examples of each class in the training split, for class weights and logit adjustment.

    Raises:
        UserError: if the keys do not go together.
    """

    def __init__(self, config: LossConfig, class_counts: np.ndarray):
        if config.logit_adjustment and config.name == "binary":
            raise UserError(
                "loss.logit_adjustment is for softmax losses; loss.name=binary has one sigmoid for each class"
            )
        self._config = config
        self._weights = class_weights(config, class_counts)
        shares = np.maximum(class_counts, 1) / max(class_counts.sum(), 1)
        self._offsets = (config.logit_adjustment * np.log(shares)).astype(np.float32)

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, taught: tf.Tensor | None = None) -> tf.Tensor:
        """From targets, the share of each class, and logits, both float32 [B, C], to losses, float32 [B].

        `taught`, the teacher's logits, float32 [B, C], are learnt by their divergence, times the temperature's square,
        so that it weighs the same at any temperature (Hinton et al. 2015, sec. 2).

        The mean over the *global* batch is the caller's to take: Keras's own reduction would weigh replicas equally
        even where their batches differ.
        """
        smoothing, classes = self._config.label_smoothing, logits.shape[-1]
        own = logits
        weights = tf.linalg.matvec(targets, self._weights)
        targets = targets * (1.0 - smoothing) + smoothing / classes  # Szegedy et al. 2015
        if self._config.logit_adjustment:
            logits = logits + self._offsets
        losses = weights * _LOSSES[self._config.name](targets, logits, self._config)
        if taught is None:
            return losses
        share, temperature = self._config.teacher_weight, self._config.temperature
        divergence = _divergence(taught / temperature, own / temperature) * temperature**2
        return (1.0 - share) * losses + share * divergence


def class_weights(config: LossConfig, class_counts: np.ndarray) -> np.ndarray:
    """How much each class counts, float32 [C].

    `inverse` gives every class the same sum, with mean 1 over the examples. `effective` goes by (1 - beta) /
    (1 - beta^count), with mean 1 over the classes (Cui et al. 2019, Class-Balanced Loss). Classes without an example
    have weight 0.
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


def _divergence(taught: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Kullback and Leibler's, of the student from the teacher."""
    logs = tf.nn.log_softmax(taught)
    return tf.reduce_sum(tf.exp(logs) * (logs - tf.nn.log_softmax(logits)), axis=-1)


def _cross_entropy(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def _binary(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """The mean over the classes, as timm takes it (Wightman et al. 2021, ResNet strikes back)."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


def _focal(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    logs = tf.nn.log_softmax(logits)
    return -tf.reduce_sum(targets * (1.0 - tf.exp(logs)) ** config.focal_gamma * logs, axis=-1)


_LOSSES = {"cross_entropy": _cross_entropy, "binary": _binary, "focal": _focal}
