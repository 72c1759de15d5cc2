"""Labels of a table: names, whole numbers, indices of class names, or one column of 0 and 1 for each class."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resnet_tf.core.class_names import canonical
from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import MAX_CLASSES
from resnet_tf.core.text import counted
from resnet_tf.data.sources.tables.columns import Roles, is_binary, is_list
from resnet_tf.data.sources.tables.files import Column, Table

_WHOLE = re.compile(r"[+-]?(0|[1-9]\d{0,17})(\.0*)?")
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SEPARATORS = ("|", ";", ",")
_FEW = 10  # rows below which every row may have a label of its own


@dataclass(frozen=True)
class Labels:
    """Label of each row.

    Attributes:
        values: int64 [N].
        class_names: names of the labels; empty if the labels name themselves.
    """

    values: np.ndarray
    class_names: tuple[str, ...] = ()

    def class_name(self, row: int) -> str:
        """Return the name of the class of a row."""
        value = int(self.values[row])
        return self.class_names[value] if self.class_names else str(value)


def read_labels(table: Table, roles: Roles) -> Labels:
    """Return the labels of all rows.

    Raises:
        UserError: for rows without a label, real numbers, several labels in one row, or columns that hold no labels.
    """
    if len(roles.labels) > 1:
        return _read_indicators(table, roles.labels)
    (name,) = roles.labels
    if is_list(table.types[name]):
        raise UserError(f"column {name!r} of {str(table.path)!r} holds several labels for an image: not supported yet")
    column = table.column(name)
    if len(column.missing):
        raise _error(table, column.missing, f"have no label in column {name!r}")
    if names := table.class_names.get(name):
        return _read_indices(table, name, column, names)
    values = [value for value in column.values if value is not None]
    if all(map(_WHOLE.fullmatch, values)):
        numbers = np.array([int(value.partition(".")[0]) if value else 0 for value in column.values], object)
        if max(numbers) < MAX_CLASSES:
            wrong = np.flatnonzero((numbers < 0).astype(bool)[column.codes])
            if len(wrong):
                label = column.row(int(wrong[0]))
                raise _error(table, wrong, f"have a negative label, such as {label}, in column {name!r}")
            return Labels(numbers.astype(np.int64)[column.codes])
    _check_names(table, name, values)
    return _read_names(column)


def _read_names(column: Column) -> Labels:
    """Return labels of text; both Unicode forms of a name are one class, and the classes are in the order of names."""
    names = [canonical(value) if value else "" for value in column.values]
    class_names = tuple(sorted({name for name in names if name}))
    indices = {name: index for index, name in enumerate(class_names)}
    return Labels(np.array([indices.get(name, -1) for name in names], np.int64)[column.codes], class_names)


def _read_indices(table: Table, name: str, column: Column, class_names: tuple[str, ...]) -> Labels:
    """Return labels that are indices of class names, or the names."""
    indices = {str(index): index for index in range(len(class_names))} | {
        each: index for index, each in enumerate(class_names)
    }
    found = np.array([indices.get(value or "", -1) for value in column.values], np.int64)[column.codes]
    wrong = np.flatnonzero(found < 0)
    if len(wrong):
        label = column.row(int(wrong[0]))
        count = counted(len(class_names), "class name")
        raise _error(table, wrong, f"have a label in column {name!r} without one of the {count}, such as {label}")
    return Labels(found, class_names)


def _read_indicators(table: Table, names: Sequence[str]) -> Labels:
    """Return labels of columns of 0 and 1, of which each row has exactly one 1."""
    columns = [table.column(name) for name in names]
    for name, column in zip(names, columns, strict=True):
        if not is_binary(column):
            raise UserError(f"column {name!r} of {str(table.path)!r} holds other values than 0 and 1")
    flags = np.stack(
        [np.array([(value or "").startswith("1") for value in column.values])[column.codes] for column in columns], 1
    )
    several = np.flatnonzero(flags.sum(1) != 1)
    if len(several):
        count = counted(int(flags[several[0]].sum()), "label")
        raise _error(table, several, f"have no label or several, such as {count}: not supported yet")
    return Labels(flags.argmax(1), tuple(names))


def _check_names(table: Table, name: str, values: Sequence[str]) -> None:
    """Refuse a column of real numbers, of lists of labels, and one with another value in every row."""
    where = f"column {name!r} of {str(table.path)!r}"
    fractions = [value for value in values if not value.lstrip("+-").isdigit()]
    if fractions and all(map(_REAL.fullmatch, values)):
        shown = next((value for value in fractions if not _WHOLE.fullmatch(value)), fractions[0])
        raise UserError(f"{where} holds real numbers, such as {shown}: labels are names or whole numbers")
    if separator := find_separator(values):
        shown = next(value for value in values if separator in value)
        raise UserError(f"{where} holds several labels for an image, such as {shown[:80]!r}: not supported yet")
    if len(values) == table.num_rows >= _FEW:
        raise UserError(
            f"{where} has another value in each of {table.num_rows:,} rows, such as {values[0][:80]!r}: these are no "
            "classes; data.label_column names the labels"
        )


def find_separator(values: Sequence[str]) -> str:
    """Return the character that separates labels in text, or empty.

    A separator is likely if its parts are fewer than the different texts, and each of them is in several.

    >>> find_separator(["cat", "cat|dog", "dog", "bird|cat", "bird|dog"])
    '|'
    >>> find_separator(["Paris, France", "Rome, Italy"])
    ''
    """
    for separator in _SEPARATORS:
        parts = [{part.strip() for part in value.split(separator)} for value in values]
        labels = set().union(*parts)
        if max(map(len, parts)) > 1 and len(labels) < len(values):
            return separator
    return ""


def _error(table: Table, rows: np.ndarray, reason: str) -> UserError:
    return UserError(f"{counted(len(rows), 'row')} of {str(table.path)!r} {reason}: {table.describe_rows(rows)}")
