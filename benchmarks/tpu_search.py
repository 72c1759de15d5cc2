"""Search for the largest batch of a training step that fits a chip, one compilation after another."""

from collections.abc import Mapping, Sequence
from typing import Any

GRAIN = 32  # batches are multiples of it: a compilation takes minutes

Row = Mapping[str, Any]


def next_batch(rows: Sequence[Row], memory: float, guess: int) -> int | None:
    """Return the batch to compile next, or None if the largest one is found.

    The memory of the largest batch that fits, divided by its images, predicts a larger one. The prediction is too low
    rather than too high, as a part of the memory is for the weights. Near the limit the compiler computes activations
    again instead of keeping them, so that only a batch that is refused proves that none larger fits.

    Args:
        rows: compilations of the step for the chip, with `batch`, and either `error` or bytes of memory.
        memory: bytes of the chip.
        guess: first batch.
    """
    refused = min((row["batch"] for row in rows if "error" in row), default=None)
    best = largest(rows)
    if best is None:
        return guess if refused is None else max(refused // 2 // GRAIN * GRAIN, GRAIN)
    above = best["batch"] + GRAIN
    predicted = int(best["batch"] * memory / used(best)) // GRAIN * GRAIN
    if refused is not None:
        predicted = min(predicted, refused - GRAIN)
        return predicted if predicted >= above else above if above < refused else None
    return max(predicted, above)


def largest(rows: Sequence[Row]) -> Row | None:
    """Return the compilation of the largest batch that fits."""
    return max((row for row in rows if "error" not in row), key=lambda row: row["batch"], default=None)


def used(row: Row) -> int:
    """Return the bytes that a compiled step takes."""
    return row["temporaries"] + row["arguments"] + row["results"]
