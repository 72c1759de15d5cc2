"""The tables of results say what the files of their runs say."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import plan
import pytest
import table

from resnet_tf.config import list_configs, load_config

ROOT = Path(__file__).parents[1]
OURS = [run for run in plan.all_runs() if run.config != plan.PYTORCH]
RUN = plan.Run("small_seed0", "cifar10_resnet20", ("train.epochs=3",))
ROW = plan.Row("small", (RUN, dataclasses.replace(RUN, name="small_seed1")), "91.25")


def test_the_pages_hold_what_the_runs_say(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["table.py", "--check"])
    table.main()


def test_a_page_that_says_something_else_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["table.py", "--check"])
    monkeypatch.setattr(table, "render", lambda each: "another table\n")
    with pytest.raises(SystemExit, match=r"not what results/ says: README.md: cifar10, docs/training.md: published"):
        table.main()


@pytest.mark.parametrize("run", OURS, ids=lambda run: run.name)
def test_every_command_is_one(run):
    load_config(run.config, run.changes)


def test_every_recipe_that_was_not_run_has_its_published_figure():
    rows = {row.runs[0].config: row for each in plan.TABLES for row in each.rows if not row.run_here}
    texts = {name: runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["__doc__"] for name in list_configs()}
    assert set(rows) == {name for name, text in texts.items() if "Not run here." in " ".join(text.split())}
    for name, row in rows.items():
        assert f"{row.published} %" in " ".join(texts[name].split())


def test_a_row_is_reckoned_from_its_files(tmp_path, monkeypatch):
    """By hand: accuracies 80 and 82 %; 3 epochs of 60 s, the middle one, and one test of 12 s make 3.2 minutes."""
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    assert table.render(plan.Table("t", "README.md", (ROW,))) == ""
    _keep(tmp_path / "small_seed0", "train.epochs=3", top1=0.80)
    text = plan.Table("t", "README.md", (ROW,))
    assert "| **80.00** | 1 of 2 |" in table.render(text)
    _keep(tmp_path / "small_seed1", "train.epochs=3", top1=0.82)
    head, _, row = table.render(text).splitlines()
    assert head == "|  | accuracy (%) | seeds | epochs | minutes | images/s | published (%) | command |"
    command = "`python -m resnet_tf.train --config=cifar10_resnet20 --set train.epochs=3`"
    assert row == f"| small | **81.00** ± 1.41 | 2 | 3 | 3.2 | 1,000 | 91.25 | {command} |"


def test_a_run_of_other_settings_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    _keep(tmp_path / "small_seed0", "train.epochs=4", top1=0.80)
    with pytest.raises(SystemExit, match=r"small_seed0 was not run as .* train.epochs differ"):
        table.read(RUN)


def test_a_table_goes_between_its_marks_alone():
    page = "a\n<!-- results: t -->\nold\n<!-- end -->\nb\n<!-- end -->\n"
    assert table.insert(page, "t", "new\n") == "a\n<!-- results: t -->\nnew\n<!-- end -->\nb\n<!-- end -->\n"
    with pytest.raises(SystemExit, match="results: other"):
        table.insert(page, "other", "new\n")


def _keep(folder: Path, change: str, *, top1: float) -> None:
    """Three epochs, the last slow and tested."""
    folder.mkdir()
    (folder / "config.json").write_text(load_config("cifar10_resnet20", [change]).to_json())
    epochs = [{"train_seconds": seconds, "images_per_second": 60_000 / seconds} for seconds in (59.0, 60.0, 300.0)]
    epochs[2] |= {"val_seconds": 12.0, "val_top1": top1}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in epochs))
