"""What training minimises."""

import keras
import tensorflow as tf

from resnet_tf.config import LossConfig


def cross_entropy(targets: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """Softmax cross-entropy of each example, float32 [B], with label smoothing (Szegedy et al. 2015).

    Takes targets, the share of each class, and logits, both float32 [B, C]. The mean over the *global* batch is the
    caller's to take: Keras's own reduction would weigh replicas equally even where their batches differ.
    """
    return keras.losses.categorical_crossentropy(
        targets, logits, from_logits=True, label_smoothing=config.label_smoothing
    )
