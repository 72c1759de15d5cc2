"""Settings of a network in the JSON files of a Hugging Face repository: `resnet_tf.json`, and timm's `config.json`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.class_names import imagenet_labels, to_names
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.ranges import MAX_CLASSES, shorten
from resnet_tf.core.text import counted
from resnet_tf.core.validation import find_mismatch
from resnet_tf.inputs import ImagePreprocess, Preprocess, presets
from resnet_tf.model.arch import FREE_FIELDS, Arch
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.weights.pretrained import preprocess_at
from resnet_tf.model.zoo import MODELS

# Arguments of timm's networks that are read, and those that change nothing in evaluation.
_KNOWN_ARGUMENTS = (
    *("in_chans", "output_stride"),
    *("num_classes", "drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"),
)
_TIMM_STRIDES = (8, 16, 32)  # values of `output_stride` that timm's ResNet takes
_IMAGENET_TAG = "in1k"  # end of the tags of timm's weights with ImageNet's classes in their usual order
_TIMM_EPSILON = 1e-5
_TIMM_CLASSES = 1000  # of a configuration that states none


class _TimmWeights(TypedDict):
    """Fields of `pretrained_cfg` that are read; timm has a default for each, also for null."""

    input_size: NotRequired[tuple[int, int, int]]  # channels, height, width
    test_input_size: NotRequired[tuple[int, int, int]]
    crop_pct: NotRequired[float]
    test_crop_pct: NotRequired[float]
    crop_mode: NotRequired[str]
    interpolation: NotRequired[str]
    mean: NotRequired[list[float]]
    std: NotRequired[list[float]]
    num_classes: NotRequired[int]
    tag: NotRequired[str]


class _TimmArguments(TypedDict):
    """Arguments of a network that are read."""

    in_chans: NotRequired[int]
    output_stride: NotRequired[int]


class _TimmConfig(TypedDict):
    """Fields of `config.json` that are read."""

    architecture: str
    num_classes: NotRequired[int]
    global_pool: NotRequired[str]
    model_args: NotRequired[_TimmArguments]
    label_names: NotRequired[list[str] | dict[str, str]]
    label_descriptions: NotRequired[dict[str, str]]
    pretrained_cfg: NotRequired[_TimmWeights]


@dataclass(frozen=True)
class HubSettings:
    """Settings of the network in a repository.

    Attributes:
        name: name of the network, one of `list_models()`.
        arch: its architecture.
        num_classes: units of its head; 0 for none.
        input_shape: (height, width, channels) of its input, or (length, channels).
        preprocesses: preprocessing at each input size of the weights, the preferred one first; none if unknown.
        labels: class names in the order of the logits; None if unknown.
        thresholds: of a network of sigmoids, the probability from which on each class is selected.
        calibration: map from logits to probabilities.
    """

    name: str
    arch: Arch
    num_classes: int
    input_shape: tuple[int | None, ...]
    preprocesses: tuple[Preprocess, ...]
    labels: tuple[str, ...] | None
    thresholds: tuple[float, ...] | None = None
    calibration: Calibration = UNCALIBRATED

    @property
    def knobs(self) -> dict[str, Any]:
        """Fields of the architecture that differ from that of the zoo, for `create_model`."""
        base = MODELS[self.name]
        fields = (field.name for field in dataclasses.fields(Arch))
        return {
            field: getattr(self.arch, field) for field in fields if getattr(self.arch, field) != getattr(base, field)
        }

    def preprocess_at(self, sizes: tuple[int | None, ...]) -> Preprocess | None:
        """Return the preprocessing for an input size, without the channels; None if it is unknown."""
        return preprocess_at(self.preprocesses, sizes) if self.preprocesses else None

    def metadata_at(self, sizes: tuple[int | None, ...]) -> Metadata:
        """Return the metadata of the weights for an input size, without the architecture; see `preprocess_at`."""
        return Metadata(
            preprocess=self.preprocess_at(sizes),
            labels=self.labels,
            thresholds=self.thresholds,
            calibration=self.calibration,
        )


def from_metadata(content: Mapping[str, Any]) -> HubSettings:
    """Return the settings in `resnet_tf.json`, see `to_metadata`.

    Raises:
        UserError: for unknown networks and wrong values.
    """
    metadata = Metadata.from_dict(content)
    name, shape = metadata.zoo_name, content.get("input_shape")
    if name not in MODELS:
        raise UserError(f"unknown model {shorten(name)}; did you mean {closest(name, MODELS)}?")
    if not isinstance(shape, list) or find_mismatch(shape, list[int | None], ""):
        raise UserError(f"input_shape takes a list of sizes, got {shorten(shape)}")
    preprocess = metadata.preprocess
    return HubSettings(
        name=name,
        arch=metadata.arch or MODELS[name],
        num_classes=_classes(content.get("num_classes"), metadata.labels),
        input_shape=tuple(shape),
        preprocesses=(preprocess,) if preprocess else (),
        labels=metadata.labels,
        thresholds=metadata.thresholds,
        calibration=metadata.calibration,
    )


def from_timm(content: Mapping[str, Any]) -> HubSettings:
    """Return the settings in the `config.json` of a repository of timm.

    Raises:
        UserError: for networks that are not in the zoo, and wrong values.
    """
    config = _without_nulls(content)
    weights = config.get("pretrained_cfg", config)  # files of early versions have the fields of both
    config["pretrained_cfg"] = weights = _without_nulls(weights) if isinstance(weights, dict) else weights
    if mismatch := find_mismatch(config, _TimmConfig, "config"):
        raise UserError(mismatch.removeprefix("config."))
    name = zoo_name(config["architecture"])
    _check_arguments(config)
    arguments = config.get("model_args", {})
    channels, height, width = weights.get("input_size") or (3, *presets.TIMM.size)
    channels = arguments.get("in_chans", channels)  # earlier versions store the input size of the original weights
    inputs = _timm_inputs(weights, (channels, height, width))
    labels = _timm_labels(config)
    classes = _classes(config.get("num_classes", weights.get("num_classes", _TIMM_CLASSES)), labels)
    if labels is None and classes == 1000 and weights.get("tag", "").endswith(_IMAGENET_TAG):
        labels = imagenet_labels()
    if inputs:
        height, width = inputs[0].size
    return HubSettings(name, _timm_arch(name, arguments), classes, (height, width, channels), inputs, labels)


def timm_name(name: str) -> str:
    """Return timm's name of a network of the zoo, which need not exist there."""
    if name.startswith("bit_r"):
        return f"resnetv2_{name.removeprefix('bit_r')}_bit"
    if name.startswith("resnet_rs"):
        return name.replace("resnet_rs", "resnetrs")
    return name.removesuffix("_d") + "d" if name.endswith("_d") else name


def zoo_name(architecture: str) -> str:
    """Return the name in the zoo of a network of timm.

    Raises:
        UserError: if the zoo does not have it.
    """
    names = {timm_name(name): name for name in MODELS if is_in_timm(name)}
    if architecture not in names:
        raise UserError(
            f"architecture {shorten(architecture)} of timm is none of this package; it has, for example, "
            f"{closest(architecture, names)}"
        )
    return names[architecture]


def is_in_timm(name: str) -> bool:
    """Return True for the networks of the zoo that timm has, too."""
    arch = MODELS[name]
    is_own = arch.dimensions == 1 or arch.shortcut == "none" or arch.stride_conv == 1
    return not is_own and arch.stem in ("conv7", "deep") and (arch.norm == "group" or not arch.preactivation)


def to_metadata(metadata: Metadata, input_shape: tuple[int | None, ...], num_classes: int) -> dict[str, Any]:
    """Return the content of `resnet_tf.json` for a network."""
    return metadata.to_dict() | {"input_shape": list(input_shape), "num_classes": num_classes}


def to_timm(metadata: Metadata, num_classes: int, *, first_conv: str, classifier: str) -> dict[str, Any] | None:
    """Return the content of `config.json`, with which timm loads the network; None for one that timm does not have.

    Args:
        metadata: of the network.
        num_classes: units of its head.
        first_conv: timm's name of the first convolution.
        classifier: timm's name of the head.
    """
    name, arch, preprocess = metadata.zoo_name, metadata.arch, metadata.preprocess
    if name not in MODELS or arch is None or not is_in_timm(name) or arch.norm_epsilon != _TIMM_EPSILON:
        return None
    inputs = preprocess.to_timm() if preprocess else None
    if preprocess is None or inputs is None:
        return None
    fields = {field.name for field in dataclasses.fields(Arch)} - set(FREE_FIELDS)
    stride = arch.output_stride or arch.total_stride
    if stride not in _TIMM_STRIDES or any(getattr(arch, field) != getattr(MODELS[name], field) for field in fields):
        return None
    arguments = {"in_chans": preprocess.channels} if preprocess.channels != 3 else {}
    arguments |= {"output_stride": stride} if stride != arch.total_stride else {}
    labels = {"label_names": list(metadata.labels)} if metadata.labels else {}
    return {
        "architecture": timm_name(name),
        "num_classes": num_classes,
        **labels,
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            **inputs,
            "custom_load": False,
            "fixed_input_size": False,
            "num_classes": num_classes,
            "first_conv": first_conv,
            "classifier": classifier,
        },
    }


def _without_nulls(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}


def _check_arguments(config: Mapping[str, Any]) -> None:
    """Refuse arguments of timm's networks that change the results and that no option here stands for."""
    arguments = {"global_pool": config.get("global_pool") or "avg", **config.get("model_args", {})}
    for name, value in arguments.items():
        if name not in _KNOWN_ARGUMENTS and (name, value) != ("global_pool", "avg"):
            raise UserError(f"timm's argument {shorten(name)}={shorten(value)} has no counterpart in this package")


def _timm_arch(name: str, arguments: Mapping[str, Any]) -> Arch:
    """Return the architecture of a network of the zoo with arguments of timm."""
    arch = MODELS[name]
    stride = arguments.get("output_stride", arch.total_stride)
    if stride not in _TIMM_STRIDES:
        raise UserError(f"timm's argument output_stride takes 8, 16 or 32, got {stride}")
    return dataclasses.replace(arch, output_stride=0 if stride == arch.total_stride else stride)


def _timm_inputs(weights: Mapping[str, Any], trained_size: tuple[int, int, int]) -> tuple[ImagePreprocess, ...]:
    """Return the preprocessing for evaluation, and then that of training if it differs; none for other channels.

    Fields that are missing or empty have the defaults of timm's `resolve_data_config`.
    """
    if (mode := weights.get("crop_mode") or "center") != "center":
        raise UserError(f"crop_mode={shorten(mode)}; the preprocessing of this package has 'center'")
    channels = trained_size[0]
    if not ImagePreprocess.supports_channels(channels):
        return ()
    sizes = weights.get("test_input_size") or trained_size, trained_size
    trained_crop = weights.get("crop_pct") or presets.TIMM.crop_fraction
    crops = weights.get("test_crop_pct") or trained_crop, trained_crop
    base = presets.TIMM.with_channels(channels)
    base = dataclasses.replace(
        base,
        interpolation=weights.get("interpolation") or base.interpolation,
        mean=_timm_statistics(weights.get("mean") or base.mean, channels),
        std=_timm_statistics(weights.get("std") or base.std, channels),
    )
    found = (base.with_timm_crop((height, width), crop) for (_, height, width), crop in zip(sizes, crops, strict=True))
    return tuple(dict.fromkeys(found))


def _timm_statistics(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return the statistics of channels; the average of RGB for gray, as in timm's `resolve_input_data_config`."""
    return (sum(values) / len(values),) if channels == 1 else tuple(values)


def _timm_labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the descriptions of the classes, or their names; None without either."""
    names = config.get("label_names")
    if not names:
        return None
    if isinstance(names, dict):
        indices = [str(index) for index in range(len(names))]
        if set(indices) != set(names):
            raise UserError(f"label_names has other keys than 0 to {len(names) - 1}")
        names = [names[index] for index in indices]
    descriptions = config.get("label_descriptions") or {}
    return to_names(descriptions.get(name, name) for name in names)


def _classes(count: Any, labels: tuple[str, ...] | None) -> int:
    if type(count) is not int or not 0 <= count <= MAX_CLASSES:
        raise UserError(f"num_classes takes 0 to {MAX_CLASSES}, got {shorten(count)}")
    if labels is not None and count and len(labels) != count:
        raise UserError(f"{counted(len(labels), 'label')} for {counted(count, 'class')}")
    return count
