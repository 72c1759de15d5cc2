"""JSON values are compared with their declared types, and the first mismatch is named."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import pytest

from resnet_tf.core.errors import UserError
from resnet_tf.core.validation import check_types, create, find_mismatch


class _Inner(TypedDict):
    names: list[str]


class _Outer(TypedDict):
    count: int
    inner: _Inner
    fraction: NotRequired[float | None]


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        ("x", str),
        (3, int),
        (3, float),
        (True, bool),
        (None, None | int),
        ({"a": [1]}, dict[str, list[int]]),
        ([1, 2.5], tuple[float, ...]),
        ((1, 2), tuple[int, int]),
        ([1, "a"], Any),
        ({"count": 1, "inner": {"names": []}, "unknown": 7}, _Outer),
        ({"count": 1, "inner": {"names": ["a"]}, "fraction": None}, _Outer),
    ],
)
def test_values_of_their_type_pass(value, declared):
    assert find_mismatch(value, declared, "it") == ""
    check_types(value, declared)


@pytest.mark.parametrize(
    ("value", "declared", "expected"),
    [
        (7, str, "it is an integer, not a string"),
        (True, int, "it is true or false, not an integer"),
        (1, bool, "it is an integer, not true or false"),
        (1.5, int, "it is a number, not an integer"),
        ("1", float, "it is a string, not a number"),
        (None, str, "it is null, not a string"),
        ("x", int | None, "it is a string, not an integer or null"),
        ({"a": [1, "b"]}, dict[str, list[int]], "it.a[1] is a string, not an integer"),
        ([1, 2, 3], tuple[int, int], "it has 3 elements, not 2"),
        ([1, 2.5], tuple[int, int], "it[1] is a number, not an integer"),
        ([], _Outer, "it is a list, not an object"),
        ({"count": 1}, _Outer, "it has no 'inner'"),
        ({"count": 1, "inner": {"names": [None]}}, _Outer, "it.inner.names[0] is null, not a string"),
        ({"count": 1, "inner": {}}, _Outer, "it.inner has no 'names'"),
        (
            {"count": 1, "inner": {"names": []}, "fraction": "x"},
            _Outer,
            "it.fraction is a string, not a number or null",
        ),
    ],
)
def test_the_first_mismatch_is_named(value, declared, expected):
    assert find_mismatch(value, declared, "it") == expected
    with pytest.raises(UserError) as caught:
        check_types(value, declared)
    assert str(caught.value) == expected.removeprefix("it.")


@dataclass(frozen=True)
class _Part:
    name: str
    size: float | None = None


@dataclass(frozen=True)
class _Whole:
    count: int
    parts: tuple[_Part, ...]


def test_a_dataclass_is_created_from_json():
    stored = {"count": 2, "parts": [{"name": "a", "size": 1.5, "new": 7}, {"name": "b", "size": None}], "unknown": 0}
    assert create(_Whole, stored) == _Whole(2, (_Part("a", 1.5), _Part("b")))
    assert create(_Whole, {"count": 0, "parts": []}) == _Whole(0, ())


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([], "it is a list, not an object"),
        ({"count": 1}, "it has no 'parts'"),
        ({"count": 1, "parts": [{"name": "a"}]}, "parts[0] has no 'size'"),  # also fields with a default are required
        ({"count": 1, "parts": [{"name": 3, "size": 1}]}, "parts[0].name is an integer, not a string"),
    ],
)
def test_a_dataclass_is_not_created_from_other_values(stored, expected):
    with pytest.raises(UserError) as caught:
        create(_Whole, stored)
    assert str(caught.value) == expected
