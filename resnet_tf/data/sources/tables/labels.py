"""Labels of a table: names, whole numbers or indices of class names, one or several for each image.

Several labels are text with a separator, a list, or a column of 0 and 1 for each class.
"""

import dataclasses
import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

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
class Fault:
    """Rows without a valid label.

    Attributes:
        rows: int64 [n], sorted.
        reason: continuation of "3 rows of the table".
    """

    rows: np.ndarray
    reason: str


@dataclass(frozen=True)
class Labels:
    """Labels of the rows.

    Attributes:
        values: int64 [N], or bool [N, C] for several labels; -1 or all False in the rows of faults.
        class_names: names of the labels; empty if the labels name themselves.
        form: description of several labels, for the log.
        faults: rows without a valid label. A data set with a hidden test split has them, which are an error only in a
            split that is used.
        empty: rows of several labels whose cell is empty, int64 [n]: they have none of the classes.
    """

    values: np.ndarray
    class_names: tuple[str, ...] = ()
    form: str = ""
    faults: tuple[Fault, ...] = ()
    empty: np.ndarray = field(default_factory=lambda: np.array([], np.int64))

    @property
    def valid(self) -> np.ndarray:
        """Rows with a valid label, int64 [n]."""
        is_valid = np.ones(len(self.values), bool)
        for fault in self.faults:
            is_valid[fault.rows] = False
        return np.flatnonzero(is_valid)

    @property
    def targets(self) -> Targets:
        """Form of the labels."""
        return targets_of(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all classes in label order."""
        return self.class_names or tuple(map(str, np.unique(self.values[self.valid])))

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
        UserError: for real numbers, or columns that hold no labels.
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
    return _read_single(table, name, column)


def _read_single(table: Table, name: str, column: Column) -> Labels:
    """Return one label for each row: indices of class names, whole numbers, or names."""
    class_names, numbers = table.class_names.get(name, ()), _whole_numbers(column)
    if class_names:
        indices = _find_indices(table, name, column, class_names)
    elif max(numbers, default=MAX_CLASSES) < MAX_CLASSES:
        indices = np.maximum(numbers, -1)
    else:
        _check_names(table, name, [value for value in column.values if value is not None])
        indices, class_names = _encode_names(column)
    rows, missing = np.arange(table.num_rows), f"have no label in column {name!r}"
    faults = _find_faults(table, name, column, indices, rows, missing)
    return Labels(indices[column.codes], class_names, faults=faults)


def _whole_numbers(column: Column) -> list[int]:
    """Return the values as whole numbers, -1 for a missing one; empty if they are no whole numbers."""
    if not all(value is None or _WHOLE.fullmatch(value) for value in column.values):
        return []
    return [int(value.partition(".")[0]) if value else -1 for value in column.values]


def _encode_names(column: Column) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class of each value, -1 for a missing or negative one, and the class names in order.

    Both Unicode forms of a name are one class. Whole numbers are in the order of numbers, unless they are too large.
    """
    numbers = _whole_numbers(column)
    if max(numbers, default=MAX_CLASSES) < MAX_CLASSES:
        names = list(map(str, numbers))
        class_names = [str(number) for number in sorted(set(numbers)) if number >= 0]
    else:
        names = [canonical(value or "") for value in column.values]
        negative = {name for name, number in zip(names, numbers, strict=False) if number < 0}
        class_names = sorted(set(names) - negative - {""})
    indices = {name: index for index, name in enumerate(class_names)}
    return np.array([indices.get(name, -1) for name in names], np.int64), tuple(class_names)


def _find_indices(table: Table, name: str, column: Column, class_names: tuple[str, ...]) -> np.ndarray:
    """Return the index of the class name that each value is, or states in a column of numbers; -1 for another value."""
    known = map(str, range(len(class_names))) if holds_numbers(table.types[name]) else class_names
    indices = {each: index for index, each in enumerate(known)}
    return np.array([indices.get(value or "", -1) for value in column.values], np.int64)


def _find_faults(
    table: Table, name: str, column: Column, indices: np.ndarray, owners: np.ndarray, missing: str
) -> tuple[Fault, ...]:
    """Return the rows with a missing label, and those with one that is no class.

    Args:
        table: the table.
        name: column of the labels.
        column: all labels, one after the other.
        indices: class of each value of `column`; negative for none.
        owners: row of each label.
        missing: reason of a missing label.
    """
    is_missing = np.array([value is None for value in column.values])
    lacks_label, lacks_class = is_missing[column.codes], ((indices < 0) & ~is_missing)[column.codes]
    faults = [Fault(np.unique(owners[lacks_label]), missing)] if lacks_label.any() else []
    if lacks_class.any():
        example, class_names = column.row(int(np.argmax(lacks_class))), table.class_names.get(name)
        reason = f"have a negative label, such as {example}, in column {name!r}"
        if class_names:
            count = counted(len(class_names), "class name")
            reason = f"have a label in column {name!r} without one of the {count}, such as {example}"
        faults.append(Fault(np.unique(owners[lacks_class]), reason))
    return tuple(faults)


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
    if class_names := table.class_names.get(name, ()):
        indices = _find_indices(table, name, column, class_names)
    else:
        indices, class_names = _encode_names(column)
    if not len(column.codes) or not class_names:
        raise UserError(f"column {name!r} of {str(table.path)!r} has no label in any row")
    if table.num_rows * len(class_names) > _MAX_CELLS or len(class_names) > MAX_CLASSES:
        raise UserError(
            f"column {name!r} of {str(table.path)!r} has {counted(len(class_names), 'label')} in "
            f"{counted(table.num_rows, 'row')}; the limit of their product is {_MAX_CELLS:,}"
        )
    faults = _find_faults(table, name, column, indices, owners, f"have an empty label in column {name!r}")
    values = np.zeros((table.num_rows, len(class_names)), bool)
    found = indices[column.codes]
    values[owners[found >= 0], found[found >= 0]] = True
    for fault in faults:
        values[fault.rows] = False
    empty = np.setdiff1d(np.arange(table.num_rows), owners)
    return Labels(values, class_names, form, faults, empty)


def _read_indicators(table: Table, names: Sequence[str]) -> Labels:
    """Return labels of columns of 0 and 1: one label for each row if each row has a single 1."""
    faults: list[Fault] = []
    flags = np.zeros((table.num_rows, len(names)), bool)
    for index, name in enumerate(names):
        column = table.column(name)
        lacks_label = np.array([value is None or value.startswith("-") for value in column.values])
        if not is_indicator(itertools.compress(column.values, ~lacks_label)):
            raise UserError(f"column {name!r} of {str(table.path)!r} holds other values than 0 and 1")
        flags[:, index] = np.array(list(map(is_one, column.values)))[column.codes]
        if lacks_label.any():
            rows = np.flatnonzero(lacks_label[column.codes])
            faults.append(Fault(rows, f"have neither 0 nor 1 in column {name!r}"))
    labels = Labels(flags, tuple(names), "columns of 0 and 1", tuple(faults))
    valid = columns_to_labels({"all": flags[labels.valid]}, str(table.path))["all"]
    values = np.full((table.num_rows, *valid.shape[1:]), False if valid.dtype == bool else -1, valid.dtype)
    values[labels.valid] = valid
    return dataclasses.replace(labels, values=values)


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
