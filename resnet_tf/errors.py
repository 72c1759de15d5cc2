"""The one exception for mistakes that the user can mend."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user's: one line that names what was wrong and what would be right.

    The commands print the line and exit with code 2; from Python it is an ordinary `ValueError`.
    """


def closest(name: str, choices: Iterable[str], *, count: int = 3) -> str:
    """The `choices` that look most like `name`, or all of them where none does, ready for an error message."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=count, cutoff=0.5) or choices
    return ", ".join(repr(choice) for choice in near)
