"""The network as it is served: BatchNorm folded into convolutions, what only training needs left out."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.model.builder import LOGITS_LAYER, POOL_LAYER
from resnet_tf.model.layers import StandardizedConv2D

# They stay float32 in every precision, as in training: they cost nothing, and logits stay exact.
_FLOAT32 = (POOL_LAYER, LOGITS_LAYER)
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.Conv1D)


def fold(model: keras.Model, precision: str = "float32") -> keras.Model:
    """A network that answers as `model` does in inference, with fewer operations.

    A BatchNorm behind a convolution becomes part of it: W' = W gamma / sqrt(variance + epsilon) and
    b' = beta + (b - mean) gamma / sqrt(variance + epsilon), which is exact (Jacob et al. 2017, sec. 3.2). Standardized
    kernels are written out, dropout is left out. Where no convolution comes before it, as in pre-activation networks,
    BatchNorm stays.

    Args:
        model: of `create_model`; it is not changed.
        precision: `float32` or `bfloat16`: what its variables are kept in and its convolutions computed in.

    Returns:
        A model with the same layer names, from the same input to the same outputs.
    """
    norms = {_source(layer).name: layer for layer in model.layers if _is_foldable(layer)}
    left_out = {norm.name for norm in norms.values()}
    left_out |= {layer.name for layer in model.layers if isinstance(layer, keras.layers.Dropout)}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        config["dtype"] = "float32" if layer.name in _FLOAT32 else precision
        if not isinstance(layer, _CONVOLUTIONS):
            return type(layer).from_config(config)
        plain = keras.layers.Conv1D if isinstance(layer, keras.layers.Conv1D) else keras.layers.Conv2D
        return plain.from_config(config | {"use_bias": layer.use_bias or layer.name in norms})

    def call(layer: keras.layers.Layer, *arguments: Any, **options: Any) -> Any:
        return arguments[0] if layer.name in left_out else layer(*arguments, **options)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in folded.layers:
        layer.set_weights(_weights(model.get_layer(layer.name), norms.get(layer.name)))
    return folded


def _source(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The layer whose output this one takes, if it takes one."""
    return layer.input._keras_history.operation


def _is_foldable(layer: keras.layers.Layer) -> bool:
    """Whether it is a BatchNorm, and all that a convolution's output goes to."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return False
    source = _source(layer)
    return isinstance(source, _CONVOLUTIONS) and len(source._outbound_nodes) == 1


def _weights(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization | None) -> list[np.ndarray]:
    """A layer's, with the BatchNorm behind it taken in; computed in float64."""
    weights = [np.asarray(each, np.float64) for each in layer.get_weights()]
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
