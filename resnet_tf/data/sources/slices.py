"""Names of splits, their parts such as `train[:90%]`, and sums such as `train+test`, in the syntax of TFDS."""

import difflib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow_datasets as tfds

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted
from resnet_tf.data.sources.base import Split

ALL = "all"  # the sum of all splits, unless one has this name

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
    named = {key: map(plain_name, getattr(config, key).split("+")) for key in _USUAL_NAMES}
    key = next((key for key, names in named.items() if split in names), "train_split")
    usual = [name for name in _USUAL_NAMES[key] if name in present]
    near = difflib.get_close_matches(split, present, n=1, cutoff=0.5)
    likely = usual[:1] if usual and split in _USUAL_NAMES[key] else near
    return f"did you mean {likely[0]!r}? data.{key} names the split" if likely else f"data.{key} names the split"


def terms(split: str) -> list[str]:
    """Return the terms of a sum: `train` and `test[:50%]` for `train+test[:50%]`.

    Raises:
        UserError: if a term is empty.
    """
    found = [term.strip() for term in split.split("+")]
    if not all(map(plain_name, found)):
        raise UserError(f"no split {split!r}; expected names such as train, train[:90%] or train+validation")
    return found


def plain_name(split: str) -> str:
    """Return the name without a part: `train` for `train[:90%]`."""
    return split.partition("[")[0]


def without_parts(split: str) -> str:
    """Return the name of the complete splits: `train+test` for `train[:90%]+test[:5]`."""
    return "+".join(dict.fromkeys(map(plain_name, terms(split))))


def plain_names(names: Iterable[str], present: Sequence[str]) -> list[str]:
    """Return the splits that names select examples from, without parts, each once.

    Args:
        names: names of splits, parts and sums.
        present: names of the existing splits, which `all` stands for.
    """
    plain = [plain_name(term) for name in names for term in terms(name)]
    return list(dict.fromkeys(each for name in plain for each in (present if _is_all(name, present) else [name])))


def compose(name: str, present: Sequence[str], open_split: Callable[[str], Split]) -> Split:
    """Open a split, a part of one, or a sum of them.

    Args:
        name: name such as `train`, `train[:90%]`, `train+test[:50%]`, `all` or `all[:50%]`.
        present: names of the existing splits, in order.
        open_split: function that opens one split, or a part of it, by its name.

    Raises:
        UserError: if the syntax of a part is invalid, or it is empty.
    """
    return Split.join(name, [_compose_term(term, present, open_split) for term in terms(name)])


def _compose_term(term: str, present: Sequence[str], open_split: Callable[[str], Split]) -> Split:
    if not _is_all(plain_name(term), present):
        return open_split(term)
    everything = Split.join(term, [open_split(each) for each in present])
    selected = part(term, everything.num_examples)
    return everything if term == ALL else everything.select(np.arange(selected.start, selected.stop))


def _is_all(name: str, present: Sequence[str]) -> bool:
    return name == ALL and ALL not in present


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
