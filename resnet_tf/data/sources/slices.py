"""Slices of splits in TFDS's notation, such as `train[:90%]`, for sources that are arrays."""

import tensorflow_datasets as tfds

from resnet_tf.core.errors import UserError


def plain_name(name: str) -> str:
    """Return `train` for `train[:90%]`."""
    return name.partition("[")[0]


def part(text: str, count: int) -> slice:
    """Return the slice of a split of `count` examples that `text` denotes; without brackets, all of it.

    Reference: TFDS, Splits and slicing, for the form: `train[:200]`, `train[200:]`, `train[10%:20%]`, `train[-5:]`.

    Raises:
        UserError: for another form, a slice beyond the split, or an empty slice.
    """
    name = plain_name(text)
    if text == name:
        return slice(0, count)
    split = tfds.core.SplitInfo(name=name, shard_lengths=[count], num_bytes=0)
    try:
        (found,) = tfds.core.ReadInstruction.from_spec(text).to_absolute({name: split})
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"there is no split {text!r} of {count:,} examples; a part is written {name}[:200], {name}[200:] or "
            f"{name}[10%:20%]"
        ) from error
    start, end, _ = slice(found.from_, found.to).indices(count)  # an open end is None
    if start >= end:
        raise UserError(f"split {text!r} of {count:,} examples holds none")
    return slice(start, end)
