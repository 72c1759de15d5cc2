"""benchmarks/scaling.py: what workers on one machine cost."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import scaling  # noqa: E402

from resnet_tf.core.files import read_json_lines  # noqa: E402


def test_the_table_states_differences_of_the_same_round():
    facts = {"model": "resnet20", "batch": 128, "cores": "2", "processor": "CPU name"}
    seconds = {0: (0.10, 0.20, 0.12), 1: (0.11, 0.22, 0.13), 2: (0.15, 0.25, 0.18), 4: (0.2, 0.3, 0.4)}
    rows = [{"workers": count, "seconds": each} | facts for count, times in seconds.items() for each in times]
    *_, alone, one, two, _, _, machine = scaling.render(rows).splitlines()
    assert alone == "| one process, no cluster | 128 | 120 (100 to 200) | 1,067 |  |"
    assert one == "| 1 | 128 | 130 (110 to 220) | 985 | 10 (10 to 20) |"
    assert two == "| 2 | 64 | 180 (150 to 250) | 711 | 50 (50 to 60) |"
    assert machine == "resnet20, batch 128, on 2 cores of CPU name; medians of 3 rounds (least to most)."


def test_the_table_is_up_to_date():
    tables = {"scaling": scaling.render(read_json_lines(scaling.RESULTS))}
    scaling.rewrite(ROOT, tables, command="", check_only=True)


@pytest.mark.slow
@pytest.mark.long
def test_workers_are_measured(monkeypatch):
    monkeypatch.setattr(scaling, "WORKERS", (0, 2))
    rows = scaling.measure(model="resnet8_w32", batch=8, steps=3)
    assert [row["workers"] for row in rows] == [0, 2]
    assert all(0 < row["seconds"] < 60 for row in rows)
