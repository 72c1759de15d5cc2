"""Latency and throughput of loaded exports on this machine."""

import functools
import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from resnet_tf.core.machine import cores, processor
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.runners import Runner

_BATCH_SIZE = 16
# Limits of a measurement, which ends at the first one reached; a warmup call comes before.
_SECONDS, _CALLS = 0.5, 20
_WARMUP_CALLS = 3  # runtimes prepare the first calls with a batch size


def measure_speed(runner: Runner, preprocess: Preprocess) -> dict[str, Any]:
    """Measure latency and throughput from random unnormalized inputs to logits, medians over several calls.

    Returns:
        `milliseconds`, latency of one example; `images_per_second`, throughput with batch size `batch`; `cores`, number
        of processor cores; `processor`, name of the processor.
    """
    return {
        "milliseconds": 1000 * _seconds(runner, preprocess, 1, _SECONDS),
        "images_per_second": _BATCH_SIZE / _seconds(runner, preprocess, _BATCH_SIZE, _SECONDS),
        "batch": _BATCH_SIZE,
        "cores": cores(),
        "processor": processor(),
    }


def measure_latency(runner: Runner, preprocess: Preprocess, batch_size: int, *, seconds: float) -> list[float]:
    """Return the durations in seconds of calls with one batch size, one after another, after a warmup.

    Args:
        runner: the export.
        preprocess: its preprocessing.
        batch_size: examples per call.
        seconds: time limit of all calls, of which there is at least one.
    """
    return _durations(runner, preprocess, batch_size, seconds, warmup=_WARMUP_CALLS)


def measure_throughput(
    runner: Runner, preprocess: Preprocess, batch_size: int, *, threads: int, seconds: float
) -> float:
    """Return the examples per second of several threads that call an export at the same time, after a warmup.

    Args:
        runner: the export.
        preprocess: its preprocessing.
        batch_size: examples per call.
        threads: number of threads, each of which calls again as soon as it has the answer.
        seconds: time until the last call of each thread starts; each makes at least one.
    """
    inputs = _inputs(preprocess, batch_size)
    runner.logits(inputs)
    calls = [0] * threads
    ready = threading.Barrier(threads + 1)

    def work(index: int) -> None:
        ready.wait()
        end = time.perf_counter() + seconds
        while not calls[index] or time.perf_counter() < end:
            runner.logits(inputs)
            calls[index] += 1

    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(work, index) for index in range(threads)]
        ready.wait()
        start = time.perf_counter()
        for each in working:
            each.result()
        return batch_size * sum(calls) / (time.perf_counter() - start)


def measure_in_turns(
    models: Sequence[tuple[Callable[[np.ndarray], Any], Preprocess]], batch_size: int, *, seconds: float
) -> list[float]:
    """Return the median latency of several models in milliseconds, called in turns, so that all meet the same load.

    Args:
        models: function from unnormalized inputs to logits, and preprocessing, of each model.
        batch_size: examples per call.
        seconds: time limit of all calls, of which each model gets at least one after its first.
    """
    calls = [functools.partial(logits, _inputs(preprocess, batch_size)) for logits, preprocess in models]
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    while not times[-1] or time.perf_counter() - start < seconds:
        for call, taken in zip(calls, times, strict=True):
            taken.append(_duration(call))
    return [1000 * statistics.median(taken) for taken in times]


def _seconds(runner: Runner, preprocess: Preprocess, batch_size: int, seconds: float) -> float:
    """Return the median duration in seconds of a call; at most `_CALLS` calls or `seconds` in total."""
    return statistics.median(_durations(runner, preprocess, batch_size, seconds, warmup=1, most=_CALLS))


def _durations(
    runner: Runner, preprocess: Preprocess, batch_size: int, seconds: float, *, warmup: int, most: float = math.inf
) -> list[float]:
    """Return the durations in seconds of calls after `warmup` others, at most `most`, until `seconds` have passed."""
    call = functools.partial(runner.logits, _inputs(preprocess, batch_size))
    for _ in range(warmup):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or (len(times) < most and time.perf_counter() < end):
        times.append(_duration(call))
    return times


def _inputs(preprocess: Preprocess, batch_size: int) -> np.ndarray:
    """Return random unnormalized inputs, float32 [batch_size, ...]."""
    return np.random.default_rng(0).uniform(size=(batch_size, *preprocess.unnormalized_shape)).astype(np.float32)


def _duration(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
