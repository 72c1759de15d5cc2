"""Files of predictions, as `predict --json` and `predict --csv` print them: the best class of each file."""

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnet_tf.core.bounded import parse_json, read_regular
from resnet_tf.core.class_names import canonical
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import user_path
from resnet_tf.core.text import counted, printable
from resnet_tf.core.validation import find_mismatch

_MAX_BYTES = 2**28


@dataclass(frozen=True)
class PredictionsFile:
    """The best class of each example, from a file.

    Attributes:
        path: of the file.
        answers: canonical path of an example -> name of its best class, and its probability.
    """

    path: Path
    answers: dict[str, tuple[str, float]]

    def find(self, files: list[str], class_names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted class and probability of each of several files, int64 [N] and float64 [N].

        Args:
            files: paths of the examples.
            class_names: names of all classes.

        Raises:
            UserError: if a file has no prediction, or a class is unknown.
        """
        indices = {canonical(name): index for index, name in enumerate(class_names)}
        indices |= {canonical(printable(name)): index for index, name in enumerate(class_names)}  # as in CSV
        found = [self.answers.get(os.path.realpath(file)) for file in files]
        missing = [file for file, each in zip(files, found, strict=True) if each is None]
        if missing:
            count = f"{len(missing):,} of {counted(len(files), 'example')}"
            raise UserError(f"{str(self.path)!r} has no prediction for {count}, such as {missing[0]!r}")
        known = [each for each in found if each is not None]
        if unknown := [name for name, _ in known if canonical(name) not in indices]:
            raise UserError(f"{str(self.path)!r} predicts {unknown[0]!r}, which is not one of the classes")
        return np.array([indices[canonical(name)] for name, _ in known]), np.array([score for _, score in known])


def read_predictions(path: str | Path) -> PredictionsFile:
    """Read a file of predictions, JSON Lines or CSV.

    Raises:
        UserError: if it cannot be read, or has another format.
    """
    path = user_path(path)
    try:
        text = read_regular(path, limit=_MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or 'no text'}") from error
    parse = _parse_json_line if text.lstrip().startswith("{") else _parse_csv
    try:
        rows = parse(text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(
            f"{str(path)!r} is not a file of predictions, as `predict --json` or `predict --csv` prints them: {error}"
        ) from error
    answers: dict[str, tuple[str, float]] = {}
    for file, label, score in rows:
        if answers.setdefault(os.path.realpath(file), (label, score)) != (label, score):
            raise UserError(f"{str(path)!r} has two predictions for {str(file)!r}")
    return PredictionsFile(path, answers)


def _parse_json_line(text: str) -> list[tuple[Path, str, float]]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = parse_json(line)
        declared = {"file": str, "labels": list[str], "scores": list[float]}
        for name, hint in declared.items():
            value = content.get(name) if isinstance(content, dict) else None
            if mismatch := find_mismatch(value, hint, name):
                raise ValueError(f"line {number}: {mismatch}")
        if not content["labels"] or not content["scores"]:
            raise ValueError(f"line {number}: no label or no score")
        file, score = _to_path(content["file"], number), _checked(content["scores"][0], number)
        rows.append((file, content["labels"][0], score))
    return rows


def _parse_csv(text: str) -> list[tuple[Path, str, float]]:
    reader = csv.DictReader(io.StringIO(text))
    expected = ("file", "label1", "score1")
    if not set(expected) <= set(reader.fieldnames or ()):
        raise ValueError(f"the columns {', '.join(expected)} are missing")
    return [
        (_to_path(row["file"], number), row["label1"] or "", _checked(float(row["score1"] or "nan"), number))
        for number, row in enumerate(reader, start=2)
    ]


def _to_path(file: str | None, number: int) -> Path:
    """Return the path of a file, None in a row that ends before.

    Raises:
        ValueError: if no file can have the name.
    """
    if not file or "\0" in file:
        raise ValueError(f"line {number}: {file or ''!r} is no name of a file")
    return user_path(file)


def _checked(score: float, number: int) -> float:
    if not 0 <= score <= 1:
        raise ValueError(f"line {number}: the score {score} is not in [0, 1]")
    return float(score)
