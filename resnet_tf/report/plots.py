"""Plots of a run: training curves, confusion matrix, calibration, metrics per class, and images."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from resnet_tf.core import files
from resnet_tf.core.calibration_check import CalibrationCheck
from resnet_tf.core.metrics import Evaluation, SingleLabelEvaluation
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation, precision_recall_curve
from resnet_tf.core.text import printable, shortened
from resnet_tf.report.fonts import add_literal_legend, literal

Metrics = Sequence[dict[str, Any]]

SUMMARY_IMAGES = 12

# Settings of the user's own plots, such as LaTeX or a dark style, do not apply to those of the package.
default_style = style.context("default")

_MAX_NAMED_CLASSES = 20
_MAX_CELLS = 1000  # rows of a confusion matrix, more than its pixels; of more classes, neighbors have one together
_MAX_TICK_LABEL = 18  # characters
_MAX_IMAGE_LABEL = 14
_MAX_CURVES = 10  # with a name
_PANEL_WIDTH = 3.9  # inches
_PANEL_DPI = 200  # the report displays a panel at about half of its resolution
_BAR_COLOR = "tab:blue"


@default_style
def plot_summary(
    path: Path,
    *,
    title: str,
    metrics: Metrics,
    evaluation: Evaluation,
    class_names: Sequence[str],
    errors: Sequence[tuple[np.ndarray, str, str]],
) -> Path:
    """Plot loss and error curves, confusion matrix and misclassified images in one PNG file.

    Args:
        path: file to write; a missing directory is created.
        title: one line above the plots.
        metrics: records of metrics.jsonl.
        evaluation: labels and logits of the evaluated split.
        class_names: names of the classes in label order.
        errors: (image float [H, W, 1 or 3] in [0, 1], true class, predicted class); the first `SUMMARY_IMAGES` are
            plotted.

    Returns:
        `path`.

    Raises:
        UserError: if `path` cannot be written.
    """
    figure = Figure(figsize=(13, 7.2 if errors else 5), layout="constrained")
    figure.suptitle(printable(title), **literal(title))
    grid = figure.add_gridspec(2 if errors else 1, 1, height_ratios=[2.2, 1] if errors else [1])
    loss, error, confusion = figure.add_subfigure(grid[0]).subplots(1, 3)
    _plot_loss(loss, metrics)
    _plot_error(error, metrics)
    main, *_ = evaluation_panels(evaluation, class_names).values()
    main(confusion)
    if errors:
        _plot_errors(figure.add_subfigure(grid[1]), errors[:SUMMARY_IMAGES])
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_figure(figure, path)


def plot_panels(
    directory: Path,
    *,
    metrics: Metrics,
    evaluation: Evaluation,
    class_names: Sequence[str],
    train_counts: np.ndarray | None,
    calibration: CalibrationCheck | None = None,
) -> dict[str, Path]:
    """Save each plot of a report as `directory/NAME.png`.

    Args:
        directory: directory of the files; a missing one is created.
        metrics: records of metrics.jsonl; if empty, training curves are omitted.
        evaluation: labels and logits of the evaluated split.
        class_names: names of the classes in label order.
        train_counts: training examples per class, int [C], or None if unknown.
        calibration: probabilities before and after calibration; None without calibration.

    Returns:
        Name of the plot -> file, in reading order.

    Raises:
        UserError: if a file cannot be written.
    """
    panels: dict[str, Callable[[Axes], None]] = {}
    if metrics:
        panels["loss"] = lambda axes: _plot_loss(axes, metrics)
        panels["error"] = lambda axes: _plot_error(axes, metrics)
        panels["learning_rate"] = lambda axes: _plot_series(axes, metrics, "learning_rate", "learning rate")
    panels |= evaluation_panels(evaluation, class_names, calibration)
    if train_counts is not None:
        panels["train_counts"] = lambda axes: _plot_train_counts(axes, train_counts, class_names)
    if metrics:
        panels["speed"] = lambda axes: _plot_series(axes, metrics, "images_per_second", "training speed (examples/s)")
    return {name: save_panel(directory / f"{name}.png", plot) for name, plot in panels.items()}


def evaluation_panels(
    evaluation: Evaluation, class_names: Sequence[str], calibration: CalibrationCheck | None = None
) -> dict[str, Callable[[Axes], None]]:
    """Return the plots of an evaluation by name, the main one first; those of confidence with its calibration."""
    before = None if calibration is None else calibration.before
    after = evaluation if calibration is None else calibration.after
    if isinstance(evaluation, MultiLabelEvaluation):
        return {
            "precision_recall": lambda axes: _plot_precision_recall(axes, evaluation, class_names),
            "average_precision": lambda axes: _plot_average_precision(axes, evaluation, class_names),
            "calibration": lambda axes: _plot_calibration(axes, after, before),
            "co_occurrence": lambda axes: _plot_co_occurrence(axes, evaluation, class_names),
        }
    assert isinstance(evaluation, SingleLabelEvaluation)
    return {
        "confusion": lambda axes: _plot_confusion(axes, evaluation, class_names),
        "calibration": lambda axes: _plot_calibration(axes, after, before),
        "confidence": lambda axes: _plot_confidence(axes, after),
        "recall": lambda axes: _plot_recall(axes, evaluation, class_names),
    }


@default_style
def plot_evaluation(evaluation: Evaluation, class_names: Sequence[str]) -> np.ndarray:
    """Plot a confusion matrix, or precision-recall curves of multi-label targets, as an RGBA image, uint8 [H, W, 4].

    Args:
        evaluation: labels and logits of the evaluated split.
        class_names: names of the classes in label order.
    """
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    main, *_ = evaluation_panels(evaluation, class_names).values()
    main(figure.subplots())
    with _missing_glyphs_allowed():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@default_style
def plot_grid(path: Path, *, title: str, images: Sequence[tuple[np.ndarray, str]]) -> Path:
    """Plot images in rows of eight, each under its label, in one PNG file.

    Args:
        path: file to write.
        title: one line above the images.
        images: (image uint8 [H, W, 1 or 3], label of one or more lines).

    Returns:
        `path`.

    Raises:
        UserError: if `path` cannot be written.
    """
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows + 0.5), layout="constrained")
    figure.suptitle(printable(title), **literal(title))
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, (image, label) in zip(figure.axes, images, strict=False):
        axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
        lines = [shortened(line, _MAX_TICK_LABEL) for line in label.split("\n")]
        axes.set_title("\n".join(lines), fontsize=8, **literal(*lines))
    return save_figure(figure, path)


@default_style
def save_panel(path: Path, plot: Callable[[Axes], None], *, height: float = 3.1) -> Path:
    """Write one plot of a page, with a height in inches, and return `path`.

    Raises:
        UserError: if `path` cannot be written.
    """
    figure = Figure(figsize=(_PANEL_WIDTH, height), layout="constrained")
    plot(figure.subplots())
    return save_figure(figure, path, dpi=_PANEL_DPI)


def save_figure(figure: Figure, path: Path, *, dpi: int = 100) -> Path:
    """Write a figure atomically in the format of the file suffix; a missing directory is created.

    Raises:
        UserError: if `path` cannot be written.
    """
    with _missing_glyphs_allowed(), files.translate_write_errors(path), files.atomic_file(path) as staging:
        figure.savefig(staging, dpi=dpi)
    return path


@contextlib.contextmanager
def _missing_glyphs_allowed() -> Iterator[None]:
    """Ignore warnings about characters that no installed font has; the page contains them as text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
        yield


def _plot_loss(axes: Axes, metrics: Metrics) -> None:
    _plot_curves(axes, metrics, "loss", title="loss (nats)")


def _plot_error(axes: Axes, metrics: Metrics) -> None:
    _plot_curves(axes, metrics, "top1", title="top-1 error (%)", transform=lambda accuracy: 100 * (1 - accuracy))


def _plot_curves(
    axes: Axes,
    metrics: Metrics,
    key: str,
    *,
    title: str,
    transform: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> None:
    """Plot the metric `key` of both splits on a logarithmic axis, which resolves the last epochs."""
    plotted = []
    for name, label in ((key, "training"), (f"val_{key}", "validation")):
        lines = [line for line in metrics if name in line]  # not every epoch has an evaluation
        plotted.append(transform(np.array([line[name] for line in lines], float)))
        axes.plot([line["epoch"] for line in lines], plotted[-1], _style(lines), label=label)
    _scale_logarithmically(axes, np.concatenate(plotted))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    _label_epochs(axes, title)


def _scale_logarithmically(axes: Axes, values: np.ndarray) -> None:
    """Set a logarithmic y axis; if there are zeros, one that is linear below the smallest decade."""
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    if not len(positive):
        return  # all values are zero: keep the linear axis
    if len(positive) == len(finite):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainFormatter())
        axes.yaxis.set_minor_formatter(PlainFormatter())
        return
    lowest, highest = np.floor(np.log10(positive.min())), np.ceil(np.log10(positive.max()))
    decades = 10 ** np.arange(lowest, highest + 1)
    axes.set_yscale("symlog", linthresh=decades[0], linscale=0.3)
    axes.set_yticks([0, *decades], [f"{tick:g}" for tick in (0, *decades)])
    axes.set_yticks(np.outer(decades[:-1], np.arange(2, 10)).ravel(), minor=True)
    axes.set_ylim(-0.2 * decades[0], positive.max() * 1.3)


class PlainFormatter(LogFormatter):
    """Tick labels such as 0.6, for which matplotlib prints 6e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the label of a tick; empty where `LogFormatter` leaves it out."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def _plot_series(axes: Axes, metrics: Metrics, key: str, title: str) -> None:
    axes.plot([line["epoch"] for line in metrics], [line[key] for line in metrics], _style(metrics))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _label_epochs(axes, title)


def _style(points: Sequence[Any]) -> str:
    """Return the line style of a curve, or a marker for a single point."""
    return "-" if len(points) > 1 else "o"


def _label_epochs(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _plot_confusion(axes: Axes, evaluation: SingleLabelEvaluation, class_names: Sequence[str]) -> None:
    """Plot the fraction of each class (row) that is predicted as each class (column)."""
    classes = len(class_names)
    cells = min(classes, _MAX_CELLS)
    counts = np.zeros((cells, cells), np.int64)
    np.add.at(counts, (evaluation.targets * cells // classes, evaluation.predictions * cells // classes), 1)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    low, high = -0.5, classes - 0.5
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, aspect="auto", extent=(low, high, high, low))
    correct, total = int(evaluation.is_correct.sum()), len(evaluation.targets)
    axes.set(title=f"{correct:,} of {total:,} correct", xlabel="predicted class", ylabel="true class")
    if classes > _MAX_NAMED_CLASSES:
        axes.set(xlabel="index of the predicted class", ylabel="index of the true class")
        return
    _name_ticks(axes, class_names)
    names = [shortened(name, _MAX_TICK_LABEL) for name in class_names]
    axes.set_yticks(range(classes), names, **literal(*names))
    size = min(8.0, 200 / classes / len(str(counts.max())))
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if fractions[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=size)


def _plot_calibration(axes: Axes, evaluation: Evaluation, before: Evaluation | None = None) -> None:
    """Plot the reliability diagram: accuracy at each confidence (Guo et al. 2017, figure 1), and that before it."""
    counts, confidence, accuracy = evaluation.confidence_bins
    filled = counts > 0
    axes.bar(_bin_centers(counts)[filled], accuracy[filled], 0.9 / len(counts), color=_BAR_COLOR, label="accuracy")
    axes.plot([0, 1], [0, 1], "--", color="gray", linewidth=1, label="perfect calibration")
    axes.scatter(confidence[filled], accuracy[filled], 12, "black", zorder=3, clip_on=False, label="mean confidence")
    title = f"calibration error {100 * evaluation.calibration_error:.1f} %"
    if before is not None:
        counts, confidence, accuracy = before.confidence_bins
        filled = counts > 0
        axes.plot(confidence[filled], accuracy[filled], "x-", color="tab:orange", markersize=4, label="uncalibrated")
        title += f", before {100 * before.calibration_error:.1f} %"
    axes.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
    _legend_above(axes, title)


def _plot_confidence(axes: Axes, evaluation: Evaluation) -> None:
    """Plot the histogram of confidences, whose mean equals the accuracy of a calibrated network."""
    counts, confidence, _ = evaluation.confidence_bins
    axes.bar(_bin_centers(counts), counts / counts.sum(), 0.9 / len(counts), color=_BAR_COLOR)
    mean = float(np.sum(counts * confidence) / counts.sum())
    axes.axvline(mean, color="black", label=f"mean confidence {mean:.1%}")
    axes.axvline(evaluation.top(1), color="tab:orange", linestyle="--", label=f"accuracy {evaluation.top(1):.1%}")
    axes.set(xlabel="confidence", xlim=(0, 1))
    _legend_above(axes, "fraction of predictions")


def _bin_centers(counts: np.ndarray) -> np.ndarray:
    return (np.arange(len(counts)) + 0.5) / len(counts)


def _legend_above(axes: Axes, title: str) -> None:
    """Set the title, and a legend between title and axes, so that it covers no bar."""
    handles, _ = axes.get_legend_handles_labels()
    axes.set_title(title, pad=20 if len(handles) <= 3 else 32)
    axes.legend(
        handles=sorted(handles, key=lambda handle: not isinstance(handle, BarContainer)),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2 if len(handles) > 3 else 3,
        fontsize=7,
        frameon=False,
        columnspacing=1.0,
        handlelength=1.2,
    )


def _plot_recall(axes: Axes, evaluation: SingleLabelEvaluation, class_names: Sequence[str]) -> None:
    _plot_fractions(axes, evaluation.recall, "recall per class", class_names)


def _plot_average_precision(axes: Axes, evaluation: MultiLabelEvaluation, class_names: Sequence[str]) -> None:
    _plot_fractions(axes, evaluation.average_precision, "average precision per class", class_names)


def _plot_fractions(axes: Axes, values: np.ndarray, title: str, class_names: Sequence[str]) -> None:
    axes.bar(range(len(class_names)), values, color=_BAR_COLOR)
    axes.set(title=title, ylim=(0, 1))
    _name_ticks(axes, class_names)


def _plot_precision_recall(axes: Axes, evaluation: MultiLabelEvaluation, class_names: Sequence[str]) -> None:
    """Plot the precision-recall curve of each class that has examples, with names of the first ones."""
    scored = evaluation.by_class
    for position, each in enumerate(scored):
        targets, logits = evaluation.targets[:, each.index], evaluation.logits[:, each.index]
        precision, recall = precision_recall_curve(targets, logits)
        name = shortened(class_names[each.index], _MAX_TICK_LABEL)
        label = f"{name} {each.average_precision:.2f}" if position < _MAX_CURVES else None
        axes.step([0, *recall], [precision[0], *precision], where="pre", linewidth=1, label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"mean average precision {100 * evaluation.mean_average_precision:.1f} %")
    if scored:
        title = "lowest" if len(scored) > _MAX_CURVES else None
        add_literal_legend(axes, fontsize=6, loc="lower left", title=title)


def _plot_co_occurrence(axes: Axes, evaluation: MultiLabelEvaluation, class_names: Sequence[str]) -> None:
    """Plot the fraction of the examples of each class (row) that also have each other class (column)."""
    counts = evaluation.co_occurrence
    fractions = counts / np.maximum(np.diag(counts)[:, None], 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set(title="classes that occur together", xlabel="also has", ylabel="class")
    if len(class_names) <= _MAX_NAMED_CLASSES:
        _name_ticks(axes, class_names)
        names = [shortened(name, _MAX_TICK_LABEL) for name in class_names]
        axes.set_yticks(range(len(names)), names, **literal(*names))


def _plot_train_counts(axes: Axes, counts: np.ndarray, class_names: Sequence[str]) -> None:
    """Plot training examples per class, on a logarithmic axis if the counts differ by more than 10x."""
    axes.bar(range(len(counts)), counts, color=_BAR_COLOR)
    axes.set(title="training examples per class")
    if counts.max() > 10 * max(counts.min(), 1):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainFormatter())
    _name_ticks(axes, class_names)


def _name_ticks(axes: Axes, class_names: Sequence[str]) -> None:
    """Label the x axis with shortened class names, or with indices if there are many classes."""
    if len(class_names) > _MAX_NAMED_CLASSES:
        axes.set_xlabel("class index")
        return
    names = [shortened(name, _MAX_TICK_LABEL) for name in class_names]
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0, **literal(*names))


def _plot_errors(figure: Any, errors: Sequence[tuple[np.ndarray, str, str]]) -> None:
    figure.suptitle("most confident errors (true → predicted)")
    for axes, (image, *names) in zip(figure.subplots(1, len(errors), squeeze=False).flat, errors, strict=True):
        axes.axis("off")
        axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
        true, predicted = (shortened(name, _MAX_IMAGE_LABEL) for name in names)
        separator = " " if len(true + predicted) < _MAX_IMAGE_LABEL else "\n"
        axes.set_title(f"{true} →{separator}{predicted}", fontsize=8, **literal(true, predicted))
