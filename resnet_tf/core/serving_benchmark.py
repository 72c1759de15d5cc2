"""Benchmark of the exports of one network: a table of all targets and precisions, and a recommendation."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_tf.core.errors import UserError
from resnet_tf.core.export_measurement import ExportMeasurement
from resnet_tf.core.metrics import MAIN_METRICS, METRIC_TITLES
from resnet_tf.core.recommendation import Recommendation, recommend
from resnet_tf.core.text import counted, printable, short_number
from resnet_tf.core.validation import create

_SHORT_METRICS = {"top1": "top-1", "mean_average_precision": "mAP"}
_UNKNOWN = "-"


@dataclass(frozen=True)
class OmittedExport:
    """Export that was not measured.

    Attributes:
        target: see `export_model`.
        precision: see `export_model`; empty for all precisions of the target.
        reason: one line.
    """

    target: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{' '.join(filter(None, (self.target, self.precision)))}: {self.reason}")


@dataclass(frozen=True, repr=False)
class ServingBenchmark:
    """Measurements of the exports of one network, each in its own process on the CPU.

    Attributes:
        network: name of the network.
        metric: `top1`, or `mean_average_precision` of multi-label targets.
        reference: metric of the network itself on the evaluation split, a fraction in [0, 1]; None without data.
        examples: number of examples of the evaluation split; 0 without data.
        max_accuracy_drop: largest drop of the metric for which an export is recommended, a fraction in [0, 1].
        seconds: time limit of the calls for each batch size and number of threads.
        processor: name of the processor.
        cores: number of its cores that were used.
        exports: measured exports.
        omitted: exports that were not measured, with the reasons.
    """

    network: str
    metric: str
    reference: float | None
    examples: int
    max_accuracy_drop: float
    seconds: float
    processor: str
    cores: int
    exports: tuple[ExportMeasurement, ...]
    omitted: tuple[OmittedExport, ...] = ()

    @classmethod
    def from_dict(cls, stored: Any) -> "ServingBenchmark":
        """Create the object from the result of `to_dict`, also if read from JSON.

        Raises:
            UserError: for missing values, or values of other types or ranges.
        """
        known = create(cls, stored)
        if known.metric not in MAIN_METRICS:
            raise UserError(f"metric is {known.metric!r}, not one of {', '.join(MAIN_METRICS)}")
        for name, value in (("reference", known.reference), ("max_accuracy_drop", known.max_accuracy_drop)):
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} is {value}, outside of [0, 1]")
        for export in known.exports:
            export.check_values()
        if len({tuple(latency.batch for latency in each.latency) for each in known.exports}) > 1:
            raise UserError("the exports were measured with different batch sizes")
        return known

    def to_dict(self) -> dict[str, Any]:
        """Return all values and the recommendation, ready for JSON; `exports` are those of `lines`."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {
            **fields,
            "exports": self.lines(),
            "omitted": [dataclasses.asdict(each) for each in self.omitted],
            "recommendation": self.recommendation.sentence,
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return an object for each export, see `ExportMeasurement.to_dict`.

        Further keys: `accuracy_change_points`, percentage points beyond the metric of the network, or None; and
        `recommended_for`, a list with `latency`, `throughput` and `tensorflow_serving`, as far as they apply.
        """
        chosen = self.recommendation
        uses = {
            "latency": chosen.latency,
            "throughput": chosen.throughput,
            "tensorflow_serving": chosen.saved_model,
        }
        return [
            {
                **each.to_dict(),
                "accuracy_change_points": self.change_points(each),
                "recommended_for": [use for use, export in uses.items() if export is each],
            }
            for each in self.exports
        ]

    @property
    def recommendation(self) -> Recommendation:
        """Exports to deploy, see `Recommendation`."""
        return recommend(
            self.exports,
            metric=METRIC_TITLES[self.metric],
            reference=self.reference,
            max_accuracy_drop=self.max_accuracy_drop,
        )

    @property
    def by_latency(self) -> list[ExportMeasurement]:
        """Exports by their median latency for one example, the fastest first."""
        return sorted(self.exports, key=lambda each: each.milliseconds)

    def change_points(self, export: ExportMeasurement) -> float | None:
        """Return the metric of an export beyond that of the network, in percentage points; None if unknown."""
        if self.reference is None or export.accuracy is None:
            return None
        return 100 * (export.accuracy - self.reference)

    @property
    def conditions(self) -> list[str]:
        """Circumstances of the measurements, one sentence each."""
        machine = (
            f"{printable(self.network)} on {counted(self.cores, 'core')} of {printable(self.processor)}, "
            f"{self.seconds:g} s of calls for each speed."
        )
        if self.reference is None:
            return [machine]
        examples = counted(self.examples, "example")
        return [machine, f"The {METRIC_TITLES[self.metric]} of the network is {self.reference:.2%} on {examples}."]

    @property
    def notes(self) -> list[str]:
        """Lines about what was not measured; exports with the same note have one line."""
        names: dict[str, list[str]] = {}
        for each in self.exports:
            names.setdefault(each.note, []).append(each.name)
        unknown = [
            printable(f"{'each export' if len(own) == len(self.exports) > 1 else ', '.join(own)}: {note}")
            for note, own in names.items()
            if note
        ]
        return [*unknown, *(f"not measured: {each}" for each in self.omitted)]

    def titles(self) -> list[str]:
        """Return the title of each column of `rows`."""
        return [
            "export",
            *(f"batch {batch} {rank} (ms)" for batch in self.batches for rank in ("p50", "p99")),
            "best images/s",
            "threads x batch",
            f"{_SHORT_METRICS[self.metric]} change (points)",
            "disk (MB)",
            "memory (MB)",
            "model memory (MB)",
            "first prediction (s)",
        ]

    def rows(self) -> list[list[str]]:
        """Return the table as text, the fastest export first; the columns are those of `titles`."""
        return [[each.name, *self._cells(each)] for each in self.by_latency]

    def describe(self) -> str:
        """Return the conditions, the table, what was not measured, and the recommendation."""
        metric = _SHORT_METRICS[self.metric]
        batches = [title for batch in self.batches for title in ("batch", f"{batch}, ms")]
        heads = [
            ["", *batches, "best", "thr x", metric, "disk", "memory", "model", "first"],
            ["export", *["p50", "p99"] * len(self.batches), "images/s", "batch", "points", "MB", "MB", "MB", "s"],
        ]
        table = _align([*heads, *self.rows()]) if self.exports else []
        return "\n".join([*self.conditions, *table, *self.notes, self.recommendation.sentence])

    @property
    def batches(self) -> list[int]:
        """Batch sizes of the latencies."""
        return [each.batch for each in self.exports[0].latency] if self.exports else []

    def _cells(self, export: ExportMeasurement) -> Iterator[str]:
        for each in export.latency:
            yield from (short_number(each.p50_milliseconds), short_number(each.p99_milliseconds))
        best = export.best
        yield from (short_number(best.images_per_second), f"{best.threads}x{best.batch}")
        yield self.change_text(export)
        yield short_number(export.disk_mb)
        for memory in (export.memory_mb, export.model_memory_mb):
            yield _UNKNOWN if memory is None else f"{memory:,.0f}"
        seconds = export.first_answer_seconds
        yield f"{seconds:.3f}" if seconds < 1 else short_number(seconds)

    def change_text(self, export: ExportMeasurement) -> str:
        """Return the result of `change_points` with its sign, as text."""
        change = self.change_points(export)
        if change is None:
            return _UNKNOWN
        return f"{change:+.2f}" if round(change, 2) else "0.00"

    def __repr__(self) -> str:
        return f"ServingBenchmark({self.network!r}, exports={len(self.exports)}, omitted={len(self.omitted)})"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines with aligned columns, the first one to the left and others to the right."""
    first, *others = ([len(cell) for cell in column] for column in zip(*rows, strict=True))
    widths = [max(each) for each in others]
    return [
        "  ".join([row[0].ljust(max(first)), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))])
        for row in rows
    ]
