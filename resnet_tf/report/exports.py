"""Section of a page about the exports of a network: plots and table of their speed, accuracy, memory and size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from resnet_tf.core.metrics import METRIC_TITLES
from resnet_tf.core.serving_benchmark import ServingBenchmark
from resnet_tf.core.text import short_number
from resnet_tf.report import elements
from resnet_tf.report.elements import cell, escape, row
from resnet_tf.report.fonts import literal
from resnet_tf.report.plots import PlainFormatter, save_panel

TITLE = "Exports on this machine"
_COLOR = "tab:blue"


def section(directory: Path, benchmark: ServingBenchmark) -> str:
    """Save the plots as `directory/export_*.png`; return recommendation, plots, table and notes as HTML.

    Raises:
        UserError: if a file cannot be written.
    """
    before = [f"<p><b>{escape(benchmark.recommendation.sentence)}</b></p>", _paragraph(" ".join(benchmark.conditions))]
    panels = {name: save_panel(directory / f"{name}.png", plot) for name, plot in _plots(benchmark).items()}
    parts = [elements.plots(panels), _table(benchmark)] if benchmark.exports else []
    return "".join([*before, *parts, *map(_paragraph, benchmark.notes)])


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _plots(benchmark: ServingBenchmark) -> dict[str, Callable[[Axes], None]]:
    if not benchmark.exports:
        return {}
    plots: dict[str, Callable[[Axes], None]] = {
        "export_latency": lambda axes: _plot_latency(axes, benchmark),
        "export_throughput": lambda axes: _plot_throughput(axes, benchmark),
    }
    if benchmark.reference is not None:
        plots["export_accuracy"] = lambda axes: _plot_accuracy(axes, benchmark)
    return plots


def _plot_latency(axes: Axes, benchmark: ServingBenchmark) -> None:
    """Plot the median latency of one example, with a line to the 99th percentile, on a logarithmic axis."""
    for index, export in enumerate(benchmark.by_latency):
        latency = export.latency[0]
        axes.plot(
            [latency.p50_milliseconds, latency.p99_milliseconds],
            [index] * 2,
            "|-",
            color=_COLOR,
            label="" if index else "to p99",
        )
        axes.plot(latency.p50_milliseconds, index, "o", color=_COLOR, markersize=5, label="" if index else "p50")
    axes.set(title="latency of one image (ms)", xscale="log")
    axes.xaxis.set_major_formatter(PlainFormatter())
    axes.xaxis.set_minor_formatter(PlainFormatter())
    axes.tick_params(axis="x", which="both", labelsize=7)
    axes.grid(alpha=0.3, which="both", axis="x")
    axes.legend(fontsize=7)
    _name_exports(axes, benchmark)


def _plot_throughput(axes: Axes, benchmark: ServingBenchmark) -> None:
    exports = benchmark.by_latency
    bars = axes.barh(np.arange(len(exports)), [each.best.images_per_second for each in exports], color=_COLOR)
    axes.bar_label(bars, [short_number(each.best.images_per_second) for each in exports], padding=2, fontsize=7)
    axes.margins(x=0.18)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title("best throughput (images/s)")
    _name_exports(axes, benchmark)


def _plot_accuracy(axes: Axes, benchmark: ServingBenchmark) -> None:
    """Plot the change of the metric, and the limit below which an export is not recommended."""
    exports, limit = benchmark.by_latency, 100 * benchmark.max_accuracy_drop
    changes = np.array([benchmark.change_points(each) or 0.0 for each in exports])
    axes.barh(np.arange(len(exports)), changes, color=_COLOR)
    axes.tick_params(axis="x", labelsize=7)
    axes.axvline(0, color="black", linewidth=0.5)
    axes.axvline(-limit, color="black", linestyle="--", linewidth=1)
    reach = max(limit, np.abs(changes).max(), 0.01)
    for index, (change, export) in enumerate(zip(changes, exports, strict=True)):
        axes.text(max(change, 0.0) + 0.03 * reach, index, benchmark.change_text(export), va="center", fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlim(-1.1 * reach, max(changes.max(), 0.0) + 0.5 * reach)
    axes.set_title(f"change of {METRIC_TITLES[benchmark.metric]} (points)", fontsize="medium")
    _name_exports(axes, benchmark)


def _name_exports(axes: Axes, benchmark: ServingBenchmark) -> None:
    """Name the positions on the vertical axis, the fastest export at the top."""
    names = [each.name for each in benchmark.by_latency]
    axes.set_yticks(np.arange(len(names)), names, fontsize=7, **literal(*names))
    axes.set_ylim(len(names) - 0.4, -0.6)


def _table(benchmark: ServingBenchmark) -> str:
    titles = benchmark.titles()
    rows = [row(cell(name, "name"), *(cell(each, "number") for each in values)) for name, *values in benchmark.rows()]
    return elements.table(rows, head=elements.head(titles, numbers=titles[1:]))
