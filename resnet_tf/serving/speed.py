"""How fast an export answers on this machine."""

import statistics
import time
from typing import Any

import numpy as np

from resnet_tf.environment import cores, processor
from resnet_tf.serving.runners import Runner
from resnet_tf.spec import Preprocess

_BATCH = 16
_SECONDS, _CALLS = 0.5, 20  # whichever comes first, after a call that does not count


def measure_speed(runner: Runner, spec: Preprocess) -> dict[str, Any]:
    """Medians over calls with random pixels.

    Returns:
        `milliseconds` for one picture, `images_per_second` in batches of `batch`, `cores` and `processor`.
    """
    return {
        "milliseconds": 1000 * _seconds(runner, spec, 1),
        "images_per_second": _BATCH / _seconds(runner, spec, _BATCH),
        "batch": _BATCH,
        "cores": cores(),
        "processor": processor(),
    }


def _seconds(runner: Runner, spec: Preprocess, batch: int) -> float:
    images = np.random.default_rng(0).uniform(size=(batch, *spec.size, 3)).astype(np.float32)
    runner.logits(images)
    times: list[float] = []
    while len(times) < _CALLS and sum(times) < _SECONDS:
        start = time.perf_counter()
        runner.logits(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
