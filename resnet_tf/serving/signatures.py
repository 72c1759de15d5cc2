"""Signatures of an exported model: inputs and outputs of each."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.targets import targets_with
from resnet_tf.inputs import Preprocess, ServingInput

DEFAULT_SIGNATURE = "serving_default"
FEATURES_SIGNATURE = "features"
CLASSIFY_SIGNATURE = "classify"
EXPLAIN_SIGNATURE = "explain"

# Feature of a tf.Example with the encoded image, named as in the ImageNet TFRecords of tensorflow/models.
EXAMPLE_FEATURE = "image/encoded"


# From the model input, float32 [B, H, W, C] or [B, L, C], to the last feature map, float32 or bfloat16 [B, h, w, F] or
# [B, l, F], the pooled features, float32 [B, F], the logits, float32 [B, classes], and the kernel of the head, float32
# [F, classes].
Network = Callable[[tf.Tensor], list[tf.Tensor]]
# From a batch of inputs to the named outputs of a signature.
SignatureFunction = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def build_signatures(
    network: Network,
    preprocess: Preprocess,
    labels: Sequence[str],
    *,
    top_k: int,
    thresholds: Sequence[float] | None = None,
    calibration: Calibration = UNCALIBRATED,
    default: str = DEFAULT_SIGNATURE,
    explains: bool = True,
) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Return the signatures of an exported network by name; dimension 0 of every input and output is the batch.

    - `serving_default`: `image_bytes`, string [B], encoded JPEG, PNG, BMP, GIF or WebP images of any size.
    - `images`: `images`, float32 [B, H, W, 3], RGB in [0, 1], at the input size of the network. The range is not
      checked: images in [0, 255] give wrong predictions.
    - `features`: `image_bytes` as above; returns `features`, float32 [B, F], the pooled features before the head.
    - `classify`: `inputs`, string [B], serialized tf.Examples with the feature `image/encoded`; returns `classes`,
      string [B, C], all labels, and `scores`, float32 [B, C], their probabilities. For TensorFlow Serving's Classify.
    - `explain`: `image_bytes` as above; returns `heatmaps`, float32 [B, h, w] in [0, 1], the evidence of each position
      of the last feature map for the best class (Grad-CAM, Selvaraju et al. 2017). Only with `explains`.

    Input types without decoding, such as signals, have `serving_default` and `features` only; both take `signals`,
    float32 [B, L, C].

    `serving_default` and `images` return `logits` and `probabilities`, float32 [B, C], and the `top_k` best classes in
    descending order of probability: `top_classes` int64 [B, K], `top_scores` float32 [B, K], `top_labels` string
    [B, K]. With `thresholds`, the probabilities are sigmoids, and `selected`, bool [B, C], is True for the classes
    whose probability reaches their threshold. `energy`, float32 [B], is higher for examples unlike those of the
    training, see `Targets.energy`. Logits are those of the network; everything else is calibrated.

    Args:
        network: the network, see `Network`.
        preprocess: preprocessing of an example.
        labels: class names in the order of the logits.
        top_k: number K of best classes to return.
        thresholds: of a multi-label network, a probability for each class; None for a softmax.
        calibration: map from logits to probabilities.
        default: `images` makes `serving_default` a copy of `images`, for clients that call no other signature and send
            decoded images; the signature of encoded images is then named `image_bytes`.
        explains: True if the logits are linear in the averages of the last feature map, as heatmaps require.
    """
    names = tf.constant(list(labels))
    classify_top_k = _top_classes(network, names, min(top_k, len(labels)), thresholds, calibration)
    inputs = {each.name: each for each in preprocess.serving_inputs()}
    functions = {
        signature: (_from_examples(inputs[name], classify_top_k), inputs[name].tensor_type)
        for name, signatures in signature_names(preprocess, default).items()
        for signature in signatures
    }
    first, *_ = inputs.values()
    functions[FEATURES_SIGNATURE] = (
        _from_examples(first, lambda batch: {"features": network(batch)[1]}),
        first.tensor_type,
    )
    for encoded in (each for each in inputs.values() if each.dtype == tf.string):
        functions[CLASSIFY_SIGNATURE] = _classify(encoded, classify_top_k, names)
        if explains:
            functions[EXPLAIN_SIGNATURE] = (
                _from_examples(encoded, lambda batch: _explain(network, batch, calibration)),
                encoded.tensor_type,
            )
    return {
        name: tf.function(function, [tensor_type], autograph=False).get_concrete_function()
        for name, (function, tensor_type) in functions.items()
    }


def signature_names(preprocess: Preprocess, default: str = DEFAULT_SIGNATURE) -> dict[str, tuple[str, ...]]:
    """Return the names of the signatures that return logits, for the name of each input.

    The first of `Preprocess.serving_inputs` is the input of `serving_default`, each further one of the signature with
    its name. If `default` names a further input, `serving_default` takes it, and the first input has a signature with
    its own name.
    """
    first, *others = (each.name for each in preprocess.serving_inputs())
    moved = default in others
    names = {name: (DEFAULT_SIGNATURE, name) if name == default else (name,) for name in others}
    return {first: (first if moved else DEFAULT_SIGNATURE,), **names}


def default_signatures(preprocess: Preprocess) -> tuple[str, ...]:
    """Return the values that `default` of `build_signatures` can have."""
    _, *others = preprocess.serving_inputs()
    return DEFAULT_SIGNATURE, *(each.name for each in others)


def _top_classes(
    network: Network, names: tf.Tensor, count: int, thresholds: Sequence[float] | None, calibration: Calibration
) -> SignatureFunction:
    """Return the function from the model input to logits, probabilities and best classes, see `build_signatures`."""
    targets = targets_with(thresholds)

    def classify_top_k(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        _, _, logits, _ = network(inputs)
        probabilities = targets.probabilities(logits, calibration)
        selected = {} if thresholds is None else {"selected": probabilities >= tf.constant(thresholds, tf.float32)}
        _, classes = tf.math.top_k(calibration.ranking(logits), count)
        return {
            "logits": logits,
            "probabilities": probabilities,
            "top_classes": tf.cast(classes, tf.int64),
            "top_scores": tf.gather(probabilities, classes, batch_dims=1),
            "top_labels": tf.gather(names, classes),
            **selected,
            "energy": targets.energy(logits, calibration),
        }

    return classify_top_k


def _from_examples(serving_input: ServingInput, function: SignatureFunction) -> SignatureFunction:
    """Return `function` with decoding and normalization of a batch before it."""

    def signature(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return function(serving_input.to_input(batch))

    return signature


def _classify(
    encoded: ServingInput, function: SignatureFunction, names: tf.Tensor
) -> tuple[SignatureFunction, tf.TensorSpec]:
    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        examples = tf.io.parse_example(inputs, {EXAMPLE_FEATURE: tf.io.FixedLenFeature([], tf.string)})
        scores = function(encoded.to_input(examples[EXAMPLE_FEATURE]))["probabilities"]
        return {"classes": tf.tile(names[tf.newaxis], [tf.shape(scores)[0], 1]), "scores": scores}

    return classify, tf.TensorSpec([None], tf.string, name="inputs")


def _explain(network: Network, batch: tf.Tensor, calibration: Calibration) -> dict[str, tf.Tensor]:
    maps, _, logits, head = network(batch)
    return {"heatmaps": _heatmaps(maps, calibration.ranking(logits), head)}


def _heatmaps(maps: tf.Tensor, logits: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """Return the Grad-CAM heatmap of the best class, float32 [B, h, w] in [0, 1].

    The head is linear in the mean of the feature maps: the gradient of a logit with respect to a map is its weight at
    every position, so that Grad-CAM needs no backward pass (Selvaraju et al. 2017, sec. 3.1; Zhou et al. 2015).
    """
    weights = tf.gather(tf.transpose(head), tf.argmax(logits, axis=1))
    evidence = tf.nn.relu(tf.einsum("bhwf,bf->bhw", tf.cast(maps, tf.float32), weights))
    return tf.math.divide_no_nan(evidence, tf.reduce_max(evidence, axis=[1, 2], keepdims=True))
