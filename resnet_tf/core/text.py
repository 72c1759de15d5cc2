"""Text that comes with data, weights or an export: safe to show on terminals, in plots and in Markdown."""

import html
import os
import re
import unicodedata

# Unicode categories: control characters, lone surrogates (undecodable bytes of a file name), line and paragraph breaks.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# Bidirectional embeddings, overrides and isolates, which reorder the text around them (Unicode Standard Annex 9).
_REORDERING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
# Characters that Markdown interprets within a line. `<`, `>` and `&` are escaped as HTML, and an underscore within a
# word is literal anyway.
_MARKDOWN = re.compile(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w))")


def printable(text: str) -> str:
    r"""Return `text` with escapes for what a terminal would interpret, or could not show.

    These are control characters, line breaks, characters that reorder text, and bytes of a file name that are not
    UTF-8.

    >>> print(printable("cat\x1b[2J\udcff"))
    cat\x1b[2J\xff
    """
    return "".join(escape(_to_byte(each)) if _is_unprintable(each) else each for each in text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1.

    >>> counted(1, "epoch"), counted(1200, "unreadable class"), counted(2, "directory")
    ('1 epoch', '1,200 unreadable classes', '2 directories')
    """
    if number != 1:
        noun = re.sub(r"(?<=[^aeiou])y$", "ie", noun) + ("es" if noun.endswith(("s", "x", "tch", "sh")) else "s")
    return f"{number:,} {noun}"


def short_number(number: float) -> str:
    """Return a positive number with three digits, and those of thousands with commas.

    >>> [short_number(each) for each in (0.01234, 1.5, 12.345, 999.9, 12345.6)]
    ['0.0123', '1.50', '12.3', '1,000', '12,346']
    """
    if number >= 999.5:  # with three digits 1000
        return f"{number:,.0f}"
    return f"{number:#.3g}".rstrip(".")


def shows_top5(classes: int) -> bool:
    """Return False for up to five classes, of which the top-5 accuracy is always 1: texts for people leave it out."""
    return classes > 5


def shortened(text: str, length: int) -> str:
    """Return `printable(text)` in at most `length` characters, the last one an ellipsis if it is cut.

    >>> shortened("hummingbird", 8)
    'humming…'
    """
    text = printable(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def markdown(text: str) -> str:
    r"""Return `text` as literal text within a line of Markdown.

    >>> print(markdown("a|b <i>"))
    a\|b &lt;i&gt;
    """
    return _MARKDOWN.sub(r"\\\1", html.escape(printable(text), quote=False))


def markdown_code(text: str) -> str:
    """Return `text` as a code span of Markdown.

    >>> print(markdown_code("train[:90%]"))
    `train[:90%]`
    """
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def from_file_name(name: str) -> str:
    r"""Return the name of a file or folder as text, the same in every locale: UTF-8, with escapes for other bytes.

    >>> print(from_file_name("\udce9t\udce9"))
    \xe9t\xe9
    """
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _is_unprintable(character: str) -> bool:
    return unicodedata.category(character) in _UNPRINTABLE or character in _REORDERING


def escape(character: str) -> str:
    """Return a character as its code, in the notation of Python strings."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _to_byte(character: str) -> str:
    """Return a lone surrogate that stands for an undecodable byte as the character of that byte, see PEP 383."""
    return chr(ord(character) - 0xDC00) if "\udc80" <= character <= "\udcff" else character
