"""Validation of JSON values against type annotations, for everything that is read from files."""

import types
import typing
from typing import Any

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


def check_types(value: Any, declared: Any) -> None:
    """Refuse a JSON value that is not of its declared type, see `find_mismatch`.

    Raises:
        UserError: naming the first part that is not.
    """
    if mismatch := find_mismatch(value, declared, "it"):
        raise UserError(mismatch.removeprefix("it."))


def find_mismatch(value: Any, declared: Any, name: str) -> str:
    """Describe the first part of a JSON value that is not of its declared type; empty if all are.

    >>> find_mismatch({"labels": ["cat", 7]}, dict[str, list[str]], "metadata")
    'metadata.labels[1] is an integer, not a string'

    Integers beyond 64 bits, which no array holds, are mismatches as well.

    Args:
        value: what `json.loads` returned.
        declared: `str`, `int`, `float` (which allows integers), `bool`, `None`, `Any`, lists, tuples and string-keyed
            dicts of these, unions, or a `TypedDict`, whose unknown keys are allowed.
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
    if typing.is_typeddict(declared):
        return _find_in_typed_dict(value, declared, name)
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


def _find_in_typed_dict(value: Any, declared: Any, name: str) -> str:
    if not isinstance(value, dict):
        return f"{name} is {_word(value)}, not an object"
    if missing := sorted(declared.__required_keys__ - set(value)):
        return f"{name} has no {missing[0]!r}"
    hints = typing.get_type_hints(declared)
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
