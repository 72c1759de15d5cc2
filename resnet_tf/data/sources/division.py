"""Division of examples into a training and a validation split: by hash, in each class, without tearing groups apart."""

import hashlib
import math
import os
from collections.abc import Sequence

import numpy as np

from resnet_tf.core.class_names import canonical

_PASSES = 3  # over all classes: moving a group of several classes changes the others


def hash_key(key: str) -> float:
    """Hash a key, such as class/file, to a number in [0, 1), the same for both Unicode forms of a name."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(canonical(key)), digest_size=8).digest()) / 2**64


def divide(labels: np.ndarray, groups: Sequence[str], fraction: float) -> np.ndarray:
    """Return the examples of the validation split, bool [N]; all others are for training.

    A group with a hash of its name less than `fraction` is in the validation split, independently of other groups.
    Only where this gives a class less than half or more than twice the fraction, groups move, those of the nearest
    hashes first among groups that fit equally well. Every class of two groups or more has one in training; it also has
    one in validation, if the other classes of its groups allow it. A class of one group is in training.

    Args:
        labels: int64 [N], or bool [N, C] with any number of classes for each example.
        groups: name of the group of each example; an example that may be on either side is a group of its own.
        fraction: fraction of the validation split.
    """
    if not 0 < fraction < 1:
        return np.full(len(labels), fraction >= 1)
    names, owners = np.unique(np.array([canonical(group) for group in groups], object), return_inverse=True)
    hashes = np.array([hash_key(name) for name in names])
    by_hash = np.argsort(hashes, kind="stable")  # equal hashes in the order of the names
    ranks = np.empty(len(names), np.int64)
    ranks[by_hash] = np.arange(len(names))
    owners = ranks[owners]
    chosen = hashes[by_hash] < fraction
    members = _count_members(labels, owners)
    for label in members:
        if len(members[label][0]) == 1:
            chosen[members[label][0]] = False
    locked = {int(groups[0]) for groups, _ in members.values() if len(groups) == 1}
    for _ in range(_PASSES):
        before = chosen.copy()
        for groups_of_class, sizes in sorted(members.values(), key=lambda each: len(each[0])):
            _adjust(chosen, groups_of_class, sizes, fraction, locked)
        if (before == chosen).all():
            break
    for groups_of_class, sizes in members.values():  # training needs every class
        if chosen[groups_of_class].all():
            chosen[groups_of_class[np.argmin(sizes)]] = False
    return chosen[owners]


def _count_members(labels: np.ndarray, owners: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return the groups of each class in the order of their hashes, and the examples of the class in each."""
    if labels.ndim > 1:
        counted = (np.unique(owners[column], return_counts=True) for column in labels.T)
        return {label: members for label, members in enumerate(counted) if len(members[0])}
    found = {}
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order], append=labels.max(initial=0) + 1)) + 1
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        found[int(labels[order[start]])] = np.unique(owners[order[start:end]], return_counts=True)
    return found


def _adjust(chosen: np.ndarray, groups: np.ndarray, sizes: np.ndarray, fraction: float, locked: set[int]) -> None:
    """Move groups of one class until its validation split has between half and twice the fraction.

    Args:
        chosen: groups of the validation split, bool; changed in place.
        groups: groups of the class in the order of their hashes.
        sizes: examples of the class in each of them.
        fraction: fraction of the validation split.
        locked: groups that stay in training.
    """
    total = int(sizes.sum())
    fewest, most = count_bounds(total, fraction)
    free = np.array([group not in locked for group in groups])
    count = int(sizes[chosen[groups]].sum())
    while (count > most and chosen[groups].sum() > 1) or chosen[groups].all():
        inside = np.flatnonzero(chosen[groups])
        misses = np.abs(count - sizes[inside] - total * fraction)
        move = inside[len(inside) - 1 - np.argmin(misses[::-1])]  # the largest hash among equal ones
        if misses.min() >= abs(count - total * fraction) and not chosen[groups].all():
            break
        chosen[groups[move]] = False
        count -= int(sizes[move])
    while count < fewest:
        outside = np.flatnonzero(~chosen[groups] & free)
        if not len(outside) or (~chosen[groups]).sum() == 1:
            break
        misses = np.abs(count + sizes[outside] - total * fraction)
        if misses.min() >= abs(count - total * fraction) and count:
            break
        move = outside[np.argmin(misses)]
        chosen[groups[move]] = True
        count += int(sizes[move])


def count_bounds(total: int, fraction: float) -> tuple[int, int]:
    """Return the smallest and the largest validation split of a class of `total` examples.

    They are half and twice the fraction, and the training split has at least half of its own.
    """
    fewest = math.ceil(total * fraction / 2)
    return fewest, min(math.ceil(2 * total * fraction), total - math.ceil(total * (1 - fraction) / 2))


def stratified_order(labels: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Return an order of the examples, int64 [N], in which every part has about the same fraction of each class.

    Examples of a class are in the order of the hashes of their groups, at equal distances. The first is at a random
    position within the distance: if all were in the middle, a part would have all classes of one example or none.

    Args:
        labels: class of each example, or a number for each combination of classes, int64 [N].
        groups: name of the group of each example.
    """
    keys = [(hash_key(group), canonical(group)) for group in groups]
    by_key = sorted(range(len(keys)), key=lambda index: keys[index])
    positions = np.empty(len(labels))
    following: dict[int, float] = {}
    counts = np.bincount(labels) if len(labels) else labels
    for index in by_key:
        label = int(labels[index])
        # A second hash, because the smallest of several hashes is near 0.
        rank = following.get(label) or hash_key(f"first: {groups[index]}")
        positions[index] = rank / counts[label]
        following[label] = rank + 1
    return np.array(sorted(by_key, key=lambda index: positions[index]), np.int64)
