"""A picture with what a network saw in it."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure


def draw_overlay(path: Path, picture: np.ndarray, heatmap: np.ndarray, *, title: str) -> Path:
    """The picture, and the picture under its heatmap, side by side, as a PNG.

    Args:
        path: file to write; its directory is made.
        picture: float [H, W, 3] in [0, 1].
        heatmap: float [H, W] in [0, 1]; the hotter, the more opaque.
        title: one line above.
    """
    colors = matplotlib.colormaps["inferno"](heatmap)[..., :3]
    share = 0.7 * heatmap[..., np.newaxis]
    figure = Figure(figsize=(6.4, 3.5), layout="constrained")
    figure.suptitle(title)
    for axes, pixels in zip(figure.subplots(1, 2), (picture, (1 - share) * picture + share * colors), strict=True):
        axes.imshow(np.clip(pixels, 0.0, 1.0))
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
