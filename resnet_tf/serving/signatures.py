"""Signatures of an exported model: inputs and outputs of each."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from resnet_tf.inputs import Preprocess, ServingInput

DEFAULT_SIGNATURE = "serving_default"
FEATURES_SIGNATURE = "features"
CLASSIFY_SIGNATURE = "classify"
EXPLAIN_SIGNATURE = "explain"

# tf.Example's feature that holds an encoded picture, as in the ImageNet records.
EXAMPLE_FEATURE = "image/encoded"


# From the normalized input, float32 [B, H, W, C] or [B, L, C], to the last feature map, float32 or bfloat16 [B, h, w,
# F] or [B, l, F], the features, float32 [B, F], the logits, float32 [B, classes], and the kernel of the head, float32
# [F, classes].
Network = Callable[[tf.Tensor], list[tf.Tensor]]
# From a batch of inputs to the outputs of a signature, by name.
Answer = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def build_signatures(
    network: Network, preprocess: Preprocess, labels: Sequence[str], *, top_k: int, default: str = DEFAULT_SIGNATURE
) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Return signatures by name; the first dimension of every input and output is the batch.

    - `serving_default`: image_bytes, string [B], each a JPEG, PNG, BMP, GIF or WebP of any size.
    - `images`: float32 [B, H, W, 3], RGB in [0, 1], in the network's input size. A graph cannot refuse images in
      [0, 255]: its answer would be wrong.
    - `features`: image_bytes as above; gives `features`, float32 [B, F], the pooled vector before the last layer.
    - `classify`: inputs, string [B], each a serialized tf.Example with `image/encoded`; gives `classes`, string [B, C],
      all labels, and `scores`, float32 [B, C], their probabilities. It is what TensorFlow Serving's Classify takes.
    - `explain`: image_bytes as above; gives `heatmaps`, float32 [B, h, w], in [0, 1]: the evidence of each position
      of the last feature map for the best class (Grad-CAM, Selvaraju et al. 2017).

    Input types that are not decoded, such as signals, have `serving_default` and `features` only; both take `signals`,
    float32 [B, L, C].

    The first two give `logits` and `probabilities`, float32 [B, C], and the `top_k` best classes in falling order:
    `top_classes` int64 [B, K], `top_scores` float32 [B, K] and `top_labels` string [B, K].

    Args:
        network: the network, see `Network`.
        preprocess: how examples become its input.
        labels: names of its classes.
        top_k: number of the best classes.
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

    inputs = {each.name: each for each in preprocess.serving_inputs()}
    functions = {
        signature: (_after(inputs[name], answer), inputs[name].tensor_type)
        for name, signatures in signature_names(preprocess, default).items()
        for signature in signatures
    }
    first, *_ = inputs.values()
    functions[FEATURES_SIGNATURE] = (_after(first, lambda batch: {"features": network(batch)[1]}), first.tensor_type)
    for encoded in (each for each in inputs.values() if each.dtype == tf.string):
        functions[CLASSIFY_SIGNATURE] = _classify(encoded, answer, names)
        functions[EXPLAIN_SIGNATURE] = (_after(encoded, lambda batch: _explain(network, batch)), encoded.tensor_type)
    return {
        name: tf.function(function, [taken]).get_concrete_function() for name, (function, taken) in functions.items()
    }


def signature_names(preprocess: Preprocess, default: str = DEFAULT_SIGNATURE) -> dict[str, tuple[str, ...]]:
    """Return the signatures that give logits, by the name of the argument that they take.

    The first of `Preprocess.serving_inputs` is that of `serving_default`, the others have signatures of their own name.
    Where `default` names one of these, it is that of `serving_default`, too, and the first has its own name.
    """
    first, *others = (each.name for each in preprocess.serving_inputs())
    moved = default in others
    names = {name: (DEFAULT_SIGNATURE, name) if name == default else (name,) for name in others}
    return {first: (first if moved else DEFAULT_SIGNATURE,), **names}


def default_signatures(preprocess: Preprocess) -> tuple[str, ...]:
    """Return the choices of `default`, see `build_signatures`."""
    _, *others = preprocess.serving_inputs()
    return DEFAULT_SIGNATURE, *(each.name for each in others)


def _after(taken: ServingInput, answer: Answer) -> Answer:
    """Return a signature function: decode and normalize a batch of `taken`, then compute the outputs."""

    def signature(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(taken.to_input(batch))

    return signature


def _classify(encoded: ServingInput, answer: Answer, names: tf.Tensor) -> tuple[Answer, tf.TensorSpec]:
    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        examples = tf.io.parse_example(inputs, {EXAMPLE_FEATURE: tf.io.FixedLenFeature([], tf.string)})
        scores = answer(encoded.to_input(examples[EXAMPLE_FEATURE]))["probabilities"]
        return {"classes": tf.tile(names[tf.newaxis], [tf.shape(scores)[0], 1]), "scores": scores}

    return classify, tf.TensorSpec([None], tf.string, name="inputs")


def _explain(network: Network, batch: tf.Tensor) -> dict[str, tf.Tensor]:
    maps, _, logits, head = network(batch)
    return {"heatmaps": _heatmaps(maps, logits, head)}


def _heatmaps(maps: tf.Tensor, logits: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """float32 [B, h, w] in [0, 1] for the best class.

    The class head is linear in the mean of the maps, so that the gradient of a logit by a map is its weight at every
    place, and Grad-CAM needs no gradient (Selvaraju et al. 2017, sec. 3.1; Zhou et al. 2015).
    """
    weights = tf.gather(tf.transpose(head), tf.argmax(logits, axis=1))
    evidence = tf.nn.relu(tf.einsum("bhwf,bf->bhw", tf.cast(maps, tf.float32), weights))
    return tf.math.divide_no_nan(evidence, tf.reduce_max(evidence, axis=[1, 2], keepdims=True))
