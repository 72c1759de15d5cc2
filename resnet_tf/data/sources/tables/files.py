"""Tables of images and labels in CSV, TSV and Parquet files, read within limits on sizes, rows, columns and cells."""

import csv
import dataclasses
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from resnet_tf.core.bounded import check_expansion, open_regular, parse_json
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.files import is_hidden
from resnet_tf.core.text import counted
from resnet_tf.data.sources import slices
from resnet_tf.data.sources.tables.pages import check_pages, column_chunks

TEXT_SUFFIXES, PARQUET_SUFFIX = (".csv", ".tsv"), ".parquet"
_MAX_BYTES = 2**31  # of a CSV file: 20 million rows of 100 characters
_MAX_ROWS = 5 * 10**7
_MAX_COLUMNS = 2**14
_MAX_CELL = 4096  # characters; the longest path of Linux
_MAX_FILES = 10**5
_SHARD = re.compile(r"(.+?)-\d+-of-\d+(-[0-9a-f]{8,64})?")  # name of a file of Hugging Face
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Column:
    """A column of text: its different values, and the value of each row.

    Attributes:
        values: different values of the rows without blanks at their ends; None for a missing one.
        codes: index of the value of each row, int64 [N].
    """

    values: tuple[str | None, ...]
    codes: np.ndarray

    def row(self, index: int) -> str | None:
        """Return the value of a row."""
        return self.values[self.codes[index]]

    def rows(self) -> list[str | None]:
        """Return the values of all rows."""
        return [self.values[code] for code in self.codes]

    @property
    def missing(self) -> np.ndarray:
        """Rows without a value, int64 [n]."""
        return np.flatnonzero(np.array([value is None for value in self.values], bool)[self.codes])


@dataclass(frozen=True, repr=False)
class Table:
    """A table in one file, or in the shards of a folder.

    Attributes:
        path: path of the file or folder.
        names: names of the columns, in order.
        types: type of each column by its name; text for all columns of CSV.
        num_rows: number of rows, N.
        first_row: number of the first row in messages: 2 below the header of a CSV file, as in spreadsheets, or 1.
        files: path of each Parquet file, in the order of the rows; empty for CSV.
        file_rows: number of rows of each of them.
        file_splits: name of the split of each of them; empty where names state none.
        class_names: class names by column, from the metadata of Hugging Face.
    """

    path: Path
    names: tuple[str, ...]
    types: Mapping[str, pa.DataType]
    num_rows: int
    read: Callable[[str], pa.ChunkedArray]
    first_row: int = 1
    files: tuple[str, ...] = ()
    file_rows: tuple[int, ...] = ()
    file_splits: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def column(self, name: str) -> Column:
        """Return a column as text: whole numbers without decimals, and missing values where a cell is empty or NaN.

        Raises:
            UserError: if it holds neither text nor numbers, or a cell is too long.
        """
        try:
            array = self.read(name).combine_chunks()
            found = array if pa.types.is_dictionary(array.type) else array.dictionary_encode("encode")
            values, codes = found.dictionary.to_pylist(), found.indices.fill_null(len(found.dictionary)).to_numpy()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read column {name!r} of {str(self.path)!r}: {plain_reason(error)}") from error
        texts = [self._to_text(name, value) for value in values] + [None]
        distinct = {text: code for code, text in enumerate(dict.fromkeys(texts))}
        recode = np.array([distinct[text] for text in texts], np.int64)
        recoded = recode[codes.astype(np.int64)]
        # A dictionary may hold values of no row, as categories of pandas do after a selection.
        is_used = np.bincount(recoded, minlength=len(distinct)) > 0
        return Column(tuple(itertools.compress(distinct, is_used)), (np.cumsum(is_used) - 1)[recoded])

    def lists(self, name: str) -> tuple[Column, np.ndarray]:
        """Return the items of a column of lists, one after the other, and their number in each row, int64 [N]."""
        try:
            array = self.read(name).combine_chunks()
            lengths = pc.list_value_length(array).fill_null(0).to_numpy().astype(np.int64)
            items = array.flatten()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read column {name!r} of {str(self.path)!r}: {plain_reason(error)}") from error
        return dataclasses.replace(self, read=lambda name: pa.chunked_array([items])).column(name), lengths

    def describe_rows(self, rows: Sequence[int] | np.ndarray) -> str:
        """Return the numbers of at most five rows, as spreadsheets count them; of several files, in the first one."""
        first, end, file = 0, self.num_rows, ""
        if len(self.files) > 1:
            ends = np.cumsum(self.file_rows)
            number = int(np.searchsorted(ends, rows[0], side="right"))
            first, end, file = int(ends[number]) - self.file_rows[number], int(ends[number]), self.files[number]
        shown = [f"{row - first + self.first_row:,}" for row in rows[:5] if first <= row < end]
        numbers = ", ".join(shown) + (", ..." if len(rows) > len(shown) else "")
        return f"{'row' if len(rows) == 1 else 'rows'} {numbers}{f' of {file!r}' if file else ''}"

    def _to_text(self, name: str, value: object) -> str | None:
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="backslashreplace")
        if isinstance(value, float):
            value = None if value != value else int(value) if value.is_integer() else value
        if value is None:
            return None
        if not isinstance(value, str | bool | int | float):
            raise UserError(
                f"column {name!r} of {str(self.path)!r} holds {type(value).__name__}; expected text or numbers"
            )
        text = str(value).strip()
        if len(text) > _MAX_CELL:
            raise UserError(
                f"column {name!r} of {str(self.path)!r} has a cell of {len(text):,} characters; the limit is "
                f"{_MAX_CELL:,}"
            )
        return text if text and text.lower() != "nan" else None


def is_table(path: Path) -> bool:
    """Return True for the path of a table: a CSV, TSV or Parquet file, or a folder of Parquet files."""
    if path.is_dir():
        return bool(list_parquet(path))
    return path.suffix.lower() in (*TEXT_SUFFIXES, PARQUET_SUFFIX)


def read_table(path: Path) -> Table:
    """Return the table of a CSV, TSV or Parquet file, or of a folder of Parquet files.

    Raises:
        UserError: if it cannot be read, is empty, or exceeds a limit.
    """
    try:
        table = _read_text(path) if path.suffix.lower() in TEXT_SUFFIXES and path.is_file() else _read_parquet(path)
    except (pa.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        reason = "not text in UTF-8" if isinstance(error, UnicodeDecodeError) else plain_reason(error)
        raise UserError(f"cannot read {str(path)!r}: {reason}") from error
    if not table.num_rows:
        raise UserError(f"{str(path)!r} has no rows")
    _check_count(path, table.num_rows, "row", _MAX_ROWS)
    _check_count(path, len(table.names), "column", _MAX_COLUMNS)
    if len(set(table.names)) < len(table.names):
        twice = next(name for name in table.names if table.names.count(name) > 1)
        raise UserError(f"{str(path)!r} has two columns {twice!r}; rename one of them")
    return table


def _check_count(path: Path, count: int, noun: str, limit: int) -> None:
    if count > limit:
        raise UserError(f"{str(path)!r} has {counted(count, noun)}; the limit is {limit:,}")


def _read_text(path: Path) -> Table:
    """Read a file of text; all columns are text, because types would turn `001` into 1."""
    with open_regular(path) as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise UserError(f"{str(path)!r} is larger than {_MAX_BYTES:,} bytes; convert it to Parquet")
    content = content.removeprefix(b"\xef\xbb\xbf")  # byte order mark
    delimiter, header = _read_header(content.split(b"\n", 1)[0].decode("utf-8"), path)
    numbered = [str(index) for index in range(len(header))]
    try:
        read = pa.csv.read_csv(
            pa.BufferReader(content),
            read_options=pa.csv.ReadOptions(column_names=numbered, skip_rows=1, block_size=2**24),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(numbered, pa.string())),
        )
    except pa.ArrowInvalid:
        content.decode("utf-8")  # its error is clearer than Arrow's where the encoding is the reason
        raise
    positions = {name: index for index, name in reversed(list(enumerate(header)))}
    return Table(
        path,
        tuple(header),
        dict.fromkeys(header, pa.string()),
        read.num_rows,
        lambda name: read.column(positions[name]),
        first_row=2,
    )


def _read_header(line: str, path: Path) -> tuple[str, list[str]]:
    """Return the delimiter of a file of text, the one that divides its first line most, and the names of the columns.

    Raises:
        UserError: if the first line holds data instead of names.
    """
    line = line.strip("\r\n")
    if "\0" in line:
        raise UserError(f"cannot read {str(path)!r}: not text in UTF-8")
    candidates = ("\t",) if path.suffix.lower() == ".tsv" else _DELIMITERS
    rows = {each: next(csv.reader(io.StringIO(line), delimiter=each, strict=False), []) for each in candidates}
    delimiter = max(rows, key=lambda each: len(rows[each]))
    names = [name.strip() for name in rows[delimiter]]
    if re.search(r"\.(jpe?g|png|bmp|gif|webp)\b", line, re.IGNORECASE):
        raise UserError(
            f"{str(path)!r} begins with data, {line[:80]!r}; the first line must name the columns, such as image,label"
        )
    return delimiter, [name or f"unnamed {index}" for index, name in enumerate(names, 1)]


def _read_parquet(path: Path) -> Table:
    found = [(str(path), "")] if path.is_file() else list_parquet(path)
    if not found:
        raise UserError(f"{str(path)!r} has no Parquet files")
    _check_count(path, len(found), "file", _MAX_FILES)
    footers = {file: _read_footer(file) for file, _ in found}
    check_size(str(path), sum(sum(each.sizes) for each in footers.values()), sum(map(os.path.getsize, footers)))
    schema = footers[found[0][0]].schema
    for file, footer in footers.items():
        names = set(footer.schema.names)
        if missing := [name for name in schema.names if name not in names]:
            raise UserError(f"{file!r} has no column {missing[0]!r}, which {found[0][0]!r} has")
    rows, splits = tuple(each.num_rows for each in footers.values()), tuple(split for _, split in found)
    return Table(
        path,
        tuple(schema.names),
        {name: schema.field(name).type for name in schema.names},
        sum(rows),
        lambda name: _read_column([file for file, _ in found], name),
        files=tuple(footers),
        file_rows=rows,
        file_splits=splits if len(set(splits)) > 1 else ("",) * len(splits),
        class_names=_read_class_names({file: each.schema for file, each in footers.items()}),
    )


class _Footer(NamedTuple):
    """Metadata of a Parquet file.

    Attributes:
        num_rows: number of rows.
        sizes: size in bytes that each group of rows claims.
        schema: columns.
    """

    num_rows: int
    sizes: list[int]
    schema: pa.Schema


def _read_footer(file: str) -> _Footer:
    """Read the metadata of a file, and refuse more rows than it has bytes, or much more content than it can hold."""
    with open_regular(file) as stream:
        size = stream.seek(0, io.SEEK_END)
    with pq.ParquetFile(file, memory_map=True) as reader:  # closed: a process may open few files at once
        metadata, schema = reader.metadata, reader.schema_arrow
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    rows = [group.num_rows for group in groups]
    if (claimed := max(metadata.num_rows, sum(rows))) > size or min(rows, default=0) < 0:
        raise UserError(f"{file!r} claims {claimed:,} rows in {size:,} bytes")
    sizes = [group.total_byte_size for group in groups]
    for claimed in (*sizes, sum(sizes)):  # a negative size would hide others in the sum
        check_size(file, claimed, size)
    return _Footer(metadata.num_rows, sizes, schema)


def check_size(path: str, claimed: int, stored: int) -> None:
    """Refuse a file or folder of much more content than it can hold, both in bytes; see `check_expansion`.

    Raises:
        UserError: if the content is too large.
    """
    try:
        check_expansion(claimed, stored)
    except ValueError as error:
        raise UserError(f"cannot read {path!r}: {error}") from error


def open_column(file: str, name: str, *, nested: bool) -> tuple[pq.ParquetFile, int]:
    """Open a Parquet file to read one column, after a check of its pages; texts and bytes are those of a dictionary.

    A repeated value takes little space in a file, and would take its size for each row in memory.

    Args:
        file: path of the file.
        name: name of the column, or of the field of a struct such as `image.path`.
        nested: use dictionaries in structs and lists, too, of which Arrow then reads one group of rows at a time.

    Returns:
        The file, and the size of the largest page of the column in bytes.

    Raises:
        UserError: see `check_pages`.
    """
    metadata = pq.read_metadata(file, memory_map=True)
    largest = check_pages(file, metadata, name)
    columns = metadata.schema.to_arrow_schema().names
    chunks = list(column_chunks(metadata, name))
    # Arrow does not read this encoding as a dictionary, and it does not repeat values either.
    plain = {leaf.path for leaf, chunk in chunks if "DELTA_LENGTH_BYTE_ARRAY" in chunk.encodings}
    texts = {leaf.path: leaf for leaf, _ in chunks if leaf.physical_type == "BYTE_ARRAY" and leaf.path not in plain}
    encoded = [path for path, leaf in texts.items() if nested or (path in columns and not leaf.max_repetition_level)]
    return pq.ParquetFile(file, metadata=metadata, memory_map=True, read_dictionary=encoded), largest


def _read_column(files: Sequence[str], name: str) -> pa.ChunkedArray:
    """Read a column, or the field of a struct such as `image.path`, of all files; texts are those of a dictionary."""
    parts = []
    for file in files:
        reader, _ = open_column(file, name, nested=True)
        for group in range(reader.num_row_groups):
            column = reader.read_row_group(group, columns=[name]).column(0)
            for field_name in name.split(".")[1:]:
                if pa.types.is_struct(column.type):
                    column = pc.struct_field(column, field_name)
            parts += column.chunks
    types = {part.type.value_type if pa.types.is_dictionary(part.type) else part.type for part in parts}
    if len(types) > 1:
        raise UserError(f"column {name!r} has the types {' and '.join(sorted(map(str, types)))} in different files")
    return pa.chunked_array(parts)


def list_parquet(root: Path) -> list[tuple[str, str]]:
    """Return path and split of the Parquet files in a folder, or in `data/`, or in the folders of splits, in order.

    Hugging Face names files `train-00000-of-00002.parquet`, in `data/` or beside each other, or `train/0000.parquet`.
    """
    folders = [root, root / "data", *(each for each in _visible(root) if each.is_dir() and slices.use_of(each.name))]
    groups = [_list_folder(folder, "" if folder in folders[:2] else folder.name) for folder in folders]
    nested = itertools.chain.from_iterable(groups[2:])
    return groups[0] or groups[1] or list(nested)


def _list_folder(folder: Path, split: str) -> list[tuple[str, str]]:
    found = [path for path in _visible(folder) if path.suffix.lower() == PARQUET_SUFFIX and path.is_file()]
    return [(str(path), split or _split_of(path)) for path in found]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name)) if folder.is_dir() else []


def _split_of(path: Path) -> str:
    """Return the split that the name of a file states, or empty."""
    named = _SHARD.fullmatch(path.stem)
    return named[1] if named else path.stem if slices.use_of(path.stem) else ""


def _item(feature: Any) -> Any:
    """Return the feature of the items of a list, in one of the forms of Hugging Face; other features unchanged."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return feature.get("feature", feature) if isinstance(feature, dict) else feature


def _read_class_names(schemas: Mapping[str, pa.Schema]) -> dict[str, tuple[str, ...]]:
    """Return the names of each `ClassLabel` by column.

    Args:
        schemas: columns of each file by its path.

    Raises:
        UserError: if two files have different names, as an index would be another class in each.
    """
    named = {file: _parse_class_names(schema.metadata or {}, file) for file, schema in schemas.items()}
    first, *others = named
    for key, names in named[first].items():
        for other in others:
            if named[other].get(key, names) != names:
                raise UserError(
                    f"{other!r} has other class names of column {key!r} than {first!r}, so that the same index is "
                    "another class; write both with the same names in the same order"
                )
    return named[first]


def _parse_class_names(metadata: Mapping[bytes, bytes], file: str) -> dict[str, tuple[str, ...]]:
    """Return the names of each `ClassLabel` in the metadata that Hugging Face writes, by column."""
    try:
        info = parse_json(metadata.get(b"huggingface", b"{}"))
        features = info.get("info", {}).get("features", {})
        labels = {key: _item(each) for key, each in features.items()}
        named = {key: each["names"] for key, each in labels.items() if isinstance(each, dict) and "names" in each}
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{file!r} has corrupt metadata of Hugging Face: {plain_reason(error)}") from error
    for key, names in named.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise UserError(f"{file!r} has class names of column {key!r} that are not text: {json.dumps(names)[:80]}")
    return {key: tuple(names) for key, names in named.items()}
