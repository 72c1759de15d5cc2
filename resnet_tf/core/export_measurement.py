"""Measurement of one export on this machine: latency, throughput, first prediction, memory, size and accuracy."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import shorten
from resnet_tf.core.validation import create

_SMALLEST, _LARGEST = 1e-9, 1e12  # number that can be measured
_MAX_NAME = 40  # characters of a target or a precision


@dataclass(frozen=True)
class Latency:
    """Duration of the calls of an export with one batch size, one after another.

    Attributes:
        batch: examples in a call.
        p50_milliseconds: median duration of a call.
        p99_milliseconds: duration that at most 1 % of the calls exceed; of fewer than 100 calls the longest.
        calls: number of calls.
    """

    batch: int
    p50_milliseconds: float
    p99_milliseconds: float
    calls: int

    @classmethod
    def of(cls, batch: int, seconds: Sequence[float]) -> "Latency":
        """Return the latency of calls by their durations in seconds.

        >>> Latency.of(1, [0.001] * 98 + [0.002, 0.004])
        Latency(batch=1, p50_milliseconds=1.0, p99_milliseconds=2.0, calls=100)
        """
        median, high = (1000 * np.percentile(seconds, [50, 99], method="inverted_cdf")).tolist()
        return cls(batch, median, high, len(seconds))


@dataclass(frozen=True)
class Throughput:
    """Examples per second of an export with a number of threads that call it at the same time.

    Attributes:
        threads: number of threads.
        batch: examples in a call.
        images_per_second: of all threads together.
    """

    threads: int
    batch: int
    images_per_second: float


@dataclass(frozen=True)
class ExportMeasurement:
    """Measurement of one export, in a process of its own on the CPU.

    Attributes:
        target: see `export_model`.
        precision: see `export_model`.
        latency: for each batch size, the first of which is 1.
        throughput: for each number of threads and batch size.
        first_answer_seconds: duration of loading the export and of the first call with one example, without the imports
            of Python packages; the shorter one of two processes.
        disk_mb: size of all files of the export, in MB.
        memory_mb: largest resident memory of the process during these calls, in MB, with TensorFlow, which it imports
            for every target; None where the system does not report it.
        model_memory_mb: the same beyond the memory before the export was loaded.
        accuracy: metric on the evaluation split, a fraction in [0, 1]; None if it was not measured.
        note: reason why the accuracy was not measured; otherwise empty.
    """

    target: str
    precision: str
    latency: tuple[Latency, ...]
    throughput: tuple[Throughput, ...]
    first_answer_seconds: float
    disk_mb: float
    memory_mb: float | None
    model_memory_mb: float | None
    accuracy: float | None = None
    note: str = ""

    @classmethod
    def from_dict(cls, stored: Any) -> "ExportMeasurement":
        """Create the object from the result of `to_dict`, also if read from JSON.

        Raises:
            UserError: for missing values, or values of other types or ranges.
        """
        measurement = create(cls, stored)
        measurement.check_values()
        return measurement

    def to_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON, with the best throughput as `best_throughput`."""
        return {**dataclasses.asdict(self), "best_throughput": dataclasses.asdict(self.best)}

    def check_values(self) -> None:
        """Check the values of an object that was read from a file.

        Raises:
            UserError: for values out of range.
        """
        if not self.latency or self.latency[0].batch != 1 or not self.throughput:
            raise UserError("latency must begin with that of one example, and throughput must not be empty")
        for name in (self.target, self.precision):
            if not name.isidentifier() or len(name) > _MAX_NAME:
                raise UserError(f"{shorten(name)} is no target or precision")
        numbers = [value for each in self.latency for value in dataclasses.astuple(each)]
        numbers += [value for each in self.throughput for value in dataclasses.astuple(each)]
        numbers += [self.first_answer_seconds, self.disk_mb]
        if not all(_SMALLEST <= number <= _LARGEST for number in numbers):
            raise UserError(f"a measured value is outside of [{_SMALLEST:g}, {_LARGEST:g}]")
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise UserError(f"accuracy is {self.accuracy}, outside of [0, 1]")

    @property
    def name(self) -> str:
        """Target and precision."""
        return f"{self.target} {self.precision}"

    @property
    def milliseconds(self) -> float:
        """Median latency of one example."""
        return self.latency[0].p50_milliseconds

    @property
    def best(self) -> Throughput:
        """The largest throughput."""
        return max(self.throughput, key=lambda each: each.images_per_second)
