"""Training losses of multi-label targets: sigmoid cross-entropy, focal, asymmetric, and distillation."""

import numpy as np
import tensorflow as tf

from resnet_tf.config import LossConfig
from resnet_tf.core.errors import UserError
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.training.losses import binary_targets

_NEAR = 0.5  # difference of logits below which a divergence is computed from the difference


class MultiLabelObjective:
    """Training loss per example, the mean over classes, each a decision of its own.

    Args:
        config: the `loss` group of a configuration; `cross_entropy` and `binary` are the same here, except
            for `loss.target_threshold`.
        class_counts: number of training examples that have each class, int [C], for class weights.
        examples: number of training examples.

    Raises:
        UserError: for `loss.logit_adjustment`, which is for a softmax.
    """

    def __init__(self, config: LossConfig, class_counts: np.ndarray, *, examples: int):
        if config.logit_adjustment:
            raise UserError(
                "loss.logit_adjustment applies to single-label data, and each example may have any number of classes; "
                "loss.class_weights=inverse compensates for rare classes"
            )
        self._config = config
        self._weights = positive_weights(config, class_counts, examples)

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor, teacher_logits: tf.Tensor | None = None) -> tf.Tensor:
        """Return the loss of each example, float32 [B]; see `Objective`.

        Args:
            targets: 1 for the classes of an example, float32 [B, C].
            logits: logits of the model, float32 [B, C].
            teacher_logits: logits of the teacher, float32 [B, C]; None without distillation. The Kullback-Leibler
                divergence of each class is averaged over classes, and multiplied by the squared temperature.
        """
        targets = binary_targets(MULTI_LABEL.smooth(targets, self._config.label_smoothing), self._config)
        positive, negative = _LOSSES[self._config.name](logits, self._config)
        losses = tf.reduce_mean(self._weights * targets * positive + (1.0 - targets) * negative, axis=-1)
        if teacher_logits is None:
            return losses
        weight, temperature = self._config.teacher_weight, self._config.temperature
        divergence = _divergence(teacher_logits / temperature, logits / temperature) * temperature**2
        return (1.0 - weight) * losses + weight * divergence


def positive_weights(config: LossConfig, class_counts: np.ndarray, examples: int) -> np.ndarray:
    """Return the weight of each class's loss on the examples that have it, float32 [C]; that on others is 1.

    - `none`: 1.
    - `inverse`: examples without the class per example with it, `pos_weight` of PyTorch's BCEWithLogitsLoss.
    - `effective`: the same of effective numbers, (1 - beta^n) / (1 - beta) (Cui et al. 2019).

    A class without an example, or on all of them, has weight 1.
    """
    counts = class_counts.astype(np.float64)
    present = (counts > 0) & (counts < examples)
    if config.class_weights == "none":
        return np.ones(len(counts), np.float32)
    absent = examples - counts
    if config.class_weights == "effective":
        log_beta = np.log(max(config.effective_beta, np.finfo(float).tiny))
        absent, counts = -np.expm1(absent * log_beta), -np.expm1(counts * log_beta)
    return np.divide(absent, counts, out=np.ones(len(counts)), where=present).astype(np.float32)


def _cross_entropy(logits: tf.Tensor, config: LossConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Return -log p and -log(1 - p) of each class, where p is the sigmoid of its logit."""
    return tf.nn.softplus(-logits), tf.nn.softplus(logits)


def _focal(logits: tf.Tensor, config: LossConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the sigmoid focal loss (Lin et al. 2017), without its class weight alpha."""
    return _focused(logits, config.focal_gamma, config.focal_gamma)


def _asymmetric(logits: tf.Tensor, config: LossConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the asymmetric loss (Ridnik et al. 2021, eq. 5 to 7), whose margin lowers the p of negative examples."""
    positive, _ = _focused(logits, config.positive_gamma, 0.0)
    if not config.margin:
        return positive, _focused(logits, 0.0, config.negative_gamma)[1]
    shifted = tf.maximum(tf.sigmoid(logits) - config.margin, 0.0)
    # Below the margin, loss and gradient are 0; the power of 0 would have an infinite derivative for gammas below 1.
    safe = tf.where(shifted > 0.0, shifted, 0.5)
    negative = tf.where(shifted > 0.0, tf.pow(safe, config.negative_gamma) * -tf.math.log1p(-safe), 0.0)
    return positive, negative


def _focused(logits: tf.Tensor, positive_gamma: float, negative_gamma: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return (1 - p)^gamma * -log p and p^gamma * -log(1 - p), with the powers from their logarithms."""
    log_p, log_q = -tf.nn.softplus(-logits), -tf.nn.softplus(logits)
    return tf.exp(positive_gamma * log_q) * -log_p, tf.exp(negative_gamma * log_p) * -log_q


def _divergence(teacher_logits: tf.Tensor, student_logits: tf.Tensor) -> tf.Tensor:
    """Return the Kullback-Leibler divergence of the decisions, mean over classes, float32 [B].

    Of a teacher's probability q and a difference d of the logits, it is log(1 - q + q exp(d)) - q d. For small d, that
    is computed without a difference of two logarithms, whose rounding errors a high temperature would multiply.
    """
    chance, difference = tf.sigmoid(teacher_logits), student_logits - teacher_logits
    far = tf.nn.softplus(student_logits) - tf.nn.softplus(teacher_logits)
    is_near = tf.abs(difference) < _NEAR
    # The unused branch must be finite, as its gradient is multiplied by 0.
    near = tf.math.log1p(chance * tf.math.expm1(tf.where(is_near, difference, 0.0)))
    return tf.reduce_mean(tf.where(is_near, near, far) - chance * difference, axis=-1)


_LOSSES = {"cross_entropy": _cross_entropy, "binary": _cross_entropy, "focal": _focal, "asymmetric": _asymmetric}
