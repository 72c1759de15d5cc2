"""Reading and writing of weights files: each format is read as a dict of arrays by name."""

import contextlib
import json
import shlex
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from resnet_tf.core.bounded import parse_json
from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.export_metadata import read_export
from resnet_tf.core.numpy_files import open_npz
from resnet_tf.core.paths import literal_path
from resnet_tf.model.weights import keras_files
from resnet_tf.model.weights.bounds import check_bounds, check_variables
from resnet_tf.model.weights.keras_files import Arrays, Configs
from resnet_tf.model.weights.torch_files import read_torch
from resnet_tf.model.weights.values import check_finite

# Key of the network's metadata, a JSON object, in `.safetensors` files and in Keras's model configuration.
_METADATA = "resnet_tf"
# Dataset of the metadata in Keras weights files, written by `resnet_tf.model.network`.
_METADATA_DATASET = "_saved_metadata/vars/json"
# Member of the metadata in `.keras` archives of earlier versions, before it was part of the model configuration.
_METADATA_MEMBER = f"{_METADATA}.json"
_METADATA_BYTES = 2**26  # largest size; larger metadata is rejected before it is read


@dataclass(frozen=True)
class WeightsFile:
    """Content of a weights file.

    Attributes:
        arrays: arrays by name in the file, such as `layer1.0.conv1.weight` (PyTorch) or `conv1_conv/kernel` (Keras).
        metadata: metadata of the network, see `resnet_tf.model.metadata`. For other models that Keras saved, it has
            only `keras_name`, the name of the model, if the file contains it.
        configs: configurations of the layers of a Keras model by their names, those of nested models as `model/layer`.
            Files of `save_weights` have the names only, with empty configurations; others have none.
        nested: metadata of networks inside of the model, by their names.
    """

    arrays: Arrays
    metadata: Mapping[str, Any]
    configs: Configs = field(default_factory=dict)
    nested: Mapping[str, Any] = field(default_factory=dict)

    def metadata_of(self, prefix: str) -> Mapping[str, Any]:
        """Return the metadata of the network whose arrays have a prefix: those of a nested network, or of the model."""
        return self.nested.get(prefix.rstrip("/"), self.metadata)

    def configs_of(self, prefix: str) -> Configs:
        """Return the configurations of the layers of the network whose arrays have a prefix, without the prefix."""
        named = {name: config for name, config in self.configs.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): config for name, config in named.items()}


def read(path: Path) -> WeightsFile:
    """Read a weights file or a hub export.

    Args:
        path: a `.safetensors`, `.npz`, `.h5` or `.keras` file, a `.pth`, `.pt`, `.th` or `.bin` file of PyTorch, the
            prefix of a checkpoint of TF-Keras, or the directory of a hub export.

    Raises:
        UserError: if the file does not exist or cannot be read, if it is a pickle of other objects than arrays, if a
            value is not finite, if the metadata is corrupt, or if a file of an export was modified.
    """
    if keras_files.is_checkpoint(path):
        return WeightsFile(_read_arrays(path, keras_files.read_checkpoint), {})
    if not path.exists():
        raise UserError(f"no weights file {str(path)!r}")
    if path.is_dir():
        with prefix_errors("weights are read from a file, or from a hub export"):
            try:
                export = read_export(path)
            except UserError:
                _check_no_run(path)
                raise
        path, metadata = export.directory, cast(Mapping[str, Any], export.metadata)
    else:
        check_readable(path.name)
        metadata = {}
    arrays = _read_arrays(path, _read_hub if path.is_dir() else _READERS[path.suffix])
    if metadata:
        return WeightsFile(arrays, metadata)
    metadata = read_metadata(path)
    if path.suffix not in (".h5", ".keras"):
        return WeightsFile(arrays, metadata)
    with _naming_metadata(path):
        configs = keras_files.read_configs(path)
        found = {name: config.get(_METADATA) for name, config in configs.items()}
        nested = {name: each for name, each in found.items() if isinstance(each, dict)}
        if path.suffix == ".h5":
            nested |= keras_files.read_nested(path, _METADATA_DATASET, largest=_METADATA_BYTES)
    return WeightsFile(arrays, metadata, configs, nested)


def _check_no_run(path: Path) -> None:
    """Refuse a run directory and its checkpoints, whose weights are exported before they are read."""
    for run in (path, *path.parents):
        checkpoints = run / "checkpoints"
        if (
            (run / "config.json").is_file()
            and checkpoints.is_dir()
            and (path == run or checkpoints in (path, path.parent))
        ):
            command = f"python -m resnet_tf.export --workdir={shlex.quote(str(run))} --target=hub"
            raise UserError(
                f"{str(run)!r} is a run; export it with {command}, and take {str(run / 'export' / 'hub')!r}"
            )


def _read_arrays(path: Path, read_file: Callable[[Path], Arrays]) -> Arrays:
    """Return the arrays of a file, whose values must be finite."""
    try:
        if path.exists() and not path.is_dir():  # no checkpoint, whose path is a prefix, and no export
            check_bounds(path)
        arrays = read_file(path)
    except UserError:
        raise
    except Exception as error:  # each library raises its own type for a corrupt file
        expected = f"a {path.suffix} file" if path.suffix in SUFFIXES else "a checkpoint"
        raise UserError(f"{str(path)!r} is corrupt or not {expected}: {error}") from error
    for name, array in arrays.items():
        check_finite(repr(str(path)), name, array)
    return arrays


def check_readable(file_name: str) -> None:
    """Check by its name that a file can be read, before it is downloaded.

    Raises:
        UserError: if the suffix is unknown.
    """
    suffix = Path(file_name).suffix
    if suffix not in SUFFIXES:
        raise UserError(f"cannot read weights from {file_name!r}; supported suffixes: {', '.join(SUFFIXES)}")


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write arrays and their metadata, JSON values, to a `.safetensors` file."""
    from safetensors.numpy import save_file

    save_file(dict(arrays), path, {_METADATA: json.dumps(metadata)})


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata in a weights file, see `WeightsFile`; empty if it has none.

    Raises:
        UserError: if the metadata is corrupt.
    """
    with _naming_metadata(path):
        text = _METADATA_READERS.get(path.suffix, lambda _: None)(path)
        metadata = parse_json(text) if text else {}
        if not isinstance(metadata, dict):
            raise ValueError(f"expected a JSON object, got {type(metadata).__name__}")
        return metadata


@contextlib.contextmanager
def _naming_metadata(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"the metadata of the weights in {str(path)!r} is corrupt: {error}") from error


def _read_safetensors(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(path)


def _read_npz(path: Path) -> Arrays:
    with prefix_errors(f"{str(path)!r} is corrupt or not a .npz file"), open_npz(path) as archive:
        return dict(archive)


def _read_hub(path: Path) -> Arrays:
    """Read the variables of a hub export, a SavedModel with a list `variables`, without loading a graph."""
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    if not (path / "saved_model.pb").is_file():
        raise UserError(f"{str(path)!r} is not a hub export; export the run with --target=hub")
    nodes = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].object_graph_def.nodes
    listed = [child.node_id for child in nodes[0].children if child.local_name == "variables"]
    if not listed:
        raise UserError(f"{str(path)!r} contains constants instead of variables; export the run with --target=hub")
    with literal_path(path) as directory:
        stored = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
        check_variables(stored, path / "variables" / "variables")
        return {
            nodes[child.node_id].variable.name: stored.get_tensor(
                f"variables/{child.local_name}/.ATTRIBUTES/VARIABLE_VALUE"
            )
            for child in nodes[listed[0]].children
        }


def _read_safetensors_metadata(path: Path) -> str | None:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return (file.metadata() or {}).get(_METADATA)


def _read_keras_metadata(path: Path) -> str | None:
    with h5py.File(path) as file:
        for name in (_METADATA_DATASET, _METADATA):  # the second one in files of earlier versions
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
    """Return the metadata in the configuration of a saved Keras model, or else the name of the model."""
    content = parse_json(model_config)
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        return None
    name = {"keras_name": config["name"]} if "name" in config else {}
    return json.dumps(config.get(_METADATA, name))


_READERS: dict[str, Callable[[Path], Arrays]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    **dict.fromkeys((".pth", ".pt", ".th", ".bin"), read_torch),
    ".h5": keras_files.read_h5,
    ".keras": keras_files.read_archive,
}
SUFFIXES = tuple(_READERS)
_METADATA_READERS: dict[str, Callable[[Path], str | None]] = {
    ".safetensors": _read_safetensors_metadata,
    ".h5": _read_keras_metadata,
    ".keras": _read_keras_archive_metadata,
}
