"""The reusable SavedModel: what TensorFlow Hub's `hub.KerasLayer(..., trainable=True)` and `hub.load` take.

https://www.tensorflow.org/hub/reusable_saved_models: callable, with `variables`, `trainable_variables` and
`regularization_losses`. BatchNorm is kept, so that it can be fine-tuned.
"""

from typing import Any

import keras
import tensorflow as tf

from resnet_tf.inputs import Preprocess


def reusable(model: keras.Model, preprocess: Preprocess, *, weight_decay: float) -> tuple[Any, keras.Model]:
    """An object to save, and the network in it. Called with `(images, training=False)` it gives what the model gives.

    images: float32 [B, H, W, 3], RGB in [0, 1], or signals [B, L, C]; H and W, or L, may differ from the ones that the
    model was trained on.
    `training` switches dropout and BatchNorm, whose moving statistics it updates. `regularization_losses` are
    `weight_decay / 2` times the squares of each kernel, without those of BatchNorm and without biases.
    """
    sizes = (None,) * len(preprocess.spatial_shape)
    open_model = keras.models.clone_model(
        model, input_tensors=keras.Input((*sizes, preprocess.channels), name="images")
    )
    open_model.set_weights(model.get_weights())

    @tf.function
    def call(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return open_model(preprocess.normalize(images), training=training)

    for training in (False, True):
        call.get_concrete_function(
            tf.TensorSpec([None, *sizes, preprocess.unnormalized_shape[-1]], tf.float32), training
        )
    holder = tf.train.Checkpoint()  # tf.Module would see none of Keras 3's variables
    holder.__call__ = call
    holder.variables = [variable.value for variable in open_model.variables]
    holder.trainable_variables = [variable.value for variable in open_model.trainable_variables]
    kernels = [each.value for each in open_model.trainable_variables if each.path.endswith("kernel")]
    holder.regularization_losses = [_decay(kernel, weight_decay) for kernel in kernels if weight_decay]
    return holder, open_model


def _decay(kernel: tf.Variable, weight_decay: float) -> Any:
    return tf.function(lambda: weight_decay * tf.nn.l2_loss(kernel), input_signature=[])
