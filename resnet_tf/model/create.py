"""A network by name, as a Keras model, with weights or without."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from resnet_tf.errors import UserError, closest
from resnet_tf.model import weight_files
from resnet_tf.model.resnet import Arch, build
from resnet_tf.model.weights import load_weights, to_torchvision
from resnet_tf.model.zoo import get_arch


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    weights: str | Path | None = None,
    new_head: bool = False,
    features: Sequence[str] = (),
    **knobs: Any,
) -> keras.Model:
    """Create a residual network as a plain Functional `keras.Model`: compile, fit and save it as usual.

    Args:
        name: one of `list_models()`.
        num_classes: length of the logits; 0 gives the pooled features.
        input_shape: (height, width, channels); None leaves a height or width open.
        weights: None for a random start, or a file of this network's weights as this package, torchvision, timm or
            keras.applications write them; see `resnet_tf.model.weights.load_weights`.
        new_head: start with a fresh class head and leave out that of `weights`, for other classes.
        features: `("stage2", "stage3", ...)` gives a dict of these feature maps instead of logits.
        **knobs: fields of `Arch` to change, such as `stem="small"`, `output_stride=8`, `stochastic_depth=0.1`,
            `dropout=0.2`, `activation="silu"` or `zero_gamma=False`.

    Returns:
        A model from float [N, H, W, C], already normalised, to float32 [N, num_classes].

    Raises:
        UserError: for an unknown name or knob, an input too small for the network, or weights that do not fit.
    """
    arch = dataclasses.replace(get_arch(name), **_checked_knobs(knobs))
    model = build(arch, input_shape=input_shape, num_classes=num_classes, name=name, features=features)
    if weights is not None:
        load_weights(model, Path(weights), new_head=new_head)
    return model


def convert_file(source: Path, name: str, target: Path, *, num_classes: int = 1000) -> str:
    """Read weights of a network in any dialect and write them for Keras or for PyTorch, by the target's suffix.

    Args:
        source: see `resnet_tf.model.weights.load_weights`.
        name: one of `list_models()`.
        target: `.weights.h5` or `.keras` for Keras, `.safetensors` for torchvision or timm. Never half-written.
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
    model = create_model(name, num_classes=num_classes, input_shape=(None, None, 3))
    dialect = load_weights(model, source)
    staging = target.with_name(f"writing.{target.name}")
    try:
        if kind == ".safetensors":
            weight_files.write_safetensors(staging, to_torchvision(model), {"model": name})
        elif kind == ".keras":
            model.save(staging)
        else:
            model.save_weights(staging)
        staging.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
    return dialect.name


def _checked_knobs(knobs: dict[str, Any]) -> dict[str, Any]:
    fields = [item.name for item in dataclasses.fields(Arch)]
    for knob in knobs:
        if knob not in fields:
            raise UserError(f"unknown knob {knob!r}; did you mean {closest(knob, fields)}?")
    return knobs
