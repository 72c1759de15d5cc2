"""Labels of a table: names, whole numbers or indices of class names, one or several for each image.

Several labels are text with a separator, a list, or a column of 0 and 1 for each class.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resnet_tf.core.class_names import canonical
from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import MAX_CLASSES
from resnet_tf.core.targets import MULTI_LABEL, Targets, targets_of
from resnet_tf.core.text import counted
from resnet_tf.data.sources.labels import columns_to_labels
from resnet_tf.data.sources.tables.columns import Roles, holds_numbers, is_indicator, is_list, is_one
from resnet_tf.data.sources.tables.files import Column, Table

logger = logging.getLogger(__name__)

_WHOLE = re.compile(r"[+-]?(0|[1-9]\d{0,17})(\.0*)?")
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LIST = re.compile(r"\[.*\]")  # text of a Python list
_FEW = 10  # rows below which every row may have a label of its own
_MAX_CELLS = 2**32  # rows times classes of several labels, a byte each


@dataclass(frozen=True)
class Labels:
    """Labels of the rows.

    Attributes:
        values: int64 [N], or bool [N, C] for several labels.
        class_names: names of the labels; empty if the labels name themselves.
        form: description of several labels, for the log.
    """

    values: np.ndarray
    class_names: tuple[str, ...] = ()
    form: str = ""

    @property
    def targets(self) -> Targets:
        """Form of the labels."""
        return targets_of(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all classes in label order."""
        return self.class_names or tuple(map(str, np.unique(self.values)))

    def describe(self, row: int) -> str:
        """Return the names of the classes of a row."""
        if not self.class_names:
            return repr(str(self.values[row]))
        return " and ".join(map(repr, self.targets.names(self.values[row], self.class_names))) or "none"

    def combinations(self) -> np.ndarray:
        """Return a number for each row, the same for rows with the same classes, int64 [N]."""
        if self.targets is not MULTI_LABEL:
            return self.values
        return np.unique(np.packbits(self.values, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def read_labels(table: Table, roles: Roles, separator: str) -> Labels:
    """Return the labels of all rows; rows of several labels may have none.

    Args:
        table: the table.
        roles: its columns.
        separator: value of `data.label_separator`.

    Raises:
        UserError: for rows without a label, real numbers, or columns that hold no labels.
    """
    if len(roles.labels) > 1:
        return _read_indicators(table, roles.labels)
    (name,) = roles.labels
    if is_list(table.types[name]):
        column, lengths = table.lists(name)
        return _encode_sets(table, name, column, np.repeat(np.arange(table.num_rows), lengths), "lists")
    column = table.column(name)
    found = _choose_separator(column, separator)
    if found:
        return _read_sets(table, name, column, found)
    if len(column.missing):
        raise _error(table, column.missing, f"have no label in column {name!r}")
    return _read_single(table, name, column)


def _read_single(table: Table, name: str, column: Column) -> Labels:
    """Return one label for each row: indices of class names, whole numbers, or names."""
    if names := table.class_names.get(name):
        return Labels(_find_indices(table, name, column, names), names)
    if numbers := _whole_numbers(column):
        wrong = np.flatnonzero(np.array([number < 0 for number in numbers])[column.codes])
        if len(wrong):
            label = column.row(int(wrong[0]))
            raise _error(table, wrong, f"have a negative label, such as {label}, in column {name!r}")
        return Labels(np.array(numbers, np.int64)[column.codes])
    _check_names(table, name, [value for value in column.values if value is not None])
    indices, class_names = _encode_names(column)
    return Labels(indices[column.codes], class_names)


def _whole_numbers(column: Column) -> list[int]:
    """Return the values as whole numbers, 0 for a missing one; empty if they are no whole numbers, or too large."""
    if not all(value is None or _WHOLE.fullmatch(value) for value in column.values):
        return []
    numbers = [int(value.partition(".")[0]) if value else 0 for value in column.values]
    return numbers if max(numbers) < MAX_CLASSES else []


def _encode_names(column: Column) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class of each value, -1 for a missing one, and the class names in order.

    Both Unicode forms of a name are one class. Whole numbers are in the order of numbers.
    """
    if numbers := _whole_numbers(column):
        present = sorted({number for number, value in zip(numbers, column.values, strict=True) if value is not None})
        names = [str(number) if value is not None else "" for number, value in zip(numbers, column.values, strict=True)]
        class_names = tuple(map(str, present))
    else:
        names = [canonical(value) if value else "" for value in column.values]
        class_names = tuple(sorted({name for name in names if name}))
    indices = {name: index for index, name in enumerate(class_names)}
    return np.array([indices.get(name, -1) for name in names], np.int64), class_names


def _find_indices(table: Table, name: str, column: Column, class_names: tuple[str, ...]) -> np.ndarray:
    """Return the indices of the class names, int64 [N], that a column of numbers holds, or one of text names."""
    known = map(str, range(len(class_names))) if holds_numbers(table.types[name]) else class_names
    indices = {each: index for index, each in enumerate(known)}
    found = np.array([indices.get(value or "", -1) for value in column.values], np.int64)[column.codes]
    wrong = np.flatnonzero(found < 0)
    if len(wrong):
        label = column.row(int(wrong[0]))
        count = counted(len(class_names), "class name")
        raise _error(table, wrong, f"have a label in column {name!r} without one of the {count}, such as {label}")
    return found


def _read_sets(table: Table, name: str, column: Column, separator: str) -> Labels:
    """Return labels of text with a separator."""
    parts = [_split(value, separator) for value in column.values]
    flat = [part for row in column.codes for part in parts[row]]
    distinct = {part: code for code, part in enumerate(dict.fromkeys(flat))}
    single = Column(tuple(distinct), np.array([distinct[part] for part in flat], np.int64))
    owners = np.repeat(np.arange(table.num_rows), np.array([len(each) for each in parts])[column.codes])
    shown = "blanks" if separator == " " else repr(separator)
    return _encode_sets(table, name, single, owners, f"separated by {shown}")


def _split(value: str | None, separator: str) -> list[str]:
    """Return the labels in a text."""
    text = value[1:-1] if value and _LIST.fullmatch(value) else value or ""
    return [part for each in text.split(separator) if (part := each.strip(" \t'\""))]


def _encode_sets(table: Table, name: str, column: Column, owners: np.ndarray, form: str) -> Labels:
    """Return multi-label targets.

    Args:
        table: the table.
        name: column of the labels.
        column: all labels of all rows, one after the other.
        owners: row of each of them.
        form: description of the labels.
    """
    if len(column.missing):
        raise _error(table, owners[column.missing], f"have an empty label in column {name!r}")
    if not len(column.codes):
        raise UserError(f"column {name!r} of {str(table.path)!r} has no label in any row")
    if names := table.class_names.get(name):
        class_names, found = names, _find_indices(table, name, column, names)
    else:
        indices, class_names = _encode_names(column)
        found = indices[column.codes]
    if table.num_rows * len(class_names) > _MAX_CELLS or len(class_names) > MAX_CLASSES:
        raise UserError(
            f"column {name!r} of {str(table.path)!r} has {counted(len(class_names), 'label')} in "
            f"{counted(table.num_rows, 'row')}; the limit of their product is {_MAX_CELLS:,}"
        )
    values = np.zeros((table.num_rows, len(class_names)), bool)
    values[owners, found] = True
    return Labels(values, class_names, form)


def _read_indicators(table: Table, names: Sequence[str]) -> Labels:
    """Return labels of columns of 0 and 1: one label for each row if each row has a single 1."""
    columns = [table.column(name) for name in names]
    for name, column in zip(names, columns, strict=True):
        if not is_indicator(column):
            raise UserError(f"column {name!r} of {str(table.path)!r} holds other values than 0 and 1")
    flags = np.stack([np.array([is_one(value) for value in column.values])[column.codes] for column in columns], 1)
    return Labels(columns_to_labels({"all": flags}, str(table.path))["all"], tuple(names), "columns of 0 and 1")


def _check_names(table: Table, name: str, values: Sequence[str]) -> None:
    """Refuse a column of real numbers, and one with another value in every row."""
    where = f"column {name!r} of {str(table.path)!r}"
    fractions = [value for value in values if not value.lstrip("+-").isdigit()]
    if fractions and all(map(_REAL.fullmatch, values)):
        shown = next((value for value in fractions if not _WHOLE.fullmatch(value)), fractions[0])
        raise UserError(f"{where} holds real numbers, such as {shown}: labels are names or whole numbers")
    if len(values) == table.num_rows >= _FEW:
        raise UserError(
            f"{where} has another value in each of {table.num_rows:,} rows, such as {values[0][:80]!r}: these are no "
            "classes; data.label_column names the labels"
        )


def _choose_separator(column: Column, setting: str) -> str:
    """Return the separator that `data.label_separator` states or that is found; empty for one label in each row."""
    if setting == "auto":
        return find_separator([value for value in column.values if value is not None])
    return {"none": "", "space": " "}.get(setting, setting)


def find_separator(values: Sequence[str]) -> str:
    """Return the character that separates labels in text, or empty.

    `|` and `;` always do, and so does the comma of lists. A comma or a blank does if the texts have different numbers
    of parts, and the different parts are fewer than the texts, for a blank less than half as many.

    >>> find_separator(["cat", "cat|dog"]), find_separator(["Paris, France", "Rome, Italy"])
    ('|', '')
    """
    if any(map(_LIST.fullmatch, values)) and all(map(_LIST.fullmatch, values)):
        return ","
    for separator, ratio in (("|", 0), (";", 0), (",", 1), (" ", 2)):
        parts = [_split(value, separator) for value in values]
        counts, labels = set(map(len, parts)), {part for each in parts for part in each}
        if max(counts, default=0) > 1 and (not ratio or (len(counts) > 1 and ratio * len(labels) < len(values))):
            return separator
    return ""


def _error(table: Table, rows: np.ndarray, reason: str) -> UserError:
    return UserError(f"{counted(len(rows), 'row')} of {str(table.path)!r} {reason}: {table.describe_rows(rows)}")
