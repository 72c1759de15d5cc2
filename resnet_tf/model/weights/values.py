"""Values of weights: their hash, and their validation as finite numbers with variances that are not negative."""

import hashlib
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from resnet_tf.core.errors import UserError

# Types that float32 represents, bfloat16 among them, which is none of NumPy's own types.
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def check_finite(origin: str, name: str, array: np.ndarray) -> None:
    """Check that an array of floating-point numbers is finite in float32; arrays of other types are accepted.

    Args:
        origin: file or network that has the array, for the message.
        name: name of the array.
        array: numbers of any type.

    Raises:
        UserError: if it holds NaN, infinity, or a number beyond the range of float32.
    """
    if array.dtype.name not in _FLOATS:
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32, copy=False))
    if not finite.all():
        raise UserError(f"{origin} holds values that are not finite, in {name!r}")


def check_weight(origin: str, name: str, array: np.ndarray, variable: str, *, epsilon: float = 0.0) -> None:
    """Check that an array can be the weights of a layer.

    Args:
        origin: file or network that has the array, for the message.
        name: name of the array.
        array: numbers of any type.
        variable: name of the variable of the Keras layer: `kernel`, `moving_variance`, ...
        epsilon: number that a normalization adds to the variance, which must be positive then.

    Raises:
        UserError: if its values are no floating-point numbers, not finite, or negative variances.
    """
    if array.dtype.name not in _FLOATS:
        raise UserError(f"{origin} holds {array.dtype} values in {name!r}; weights are floating-point numbers")
    check_finite(origin, name, array)
    if variable == "moving_variance" and array.size:
        least = float(np.min(array.astype(np.float32)))
        if least + epsilon <= 0 and least < 0:
            raise UserError(f"{origin} holds a negative variance, {least:.4g}, in {name!r}")


def check_model(model: keras.Model) -> None:
    """Check the weights of all layers of a network.

    Raises:
        UserError: for the first weights that are not finite or no floating-point numbers, or negative variances.
    """
    for layer, variable in _weights(model):
        name, epsilon = f"{layer.name}/{variable.name}", getattr(layer, "epsilon", 0.0)
        check_weight(f"network {model.name!r}", name, variable.numpy(), variable.name, epsilon=epsilon)


def hash_arrays(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """Return the SHA-256 of named arrays in their order: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def hash_weights(model: keras.Model) -> str:
    """Return the SHA-256 of the weights of all layers of a network, see `hash_arrays`."""
    return hash_arrays((f"{layer.name}/{variable.name}", variable.numpy()) for layer, variable in _weights(model))


def find_precision(model: keras.Model) -> str:
    """Return the precision of a network: the dtype policy of its convolutions, such as `mixed_bfloat16`.

    Raises:
        UserError: if layers have different policies.
    """
    convolutions = (keras.layers.Conv1D, keras.layers.Conv2D)
    policies = {layer.dtype_policy.name for layer in _flatten(model) if isinstance(layer, convolutions)}
    if len(policies) > 1:
        raise UserError(f"the layers of {model.name!r} have different precisions: {', '.join(sorted(policies))}")
    return policies.pop() if policies else "float32"


def _flatten(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield from _flatten(layer) if isinstance(layer, keras.Model) else [layer]


def _weights(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, keras.Variable]]:
    """Yield the weights of all layers, without integers that are no weights."""
    for layer in _flatten(model):
        counts = ("count",) if isinstance(layer, keras.layers.Normalization) else ()  # of the examples of `adapt`
        yield from ((layer, each) for each in layer.weights if each.name not in ("seed_generator_state", *counts))
