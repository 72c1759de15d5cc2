"""The README: its code runs, its commands, speeds and links are correct."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnet_tf

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_blocks_define_the_names_that_they_use():
    nodes = list(ast.walk(ast.parse("".join(PYTHON))))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    imported = {each.asname or each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    assigned = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    assert {node.id for node in names} - assigned - imported == {"print"}


@pytest.mark.slow
def test_the_first_python_block_runs(tmp_path, monkeypatch, data_dir):
    block = PYTHON[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resnet_tf.data.sources.digits.Digits.__init__", _in(data_dir))
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["backbone"].output_shape == (None, 2048)
    assert names["predictor"].path == names["result"].export
    prediction = names["predictor"](np.zeros((8, 8, 1), np.uint8))
    assert prediction.probabilities.shape == (10,)
    assert names["result"].run.step == names["run"].step == 3 * 7
    assert (tmp_path / "runs" / "three" / "export" / "serving" / "1").is_dir()


@pytest.mark.slow
@pytest.mark.long
def test_the_block_on_published_weights_runs(tmp_path, monkeypatch):
    """Random weights replace the published file."""
    resnet_tf.create_model("resnet50").save_weights(tmp_path / "published.weights.h5")
    monkeypatch.setattr("resnet_tf.model.create.fetch", lambda row: tmp_path / "published.weights.h5")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (300, 200)).save("cat.jpg")
    names = {"resnet_tf": resnet_tf}
    exec(compile(PYTHON[1], "README.md", "exec"), names)
    header, *_ = str(resnet_tf.list_weights("resnet50*")).splitlines()
    assert f"# names, {', '.join(re.split(' {2,}', header)[1:])};" in README
    assert names["model"].labels[:2] == ("tench", "goldfish")
    assert names["path"].name == "1"
    assert names["logits"].shape == (1, 1000)
    assert names["preprocess"].normalize(np.zeros([2, 224, 224, 3], np.float32)).shape == (2, 224, 224, 3)


def _in(data_dir):
    """Return `Digits.__init__` with the given data directory instead of the user's."""
    from resnet_tf.data.sources.digits import Digits

    original = Digits.__init__

    def init(self, **kwargs):
        original(self, **{**kwargs, "data_dir": str(data_dir)})

    return init


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"pip install '\.\[test\]' && (.+)", README)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_has_at_most_180_lines():
    assert len(README.splitlines()) <= 180


def test_the_speeds_are_rows_of_the_benchmarks():
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text()
    (table,) = re.findall(r"\| speed, images/s .*\n\|[-|]+\n((?:\|.*\n)+)", README)
    rows = table.splitlines()
    assert len(rows) == 3
    assert set(rows) <= set(benchmarks.splitlines())
    for ratio in re.findall(r"takes (\S+) times .* and (\S+) times", " ".join(README.split()))[0]:
        assert f"**{ratio}**" in table


def test_every_linked_file_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists()
