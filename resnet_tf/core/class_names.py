"""Names of the classes that published weights tell apart."""

import functools
from collections.abc import Sequence
from pathlib import Path

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 ImageNet labels in the order of the logits, as torchvision writes them."""
    return tuple(_imagenet_classes().values())


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """Class names of a data set, with WordNet identifiers (`n01440764`) replaced by ImageNet labels (`tench`)."""
    classes = _imagenet_classes()
    return tuple(classes.get(name, name) for name in names)


@functools.cache
def _imagenet_classes() -> dict[str, str]:
    """WordNet identifier -> label. Identifiers: Deng et al., ImageNet, 2009; labels: torchvision 0.29."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    return dict(line.split("\t") for line in lines)
