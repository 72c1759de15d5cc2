"""Section of a page about robustness to common corruptions: plot and table."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from resnet_tf.core.robustness import GROUPS, SEVERITIES, Robustness
from resnet_tf.report import elements
from resnet_tf.report.elements import cell, escape, row
from resnet_tf.report.plots import save_panel

TITLE = "Robustness to common corruptions"
PLOT = "corruptions"


def section(directory: Path, robustness: Robustness) -> str:
    """Save the plot as `directory/corruptions.png`, and return plot and table as HTML.

    Raises:
        UserError: if the file cannot be written.
    """
    panel = save_panel(directory / f"{PLOT}.png", lambda axes: _plot(axes, robustness))
    summary = f"<p>{escape(robustness.summary)}</p>"
    return summary + elements.plots({PLOT: panel}) + _table(robustness)


def _plot(axes: Axes, robustness: Robustness) -> None:
    """Plot the mean of each group of corruptions over severities, and that of all; severity 0 is no corruption."""
    severities = (0, *SEVERITIES)
    for group, names in GROUPS.items():
        axes.plot(severities, [robustness.clean, *robustness.by_severity(names)], "o-", markersize=3, label=group)
    mean = [robustness.clean, *robustness.by_severity(robustness.scores)]
    axes.plot(severities, mean, "o--", color="black", markersize=3, label=f"all, mean {robustness.mean:.1%}")
    axes.set(title=robustness.title, xlabel="severity", ylim=(0, 1), xticks=severities)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _table(robustness: Robustness) -> str:
    columns = ["mean", *(f"severity {severity}" for severity in SEVERITIES)]
    rows = [
        row(cell(name.replace("_", " ")), *(cell(f"{value:.4f}", "number") for value in (np.mean(values), *values)))
        for name, values in robustness.scores.items()
    ]
    return elements.table(rows, head=elements.head(["corruption", *columns], numbers=columns))
