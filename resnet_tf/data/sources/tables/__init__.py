"""Tables of images and labels: CSV, TSV and Parquet files, and folders of Parquet files as of Hugging Face."""

import dataclasses
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.core.text import counted, printable
from resnet_tf.data.sources import division, slices
from resnet_tf.data.sources.base import DataSet, Source, Split, shorten_names
from resnet_tf.data.sources.folder import split_of_files
from resnet_tf.data.sources.labels import UnlabeledError, source_of_labels, source_of_names
from resnet_tf.data.sources.tables.columns import Roles, choose_roles, holds_bytes
from resnet_tf.data.sources.tables.files import Table, is_table, read_table
from resnet_tf.data.sources.tables.images import open_images, select_rows
from resnet_tf.data.sources.tables.labels import Fault, Labels, read_labels
from resnet_tf.data.sources.tables.paths import find_files

__all__ = ["MISSING", "find_table", "is_table"]

logger = logging.getLogger(__name__)

_GROUP = re.compile(r"patient|subject|person|participant|video|sequence|lesion|burst", re.IGNORECASE)
MISSING = "missing"  # text of a cell without a value
_SHOWN = 8  # ignored columns in the log
# (name of a split, rows int64 [n]) -> the split
SelectRows = Callable[[str, np.ndarray], Split]


def find_table(path: Path, config: DataConfig, *, whole: bool) -> DataSet:
    """Return the data set of a table, whose splits are in a column, in the names of its files, or made by a division.

    Args:
        path: CSV, TSV or Parquet file, or folder of Parquet files.
        config: names of the columns.
        whole: if the table is divided, the validation split is all of it, whatever its name.

    Raises:
        UserError: if the table cannot be read, or has no columns of images and labels.
    """
    table = read_table(path)
    roles = choose_roles(table, config)
    splits = _rows_of_splits(table, roles)
    return DataSet(tuple(splits), lambda config: _open(table, roles, splits, config, whole=whole))


def _rows_of_splits(table: Table, roles: Roles) -> dict[str, np.ndarray]:
    """Return the rows of each split, int64 [n], in the order of the table; empty if it names fewer than two splits.

    Raises:
        UserError: for rows without a split.
    """
    if roles.split:
        column = table.column(roles.split)
        if len(column.missing):
            raise UserError(
                f"{counted(len(column.missing), 'row')} of {str(table.path)!r} have no split in column "
                f"{roles.split!r}: {table.describe_rows(column.missing)}"
            )
        names, codes = [str(value) for value in column.values], column.codes
    else:
        names = list(dict.fromkeys(table.file_splits))
        codes = np.repeat([names.index(each) for each in table.file_splits], table.file_rows)
    found = {name: np.flatnonzero(codes == code) for code, name in enumerate(names)}
    found = {name: rows for name, rows in found.items() if len(rows)}
    return found if len(found) > 1 else {}


@dataclass(frozen=True)
class _Rows:
    """Rows of a table with their images.

    Attributes:
        images: text of each row that is different for each image.
        groups: group of each row that a division must not tear apart; without a column of groups, `images`.
        group_column: column of the groups; empty without one.
        labels: labels of the rows, int64 [N] or bool [N, C].
        combinations: see `Labels.combinations`.
        kept: rows with a valid label that are not repeated, int64 [n].
        origin: folder of the images, for the log.
        select: function that returns the split of some rows.
    """

    images: Sequence[str]
    groups: Sequence[str]
    group_column: str
    labels: np.ndarray
    combinations: np.ndarray
    kept: np.ndarray
    origin: str
    select: SelectRows

    def union(self, splits: Iterable[np.ndarray]) -> np.ndarray:
        """Return the rows of splits, one split after the other, int64 [n]; a file in several of them counts once."""
        first: dict[str, int] = {}
        for row in itertools.chain.from_iterable(splits):
            first.setdefault(self.images[row], row)
        return np.array(list(first.values()), np.int64)

    def part(self, name: str, rows: np.ndarray) -> Split:
        """Return a split, or the slice of one that `name` states, with all classes in proportion; groups stay whole.

        Raises:
            UserError: if the slice is invalid or empty, or becomes empty when its ends move to those of groups.
        """
        if slices.plain_name(name) == name:
            return self.select(name, rows)
        groups = [self.groups[row] for row in rows]
        order = division.stratified_order(self.combinations[rows], groups)
        selected = slices.part(name, len(rows))
        if len(set(groups)) < len(groups):
            order = np.array(sorted(range(len(rows)), key=lambda index: (division.hash_key(groups[index]), index)))
            changes = [True, *(groups[one] != groups[two] for one, two in itertools.pairwise(order)), True]
            starts = np.flatnonzero(changes)
            start, stop = (int(starts[np.searchsorted(starts, each)]) for each in (selected.start, selected.stop))
            if start == stop:
                raise UserError(
                    f"split {name!r} of {counted(len(rows), 'example')} is empty: slices keep the "
                    f"{counted(len(set(groups)), 'group')} of data.group_column={self.group_column} whole; take a "
                    "larger slice"
                )
            selected = slice(start, stop)
        return self.select(name, rows[np.sort(order[selected])])


def _open(table: Table, roles: Roles, splits: dict[str, np.ndarray], config: DataConfig, *, whole: bool) -> Source:
    labels = _with_hidden(read_labels(table, roles, config.label_separator), splits)
    _check_labels(table, labels, splits, config)
    rows = _find_rows(table, roles, labels, splits, config)
    if splits:
        parts = {name: np.intersect1d(each, rows.kept) for name, each in splits.items()}
    else:
        if whole:
            config = dataclasses.replace(config, train_split=slices.ALL, eval_split=slices.ALL, test_split="")
        parts = _divide(table, rows, config)
    if splits and roles.group:
        _warn_of_groups(table, rows, parts)
    _log(table, roles, labels, rows, parts, "" if splits else f"data.eval_fraction={config.eval_fraction:g}")

    def open_split(name: str) -> Split:
        plain = slices.plain_name(name)
        if not splits:
            return rows.part(name, parts[slices.find_part(str(table.path), "a table without splits", plain)])
        if plain == slices.ALL and plain not in parts:
            union = rows.union(parts.values())
            if name == plain and len(union) == sum(map(len, parts.values())):
                return Split.join(name, [rows.part(each, part) for each, part in parts.items()])
            return rows.part(name, union)
        if plain not in parts:
            raise UserError(
                f"{str(table.path)!r} has no split {plain!r}; it has {', '.join(parts)}; "
                f"{slices.advise(config, plain, parts)}"
            )
        return rows.part(name, parts[plain])

    # `all` is opened as any other split, so that its slices are in proportion.
    found = [slices.compose(name, [slices.ALL], open_split) for name in config.splits]
    if labels.class_names:
        return source_of_names(str(table.path), found, labels.class_names)
    return source_of_labels(str(table.path), found, labels.values[rows.kept])


def _with_hidden(labels: Labels, splits: Mapping[str, np.ndarray]) -> Labels:
    """Return labels with a fault for splits whose cells are all empty, as those of a hidden test split are."""
    hidden = [rows for rows in splits.values() if np.isin(rows, labels.empty).all()]
    if not hidden:
        return labels
    rows = np.sort(np.concatenate(hidden))
    faults = (*labels.faults, Fault(rows, "have no label"))
    return dataclasses.replace(labels, faults=faults, empty=np.setdiff1d(labels.empty, rows))


def _check_labels(table: Table, labels: Labels, splits: Mapping[str, np.ndarray], config: DataConfig) -> None:
    """Refuse rows without a valid label in the splits that `config` names; without splits, all rows are used.

    Raises:
        UserError: naming the rows and, if a split has no labels at all, as a hidden test split, one that has.
    """
    named = [name for name in slices.plain_names(config.splits, list(splits)) if name in splits]
    is_used = np.full(table.num_rows, not splits)
    for name in named:
        is_used[splits[name]] = True
    for fault in labels.faults:
        rows = fault.rows[is_used[fault.rows]]
        if not len(rows):
            continue
        text = f"{counted(len(rows), 'row')} of {str(table.path)!r} {fault.reason}: {table.describe_rows(rows)}"
        hidden = [name for name in named if not np.isin(splits[name], labels.valid).any()]
        if not hidden:
            raise UserError(text)
        labeled = [name for name in splits if np.isin(splits[name], labels.valid).all()]
        advice = slices.advise_labeled(config, hidden[0], labeled)
        raise UnlabeledError(f"{text}; split {hidden[0]!r} has no labels; {advice}")


def _find_rows(
    table: Table, roles: Roles, labels: Labels, splits: Mapping[str, np.ndarray], config: DataConfig
) -> _Rows:
    """Find the image of each row; of rows with the same file, label and split, the first is kept.

    Raises:
        UserError: for missing images, or a file with two labels.
    """
    select: SelectRows
    if holds_bytes(table.types[roles.image]):
        images = open_images(table, roles.image, labels.values)
        keys: Sequence[str] = [f"{row}" for row in range(table.num_rows)]
        kept = labels.valid
        origin = ""
        select = lambda name, rows: select_rows(images, name, rows)  # noqa: E731 (one of two forms)
    else:
        paths, root = find_files(table, table.column(roles.image), config)
        kept = _drop_duplicates(table, labels, splits, paths)
        prefix = os.path.join(os.path.abspath(root), "")
        keys = [path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, root) for path in paths]
        origin = "" if root in (table.path, table.path.parent) else f" in {str(root)!r}"
        select = lambda name, rows: split_of_files(  # noqa: E731
            root, name, [paths[row] for row in rows], labels.values[rows]
        )
    groups = keys
    if roles.group:
        named = table.column(roles.group).rows()
        groups = [f"image {key}" if name is None else f"group {name}" for name, key in zip(named, keys, strict=True)]

    def select_with_columns(name: str, rows: np.ndarray) -> Split:
        return dataclasses.replace(select(name, rows), column=lambda column: _read_rows(table, column, rows))

    return _Rows(keys, groups, roles.group, labels.values, labels.combinations(), kept, origin, select_with_columns)


def _read_rows(table: Table, name: str, rows: np.ndarray) -> list[str]:
    """Return the text of a column in some rows, `missing` where it has none.

    Raises:
        UserError: for another column than those of the table.
    """
    if name not in table.names:
        raise UserError(f"{str(table.path)!r} has no column {name!r}; did you mean {closest(name, table.names)}?")
    column = table.column(name)
    return [MISSING if (value := column.row(row)) is None else value for row in rows]


def _drop_duplicates(
    table: Table, labels: Labels, splits: Mapping[str, np.ndarray], paths: Sequence[str]
) -> np.ndarray:
    """Return the rows with a valid label that do not repeat file, label and split of an earlier one, int64 [n]."""
    owners = np.zeros(table.num_rows, np.int64)
    for owner, rows in enumerate(splits.values()):
        owners[rows] = owner
    numbers = labels.combinations()
    first: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    kept = []
    valid = labels.valid
    for row in valid.tolist():
        path = paths[row]
        other = first.setdefault(path, row)
        if numbers[other] != numbers[row]:
            names = [f"{labels.describe(each)} in {table.describe_rows([each])}" for each in (other, row)]
            raise UserError(
                f"{str(table.path)!r} has different labels of {path!r}: {names[0]}, and {names[1]}; several labels of "
                "an image belong in one row"
            )
        if (path, int(owners[row])) not in seen:
            kept.append(row)
            seen.add((path, int(owners[row])))
    repeated = np.setdiff1d(valid, kept)
    if len(repeated):
        text = f"{counted(len(repeated), 'row')} of {str(table.path)!r} repeat earlier ones and are left out"
        logger.warning("%s", printable(f"{text}: {table.describe_rows(repeated)}"))
    return np.array(kept, np.int64)


def _divide(table: Table, rows: _Rows, config: DataConfig) -> dict[str, np.ndarray]:
    """Return the rows of the parts `train`, `test` and `all` of a table without splits.

    Raises:
        UserError: if the configuration names a complete test split, or no row is left for validation.
    """
    slices.check_parts(config, f"a split of a table with a column of splits; {str(table.path)!r}")
    groups = [rows.groups[row] for row in rows.kept]
    chosen = division.divide(rows.labels[rows.kept], groups, config.eval_fraction)
    parts = {"train": rows.kept[~chosen], "test": rows.kept[chosen], slices.ALL: rows.kept}
    needed = {slices.use_of(slices.plain_name(term)) for name in config.splits for term in slices.terms(name)}
    if not chosen.any() and needed & {"test", "validation"}:
        raise UserError(
            f"data.eval_fraction={config.eval_fraction:g} leaves no row of {str(table.path)!r} for evaluation: a class "
            "with one image or group has it in training. Add images, or a column of splits (train, val)"
        )
    return parts


def _warn_of_groups(table: Table, rows: _Rows, parts: dict[str, np.ndarray]) -> None:
    """Log a warning if a column of splits divides groups."""
    groups = [{rows.groups[row] for row in part} for part in parts.values()]
    divided = set[str]().union(*(one & other for one, other in itertools.combinations(groups, 2)))
    if divided:
        text = f"{counted(len(divided), 'group')} of {str(table.path)!r} have images in several of the splits"
        logger.warning("%s", printable(f"{text} {', '.join(parts)}: metrics on them are too good for new groups"))


def _log(table: Table, roles: Roles, labels: Labels, rows: _Rows, parts: dict[str, np.ndarray], fraction: str) -> None:
    """Log the columns that were found, the classes and the splits in one line.

    Args:
        table: the table.
        roles: its columns.
        labels: its labels.
        rows: its images.
        parts: rows of each split.
        fraction: setting of the division; empty for a table with splits.
    """
    names = labels.names
    column = f"column {roles.labels[0]!r}" if len(roles.labels) == 1 else f"{len(roles.labels)} {labels.form}"
    if labels.targets is MULTI_LABEL:
        form = f" {labels.form}" if len(roles.labels) == 1 else ""
        column += f", {labels.values[rows.kept].sum(1).mean():.1f} for each image{form}"
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in parts.items() if name != slices.ALL or not fraction)
    origin = f"column {roles.split!r}" if roles.split else "names of files"
    texts = [
        f"{counted(table.num_rows, 'row')}; images: column {roles.image!r}{rows.origin}",
        f"labels: {column} ({counted(len(names), 'class')}: {shorten_names(names)})",
        f"splits: {f'none, divided by hash with {fraction}' if fraction else origin} ({sizes})",
    ]
    if roles.group:
        texts.append(f"groups: column {roles.group!r} ({counted(len(set(rows.groups)), 'group')})")
    if unlabeled := table.num_rows - len(labels.valid):
        texts.append(f"without a label, in splits that are not used: {counted(unlabeled, 'row')}")
    if len(labels.empty):
        texts.append(f"empty cells, none of the classes: {counted(len(labels.empty), 'row')}")
    if roles.ignored:
        shown = ", ".join(roles.ignored[:_SHOWN]) + (", ..." if len(roles.ignored) > _SHOWN else "")
        texts.append(f"ignored: {shown}")
    likely = [name for name in roles.ignored if _GROUP.search(name)]
    if fraction and likely and not roles.group:
        texts.append(f"data.group_column={likely[0]} would keep its images in one split")
    logger.info("%s", printable(f"{str(table.path)!r}: {'; '.join(texts)}"))
