"""The report of a run: one page that needs nothing beside it, and its pictures as PNG files."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib import image as image_writer

from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import ClassMetrics, Evaluation
from resnet_tf.report.plots import draw_panels, draw_summary

PAGE, SUMMARY = "index.html", "summary.png"

_MISTAKES = 24
_PAIRS, _OF_A_PAIR = 8, 4
_SMALLEST_SIDE = 64  # pixels that a picture is shown with at least

# From places in the test split to the pictures there as the network is shown them, each float [H, W, 1 or 3] in [0, 1].
LoadPictures = Callable[[Sequence[int]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Report:
    """What a page is made of.

    Attributes:
        title: network and data.
        evaluation: the test.
        class_names: in label order.
        load_pictures: gives the tested pictures that are shown.
        metrics: the lines of metrics.jsonl; none for a network whose training is not known.
        train_counts: training examples of each class, int [C], if they are known.
        facts: further headline figures, by name, as text.
        config: the resolved configuration, as text.
        environment: what ran it, by name.
    """

    title: str
    evaluation: Evaluation
    class_names: Sequence[str]
    load_pictures: LoadPictures
    metrics: Sequence[dict[str, Any]] = ()
    train_counts: np.ndarray | None = None
    facts: Mapping[str, str] | None = None
    config: str = ""
    environment: Mapping[str, str] | None = None


def write_page(directory: Path, report: Report) -> Path:
    """Write `index.html` and the PNG files of its plots to `directory`, which is made; returns the page's path.

    A run's `summary.png` shows the most of it in one picture.

    Raises:
        UserError: if `directory` cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return _write(directory, report)
    except OSError as error:
        raise UserError(f"cannot write the report to {str(directory)!r}: {error.strerror}") from error


def _write(directory: Path, report: Report) -> Path:
    panels = draw_panels(
        directory,
        metrics=report.metrics,
        evaluation=report.evaluation,
        class_names=report.class_names,
        train_counts=report.train_counts,
    )
    sections = [
        _headline(report),
        _section("Curves and figures", _plots(panels)),
        _section("Most confused pairs", _confused_pairs(report)),
        _section("Most confident mistakes", _mistakes(report)),
        _section("Classes, the least recalled first", _classes(report)),
        _section("Configuration", f"<pre>{html.escape(report.config)}</pre>" if report.config else ""),
        _section("Environment", _table(("", ""), list((report.environment or {}).items()))),
    ]
    if report.metrics:
        _draw_summary(directory / SUMMARY, report)
    staging = directory / f"{PAGE}.writing"
    staging.write_text(_TEMPLATE.substitute(title=html.escape(report.title), body="\n".join(sections)))
    return staging.replace(directory / PAGE)


def _headline(report: Report) -> str:
    figures, last = report.evaluation.to_dict(), report.metrics[-1] if report.metrics else {}
    tiles = {
        "top-1": f"{100 * figures['top1']:.2f} %",
        "top-5": f"{100 * figures['top5']:.2f} %",
        "mean recall of the classes": f"{100 * figures['balanced_accuracy']:.2f} %",
        "loss (nats)": f"{figures['loss']:.4f}",
        "calibration error": f"{100 * figures['calibration_error']:.1f} %",
        "tested pictures": f"{figures['examples']:,}",
        **({"epochs": str(last["epoch"])} if last else {}),
        **(report.facts or {}),
    }
    cells = (f"<div><b>{html.escape(value)}</b>{html.escape(name)}</div>" for name, value in tiles.items())
    return f'<div class="tiles">{"".join(cells)}</div>'


def _draw_summary(path: Path, report: Report) -> None:
    evaluation, names = report.evaluation, report.class_names
    places = evaluation.mistakes(12)
    named = [
        (picture, names[evaluation.targets[place]], names[evaluation.predictions[place]])
        for place, picture in zip(places, report.load_pictures(places), strict=True)
    ]
    draw_summary(
        path,
        title=f"{report.title}: {evaluation}",
        metrics=report.metrics,
        labels=evaluation.targets,
        predictions=evaluation.predictions,
        class_names=names,
        mistakes=named,
    )


def _plots(panels: Mapping[str, Path]) -> str:
    pictures = (_image(path.read_bytes(), alt=name.replace("_", " ")) for name, path in panels.items())
    return f'<div class="plots">{"".join(pictures)}</div>'


def _confused_pairs(report: Report) -> str:
    """Each pair with how often, and examples of it."""
    evaluation, names = report.evaluation, report.class_names
    rows = []
    for true, taken, times in evaluation.confused_pairs(_PAIRS):
        places = evaluation.mistakes(_OF_A_PAIR, true=true, taken=taken)
        heading = f"{names[true]} taken for {names[taken]}: {times} of {np.sum(evaluation.targets == true)}"
        rows.append(f"<h3>{html.escape(heading)}</h3>{_pictures(report, places)}")
    return "".join(rows) or "<p>No class was taken for another.</p>"


def _mistakes(report: Report) -> str:
    places = report.evaluation.mistakes(_MISTAKES)
    return _pictures(report, places) if places else "<p>There are none.</p>"


def _pictures(report: Report, places: Sequence[int]) -> str:
    """Each with what it is, what it was taken for, and the probabilities of both."""
    evaluation, names = report.evaluation, report.class_names
    probabilities = evaluation.probabilities[list(places)]
    figures = []
    for place, picture, row in zip(places, report.load_pictures(places), probabilities, strict=True):
        true, taken = evaluation.targets[place], evaluation.predictions[place]
        lines = (f"{names[true]} {row[true]:.0%}", f"taken for {names[taken]} {row[taken]:.0%}")
        caption = "<br>".join(map(html.escape, lines))
        image = _image(_png(picture), alt=f"picture {place} of the test split")
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="pictures">{"".join(figures)}</div>'


def _classes(report: Report) -> str:
    names, counts = report.class_names, report.train_counts

    def row(each: ClassMetrics) -> tuple[str, ...]:
        trained = "" if counts is None else f"{counts[each.label]:,}"
        precision = "no answer" if np.isnan(each.precision) else f"{each.precision:.4f}"
        taken = f"{names[each.taken]} ({each.times})" if each.times else ""
        return (names[each.label], trained, f"{each.examples:,}", f"{each.recall:.4f}", precision, taken)

    head = ("class", "trained on", "tested on", "recall", "precision", "most often taken for")
    return _table(head, [row(each) for each in report.evaluation.by_class])


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>" if content else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    header = f"<thead><tr>{names}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table>{header}<tbody>{"".join(lines)}</tbody></table></div>'


def _image(png: bytes, *, alt: str) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{html.escape(alt)}">'


def _png(picture: np.ndarray) -> bytes:
    """Small ones are enlarged by whole pixels, so that every browser shows them sharp."""
    times = -(-_SMALLEST_SIDE // min(picture.shape[:2]))
    pixels = np.repeat(np.repeat(picture, times, axis=0), times, axis=1)
    colored = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    file = io.BytesIO()
    image_writer.imsave(file, np.clip(colored, 0.0, 1.0), format="png")
    return file.getvalue()


_TEMPLATE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; color: #222; }
h1, h3, td, figcaption { overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.2rem; border-bottom: 1px solid #ddd; margin-top: 2rem; }
h3 { font-size: 1rem; font-weight: normal; margin: 1rem 0 0.25rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 0.5rem; }
.tiles div { background: #f4f6f8; border-radius: 0.4rem; padding: 0.5rem 0.75rem; font-size: 0.85rem; }
.tiles b { display: block; font-size: 1.25rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
.plots img { width: 100%; }
.pictures { display: flex; flex-wrap: wrap; gap: 0.75rem; }
figure { margin: 0; width: 8rem; }
figure img { width: 8rem; height: 8rem; object-fit: contain; background: #eee; }
figcaption { font-size: 0.75rem; line-height: 1.3; }
.scroll { overflow: auto; max-height: 32rem; }
table { border-collapse: collapse; font-size: 0.9rem; }
th { position: sticky; top: 0; background: #fff; }
th, td { text-align: left; padding: 0.15rem 0.75rem 0.15rem 0; border-bottom: 1px solid #eee; }
pre { overflow: auto; max-height: 24rem; background: #f4f6f8; padding: 0.75rem; font-size: 0.8rem; }
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")
