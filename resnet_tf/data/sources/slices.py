"""Names of splits, and their parts such as `train[:90%]`, in the syntax of TFDS."""

import difflib
from collections.abc import Iterable

import tensorflow_datasets as tfds

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted

# Configuration key -> usual names of its split, the likeliest first.
_USUAL_NAMES = {
    "train_split": ("train", "training"),
    "eval_split": ("val", "valid", "validation", "eval", "dev", "test", "testing"),
    "test_split": ("test", "testing", "val", "valid", "validation", "eval", "dev"),
}


def advise(config: DataConfig, split: str, present: Iterable[str]) -> str:
    """Return advice on a split that does not exist: another one, and the configuration key that names it.

    Args:
        config: names of the splits.
        split: name of the missing split, without a part.
        present: names of the existing splits.
    """
    present = list(present)
    key = next((key for key in _USUAL_NAMES if plain_name(getattr(config, key)) == split), "train_split")
    usual = [name for name in _USUAL_NAMES[key] if name in present]
    near = difflib.get_close_matches(split, present, n=1, cutoff=0.5)
    likely = usual[:1] if usual and split in _USUAL_NAMES[key] else near
    return f"did you mean {likely[0]!r}? data.{key} names the split" if likely else f"data.{key} names the split"


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
    # Under another name, because TFDS knows no slices of `all`, and only some characters.
    info = tfds.core.SplitInfo(name="split", shard_lengths=[count], num_bytes=0)
    try:
        (found,) = tfds.core.ReadInstruction.from_spec(f"split{split.removeprefix(name)}").to_absolute({"split": info})
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"no split {split!r} of {counted(count, 'example')}; expected a part such as {name}[:200], {name}[200:] or "
            f"{name}[10%:20%]"
        ) from error
    start, end, _ = slice(found.from_, found.to).indices(count)  # an open end is None
    if start >= end:
        raise UserError(f"split {split!r} of {counted(count, 'example')} is empty")
    return slice(start, end)
