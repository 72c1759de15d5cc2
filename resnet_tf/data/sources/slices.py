"""Parts of a split, such as `train[:90%]`, in the syntax of TFDS, for sources in memory."""

import tensorflow_datasets as tfds

from resnet_tf.core.errors import UserError


def plain_name(split: str) -> str:
    """Return the name without a part: `train` for `train[:90%]`."""
    return split.partition("[")[0]


def part(split: str, count: int) -> slice:
    """Return the slice of a split that a name selects.

    Reference: TFDS, Splits and slicing: `train[:200]`, `train[200:]`, `train[10%:20%]`, `train[-5:]`.

    Args:
        split: name, with or without a part in brackets.
        count: number of examples in the complete split.

    Raises:
        UserError: if the syntax is invalid, or the part is empty or exceeds the split.
    """
    name = plain_name(split)
    if split == name:
        return slice(0, count)
    info = tfds.core.SplitInfo(name=name, shard_lengths=[count], num_bytes=0)
    try:
        (found,) = tfds.core.ReadInstruction.from_spec(split).to_absolute({name: info})
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"no split {split!r} of {count:,} examples; expected a part such as {name}[:200], {name}[200:] or "
            f"{name}[10%:20%]"
        ) from error
    start, end, _ = slice(found.from_, found.to).indices(count)  # an open end is None
    if start >= end:
        raise UserError(f"split {split!r} of {count:,} examples is empty")
    return slice(start, end)
