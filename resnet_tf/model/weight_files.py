"""Reading and writing weights files: each format becomes a dict from name to array."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from resnet_tf.errors import UserError

Arrays = dict[str, np.ndarray]

_NORM_KINDS = ("gamma", "beta", "moving_mean", "moving_variance")


def read(path: Path) -> Arrays:
    """Name -> array: `.safetensors`, `.npz`, PyTorch (`.pth`, `.pt`, `.th`, `.bin`) or Keras (`.h5`, `.keras`).

    Names are the file's own: `layer1.0.conv1.weight` of PyTorch, `conv1_conv/kernel` of Keras.

    Raises:
        UserError: if there is no such file, it cannot be read, it is a pickle that holds more than arrays, or a value
            in it is not finite.
    """
    if not path.is_file():
        raise UserError(f"no weights file {str(path)!r}")
    if path.suffix not in _READERS:
        raise UserError(f"{str(path)!r} is no weights file that can be read: give {', '.join(_READERS)}")
    try:
        arrays = _READERS[path.suffix](path)
    except UserError:
        raise
    except Exception as error:  # each library has its own for a damaged file
        raise UserError(f"{str(path)!r} is damaged or not a {path.suffix} file: {error}") from error
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise UserError(f"{str(path)!r} holds values that are not finite, in {name!r}")
    return arrays


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays as a `.safetensors` file."""
    from safetensors.numpy import save_file

    save_file(dict(arrays), path, dict(metadata))


def _read_safetensors(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(path)


def _read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _read_torch(path: Path) -> Arrays:
    """A state dict, bare or under `state_dict` or `model`. Only arrays are unpickled: a pickle can hold any program."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"reading {str(path)!r} takes PyTorch: pip install 'resnet_tf[torch]', or give a .safetensors file"
        ) from error
    import pickle

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{str(path)!r} holds more than arrays, which is refused because it could run code") from error
    while isinstance(content, Mapping) and (inner := {"state_dict", "model"} & set(content)):
        content = content[inner.pop()]
    if not isinstance(content, Mapping):
        raise UserError(f"{str(path)!r} holds {type(content).__name__}, not a state dict")
    return {
        name: tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        for name, tensor in content.items()
        if isinstance(tensor, torch.Tensor)
    }


def _read_keras(path: Path) -> Arrays:
    """Either of Keras's layouts: the old one, a group a layer, or that of `.weights.h5`, which numbers variables."""
    with h5py.File(path) as file:
        return _keras_3_arrays(file) if "layers" in file else _keras_2_arrays(file.get("model_weights", file))


def _read_keras_archive(path: Path) -> Arrays:
    """The weights inside a `.keras` archive; nothing else of it is looked at."""
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member, h5py.File(member) as file:
        return _keras_3_arrays(file)


def _keras_2_arrays(file: Any) -> Arrays:
    arrays = {}
    for layer in map(_text, file.attrs["layer_names"]):
        for weight in map(_text, file[layer].attrs["weight_names"]):
            arrays[f"{layer}/{weight.split('/')[-1].split(':')[0]}"] = np.asarray(file[layer][weight])
    return arrays


def _keras_3_arrays(file: Any) -> Arrays:
    arrays = {}
    for group in file["layers"].values():
        variables = group.get("vars", {})
        values = [np.asarray(variables[str(index)]) for index in range(len(variables))]
        if not values:
            continue
        # A layer's variables come in the order in which it made them; what it is shows in the first one's axes.
        kinds = _NORM_KINDS if values[0].ndim == 1 else ("kernel", "bias")
        for kind, value in zip(kinds, values, strict=False):
            arrays[f"{_text(variables.attrs['name'])}/{kind}"] = value
    return arrays


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_READERS: dict[str, Callable[[Path], Arrays]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    **dict.fromkeys((".pth", ".pt", ".th", ".bin"), _read_torch),
    ".h5": _read_keras,
    ".keras": _read_keras_archive,
}
