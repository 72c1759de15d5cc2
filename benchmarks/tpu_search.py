"""Search for the largest batch of a training step that fits a chip, one compilation after another.

Batches are powers of two, as people choose them, and because a compilation takes minutes. Near the limit the compiler
computes activations again instead of keeping them, so that memory does not predict the largest batch: only one that is
refused proves that none larger fits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def next_batch(rows: Sequence[Row], guess: int) -> int | None:
    """Return the batch to compile next, or None if the largest one is found, or not even one image fits.

    Args:
        rows: compilations of the step for the chip, with `batch`, and `error` if the compiler refused it.
        guess: first batch, a power of two.
    """
    refused = min((row["batch"] for row in rows if "error" in row), default=None)
    best = largest(rows)
    if best is None:
        return guess if refused is None else refused // 2 or None
    following = 2 * best["batch"]
    return None if following == refused else following


def largest(rows: Sequence[Row]) -> Row | None:
    """Return the compilation of the largest batch that fits."""
    return max((row for row in rows if "error" not in row), key=lambda row: row["batch"], default=None)


def used(row: Row) -> int:
    """Return the bytes that a compiled step takes."""
    return row["temporaries"] + row["arguments"] + row["results"]
