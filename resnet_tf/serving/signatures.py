"""The doors of an exported model: what each signature takes and gives."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from resnet_tf.data import preprocess
from resnet_tf.model.resnet import POOL_LAYER
from resnet_tf.spec import Preprocess

BYTES_SIGNATURE = "serving_default"
IMAGES_SIGNATURE = "images"
FEATURES_SIGNATURE = "features"


def add_signatures(
    model: keras.Model, spec: Preprocess, labels: Sequence[str], *, top_k: int
) -> tuple[tf.train.Checkpoint, dict[str, tf.types.experimental.ConcreteFunction]]:
    """A saveable object and its signatures; every output's first dimension is the batch.

    - `serving_default`: image_bytes, string [B], each a JPEG, PNG, BMP, GIF or WebP.
    - `images`: float32 [B, H, W, 3], RGB in [0, 1], H and W being the network's own.
    - `features`: image_bytes as above; gives `features`, float32 [B, F], the pooled vector before the last layer.

    The first two give `logits` and `probabilities`, float32 [B, C], and the `top_k` best classes in falling order:
    `top_classes` int64 [B, K], `top_scores` float32 [B, K] and `top_labels` string [B, K].
    """
    names = tf.constant(list(labels))
    count = min(top_k, len(labels))
    featurizer = keras.Model(model.input, model.get_layer(POOL_LAYER).output)

    def answer(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(inputs, training=False)
        probabilities = tf.nn.softmax(logits)
        scores, classes = tf.math.top_k(probabilities, count)
        return {
            "logits": logits,
            "probabilities": probabilities,
            "top_classes": tf.cast(classes, tf.int64),
            "top_scores": scores,
            "top_labels": tf.gather(names, classes),
        }

    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    images = tf.TensorSpec([None, *spec.size, 3], tf.float32, name="images")
    doors = {
        BYTES_SIGNATURE: tf.function(
            lambda image_bytes: answer(preprocess.from_bytes(image_bytes, spec)), [image_bytes]
        ),
        IMAGES_SIGNATURE: tf.function(lambda images: answer(preprocess.normalize(images, spec)), [images]),
        FEATURES_SIGNATURE: tf.function(
            lambda image_bytes: {"features": featurizer(preprocess.from_bytes(image_bytes, spec), training=False)},
            [image_bytes],
        ),
    }
    holder = tf.train.Checkpoint()  # tf.Module would see none of Keras 3's variables
    holder.variables = [variable.value for variable in model.variables]
    holder.names = names
    return holder, {name: function.get_concrete_function() for name, function in doors.items()}
