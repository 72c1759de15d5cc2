"""How fast an export answers on this machine."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_tf.core.export_metadata import Export
from resnet_tf.core.machine import cores, processor
from resnet_tf.inputs import Preprocess
from resnet_tf.serving import runners
from resnet_tf.serving.runners import Runner

_BATCH = 16
_SECONDS, _CALLS = 0.5, 20  # whichever comes first, after a call that does not count


def measure_speed(runner: Runner, preprocess: Preprocess) -> dict[str, Any]:
    """Medians over calls with random pixels or samples.

    Returns:
        `milliseconds` for one picture, `images_per_second` in batches of `batch`, `cores` and `processor`.
    """
    return {
        "milliseconds": 1000 * _seconds(runner, preprocess, 1, _SECONDS),
        "images_per_second": _BATCH / _seconds(runner, preprocess, _BATCH, _SECONDS),
        "batch": _BATCH,
        "cores": cores(),
        "processor": processor(),
    }


def measure_batches(export: Export, batches: Sequence[int], *, seconds: float) -> dict[int, float]:
    """Return the latency of an export in milliseconds for each batch size, medians over `seconds` each.

    Raises:
        UserError: if its metadata are invalid, or a package that it needs is missing.
    """
    with export.naming_metadata():
        preprocess = Preprocess.from_dict(export.metadata["preprocess"])
    runner = runners.load_runner(export.directory, export.metadata["target"], preprocess)
    return {batch: 1000 * _seconds(runner, preprocess, batch, seconds) for batch in batches}


def _seconds(runner: Runner, preprocess: Preprocess, batch: int, seconds: float) -> float:
    images = np.random.default_rng(0).uniform(size=(batch, *preprocess.unnormalized_shape)).astype(np.float32)
    runner.logits(images)
    times: list[float] = []
    while not times or (len(times) < _CALLS and sum(times) < seconds):
        start = time.perf_counter()
        runner.logits(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
