"""Layers of exported models: checks for Keras's own types, and copying of configurations and weights."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from resnet_tf.model.layers import has_lora, merged_kernel

_INACTIVE = (keras.layers.Dropout, keras.layers.Identity)


def is_of_keras(operation: Any) -> bool:
    """Return True for a layer or operation of Keras; one of a subclass may compute anything."""
    return type(operation).__module__.startswith("keras.")


def is_inactive(operation: Any) -> bool:
    """Return True for a layer that returns its input at inference, such as Keras's dropout.

    A user's subclass may be active, such as Monte Carlo dropout (Gal and Ghahramani 2016).
    """
    return isinstance(operation, _INACTIVE) and is_of_keras(operation)


def merged_config(layer: keras.Layer) -> dict[str, Any]:
    """Return the configuration of a layer with the weights `merged_weights`: without LoRA (Hu et al. 2021)."""
    config = layer.get_config()
    return {key: config[key] for key in config.keys() - {"lora_rank", "lora_alpha"}} if has_lora(layer) else config


def merged_weights(layer: keras.Layer) -> list[np.ndarray]:
    """Return the weights of a layer; its kernel includes the update of LoRA."""
    if not has_lora(layer):
        return layer.get_weights()
    kept = [each for each in layer.weights if not each.name.startswith("lora_kernel")]
    return [merged_kernel(layer) if each.name == "kernel" else keras.ops.convert_to_numpy(each) for each in kept]


def set_weights(layer: keras.Layer, weights: Sequence[np.ndarray]) -> None:
    """Set the weights of a layer or model.

    Layers of the type `keras.layers.Normalization` compute with tensors that Keras does not update in `set_weights`.
    """
    layer.set_weights(list(weights))
    for part in layer._flatten_layers():
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()
