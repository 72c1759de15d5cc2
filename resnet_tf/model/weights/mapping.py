"""Conversion of weights between libraries, by the tables of `resnet_tf.model.weights.dialects`.

Every array of a file must match a variable of the model, and every variable an array.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.model.builder import LOGITS_LAYER
from resnet_tf.model.layers import has_lora, merged_kernel
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork, layers_by_name
from resnet_tf.model.weights import channels, readers, selection
from resnet_tf.model.weights.compatibility import check_architecture, check_layers, stored_epsilon
from resnet_tf.model.weights.dialects import DIALECTS, KERAS_VARIABLES, Dialect
from resnet_tf.model.weights.keras_files import Arrays
from resnet_tf.model.weights.selection import Selection, VariableName
from resnet_tf.model.weights.values import check_weight

# Metadata of weights that their network adopts.
_ORIGIN = ("preprocess", "labels", "thresholds", "calibration")


@dataclass(frozen=True)
class WeightsOrigin:
    """Origin of loaded weights.

    Attributes:
        dialect: name of the `Dialect` of the file.
        metadata: preprocessing that the weights were trained with, class names, thresholds and calibration, as far as
            they are known.
    """

    dialect: str
    metadata: Metadata


def load_weights(
    model: ResidualNetwork, path: Path, *, new_head: bool = False, adapt_channels: str = "repeat"
) -> WeightsOrigin:
    """Load weights from a file of this package, torchvision, timm, keras.applications or akamaster.

    The file is checked completely before the first assignment, so that an error leaves the model unchanged.

    Args:
        model: model from `create_model` that receives the weights.
        path: `.safetensors`, `.npz`, `.h5`, `.weights.h5`, `.keras`, a file of `torch.save`, or the directory
            of a `hub` or `hub_features` export.
        new_head: keep the weights of the model's head and ignore the head in the file.
        adapt_channels: method for a first convolution with another number of input channels, see
            `resnet_tf.model.weights.channels`.

    Returns:
        Dialect and metadata of the file. Without metadata, the preprocessing is that of the dialect.

    Raises:
        UserError: if the file cannot be read, or contains the weights of another architecture. An architecture with the
            same names and shapes but other results, such as another stride, is detected too.
    """
    file = readers.read(path)
    arrays = {name: array for name, array in file.arrays.items() if not name.endswith("num_batches_tracked")}
    variables = named_variables(model)
    load_head = not new_head and any(layer == LOGITS_LAYER for layer, _ in variables)
    body = [names for names in variables if names[0] != LOGITS_LAYER]
    found = selection.select(arrays, body, path)
    if not load_head:
        found = _without_head(found, model)
        variables = {names: variables[names] for names in body}
    metadata = file.metadata_of(found.prefix)
    epsilon = stored_epsilon(found.dialect, metadata)
    values = _translate(model, found, variables, path, epsilon=epsilon, adapt_channels=adapt_channels)
    check_architecture(model, found.dialect, metadata, path)
    check_layers(model, found.dialect, file.configs_of(found.prefix), path)
    origin = _read_origin(found.dialect, metadata, path)
    for names, variable in variables.items():
        variable.assign(values[names])
    return origin


def stored_channels(model: ResidualNetwork, path: Path) -> int:
    """Return the number of input channels of weights; that of the model if the file lacks the first convolution.

    Args:
        model: network of the weights, with any number of input channels.
        path: see `load_weights`.

    Raises:
        UserError: if the file cannot be read.
    """
    variables = named_variables(model)
    body = [names for names in variables if names[0] != LOGITS_LAYER]
    found = selection.select(readers.read(path).arrays, body, path)
    first = first_convolution(variables), "kernel"
    kernel = found.arrays.get(str(found.dialect.key(*first)))
    if kernel is None or kernel.ndim != len(variables[first].shape):
        return model.input_shape[-1]
    return kernel.shape[1 if found.dialect.torch_layout else -2]


def to_torchvision(model: ResidualNetwork) -> Arrays:
    """Return the weights as a float32 state dict of torchvision, or of timm for other networks.

    Raises:
        UserError: if neither library has all layers of the network.
    """
    dialect = find_torch_dialect(model)
    if dialect is None:
        raise UserError(f"{model.name} has layers that neither torchvision nor timm has")
    return {str(dialect.key(*names)): _to_torch(value, dialect, names) for names, value in named_values(model).items()}


def find_torch_dialect(model: ResidualNetwork) -> Dialect | None:
    """Return the naming scheme of PyTorch's libraries that has all layers of a network; None without one."""
    variables = named_variables(model)
    dialects = (dialect for dialect in DIALECTS if dialect.torch_layout)
    return next((each for each in dialects if all(each.key(*names) for names in variables)), None)


def _read_origin(dialect: Dialect, metadata: Mapping[str, Any], path: Path) -> WeightsOrigin:
    """Return the dialect of a file, and its metadata without the architecture."""
    with prefix_errors(f"the metadata of the weights in {str(path)!r} is corrupt"):
        stored = Metadata.from_dict({key: metadata.get(key) for key in _ORIGIN})
    return WeightsOrigin(dialect.name, dataclasses.replace(stored, preprocess=stored.preprocess or dialect.preprocess))


def _without_head(found: Selection, model: ResidualNetwork) -> Selection:
    """Return a selection without the arrays that a model of pooled features or feature maps does not have."""
    arrays = selection.without_head(found.arrays, found.dialect)
    if isinstance(model.output, dict) and model.arch and selection.depths(arrays) == model.arch.depths:
        stages = [int(match[1]) for layer, _ in named_variables(model) if (match := re.match(r"stage(\d+)_", layer))]
        arrays = selection.up_to_stage(arrays, found.dialect, max(stages, default=0))
    return dataclasses.replace(found, arrays=arrays, others=())


def named_variables(model: ResidualNetwork) -> dict[VariableName, keras.Variable]:
    """Return the variables of a model by (layer name, variable name), without seed generators' states."""
    return {
        (name, variable.name): variable
        for name, layer in layers_by_name(model).items()
        for variable in layer.weights
        if variable.name in KERAS_VARIABLES
    }


def named_values(model: ResidualNetwork) -> dict[VariableName, np.ndarray]:
    """Return the values of `named_variables`, float32; a kernel includes the update of LoRA (Hu et al. 2021)."""
    layers = layers_by_name(model)
    return {
        (layer, name): merged_kernel(layers[layer])
        if name == "kernel" and has_lora(layers[layer])
        else keras.ops.convert_to_numpy(variable).astype(np.float32)
        for (layer, name), variable in named_variables(model).items()
    }


def first_convolution(variables: Collection[VariableName]) -> str:
    """Return the name of the first convolution of a network, which is in a block if there is no stem."""
    return next(layer for layer, name in variables if name == "kernel")


def _translate(
    model: ResidualNetwork,
    found: Selection,
    variables: dict[VariableName, keras.Variable],
    path: Path,
    *,
    epsilon: float | None,
    adapt_channels: str,
) -> dict[VariableName, np.ndarray]:
    """Return the values of the Keras variables by (layer name, variable name).

    Args:
        model: the network that receives the weights.
        found: arrays of the file.
        variables: variables of the network to load.
        path: path of the file, for messages.
        epsilon: epsilon of BatchNorm in the network of the file; None if it is that of the model.
        adapt_channels: see `load_weights`.

    Raises:
        UserError: for arrays that are missing, unexpected or of another shape, or whose values are no weights.
    """
    dialect, arrays, hint = found.dialect, found.arrays, selection.suggest(found.arrays, model.zoo_name or model.name)
    keys = {names: dialect.key(*names) for names in variables}
    biases = _find_biases_before_norm(variables, dialect, arrays)
    missing = [key or "/".join(names) for names, key in keys.items() if key not in arrays]
    unexpected = sorted([*found.others, *set(arrays) - set(keys.values()) - set(biases.values())])
    if missing or unexpected:
        raise UserError(
            f"{str(path)!r} does not hold the weights of {model.name}"
            f"{_enumerate('; missing', missing)}{_enumerate('; unexpected', unexpected)}{hint}"
        )
    origin, layers = repr(str(path)), layers_by_name(model)
    for (layer, name), key in keys.items():
        # Files of this package may have variances that are negative by less than epsilon, see `_fold_into_norm`.
        own = getattr(layers[layer], "epsilon", 0.0)
        added = 0.0 if dialect.epsilon is not None else (epsilon or own)
        check_weight(origin, str(key), arrays[str(key)], name, epsilon=added)
    for key in biases.values():
        check_weight(origin, key, arrays[key], "bias")
    values, misshapen = {}, {}
    for names, variable in variables.items():
        value = _from_torch(arrays[str(keys[names])], variable) if dialect.torch_layout else arrays[str(keys[names])]
        if names[0] in channels.STEM_LAYERS and channels.fits_but_channels(value, variable.shape):
            value = channels.adapt_channels(value, variable.shape[-2], method=adapt_channels)
        if tuple(value.shape) != tuple(variable.shape):
            misshapen[names] = f"{keys[names]} {tuple(value.shape)} for {tuple(variable.shape)}"
        values[names] = value
    if misshapen:
        shapes = _enumerate("; shapes", list(misshapen.values()))
        only_head = all(layer == LOGITS_LAYER for layer, _ in misshapen)
        hint += "; new_head=True keeps the head of the model" if only_head else ""
        raise UserError(f"{str(path)!r} does not fit {model.name}{shapes}{hint}")
    return _fold_into_norm(values, model, {layer: arrays[key] for layer, key in biases.items()}, epsilon)


def _find_biases_before_norm(
    variables: dict[VariableName, keras.Variable], dialect: Dialect, arrays: Arrays
) -> dict[str, str]:
    """Return BatchNorm layer -> key of the bias of the preceding convolution, for biases that Keras layers lack."""
    found = {}
    for layer, name in variables:
        key = dialect.key(layer, "bias")
        is_bare = name == "kernel" and (layer, "bias") not in variables and (f"{layer}_bn", "gamma") in variables
        if is_bare and key in arrays:
            found[f"{layer}_bn"] = str(key)
    return found


def _fold_into_norm(
    values: dict[VariableName, np.ndarray], model: ResidualNetwork, biases: Arrays, epsilon: float | None
) -> dict[VariableName, np.ndarray]:
    """Fold biases of convolutions into the means of BatchNorm, and differences in epsilon into the variances.

    Both leave the output of a network in inference mathematically unchanged.
    """
    for layer, bias in biases.items():
        values[layer, "moving_mean"] = values[layer, "moving_mean"] - bias
    layers = layers_by_name(model)
    for (layer, name), value in values.items() if epsilon is not None else ():
        if name == "moving_variance":
            values[layer, name] = value + np.float32(epsilon - layers[layer].epsilon)
    return values


def _from_torch(array: np.ndarray, variable: keras.Variable) -> np.ndarray:
    if array.ndim == 4 and len(variable.shape) == 2:  # a head stored as a 1x1 convolution
        array = array[:, :, 0, 0]
    return array.transpose({4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def _to_torch(array: np.ndarray, dialect: Dialect, names: tuple[str, str]) -> np.ndarray:
    array = array.transpose({4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0)}.get(array.ndim, range(array.ndim)))
    as_convolution = dialect.name == "timm BiT" and names == (LOGITS_LAYER, "kernel")
    # safetensors ignores strides, so it would write a transposed view in the wrong order.
    return np.ascontiguousarray(array[:, :, np.newaxis, np.newaxis] if as_convolution else array)


def _enumerate(title: str, names: list[str]) -> str:
    """Return the title and the first four names for an error message; empty without names."""
    if not names:
        return ""
    return f"{title} {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
