"""Fonts of names from data in plots."""

import functools
from collections.abc import Iterable
from typing import Any

from matplotlib import font_manager
from matplotlib.axes import Axes

_DEFAULT = "sans-serif"
_PLACEHOLDERS = "Last Resort"  # a font of matplotlib that shows the Unicode block of a character in place of it


def literal(*texts: str) -> dict[str, Any]:
    """Return properties of a matplotlib text that show names as they are.

    A `$` starts no formula. Characters that matplotlib's own font lacks, such as Chinese ones, are taken from the first
    installed fonts that have them; characters of no installed font are shown as boxes.
    """
    return {"parse_math": False, "fontfamily": [_DEFAULT, *_fallbacks(frozenset("".join(texts)))]}


def add_literal_legend(axes: Axes, **settings: Any) -> None:
    """Add a legend whose labels hold names from data; see `literal`."""
    for text in axes.legend(**settings).get_texts():
        text.set(**literal(text.get_text()))


@functools.lru_cache(maxsize=256)
def _fallbacks(characters: frozenset[str]) -> tuple[str, ...]:
    """Return families of installed fonts that together have as many as possible of the missing characters."""
    missing = {ord(each) for each in characters if not each.isspace()}
    missing -= _code_points(font_manager.findfont(font_manager.FontProperties(family=[_DEFAULT])))
    families = []
    for font in _upright_fonts() if missing else ():
        if found := missing & _code_points(font.fname):
            families.append(font.name)
            missing -= found
        if not missing:
            break
    return tuple(families)


def _upright_fonts() -> Iterable[font_manager.FontEntry]:
    """Return the installed fonts of normal style, those of normal weight first, in the order of their names."""
    fonts = (font for font in font_manager.fontManager.ttflist if font.style == font.variant == "normal")
    return sorted(
        (font for font in fonts if not font.name.startswith(_PLACEHOLDERS)),
        key=lambda font: (abs(_weight(font.weight) - 400), font.name),
    )


def _weight(weight: str | int) -> int:
    return weight if isinstance(weight, int) else font_manager.weight_dict.get(weight, 400)


@functools.cache
def _code_points(file: str) -> frozenset[int]:
    """Return the code points of the characters in a font; none if its file is missing or corrupt."""
    try:
        return frozenset(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
