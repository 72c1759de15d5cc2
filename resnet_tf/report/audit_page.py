"""Page of an audit of a data set, `index.html`: distributions of classes and sizes, and findings with their images."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from resnet_tf.core import files
from resnet_tf.core.text import shortened
from resnet_tf.report import elements
from resnet_tf.report.elements import PAGE, cell, escape, row, section
from resnet_tf.report.fonts import add_literal_legend, literal
from resnet_tf.report.plots import save_panel

MAX_CARDS = 24  # of a list
_MAX_IMAGES = 4  # of a card
_MAX_BARS = 20  # classes in a plot
_MAX_LABEL = 18  # characters of a name in a plot
_MAX_TEXT = 160  # characters of a path in a caption, from its end

# Maps the index of an example to a decoded image, float [H, W, 1 or 3] in [0, 1], or None if it cannot be read.
LoadImage = Callable[[int], np.ndarray | None]


@dataclass(frozen=True)
class Card:
    """One finding.

    Attributes:
        reason: description of the finding.
        score: certainty or severity in [0, 1].
        captions: index of each of its examples -> lines of text.
        paths: locations without an example.
    """

    reason: str
    score: float
    captions: Mapping[int, Sequence[str]]
    paths: Sequence[str] = ()


@dataclass(frozen=True)
class Panel:
    """A list of findings.

    Attributes:
        title: heading.
        text: description of the list.
        total: number of findings.
        cards: the first findings.
    """

    title: str
    text: str
    total: int
    cards: Sequence[Card]


@dataclass(frozen=True)
class Distribution:
    """Distribution of the examples of one split.

    Attributes:
        name: name of the split.
        counts: number of examples of each class, int [C].
        sizes: (height, width) of the readable images in pixels, int [n, 2].
    """

    name: str
    counts: np.ndarray
    sizes: np.ndarray


def write_audit(
    directory: Path,
    *,
    name: str,
    class_names: Sequence[str],
    distributions: Sequence[Distribution],
    panels: Sequence[Panel],
    notes: Sequence[str],
    load_image: LoadImage,
    environment: Mapping[str, str],
) -> Path:
    """Write the page to `directory`, and return its path. It is one file: an image beside it could be taken for data.

    Args:
        directory: where the page is written; a missing one is created.
        name: name of the data set.
        class_names: names of the classes.
        distributions: of each split.
        panels: lists of findings.
        notes: checks that were left out, and properties of the data set as a whole.
        load_image: loads an image by an index of `Card.captions`.
        environment: versions and hardware: name -> text.

    Raises:
        UserError: if `directory` cannot be written.
    """
    sections = [
        _headline(distributions, panels, len(class_names)),
        section("Notes", "".join(f"<p>{escape(note)}.</p>" for note in notes)),
        *(section(escape(panel.title), _panel(panel, load_image)) for panel in panels),
        section("Classes and sizes", _plots(distributions, class_names) + _classes(distributions, class_names)),
        section("Environment", elements.pairs(environment)),
    ]
    with files.translate_write_errors(directory / PAGE), files.atomic_files(directory) as staging:
        (staging / PAGE).write_text(elements.document(f"Audit of {name}", sections), encoding="utf-8")
    return directory / PAGE


def _headline(distributions: Sequence[Distribution], panels: Sequence[Panel], classes: int) -> str:
    splits = ", ".join(f"{each.name} {len(each.sizes):,}" for each in distributions)
    facts = {"readable images": splits, "classes": f"{classes:,}"}
    return elements.tiles(facts | {panel.title.lower(): f"{panel.total:,}" for panel in panels})


def _panel(panel: Panel, load_image: LoadImage) -> str:
    """Return the first findings of a list, those of one image in a grid, those of several in groups."""
    cards = panel.cards[:MAX_CARDS]
    if not cards:
        return "<p>None.</p>"
    count = (
        f"{len(cards):,} of {panel.total:,}, the others are in the result of --json" if panel.total > len(cards) else ""
    )
    text = f"<p>{escape(panel.text)} {escape(count + '.' if count else '')}</p>"
    loaded = [(card, {index: load_image(index) for index in list(card.captions)[:_MAX_IMAGES]}) for card in cards]
    missing = [card for card, found in loaded if any(image is None for image in found.values()) or not found]
    rows = (row(cell(path), cell(card.reason)) for card in missing for path in _paths(card))
    table = elements.table(rows, head=elements.head(["file", "reason"])) if missing else ""
    pictured = [(card, found) for card, found in loaded if found and not any(each is None for each in found.values())]
    if any(len(card.captions) > 1 for card, _ in pictured):
        content = f'<div class="pairs">{"".join(_group(card, found) for card, found in pictured)}</div>'
    else:
        content = elements.gallery(
            _figure(index, image, [f"{card.reason} ({card.score:.2f})", *card.captions[index]])
            for card, found in pictured
            for index, image in found.items()
        )
    return text + table + content


def _paths(card: Card) -> list[str]:
    return [*card.paths, *(lines[0] for lines in card.captions.values())]


def _group(card: Card, images: Mapping[int, np.ndarray | None]) -> str:
    shown = [_figure(index, image, card.captions[index]) for index, image in images.items()]
    more = len(card.captions) - len(images)
    heading = f"{card.reason}, score {card.score:.2f}{f'; {more:,} more' if more else ''}"
    return f'<div class="pair"><h3>{escape(heading)}</h3>{elements.gallery(shown)}</div>'


def _figure(index: int, image: np.ndarray | None, lines: Sequence[str]) -> str:
    assert image is not None
    cut = [line if len(line) <= _MAX_TEXT else f"…{line[1 - _MAX_TEXT :]}" for line in lines]
    return elements.figure(image, cut, alt=f"image {index} of the data set")


def _classes(distributions: Sequence[Distribution], class_names: Sequence[str]) -> str:
    """Return a table of class counts by split, and of the smallest, median and largest size."""
    rows = [
        row(cell(name), *(cell(f"{each.counts[label]:,}", "number") for each in distributions))
        for label, name in enumerate(class_names)
    ]
    sizes = row(
        cell("height x width: smallest, median, largest"), *(cell(_sizes(each), "number") for each in distributions)
    )
    names = [escape(each.name) for each in distributions]
    return elements.table([sizes, *rows], head=elements.head(["class", *names], numbers=names))


def _sizes(each: Distribution) -> str:
    if not len(each.sizes):
        return "unknown"
    quantiles = np.quantile(each.sizes, [0, 0.5, 1], axis=0).astype(int).tolist()
    return ", ".join(dict.fromkeys(f"{height}x{width}" for height, width in quantiles))


def _plots(distributions: Sequence[Distribution], class_names: Sequence[str]) -> str:
    plots: dict[str, Callable[[Axes], None]] = {"classes": lambda axes: _plot_classes(axes, distributions, class_names)}
    sizes = np.concatenate([each.sizes for each in distributions])
    if len(np.unique(sizes, axis=0)) > 1:
        plots["sizes"] = lambda axes: _plot_sizes(axes, distributions)
    with tempfile.TemporaryDirectory(prefix="resnet_tf-") as temporary:
        saved = {name: save_panel(Path(temporary) / f"{name}.png", plot, height=3.4) for name, plot in plots.items()}
        return elements.plots(saved)


def _plot_classes(axes: Axes, distributions: Sequence[Distribution], class_names: Sequence[str]) -> None:
    """Plot the fraction of each class in each split: of the most frequent classes, and of the rarest."""
    order = np.argsort(-sum(each.counts for each in distributions), kind="stable")
    chosen = order if len(order) <= _MAX_BARS else np.concatenate([order[: _MAX_BARS // 2], order[-_MAX_BARS // 2 :]])
    positions, height = np.arange(len(chosen)), 0.8 / len(distributions)
    for number, each in enumerate(distributions):
        fractions = 100 * each.counts[chosen] / max(each.counts.sum(), 1)
        axes.barh(positions + number * height, fractions, height, label=shortened(each.name, _MAX_LABEL))
    labels = [shortened(class_names[label], _MAX_LABEL) for label in chosen]
    axes.set_yticks(positions + 0.4 - height / 2, labels, fontsize=8, **literal(*labels))
    axes.invert_yaxis()
    axes.set(title="classes of each split", xlabel="% of the split")
    add_literal_legend(axes, fontsize=8)
    axes.grid(alpha=0.3, axis="x")


def _plot_sizes(axes: Axes, distributions: Sequence[Distribution]) -> None:
    for each in distributions:
        axes.plot(
            each.sizes[:, 1], each.sizes[:, 0], ".", markersize=3, alpha=0.5, label=shortened(each.name, _MAX_LABEL)
        )
    axes.set(title="sizes of the images", xlabel="width (pixels)", ylabel="height (pixels)", xscale="log", yscale="log")
    add_literal_legend(axes, fontsize=8)
    axes.grid(alpha=0.3)
