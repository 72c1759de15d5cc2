"""HTML elements of pages: sections, tables, tiles and embedded images, with all text escaped."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
from matplotlib import image as image_writer

from resnet_tf.core.text import printable

PAGE = "index.html"

_SMALL_IMAGE = 64  # pixels; a browser enlarges smaller images without smoothing


def document(title: str, sections: Iterable[str]) -> str:
    """Return a self-contained page with a title and sections."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body="\n".join(sections))


def section(title: str, content: str) -> str:
    """Return a section with a heading, or an empty text if it has no content."""
    return f"<section><h2>{title}</h2>\n{content}\n</section>" if content else ""


def tiles(facts: Mapping[str, str]) -> str:
    """Return headline values: name -> value."""
    cells = (f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in facts.items())
    return f'<div class="tiles">{"".join(cells)}</div>'


def plots(panels: Mapping[str, Path]) -> str:
    """Return a grid of plots: name -> PNG file."""
    images = (_png_element(path.read_bytes(), alt=name.replace("_", " ")) for name, path in panels.items())
    return f'<div class="plots">{"".join(images)}</div>'


def table(rows: Iterable[str], *, head: str = "") -> str:
    """Return a table of `row` elements that scrolls if it is long."""
    return f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def pairs(entries: Mapping[str, object]) -> str:
    """Return a table of names and values, or an empty text if there are none."""
    rows = [row(cell(name, "name"), cell(str(value))) for name, value in entries.items()]
    return table(rows) if rows else ""


def head(columns: Sequence[str], *, numbers: Iterable[str] = ()) -> str:
    """Return the head of a table; the columns in `numbers` are aligned to the right."""
    right = set(numbers)
    cells = (f'<th class="number">{name}</th>' if name in right else f"<th>{name}</th>" for name in columns)
    return f"<thead>{row(*cells)}</thead>"


def row(*cells: str) -> str:
    """Return a row of a table."""
    return f"<tr>{''.join(cells)}</tr>"


def cell(text: str, css_class: str = "") -> str:
    """Return a cell of a table."""
    attribute = f' class="{css_class}"' if css_class else ""
    return f"<td{attribute}>{escape(text)}</td>"


def figure(image: np.ndarray, lines: Sequence[str], *, alt: str) -> str:
    """Return an image, float [H, W, 1 or 3] in [0, 1], above a caption of several lines."""
    small = min(image.shape[:2]) < _SMALL_IMAGE
    element = _png_element(_png(image), alt=alt, small=small)
    return f"<figure>{element}<figcaption>{'<br>'.join(map(escape, lines))}</figcaption></figure>"


def gallery(elements: Iterable[str]) -> str:
    """Return a grid of `figure` elements."""
    return f'<div class="images">{"".join(elements)}</div>'


def escape(text: str) -> str:
    """Escape text for HTML; replace control characters except line feeds."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))


def _png_element(png: bytes, *, alt: str, small: bool = False) -> str:
    attribute = ' class="small"' if small else ""
    return f'<img{attribute} src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{escape(alt)}">'


def _png(image: np.ndarray) -> bytes:
    colored = np.broadcast_to(image, (*image.shape[:2], 3))
    file = io.BytesIO()
    image_writer.imsave(file, np.clip(colored, 0.0, 1.0), format="png", origin="upper")
    return file.getvalue()
