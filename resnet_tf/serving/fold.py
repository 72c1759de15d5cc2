"""Networks for inference: BatchNorm folded into convolutions, dropout removed."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.model.builder import LOGITS_LAYER, POOL_LAYER
from resnet_tf.model.layers import BatchNormalization, StandardizedConv2D
from resnet_tf.serving.layers import is_inactive, merged_config, merged_weights, set_weights

# Computed in float32 in every precision, as in training: their cost is negligible, and logits are more accurate.
_FLOAT32 = (POOL_LAYER, LOGITS_LAYER)
# Layers of other heads, and layers that normalize the input.
_FLOAT32_TYPES = (keras.layers.Dense, keras.layers.Rescaling, keras.layers.Normalization)
# Layers with known computations. A layer of a subclass may compute anything, and is kept as it is.
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.Conv1D, StandardizedConv2D)
_NORMS = (keras.layers.BatchNormalization, BatchNormalization)


def fold(model: keras.Model, precision: str = "float32") -> keras.Model:
    """Return a network with the same outputs as `model` at inference and fewer operations.

    BatchNorm after a convolution is folded into its kernel and bias: W' = W gamma / sqrt(variance + epsilon) and
    b' = beta + (b - mean) gamma / sqrt(variance + epsilon), which is exact (Jacob et al. 2017, sec. 3.2). BatchNorm
    without a convolution before it, as in pre-activation networks, is kept. Standardized kernels are replaced by their
    values, LoRA is merged into the kernels, and dropout is removed. Layers of the user's own types are copied by their
    configuration.

    Args:
        model: a network of `create_model`; it is not changed.
        precision: dtype of variables and convolutions, `float32` or `bfloat16`; pooling, the head and the normalization
            of the input are float32.

    Returns:
        A model with the same layer names, inputs and outputs.
    """
    norms = {_producer(layer).name: layer for layer in model.layers if _is_foldable(layer)}
    removed = {norm.name for norm in norms.values()}
    removed |= {layer.name for layer in model.layers if is_inactive(layer)}

    def clone(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):  # an operation, such as a division
            return layer
        config = merged_config(layer)
        exact = layer.name in _FLOAT32 or isinstance(layer, _FLOAT32_TYPES)
        config["dtype"] = "float32" if exact else precision
        if type(layer) not in _CONVOLUTIONS:
            return type(layer).from_config(config)
        plain = keras.layers.Conv1D if isinstance(layer, keras.layers.Conv1D) else keras.layers.Conv2D
        return plain.from_config(config | {"use_bias": layer.use_bias or layer.name in norms})

    def call(layer: keras.layers.Layer, *arguments: Any, **options: Any) -> Any:
        return arguments[0] if layer.name in removed else layer(*arguments, **options)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in folded.layers:
        set_weights(layer, _folded_weights(model.get_layer(layer.name), norms.get(layer.name)))
    return folded


def _producer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return the layer whose output is the input of `layer`, which must have a single input."""
    return layer.input._keras_history.operation


def _is_foldable(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is a BatchNorm over channels and the only consumer of a linear convolution's output."""
    if type(layer) not in _NORMS or len(layer._inbound_nodes) != 1:
        return False
    producer = _producer(layer)
    if type(producer) not in _CONVOLUTIONS or len(producer._inbound_nodes) != 1:
        return False
    over_channels = layer.axis in (-1, len(layer.input.shape) - 1) and producer.data_format == "channels_last"
    linear = producer.activation is keras.activations.linear
    return len(producer._outbound_nodes) == 1 and over_channels and linear


def _folded_weights(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization | None) -> list[np.ndarray]:
    """Return the weights of a layer; of a convolution, float64 and with the BatchNorm after it folded in."""
    if type(layer) not in _CONVOLUTIONS:
        return merged_weights(layer)
    weights = [np.asarray(each, np.float64) for each in merged_weights(layer)]
    if isinstance(layer, StandardizedConv2D):
        weights[0] = layer.standardized(tf.constant(weights[0])).numpy()
    if not norm:
        return weights
    kernel, bias = weights if len(weights) == 2 else (*weights, np.zeros(1))
    scale = 1.0 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    if norm.scale:
        scale *= np.asarray(norm.gamma, np.float64)
    offset = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    return [kernel * scale, offset + (bias - np.asarray(norm.moving_mean, np.float64)) * scale]
