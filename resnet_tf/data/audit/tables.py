"""Tables of the examples that an audit keeps, for `data.source`: paths, labels and splits of image files."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.files import translate_write_errors, write_atomically
from resnet_tf.core.text import printable
from resnet_tf.data.audit.findings import LISTS, Examples, Finding
from resnet_tf.data.sources import slices
from resnet_tf.data.sources.tables import MISSING

# Lists whose examples are left out by default; outliers and quality are judgments.
BAD = ("unreadable", "exact_duplicates", "leaks", "label_conflicts", "label_errors")

_SEPARATORS = "|;#~^"
_PRIORITIES = ("train", "validation", "test")  # copies are left out of the first, metrics depend on the last


@dataclass(frozen=True)
class WrittenTable:
    """A table of kept examples.

    Attributes:
        path: path of the table.
        kept: number of its rows.
        left_out: number of examples that are not in it.
        settings: settings that train on it, such as `data.source=list.csv`.
    """

    path: Path
    kept: int
    left_out: int
    settings: tuple[str, ...]


def check_request(path: Path, names: Sequence[str]) -> None:
    """Refuse a table that is no CSV file, and a name that is not one of `LISTS`.

    Raises:
        UserError: naming the nearest list.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"--fix={str(path)!r} must be a .csv file")
    for name in names:
        if name not in LISTS:
            raise UserError(f"an audit has no list {name!r}; did you mean {closest(name, LISTS)}?")


def check_files(examples: Examples, source: str) -> None:
    """Refuse examples that are not in files of their own.

    Raises:
        UserError: naming the source.
    """
    if examples.split.num_examples and set(examples.split.locate(0)) != {"file"}:
        raise UserError(f"a table lists image files; those of {source!r} are in archives or records, without paths")


def choose_left_out(examples: Examples, findings: Mapping[str, Sequence[Finding]], names: Sequence[str]) -> np.ndarray:
    """Return the examples that are left out for the findings of some lists, bool [N].

    Of exact and of near duplicates, the first in the split that metrics depend on most stays: test, then validation,
    then training, by `Examples.uses` or else by the names of the splits; of splits with the same use the last. Of
    leaks, all in this split stay. Of conflicting labels none stays. Readable files with a wrong suffix stay.

    Args:
        examples: all examples.
        findings: see `checks.Checked`.
        names: names of the lists.
    """
    priorities = _split_priorities(examples)[examples.owners]
    left_out = np.zeros(len(examples.owners), bool)
    for name in names:
        for finding in findings[name]:
            members = np.array(finding.indices, np.int64)
            if not len(members) or (name == "unreadable" and "format" in finding.details):
                continue
            if name in ("exact_duplicates", "near_duplicates"):
                members = np.delete(members, int(np.argmax(priorities[members])))
            elif name == "leaks":
                members = members[priorities[members] < priorities[members].max()]
            left_out[members] = True
    return left_out


def _split_priorities(examples: Examples) -> np.ndarray:
    """Return different numbers for the splits, ascending as metrics depend on them, int64 [S]."""
    uses = examples.uses or [slices.use_of(slices.plain_name(name)) for name in examples.names]
    return np.array([_PRIORITIES.index(use) * len(uses) if use else 0 for use in uses]) + np.arange(len(uses))


def write_table(path: Path, examples: Examples, left_out: np.ndarray, config: DataConfig) -> WrittenTable:
    """Write a CSV file of the examples that are kept.

    Args:
        path: file to write, with the suffix `.csv`.
        examples: all examples, in files of their own.
        left_out: see `choose_left_out`, bool [N].
        config: its `source` and `group_column` apply.

    Raises:
        UserError: if nothing is kept, or a path or class name cannot be written.
    """
    check_files(examples, config.source)
    kept = np.flatnonzero(~left_out)
    if not len(kept):
        raise UserError(f"no example of {config.source!r} is left for a table")
    files = [os.path.abspath(examples.split.locate(int(index))["file"]) for index in kept]
    root = _root(path, files)
    separator = _separator(examples)
    columns = {
        "file": [os.path.relpath(file, root) for file in files],
        "label": [separator.join(examples.classes(int(index))) for index in kept],
    }
    splits = _split_names(examples)
    if len(splits) > 1:
        columns["split"] = [splits[owner] for owner in examples.owners[kept]]
    if config.group_column:
        values = examples.split.column(config.group_column)
        columns[config.group_column] = ["" if values[index] == MISSING else values[index] for index in kept]
    with translate_write_errors(path):
        write_atomically(path, _to_csv(columns))
    settings = [f"data.source={path}"]
    if root != path.absolute().parent:
        settings.append(f"data.image_folder={root}")
    if separator or set(_SEPARATORS + ", ") & set("".join(examples.class_names)):
        settings.append(f"data.label_separator={separator or 'none'}")
    if config.group_column:
        settings.append(f"data.group_column={config.group_column}")
    if not all(map(slices.use_of, splits)) and "split" in columns:
        settings.append("data.split_column=split")
    return WrittenTable(path, len(kept), int(left_out.sum()), tuple(settings))


def _split_names(examples: Examples) -> tuple[str, ...]:
    """Return the names of the splits in a table: the uses of slices and sums, whose names would select parts of it."""
    has_parts = set("[+") & set("".join(examples.names))
    return examples.uses if examples.uses and has_parts else examples.names


def _root(path: Path, files: Sequence[str]) -> Path:
    """Return the folder that paths are relative to: that of the table if it has all files, or else a common one."""
    home = path.absolute().parent
    if all(Path(file).is_relative_to(home) for file in files):
        return home
    return Path(os.path.commonpath([os.path.dirname(file) for file in files]))


def _separator(examples: Examples) -> str:
    """Return a character that separates labels and is in none of them; empty for one label for each example."""
    if examples.split.labels.ndim == 1:
        return ""
    text = "".join(examples.class_names)
    found = next((each for each in _SEPARATORS if each not in text), "")
    if not found:
        raise UserError(f"the class names have all of the characters {_SEPARATORS}, one of which would separate them")
    return found


def _to_csv(columns: Mapping[str, Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        if wrong := next((cell for cell in row if printable(cell) != cell), None):
            raise UserError(f"{wrong!r} has control characters or is not UTF-8, and cannot be written to a table")
        writer.writerow(row)
    return text.getvalue()
