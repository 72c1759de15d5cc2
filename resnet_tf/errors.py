"""Exceptions that the commands turn into a line and an exit code."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user's: one line that names what was wrong and what would be right.

    The commands print the line and exit with code 2; from Python it is an ordinary `ValueError`.
    """


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """A run was asked to stop, and saved where it was; the commands exit with code 75, as sysexits.h's EX_TEMPFAIL."""


def closest(name: str, choices: Iterable[str], *, count: int = 3) -> str:
    """The `choices` that look most like `name`, or all of them where none does, ready for an error message."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=count, cutoff=0.5) or choices
    return ", ".join(repr(choice) for choice in near)
