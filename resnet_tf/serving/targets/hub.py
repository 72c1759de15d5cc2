"""Reusable SavedModels for TensorFlow Hub: `hub.KerasLayer(..., trainable=True)` and `hub.load`.

https://www.tensorflow.org/hub/reusable_saved_models: a callable with `variables`, `trainable_variables` and
`regularization_losses`. BatchNorm is not folded, so that fine-tuning can update it.
"""

from typing import Any

import keras
import tensorflow as tf

from resnet_tf.inputs import Preprocess
from resnet_tf.serving.layers import set_weights


def reusable_model(model: keras.Model, preprocess: Preprocess, *, weight_decay: float) -> tuple[Any, keras.Model]:
    """Return a callable object for `tf.saved_model.save`, and the network that it calls.

    The object takes `(images, training=False)`: images float32 [B, H, W, 3], RGB in [0, 1], or signals float32
    [B, L, C], of any size. `training=True` enables dropout, and BatchNorm uses and updates statistics of the batch.

    Args:
        model: the network; its outputs are those of the object.
        preprocess: preprocessing, whose normalization the object includes.
        weight_decay: coefficient of `regularization_losses`: `weight_decay / 2` times the sum of the squares of each
            kernel. BatchNorm parameters and biases are not regularized.
    """
    sizes = (None,) * len(preprocess.spatial_shape)
    open_model = keras.models.clone_model(
        model, input_tensors=keras.Input((*sizes, preprocess.channels), name="images")
    )
    set_weights(open_model, model.get_weights())

    @tf.function(autograph=False)
    def call(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return open_model(preprocess.normalize(images), training=training)

    for training in (False, True):
        call.get_concrete_function(
            tf.TensorSpec([None, *sizes, preprocess.unnormalized_shape[-1]], tf.float32), training
        )
    holder = tf.train.Checkpoint()  # tf.Module does not track variables of Keras 3
    holder.__call__ = call
    holder.variables = [variable.value for variable in open_model.variables]
    holder.trainable_variables = [variable.value for variable in open_model.trainable_variables]
    kernels = [each.value for each in open_model.trainable_variables if each.path.endswith("kernel")]
    holder.regularization_losses = [_decay(kernel, weight_decay) for kernel in kernels if weight_decay]
    return holder, open_model


def _decay(kernel: tf.Variable, weight_decay: float) -> Any:
    return tf.function(lambda: weight_decay * tf.nn.l2_loss(kernel), input_signature=[], autograph=False)
