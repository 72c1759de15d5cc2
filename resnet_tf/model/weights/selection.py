"""Selection of the arrays of one network in a weights file, which may have prefixes, other networks and any head."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_tf.core.errors import UserError
from resnet_tf.model.builder import LOGITS_LAYER
from resnet_tf.model.weights.dialects import DIALECTS, STAGE, Dialect
from resnet_tf.model.weights.keras_files import Arrays
from resnet_tf.model.zoo import MODELS

# (layer name, variable name) of a variable of the model.
VariableName = tuple[str, str]


@dataclass(frozen=True)
class Selection:
    """Arrays of a network in a file.

    Attributes:
        dialect: naming scheme of the arrays.
        prefix: prefix of their names in the file, such as `module.` or `resnet50/`.
        arrays: the arrays by their names without the prefix.
        others: names of the arrays without the prefix, which belong to other parts of a larger model.
    """

    dialect: Dialect
    prefix: str
    arrays: Arrays
    others: tuple[str, ...]


def select(arrays: Arrays, variables: Collection[VariableName], path: Path) -> Selection:
    """Find the naming scheme and the prefix with which most variables of a network have an array in a file.

    Args:
        arrays: arrays of the file by name.
        variables: variables of the network, without its head.
        path: path of the file, for messages.

    Raises:
        UserError: if the arrays of several networks fit.
    """
    head = (LOGITS_LAYER, "kernel")  # distinguishes dialects that differ in the name of the head only
    counts: dict[tuple[int, str], tuple[int, bool]] = {}
    for index, dialect in enumerate(DIALECTS):
        keys = {key for each in variables if (key := dialect.key(*each))}
        for prefix in _prefixes(arrays, variables, dialect):
            count = sum(f"{prefix}{key}" in arrays for key in keys)
            counts[index, prefix] = count, f"{prefix}{dialect.key(*head)}" in arrays
    complete = {prefix for (_, prefix), (count, _) in counts.items() if count == len(variables)}
    if len(complete) > 1:
        raise UserError(
            f"{str(path)!r} contains several networks, with the prefixes {' and '.join(map(repr, sorted(complete)))}; "
            "save the one to load by itself"
        )
    index, prefix = max(counts, key=lambda each: counts[each])
    inside = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return Selection(DIALECTS[index], prefix, inside, tuple(name for name in arrays if not name.startswith(prefix)))


def without_head(arrays: Arrays, dialect: Dialect) -> Arrays:
    """Return the arrays of the stem, the blocks and the last normalization, whatever the head consists of."""
    return {name: array for name, array in arrays.items() if dialect.part(name)}


def up_to_stage(arrays: Arrays, dialect: Dialect, stage: int) -> Arrays:
    """Return the arrays of the stem and of the stages up to a number; 0 is the stem."""
    numbers = sorted(_stages(arrays))[:stage]
    kept = {}
    for name, array in arrays.items():
        match = STAGE.match(name)
        if int(match[1]) in numbers if match else dialect.part(name) == "stem":
            kept[name] = array
    return kept


def depths(arrays: Arrays) -> tuple[int, ...]:
    """Return the number of blocks in each stage."""
    stages = _stages(arrays)
    return tuple(stages[number] for number in sorted(stages))


def suggest(arrays: Arrays, name: str) -> str:
    """Return a hint with the networks that have the blocks per stage and convolutions per block of the file.

    Args:
        arrays: arrays of the file.
        name: name of the network that they do not fit.
    """
    convolutions = [
        int(found[1])
        for key in arrays
        if (match := STAGE.search(key)) and (found := re.search(r"(?:conv|block\d+_)(\d)", key[match.end(1) :]))
    ]
    blocks = {"basic": 2, "bottleneck": 3, "single": 1}
    names = [
        network
        for network, arch in MODELS.items()
        if arch.depths == depths(arrays) and max(convolutions, default=0) == blocks[arch.block]
    ]
    return f"; it looks like {' or '.join(names[:4])}" if names and name not in names else ""


def _prefixes(arrays: Mapping[str, Any], variables: Collection[VariableName], dialect: Dialect) -> list[str]:
    """Return the prefixes that the arrays of a network may have in a file."""
    in_blocks = [each for each in variables if each[0].startswith("stage")]
    anchor = next((key for each in in_blocks or variables if (key := dialect.key(*each))), None)
    found = [name.removesuffix(anchor) for name in arrays if name.endswith(anchor)] if anchor else []
    # A prefix that ends inside of a stage comes from another convolution of the same name.
    outer = (each for each in found if each.endswith((".", "/", "_")) and not STAGE.search(each))
    return ["", *dict.fromkeys(outer)]


def _stages(arrays: Mapping[str, Any]) -> dict[int, int]:
    """Return the number of blocks by the number of the stage in the file."""
    found: dict[int, int] = {}
    for key in arrays:
        if (match := STAGE.search(key)) and match[2]:
            stage, block = int(match[1]), int(match[2])
            found[stage] = max(found.get(stage, 0), block + (0 if "_block" in key else 1))
    return found
