"""Generated documentation: up to date, complete, with examples and file names that are correct."""

import ast
import doctest
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import resnet_tf

ROOT = Path(__file__).parents[1]
MAKE = ROOT / "docs" / "make_api.py"
MAKE_ARCHITECTURE = ROOT / "docs" / "make_architecture.py"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_the_api_page_is_up_to_date():
    done = subprocess.run([sys.executable, str(MAKE), "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_public_name_has_a_group_and_a_docstring():
    groups = runpy.run_path(str(MAKE))["GROUPS"]
    assert sorted(name for names in groups.values() for name in names) == sorted(resnet_tf.__all__)
    for name in resnet_tf.__all__:
        assert getattr(resnet_tf, name).__doc__, name


@pytest.mark.parametrize(
    "name",
    ["list_models", "create_model", "load_config", "SingleLabelEvaluation", "ImagePreprocess", "SignalPreprocess"],
)
def test_the_examples_of_docstrings_are_correct(name):
    thing = getattr(resnet_tf, name)
    module = sys.modules[thing.__module__]
    (test, *_) = (each for each in doctest.DocTestFinder().find(thing, name, module) if each.examples)
    result = doctest.DocTestRunner().run(test)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_the_architecture_page_is_up_to_date():
    done = subprocess.run(
        [sys.executable, str(MAKE_ARCHITECTURE), "--check"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_import_implied_by_others_has_no_arrow():
    import_map = runpy.run_path(str(MAKE_ARCHITECTURE))["import_map"]
    text = import_map({"core": set(), "model": {"core"}, "training": {"core", "model"}})
    assert re.findall(r"(\w+) --> (\w+)", text) == [("model", "core"), ("training", "model")]
    assert "| `training` | `core`, `model` |" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_and_names_in_the_pages_exist(page):
    """Check paths such as `resnet_tf/model/zoo.py`, and names after a path: `resnet_tf/model/zoo.py`: `MODELS`."""
    text = page.read_text()
    paths = re.findall(r"`((?:resnet_tf|tests|docs|benchmarks|configs|examples)/[\w/.]+?\.\w+)`", text)
    assert not [path for path in paths if not (ROOT / path).is_file()]
    for path, names in re.findall(r"`(resnet_tf/[\w/]+\.py)`: (`\w+`(?:, `\w+`)*)", text):
        nodes = ast.walk(ast.parse((ROOT / path).read_text()))
        defined = {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        assert set(re.findall(r"\w+", names)) <= defined, path
