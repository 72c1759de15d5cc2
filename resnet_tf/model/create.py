"""Creation of networks by name as Keras models, with random or loaded weights."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_tf.core import files
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.export_metadata import holds_weights
from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import shorten
from resnet_tf.model import options
from resnet_tf.model.arch import Arch, listed
from resnet_tf.model.builder import LOGITS_LAYER, build
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork, layer_prefix
from resnet_tf.model.weights import hub, readers
from resnet_tf.model.weights.channels import check_method
from resnet_tf.model.weights.download import fetch
from resnet_tf.model.weights.hub import HubAddress
from resnet_tf.model.weights.hub_settings import HubSettings
from resnet_tf.model.weights.mapping import find_torch_dialect, load_weights, stored_channels, to_torchvision
from resnet_tf.model.weights.pretrained import Pretrained
from resnet_tf.model.weights.published import find_pretrained, get_pretrained
from resnet_tf.model.zoo import get_arch

logger = logging.getLogger(__name__)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    input_shape: tuple[int | None, ...] = (224, 224, 3),
    weights: str | Path | None = None,
    new_head: bool = False,
    adapt_channels: str = "repeat",
    features: Sequence[str] = (),
    model_name: str | None = None,
    **knobs: Any,
) -> ResidualNetwork:
    """Create a residual network as a Functional `keras.Model`.

    >>> create_model("resnet20", num_classes=10, input_shape=(32, 32, 3)).output_shape
    (None, 10)
    >>> backbone = create_model("resnet18", input_shape=(64, 64, 3), features=("stage2", "stage4"))
    >>> {name: each.shape[1:] for name, each in backbone.output.items()}
    {'stage2': (8, 8, 128), 'stage4': (2, 2, 512)}

    Args:
        name: one of `list_models()`.
        num_classes: number of logits; with 0, the model returns pooled features.
        input_shape: (height, width, channels), or (length, channels) for 1D networks (`*_1d`); None stands for a
            variable size.
        weights: None for random initialization; the name of published weights, one of `list_weights(name)`, or
            `imagenet` for the first of them; or a weights file of this package, Keras (`save` and `save_weights`),
            torchvision, timm or keras.applications, or a hub export (see
            `resnet_tf.model.weights.mapping.load_weights`); or a repository of the Hugging Face Hub,
            `hf://user/repo[@revision]`, with its preprocessing and class names (see `load_from_hub`).
        new_head: initialize the head randomly instead of loading it from `weights`, for fine-tuning on other classes.
        adapt_channels: method for weights whose first convolution has another number of input channels, such as those
            for RGB in a network for gray, RGBA or multispectral images: `repeat` (sum for one channel, otherwise
            repeated in their order and scaled, as timm does), `average` (each channel gets the scaled mean of all), or
            `zero` (further channels get zeros, so that the output is that of the first ones). The normalization of
            the weights, `preprocess`, is adapted likewise, for a number of channels that images have.
        features: names of stages, such as `("stage2", "stage3")`, to return a dict of feature maps instead of logits.
        model_name: name of the model, by default `name`. All layer names begin with it, so that several networks can be
            parts of one model: letters, digits and underscores.
        **knobs: fields of `Arch` to override, such as `stem="small"`, `output_stride=8`, `stochastic_depth=0.1`,
            `dropout=0.2`, `activation="silu"` or `zero_gamma=False`.

    Returns:
        A model from normalized inputs, float [N, H, W, C], to logits, float32 [N, num_classes]. Its attributes
        `preprocess` (preprocessing of images), `labels` (class names), `thresholds` and `calibration` are those of the
        weights, if known; `export_model` uses them. They are preserved when the model is cloned, copied, saved and
        loaded (see `ResidualNetwork`).

    Raises:
        UserError: if the name or a knob is unknown, if a knob is out of range or has no effect on the network, if the
            input is too small for the network, or if the weights cannot be downloaded or do not match the network.
    """
    base = get_arch(name)
    arch = dataclasses.replace(base, **_checked_knobs(knobs))
    options.check_effects(arch, base, knobs)
    if knobs.get("dropout") and (features or num_classes == 0):
        raise UserError(f"dropout={knobs['dropout']!r} has no effect on a network without a head; it needs num_classes")
    if not isinstance(new_head, bool):
        raise UserError(f"new_head takes True or False, got {shorten(new_head)}")
    if new_head and weights is None:
        raise UserError("new_head=True has no effect without weights: every head is initialized at random")
    check_method(adapt_channels)
    if adapt_channels != "repeat" and weights is None:
        raise UserError(f"adapt_channels={adapt_channels!r} has no effect without weights")
    if not isinstance(weights, str | Path | None):
        raise UserError(f"weights takes a name or a path, got {shorten(weights)}")
    if model_name is not None and not (isinstance(model_name, str) and re.fullmatch(r"[A-Za-z0-9]\w*", model_name)):
        raise UserError(
            f"model_name={shorten(model_name)} is not a letter or digit, followed by letters, digits, underscores"
        )
    model = build(
        arch, input_shape=input_shape, num_classes=num_classes, name=name, features=features, model_name=model_name
    )
    if weights is not None:
        _load(model, weights, new_head=new_head, adapt_channels=adapt_channels)
    return model


def load_from_hub(
    address: str,
    *,
    num_classes: int | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    new_head: bool = False,
    features: Sequence[str] = (),
    **arguments: Any,
) -> ResidualNetwork:
    """Load a network of this package or of timm from the Hugging Face Hub.

    The architecture, the preprocessing, the number of classes and their names are those of the repository, in its
    `resnet_tf.json` or in timm's `config.json`. Weights are read from `model.safetensors`, or else from
    `pytorch_model.bin`, without running the code that it may contain. Needs the package huggingface_hub, whose
    variables apply (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`).

    Args:
        address: `hf://user/repo`, `hf://user/repo@revision` with a branch, tag or commit, or one with the path of a
            weights file in the repository at its end.
        num_classes: number of logits, by default that of the repository; 0 for pooled features.
        input_shape: shape of the input, by default that of the weights.
        new_head: see `create_model`.
        features: see `create_model`.
        **arguments: further arguments of `create_model`.

    Returns:
        The model, as `create_model` does.

    Raises:
        UserError: if the repository or a file is missing or cannot be downloaded, or for a network that is not in the
            zoo, and for all that `create_model` refuses.
    """
    settings = hub.fetch_settings(HubAddress.parse(address))
    count = settings.num_classes if num_classes is None else num_classes
    knobs = settings.knobs
    if not count or features:
        knobs.pop("dropout", None)  # that of a head
    return create_model(
        settings.name,
        num_classes=count,
        input_shape=settings.input_shape if input_shape is None else input_shape,
        weights=address,
        new_head=new_head,
        features=features,
        **(knobs | arguments),
    )


def convert_file(source: str | Path, name: str, target: Path, *, num_classes: int) -> str:
    """Convert weights of any dialect to a file for Keras or PyTorch, depending on its suffix.

    Args:
        source: weights file, or name of published weights, as for `create_model`. The number of input channels is that
            of the weights.
        name: one of `list_models()`.
        target: file to write atomically, with preprocessing, class names, thresholds and calibration: `.weights.h5` or
            `.keras` for Keras, `.safetensors` for torchvision or timm. A warning names what differs in their network of
            the same names, if it computes other outputs.
        num_classes: number of classes of the head; with 0, the head is dropped.

    Returns:
        Name of the dialect of the source.

    Raises:
        UserError: if the weights do not match the network, or if the target cannot be written.
    """
    suffixes = (".weights.h5", ".keras", ".safetensors")
    suffix = next((each for each in suffixes if target.name.endswith(each)), None)
    if suffix is None:
        raise UserError(f"{str(target)!r} must end in {', '.join(suffixes)}")
    if not target.absolute().parent.is_dir():
        raise UserError(f"there is no directory {str(target.absolute().parent)!r} to write to")
    sizes = (None,) * get_arch(name).dimensions
    model = create_model(name, num_classes=num_classes, input_shape=(*sizes, 3))
    # Otherwise, weights for gray or multispectral images or for signals would be adapted to color.
    if (channels := stored_channels(model, _find(model, source)[0])) != 3:
        model = create_model(name, num_classes=num_classes, input_shape=(*sizes, channels))
    dialect = _load(model, source)
    if suffix == ".safetensors" and (difference := _describe_difference_to_torch(model)):
        logger.warning("%s", difference)
    with files.translate_write_errors(target), files.atomic_file(target) as staging:
        if suffix == ".safetensors":
            readers.write_safetensors(staging, to_torchvision(model), model.metadata.to_dict())
        elif suffix == ".keras":
            model.save(staging)
        else:
            model.save_weights(staging)
    return dialect


def _describe_difference_to_torch(model: ResidualNetwork) -> str:
    """Describe why the network of the same names in PyTorch's library computes other outputs; empty if it does not."""
    dialect = find_torch_dialect(model)
    if dialect is None or model.arch is None:
        return ""
    theirs = {name: values[0] for name, values in model.arch.conflicts(dialect.implies).items()}
    ours = {name: getattr(model.arch, name) for name in theirs}
    if getattr(model.preprocess, "channel_order", "rgb") == "bgr":
        theirs, ours = theirs | {"channel_order": "rgb"}, ours | {"channel_order": "bgr"}
    if not theirs:
        return ""
    return (
        f"{model.name} has {listed(ours)}; the network of {dialect.name} with the same names has {listed(theirs)}, and "
        "computes other outputs with these weights"
    )


def _load(
    model: ResidualNetwork, weights: str | Path, *, new_head: bool = False, adapt_channels: str = "repeat"
) -> str:
    """Load weights with the metadata that belongs to them; return the name of the file's dialect."""
    path, publisher = _find(model, weights)
    origin = load_weights(model, path, new_head=new_head, adapt_channels=adapt_channels)
    metadata = publisher.metadata_at(model.input_shape[1:-1]) if publisher else origin.metadata
    _adopt(model, metadata, new_head=new_head)
    return origin.dialect


def _find(model: ResidualNetwork, weights: str | Path) -> tuple[Path, HubSettings | Pretrained | None]:
    """Return the path of weights, after a download if necessary, and the publisher's metadata of them, if any."""
    if hub.is_address(weights):
        return _find_in_hub(model, str(weights))
    path, name = user_path(weights), str(model.zoo_name)
    # A directory of data may have the name of published weights, such as ./imagenet.
    is_other_directory = path.is_dir() and not find_pretrained(name, str(weights))
    if holds_weights(path) or path.suffix in readers.SUFFIXES or is_other_directory:
        return path, None
    published = get_pretrained(name, str(weights))
    return fetch(published), published


def _find_in_hub(model: ResidualNetwork, address: str) -> tuple[Path, HubSettings | None]:
    """Return the path of weights from the Hugging Face Hub, and the settings of their repository, if it has any."""
    network = hub.fetch_network(HubAddress.parse(address))
    settings = network.settings
    if settings and model.arch and (found := model.arch.differences(settings.arch)):
        raise UserError(
            f"{address} has weights of {settings.name}, with {listed(found)}; {model.name} is another network"
        )
    return network.weights, settings


def _adopt(model: ResidualNetwork, metadata: Metadata, *, new_head: bool) -> None:
    """Give a model the metadata of its weights, as far as it fits: all of a loaded head, otherwise preprocessing."""
    channels, preprocess = model.input_shape[-1], metadata.preprocess
    if preprocess and preprocess.supports_channels(channels):
        preprocess = preprocess.with_channels(channels)
    has_loaded_head = model.layers[-1].name == f"{layer_prefix(model)}{LOGITS_LAYER}" and not new_head
    model.adopt(dataclasses.replace(metadata if has_loaded_head else Metadata(), preprocess=preprocess))


def _checked_knobs(knobs: dict[str, Any]) -> dict[str, Any]:
    fields = [item.name for item in dataclasses.fields(Arch)]
    for knob in knobs:
        if knob not in fields:
            raise UserError(f"unknown knob {knob!r}; did you mean {closest(knob, fields)}?")
    return knobs
