"""Speed of the input, of the training step and of exports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from resnet_tf.config import Config
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.ranges import Range, check_number
from resnet_tf.core.serving_benchmark import ServingBenchmark
from resnet_tf.inputs import create_preprocess
from resnet_tf.training.image_size import without_data
from resnet_tf.training.run import Run
from resnet_tf.training.runtime import restored_state
from resnet_tf.training.throughput import measure_input, measure_training
from resnet_tf.workflows.serving_benchmark import benchmark_exports

_PARTS = ("input", "train", "serving")
_MAX_SECONDS = 86_400


@dataclass(frozen=True)
class Measurement:
    """A measured speed.

    Attributes:
        case: what was measured, such as `+ decoding`.
        images_per_second: the speed.
    """

    case: str
    images_per_second: float


@dataclass(frozen=True)
class BenchmarkResult:
    """Outcome of `benchmark` for the input or the training step.

    Attributes:
        measurements: in the order in which they were taken.
        verdict: for the input, whether it or the model is the limit.
    """

    measurements: tuple[Measurement, ...]
    verdict: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON; see `lines`."""
        return {"measurements": self.lines(), "verdict": self.verdict}

    def lines(self) -> list[dict[str, Any]]:
        """Return an object for each measurement: `case` and `images_per_second`."""
        return [
            {"case": each.case, "images_per_second": round(each.images_per_second, 2)} for each in self.measurements
        ]


@overload
def benchmark(
    subject: Config, *, what: Literal["input", "train"] = "input", seconds: float = 5.0
) -> BenchmarkResult: ...


@overload
def benchmark(
    subject: Config | Run | str | Path, *, what: Literal["serving"], seconds: float = 5.0
) -> ServingBenchmark: ...


@overload
def benchmark(
    subject: Config | Run | str | Path, *, what: str, seconds: float = 5.0
) -> BenchmarkResult | ServingBenchmark: ...


@restored_state()
def benchmark(
    subject: Config | Run | str | Path, *, what: str = "input", seconds: float = 5.0
) -> BenchmarkResult | ServingBenchmark:
    """Measure the speed of a part of the way from data to predictions.

        result = resnet_tf.benchmark("runs/photos", what="serving")
        print(result.describe(), result.recommendation.latency)

    For random generators and the dtype policy, see `train_and_evaluate`.

    Args:
        subject: a configuration; for `serving` also a run, its directory, or the directory of an export.
        what: `input` for each stage of the input beside the training step; `train` for the training step alone on
            random pixels; `serving` for exports, each in a new process on the CPU. Of a run or a configuration, these
            are all targets and precisions whose packages are installed; of a configuration with random weights, so
            that their accuracy is not measured. For a run, the result is stored in `serving.json` of its directory,
            and its report page is rewritten.
        seconds: duration of each measurement, up to a day; of an export there are six.

    Returns:
        `ServingBenchmark` for `serving`, otherwise `BenchmarkResult`.

    Raises:
        UserError: for settings that do not fit, a missing or corrupt run or export, or data of a run that cannot be
            read.
    """
    check_number("seconds", seconds, Range(above=0, maximum=_MAX_SECONDS))
    if what not in _PARTS:
        raise UserError(f"unknown benchmark {what!r}; did you mean {closest(what, _PARTS)}?")
    if what == "serving":
        return benchmark_exports(subject, seconds=seconds)
    if not isinstance(subject, Config):
        raise UserError(f"the {what} benchmark takes a configuration, not a run or an export")
    return _input(subject, seconds) if what == "input" else _train(subject, seconds)


def _input(config: Config, seconds: float) -> BenchmarkResult:
    found = measure_input(config, seconds=seconds)
    speeds = {**found.stages, f"{found.network} takes": found.model}
    return BenchmarkResult(tuple(Measurement(*each) for each in speeds.items()), found.verdict)


def _train(config: Config, seconds: float) -> BenchmarkResult:
    config = without_data(config)
    size = create_preprocess(config.data).size_text
    case = f"{config.model.name}, {size}, {config.data.batch_size} in a step"
    return BenchmarkResult((Measurement(case, measure_training(config, seconds=seconds)),))
