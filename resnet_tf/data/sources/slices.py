"""Names of splits, their parts such as `train[:90%]`, and sums such as `train+test`, in the syntax of TFDS."""

import dataclasses
import difflib
import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.text import counted, printable
from resnet_tf.data.sources.base import Split

logger = logging.getLogger(__name__)

ALL = "all"  # the sum of all splits, unless one has this name

# Configuration key -> usual names of its split, the likeliest first.
_USUAL_NAMES = {
    "train_split": ("train", "training"),
    "eval_split": ("val", "valid", "validation", "eval", "dev", "test", "testing"),
    "test_split": ("test", "testing", "val", "valid", "validation", "eval", "dev"),
}
# Use of a split -> words that name it, in any case, and in names such as `Train_Set` and `val-images`.
_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "eval", "evaluation", "dev"),
    "test": ("test", "testing", "tst"),
}
_USES = {word: use for use, words in _WORDS.items() for word in words}
_AFFIX = re.compile(r"[-_ ]?(set|split|data|images|imgs)$")


def use_of(name: str) -> str:
    """Return the use that the usual names of a split have in common: `train`, `validation`, `test`, or empty.

    >>> use_of("Valid"), use_of("train_set"), use_of("cats")
    ('validation', 'train', '')
    """
    return _USES.get(_AFFIX.sub("", name.strip().lower()), "")


def resolve(
    config: DataConfig,
    present: Sequence[str],
    given: Collection[str] | None = None,
    *,
    is_usable: Callable[[str], bool] | None = None,
) -> DataConfig:
    """Return the configuration with the splits that exist where other names are meant, and log them in one line.

    `train` means `training`, and `val` means `validation`. A validation split that no user named, such as the default
    `test`, also means the only split for validation or test that exists. Other missing names are left unchanged.

    Args:
        config: names of the splits.
        present: names of the existing splits; empty if a source takes any usual name.
        given: keys that the user set; by default, those with another value than the default.
        is_usable: function that returns True for a split with labels that can be read. With it, the default validation
            split of data for training and testing, `test`, becomes the test split if there is one for validation, too.
    """
    if given is None:
        given = {f"data.{key}" for key in _USUAL_NAMES if getattr(config, key) != getattr(DataConfig(), key)}
    resolved = _with_existing(config, present, given)
    if is_usable and "data.eval_split" not in given and config.eval_split == DataConfig().eval_split:
        keeps_test = "data.test_split" in given
        resolved = _with_validation(resolved, present, is_usable, keeps_test=keeps_test)
    before = {key: getattr(config, key) for key in _USUAL_NAMES}
    changes = {key: name for key in _USUAL_NAMES if (name := getattr(resolved, key)) != before[key]}
    if changes:
        found = [f"data.{key}={name}{before[key] and f' in place of {before[key]}'}" for key, name in changes.items()]
        text = f"{' and '.join(found)}: {config.source!r} has the splits {', '.join(present)}"
        logger.info("%s", printable(text))
    return resolved


def _with_existing(config: DataConfig, present: Sequence[str], given: Collection[str]) -> DataConfig:
    """Return the configuration with existing splits in place of missing ones that mean them; see `resolve`."""
    keys = [key for key in _USUAL_NAMES if getattr(config, key)]
    taken = {plain_name(term) for key in keys for term in getattr(config, key).split("+")}
    changes: dict[str, Any] = {}
    for key in keys:
        named = [term.strip() for term in getattr(config, key).split("+")]
        # In an evaluation of other data, the training split is the evaluated one.
        is_open = getattr(config, key) == config.eval_split and "data.eval_split" not in given
        meant = [_find_meant(term, present, taken, is_open) for term in named]
        if meant != named:
            changes[key] = "+".join(meant)
    return dataclasses.replace(config, **changes)


def _with_validation(
    config: DataConfig, present: Sequence[str], is_usable: Callable[[str], bool], *, keeps_test: bool
) -> DataConfig:
    """Return the configuration with the only split for validation, so that no decision uses the one for testing.

    Args:
        config: names of the splits, of which nobody set `eval_split`.
        present: names of the existing splits.
        is_usable: see `resolve`.
        keeps_test: the user set `test_split`, possibly to none.
    """
    named = plain_names(filter(None, (config.train_split, config.test_split)), present)
    validation = [name for name in present if use_of(name) == "validation" and name not in named]
    if len(validation) != 1 or validation[0] == config.eval_split or not is_usable(validation[0]):
        return config
    test = config.eval_split
    changes: dict[str, Any] = {"eval_split": validation[0]}
    if not (keeps_test or config.test_split) and use_of(test) == "test" and test in present and test not in named:
        changes |= {"test_split": test} if is_usable(test) else {}
    return dataclasses.replace(config, **changes)


def _find_meant(term: str, present: Sequence[str], taken: Collection[str], is_open: bool) -> str:
    """Return a split, or a part of one, with the name that exists, or unchanged if none or several could be meant."""
    name = plain_name(term)
    use = use_of(name)
    if name in present or name == ALL or not use:
        return term
    found = [each for each in present if use_of(each) == use]
    if not found and is_open:
        found = [each for each in present if use_of(each) in ("validation", "test") and each not in taken]
    return term.replace(name, found[0], 1) if len(found) == 1 else term


def find_part(source: str, layout: str, name: str) -> str:
    """Return the part that the name of a split stands for in data that are divided: `train`, `test` or `all`.

    Args:
        source: name or path of the data set, for the message.
        layout: description of its files, for the message.
        name: name of a split, without a part.

    Raises:
        UserError: for another name.
    """
    if name == ALL:
        return ALL
    use = use_of(name)
    if not use:
        usual = [ALL, *(word for words in _USUAL_NAMES.values() for word in words)]
        raise UserError(
            f"no split {name!r} in {source!r}, {layout}; did you mean {closest(name, dict.fromkeys(usual))}? It has "
            "train, test (or val) and all"
        )
    return "train" if use == "train" else "test"


def check_parts(config: DataConfig, other: str) -> None:
    """Refuse a complete test split beside the validation split of data that are divided into two parts.

    Args:
        config: names of the splits.
        other: description of the data that would have a test split, and of these, for the message.
    """
    if config.test_split and "[" not in config.test_split:
        raise UserError(
            f"data.test_split={config.test_split!r} is {other} is divided into a training and a validation split only. "
            "Slices divide it further: data.eval_split=test[:50%] and data.test_split=test[50%:]"
        )


def advise(config: DataConfig, split: str, present: Iterable[str]) -> str:
    """Return advice on a split that does not exist: another one, and the configuration key that names it.

    Args:
        config: names of the splits.
        split: name of the missing split, without a part.
        present: names of the existing splits.
    """
    present, key = list(present), _key_of(config, split)
    is_only_for_training = len(present) == 1 and use_of(present[0]) == "train"
    if key == "eval_split" and is_only_for_training and config.train_split != config.eval_split:
        name = present[0]
        return f"data.train_split={name}[:90%] with data.eval_split={name}[90%:] divides {name!r}"
    usual = [name for name in _USUAL_NAMES[key] if name in present]
    near = difflib.get_close_matches(split, present, n=1, cutoff=0.5)
    likely = usual[:1] if usual and split in _USUAL_NAMES[key] else near
    return f"did you mean {likely[0]!r}? data.{key} names the split" if likely else f"data.{key} names the split"


def advise_labeled(config: DataConfig, split: str, labeled: Iterable[str]) -> str:
    """Return advice on a split without labels: another one, or none for the test split.

    Args:
        config: names of the splits.
        split: name of the split without labels, without a part.
        labeled: names of the splits with labels.
    """
    is_for_testing = _key_of(config, split) == "test_split"
    return "data.test_split= leaves it out" if is_for_testing else advise(config, split, labeled)


def _key_of(config: DataConfig, split: str) -> str:
    """Return the configuration key that names a split, such as `eval_split`."""
    # In an evaluation of other data, the training split is the evaluated one.
    is_evaluation = config.train_split == config.eval_split
    keys = ("eval_split", "train_split", "test_split") if is_evaluation else tuple(_USUAL_NAMES)
    named = {key: map(plain_name, getattr(config, key).split("+")) for key in keys}
    return next((key for key, names in named.items() if split in names), "train_split")


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
