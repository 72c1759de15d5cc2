"""What training minimises."""

import keras
import tensorflow as tf

from resnet_tf.config import LossConfig


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, config: LossConfig) -> tf.Tensor:
    """Softmax cross-entropy of each example, float32 [B], with label smoothing (Szegedy et al. 2015).

    Takes labels int64 [B] and logits float32 [B, C]. The mean over the *global* batch is the caller's to take: Keras's
    own reduction would weigh replicas equally even where their batches differ.
    """
    targets = tf.one_hot(labels, logits.shape[-1])
    return keras.losses.categorical_crossentropy(
        targets, logits, from_logits=True, label_smoothing=config.label_smoothing
    )
