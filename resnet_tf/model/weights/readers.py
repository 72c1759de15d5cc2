"""Reading and writing weights files: each format becomes a dict from name to array."""

import importlib.util
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.export_metadata import read_export

Arrays = dict[str, np.ndarray]

_NORM_KINDS = ("gamma", "beta", "moving_mean", "moving_variance")
# Where a file has the metadata of its network, a JSON object: in `.safetensors` and in Keras's model configuration.
_METADATA = "resnet_tf"
# In the weights files of Keras, written by `resnet_tf.model.network`.
_METADATA_DATASET = "_saved_metadata/vars/json"
# In an archive of Keras, where the package wrote it before the model configuration had it.
_METADATA_MEMBER = f"{_METADATA}.json"
_METADATA_BYTES = 2**26  # more is refused before it is read


@dataclass(frozen=True)
class WeightsFile:
    """Content of a weights file.

    Attributes:
        arrays: arrays by the file's own names: `layer1.0.conv1.weight` of PyTorch, `conv1_conv/kernel` of Keras.
        metadata: metadata of the network, see `resnet_tf.model.metadata`. Of a file that Keras wrote of any other
            model, this is `keras_name`, the name of the model, where the file has it.
    """

    arrays: Arrays
    metadata: Mapping[str, Any]


def read(path: Path) -> WeightsFile:
    """Read a file (`.safetensors`, `.npz`, `.h5`, `.keras`, or PyTorch's `.pth`, `.pt`, `.th`, `.bin`) or a hub export.

    Raises:
        UserError: if there is no such file, it cannot be read, it is a pickle that holds more than arrays, a value in
            it is not finite, its metadata are corrupt, or a file of an export was changed.
    """
    if not path.exists():
        raise UserError(f"no weights file {str(path)!r}")
    if path.is_dir():
        with prefix_errors("weights are read from a file, or from a hub export"):
            export = read_export(path)
        path, metadata = export.directory, cast(Mapping[str, Any], export.metadata)
    else:
        check_readable(path.name)
        metadata = {}
    try:
        arrays = _read_hub(path) if path.is_dir() else _READERS[path.suffix](path)
    except UserError:
        raise
    except Exception as error:  # each library has its own for a corrupt file
        raise UserError(f"{str(path)!r} is corrupt or not a {path.suffix} file: {error}") from error
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise UserError(f"{str(path)!r} holds values that are not finite, in {name!r}")
    return WeightsFile(arrays, metadata or _read_metadata(path))


def check_readable(file_name: str) -> None:
    """Refuse a file by its name, before it is fetched: a `UserError` for an unknown suffix or a missing library."""
    suffix = Path(file_name).suffix
    if suffix not in SUFFIXES:
        raise UserError(f"{file_name!r} is no weights file that can be read: give {', '.join(SUFFIXES)}")
    if _READERS[suffix] is _read_torch and importlib.util.find_spec("torch") is None:
        raise UserError(
            f"reading {file_name!r} needs PyTorch: pip install 'resnet_tf[torch]', or give a .safetensors file"
        )


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write arrays and JSON values that belong to them as a `.safetensors` file."""
    from safetensors.numpy import save_file

    save_file(dict(arrays), path, {_METADATA: json.dumps(metadata)})


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        text = _METADATA_READERS.get(path.suffix, lambda _: None)(path)
        metadata = json.loads(text) if text else {}
        if not isinstance(metadata, dict):
            raise ValueError(f"it is {type(metadata).__name__}, not an object")
        return metadata
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"the metadata of the weights in {str(path)!r} is corrupt: {error}") from error


def _read_safetensors(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(path)


def _read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _read_torch(path: Path) -> Arrays:
    """A state dict, bare or under `state_dict` or `model`. Only arrays are unpickled: a pickle can hold any program."""
    import pickle

    import torch

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


def _read_hub(path: Path) -> Arrays:
    """The variables of a hub export, a SavedModel that keeps them by number under `variables`; no graph is loaded."""
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    if not (path / "saved_model.pb").is_file():
        raise UserError(f"{str(path)!r} is not a hub export; export the run with --target=hub")
    nodes = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].object_graph_def.nodes
    listed = [child.node_id for child in nodes[0].children if child.local_name == "variables"]
    if not listed:
        raise UserError(f"{str(path)!r} holds constants in the place of weights; export the run with --target=hub")
    stored = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    return {
        nodes[child.node_id].variable.name: stored.get_tensor(
            f"variables/{child.local_name}/.ATTRIBUTES/VARIABLE_VALUE"
        )
        for child in nodes[listed[0]].children
    }


def _keras_2_arrays(file: Any) -> Arrays:
    arrays = {}
    for layer in map(_text, file.attrs["layer_names"]):
        # keras-applications, which trained the published files, called the head `probs`; Keras fills it by its place.
        name = "predictions" if layer == "probs" else layer
        for weight in map(_text, file[layer].attrs["weight_names"]):
            arrays[f"{name}/{weight.split('/')[-1].split(':')[0]}"] = np.asarray(file[layer][weight])
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


def _read_safetensors_metadata(path: Path) -> str | None:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return (file.metadata() or {}).get(_METADATA)


def _read_keras_metadata(path: Path) -> str | None:
    with h5py.File(path) as file:
        for name in (_METADATA_DATASET, _METADATA):  # the second is the place of files that Keras did not write alone
            found = file.get(name)
            if isinstance(found, h5py.Dataset):
                if found.nbytes > _METADATA_BYTES:
                    raise ValueError(f"{name!r} claims {found.nbytes:,} bytes")
                return bytes(found[()]).decode()
        return _configured(file.attrs["model_config"]) if "model_config" in file.attrs else None


def _read_keras_archive_metadata(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        if _METADATA_MEMBER in archive.namelist():
            return archive.read(_METADATA_MEMBER).decode()
        return _configured(archive.read("config.json"))


def _configured(model_config: str | bytes) -> str | None:
    """Return the metadata in the configuration that Keras saves with a whole model, or else the model's name."""
    content = json.loads(model_config)
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        return None
    name = {"keras_name": config["name"]} if "name" in config else {}
    return json.dumps(config.get(_METADATA, name))


_READERS: dict[str, Callable[[Path], Arrays]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    **dict.fromkeys((".pth", ".pt", ".th", ".bin"), _read_torch),
    ".h5": _read_keras,
    ".keras": _read_keras_archive,
}
SUFFIXES = tuple(_READERS)
_METADATA_READERS: dict[str, Callable[[Path], str | None]] = {
    ".safetensors": _read_safetensors_metadata,
    ".h5": _read_keras_metadata,
    ".keras": _read_keras_archive_metadata,
}
