"""Published weights by name: lookup, and the list of them with accuracy, size and license."""

import fnmatch
import math
from dataclasses import asdict, dataclass
from typing import Any

from resnet_tf.core.class_names import CIFAR10, imagenet_labels
from resnet_tf.core.errors import UserError, closest
from resnet_tf.model.size import count_parameters
from resnet_tf.model.weights.pretrained import Pretrained
from resnet_tf.model.weights.published_table import PRETRAINED
from resnet_tf.model.zoo import MODELS, get_arch

_ALIASES = {"imagenet": imagenet_labels(), "cifar10": CIFAR10}
_PATTERN = frozenset("*?[")
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class PublishedWeights:
    """Published weights of a network.

    Attributes:
        network: name of the network, one of `list_models()`.
        name: name of the weights, for `create_model(network, weights=name)`; it begins with the publisher.
        top1: top-1 accuracy in percent as published, at the first of `image_sizes`; None if it is not published.
        citation: page of the accuracy.
        image_sizes: published input sizes (height, width), in pixels.
        num_classes: number of classes.
        parameters: trained parameters of the network.
        size: bytes of all weights as float32.
        license: SPDX identifier of the license.
        url: URL of the file.
    """

    network: str
    name: str
    top1: float | None
    citation: str
    image_sizes: tuple[tuple[int, int], ...]
    num_classes: int
    parameters: int
    size: int
    license: str
    url: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


class WeightsTable(tuple[PublishedWeights, ...]):
    """Published weights, a tuple of rows that prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(_format(self)) if self else "no published weights"

    __str__ = __repr__


def list_weights(pattern: str = "*") -> WeightsTable:
    """List published weights with their source, accuracy, size and license.

    `weights="imagenet"` selects the first of a network with ImageNet's classes.

    >>> print(list_weights("resnet34"))
    network and weights                   top-1 %  pixels     MB  license
    resnet34: 21.8 M parameters
      torchvision/IMAGENET1K_V1            73.314     224   87.3  BSD-3-Clause
      timm/a1_in1k                         77.918     288   87.3  Apache-2.0
    top-1: accuracy on ImageNet (validation) or CIFAR-10 (test), as published on
      torchvision: docs.pytorch.org/vision/stable/models.html
      timm: github.com/huggingface/pytorch-image-models, results-imagenet.csv
    >>> [row.name for row in list_weights("resnet50_v?")]
    ['keras', 'keras']

    Args:
        pattern: name of a network, or a shell pattern of names.

    Returns:
        The rows in the order of the zoo; printed, they are a table.

    Raises:
        UserError: for an unknown network, or a pattern that matches none.
    """
    if not isinstance(pattern, str) or not _PATTERN & set(pattern):
        get_arch(pattern)
    networks = [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]
    if not networks:
        raise UserError(f"no network matches {pattern!r}; did you mean {closest(pattern, MODELS)}?")
    return WeightsTable(
        _describe(network, name, row) for network in networks for name, row in PRETRAINED.get(network, {}).items()
    )


def get_pretrained(name: str, weights: str) -> Pretrained:
    """Return published weights by name, or by data set: `imagenet` or `cifar10` select the first of a network.

    Raises:
        UserError: for an unknown name, with the available ones.
    """
    found = find_pretrained(name, weights)
    if found is None:
        raise UserError(f"unknown weights {weights!r} of {name}: {_hint(PRETRAINED.get(name, {}), weights)}")
    return found


def find_pretrained(name: str, weights: str) -> Pretrained | None:
    """Return published weights as `get_pretrained`; None for an unknown name."""
    rows = PRETRAINED.get(name, {})
    fitting = (row for row in rows.values() if row.labels == _ALIASES.get(weights))
    return rows.get(weights) or next(fitting, None)


def _hint(rows: dict[str, Pretrained], weights: str) -> str:
    networks = [network for network, others in PRETRAINED.items() if weights in others]
    there_are = f"there are {', '.join(rows)}" if rows else "there are none by name"
    if networks:
        return f"{there_are}; {weights!r} belongs to {', '.join(networks)}"
    if not rows or weights in _ALIASES:
        return f"{there_are}; or give a file"
    return f"did you mean {closest(weights, [*_ALIASES, *rows])}? A file has a suffix, such as .safetensors"


def _describe(network: str, name: str, row: Pretrained) -> PublishedWeights:
    parameters, statistics = count_parameters(MODELS[network], num_classes=row.num_classes)
    return PublishedWeights(
        network=network,
        name=name,
        top1=row.top1,
        citation=row.citation,
        image_sizes=tuple((inputs.size[0], inputs.size[1]) for inputs in row.inputs),
        num_classes=row.num_classes,
        parameters=parameters,
        size=_FLOAT_BYTES * (parameters + statistics),
        license=row.license,
        url=row.url,
    )


def _format(rows: WeightsTable) -> list[str]:
    """Return the lines of a table of at most 80 columns, and the pages of the accuracies."""
    lines = [f"{'network and weights':<36}  {'top-1 %':>7}  {'pixels':>6}  {'MB':>5}  license"]
    network, citations = "", {}
    for row in rows:
        if row.network != network:
            network = row.network
            lines.append(f"{network}: {_short(row.parameters)} M parameters")
        top1 = "" if row.top1 is None else f"{row.top1:.3f}"
        line = f"  {row.name:<34}  {top1:>7}  {row.image_sizes[0][0]:>6}  {_short(row.size):>5}  {row.license}"
        lines.append(line)
        citations[row.name.split("/")[0]] = row.citation
    lines.append("top-1: accuracy on ImageNet (validation) or CIFAR-10 (test), as published on")
    return [*lines, *(f"  {source}: {page}" for source, page in citations.items())]


def _short(count: int) -> str:
    """Return a number in millions with three digits at least."""
    millions = count / 1e6
    return f"{millions:.{max(0, 2 - math.floor(math.log10(millions)))}f}"
