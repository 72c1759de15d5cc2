"""Class names of ImageNet, in the order of published weights."""

import functools
from collections.abc import Sequence
from pathlib import Path

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the 1,000 ImageNet labels in the order of the logits, in the spelling of torchvision."""
    return tuple(_imagenet_classes().values())


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """Replace WordNet identifiers (`n01440764`) among class names by ImageNet labels (`tench`)."""
    classes = _imagenet_classes()
    return tuple(classes.get(name, name) for name in names)


@functools.cache
def _imagenet_classes() -> dict[str, str]:
    """Return labels by WordNet identifier. Identifiers: Deng et al., ImageNet, 2009; labels: torchvision 0.29."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    return dict(line.split("\t") for line in lines)
