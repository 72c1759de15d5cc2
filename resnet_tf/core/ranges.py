"""Ranges of numbers: types and bounds of configuration keys, network options, preprocessing fields and flags."""

import math
from dataclasses import dataclass
from typing import Any

from resnet_tf.core.errors import UserError
from resnet_tf.core.text import printable

# Height and width of images. A float32 image of 16,384 x 16,384 x 3 has fewer than 2**31 values, the number that the
# index of many TensorFlow kernels can count.
MAX_SIZE = 2**14
# Values of one example: the same limit.
MAX_VALUES = 2**31 - 1
# Pixels of an encoded image before it is resized: decoded to RGB, 0.8 GB.
MAX_PIXELS = 2**28
# Classes; a corrupt label would make names for each number below it, and the head of ResNet-50 would exceed 8 GB.
MAX_CLASSES = 2**20
# Examples in a batch, which is one tensor; the largest published ones have 2**16.
MAX_BATCH = 2**20
# Seeds of NumPy and Keras are 32-bit.
MAX_SEED = 2**32 - 1
# Numbers that are squared or inverted in float32, whose range is 1.2e-38 to 3.4e38.
SMALLEST, LARGEST = 1e-18, 1e18
_ROUNDING = 1e-9  # of the difference of two fractions, such as 0.81 - 0.8
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Range:
    """Interval of finite numbers.

    >>> Range(minimum=0, below=1).check("train.ema", 0.999)
    >>> Range(minimum=0, below=1).check("train.ema", 1)
    Traceback (most recent call last):
    ...
    resnet_tf.core.errors.UserError: train.ema must be below 1, got 1

    Attributes:
        minimum: smallest number, or None.
        maximum: largest number, or None.
        above: number that all numbers exceed, or None.
        below: number that all numbers are less than, or None.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def is_finite(self) -> bool:
        """True if the range has exactly one finite bound on either side, or none at all."""
        lower, upper = (
            [each for each in pair if each is not None]
            for pair in ((self.minimum, self.above), (self.maximum, self.below))
        )
        return len(lower) == len(upper) == 1 and math.isfinite(lower[0]) and math.isfinite(upper[0])

    def check(self, name: str, value: float) -> None:
        """Check that a number is in the range.

        Raises:
            UserError: if it is not, stating the bound that is violated.
        """
        # Integers are finite; `math.isfinite` overflows for large ones.
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name} must be a finite number, got {value!r}")
        bounds = (
            ("at least", self.minimum, lambda bound: value >= bound),
            ("above", self.above, lambda bound: value > bound),
            ("at most", self.maximum, lambda bound: value <= bound),
            ("below", self.below, lambda bound: value < bound),
        )
        for words, bound, holds in bounds:
            if bound is not None and not holds(bound):
                raise UserError(f"{name} must be {words} {bound}, got {shorten(value)}")


def is_within(difference: float, limit: float) -> bool:
    """Return True if the difference of two fractions is at most a limit, apart from its rounding error.

    >>> 0.81 - 0.8 <= 0.01, is_within(0.81 - 0.8, 0.01)
    (False, True)
    """
    return difference <= limit + _ROUNDING


def is_integer(value: Any) -> bool:
    """Return True for an `int`; `True` and `False` are none here."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return True for an `int` or a `float`; `True` and `False` are none here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_integer(name: str, value: Any, *, minimum: int, maximum: int) -> None:
    """Check that a value is an `int` in a range.

    Raises:
        UserError: if it is not.
    """
    if not is_integer(value):
        raise UserError(f"{name} takes a whole number, got {shorten(value)}")
    Range(minimum=minimum, maximum=maximum).check(name, value)


def check_number(name: str, value: Any, valid: Range) -> None:
    """Check that a value is an `int` or a `float` in a range.

    Raises:
        UserError: if it is not.
    """
    if not is_number(value):
        raise UserError(f"{name} takes a number, got {shorten(value)}")
    valid.check(name, value)


def shorten(value: Any) -> str:
    """Return the `repr` of a value for a message, without control characters, cut after 60 characters."""
    try:
        text = printable(repr(value))
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return f"{type(value).__name__} of more digits than Python prints"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
