"""Pictures that cannot be read: counted, named in unreadable.jsonl, and too many of them end a run."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core import files
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.data.errors import translate_errors
from resnet_tf.data.sources import Split
from resnet_tf.inputs import Preprocess

logger = logging.getLogger(__name__)

FILE_NAME = "unreadable.jsonl"
_SHOWN = 5  # in the log; all of them are in the file


class UnreadableExamples:
    """The unreadable part of a training split.

    Args:
        split: the training split.
        preprocess: how its pictures are decoded.
        config: its `max_unreadable_fraction` counts.
        path: a JSON-lines file that each is appended to once, also over several starts of a run; None for no file.

    Raises:
        UserError: if more than `data.max_unreadable_fraction` of the split is known to be unreadable already.
    """

    def __init__(self, split: Split, preprocess: Preprocess, config: DataConfig, path: Path | None = None):
        self._split, self._preprocess, self._limit, self._path = split, preprocess, config.max_unreadable_fraction, path
        self._listed = {self._key(line) for line in (files.read_json_lines(path, keys=["file"]) if path else ())}
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}  # what was listed earlier may have been mended
        self._add([vars(corruption) for corruption in split.corruption])
        self._check()

    @property
    def count(self) -> int:
        """Examples that were found unreadable."""
        return sum(line["examples"] for line in self._known.values())

    def note(self, examples: np.ndarray) -> None:
        """Take down what the pipeline could not read: places in the split, int64; negative ones are fine pictures.

        Raises:
            UserError: if that makes too many.
        """
        found = ((int(example), self._split.locate(int(example))) for example in examples[examples >= 0])
        self._add(
            [
                where | {"reason": self._reason(example), "examples": 1}
                for example, where in found
                if self._key(where) not in self._known
            ]
        )
        self._check()

    def _reason(self, example: int) -> str:
        try:
            return self._preprocess.explain_unreadable(self._split.load(tf.constant(example, tf.int64)))
        except tf.errors.OpError as error:
            return plain_reason(error)

    def _add(self, lines: Sequence[dict[str, Any]]) -> None:
        new = {self._key(line): line for line in lines if self._key(line) not in self._known}
        for line in list(new.values())[: max(_SHOWN - len(self._known), 0)]:
            logger.warning("left out, unreadable: %s", _in_words(line))
        self._known |= new
        unlisted = [line for key, line in new.items() if key not in self._listed]
        if self._path and unlisted:
            with files.translate_write_errors(self._path):
                files.append_json_lines(self._path, unlisted)

    def _check(self) -> None:
        total = self._split.num_examples + sum(corruption.examples for corruption in self._split.corruption)
        if self.count > self._limit * total:
            last = list(self._known.values())[-1]
            listed = f"; all are in {str(self._path)!r}" if self._path else ""
            raise UserError(
                f"{self.count} of the {total} pictures of split {self._split.name!r} cannot be read, more than "
                f"data.max_unreadable_fraction={self._limit:g} allows; the last one: {_in_words(last)}{listed}"
            )

    @staticmethod
    def _key(line: dict[str, Any]) -> tuple[Any, ...]:
        return line["file"], line.get("offset"), line.get("index")


def translate_read_errors(split: Split, preprocess: Preprocess) -> contextlib.AbstractContextManager[None]:
    """Raise a `UserError` with the name of the file, where the block fails on an unreadable example of a split.

    For evaluation, which never skips an example.
    """

    def explain(error: tf.errors.OpError) -> str:
        named = name_unreadable(split, preprocess)
        return named and f"split {split.name!r} cannot be tested: {named}"

    return translate_errors(explain)


def name_unreadable(split: Split, preprocess: Preprocess, *, start: int = 0) -> str:
    """The first unreadable picture of a split from a place on, with its reason; empty if all can be read."""
    for place in range(start, split.num_examples):
        try:
            reason = preprocess.explain_unreadable(split.load(tf.constant(place, tf.int64)))
        except tf.errors.OpError as error:
            reason = plain_reason(error)
        if reason:
            return _in_words(split.locate(place) | {"reason": reason})
    return ""


def _in_words(line: dict[str, Any]) -> str:
    place = next((f", {key} {line[key]}" for key in ("offset", "index") if key in line), "")
    return f"{line['file']}{place}: {line['reason']}"
