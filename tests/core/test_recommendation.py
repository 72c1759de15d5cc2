"""Measurements of exports: percentiles, the recommendation, the table, and their stored form."""

import dataclasses
import json
import math

import numpy as np
import pytest

from resnet_tf.core.errors import UserError
from resnet_tf.core.export_measurement import ExportMeasurement, Latency, Throughput
from resnet_tf.core.recommendation import recommend
from resnet_tf.core.serving_benchmark import OmittedExport, ServingBenchmark
from resnet_tf.core.text import short_number
from resnet_tf.serving.export import TARGETS


def measurement(name: str, milliseconds: float, rate: float, accuracy: float | None = 0.9) -> ExportMeasurement:
    """Return a measurement with a median latency of one example, a best throughput and a metric."""
    target, precision = name.split()
    latency = tuple(Latency(batch, milliseconds * batch, 2 * milliseconds * batch, 100) for batch in (1, 8, 32))
    throughput = (Throughput(8, 1, rate / 2), Throughput(2, 32, rate), Throughput(2, 8, rate / 3))
    return ExportMeasurement(target, precision, latency, throughput, 0.5, 97.5, 900.0, 200.0, accuracy)


FLOAT32 = measurement("serving float32", 10.0, 100.0)
BFLOAT16 = measurement("serving bfloat16", 6.0, 300.0, 0.899)
OPENVINO = measurement("openvino int8", 2.0, 250.0, 0.895)
LITERT = measurement("litert int8", 1.0, 900.0, 0.85)
MEASURED = (FLOAT32, BFLOAT16, OPENVINO, LITERT)


def benchmark(**changes) -> ServingBenchmark:
    """Return a benchmark of `MEASURED`."""
    omitted = (OmittedExport("onnx", "", "it needs pip install 'resnet_tf[onnx]'"),)
    known = ServingBenchmark("resnet50", "top1", 0.9, 5000, 0.01, 5.0, "CPU", 2, MEASURED, omitted)
    return dataclasses.replace(known, **changes)


@pytest.mark.parametrize("count", [1, 2, 19, 99, 100, 101, 250])
def test_percentiles_are_the_nearest_rank(count):
    """The smallest duration that at least 50 % or 99 % of the calls do not exceed, by the definition."""
    seconds = np.random.default_rng(count).exponential(size=count).tolist()
    ranked = sorted(seconds)
    latency = Latency.of(8, seconds)
    assert latency.p50_milliseconds == pytest.approx(1000 * ranked[math.ceil(0.5 * count) - 1])
    assert latency.p99_milliseconds == pytest.approx(1000 * ranked[math.ceil(0.99 * count) - 1])
    assert (latency.batch, latency.calls) == (8, count)


def chosen(exports, reference, max_accuracy_drop=0.01) -> list[str | None]:
    """Return the names of the recommended exports."""
    found = recommend(exports, metric="top-1 accuracy", reference=reference, max_accuracy_drop=max_accuracy_drop)
    assert found.sentence.endswith(".")
    assert found.sentence.count(". ") == 0
    return [each and each.name for each in (found.latency, found.throughput, found.saved_model)]


@pytest.mark.parametrize(
    ("exports", "reference", "max_accuracy_drop", "expected"),
    [
        (MEASURED, 0.9, 0.01, ["openvino int8", "serving bfloat16", "serving bfloat16"]),  # litert loses 0.05
        (MEASURED, 0.9, 0.05, ["litert int8", "litert int8", "serving bfloat16"]),  # exactly the limit
        (MEASURED, 0.9, 0.0, ["serving float32", "serving float32", None]),
        (MEASURED, None, 0.01, ["litert int8", "litert int8", "serving bfloat16"]),  # without data
        ((OPENVINO,), 0.9, 0.01, ["openvino int8", "openvino int8", None]),
        ((FLOAT32, BFLOAT16), 0.9, 0.01, ["serving bfloat16", "serving bfloat16", None]),
        ((LITERT,), 0.9, 0.01, [None, None, None]),
        ((dataclasses.replace(FLOAT32, accuracy=None),), 0.9, 0.01, [None, None, None]),
        ((), None, 0.01, [None, None, None]),
    ],
)
def test_the_fastest_exports_within_the_accuracy_are_recommended(exports, reference, max_accuracy_drop, expected):
    assert chosen(exports, reference, max_accuracy_drop) == expected


def test_the_sentence_names_numbers_and_ratios():
    assert benchmark().recommendation.sentence == (
        "Deploy openvino int8 for single images: 2.00 ms (5.00 times as fast as serving float32); serving bfloat16 has "
        "the best throughput, 300 images/s (3.00 times as fast as serving float32); with TensorFlow Serving, deploy "
        "serving bfloat16: 6.00 ms (1.67 times as fast as serving float32); each is within 1 percentage point of the "
        "network's top-1 accuracy."
    )
    assert benchmark(exports=(BFLOAT16,), reference=None).recommendation.sentence == (
        "Deploy serving bfloat16 for single images: 6.00 ms; it has the best throughput, 300 images/s; accuracy was "
        "not measured."
    )
    none = benchmark(exports=(LITERT,), max_accuracy_drop=0.005).recommendation
    assert none.sentence.endswith("none is within 0.5 percentage points of the network's top-1 accuracy.")


def test_json_has_everything_and_is_read_back():
    known = benchmark(exports=(*MEASURED, dataclasses.replace(FLOAT32, target="keras", accuracy=None, note="no data")))
    stored = json.loads(json.dumps(known.to_dict()))
    assert ServingBenchmark.from_dict(stored) == known
    assert stored["exports"] == json.loads(json.dumps(known.lines()))
    assert stored["recommendation"] == known.recommendation.sentence
    by_name = {(each["target"], each["precision"]): each for each in stored["exports"]}
    assert by_name["openvino", "int8"]["accuracy_change_points"] == pytest.approx(-0.5)
    assert by_name["keras", "float32"]["accuracy_change_points"] is None
    assert by_name["openvino", "int8"]["recommended_for"] == ["latency"]
    assert by_name["serving", "bfloat16"]["recommended_for"] == ["throughput", "tensorflow_serving"]
    assert by_name["litert", "int8"]["best_throughput"] == {"threads": 2, "batch": 32, "images_per_second": 900.0}
    assert set(by_name["serving", "float32"]) == {
        *("target", "precision", "latency", "throughput", "best_throughput", "first_answer_seconds", "disk_mb"),
        *("memory_mb", "model_memory_mb", "accuracy", "accuracy_change_points", "note", "recommended_for"),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "f1"}, "metric is 'f1', not one of top1"),
        ({"reference": 90}, r"reference is 90, outside of \[0, 1\]"),
        ({"exports": 3}, "exports is an integer, not a list"),
        ({"exports": [{"accuracy": 7}]}, r"accuracy is 7, outside of \[0, 1\]"),
        ({"exports": [{"latency": []}]}, "latency must begin with that of one example"),
        ({"exports": [{"target": "a\nb"}]}, r"'a\\nb' is no target or precision"),
        ({"exports": [{"disk_mb": -1}]}, "a measured value is outside of"),
        ({"exports": [{}, {"latency": [{"batch": 1, "p50_milliseconds": 1, "p99_milliseconds": 1, "calls": 1}]}]},
         "measured with different batch sizes"),
        ({"omitted": [{"target": "onnx"}]}, r"omitted\[0\] has no 'precision'"),
    ],
)  # fmt: skip
def test_stored_values_are_checked(change, message):
    stored = benchmark(exports=(FLOAT32,)).to_dict()
    if isinstance(change.get("exports"), list):
        change = {"exports": [stored["exports"][0] | each for each in change["exports"]]}
    with pytest.raises(UserError, match=message):
        ServingBenchmark.from_dict(json.loads(json.dumps(stored | change)))


def test_the_table_is_aligned_and_fits_a_terminal():
    names = [f"{target} {precision}" for target, precisions in TARGETS.items() for precision in precisions]
    exports = tuple(measurement(name, 1234.5 / (index + 1), 9876.5) for index, name in enumerate(names))
    known = benchmark(exports=exports)
    table = known.describe().splitlines()[2 : 4 + len(exports)]
    assert {len(line) for line in table} == {len(table[0])}
    assert len(table[0]) <= 120
    assert [" ".join(line.split()[:2]) for line in table[2:]] == [each.name for each in known.by_latency]
    assert len(known.rows()[0]) == len(known.titles()) == len(table[1].split())
    unmeasured = dataclasses.replace(FLOAT32, memory_mb=None, model_memory_mb=None)
    ((*_, change, disk, memory, model, first),) = benchmark(reference=None, exports=(unmeasured,)).rows()
    assert [change, disk, memory, model, first] == ["-", "97.5", "-", "-", "0.500"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.01234, "0.0123"), (0.5, "0.500"), (9.996, "10.0"), (100.0, "100"), (999.6, "1,000"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits(number, text):
    assert short_number(number) == text


def test_exports_with_the_same_note_have_one_line():
    noted = [dataclasses.replace(each, note="no data") for each in MEASURED]
    assert benchmark(exports=tuple(noted), omitted=()).notes == ["each export: no data"]
    assert benchmark(exports=(*noted[:2], LITERT), omitted=()).notes == ["serving float32, serving bfloat16: no data"]
    assert benchmark(exports=tuple(noted[:1]), omitted=()).notes == ["serving float32: no data"]
    assert benchmark().notes == ["not measured: onnx: it needs pip install 'resnet_tf[onnx]'"]
