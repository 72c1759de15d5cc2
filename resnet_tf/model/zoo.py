"""The networks by name, one row each. Names follow torchvision and timm where they have one."""

import dataclasses
import fnmatch
import warnings
from pathlib import Path
from typing import Any

import keras

from resnet_tf.errors import UserError, closest
from resnet_tf.model.resnet import Arch, build


def _cifar(blocks: int, *, width: int = 16) -> Arch:
    """A CIFAR network of 6 * blocks + 2 layers (He et al. 2015, sec. 4.2)."""
    return Arch(
        depths=(blocks,) * 3,
        block="basic",
        widths=(width, 2 * width, 4 * width),
        strides=(1, 2, 2),
        stem="small",
        shortcut="pad",
        zero_gamma=False,
    )


def _applications_v2(*depths: int) -> Arch:
    """Pre-activation as keras.applications has it: biases, and the stride in a stage's last block."""
    return Arch(
        depths=depths,
        preactivation=True,
        conv_bias=True,
        strides=(2, 2, 2, 1),
        stride_block="last",
        norm_momentum=0.99,
        norm_epsilon=1.001e-5,
    )


MODELS: dict[str, Arch] = {
    # torchvision ("v1.5": a bottleneck strides in its 3x3)
    "resnet18": Arch(depths=(2, 2, 2, 2), block="basic"),
    "resnet34": Arch(depths=(3, 4, 6, 3), block="basic"),
    "resnet50": Arch(depths=(3, 4, 6, 3)),
    "resnet101": Arch(depths=(3, 4, 23, 3)),
    "resnet152": Arch(depths=(3, 8, 36, 3)),
    # He et al. 2015 (a bottleneck strides in its first 1x1)
    "resnet50_v1": Arch(depths=(3, 4, 6, 3), stride_conv=1),
    "resnet101_v1": Arch(depths=(3, 4, 23, 3), stride_conv=1),
    "resnet152_v1": Arch(depths=(3, 8, 36, 3), stride_conv=1),
    # keras.applications
    "resnet50_v2": _applications_v2(3, 4, 6, 3),
    "resnet101_v2": _applications_v2(3, 4, 23, 3),
    "resnet152_v2": _applications_v2(3, 8, 36, 3),
    # CIFAR
    "resnet20": _cifar(3),
    "resnet32": _cifar(5),
    "resnet44": _cifar(7),
    "resnet56": _cifar(9),
    "resnet110": _cifar(18),
    # For pictures of 8 to 16 pixels
    "resnet8_w32": dataclasses.replace(_cifar(1, width=32), shortcut="projection", zero_gamma=True),
    # The article's five convolutions, each with the residual connection that its text promises and its code forgot
    "resnet_article": Arch(
        depths=(2, 2, 1), block="single", widths=(64, 128, 256), strides=(1, 1, 1), stem="none", zero_gamma=False
    ),
}


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    weights: str | Path | None = None,
    **knobs: Any,
) -> keras.Model:
    """Create a residual network as a plain Functional `keras.Model`: compile, fit and save it as usual.

    Args:
        name: one of `list_models()`.
        num_classes: length of the logits; 0 gives the pooled features.
        input_shape: (height, width, channels); None leaves a height or width open.
        weights: a `.weights.h5` or `.keras` file of the same architecture, or None for a random start.
        **knobs: fields of `Arch` to change, such as `stem="small"` or `zero_gamma=False`.

    Returns:
        A model from float [N, H, W, C], already normalised, to float32 [N, num_classes].

    Raises:
        UserError: for an unknown name or knob, an input too small for the network, or weights that do not fit.
    """
    arch = dataclasses.replace(get_arch(name), **_checked_knobs(knobs))
    model = build(arch, input_shape=input_shape, num_classes=num_classes, name=name)
    if weights is not None:
        _load_weights(model, Path(weights))
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern, such as `resnet*_v2`."""
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def get_arch(name: str) -> Arch:
    """The `Arch` of a name; a `UserError` with the nearest names for an unknown one."""
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; did you mean {closest(name, MODELS)}?")
    return MODELS[name]


def _checked_knobs(knobs: dict[str, Any]) -> dict[str, Any]:
    fields = [item.name for item in dataclasses.fields(Arch)]
    for knob in knobs:
        if knob not in fields:
            raise UserError(f"unknown knob {knob!r}; did you mean {closest(knob, fields)}?")
    return knobs


def _load_weights(model: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"no weights file {str(path)!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers that the file does not have
            model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise UserError(f"{str(path)!r} does not hold weights of {model.name}: {error}") from error
