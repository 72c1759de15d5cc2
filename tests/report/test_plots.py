"""Plots of a run: curves with zeros, legends, names from a data set, and few or many classes."""

import matplotlib
import numpy as np
import pytest
from matplotlib import image as image_reader
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.report import audit_page, plots
from resnet_tf.report.elements import figure
from resnet_tf.report.overlay import plot_overlay
from resnet_tf.report.plots import plot_evaluation, plot_grid, plot_panels, plot_summary, save_figure, save_panel

# Text that matplotlib would parse as mathematics, a control sequence, an undecodable byte and a missing glyph.
NAMES = (r"$\frac$", "\x1b[31mred", "\udcff", "\N{CJK UNIFIED IDEOGRAPH-732B}", "a" * 60)


def _axes() -> Axes:
    return Figure(figsize=(3.9, 3.1), layout="constrained").subplots()


def _evaluation(*, classes: int = 5, errors: int = 20) -> SingleLabelEvaluation:
    labels = np.arange(100) % classes
    predictions = labels.copy()
    predictions[:errors] = (labels[:errors] + 1) % classes
    confidence = np.random.default_rng(0).uniform(1, 9, (100, 1))
    return SingleLabelEvaluation(labels, np.eye(classes)[predictions] * confidence)


def _metrics(errors: list[float]) -> list[dict[str, float]]:
    """One line per epoch, with these errors of training and validation, in percent."""
    return [
        {
            "epoch": epoch,
            "loss": error / 50,
            "val_loss": error / 40,
            "top1": 1 - error / 100,
            "val_top1": 1 - error / 100,
            "learning_rate": 0.1,
            "images_per_second": 900.0,
        }
        for epoch, error in enumerate(errors, start=1)
    ]


@pytest.mark.parametrize("classes", [2, 40])
@pytest.mark.parametrize("errors", [0, 3, 20])
def test_a_summary_has_one_size(tmp_path, classes, errors):
    names = [f"class {index}" for index in range(classes)]
    path = plot_summary(
        tmp_path / "report" / "summary.png",
        title="a run",
        metrics=_metrics([90, 20, 10]),
        evaluation=_evaluation(classes=classes, errors=errors),
        class_names=names,
        errors=[(np.zeros((8, 8, 3)), names[0], names[1])] * errors,
    )
    pixels = image_reader.imread(path)
    assert pixels.shape[:2] == (720 if errors else 500, 1300)
    assert pixels[..., :3].std() > 0.05


@pytest.mark.parametrize("errors", [[90, 3, 0, 0.1, 0], [0, 0, 0], [2, 0], [0], [90, 3, 0.1]])
@pytest.mark.parametrize("plot", [plots._plot_error, plots._plot_loss])
def test_no_point_of_a_curve_is_missing(plot, errors):
    axes = _axes()
    plot(axes, _metrics(errors))
    axes.figure.draw_without_rendering()
    for line in axes.lines:
        points = axes.transData.transform(line.get_xydata())
        assert len(points) == len(errors)
        assert axes.bbox.padded(1).count_contains(points) == len(errors)
    ticks = [tick.label1.get_text() for tick in axes.yaxis.get_major_ticks()]
    assert ("0" in ticks) == (0 in errors and any(errors)) or not any(errors)


def test_curves_skip_epochs_without_an_evaluation():
    metrics = _metrics([50, 40, 30])
    del metrics[1]["val_top1"]
    axes = _axes()
    plots._plot_error(axes, metrics)
    training, validation = axes.lines
    np.testing.assert_allclose(training.get_ydata(), [50, 40, 30])
    np.testing.assert_allclose(validation.get_xydata(), [[1, 50], [3, 30]])


def _plot_both(axes, evaluation):
    plots._plot_calibration(axes, evaluation, evaluation)


@pytest.mark.parametrize("plot", [plots._plot_calibration, plots._plot_confidence, _plot_both])
def test_a_legend_covers_no_bar(plot):
    axes = _axes()
    plot(axes, _evaluation(errors=60))
    axes.figure.draw_without_rendering()
    legend, title = axes.get_legend().get_window_extent(), axes.title.get_window_extent()
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_height()]
    assert len(bars) > 3
    assert not any(legend.overlaps(bar.get_window_extent()) for bar in bars)
    assert not legend.overlaps(title)
    assert axes.figure.bbox.containsx(legend.x0)
    assert axes.figure.bbox.containsx(legend.x1)


def test_bars_are_the_metrics_of_the_classes():
    evaluation = _evaluation(errors=30)
    axes = _axes()
    plots._plot_recall(axes, evaluation, "abcde")
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(
        heights,
        [
            np.mean(evaluation.predictions[evaluation.targets == label] == label)
            for label in range(evaluation.logits.shape[1])
        ],
    )


def test_names_are_literal_and_short(tmp_path):
    axes = _axes()
    plots._plot_confusion(axes, _evaluation(), NAMES)
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [
        r"$\frac$",
        "\\x1b[31mred",
        r"\xff",
        NAMES[3],
        "a" * 17 + "…",
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == shown
    # Rendering parses mathematics and looks up glyphs.
    assert plot_evaluation(_evaluation(), NAMES).dtype == np.uint8
    plot_panels(
        tmp_path,
        metrics=_metrics([9, 1]),
        evaluation=_evaluation(),
        class_names=NAMES,
        train_counts=np.array([1, 2, 3, 400, 5]),
    )
    plot_summary(
        tmp_path / "summary.png",
        title=r"a run in $\frac$",
        metrics=_metrics([9, 1]),
        evaluation=_evaluation(),
        class_names=NAMES,
        errors=[(np.zeros((8, 8, 3)), name, name) for name in NAMES],
    )
    plot_grid(
        tmp_path / "grid.png", title="$", images=[(np.zeros((8, 8, 1), np.uint8), f"50% {name}\n$") for name in NAMES]
    )


@pytest.mark.parametrize("count", [1, 8, 19])
def test_a_grid_takes_grayscale_and_color_images(tmp_path, count):
    images = [
        (np.random.default_rng(0).integers(0, 256, (8, 8, 1 + 2 * (index % 2)), np.uint8), "a class")
        for index in range(count)
    ]
    pixels = image_reader.imread(plot_grid(tmp_path / "grid.png", title="a batch", images=images))
    assert pixels[..., :3].std() > 0.05


def test_plots_of_an_audit_show_names_of_splits_as_they_are(tmp_path):
    sizes = np.array([[9, 8], [7, 6]])
    splits = [audit_page.Distribution(name, np.array([3, 4]), sizes) for name in NAMES]
    for plot in ("classes", "sizes"):
        axes = _axes()
        audit_page._plot_sizes(axes, splits) if plot == "sizes" else audit_page._plot_classes(axes, splits, NAMES[:2])
        shown = [text.get_text() for text in axes.get_legend().get_texts()]
        assert shown[0] == NAMES[0]
        assert len(shown) == len(NAMES)
        save_figure(axes.figure, tmp_path / f"{plot}.png")


def _plot_all(directory) -> None:
    image, names = np.zeros((8, 8, 3)), [f"class {index}" for index in range(5)]
    plot_grid(directory / "grid.png", title="images", images=[(np.uint8(image), "a class")])
    plot_overlay(directory / "overlay.png", image, image[..., 0], title="an image")
    plot_summary(
        directory / "summary.png",
        title="a run",
        metrics=_metrics([9, 1]),
        evaluation=_evaluation(),
        class_names=names,
        errors=[(image, "cat", "dog")],
    )
    plot_evaluation(_evaluation(), names)


def test_settings_of_other_plots_do_not_apply(tmp_path, monkeypatch):
    """Regression: `text.usetex` without LaTeX ended a run that was trained, and dark styles were in its page."""

    def plot() -> tuple[bytes, str]:
        path = save_panel(tmp_path / "panel.png", lambda axes: plots._plot_error(axes, _metrics([90, 3, 0.1])))
        return path.read_bytes(), figure(np.eye(8)[..., np.newaxis] * [[[1, 0, 0]]], ["a class"], alt="")

    def record(rendered, path, **options):
        used.append({name: matplotlib.rcParams[name] for name in settings})
        path.touch()

    settings = {"text.usetex": True, "axes.facecolor": "black", "font.size": 20, "image.origin": "lower"}
    default = {name: matplotlib.rcParamsDefault[name] for name in settings}
    expected, used = plot(), []
    with matplotlib.rc_context(settings):
        assert plot() == expected
        monkeypatch.setattr(Figure, "savefig", record)  # rendering takes seconds
        _plot_all(tmp_path)
        assert {name: matplotlib.rcParams[name] for name in settings} == settings
    assert used == [default] * 3
