"""The doors of an exported model: what each signature takes and gives."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from resnet_tf.data import preprocess
from resnet_tf.inputs.spec import Preprocess

BYTES_SIGNATURE = SIGNALS_SIGNATURE = "serving_default"
IMAGES_SIGNATURE = "images"
FEATURES_SIGNATURE = "features"
CLASSIFY_SIGNATURE = "classify"
EXPLAIN_SIGNATURE = "explain"
MOVED_BYTES_SIGNATURE = "image_bytes"  # where `images` is the default one

# tf.Example's feature that holds an encoded picture, as in the ImageNet records.
EXAMPLE_FEATURE = "image/encoded"


# From the network's input, float32 [B, H, W, C], or [B, L, C] of signals, already normalised, to its last feature map,
# float32 or bfloat16 [B, h, w, F] or [B, l, F], its features, float32 [B, F], its logits, float32 [B, classes], and the
# kernel of its class head, float32 [F, classes].
Network = Callable[[tf.Tensor], list[tf.Tensor]]
# From that input to what a signature gives.
Answer = Callable[[tf.Tensor], dict[str, tf.Tensor]]
# By name, what answers and what it takes.
Doors = dict[str, tuple[Answer, tf.TensorSpec]]


def build_signatures(
    network: Network, spec: Preprocess, labels: Sequence[str], *, top_k: int, default: str = BYTES_SIGNATURE
) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Signatures by name; every input's and output's first dimension is the batch.

    - `serving_default`: image_bytes, string [B], each a JPEG, PNG, BMP, GIF or WebP of any size.
    - `images`: float32 [B, H, W, 3], RGB in [0, 1], H and W being the network's own. A graph cannot refuse a picture in
      [0, 255]: the answer would be wrong.
    - `features`: image_bytes as above; gives `features`, float32 [B, F], the pooled vector before the last layer.
    - `classify`: inputs, string [B], each a serialised tf.Example with `image/encoded`; gives `classes`, string [B, C],
      all labels, and `scores`, float32 [B, C], their probabilities. It is what TensorFlow Serving's Classify takes.
    - `explain`: image_bytes as above; gives `heatmaps`, float32 [B, h, w], in [0, 1]: how much each place of the last
      feature map spoke for the best class (Grad-CAM, Selvaraju et al. 2017).

    Of a network of signals: `serving_default` and `features`, and both take signals, float32 [B, L, C].

    The first two give `logits` and `probabilities`, float32 [B, C], and the `top_k` best classes in falling order:
    `top_classes` int64 [B, K], `top_scores` float32 [B, K] and `top_labels` string [B, K].

    Args:
        network: what answers.
        spec: how pictures become its input.
        labels: names of its classes.
        top_k: best classes named.
        default: `images` puts that signature in `serving_default`'s place too, for consumers that read no other and
            cannot decode; image_bytes then go to `image_bytes`.
    """
    names = tf.constant(list(labels))
    count = min(top_k, len(labels))

    def answer(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        _, _, logits, _ = network(inputs)
        probabilities = tf.nn.softmax(logits)
        scores, classes = tf.math.top_k(probabilities, count)
        return {
            "logits": logits,
            "probabilities": probabilities,
            "top_classes": tf.cast(classes, tf.int64),
            "top_scores": scores,
            "top_labels": tf.gather(names, classes),
        }

    if spec.is_of_signals:
        doors = _of_signals(network, answer, spec)
    else:
        doors = _of_pictures(network, answer, spec, names, default)
    return {name: tf.function(function, [taken]).get_concrete_function() for name, (function, taken) in doors.items()}


def _of_pictures(network: Network, answer: Answer, spec: Preprocess, names: tf.Tensor, default: str) -> Doors:
    def of_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(preprocess.from_bytes(image_bytes, spec))

    def of_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(preprocess.normalize(images, spec))

    def features(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": network(preprocess.from_bytes(image_bytes, spec))[1]}

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        examples = tf.io.parse_example(inputs, {EXAMPLE_FEATURE: tf.io.FixedLenFeature([], tf.string)})
        scores = of_bytes(examples[EXAMPLE_FEATURE])["probabilities"]
        return {"classes": tf.tile(names[tf.newaxis], [tf.shape(scores)[0], 1]), "scores": scores}

    def explain(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        maps, _, logits, head = network(preprocess.from_bytes(image_bytes, spec))
        return {"heatmaps": _heatmaps(maps, logits, head)}

    image_bytes, images = tf.TensorSpec([None], tf.string, name="image_bytes"), array_taken(spec)
    doors: Doors = {
        BYTES_SIGNATURE: (of_images, images) if default == IMAGES_SIGNATURE else (of_bytes, image_bytes),
        IMAGES_SIGNATURE: (of_images, images),
        FEATURES_SIGNATURE: (features, image_bytes),
        CLASSIFY_SIGNATURE: (classify, tf.TensorSpec([None], tf.string, name="inputs")),
        EXPLAIN_SIGNATURE: (explain, image_bytes),
    }
    if default == IMAGES_SIGNATURE:
        doors[MOVED_BYTES_SIGNATURE] = (of_bytes, image_bytes)
    return doors


def _of_signals(network: Network, answer: Answer, spec: Preprocess) -> Doors:
    def of_signals(signals: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(preprocess.normalize(signals, spec))

    def features(signals: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": network(preprocess.normalize(signals, spec))[1]}

    signals = array_taken(spec)
    return {SIGNALS_SIGNATURE: (of_signals, signals), FEATURES_SIGNATURE: (features, signals)}


def array_taken(spec: Preprocess) -> tf.TensorSpec:
    """What is taken where nothing is decoded: `images`, float32 [B, H, W, 3] in [0, 1], or `signals`, [B, L, C]."""
    return tf.TensorSpec([None, *spec.shape_before], tf.float32, name="signals" if spec.is_of_signals else "images")


def _heatmaps(maps: tf.Tensor, logits: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """float32 [B, h, w] in [0, 1] for the best class.

    The class head is linear in the mean of the maps, so that the gradient of a logit by a map is its weight at every
    place, and Grad-CAM needs no gradient (Selvaraju et al. 2017, sec. 3.1; Zhou et al. 2015).
    """
    weights = tf.gather(tf.transpose(head), tf.argmax(logits, axis=1))
    evidence = tf.nn.relu(tf.einsum("bhwf,bf->bhw", tf.cast(maps, tf.float32), weights))
    return tf.math.divide_no_nan(evidence, tf.reduce_max(evidence, axis=[1, 2], keepdims=True))
