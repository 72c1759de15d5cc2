"""Roles of the columns of a table: set by configuration keys, or found by the usual names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError, closest
from resnet_tf.data.sources import slices
from resnet_tf.data.sources.tables.files import Table
from resnet_tf.inputs import ImagePreprocess

# Usual names, the likeliest first, compared without case, blanks and punctuation.
_IMAGES = (
    *(
        "image",
        "images",
        "img",
        "imagepath",
        "imgpath",
        "imagefile",
        "imgfile",
        "imagefilename",
        "imagename",
        "imgname",
    ),
    *("filename", "filepath", "file", "path", "fname", "photo", "imageid", "imgid", "photoid", "idcode", "id", "uuid"),
)
_LABELS = (
    *(
        "label",
        "labels",
        "class",
        "classes",
        "classname",
        "category",
        "categories",
        "categoryname",
        "target",
        "targets",
    ),
    *("labelname", "species", "breed", "variety", "diagnosis", "dx", "emotion", "tags", "tag", "y", "finelabel"),
    *("classid", "categoryid", "labelid", "landmarkid", "classindex"),
)
_SPLITS = ("split", "subset", "partition", "dataset", "set", "usage", "phase", "fold")
_ZEROS, _ONES = ("0", "0.0", "False", "false"), ("1", "1.0", "True", "true")
_SAMPLE = 100  # rows that are examined for file names
_SHOWN = 8  # names in messages


@dataclass(frozen=True)
class Roles:
    """Columns of a table by their role.

    Attributes:
        image: column of paths, or of encoded images.
        labels: column of labels, or several of 0 and 1.
        split: column of split names; empty if there is none.
        group: column of groups that a division does not tear apart; empty if there is none.
        ignored: all other columns.
    """

    image: str
    labels: tuple[str, ...]
    split: str
    group: str
    ignored: tuple[str, ...]


def choose_roles(table: Table, config: DataConfig) -> Roles:
    """Return the columns that the configuration names, or that have the usual names.

    Raises:
        UserError: if a named column does not exist, or none is found for images or labels.
    """
    image = _check_name(table, "image_column", config.image_column)
    split = _check_name(table, "split_column", config.split_column)
    group = _check_name(table, "group_column", config.group_column)
    labels = parse_names(table, config.label_column)

    def others() -> list[str]:
        return [name for name in table.names if name not in (image, split, group, *labels)]

    image = image or _find_image(table, others())
    split = split or _find_split(table, others())
    labels = labels or _find_labels(table, image, others())
    return Roles(image, labels, split, group, tuple(others()))


def parse_names(table: Table, value: str) -> tuple[str, ...]:
    """Return the columns of `data.label_column`: one, several such as `a,b,c`, or a range such as `a:z`.

    Raises:
        UserError: if a column does not exist.
    """
    if not value or value in table.names:
        return (value,) if value else ()
    found: list[str] = []
    for part in value.split(","):
        first, colon, last = (each.strip() for each in part.partition(":"))
        if colon and first in table.names and last in table.names:
            found += table.names[table.names.index(first) : table.names.index(last) + 1]
        else:
            found.append(_check_name(table, "label_column", part.strip()))
    if not found:
        raise UserError(f"data.label_column={value!r} names no column of {str(table.path)!r}")
    return tuple(dict.fromkeys(found))


def holds_bytes(type_: pa.DataType) -> bool:
    """Return True for a column of encoded images: binary, or a struct of `bytes` and `path` as of Hugging Face."""
    if pa.types.is_struct(type_):
        fields = {field.name: field.type for field in type_}
        return "bytes" in fields and holds_bytes(fields["bytes"])
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def is_list(type_: pa.DataType) -> bool:
    """Return True for a column of lists."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def holds_numbers(type_: pa.DataType) -> bool:
    """Return True for a column of whole or real numbers, or of lists of them."""
    if is_list(type_) or pa.types.is_dictionary(type_):
        return holds_numbers(type_.value_type)
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


def is_indicator(values: Iterable[str | None]) -> bool:
    """Return True for values of 0 and 1, or false and true, without other and missing ones."""
    return set(values) <= {*_ZEROS, *_ONES}


def is_one(value: str | None) -> bool:
    """Return True for a value of `is_indicator` that states that an image has the class."""
    return value in _ONES


def _check_name(table: Table, key: str, name: str) -> str:
    if name and name not in table.names:
        raise UserError(
            f"data.{key}={name!r}: {str(table.path)!r} has no such column; did you mean {closest(name, table.names)}?"
        )
    return name


def _find_image(table: Table, names: list[str]) -> str:
    """Return the column of encoded images, or that of a usual name, or one whose cells end with suffixes of images."""
    encoded = [name for name in names if holds_bytes(table.types[name])]
    plain = [name for name in names if not pa.types.is_nested(table.types[name])]
    for candidates in (encoded, plain):
        if found := _first_usual(candidates, _IMAGES):
            return found
    if len(encoded) == 1:
        return encoded[0]
    paths = [] if encoded else [name for name in plain if _names_images(table, name)]
    if len(paths) == 1:
        return paths[0]
    raise UserError(f"{_describe(table)}: none is known to hold images or their paths; data.image_column names it")


def _names_images(table: Table, name: str) -> bool:
    column = table.column(name)
    values = [value for value in column.values[:_SAMPLE] if value]
    return bool(values) and all(value.lower().endswith(tuple(ImagePreprocess.file_suffixes)) for value in values)


def _find_split(table: Table, names: list[str]) -> str:
    """Return the column of a usual name for splits whose values are usual names of splits; empty without one."""
    for usual in _SPLITS:
        for name in names:
            if _plain(name) == usual and not pa.types.is_nested(table.types[name]):
                values = [value for value in table.column(name).values if value]
                if values and all(map(slices.use_of, values)):
                    return name
    return ""


def _find_labels(table: Table, image: str, names: list[str]) -> tuple[str, ...]:
    """Return the column of labels by its name, or the only one that is left, or all if they are 0 and 1."""
    named = [name for name in names if name in table.class_names]
    found = _first_usual(named, _LABELS) or _first_usual(names, _LABELS)
    if found or len(named) == 1:
        return (found or named[0],)
    if len(names) == 1:
        return (names[0],)
    plain = [name for name in names if not pa.types.is_nested(table.types[name])]
    # Rows without a label, as of a hidden test split, are named when the labels are read.
    present = {name: [value for value in table.column(name).values if value is not None] for name in plain}
    indicators = [name for name, values in present.items() if values and is_indicator(values)]
    if len(indicators) > 1 and indicators == names:
        return tuple(names)
    advice = "data.label_column names it"
    if len(indicators) > 1:
        advice += f", or several of 0 and 1, such as data.label_column={','.join(indicators[:_SHOWN])}"
    raise UserError(f"{_describe(table)}: {image!r} is the image, and none is known to hold labels; {advice}")


def _first_usual(names: list[str], usual: tuple[str, ...]) -> str:
    plain = {_plain(name): name for name in reversed(names)}
    return next((plain[each] for each in usual if each in plain), "")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _describe(table: Table) -> str:
    shown = ", ".join(map(repr, table.names[:_SHOWN])) + (", ..." if len(table.names) > _SHOWN else "")
    return f"{str(table.path)!r} has the columns {shown}"
