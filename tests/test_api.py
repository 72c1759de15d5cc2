"""The Python API is documented: each name has its entry, and the examples in the docstrings are true."""

import doctest
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import resnet_tf

MAKE = Path(__file__).parents[1] / "docs" / "make_api.py"


def test_the_page_is_what_the_docstrings_say():
    done = subprocess.run([sys.executable, str(MAKE), "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_name_has_its_place():
    groups = runpy.run_path(str(MAKE))["GROUPS"]
    assert sorted(name for names in groups.values() for name in names) == sorted(resnet_tf.__all__)
    for name in resnet_tf.__all__:
        assert getattr(resnet_tf, name).__doc__, name


@pytest.mark.parametrize("name", ["list_models", "create_model", "load_config", "Evaluation", "Preprocess"])
def test_the_examples_are_true(name):
    thing = getattr(resnet_tf, name)
    module = sys.modules[thing.__module__]
    (test, *_) = (each for each in doctest.DocTestFinder().find(thing, name, module) if each.examples)
    result = doctest.DocTestRunner().run(test)
    assert (result.failed, result.attempted > 0) == (0, True)
