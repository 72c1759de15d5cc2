"""Reusable SavedModels for TensorFlow Hub: `hub.KerasLayer(..., trainable=True)` and `hub.load`.

https://www.tensorflow.org/hub/reusable_saved_models: a callable with `variables`, `trainable_variables` and
`regularization_losses`. BatchNorm is not folded, so that fine-tuning can update it.
"""

from typing import Any

import keras
import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import Preprocess
from resnet_tf.model.whitening import is_whitening
from resnet_tf.serving.layers import merged_config, merged_weights, set_weights


def reusable_model(model: keras.Model, preprocess: Preprocess, *, weight_decay: float) -> tuple[Any, keras.Model]:
    """Return a callable object for `tf.saved_model.save`, and the network that it calls.

    The object takes `(images, training=False)`: images float32 [B, H, W, 3], RGB in [0, 1], or signals float32
    [B, L, C], of any size. `training=True` enables dropout, and BatchNorm uses and updates statistics of the batch.

    Args:
        model: the network; its outputs are those of the object.
        preprocess: preprocessing, whose normalization the object includes.
        weight_decay: coefficient of `regularization_losses`: `weight_decay / 2` times the sum of the squares of each
            kernel. BatchNorm parameters and biases are not regularized.

    Raises:
        UserError: for a network for inputs of one size.
    """
    open_model = _open_copy(model, preprocess)

    @tf.function(autograph=False)
    def call(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return open_model(preprocess.normalize(images), training=training)

    for training in (False, True):
        call.get_concrete_function(
            tf.TensorSpec([None, *open_model.input_shape[1:-1], preprocess.unnormalized_shape[-1]], tf.float32),
            training,
        )
    holder = tf.train.Checkpoint()  # tf.Module does not track variables of Keras 3
    holder.__call__ = call
    holder.variables = [variable.value for variable in open_model.variables]
    holder.trainable_variables = [variable.value for variable in open_model.trainable_variables]
    kernels = [each.value for each in open_model.trainable_variables if each.path.endswith("kernel")]
    holder.regularization_losses = [_decay(kernel, weight_decay) for kernel in kernels if weight_decay]
    return holder, open_model


def _open_copy(model: keras.Model, preprocess: Preprocess) -> keras.Model:
    """Return a copy for inputs of any size whose layers are trainable, except for a whitening convolution."""
    copies = []

    def copy(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):  # an operation, such as a division
            return layer
        copies.append((layer, type(layer).from_config(merged_config(layer))))
        return copies[-1][1]

    inputs = keras.Input((*(None,) * len(preprocess.spatial_shape), preprocess.channels), name="images")
    try:
        copied = keras.models.clone_model(model, input_tensors=inputs, clone_function=copy)
    except (TypeError, ValueError) as error:  # of a layer whose variables depend on the size of its input
        raise UserError(_describe_fixed_size(model, " ".join(str(error).split()))) from error
    if None in copied.output_shape[1:]:
        raise UserError(_describe_fixed_size(model, f"its outputs would have the shape {copied.output_shape}"))
    for original, layer in copies:
        set_weights(layer, merged_weights(original))
        layer.trainable = not is_whitening(layer)
    return copied


def _describe_fixed_size(model: keras.Model, reason: str) -> str:
    return (
        f"a hub export takes inputs of any size, and {model.name} takes {model.input_shape[1:-1]} only: {reason}. A "
        "global pooling in place of Flatten makes it independent of the size; other targets keep the size"
    )


def _decay(kernel: tf.Variable, weight_decay: float) -> Any:
    return tf.function(lambda: weight_decay * tf.nn.l2_loss(kernel), input_signature=[], autograph=False)
