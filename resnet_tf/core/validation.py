"""Validation of JSON values against type annotations, for everything that is read from files."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted, printable

_WORDS: dict[Any, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    types.NoneType: "null",
}
_INT64 = 2**63
_SHOWN = 60  # characters of a key in a message

_T = TypeVar("_T")


def check_types(value: Any, declared: Any) -> None:
    """Refuse a JSON value that is not of its declared type, see `find_mismatch`.

    Raises:
        UserError: naming the first part that is not.
    """
    if mismatch := find_mismatch(value, declared, "it"):
        raise UserError(mismatch.removeprefix("it."))


def create(declared: type[_T], value: Any) -> _T:
    """Return an object of a dataclass with the values of a JSON object, whose other keys are ignored.

    Args:
        declared: the dataclass; its fields are of the types of `find_mismatch`.
        value: what `json.loads` returned.

    Raises:
        UserError: naming the first part that is missing or of another type.
    """
    check_types(value, declared)
    return _convert(value, declared)


def _convert(value: Any, declared: Any) -> Any:
    """Return a checked value with tuples and objects of dataclasses where they are declared."""
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        return declared(**{name: _convert(value[name], hint) for name, hint in _fields(declared).items()})
    if typing.get_origin(declared) is tuple:
        item_type, *_ = typing.get_args(declared)
        return tuple(_convert(each, item_type) for each in value)
    return value


def _fields(declared: Any) -> dict[str, Any]:
    """Return the type of each field of a dataclass or a `TypedDict`, by name."""
    hints = typing.get_type_hints(declared)
    if dataclasses.is_dataclass(declared):
        return {each.name: hints[each.name] for each in dataclasses.fields(declared)}
    return hints


def find_mismatch(value: Any, declared: Any, name: str) -> str:
    """Describe the first part of a JSON value that is not of its declared type; empty if all are.

    >>> find_mismatch({"labels": ["cat", 7]}, dict[str, list[str]], "metadata")
    'metadata.labels[1] is an integer, not a string'

    Integers beyond 64 bits, which no array holds, are mismatches as well.

    Args:
        value: what `json.loads` returned.
        declared: `str`, `int`, `float` (which allows integers), `bool`, `None`, `Any`, lists, tuples and string-keyed
            dicts of these, unions, a `TypedDict`, or a dataclass, of which every field is required. Both allow
            unknown keys.
        name: of the value, for the description.
    """
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if declared is Any:
        return ""
    if origin in (typing.Union, types.UnionType):
        mismatches = (find_mismatch(value, each, name) for each in arguments)
        inner = next((mismatch for mismatch in mismatches if not mismatch.startswith(f"{name} ")), None)
        if inner is not None:
            return inner
        return f"{name} is {_word(value)}, not {' or '.join(map(_declared_word, arguments))}"
    if typing.is_typeddict(declared) or dataclasses.is_dataclass(declared):
        return _find_in_object(value, declared, name)
    expected = origin or declared
    if not _is_of(value, expected):
        return f"{name} is {_word(value)}, not {_declared_word(declared)}"
    if expected is dict:
        parts = [(f"{name}.{printable(key[:_SHOWN])}", each, arguments[1]) for key, each in value.items()]
    elif expected in (list, tuple):
        item_types = arguments[:1] * len(value) if expected is list or arguments[1:] == (Ellipsis,) else arguments
        if len(item_types) != len(value):
            return f"{name} has {counted(len(value), 'element')}, not {len(item_types)}"
        parts = [(f"{name}[{index}]", *pair) for index, pair in enumerate(zip(value, item_types, strict=True))]
    else:
        parts = []
    return next((found for part, each, item_type in parts if (found := find_mismatch(each, item_type, part))), "")


def _find_in_object(value: Any, declared: Any, name: str) -> str:
    if not isinstance(value, dict):
        return f"{name} is {_word(value)}, not an object"
    hints = _fields(declared)
    required = declared.__required_keys__ if typing.is_typeddict(declared) else set(hints)
    if missing := sorted(required - set(value)):
        return f"{name} has no {missing[0]!r}"
    found = (find_mismatch(value[key], hint, f"{name}.{key}") for key, hint in hints.items() if key in value)
    return next(filter(None, found), "")


def _is_of(value: Any, expected: Any) -> bool:
    if isinstance(value, bool):
        return expected is bool
    if _is_wide(value):
        return False
    if expected is float:
        return isinstance(value, int | float)
    return isinstance(value, (list, tuple) if expected in (list, tuple) else expected)


def _is_wide(value: Any) -> bool:
    return isinstance(value, int) and not -_INT64 <= value < _INT64


def _word(value: Any) -> str:
    return "an integer beyond 64 bits" if _is_wide(value) else _WORDS.get(type(value), type(value).__name__)


def _declared_word(declared: Any) -> str:
    return _WORDS.get(typing.get_origin(declared) or declared, str(declared))
