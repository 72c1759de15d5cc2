"""Conversion of weights between libraries, by tables of layer names.

Every array of a file must match a variable of the model, and every variable an array. PyTorch stores convolutions as
[out, in, height, width] and linear layers as [out, in], Keras as [height, width, in, out] and [in, out]. Files do not
store the momentum of BatchNorm, which is a setting of the layer (PyTorch's 0.1 is Keras's 0.9).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import Preprocess, presets
from resnet_tf.model.arch import FREE_FIELDS, Arch
from resnet_tf.model.builder import LOGITS_LAYER
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.readers import Arrays
from resnet_tf.model.weights.values import check_weight
from resnet_tf.model.zoo import MODELS

_TORCH_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_KERAS_VARIABLES = {name: name for name in _TORCH_VARIABLES}


@dataclass(frozen=True)
class Dialect:
    """Naming scheme of another library.

    Attributes:
        name: name of the library.
        modules: pairs of (regular expression of Keras layer names, template of the library's module name). `BLOCK` in
            an expression matches the stage and block of a layer. In a template, `{stage}`, `{block}` and `{conv}` count
            from 1, `{stage0}` and `{block0}` from 0, `{stage_plus1}` from 2.
        variables: Keras variable name -> name in the library.
        separator: text between the names of module and variable.
        torch_layout: True if kernels are [out, in, ...].
        epsilon: BatchNorm epsilon of the library; None for files of this package.
        implies: field of `Arch` -> its possible values in the library, for fields that change the results of a network
            but neither the names nor the shapes of its weights.
        preprocess: preprocessing of the library's published networks; None for files of this package.
        prefix: prefix of every array name.
    """

    name: str
    modules: tuple[tuple[str, str], ...]
    variables: dict[str, str]
    separator: str
    torch_layout: bool
    epsilon: float | None
    implies: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    prefix: str = ""

    def key(self, layer: str, variable: str) -> str | None:
        """Return the library's name of a Keras variable; None if the library has no such layer."""
        for pattern, template in self.modules:
            match = re.fullmatch(pattern.replace("BLOCK", _BLOCK), layer)
            if match:
                numbers = {name: int(value) for name, value in match.groupdict().items()}
                numbers |= {f"{name}0": value - 1 for name, value in numbers.items()}
                module = template.format(stage_plus1=numbers.get("stage", 0) + 1, layer=layer, **numbers)
                return f"{self.prefix}{module}{self.separator}{self.variables[variable]}"
        return None


@dataclass(frozen=True)
class WeightsOrigin:
    """Origin of loaded weights.

    Attributes:
        dialect: name of the `Dialect` of the file.
        preprocess: preprocessing that the weights were trained with; None if unknown.
        labels: class names in the order of the logits; None if unknown.
    """

    dialect: str
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None


_BLOCK = r"stage(?P<stage>\d+)_block(?P<block>\d+)"
_CONV = r"conv(?P<conv>\d)"
# Numbers of stage and block in the array names of any dialect.
_ANY_BLOCK = re.compile(r"(?:stage|layer|stages\.|conv)(\d+)(?:_block|\.blocks\.|\.)(\d+)")


def _torch(
    name: str, preprocess: Preprocess, *modules: tuple[str, str], prefix: str = "", **implies: tuple[Any, ...]
) -> Dialect:
    return Dialect(
        name,
        modules,
        _TORCH_VARIABLES,
        ".",
        torch_layout=True,
        epsilon=1e-5,
        implies={"stride_conv": (2,), "stride_block": ("first",), **implies},
        preprocess=preprocess,
        prefix=prefix,
    )


def _keras(name: str, preprocess: Preprocess, *modules: tuple[str, str], **implies: tuple[Any, ...]) -> Dialect:
    """Return a dialect of keras.applications, whose BatchNorm epsilon is 1.001e-5 instead of 1e-5."""
    return Dialect(
        name,
        modules,
        _KERAS_VARIABLES,
        "/",
        torch_layout=False,
        epsilon=1.001e-5,
        implies={"shortcut": ("projection",), **implies},
        preprocess=preprocess,
    )


_TORCH_BODY = (
    ("stem_conv", "conv1"),
    ("stem_conv_bn", "bn1"),
    (f"BLOCK_{_CONV}", "layer{stage}.{block0}.conv{conv}"),
    (f"BLOCK_{_CONV}_bn", "layer{stage}.{block0}.bn{conv}"),
    ("BLOCK_se_reduce", "layer{stage}.{block0}.se.fc1"),
    ("BLOCK_se_expand", "layer{stage}.{block0}.se.fc2"),
)
_DEEP_STEM = (
    ("stem_conv1", "conv1.0"),
    ("stem_conv1_bn", "conv1.1"),
    ("stem_conv2", "conv1.3"),
    ("stem_conv2_bn", "conv1.4"),
    ("stem_conv3", "conv1.6"),
    ("stem_conv3_bn", "bn1"),
    ("stem_pool_conv", "maxpool.0"),
    ("stem_pool_conv_bn", "maxpool.1"),
)
_CIFAR_BODY = (
    *_TORCH_BODY,
    ("BLOCK_shortcut_conv", "layer{stage}.{block0}.shortcut.0"),
    ("BLOCK_shortcut_conv_bn", "layer{stage}.{block0}.shortcut.1"),
    (LOGITS_LAYER, "linear"),
)
_APPLICATIONS_BODY = (
    ("stem_conv", "conv1_conv"),
    (f"BLOCK_{_CONV}", "conv{stage_plus1}_block{block}_{conv}_conv"),
    (f"BLOCK_{_CONV}_bn", "conv{stage_plus1}_block{block}_{conv}_bn"),
    ("BLOCK_shortcut_conv", "conv{stage_plus1}_block{block}_0_conv"),
    (LOGITS_LAYER, "predictions"),
)

DIALECTS = (
    # "akamaster CIFAR": github.com/akamaster/pytorch_resnet_cifar10; "module." is the prefix of torch.nn.DataParallel.
    Dialect("resnet_tf", ((".*", "{layer}"),), _KERAS_VARIABLES, "/", torch_layout=False, epsilon=None),
    _torch(
        "torchvision",
        presets.TORCHVISION,
        *_TORCH_BODY,
        ("BLOCK_shortcut_conv", "layer{stage}.{block0}.downsample.0"),
        ("BLOCK_shortcut_conv_bn", "layer{stage}.{block0}.downsample.1"),
        (LOGITS_LAYER, "fc"),
        shortcut=("projection", "pad", "none"),  # "pad" and "none" in files of this package only
    ),
    _torch(
        "timm",  # downsample.0 is the pooling before the projection
        presets.TIMM,
        *_DEEP_STEM,
        *_TORCH_BODY,
        ("BLOCK_shortcut_conv", "layer{stage}.{block0}.downsample.1"),
        ("BLOCK_shortcut_conv_bn", "layer{stage}.{block0}.downsample.2"),
        (LOGITS_LAYER, "fc"),
        shortcut=("average",),
    ),
    _torch(
        "timm BiT",
        presets.TIMM_BIT,
        ("stem_conv", "stem.conv"),
        ("BLOCK_preact_gn", "stages.{stage0}.blocks.{block0}.norm1"),
        ("BLOCK_conv1_gn", "stages.{stage0}.blocks.{block0}.norm2"),
        ("BLOCK_conv2_gn", "stages.{stage0}.blocks.{block0}.norm3"),
        (f"BLOCK_{_CONV}", "stages.{stage0}.blocks.{block0}.conv{conv}"),
        ("BLOCK_shortcut_conv", "stages.{stage0}.blocks.{block0}.downsample.conv"),
        ("final_gn", "norm"),
        (LOGITS_LAYER, "head.fc"),
        standardize=(True,),
    ),
    _torch("akamaster CIFAR", presets.CIFAR, *_CIFAR_BODY, shortcut=("pad", "projection")),
    _torch("akamaster CIFAR", presets.CIFAR, *_CIFAR_BODY, prefix="module.", shortcut=("pad", "projection")),
    _keras(
        "keras.applications",
        presets.KERAS_V1,
        *_APPLICATIONS_BODY,
        ("stem_conv_bn", "conv1_bn"),
        ("BLOCK_shortcut_conv_bn", "conv{stage_plus1}_block{block}_0_bn"),
        stride_conv=(1,),
        stride_block=("first",),
    ),
    _keras(
        "keras.applications V2",
        presets.KERAS_V2,
        *_APPLICATIONS_BODY,
        ("BLOCK_preact_bn", "conv{stage_plus1}_block{block}_preact_bn"),
        ("final_bn", "post_bn"),
        stride_conv=(2,),
        stride_block=("last",),
    ),
)


def load_weights(model: ResidualNetwork, path: Path, *, new_head: bool = False) -> WeightsOrigin:
    """Load weights from a file of this package, torchvision, timm, keras.applications or akamaster.

    The file is checked completely before the first assignment, so that an error leaves the model unchanged.

    Args:
        model: model from `create_model` that receives the weights.
        path: `.safetensors`, `.npz`, `.h5`, `.weights.h5`, `.keras`, a PyTorch pickle (which needs PyTorch), or the
            directory of a `hub` or `hub_features` export.
        new_head: keep the weights of the model's head and ignore the head in the file.

    Returns:
        Dialect, preprocessing and class names of the file. Without metadata, the preprocessing is that of the dialect.

    Raises:
        UserError: if the file cannot be read, or contains the weights of another architecture. An architecture with the
            same names and shapes but other results, such as another stride, is detected too.
    """
    file = readers.read(path)
    arrays = {name: array for name, array in file.arrays.items() if not name.endswith("num_batches_tracked")}
    variables = _named_variables(model)
    load_head = not new_head and any(layer == LOGITS_LAYER for layer, _ in variables)
    if not load_head:
        variables = {names: variable for names, variable in variables.items() if names[0] != LOGITS_LAYER}
    dialect = max(DIALECTS, key=lambda each: len({each.key(*names) for names in variables} & set(arrays)))
    if not load_head:
        head = {dialect.key(LOGITS_LAYER, name) for name in ("kernel", "bias")}
        arrays = {name: array for name, array in arrays.items() if name not in head}
    values = _translate(model, arrays, variables, dialect, path)
    if model.arch:
        _check_architecture(model.name, model.arch, dialect, file.metadata, path)
    origin = _read_origin(dialect, file.metadata, path)
    for names, variable in variables.items():
        variable.assign(values[names])
    return origin


def to_torchvision(model: keras.Model) -> Arrays:
    """Return the weights as a float32 state dict of torchvision, or of timm for other networks.

    Raises:
        UserError: if neither library has all layers of the network.
    """
    for dialect in DIALECTS:
        keys = {names: dialect.key(*names) for names in _named_variables(model)}
        if dialect.torch_layout and all(keys.values()):
            break
    else:
        raise UserError(f"{model.name} has layers that neither torchvision nor timm has")
    return {
        str(keys[names]): _to_torch(variable.numpy().astype(np.float32), dialect, names)
        for names, variable in _named_variables(model).items()
    }


def _read_origin(dialect: Dialect, metadata: Mapping[str, Any], path: Path) -> WeightsOrigin:
    """Return the dialect of a file, and the preprocessing and class names from its metadata."""
    try:
        stored = Metadata.from_dict({key: metadata.get(key) for key in ("preprocess", "labels")})
    except UserError as error:
        raise UserError(f"the metadata of the weights in {str(path)!r} is corrupt: {error}") from error
    return WeightsOrigin(dialect.name, stored.preprocess or dialect.preprocess, stored.labels)


def _check_architecture(name: str, arch: Arch, dialect: Dialect, metadata: Mapping[str, Any], path: Path) -> None:
    """Raise `UserError` for weights of another architecture that has the same names and shapes.

    The model is compared with the architecture in the metadata of the file. In files without this metadata, it is
    compared with the fields that the dialect implies.

    Args:
        name: name of the model.
        arch: architecture of the model.
        dialect: dialect of the file.
        metadata: metadata of the file, see `readers.WeightsFile`.
        path: path of the file.
    """
    # Keras stores a model's name in every file. The name refers to MODELS only in files of this package.
    stored = metadata.get("model") or (metadata.get("keras_name") if dialect.name == "resnet_tf" else None)
    implies, origin = dialect.implies, f"come from {dialect.name}"
    if stored:
        origin = f"were written for {stored}"
        fields = metadata.get("arch")
        if not isinstance(fields, dict):
            fields = vars(MODELS[stored]) if str(stored) in MODELS and stored != name else {}
        implies = {key: (tuple(value) if isinstance(value, list) else value,) for key, value in fields.items()}
    needed = arch.conflicts(implies)
    if not needed:
        return
    settings, present = (
        ", ".join(f"{key}={value!r}" for key, value in fields.items())
        for fields in (needed, {key: getattr(arch, key) for key in needed})
    )
    raise UserError(
        f"the weights in {str(path)!r} {origin}, a network with {settings}; {name} has {present}, with the same names "
        f"and shapes but other results. Use {_matching_models({**vars(arch), **needed}) or f'{name} with {settings}'}"
    )


def _matching_models(fields: Mapping[str, Any]) -> str:
    """Return the names of the networks in `MODELS` whose `Arch` has the given fields, joined by "or"."""
    return " or ".join(
        name
        for name, arch in MODELS.items()
        if all(value == fields[key] for key, value in vars(arch).items() if key not in FREE_FIELDS)
    )


def _named_variables(model: keras.Model) -> dict[tuple[str, str], keras.Variable]:
    """Return the variables of a model by (layer name, variable name), without seed generators' states."""
    return {
        (layer.name, variable.name): variable
        for layer in model.layers
        for variable in layer.weights
        if variable.name in _KERAS_VARIABLES
    }


def _translate(
    model: keras.Model,
    arrays: Arrays,
    variables: dict[tuple[str, str], keras.Variable],
    dialect: Dialect,
    path: Path,
) -> dict[tuple[str, str], np.ndarray]:
    """Return the values of the Keras variables by (layer name, variable name).

    Raises:
        UserError: for arrays that are missing, unexpected or of another shape, or whose values are no weights.
    """
    keys = {names: dialect.key(*names) for names in variables}
    biases = _find_biases_before_norm(variables, dialect, arrays)
    missing = [key or "/".join(names) for names, key in keys.items() if key not in arrays]
    unexpected = sorted(set(arrays) - set(keys.values()) - set(biases.values()))
    if missing or unexpected:
        raise UserError(
            f"{str(path)!r} does not hold the weights of {model.name}"
            f"{_enumerate('; missing', missing)}{_enumerate('; unexpected', unexpected)}{_suggest(arrays, model)}"
        )
    origin = repr(str(path))
    for (layer, name), key in keys.items():
        # Files of this package may have variances that are negative by less than epsilon, see `_fold_into_norm`.
        epsilon = 0.0 if dialect.epsilon is not None else getattr(model.get_layer(layer), "epsilon", 0.0)
        check_weight(origin, str(key), arrays[str(key)], name, epsilon=epsilon)
    for key in biases.values():
        check_weight(origin, key, arrays[key], "bias")
    values, misshapen = {}, {}
    for names, variable in variables.items():
        value = _from_torch(arrays[str(keys[names])], variable) if dialect.torch_layout else arrays[str(keys[names])]
        if tuple(value.shape) != tuple(variable.shape):
            misshapen[names] = f"{keys[names]} {tuple(value.shape)} for {tuple(variable.shape)}"
        values[names] = value
    if misshapen:
        shapes = _enumerate("; shapes", list(misshapen.values()))
        only_head = all(layer == LOGITS_LAYER for layer, _ in misshapen)
        hint = "; new_head=True keeps the head of the model" if only_head else ""
        raise UserError(f"{str(path)!r} does not fit {model.name}{shapes}{_suggest(arrays, model)}{hint}")
    return _fold_into_norm(values, model, dialect, {layer: arrays[key] for layer, key in biases.items()})


def _find_biases_before_norm(
    variables: dict[tuple[str, str], keras.Variable], dialect: Dialect, arrays: Arrays
) -> dict[str, str]:
    """Return BatchNorm layer -> key of the bias of the preceding convolution, for biases that Keras layers lack."""
    found = {}
    for layer, name in variables:
        key = dialect.key(layer, "bias")
        if name == "kernel" and (layer, "bias") not in variables and key in arrays:
            found[f"{layer}_bn"] = str(key)
    return found


def _fold_into_norm(
    values: dict[tuple[str, str], np.ndarray], model: keras.Model, dialect: Dialect, biases: Arrays
) -> dict[tuple[str, str], np.ndarray]:
    """Fold biases of convolutions into the means of BatchNorm, and differences in epsilon into the variances.

    Both leave the output of a network in inference mathematically unchanged.
    """
    for layer, bias in biases.items():
        values[layer, "moving_mean"] = values[layer, "moving_mean"] - bias
    if dialect.epsilon is None:
        return values
    for (layer, name), value in values.items():
        if name == "moving_variance":
            values[layer, name] = value + np.float32(dialect.epsilon - model.get_layer(layer).epsilon)
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


def _suggest(arrays: Arrays, model: keras.Model) -> str:
    """Return a hint with the networks that have the blocks per stage and convolutions per block of the file."""
    depths: dict[int, int] = {}
    most_convolutions = 0
    for key in arrays:
        match = _ANY_BLOCK.search(key)
        if match:
            stage, block = (int(number) for number in match.groups()[:2])
            depths[stage] = max(depths.get(stage, 0), block + (0 if "_block" in key else 1))
            convolution = re.search(r"(?:conv|block\d+_)(\d)", key[match.end(1) :])
            most_convolutions = max(most_convolutions, int(convolution[1]) if convolution else 0)
    shape = tuple(depths[stage] for stage in sorted(depths))
    names = [
        name
        for name, arch in MODELS.items()
        if arch.depths == shape and most_convolutions == {"basic": 2, "bottleneck": 3, "single": 1}[arch.block]
    ]
    return f"; it looks like {' or '.join(names[:4])}" if names and model.name not in names else ""
