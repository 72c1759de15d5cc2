"""Speed of the input, of the training step and of exports."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from resnet_tf.config import Config
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.export_metadata import Export, read_export
from resnet_tf.core.ranges import Range, check_number
from resnet_tf.inputs import create_preprocess
from resnet_tf.serving.export import export_model
from resnet_tf.serving.speed import measure_batch_latencies
from resnet_tf.training.image_size import without_data
from resnet_tf.training.run import create_network
from resnet_tf.training.runtime import choose_precision
from resnet_tf.training.throughput import measure_input, measure_training

_PARTS = ("input", "train", "serving")
_MAX_SECONDS = 86_400
_BATCHES = (1, 8, 32)  # of an export


@dataclass(frozen=True)
class Measurement:
    """A measured speed.

    Attributes:
        case: what was measured, such as `+ decoding` or `batch of 8`.
        value: the speed, in the unit of the benchmark.
        subject: the export, or network and precision; empty for input and training.
    """

    case: str
    value: float
    subject: str = ""


@dataclass(frozen=True)
class BenchmarkResult:
    """Outcome of `benchmark`.

    Attributes:
        unit: `images_per_second`, or `milliseconds` for a batch.
        measurements: in the order in which they were taken.
        verdict: for the input, whether it or the model is the limit.
    """

    unit: str
    measurements: tuple[Measurement, ...]
    verdict: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON; see `lines`."""
        return {"unit": self.unit, "measurements": self.lines(), "verdict": self.verdict}

    def lines(self) -> list[dict[str, Any]]:
        """Return an object for each measurement: `case`, and the speed under the name of its unit."""
        return [
            {"case": f"{each.subject}, {each.case}" if each.subject else each.case, self.unit: round(each.value, 2)}
            for each in self.measurements
        ]


def benchmark(config_or_export: Config | str | Path, *, what: str = "input", seconds: float = 5.0) -> BenchmarkResult:
    """Measure the speed of a part of the way from data to predictions.

    Args:
        config_or_export: a configuration; for `serving`, or the directory of an export.
        what: `input` for each stage of the input beside the training step, `train` for the training step alone on
            random pixels, `serving` for an export: the given one, or new ones in float32 and, where the processor
            computes in it, bfloat16.
        seconds: duration of each measurement, up to a day.

    Raises:
        UserError: for settings that do not fit, or a corrupt export.
    """
    check_number("seconds", seconds, Range(above=0, maximum=_MAX_SECONDS))
    if what not in _PARTS:
        raise UserError(f"unknown benchmark {what!r}; did you mean {closest(what, _PARTS)}?")
    if not isinstance(config_or_export, Config):
        if what != "serving":
            raise UserError(f"the {what} benchmark takes a configuration; exports have none")
        export = read_export(config_or_export)
        return BenchmarkResult("milliseconds", tuple(_measure_export(export, str(export.directory), seconds)))
    return {"input": _input, "train": _train, "serving": _serving}[what](config_or_export, seconds)


def _input(config: Config, seconds: float) -> BenchmarkResult:
    found = measure_input(config, seconds=seconds)
    speeds = {**found.stages, f"{config.model.name} takes": found.model}
    measurements = tuple(Measurement(case, value) for case, value in speeds.items())
    return BenchmarkResult("images_per_second", measurements, found.verdict)


def _train(config: Config, seconds: float) -> BenchmarkResult:
    config = without_data(config)
    size = create_preprocess(config.data).size_text
    case = f"{config.model.name}, {size}, {config.data.batch_size} in a step"
    measurement = Measurement(case, measure_training(config, seconds=seconds))
    return BenchmarkResult("images_per_second", (measurement,))


def _serving(config: Config, seconds: float) -> BenchmarkResult:
    config = without_data(config)
    half = choose_precision("auto")[0] == "mixed_bfloat16"
    model = _network(config)
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as scratch:
        for precision in ("float32", *(["bfloat16"] if half else [])):
            labels = [str(index) for index in range(model.output_shape[-1])]
            export = export_model(model, Path(scratch) / precision, precision=precision, labels=labels)
            measurements += _measure_export(read_export(export), f"{config.model.name} {precision}", seconds)
    return BenchmarkResult("milliseconds", tuple(measurements))


def _measure_export(export: Export, subject: str, seconds: float) -> Iterator[Measurement]:
    for batch, milliseconds in measure_batch_latencies(export, _BATCHES, seconds=seconds).items():
        yield Measurement(f"batch of {batch}", milliseconds, subject)


def _network(config: Config) -> keras.Model:
    """Create the network with statistics like those of a trained one: biases of zero would be optimized away."""
    model, generator = create_network(config, num_classes=config.model.num_classes or 1000), np.random.default_rng(0)
    if None in model.input_shape[1:]:
        raise UserError(f"{config.model.name} takes images of any size; train.end_size=0 fixes the measured size")
    for variable in model.variables:
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith(("beta", "moving_mean")):
            variable.assign(generator.normal(0.0, 0.1, variable.shape))
    model.preprocess = create_preprocess(config.data)
    return model
