"""Tables of results: up to date, computed from the files of their runs, with commands that work."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import plan
import pytest
import table

from resnet_tf.config import list_configs, load_config
from resnet_tf.core.files import append_json_lines

ROOT = Path(__file__).parents[1]
OURS = [run for run in plan.all_runs() if run.config != plan.PYTORCH]
RUN = plan.Run("small_seed0", "cifar10_resnet20", ("train.epochs=3",))
ROW = plan.Row("small", (RUN, dataclasses.replace(RUN, name="small_seed1")), "91.25")


def test_the_tables_are_up_to_date(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["table.py", "--check"])
    table.main()


def test_an_outdated_page_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["table.py", "--check"])
    monkeypatch.setattr(table, "render", lambda each: "another table\n")
    with pytest.raises(SystemExit, match=r"out of date: README.md: cifar10, docs/training.md: fast"):
        table.main()


@pytest.mark.parametrize("run", OURS, ids=lambda run: run.name)
def test_every_command_has_a_valid_configuration(run):
    load_config(run.config, run.overrides)


def test_every_recipe_that_was_not_run_has_its_published_accuracy():
    rows = {row.runs[0].config: row for each in plan.TABLES for row in each.rows if not row.run_here}
    texts = {name: runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["__doc__"] for name in list_configs()}
    assert set(rows) == {name for name, text in texts.items() if "Not run here." in " ".join(text.split())}
    for name, row in rows.items():
        assert f"{row.published} %" in " ".join(texts[name].split())


def test_a_row_is_computed_from_its_files(tmp_path, monkeypatch):
    """By hand: 3 epochs of 60 s (the median) and one evaluation of 12 s are 3.2 minutes."""
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    assert table.render(plan.Table("t", "README.md", (ROW,))) == ""
    _write_run(tmp_path / "small_seed0", "train.epochs=3", top1=0.80)
    text = plan.Table("t", "README.md", (ROW,))
    assert "| **80.00** | 1 of 2 |" in table.render(text)
    _write_run(tmp_path / "small_seed1", "train.epochs=3", top1=0.82)
    head, _, row = table.render(text).splitlines()
    assert head == "|  | accuracy (%) | seeds | epochs | minutes | images/s | published (%) | command |"
    command = "`python -m resnet_tf.train --config=cifar10_resnet20 --set train.epochs=3`"
    assert row == f"| small | **81.00** ± 1.41 | 2 | 3 | 3.2 | 1,000 | 91.25 | {command} |"


def test_rows_of_minutes_are_ordered_and_the_highest_accuracy_is_bold(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    assert table.render_minutes() == ""
    (tmp_path / "minutes").mkdir()
    rows = [
        {"data": "b", "minutes": 10.0, "method": "auto", "top1": 0.9, "total_minutes": 9.94},
        {"data": "b", "minutes": 2.0, "method": "auto", "top1": 0.8, "total_minutes": 1.9},
        {"data": "a", "minutes": 2.0, "method": "fixed", "top1": 0.7, "total_minutes": 2.0},
        {"data": "b", "minutes": 2.0, "method": "pytorch", "top1": 0.85, "total_minutes": 2.04},
    ]
    chosen = {"network": "n", "image_size": 8, "epochs": 3}
    append_json_lines(tmp_path / "minutes" / "results.jsonl", [row | chosen for row in rows])
    assert table.render_minutes().splitlines()[2:] == [
        "| b | 2 | 80.00 % in 1.9 |  | **85.00 %** in 2.0 | `n`, 8 pixels, 3 epochs |",
        "| b | 10 | **90.00 %** in 9.9 |  |  | `n`, 8 pixels, 3 epochs |",
        "| a | 2 |  | **70.00 %** in 2.0 |  |  |",
    ]


def test_a_run_with_other_settings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    _write_run(tmp_path / "small_seed0", "train.epochs=4", top1=0.80)
    with pytest.raises(SystemExit, match=r"small_seed0 is not a run of .* train.epochs differ"):
        table.read(RUN)


def test_only_the_section_of_a_table_is_replaced():
    page = "a\n<!-- results: t -->\nold\n<!-- end -->\nb\n<!-- end -->\n"
    assert table.insert(page, "t", "new\n") == "a\n<!-- results: t -->\nnew\n<!-- end -->\nb\n<!-- end -->\n"
    with pytest.raises(SystemExit, match="results: other"):
        table.insert(page, "other", "new\n")


def _write_run(folder: Path, override: str, *, top1: float) -> None:
    """Write a run of three epochs, of which the last is slow and evaluated."""
    folder.mkdir()
    (folder / "config.json").write_text(load_config("cifar10_resnet20", [override]).to_json())
    epochs = [{"train_seconds": seconds, "images_per_second": 60_000 / seconds} for seconds in (59.0, 60.0, 300.0)]
    epochs[2] |= {"val_seconds": 12.0, "val_top1": top1}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in epochs))
