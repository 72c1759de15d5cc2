"""Cost of a network: arithmetic of a forward pass, and memory of a training step."""

import math

import keras
from keras import layers


def count_multiply_adds(model: keras.Model) -> int:
    """Return the multiply-adds of all convolutions and dense layers for one example.

    Papers call this number the FLOPs of a network (4.1 billion for ResNet-50 at 224 pixels). Other layers are not
    counted. A training step takes three times as many.

    Raises:
        ValueError: for a model of variable input size.
    """
    return sum(_multiply_adds(layer) for layer in model.layers)


def count_saved_activations(model: keras.Model) -> tuple[int, int]:
    """Return the number of activations that a training step saves for the gradients of one example.

    Saved are the inputs of convolutions, normalizations and dense layers, and the outputs of activations.

    Returns:
        Elements of all saved tensors together, and of the largest.
    """
    saves_input = (layers.Conv2D, layers.Conv1D, layers.BatchNormalization, layers.GroupNormalization, layers.Dense)
    saved = {}
    for layer in model.layers:
        if isinstance(layer, saves_input):
            saved[id(layer.input)] = math.prod(_known(layer.input.shape, layer))
        elif isinstance(layer, layers.Activation):  # the gradient is computed from the output
            saved[id(layer.output)] = math.prod(_known(layer.output.shape, layer))
    return sum(saved.values()), max(saved.values())


def _multiply_adds(layer: keras.Layer) -> int:
    if isinstance(layer, layers.Conv2D | layers.Conv1D):
        *size, inputs, filters = layer.kernel.shape  # inputs of one group
        positions = math.prod(_known(layer.output.shape, layer)[:-1])
        return math.prod(size) * inputs * filters * positions
    if isinstance(layer, layers.Dense):
        return math.prod(layer.kernel.shape)
    return 0


def _known(shape: tuple[int | None, ...], layer: keras.Layer) -> tuple[int, ...]:
    """Return a shape without its batch axis."""
    sizes = tuple(size for size in shape[1:] if size is not None)
    if len(sizes) < len(shape) - 1:
        raise ValueError(f"cost of layer {layer.name} is unknown: variable size {shape}")
    return sizes
