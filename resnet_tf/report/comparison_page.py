"""Page of a comparison of two models, `index.html`, and its plots as PNG files."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from resnet_tf.core import files
from resnet_tf.core.comparison import Answers, Comparison, Gate, Slice
from resnet_tf.core.metrics import METRIC_TITLES
from resnet_tf.core.multi_label_comparison import MultiLabelComparison
from resnet_tf.core.reliability import calibration_bins
from resnet_tf.core.text import counted, shortened
from resnet_tf.report import elements
from resnet_tf.report.content import LoadImages, captioned
from resnet_tf.report.elements import PAGE, cell, escape, row, section
from resnet_tf.report.fonts import literal
from resnet_tf.report.plots import save_panel

_MAX_FLIPS = 24  # images
_MAX_BARS = 15  # slices in a plot
_MAX_LABEL = 18  # characters of a name in a plot
_COLORS = ("tab:gray", "tab:blue")  # of the old and the new model


def write_comparison(
    directory: Path,
    comparison: Comparison,
    gates: Sequence[Gate],
    load_images: LoadImages,
    *,
    environment: Mapping[str, str],
) -> Path:
    """Write the page and its plots to `directory`, and return the path of the page; see `report.page.write_page`.

    Args:
        directory: where the page is written; a missing one is created.
        comparison: of two models.
        gates: the stated gates.
        load_images: loads images of the evaluated split by index.
        environment: versions and hardware: name -> text.

    Raises:
        UserError: if `directory` cannot be written.
    """
    with files.translate_write_errors(directory / PAGE), files.atomic_files(directory) as staging:
        panels = _plot_panels(staging, comparison)
        sections = [
            _headline(comparison),
            section("Gates", _gates(gates)),
            section("Models", _models(comparison)),
            section("Calibration, and changes by slice", elements.plots(panels)),
            section("Negative flips", _flips(comparison, load_images)),
            section("Metrics by class, largest drop of average precision first", _class_changes(comparison)),
            *(
                section(f"By {escape(name)}, largest drop first", _slices(slices))
                for name, slices in comparison.slices.items()
            ),
            section("Preprocessing", _preprocessing(comparison)),
            section("Environment", elements.pairs(environment)),
        ]
        (staging / PAGE).write_text(elements.document(_title(comparison), sections), encoding="utf-8")
    return directory / PAGE


def _title(comparison: Comparison) -> str:
    return f"{comparison.new.name} compared with {comparison.old.name}"


def _headline(comparison: Comparison) -> str:
    paired, (low, high) = comparison.paired, comparison.paired.interval
    before, after = comparison.paired.accuracies
    facts = {
        **_mean_changes(comparison),
        comparison.accuracy_name: f"{100 * before:.2f} → {100 * after:.2f}\N{NO-BREAK SPACE}%",
        f"change of the {comparison.accuracy_name}": _points(paired.difference),
        "95 % interval of the change": f"{100 * low:+.2f} to {_points(high)}",
        "p-value of McNemar's test": f"{paired.p_value:.2g}",
        "negative flips: right before, wrong now": f"{paired.negative:,}",
        "positive flips: wrong before, right now": f"{paired.positive:,}",
    }
    if 1 in comparison.latency_ratios:
        facts["latency relative to before"] = f"{comparison.latency_ratios[1]:.2f}"
    intro = f"<p>{escape(counted(paired.examples, 'example'))} of {escape(comparison.data)}.</p>"
    return intro + elements.tiles(facts)


def _mean_changes(comparison: Comparison) -> dict[str, str]:
    """Return headline values of multi-label models; none for others."""
    if not isinstance(comparison, MultiLabelComparison):
        return {}
    known = comparison.multi_label
    shown = {}
    for metric in ("mean_average_precision", "f1_macro"):
        name, change = METRIC_TITLES[metric], getattr(known, metric)
        low, high = change.interval
        shown[name] = f"{100 * change.old:.2f} → {100 * change.new:.2f}\N{NO-BREAK SPACE}%"
        shown[f"95 % interval of the change of the {name}"] = f"{100 * low:+.2f} to {_points(high)}"
    return shown


def _class_changes(comparison: Comparison) -> str:
    """Return the changes of average precision and F1 of each class as HTML; empty for single-label models."""
    if not isinstance(comparison, MultiLabelComparison):
        return ""
    rows = []
    for name, count, precision, f1 in comparison.class_changes:
        numbers = [f"{count:,}"]
        for change in (precision, f1):
            low, high = change.interval
            numbers += [
                f"{change.old:.4f}",
                f"{change.new:.4f}",
                f"{change.difference:+.4f}",
                f"{low:+.4f} to {high:+.4f}",
            ]
        rows.append(row(cell(name), *(cell(number, "number") for number in numbers)))
    columns = [
        "examples",
        *(f"{metric}{part}" for metric in ("AP", "F1") for part in (", old", ", new", ", change", ", interval")),
    ]
    return elements.table(rows, head=elements.head(["class", *columns], numbers=columns))


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}\N{NO-BREAK SPACE}%"


def _gates(gates: Sequence[Gate]) -> str:
    shown = {True: cell("passed", "name"), False: cell("FAILED", "name failed")}
    rows = (row(shown[gate.passed], cell(gate.text)) for gate in gates)
    return elements.table(rows) if gates else ""


def _models(comparison: Comparison) -> str:
    """Return the properties of both models side by side."""
    old, new = comparison.answers
    accuracies, errors = comparison.paired.accuracies, comparison.calibration_errors
    properties: list[tuple[str, Callable[[Answers, int], str]]] = [
        ("path", lambda each, index: each.name),
        ("network", lambda each, index: each.description or "file of predictions"),
        (comparison.accuracy_name, lambda each, index: f"{100 * accuracies[index]:.2f} %"),
        (METRIC_TITLES["loss"], lambda each, index: _known(each.loss, "{:.4f}")),
        (METRIC_TITLES["calibration_error"], lambda each, index: f"{100 * errors[index]:.1f} %"),
        ("parameters", lambda each, index: _known(each.parameters, "{:,}")),
        ("size of the files (MB)", lambda each, index: _known(each.bytes and each.bytes / 1e6, "{:.1f}")),
    ]
    for size in sorted(old.milliseconds):
        properties.append((f"latency of {counted(size, 'example')} (ms)", functools.partial(_latency, size)))
    rows = (row(cell(name), cell(text(old, 0)), cell(text(new, 1))) for name, text in properties)
    return elements.table(rows, head=elements.head(["", "old", "new"]))


def _latency(size: int, each: Answers, index: int) -> str:
    return _known(each.milliseconds.get(size), "{:.4g}")


def _known(value: float | None, pattern: str) -> str:
    return "unknown" if value is None else pattern.format(value)


def _flips(comparison: Comparison, load_images: LoadImages) -> str:
    indices = comparison.negative_flips[:_MAX_FLIPS].tolist()
    if not indices:
        return "<p>No example that was right is wrong now.</p>"
    confidence = dict(zip(indices, comparison.flip_confidence(np.array(indices)), strict=True))

    def caption(index: int) -> tuple[str, str]:
        predicted = comparison.name_prediction(comparison.new, index)
        return comparison.name_target(index), f"→ {predicted} ({confidence[index]:.0%})"

    total = comparison.paired.negative
    count = f"{len(indices):,} of {total:,}" if len(indices) < total else f"{total:,}"
    legend = f"True class → class predicted by the new model; the old model was right. {count}, most confident first."
    return f"<p>{legend}</p>" + captioned(load_images, indices, caption)


def _slices(slices: Sequence[Slice]) -> str:
    def describe(each: Slice) -> str:
        paired, (old, new), (low, high) = each.paired, each.paired.accuracies, each.paired.interval
        numbers = (
            f"{paired.examples:,}",
            f"{old:.4f}",
            f"{new:.4f}",
            f"{paired.difference:+.4f}",
            f"{low:+.4f} to {high:+.4f}",
            f"{each.p_value:.2g}",
            f"{paired.negative:,}",
            f"{paired.positive:,}",
        )
        return row(cell(each.name), *(cell(number, "number") for number in numbers))

    columns = ["examples", "old", "new", "change", "95 % interval", "p (Holm)", "negative flips", "positive flips"]
    return elements.table(map(describe, slices), head=elements.head(["slice", *columns], numbers=columns))


def _preprocessing(comparison: Comparison) -> str:
    differences = comparison.preprocess_differences
    if differences is None:
        return "<p>Unknown for a file of predictions.</p>"
    if not differences:
        return "<p>Both models have the same preprocessing.</p>"
    rows = (row(cell(name), cell(str(old)), cell(str(new))) for name, (old, new) in differences.items())
    return elements.table(rows, head=elements.head(["setting", "old", "new"]))


def _plot_panels(directory: Path, comparison: Comparison) -> dict[str, Path]:
    """Save each plot as `directory/NAME.png`; return name -> file, in reading order."""
    panels: dict[str, Callable[[Axes], None]] = {"calibration": lambda axes: _plot_calibration(axes, comparison)}
    for number, (name, slices) in enumerate(comparison.slices.items(), start=1):
        panels[f"change_{number}"] = functools.partial(_plot_changes, name=name, slices=slices)
    return {name: save_panel(directory / f"{name}.png", plot, height=3.4) for name, plot in panels.items()}


def _plot_calibration(axes: Axes, comparison: Comparison) -> None:
    """Plot accuracy at each confidence of both models (Guo et al. 2017, figure 1)."""
    axes.plot([0, 1], [0, 1], "--", color="lightgray", linewidth=1)
    for each, error, color, label in zip(
        comparison.answers, comparison.calibration_errors, _COLORS, ("old", "new"), strict=True
    ):
        counts, confidence, accuracy = calibration_bins(*comparison.reliability(each))
        filled = counts > 0
        text = f"{label}, error {100 * error:.1f} %"
        axes.plot(confidence[filled], accuracy[filled], "o-", color=color, markersize=4, label=text)
    axes.set(title="accuracy at each confidence", xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)


def _plot_changes(axes: Axes, name: str, slices: Sequence[Slice]) -> None:
    """Plot the change of the accuracy of the slices that changed most, with intervals."""
    chosen = sorted(slices, key=lambda each: -abs(each.paired.difference))[:_MAX_BARS]
    chosen.sort(key=lambda each: -each.paired.difference)
    changes = np.array([each.paired.difference for each in chosen])
    low, high = np.array([each.paired.interval for each in chosen]).T
    positions = np.arange(len(chosen))
    axes.axvline(0, color="gray", linewidth=1)
    axes.hlines(positions, 100 * low, 100 * high, color=_COLORS[1], linewidth=1.5)
    axes.plot(100 * changes, positions, "o", color=_COLORS[1], markersize=4)
    labels = [shortened(each.name, _MAX_LABEL) for each in chosen]
    axes.set_yticks(positions, labels, fontsize=8, **literal(*labels))
    axes.set(xlabel="change of the accuracy (points)")
    axes.set_title(f"by {name}", **literal(name))
    axes.grid(alpha=0.3, axis="x")
