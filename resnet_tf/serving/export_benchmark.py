"""Measurement of an export in new processes: first prediction, latency, throughput, memory and accuracy.

The calling process uses `measure_export`; the new processes run this module as a program.
"""

import contextlib
import dataclasses
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tf.core import files
from resnet_tf.core.devices import cpu_environment
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_measurement import ExportMeasurement, Latency, Throughput
from resnet_tf.core.export_metadata import Export, read_export
from resnet_tf.core.machine import cores, resident_memory
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.targets import targets_with
from resnet_tf.data.sources import match_classes, open_source
from resnet_tf.inputs import Preprocess, find_origin, import_origin
from resnet_tf.serving import runners, speed
from resnet_tf.serving.predictor import Predictor
from resnet_tf.serving.runners import Runner

BATCHES = (1, 8, 32)
_CLIENTS = 8  # threads with one example each, as requests of a server come


def measure_export(export: Path, *, seconds: float, input_type: type[Preprocess]) -> ExportMeasurement:
    """Measure an export in a new process on the CPU, and its first prediction in a second one.

    The first process may start right after the export was written, while the memory that this took is being freed.

    Args:
        export: directory of the version.
        seconds: time limit of the calls for each batch size, and for each number of threads.
        input_type: input type of the export, which the new processes register.

    Raises:
        UserError: if the export cannot be loaded, a process fails, or it cannot import the input type.
    """
    origin = find_origin(input_type)
    with Progress("measuring the export in new processes"):
        measured = ExportMeasurement.from_dict(_run(origin, "all", str(export), str(seconds)))
        first = _run(origin, "first_answer", str(export))["first_answer_seconds"]
    return dataclasses.replace(measured, first_answer_seconds=min(measured.first_answer_seconds, first))


def _run(origin: str, *arguments: str) -> dict[str, Any]:
    """Return what a new process measures, see `_main`, which registers an input type by its origin."""
    command = [sys.executable, "-m", "resnet_tf.serving.export_benchmark", origin, *arguments]
    child = subprocess.run(command, env=cpu_environment(), capture_output=True, text=True, check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"its process ended with exit code {child.returncode}: {reason[-300:]}")
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    if "error" in result:
        raise UserError(result["error"])
    return result


def _measure(export: Export, seconds: float) -> ExportMeasurement:
    preprocess, before = _prepare(export), resident_memory()
    runner, first = _load(export, preprocess)
    latency = {batch: speed.measure_latency(runner, preprocess, batch, seconds=seconds) for batch in BATCHES}
    concurrent = [
        Throughput(
            threads, batch, speed.measure_throughput(runner, preprocess, batch, threads=threads, seconds=seconds)
        )
        for threads, batch in ((_CLIENTS, 1), *((cores(), batch) for batch in BATCHES[1:]))
    ]
    peak = resident_memory(peak=True)
    accuracy, note = _accuracy(export)
    return ExportMeasurement(
        target=export.metadata["target"],
        precision=export.metadata["precision"],
        latency=tuple(Latency.of(batch, durations) for batch, durations in latency.items()),
        throughput=(
            *(Throughput(1, batch, batch * len(each) / sum(each)) for batch, each in latency.items()),
            *concurrent,
        ),
        first_answer_seconds=first,
        disk_mb=files.total_size(export.directory) / 1e6,
        memory_mb=peak,
        model_memory_mb=None if peak is None or before is None else peak - before,
        accuracy=accuracy,
        note=note,
    )


def _prepare(export: Export) -> Preprocess:
    """Import what the target needs, and return the preprocessing of the export; refuse one of features."""
    export.check_classes()
    for module in runners.MODULES.get(export.metadata["target"], ())[:1]:
        with contextlib.suppress(ImportError):  # `load_runner` names the package
            importlib.import_module(module)
    with export.naming_metadata():
        return Preprocess.from_dict(export.metadata["preprocess"])


def _load(export: Export, preprocess: Preprocess) -> tuple[Runner, float]:
    """Return the loaded export, and the seconds until its first prediction."""
    example = np.zeros((1, *preprocess.unnormalized_shape), np.float32)
    start = time.perf_counter()
    targets = targets_with(export.metadata.get("thresholds"))
    runner = runners.load_runner(export.directory, export.metadata["target"], preprocess, targets=targets)
    runner.logits(example)
    return runner, time.perf_counter() - start


def _accuracy(export: Export) -> tuple[float | None, str]:
    """Return the metric on the evaluation split that the metadata name, or None and the reason."""
    if "config" not in export.metadata:
        return None, "accuracy was not measured: its metadata name no data"
    try:
        predictor = Predictor(export.directory)
        source = open_source(predictor.config.data, for_training=False)
        evaluation = predictor.evaluate(match_classes(predictor.labels, source).validation)
    except UserError as error:
        return None, f"accuracy was not measured: {error}"
    value = evaluation.to_dict()[evaluation.main_metric]
    return (
        (value, "") if np.isfinite(value) else (None, f"accuracy was not measured: {evaluation.main_metric} is {value}")
    )


def _main(what: str, directory: str, seconds: str = "") -> dict[str, Any]:
    try:
        export = read_export(directory)
        if what == "first_answer":
            return {"first_answer_seconds": _load(export, _prepare(export))[1]}
        return dataclasses.asdict(_measure(export, float(seconds)))
    except UserError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    import_origin(sys.argv[1])
    print(json.dumps(_main(*sys.argv[2:])))
