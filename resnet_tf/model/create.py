"""A network by name, as a Keras model, with weights or without."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_tf.core import files
from resnet_tf.core.errors import UserError, closest
from resnet_tf.model.arch import Arch
from resnet_tf.model.builder import LOGITS_LAYER, build
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.download import fetch
from resnet_tf.model.weights.mapping import load_weights, to_torchvision
from resnet_tf.model.weights.published import get_pretrained
from resnet_tf.model.zoo import get_arch


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    input_shape: tuple[int | None, ...] = (224, 224, 3),
    weights: str | Path | None = None,
    new_head: bool = False,
    features: Sequence[str] = (),
    **knobs: Any,
) -> ResidualNetwork:
    """Create a residual network as a Functional `keras.Model`: compile, fit and save it as usual.

    >>> create_model("resnet20", num_classes=10, input_shape=(32, 32, 3)).output_shape
    (None, 10)
    >>> backbone = create_model("resnet18", input_shape=(64, 64, 3), features=("stage2", "stage4"))
    >>> {name: each.shape[1:] for name, each in backbone.output.items()}
    {'stage2': (8, 8, 128), 'stage4': (2, 2, 512)}

    Args:
        name: one of `list_models()`.
        num_classes: length of the logits; 0 gives the pooled features.
        input_shape: (height, width, channels), or (length, channels) for the networks of one dimension (`*_1d`); None
            leaves a size open.
        weights: None for a random start; published weights by name, one of `list_weights(name)`, or `imagenet` for the
            first of them; or a file of this network's weights as this package, Keras's `save` and `save_weights`,
            torchvision, timm or keras.applications write them, or a hub export (see
            `resnet_tf.model.weights.mapping.load_weights`).
        new_head: start with a fresh class head and leave out that of `weights`, for other classes.
        features: `("stage2", "stage3", ...)` gives a dict of these feature maps instead of logits.
        **knobs: fields of `Arch` to change, such as `stem="small"`, `output_stride=8`, `stochastic_depth=0.1`,
            `dropout=0.2`, `activation="silu"` or `zero_gamma=False`.

    Returns:
        A model from float [N, H, W, C], already normalized, to float32 [N, num_classes]. Its `preprocess` describes how
        images become its input and its `labels` name its classes, as far as they are known for the weights;
        `export_model` takes up both. They stay with the model when it is cloned, copied, saved and loaded (see
        `ResidualNetwork`).

    Raises:
        UserError: for an unknown name or knob, an input too small for the network, or weights that cannot be fetched
            or do not fit.
    """
    arch = dataclasses.replace(get_arch(name), **_checked_knobs(knobs))
    model = build(arch, input_shape=input_shape, num_classes=num_classes, name=name, features=features)
    if weights is not None:
        _load(model, weights, new_head=new_head)
    return model


def convert_file(source: str | Path, name: str, target: Path, *, num_classes: int = 1000) -> str:
    """Read weights of a network in any dialect and write them for Keras or for PyTorch, by the target's suffix.

    Args:
        source: a file or the name of published weights, as for `create_model`.
        name: one of `list_models()`.
        target: `.weights.h5` or `.keras` for Keras, `.safetensors` for torchvision or timm. Never half-written. The
            preprocessing and the class names that belong to the weights go with them.
        num_classes: classes of the head; 0 drops it.

    Returns:
        The name of the dialect that the source was written in.

    Raises:
        UserError: for weights that do not fit, or a target that cannot be written.
    """
    kinds = (".weights.h5", ".keras", ".safetensors")
    kind = next((kind for kind in kinds if target.name.endswith(kind)), None)
    if kind is None:
        raise UserError(f"{str(target)!r} must end in {', '.join(kinds)}")
    if not target.absolute().parent.is_dir():
        raise UserError(f"there is no directory {str(target.absolute().parent)!r} to write to")
    arch = get_arch(name)
    model = create_model(name, num_classes=num_classes, input_shape=(*(None,) * arch.dimensions, 3))
    dialect = _load(model, source)
    with files.translate_write_errors(target), files.atomic_file(target) as staging:
        if kind == ".safetensors":
            readers.write_safetensors(staging, to_torchvision(model), model.metadata.to_dict())
        elif kind == ".keras":
            model.save(staging)
        else:
            model.save_weights(staging)
    return dialect


def _load(model: ResidualNetwork, weights: str | Path, *, new_head: bool = False) -> str:
    """Load weights with the preprocessing and the labels that belong to them; return the name of the file's dialect."""
    path = Path(weights)
    if path.suffix in readers.SUFFIXES or path.exists():
        origin = load_weights(model, path, new_head=new_head)
        preprocess, labels = origin.preprocess, origin.labels
    else:
        published = get_pretrained(str(model.zoo_name), str(weights))
        origin = load_weights(model, fetch(published), new_head=new_head)
        preprocess, labels = published.preprocess_at(*model.input_shape[1:-1]), published.labels
    has_their_head = model.layers[-1].name == LOGITS_LAYER and not new_head
    model.adopt(Metadata(preprocess=preprocess, labels=labels if has_their_head else None))
    return origin.dialect


def _checked_knobs(knobs: dict[str, Any]) -> dict[str, Any]:
    fields = [item.name for item in dataclasses.fields(Arch)]
    for knob in knobs:
        if knob not in fields:
            raise UserError(f"unknown knob {knob!r}; did you mean {closest(knob, fields)}?")
    return knobs
