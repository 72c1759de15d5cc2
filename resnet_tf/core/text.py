"""Text that comes with data, weights or an export: safe to show."""

import unicodedata

# Unicode categories: control characters, lone surrogates (undecodable bytes of a file name), line and paragraph breaks.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""Return `text` with control characters, line breaks and lone surrogates replaced by U+FFFD.

    >>> printable("cat\x1b[2J\udcff")
    'cat�[2J�'
    """
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(each) in _UNPRINTABLE else each for each in text)
