"""Class names: their checks, label files, and those of ImageNet in the order of published weights."""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.text import escape

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the 1,000 ImageNet labels in the order of the logits, in the spelling of torchvision."""
    return tuple(_imagenet_classes().values())


# Backslashes, control characters and line breaks (all that `str.splitlines` splits at), lone surrogates, which UTF-8
# cannot encode, and blanks and byte order marks at the ends, which readers strip.
_ESCAPED = re.compile(
    r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|^[\s\ufeff]+|[\s\ufeff]+$",
)


def to_names(labels: Iterable[Any]) -> tuple[str, ...]:
    """Return labels, such as a NumPy array of strings, bytes or integers, as text.

    Raises:
        UserError: for one string in place of several, or a label that is neither text nor an integer, is empty, or
            cannot be encoded in UTF-8.
    """
    if isinstance(labels, str | bytes):
        raise UserError(f"labels are {labels!r}; expected a list of class names")
    names = [decode_name(label) if isinstance(label, np.bytes_) else label for label in labels]
    for name in names:
        if not isinstance(name, str | int | np.integer) or isinstance(name, bool):
            raise UserError(f"label {name!r} is of type {type(name).__name__}; class names are text")
        if isinstance(name, str) and re.search(r"\A\Z|[\ud800-\udfff]", name):
            reason = "cannot be encoded in UTF-8" if name else "is empty"
            raise UserError(f"class name {name!r}, number {names.index(name)} of {len(names)}, {reason}")
    return tuple(map(str, names))


def decode_name(name: bytes) -> str:
    r"""Return an encoded class name as text: UTF-8, with escapes for other bytes.

    >>> decode_name(b"\xc3\xa9"), decode_name(b"\xe9")
    ('é', '\\xe9')
    """
    return name.decode("utf-8", errors="backslashreplace")


def canonical(name: str) -> str:
    """Return a class name in Unicode's composed form (NFC), in which two names of the same look are compared."""
    return unicodedata.normalize("NFC", name)


def find_duplicate(names: Sequence[str]) -> str:
    """Describe the first two classes of the same name; empty if there are none.

    Names that differ only in their Unicode form (`é` as one character or as two) are the same.
    """
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        other = first.setdefault(canonical(name), index)
        if other != index and names[other] == name:
            return f"classes {other} and {index} have the same name, {name!r}"
        if other != index:
            return f"classes {other} and {index} have names of the same look, {names[other]!a} and {name!a}"
    return ""


def find_indices(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the index of each name among known ones, in any Unicode form; -1 for a name that is not.

    >>> find_indices(["cat", "cow"], ["dog", "cat"])
    [1, -1]
    """
    positions = {canonical(name): index for index, name in enumerate(known)}
    return [positions.get(canonical(name), -1) for name in names]


def label_line(name: str) -> str:
    r"""Return a class name as a line of `labels.txt`, which readers may split and strip without a loss.

    Line breaks, control characters, backslashes, and blanks at both ends become escapes, as in a Python string.

    >>> print(label_line("two\nlines "))
    two\nlines\x20
    """
    return _ESCAPED.sub(lambda found: "".join(map(_escape, found[0])), name)


def check_tfds_names(names: Iterable[str]) -> None:
    """Check that TFDS can store class names: one on each line of a file, whose lines it strips.

    Raises:
        UserError: naming the first that it would split, strip or drop.
    """
    for name in names:
        if name.strip() != name or name.splitlines() != [name]:
            reason = "consists of blanks" if not name.strip() else "begins or ends with a blank"
            reason = "contains a line break" if len(name.strip().splitlines()) > 1 else reason
            raise UserError(f"class name {name!r} {reason}, which TFDS cannot store; rename the class folder")


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """Replace WordNet identifiers (`n01440764`) among class names by ImageNet labels (`tench`)."""
    classes = _imagenet_classes()
    return tuple(classes.get(name, name) for name in names)


def _escape(character: str) -> str:
    named = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
    return named.get(character) or escape(character)


@functools.cache
def _imagenet_classes() -> dict[str, str]:
    """Return labels by WordNet identifier. Identifiers: Deng et al., ImageNet, 2009; labels: torchvision 0.28."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)
