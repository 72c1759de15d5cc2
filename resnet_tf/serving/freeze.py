"""A Keras model as a graph function whose weights are constants, which TensorFlow optimizes further than variables."""

from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from resnet_tf.inputs import Preprocess
from resnet_tf.serving.fold import fold

# A SavedModel's graph is one protocol buffer, which cannot be larger than 2 GiB.
LARGEST = 2_000_000_000  # bytes of weights


def freeze(
    model: keras.Model, network: Callable[[tf.Tensor], list[tf.Tensor]] | None = None
) -> tf.types.experimental.PolymorphicFunction:
    """A function from the model's input, float32 [N, H, W, C], to the list of its outputs.

    Weights above `LARGEST` stay variables: then the function must be saved beside an object that owns them.

    Args:
        model: what has the weights.
        network: what to compute with them, in place of the model's outputs.
    """
    shape = (None, *model.input_shape[1:])
    function = tf.function(network or (lambda inputs: tf.nest.flatten(model(inputs, training=False))))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    if not is_freezable(model):
        return function
    frozen = convert_variables_to_constants_v2(concrete)
    graph = frozen.graph.as_graph_def()
    (source,) = (each.name for each in frozen.inputs)
    results = [each.name for each in frozen.outputs]

    # The frozen function itself cannot be saved: it is imported into one that can.
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def constant_network(inputs: tf.Tensor) -> list[tf.Tensor]:
        return tf.graph_util.import_graph_def(graph, {source: inputs}, results, name="")

    return constant_network


def freeze_from_arrays(model: keras.Model, preprocess: Preprocess) -> tf.types.experimental.PolymorphicFunction:
    """Return the folded network from `Preprocess.unnormalized_input` to `logits`, with constants for weights."""
    network = freeze(fold(model))

    @tf.function(input_signature=[preprocess.unnormalized_input.tensor_type])
    def logits(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": network(preprocess.normalize(inputs))[0]}

    return logits


def is_freezable(model: keras.Model) -> bool:
    """Whether its weights fit into a graph."""
    return sum(tf.size(each.value).numpy() * each.value.dtype.size for each in model.variables) <= LARGEST
