"""The picture of a run is drawn, also at the edges."""

import numpy as np
import pytest
from matplotlib import image as image_reader

from resnet_tf.report.plots import draw_grid, draw_summary


@pytest.mark.parametrize("classes", [2, 40])
@pytest.mark.parametrize("wrong", [0, 3, 20])
def test_draw_summary(tmp_path, classes, wrong):
    labels = np.arange(100) % classes
    predictions = labels.copy()
    predictions[:wrong] = (labels[:wrong] + 1) % classes
    metrics = [
        {"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch, "top1": 1 - 1 / epoch, "val_top1": 0.5}
        for epoch in range(1, 4)
    ]
    names = [f"class {index}" for index in range(classes)]
    mistakes = [(np.zeros((8, 8, 3)), names[0], names[1])] * wrong
    path = draw_summary(
        tmp_path / "report" / "summary.png",
        title="a run",
        metrics=metrics,
        labels=labels,
        predictions=predictions,
        class_names=names,
        mistakes=mistakes,
    )
    pixels = image_reader.imread(path)
    assert pixels.shape[1] == 1300
    assert pixels[..., :3].std() > 0.05


@pytest.mark.parametrize("count", [1, 8, 19])
def test_draw_grid(tmp_path, count):
    pictures = [
        (np.random.default_rng(0).integers(0, 256, (8, 8, 1 + 2 * (index % 2)), np.uint8), "a class")
        for index in range(count)
    ]
    pixels = image_reader.imread(draw_grid(tmp_path / "grid.png", title="a batch", pictures=pictures))
    assert pixels[..., :3].std() > 0.05
