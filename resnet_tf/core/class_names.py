"""Class names: of ImageNet in the order of published weights, and labels as text."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tf.core.errors import UserError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the 1,000 ImageNet labels in the order of the logits, in the spelling of torchvision."""
    return tuple(_imagenet_classes().values())


def to_names(labels: Iterable[Any]) -> tuple[str, ...]:
    """Return labels, such as a NumPy array of strings or integers, as text.

    Raises:
        UserError: for one string in place of several, or a label that is neither text nor an integer.
    """
    if isinstance(labels, str | bytes):
        raise UserError(f"labels are {labels!r}; expected a list of class names")
    names = list(labels)
    for name in names:
        if not isinstance(name, str | int | np.integer) or isinstance(name, bool):
            raise UserError(f"label {name!r} is of type {type(name).__name__}; class names are text")
    return tuple(map(str, names))


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """Replace WordNet identifiers (`n01440764`) among class names by ImageNet labels (`tench`)."""
    classes = _imagenet_classes()
    return tuple(classes.get(name, name) for name in names)


@functools.cache
def _imagenet_classes() -> dict[str, str]:
    """Return labels by WordNet identifier. Identifiers: Deng et al., ImageNet, 2009; labels: torchvision 0.29."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)
