"""Pictures of a run, drawn with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MOST_CLASS_NAMES = 20


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
        mistakes: (image float [H, W, 3] in [0, 1], true class, predicted class), at most 12 are drawn.
    """
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(2 if mistakes else 1, 1, height_ratios=[2.2, 1] if mistakes else [1])
    loss, error, matrix = figure.add_subfigure(grid[0]).subplots(1, 3)
    _draw_curves(loss, metrics, ("loss", "training"), ("test_loss", "test"), title="loss (nats)", scale=1.0)
    _draw_curves(error, metrics, ("top1", "training"), ("test_top1", "test"), title="top-1 error (%)", scale=-100.0)
    _draw_confusion(matrix, labels, predictions, class_names)
    if mistakes:
        _draw_mistakes(figure.add_subfigure(grid[1]), mistakes[:12])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


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


def _draw_curves(
    axes: Axes, metrics: Sequence[dict[str, Any]], *series: tuple[str, str], title: str, scale: float
) -> None:
    """A negative scale draws the distance from 1 instead, as errors are drawn. Logarithmic, so that the end is seen."""
    for key, label in series:
        lines = [line for line in metrics if key in line]  # not every epoch need be tested
        values = np.array([line[key] for line in lines])
        axes.plot([line["epoch"] for line in lines], (values - 1) * scale if scale < 0 else values, label=label)
    axes.set_yscale("log", nonpositive="mask")  # an error of 0 leaves a gap
    axes.set(title=title, xlabel="epoch")
    axes.grid(alpha=0.3, which="both")
    axes.legend()


def _draw_confusion(axes: Axes, labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> None:
    classes = len(class_names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predictions), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    right = int(np.trace(counts))
    axes.set(title=f"test: {right} of {len(labels)} right", xlabel="predicted", ylabel="true")
    if classes <= _MOST_CLASS_NAMES:
        axes.set_xticks(range(classes), class_names, rotation=90 if max(map(len, class_names)) > 3 else 0)
        axes.set_yticks(range(classes), class_names)
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)


def _draw_mistakes(figure: Any, mistakes: Sequence[tuple[np.ndarray, str, str]]) -> None:
    figure.suptitle("most confident mistakes on the test images")
    for axes in figure.subplots(1, 12).flat:
        axes.axis("off")
    for axes, (image, true, predicted) in zip(figure.axes, mistakes, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(f"{true}\nread as {predicted}", fontsize=9)
