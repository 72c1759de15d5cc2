"""Warnings about splits: small ones, missing classes, and examples that two splits have in common."""

import itertools
import logging
import os
from collections.abc import Hashable, Mapping

import numpy as np

from resnet_tf.core.progress_line import Progress
from resnet_tf.core.targets import targets_of
from resnet_tf.core.text import counted, printable
from resnet_tf.data.sources import digests, slices
from resnet_tf.data.sources.base import Source, Split, shorten_names

logger = logging.getLogger(__name__)

_FEW = 20  # examples of a split below which its metrics are called coarse
_MAX_EXAMPLES = 2_000_000  # in two splits of different names that are compared

Locations = dict[Hashable, int]  # location of an example -> its index


def describe_evaluation(split: Split, class_names: tuple[str, ...], *, chooses: bool = False) -> list[str]:
    """Describe defects of a split that is evaluated: few examples, or classes without any.

    Args:
        split: split that is evaluated.
        class_names: names of all classes in label order.
        chooses: the metrics choose the best checkpoint of a run.
    """
    found, use = [], ", and they choose the best checkpoint" if chooses else ""
    if split.num_examples < _FEW:
        step = 100 / max(split.num_examples, 1)
        examples = counted(split.num_examples, "example")
        found.append(f"split {split.name!r} has {examples}: each is {step:.0f} % of its metrics{use}")
    missing = np.setdiff1d(np.arange(len(class_names)), targets_of(split.labels).present(split.labels))
    if len(missing):
        names = shorten_names([class_names[label] for label in missing])
        count = counted(len(class_names), "class")
        found.append(f"split {split.name!r} has no example of {len(missing):,} of {count}: {names}")
    return [printable(each) for each in found]


def describe_overlaps(source: Source) -> list[str]:
    """Describe the examples that two splits have in common: the same ones, or files and arrays of equal content.

    Contents are compared by digests, which are cached for large data. Of files, only those whose size occurs in both
    splits are read.
    """
    texts = []
    with Progress("comparing the splits"):
        for one, other in itertools.combinations(source.splits.values(), 2):
            count = f"of {other.num_examples:,} examples of split {other.name!r} are"
            if shared := _count_shared(one, other):
                texts.append(f"{shared:,} {count} also in {one.name!r}")
            elif copies := _count_copies(one, other):
                texts.append(f"{copies:,} {count} copies of some in {one.name!r}, which `resnet-tf audit` names")
    return [printable(f"{text}: metrics on them are too good for new data") for text in texts]


def _count_shared(one: Split, other: Split) -> int:
    """Return the number of examples of the second split at a location of the first."""
    if one.name == other.name:
        return other.num_examples
    plain = [{slices.plain_name(term) for term in slices.terms(split.name)} for split in (one, other)]
    is_related = plain[0] & plain[1] or slices.ALL in plain[0] | plain[1]
    if not is_related and one.num_examples + other.num_examples > _MAX_EXAMPLES:
        return 0
    return len(_locations(one).keys() & _locations(other).keys())


def _locations(split: Split) -> Locations:
    found: Locations = {}
    for index in range(split.num_examples):
        location = split.locate(index)
        if "file" not in location:  # a source that does not know where its examples are
            return {}
        found[tuple(location.values())] = index
    return found


def _count_copies(one: Split, other: Split) -> int:
    """Return the number of examples of the second split whose content is in the first, too."""
    total = one.num_examples + other.num_examples
    layouts = {tuple(sorted(split.locate(0))) for split in (one, other) if split.num_examples}
    if one.hashes is not None and other.hashes is not None:
        return int(np.isin(other.hashes, one.hashes).sum())
    if total > _MAX_EXAMPLES:
        logger.info(
            "the contents of %s examples are not compared, those of at most %s are", f"{total:,}", f"{_MAX_EXAMPLES:,}"
        )
        return 0
    if layouts == {("file",)}:
        return _count_equal_files(
            *([split.locate(index)["file"] for index in range(split.num_examples)] for split in (one, other))
        )
    if layouts == {("file", "index", "split")}:
        known = set(digests.digest_arrays(one))
        return sum(digest in known for digest in digests.digest_arrays(other))
    return 0


def _count_equal_files(one: list[str], other: list[str]) -> int:
    """Return the number of files of the second list with the content of one in the first.

    Only files that agree in size and in their last bytes with one of the other list are read whole.
    """
    sizes = [{file: size for file in files if (size := _size(file))} for files in (one, other)]
    equal_sizes = _in_both(*sizes)
    ends = [dict(zip(files, digests.digest_files(files, end_only=True), strict=True)) for files in equal_sizes]
    candidates = _in_both(*ends)
    known = set(digests.digest_files(candidates[0]))
    return sum(digest in known for digest in digests.digest_files(candidates[1]))


def _in_both(one: Mapping[str, Hashable], other: Mapping[str, Hashable]) -> tuple[list[str], list[str]]:
    """Return the keys of each mapping whose value is in the other mapping, too."""
    common = set(one.values()) & set(other.values())
    first, second = ([key for key, value in each.items() if value in common] for each in (one, other))
    return first, second


def _size(file: str) -> int:
    """Return the size of a file, 0 if it cannot be read: the training names it."""
    return os.path.getsize(file) if os.path.isfile(file) and os.access(file, os.R_OK) else 0
