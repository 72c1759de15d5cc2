"""Plot of an image and of the regions that determine its prediction."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from resnet_tf.core.text import printable
from resnet_tf.report.fonts import literal
from resnet_tf.report.plots import default_style, save_figure


@default_style
def plot_overlay(path: Path, image: np.ndarray, heatmap: np.ndarray, *, title: str) -> Path:
    """Plot an image, and the image blended with its heatmap, side by side in a PNG file.

    Args:
        path: file to write; a missing directory is created.
        image: float [H, W, 3] in [0, 1].
        heatmap: float [H, W] in [0, 1]; higher values are more opaque.
        title: one line above the images.

    Returns:
        `path`.

    Raises:
        UserError: if `path` cannot be written.
    """
    figure = Figure(figsize=(6.4, 3.5), layout="constrained")
    figure.suptitle(printable(title), **literal(title))
    for axes, pixels in zip(figure.subplots(1, 2), (image, blend(image, heatmap)), strict=True):
        axes.imshow(np.clip(pixels, 0.0, 1.0))
        axes.axis("off")
    return save_figure(figure, path)


def blend(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return an image blended with a colored heatmap, float [H, W, 3]; see `plot_overlay`."""
    colors = matplotlib.colormaps["inferno"](heatmap)[..., :3]
    opacity = 0.7 * heatmap[..., np.newaxis]
    return (1 - opacity) * image + opacity * colors
