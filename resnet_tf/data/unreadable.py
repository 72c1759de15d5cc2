"""Unreadable examples: counted, listed in unreadable.jsonl, and limited to a fraction of the training split."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core import files
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.metrics import NonFiniteError
from resnet_tf.core.progress_line import tracked
from resnet_tf.core.ranges import is_within
from resnet_tf.data.errors import translate_errors
from resnet_tf.data.sources import Split
from resnet_tf.inputs import Preprocess

logger = logging.getLogger(__name__)

FILE_NAME = "unreadable.jsonl"
_LOGGED = 5  # examples in the log; the file lists all


class UnreadableLine(TypedDict):
    """Line of `unreadable.jsonl`, as far as it is read again.

    Attributes:
        file: path of the file.
        offset: offset of the example in the file, in bytes, if there is one.
        row: row of the example in the file, from 1, if the file is a table.
        split: split of the file that holds the example, if it holds several.
        index: index of the example in the file, or in the split of the file, if there is one.
    """

    file: str
    offset: NotRequired[int]
    row: NotRequired[int]
    split: NotRequired[str]
    index: NotRequired[int]


class UnreadableExamples:
    """Record of the unreadable examples of a training split.

    Args:
        split: training split.
        preprocess: preprocessing, which decodes examples.
        config: its `max_unreadable_fraction` applies.
        path: JSON Lines file to which each example is appended once, also when a run is resumed; None for no file.

    Raises:
        UserError: if corrupt files hold more than `data.max_unreadable_fraction` of the split.
    """

    def __init__(self, split: Split, preprocess: Preprocess, config: DataConfig, path: Path | None = None):
        self._split, self._preprocess, self._limit, self._path = split, preprocess, config.max_unreadable_fraction, path
        listed, corrupt = files.split_json_lines(path, UnreadableLine) if path else ([], [])
        for line in corrupt:
            logger.warning("%s; it is ignored", line)
        self._listed = {self._key(line) for line in listed}
        # Starts empty, since files listed by an earlier start may have been repaired.
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._add([vars(corrupt) for corrupt in split.corruption])
        self._check()

    @property
    def count(self) -> int:
        """Number of examples found unreadable so far."""
        return sum(line["examples"] for line in self._known.values())

    def record(self, missing: np.ndarray) -> None:
        """Record unreadable examples of a batch.

        Args:
            missing: indices in the split, int64 [B]; negative for examples that were read.

        Raises:
            UserError: if the total exceeds `data.max_unreadable_fraction`.
        """
        found = ((int(index), self._split.locate(int(index))) for index in missing[missing >= 0])
        self._add(
            [
                location | {"reason": explain_unreadable(self._split, self._preprocess, index), "examples": 1}
                for index, location in found
                if self._key(location) not in self._known
            ]
        )
        self._check()

    def _add(self, lines: Sequence[dict[str, Any]]) -> None:
        new = {self._key(line): line for line in lines if self._key(line) not in self._known}
        for line in list(new.values())[: max(_LOGGED - len(self._known), 0)]:
            logger.warning("skipped unreadable %s %s", self._preprocess.noun, _describe(line))
        self._known |= new
        unlisted = [line for key, line in new.items() if key not in self._listed]
        if self._path and unlisted:
            with files.translate_write_errors(self._path):
                files.append_json_lines(self._path, unlisted)

    def _check(self) -> None:
        total = self._split.num_examples + sum(corrupt.examples for corrupt in self._split.corruption)
        if self.count and not is_within(self.count / total, self._limit):
            last = list(self._known.values())[-1]
            listed = f"; {str(self._path)!r} lists all" if self._path else ""
            raise UserError(
                f"{self.count} of {total} {self._preprocess.plural} of split {self._split.name!r} are unreadable, more "
                f"than data.max_unreadable_fraction={self._limit:g}; last: {_describe(last)}{listed}"
            )

    @staticmethod
    def _key(line: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(line.get(name) for name in UnreadableLine.__annotations__)


def translate_read_errors(split: Split, preprocess: Preprocess) -> contextlib.AbstractContextManager[None]:
    """Raise a `UserError` that names the file, if the block fails on an unreadable example of a split.

    For evaluation, which skips no examples.
    """

    def explain(error: tf.errors.OpError) -> str:
        found = find_unreadable(split, preprocess)
        return found and f"split {split.name!r} cannot be evaluated: {found}"

    return translate_errors(explain)


@contextlib.contextmanager
def naming_nonfinite(split: Split) -> Iterator[None]:
    """Name the files of the examples in a `NonFiniteError` of the block, which evaluates a split."""
    try:
        yield
    except NonFiniteError as error:

        def locate(index: int) -> str:
            return f"example {index} ({location(split, index)})"

        raise NonFiniteError(error.indices, error.count, locate) from None


def location(split: Split, index: int) -> str:
    """Return the file of an example of a split and, if it holds several, the position in it."""
    return _describe_location(split.locate(index))


def explain_unreadable(split: Split, preprocess: Preprocess, index: int, *, is_unreadable: bool = True) -> str:
    """Return the reason why an example of a split cannot be read; empty if it can.

    Args:
        split: holds the example.
        preprocess: decodes it.
        index: index of the example in the split.
        is_unreadable: see `Preprocess.explain_unreadable`.
    """
    try:
        example = split.load(tf.constant(index, tf.int64))
        return preprocess.explain_unreadable(example, is_unreadable=is_unreadable)
    except tf.errors.OpError as error:
        return plain_reason(error)


def find_unreadable(split: Split, preprocess: Preprocess) -> str:
    """Describe the first unreadable example of a split; empty if there is none."""
    task = f"searching split {split.name!r} for unreadable examples"
    for index in tracked(range(split.num_examples), task, noun="example", total=split.num_examples):
        reason = explain_unreadable(split, preprocess, index, is_unreadable=False)
        if reason:
            return _describe(split.locate(index) | {"reason": reason})
    return ""


def _describe(line: dict[str, Any]) -> str:
    return f"{_describe_location(line)}: {line['reason']}"


def _describe_location(line: dict[str, Any]) -> str:
    """Describe the location of an example, see `Split.locate`."""
    position = next((f", {key} {line[key]}" for key in ("offset", "row", "index") if key in line), "")
    return f"{line['file']}{position}"
