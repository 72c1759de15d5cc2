"""Sizes of the pages of a Parquet file, from their headers: its footer may claim less than a reader decompresses.

Reference: `parquet.thrift` of Apache Parquet (`PageHeader`), in the compact protocol of Apache Thrift.
"""

import mmap
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from resnet_tf.core.bounded import check_expansion, open_regular
from resnet_tf.core.errors import UserError

_VALUE_BYTES = 8  # of a number, or of the position of a text, in memory
_MAX_DEPTH = 8  # of structs in a header, which have a depth of 3
# Types of the compact protocol.
_STOP, _TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, (4, 5, 6), 7, 8, 12
# Fields of a page header. Those of each type of data page, and of a dictionary, begin with the number of values.
_UNCOMPRESSED, _COMPRESSED, _WITH_VALUES, _NUM_VALUES = 2, 3, (5, 7, 8), 1
_ENCODINGS = {5: 2, 8: 4}  # field of the encoding in each type of data page
_DELTA_BYTE_ARRAY = 7  # a text as the length of its beginning in the text before and its end


class _Page(NamedTuple):
    size: int  # uncompressed bytes
    num_values: int
    encoding: int | None  # of the values; None for a dictionary
    end: int  # offset of the next header


def check_pages(file: str, metadata: pq.FileMetaData, name: str) -> int:
    """Refuse a column that would take up much more memory than its file holds, before it is decompressed.

    Args:
        file: path of a Parquet file.
        metadata: its footer.
        name: name of the column, or of the field of a struct such as `image.path`.

    Returns:
        Size of the largest page in bytes.

    Raises:
        UserError: if the column is larger, see `check_expansion`, or a header is corrupt.
    """
    pages: list[_Page] = []
    claimed = 0
    try:
        with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for leaf, chunk in column_chunks(metadata, name):
                found = _read_pages(content, chunk)
                if any(page.encoding == _DELTA_BYTE_ARRAY for page in found):
                    raise ValueError(
                        "values in the encoding DELTA_BYTE_ARRAY, which may take any size in memory, are not read; "
                        "expected another encoding, such as PLAIN"
                    )
                claimed += sum(page.size + max(leaf.length, _VALUE_BYTES) * page.num_values for page in found)
                pages += found
            check_expansion(claimed, len(content))
    except (ValueError, IndexError, KeyError) as error:
        reason = str(error) if isinstance(error, ValueError) else "corrupt page header"
        raise UserError(f"cannot read column {name!r} of {file!r}: {reason}") from error
    return max((page.size for page in pages), default=0)


def column_chunks(metadata: pq.FileMetaData, name: str) -> Iterator[tuple[pq.ColumnSchema, pq.ColumnChunkMetaData]]:
    """Yield the chunks of a column in all groups of rows; those of `labels.list.element` belong to `labels`."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for index in range(group.num_columns):
            leaf = metadata.schema.column(index)
            if f"{leaf.path}.".startswith(f"{name}."):
                yield leaf, group.column(index)


def _read_pages(content: mmap.mmap, chunk: pq.ColumnChunkMetaData) -> list[_Page]:
    """Return the pages of a column in one group of rows."""
    starts = [chunk.data_page_offset, *([chunk.dictionary_page_offset] if chunk.has_dictionary_page else [])]
    position = min(filter(None, starts), default=0)
    if not position:
        raise ValueError("a column has no position")
    end, pages = position + chunk.total_compressed_size, []
    while position < end:
        pages.append(_read_page(content, position))
        position = pages[-1].end
    return pages


def _read_page(content: mmap.mmap, position: int) -> _Page:
    fields, position = _read_struct(content, position, 0)
    num_values = max((fields[each][_NUM_VALUES] for each in _WITH_VALUES if each in fields), default=0)
    if min(fields[_UNCOMPRESSED], fields[_COMPRESSED], num_values) < 0:
        raise ValueError("a page claims a negative size")
    encodings = [fields[each][number] for each, number in _ENCODINGS.items() if each in fields]
    encoding = encodings[0] if encodings else None
    return _Page(fields[_UNCOMPRESSED], num_values, encoding, position + fields[_COMPRESSED])


def _read_struct(content: mmap.mmap, position: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the integers and structs in a struct by the numbers of their fields, and the offset of its end."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := content[position]) != _STOP:
        position += 1
        step, type_ = head >> 4, head & 15
        if step:
            number += step
        else:
            number, position = _read_integer(content, position)
        if type_ == _STRUCT and depth < _MAX_DEPTH:
            fields[number], position = _read_struct(content, position, depth + 1)
        elif type_ in _INTEGERS:
            fields[number], position = _read_integer(content, position)
        elif type_ == _BINARY:
            length, position = _read_varint(content, position)
            position += length
        elif type_ in (_TRUE, _FALSE, _BYTE, _DOUBLE):
            position += {_BYTE: 1, _DOUBLE: 8}.get(type_, 0)
        else:
            raise ValueError("corrupt page header")
    return fields, position + 1


def _read_integer(content: mmap.mmap, position: int) -> tuple[int, int]:
    """Return a signed integer in zigzag encoding, and the offset of its end."""
    value, position = _read_varint(content, position)
    return (value >> 1) ^ -(value & 1), position


def _read_varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("corrupt page header")
