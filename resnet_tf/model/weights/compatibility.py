"""Comparison of a network with the architecture that a weights file states or implies.

Networks whose weights have the same names and shapes may compute different outputs, such as `resnet50` and
`resnet50_v1`, which differ in the convolution with the stride.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from resnet_tf.core.errors import UserError
from resnet_tf.model.arch import FREE_FIELDS, Arch, listed
from resnet_tf.model.network import ResidualNetwork, layers_by_name
from resnet_tf.model.weights.dialects import Dialect
from resnet_tf.model.weights.keras_files import Configs
from resnet_tf.model.zoo import MODELS

# Settings of a layer that change its output, but not the shapes of its weights.
_SETTINGS = ("strides", "groups", "activation")
# Fields of `Arch` that the names and shapes of weights do not always show.
_HIDDEN = ("shortcut", "stride_conv", "stride_block", "strides", "stem_pool", "standardize", "activation")


def check_architecture(model: ResidualNetwork, dialect: Dialect, metadata: Mapping[str, Any], path: Path) -> None:
    """Raise `UserError` for weights of another architecture that has the same names and shapes.

    The model is compared with the architecture in the metadata of the file. In files without this metadata, it is
    compared with the fields that the dialect implies.

    Args:
        model: the network that receives the weights.
        dialect: dialect of the file.
        metadata: metadata of the file, see `readers.WeightsFile`.
        path: path of the file.
    """
    arch, name = model.arch, model.zoo_name or model.name
    if arch is None:
        return
    # Keras stores a model's name in every file. The name refers to MODELS only in files of this package.
    stored = metadata.get("model") or (metadata.get("keras_name") if dialect.name == "resnet_tf" else None)
    implies, origin = dialect.implies, f"come from {dialect.name}"
    if stored:
        origin = f"were written for {stored}"
        fields = metadata.get("arch")
        if not isinstance(fields, dict):
            fields = vars(MODELS[stored]) if str(stored) in MODELS and stored != name else {}
        implies = {key: (tuple(value) if isinstance(value, list) else value,) for key, value in fields.items()}
    conflicts = arch.conflicts(implies)
    if not conflicts:
        return
    needed, fitting = _fitting_network(arch, conflicts)
    settings, present = listed(needed), listed({key: getattr(arch, key) for key in needed})
    raise UserError(
        f"the weights in {str(path)!r} {origin}, a network with {settings}; {name} has {present}, with the same names "
        f"and shapes but other results. Use {fitting or f'{name} with {settings}'}"
    )


def check_layers(model: ResidualNetwork, dialect: Dialect, configs: Configs, path: Path) -> None:
    """Raise `UserError` for a Keras file whose layers compute other outputs with the same weights.

    Networks with `output_stride` have dilation instead of strides, which users choose independently of the weights.

    Args:
        model: the network that receives the weights.
        dialect: dialect of the file.
        configs: configurations of the layers by the names in the file, see `readers.WeightsFile`.
        path: path of the file.
    """
    dilated = any(config.get("dilation_rate") not in (None, 1, [1], [1, 1]) for config in configs.values())
    if not configs or model.arch is None or model.arch.output_stride or dilated:
        return
    layers = layers_by_name(model)
    difference = _other_layer(layers, configs) if dialect.name == "resnet_tf" else ""
    for name, layer in layers.items():
        key = (dialect.key(name, "kernel") or name).removesuffix(f"{dialect.separator}kernel")
        difference = difference or _other_setting(key, layer.get_config(), configs.get(key, {}))
    if difference:
        alike = " or ".join(_look_alikes(model.arch))
        hint = f". Use {alike}" if alike else ""
        raise UserError(
            f"the weights in {str(path)!r} are of a network {difference} in {model.name}, with the same names and "
            f"shapes but other results{hint}"
        )


def _other_layer(layers: Iterable[str], configs: Configs) -> str:
    """Return a description of a layer that only one of two networks of this package has in its blocks, or nothing.

    Only stages that both have are compared, because models of feature maps end before the last one.
    """
    ours, theirs = (
        {name for name in names if name.startswith("stage") and not name.endswith("_drop")}
        for names in (layers, configs)
    )
    common = {name.split("_")[0] for name in ours} & {name.split("_")[0] for name in theirs}
    for name in (each for each in sorted(ours ^ theirs) if each.split("_")[0] in common):
        return f"with a layer {name!r}, which is not" if name in theirs else f"without the layer {name!r}, which is"
    return ""


def _other_setting(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return a description of a setting in which two layers differ, or nothing."""
    for setting in _SETTINGS:
        if setting in ours and setting in theirs and not _equal(ours[setting], theirs[setting]):
            return f"with {setting}={theirs[setting]!r} in {name!r} instead of {ours[setting]!r}"
    return ""


def _look_alikes(arch: Arch) -> list[str]:
    """Return the names of other networks whose weights have the same names and shapes."""
    differences = {name: set(arch.differences(other)) for name, other in MODELS.items()}
    return [name for name, fields in differences.items() if fields and fields <= set(_HIDDEN)]


def stored_epsilon(dialect: Dialect, metadata: Mapping[str, Any]) -> float | None:
    """Return the epsilon of BatchNorm in the network of a file; None if unknown."""
    fields = metadata.get("arch")
    stored = fields.get("norm_epsilon") if isinstance(fields, dict) else None
    return float(stored) if isinstance(stored, int | float) else dialect.epsilon


def _equal(ours: Any, theirs: Any) -> bool:
    """Return True for equal settings; Keras writes the strides of a square either as a number or as a list."""
    if isinstance(theirs, int) and isinstance(ours, list | tuple):
        return all(each == theirs for each in ours)
    if isinstance(theirs, list) and isinstance(ours, list | tuple):
        return list(ours) == theirs
    return ours == theirs


def _fitting_network(arch: Arch, conflicts: Mapping[str, tuple[Any, ...]]) -> tuple[dict[str, Any], str]:
    """Return values without conflict, and the names of the networks in the zoo that have them, joined by "or"."""
    first = {key: values[0] for key, values in conflicts.items()}
    choices = [first, *(first | {key: value} for key, values in conflicts.items() for value in values[1:])]
    named = ((needed, _matching_models({**vars(arch), **needed})) for needed in choices)
    return next(((needed, names) for needed, names in named if names), (first, ""))


def _matching_models(fields: Mapping[str, Any]) -> str:
    """Return the names of the networks in `MODELS` whose `Arch` has the given fields, joined by "or"."""
    return " or ".join(
        name
        for name, arch in MODELS.items()
        if all(value == fields[key] for key, value in vars(arch).items() if key not in FREE_FIELDS)
    )
