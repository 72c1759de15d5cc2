"""Reading of weights that Keras or TF-Keras wrote: `.h5`, `.weights.h5`, `.keras` and TensorFlow checkpoints.

Layouts of HDF5 files:

- whole models in `.h5`, and `.weights.h5` of Keras 2: a group per layer, with variables by name;
- `.weights.h5` and `.keras` of Keras 3 and of TF-Keras 2.12 and later: groups named after the class of a layer
  (`conv2d`, `conv2d_1`, ...), with numbered variables. Since Keras 3.6, a group has the name of its layer as attribute;
  before, the names are in the configuration of a `.keras` archive only.
"""

import io
import itertools
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from resnet_tf.core.bounded import open_regular, parse_json
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import literal_path
from resnet_tf.model.weights.bounds import check_variables

Arrays = dict[str, np.ndarray]
Configs = dict[str, Mapping[str, Any]]

_NORM_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")
# Groups that only contain groups of layers; the second is the name in TF-Keras 2.12 and 2.13.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
# Groups of the state of other objects than layers.
_OTHER_STATE = ("vars", "optimizer", "metrics", "compile_metrics", "seed_generator", "_saved_metadata")
_MAX_NAME = 2**12  # characters of the name of a layer: those of many may be the same long text in the file


def read_h5(path: Path) -> Arrays:
    """Return the arrays of an HDF5 file by name, such as `conv1_conv/kernel`; those of nested models as `model/...`.

    Raises:
        UserError: for a file of numbered variables without the names of layers.
    """
    with h5py.File(path) as file:
        named = file.get("model_weights", file)
        if _attribute(named, "layer_names"):
            return _named_arrays(named)
        return _numbered_arrays(file, {}, path)


def read_archive(path: Path) -> Arrays:
    """Return the arrays of a `.keras` archive by name, without creating the model; see `read_h5`."""
    with zipfile.ZipFile(path) as archive:
        names = _names_of_groups(parse_json(archive.read("config.json")))
        # In memory, because a member of an archive is read again from its beginning for every step back in it.
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            return _numbered_arrays(file, names, path)


def read_configs(path: Path) -> Configs:
    """Return the configurations of the layers of a model by their names, those of nested models as `model/layer`.

    The configurations are empty in files of `save_weights`, of which those of Keras 3.6 and later have the names.
    """
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return _layer_configs(parse_json(archive.read("config.json")))
    with h5py.File(path) as file:
        text = file.attrs.get("model_config")
        if text is not None:
            return _layer_configs(parse_json(text))
        groups = _layer_groups(file)
        scopes = ([_stored_name(groups[where[: depth + 1]]) for depth in range(len(where))] for where in groups)
        return {"/".join(map(str, scope)): {} for scope in scopes if None not in scope}


def read_nested(path: Path, dataset: str, *, largest: int) -> dict[str, Any]:
    """Return the JSON objects in a dataset of the nested models of a weights file, by the names of the models.

    Args:
        path: an HDF5 file.
        dataset: name of the dataset, bytes of JSON, in the group of a model.
        largest: largest number of bytes to read.
    """
    with h5py.File(path) as file:
        groups = _layer_groups(file)
        found = {where: group[dataset] for where, group in groups.items() if dataset in group}
        objects = {}
        for where, stored in found.items():
            if not isinstance(stored, h5py.Dataset) or stored.nbytes > largest:
                raise ValueError(f"{dataset!r} is not a dataset of at most {largest:,} bytes")
            scope = [_stored_name(groups[where[: depth + 1]]) or where[depth] for depth in range(len(where))]
            objects["/".join(scope)] = parse_json(bytes(stored[()]))
    return {name: each for name, each in objects.items() if isinstance(each, dict)}


def is_checkpoint(path: Path) -> bool:
    """Return True for the prefix of a TensorFlow checkpoint, `PATH` of the files `PATH.index` and `PATH.data-...`."""
    return not path.exists() and _with_suffix(path, ".index").is_file()


def read_checkpoint(path: Path) -> Arrays:
    """Return the variables of a checkpoint that TF-Keras wrote, by the names of its variables.

    Args:
        path: prefix of the checkpoint.

    Raises:
        UserError: if two variables have the same name, or none has a name.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    for file in path.parent.iterdir():
        if file.name.startswith(f"{path.name}."):
            open_regular(file).close()
    with literal_path(path.parent) as directory:
        stored = tf.train.load_checkpoint(str(directory / path.name))
        check_variables(stored, path)
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
            stored.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
        )
        attributes = [each for node in graph.nodes for each in node.attributes if "/" in each.full_name]
        keys = {each.checkpoint_key: each.full_name for each in attributes if _is_weight(each.checkpoint_key)}
        repeated = [name for name, count in Counter(keys.values()).items() if count > 1]
        if repeated or not keys:
            several = f"contains several variables {repeated[0]!r}"
            what = several if repeated else "does not contain the names of variables"
            raise UserError(f"checkpoint {str(path)!r} {what}; save the model as .h5 or .keras instead")
        return {name: stored.get_tensor(key) for key, name in keys.items()}


def _is_weight(checkpoint_key: str) -> bool:
    return not checkpoint_key.startswith(("optimizer/", "keras_api/")) and ".OPTIMIZER_SLOT" not in checkpoint_key


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _named_arrays(file: h5py.Group) -> Arrays:
    """Return the arrays of a file with variables by name.

    Raises:
        ValueError: if two names stand for the same array, such as `a` and `./a`: a small file could list thousands.
    """
    arrays: Arrays = {}
    read = set()
    for layer in _attribute(file, "layer_names"):
        group = file[layer]
        weights = {weight: weight.split(":")[0].split("/") for weight in _attribute(group, "weight_names")}
        # A group with variables of several scopes is a nested model.
        nested = len({tuple(scope) for *scope, _ in weights.values()}) > 1
        # The published files name the head `probs`, which Keras loads by its position.
        name = "predictions" if layer == "probs" else layer
        for weight, (*scope, variable) in weights.items():
            inner = [each for each in scope if each != layer] if nested else []
            stored = group[weight]
            address = h5py.h5o.get_info(stored.id).addr
            if address in read:
                raise ValueError(f"{stored.name!r} is listed twice")
            read.add(address)
            arrays["/".join((name, *inner, variable))] = np.asarray(stored)
    return arrays


def _attribute(group: h5py.Group, name: str) -> list[str]:
    """Return a list of texts, which Keras divides into `name0`, `name1`, ... if it exceeds HDF5's limit of 64 KB."""
    numbered = itertools.takewhile(group.attrs.__contains__, (f"{name}{number}" for number in itertools.count()))
    parts = [name] if name in group.attrs else numbered
    return [_text(each) for part in parts for each in group.attrs[part]]


def _numbered_arrays(file: h5py.File, names: Mapping[tuple[str, ...], str], path: Path) -> Arrays:
    """Return the arrays of a file with numbered variables.

    Args:
        file: the HDF5 file.
        names: name of each layer by the path of its group, for files that do not contain it.
        path: path of the file, for messages.
    """
    groups = _layer_groups(file)
    labels = {each: _stored_name(group) or names.get(each) for each, group in groups.items()}
    arrays: Arrays = {}
    for where, group in groups.items():
        variables = group.get("vars", {})
        values = [np.asarray(variables[str(index)]) for index in range(len(variables))]
        if not values:
            continue
        scope = [labels.get(where[: depth + 1]) for depth in range(len(where))]
        if None in scope:
            raise UserError(
                f"{str(path)!r} was written by Keras 3.0 to 3.5 or TF-Keras, whose .weights.h5 files do not contain "
                "the names of layers; load it there and save the whole model as .keras or .h5"
            )
        # Variables are stored in the order of their creation; the first one of a BatchNorm layer has rank 1.
        variable_names = _NORM_VARIABLES if values[0].ndim == 1 else ("kernel", "bias")
        for name, value in zip(variable_names, values, strict=False):
            arrays["/".join([*map(str, scope), name])] = value
    return arrays


def _layer_groups(file: h5py.File) -> dict[tuple[str, ...], h5py.Group]:
    """Return the groups of layers by their paths, a name per level of nesting."""
    return dict(_walk(file, ()))


def _walk(group: h5py.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], h5py.Group]]:
    """Yield the groups of layers by their paths, without the names of containers."""
    for key in group:
        if key in _OTHER_STATE or not isinstance(group.get(key, getlink=True), h5py.HardLink):
            continue
        child = group[key]
        if not isinstance(child, h5py.Group):
            continue
        # TF-Keras on Windows joined the names of nested groups by backslashes.
        below = (*path, *(part for part in key.split("\\") if part not in _CONTAINERS))
        if below != path:
            yield below, child
        yield from _walk(child, below)


def _stored_name(group: h5py.Group) -> str | None:
    variables = group.get("vars")
    if variables is None or "name" not in variables.attrs:
        return None
    name = _text(variables.attrs["name"])
    if len(name) > _MAX_NAME:
        raise ValueError(f"the name of a layer has {len(name):,} characters; the limit is {_MAX_NAME:,}")
    return name


def _names_of_groups(config: Any) -> dict[tuple[str, ...], str]:
    """Return the name of each layer by the path of its group, for the configuration of a model."""
    names: dict[tuple[str, ...], str] = {}
    counts: Counter[str] = Counter()
    for layer in _layers(config):
        group = _group_name(layer["class_name"])
        number, counts[group] = counts[group], counts[group] + 1
        path = f"{group}_{number}" if number else group
        names[path,] = layer["config"]["name"]
        names |= {(path, *below): name for below, name in _names_of_groups(layer).items()}
    return names


def _layer_configs(config: Any) -> Configs:
    """Return the configuration of each layer by its name, those of nested models as `model/layer`."""
    configs: Configs = {}
    for layer in _layers(config):
        name = layer["config"]["name"]
        configs[name] = layer["config"]
        configs |= {f"{name}/{below}": each for below, each in _layer_configs(layer).items()}
    return configs


def _layers(config: Any) -> list[dict[str, Any]]:
    """Return the configurations of the layers of a model in their order; empty for a layer that is no model."""
    inner = config.get("config") if isinstance(config, dict) else None
    found = inner.get("layers") if isinstance(inner, dict) else None
    layers = found if isinstance(found, list) else []
    for layer in layers:
        settings = layer.get("config") if isinstance(layer, dict) else None
        if not (isinstance(settings, dict) and isinstance(settings.get("name"), str)):
            raise ValueError("the configuration of the model has a layer without a name")
        if not isinstance(layer.get("class_name"), str):
            raise ValueError(f"the configuration of layer {settings['name']!r} has no class")
    return layers


def _group_name(class_name: str) -> str:
    """Return the name of a class in a weights file: `Conv2D` -> `conv2d`, `BatchNormalization` -> ..."""
    return re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", class_name).lower()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
