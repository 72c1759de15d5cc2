"""Pictures of a run, drawn with matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from resnet_tf.core.metrics import Evaluation

_MOST_CLASS_NAMES = 20
_LONGEST_NAME = 18
_PANEL = (5.6, 4.4)  # inches


def draw_summary(
    path: Path,
    *,
    title: str,
    metrics: Sequence[dict[str, Any]],
    labels: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    mistakes: Sequence[tuple[np.ndarray, str, str]],
) -> Path:
    """Curves of loss and accuracy, the confusion matrix, and some mistakes, as one PNG.

    Args:
        path: file to write.
        title: one line above everything.
        metrics: the lines of metrics.jsonl.
        labels: true classes of the test split, int [N].
        predictions: predicted classes, int [N].
        class_names: names of the classes in label order.
        mistakes: (image float [H, W, 1 or 3] in [0, 1], true class, predicted class), at most 12 are drawn.
    """
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(2 if mistakes else 1, 1, height_ratios=[2.2, 1] if mistakes else [1])
    loss, error, matrix = figure.add_subfigure(grid[0]).subplots(1, 3)
    _draw_losses(loss, metrics)
    _draw_errors(error, metrics)
    _draw_confusion(matrix, labels, predictions, class_names)
    if mistakes:
        _draw_mistakes(figure.add_subfigure(grid[1]), mistakes[:12])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def draw_panels(
    directory: Path,
    *,
    metrics: Sequence[dict[str, Any]],
    evaluation: Evaluation,
    class_names: Sequence[str],
    train_counts: np.ndarray | None,
) -> dict[str, Path]:
    """What a page shows of a run, each as a PNG of its own.

    Args:
        directory: where NAME.png are written; it is there.
        metrics: the lines of metrics.jsonl; without any, the curves are left out.
        evaluation: the last test.
        class_names: names of the classes in label order.
        train_counts: training examples of each class, int [C], if they are known.

    Returns:
        The files by name, in the order in which they are read.
    """
    panels: dict[str, Callable[[Axes], None]] = {}
    if metrics:
        panels["loss"] = lambda axes: _draw_losses(axes, metrics)
        panels["error"] = lambda axes: _draw_errors(axes, metrics)
        panels["learning_rate"] = lambda axes: _draw_series(axes, metrics, "learning_rate", "learning rate")
        panels["speed"] = lambda axes: _draw_series(axes, metrics, "images_per_second", "training, images per second")
    panels["confusion"] = lambda axes: _draw_confusion(axes, evaluation.targets, evaluation.predictions, class_names)
    panels["calibration"] = lambda axes: _draw_calibration(axes, evaluation)
    if train_counts is not None:
        panels["balance"] = lambda axes: _draw_balance(axes, train_counts, class_names)
    return {name: _save_panel(directory / f"{name}.png", draw) for name, draw in panels.items()}


def _save_panel(path: Path, draw: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=_PANEL, layout="constrained")
    draw(figure.subplots())
    figure.savefig(path, dpi=100)
    return path


def draw_confusion(labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """How often examples of a class (row) are taken for another (column), as a picture, uint8 [H, W, 4].

    Args:
        labels: true classes, int [N].
        predictions: predicted classes, int [N].
        class_names: names of the classes in label order.
    """
    figure = Figure(figsize=_PANEL, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    _draw_confusion(figure.subplots(), labels, predictions, class_names)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def draw_grid(path: Path, *, title: str, pictures: Sequence[tuple[np.ndarray, str]]) -> Path:
    """Pictures in rows of eight, each under its label, as one PNG.

    Args:
        path: file to write.
        title: one line above everything.
        pictures: (image uint8 [H, W, 1 or 3], label).
    """
    columns = min(8, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, (image, label) in zip(figure.axes, pictures, strict=False):
        axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
        axes.set_title(label, fontsize=8)
    figure.savefig(path, dpi=100)
    return path


def _draw_losses(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    _draw_curves(axes, metrics, ("loss", "training"), ("val_loss", "validation"), title="loss (nats)", scale=1.0)


def _draw_errors(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    _draw_curves(axes, metrics, ("top1", "training"), ("val_top1", "validation"), title="top-1 error (%)", scale=-100.0)


def _draw_curves(
    axes: Axes, metrics: Sequence[dict[str, Any]], *series: tuple[str, str], title: str, scale: float
) -> None:
    """A negative scale draws the distance from 1 instead, as errors are drawn. Logarithmic, so that the end is seen."""
    for key, label in series:
        lines = [line for line in metrics if key in line]  # not every epoch has an evaluation
        values = np.array([line[key] for line in lines])
        values = (values - 1) * scale if scale < 0 else values
        axes.plot([line["epoch"] for line in lines], values, _style(lines), label=label)
    axes.set_yscale("log", nonpositive="mask")  # an error of 0 leaves a gap
    axes.yaxis.set_major_formatter(_Plain())
    axes.yaxis.set_minor_formatter(_Plain())
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    _label_epochs(axes, title)


class _Plain(LogFormatter):
    """0.6 where matplotlib writes 6e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _draw_series(axes: Axes, metrics: Sequence[dict[str, Any]], key: str, title: str) -> None:
    axes.plot([line["epoch"] for line in metrics], [line[key] for line in metrics], _style(metrics))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _label_epochs(axes, title)


def _style(lines: Sequence[Any]) -> str:
    """A single point makes no line."""
    return "-" if len(lines) > 1 else "o"


def _label_epochs(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_calibration(axes: Axes, evaluation: Evaluation) -> None:
    """Guo et al. 2017, figure 1: what share of the answers is right at each confidence, and how many have it."""
    counts, confidence, accuracy = evaluation.calibration
    centers = (np.arange(len(counts)) + 0.5) / len(counts)
    width, filled = 0.9 / len(counts), counts > 0
    axes.bar(centers, counts / counts.sum(), width, color="lightgray", label="share of the answers")
    axes.bar(centers[filled], accuracy[filled], 0.6 * width, color="tab:blue", label="of these, right")
    axes.plot([0, 1], [0, 1], "--", color="gray", linewidth=1, label="as many as the confidence says")
    axes.scatter(confidence[filled], accuracy[filled], 12, color="black", zorder=3)
    axes.set(
        title=f"calibration error {100 * evaluation.calibration_error:.1f} %",
        xlabel="confidence of the answer",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(loc="upper left", fontsize=8)


def _draw_balance(axes: Axes, counts: np.ndarray, class_names: Sequence[str]) -> None:
    """Beyond a factor of ten on a logarithmic scale, or the rare would not be seen."""
    axes.bar(range(len(counts)), counts, color="tab:blue")
    axes.set(title="training examples of each class")
    if counts.max() > 10 * max(counts.min(), 1):
        axes.set_yscale("log")
    if len(counts) <= _MOST_CLASS_NAMES:
        _name_ticks(axes, class_names)
    else:
        axes.set_xlabel("class")


def _name_ticks(axes: Axes, class_names: Sequence[str], *, both: bool = False) -> None:
    """Names below, and at the left, too, if `both`; cut short where they would leave the plot no room."""
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in class_names]
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
    if both:
        axes.set_yticks(range(len(names)), names)


def _draw_confusion(axes: Axes, labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> None:
    classes = len(class_names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predictions), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    right = int(np.trace(counts))
    axes.set(title=f"test: {right} of {len(labels)} right", xlabel="predicted", ylabel="true")
    if classes <= _MOST_CLASS_NAMES:
        _name_ticks(axes, class_names, both=True)
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)


def _draw_mistakes(figure: Any, mistakes: Sequence[tuple[np.ndarray, str, str]]) -> None:
    figure.suptitle("most confident mistakes in testing")
    for axes in figure.subplots(1, 12).flat:
        axes.axis("off")
    for axes, (image, true, predicted) in zip(figure.axes, mistakes, strict=False):
        axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{true}\nread as {predicted}", fontsize=9)
