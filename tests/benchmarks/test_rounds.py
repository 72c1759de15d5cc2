"""Rows that the benchmarks print with `--json`: one object for each pair, with the speed of the case and the ratio."""

import json

import rounds
import serving


def _rows(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_pair_is_one_row_of_throughput_and_ratio(capsys):
    rates = {"ours": [10.0, 30.0, 20.0], "peer": [10.0, 10.0, 10.0], "alone": [5.0, 5.0, 6.0]}
    rounds.report(rates, [("ours", "peer"), ("ours", "not measured")], as_json=True)
    assert _rows(capsys.readouterr().out) == [
        {"case": "peer", "images_per_second": 10.0},
        {"case": "alone", "images_per_second": 5.0},
        {"case": "ours", "images_per_second": 20.0, "ratio_to": "peer", "ratio": 2.0},
    ]


def test_a_pair_is_one_row_of_latency_and_ratio(capsys):
    times = {("ours float32", 1): [2.0, 4.0, 3.0], ("Keras export", 1): [6.0, 6.0, 6.0]}
    serving._report(times, as_json=True)
    assert _rows(capsys.readouterr().out) == [
        {"case": "ours float32", "batch": 1, "milliseconds": 3.0, "ratio_to": "Keras export", "ratio": 2.0},
        {"case": "Keras export", "batch": 1, "milliseconds": 6.0},
    ]
