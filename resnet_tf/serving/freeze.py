"""Freezing of Keras models: graph functions with constants for weights, which TensorFlow optimizes further."""

import itertools
import math
from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.errors import UserError
from resnet_tf.core.targets import SINGLE_LABEL, Targets
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.fold import fold

# The graph of a SavedModel is one protocol buffer, which is limited to 2 GiB.
MAX_FROZEN_BYTES = 2_000_000_000


def freeze(
    model: keras.Model, network: Callable[[tf.Tensor], list[tf.Tensor]] | None = None
) -> tf.types.experimental.PolymorphicFunction:
    """Return a function from the model input, float32 [B, H, W, C] or [B, L, C], to the list of outputs.

    The weights are constants if they take at most `MAX_FROZEN_BYTES`, and variables otherwise. A function with
    variables must be saved together with an object that owns them.

    Args:
        model: the Keras model that owns the weights.
        network: function from the model input to outputs; by default, the outputs of `model` at inference.

    Raises:
        UserError: for a model whose variables change at inference, such as one with Monte Carlo dropout.
    """
    shape = (None, *model.input_shape[1:])
    outputs = network or (lambda inputs: tf.nest.flatten(model(inputs, training=False)))
    function = tf.function(outputs, autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    if not is_freezable(model):
        return function
    _check_unchanging(concrete.graph.as_graph_def(), model)
    frozen = convert_variables_to_constants_v2(concrete)
    graph = frozen.graph.as_graph_def()
    for node in graph.node:  # TensorFlow cannot save the custom gradient of SiLU, which captures a tensor
        node.attr.pop("_gradient_op_type", None)
    (source,) = (each.name for each in frozen.inputs)
    results = [each.name for each in frozen.outputs]

    # `tf.saved_model.save` rejects the frozen function itself, but accepts a function that imports its graph.
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)
    def constant_network(inputs: tf.Tensor) -> list[tf.Tensor]:
        return tf.graph_util.import_graph_def(graph, {source: inputs}, results, name="")

    return constant_network


def _check_unchanging(graph: tf.compat.v1.GraphDef, model: keras.Model) -> None:
    nodes = itertools.chain(graph.node, *(function.node_def for function in graph.library.function))
    if changed := next((node.name for node in nodes if node.op.startswith("Assign")), ""):
        raise UserError(
            f"{model.name} changes a variable at inference ({changed!r}), as random layers do, and cannot be frozen; "
            "targets hub and keras keep such layers"
        )


def freeze_from_arrays(
    model: keras.Model,
    preprocess: Preprocess,
    *,
    targets: Targets = SINGLE_LABEL,
    calibration: Calibration = UNCALIBRATED,
    only_logits: bool = False,
) -> tf.types.experimental.PolymorphicFunction:
    """Return the folded and frozen network, from `Preprocess.unnormalized_input` to named outputs.

    Args:
        model: a network of `create_model`.
        preprocess: preprocessing, whose normalization the function includes.
        targets: form of the targets, which decides what the probabilities are.
        calibration: map from logits to probabilities.
        only_logits: return `logits` alone, instead of `logits`, `probabilities` and `energy`.
    """
    network = freeze(fold(model))

    @tf.function(input_signature=[preprocess.unnormalized_input.tensor_type], autograph=False)
    def answers(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        (logits,) = network(preprocess.normalize(inputs))
        if only_logits:
            return {"logits": logits}
        probabilities, energy = targets.probabilities(logits, calibration), targets.energy(logits, calibration)
        return {"logits": logits, "probabilities": probabilities, "energy": energy}

    return answers


def is_freezable(model: keras.Model) -> bool:
    """Return whether the weights take at most `MAX_FROZEN_BYTES`."""
    return sum(math.prod(each.shape) * each.value.dtype.size for each in model.variables) <= MAX_FROZEN_BYTES
