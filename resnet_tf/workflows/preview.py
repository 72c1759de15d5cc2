"""Plot of a training batch, to check the data and the augmentation before a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from resnet_tf.config import Config
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import MAX_BATCH, check_integer
from resnet_tf.core.text import printable
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source, open_source
from resnet_tf.inputs import create_preprocess
from resnet_tf.report.plots import plot_grid
from resnet_tf.training import default_settings
from resnet_tf.training.runtime import restored_state
from resnet_tf.training.start import start


@restored_state()
def preview(config: Config, path: str | Path, *, step: int = 0, count: int = 32, name: str = "") -> Path:
    """Plot the cropped and augmented batch of a training step, and return the path of the plot.

    Every image is titled with its classes, or with their fractions after mixup or CutMix. With `train.minutes`, the
    augmentation is that of the plan, for which the speed of the machine is measured; for random generators and the
    dtype policy, see `train_and_evaluate` then.

    Args:
        config: see `load_config`.
        path: PNG file to write.
        step: training step of the batch.
        count: largest number of examples to plot.
        name: name of the recipe, for the title.

    Raises:
        UserError: if `path` cannot be written, `step` is outside the run, or the data cannot be read.
    """
    check_integer("step", step, minimum=0, maximum=2**53)
    check_integer("count", count, minimum=1, maximum=MAX_BATCH)
    path = user_path(path)
    if path.suffix != ".png" or not path.absolute().parent.is_dir():
        raise UserError(f"--out={str(path)!r} must be a .png file in an existing directory")
    if config.train.minutes:  # the augmentation follows from a measurement of the machine
        started = start(config)
        config, source = started.config, started.source
    else:
        config = default_settings.with_existing_splits(config)
        source = open_source(config.data)
        config = default_settings.resolve(config, source)
    title = f"step {step} of {source.name}, {create_preprocess(config.data).size_text}"
    return plot_batch(path, config, source, step=step, count=count, title=f"{name}: {title}" if name else title)


def plot_batch(path: Path, config: Config, source: Source, *, step: int, count: int, title: str) -> Path:
    """Write a PNG with at most `count` examples of a training batch and their classes.

    Raises:
        UserError: if `step` is outside the run, or the examples cannot be read.
    """
    preprocess = create_preprocess(config.data)
    examples, fractions = (part[:count] for part in pipeline.load_batch(config, source, preprocess, step=step))
    images = map(preprocess.plot, examples)
    titled = [(image, _title(row, source.class_names)) for image, row in zip(images, fractions, strict=True)]
    return plot_grid(path, title=title, images=titled)


def _title(fractions: np.ndarray, class_names: Sequence[str]) -> str:
    """Return the classes of an example, or the percentage of each class of a mixed example."""
    # Below 0.005, a fraction would be printed as 0%.
    present = [(fraction, class_names[label]) for label, fraction in enumerate(fractions) if fraction >= 0.005]
    if len(present) == 1 or all(fraction == 1 for fraction, _ in present):
        return "\n".join(printable(name) for _, name in present) or "no class"
    return "\n".join(f"{fraction:.0%} {printable(name)}" for fraction, name in sorted(present, reverse=True))
