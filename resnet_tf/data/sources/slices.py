"""Parts of a split, such as `train[:90%]`, as TFDS writes them, for sources that are arrays."""

import tensorflow_datasets as tfds

from resnet_tf.core.errors import UserError


def plain_name(spec: str) -> str:
    """`train` of `train[:90%]`."""
    return spec.partition("[")[0]


def part(spec: str, count: int) -> slice:
    """The places that `spec` means in a split of `count` examples; all of them without brackets.

    Reference: TFDS, Splits and slicing, for the form: `train[:200]`, `train[200:]`, `train[10%:20%]`, `train[-5:]`.

    Raises:
        UserError: if it is no such form, reaches beyond the split, or holds no example.
    """
    name = plain_name(spec)
    if spec == name:
        return slice(0, count)
    split = tfds.core.SplitInfo(name=name, shard_lengths=[count], num_bytes=0)
    try:
        (found,) = tfds.core.ReadInstruction.from_spec(spec).to_absolute({name: split})
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"there is no split {spec!r} of {count:,} examples; a part is written {name}[:200], {name}[200:] or "
            f"{name}[10%:20%]"
        ) from error
    start, end, _ = slice(found.from_, found.to).indices(count)  # an open end is None
    if start >= end:
        raise UserError(f"split {spec!r} of {count:,} examples holds none")
    return slice(start, end)
