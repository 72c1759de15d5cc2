"""What a network costs: arithmetic of a forward pass, and memory of a training step."""

import math

import keras
from keras import layers


def count_multiply_adds(model: keras.Model) -> int:
    """Multiplications and additions, counted as one each, of all convolutions and dense layers for one example.

    It is what papers call FLOPs of a network (4.1 billion for ResNet-50 at 224 pixels); the rest of its arithmetic is
    not counted. A training step takes three times as many.

    Raises:
        ValueError: for a model whose height or width is open.
    """
    return sum(_multiply_adds(layer) for layer in model.layers)


def count_kept_numbers(model: keras.Model) -> tuple[int, int]:
    """Numbers that a training step must keep of one example until its gradients are known.

    These are the inputs of convolutions, normalisations and dense layers, and what activations put out.

    Returns:
        Those of all such maps together, and of the largest.
    """
    read_again = (layers.Conv2D, layers.Conv1D, layers.BatchNormalization, layers.GroupNormalization, layers.Dense)
    kept = {}
    for layer in model.layers:
        if isinstance(layer, read_again):
            kept[id(layer.input)] = math.prod(_known(layer.input.shape, layer))
        elif isinstance(layer, layers.Activation):  # its gradient is reckoned from what it put out
            kept[id(layer.output)] = math.prod(_known(layer.output.shape, layer))
    return sum(kept.values()), max(kept.values())


def _multiply_adds(layer: keras.Layer) -> int:
    if isinstance(layer, layers.Conv2D | layers.Conv1D):
        *size, inputs, filters = layer.kernel.shape  # inputs of one group
        places = math.prod(_known(layer.output.shape, layer)[:-1])
        return math.prod(size) * inputs * filters * places
    if isinstance(layer, layers.Dense):
        return math.prod(layer.kernel.shape)
    return 0


def _known(shape: tuple[int | None, ...], layer: keras.Layer) -> tuple[int, ...]:
    """Without the batch."""
    sizes = tuple(size for size in shape[1:] if size is not None)
    if len(sizes) < len(shape) - 1:
        raise ValueError(f"the cost of {layer.name} is not known: its size is open, {shape}")
    return sizes
