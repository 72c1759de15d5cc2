"""What the README says is what happens."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_lines_run(tmp_path, monkeypatch, data_dir):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resnet_tf.data.digits.Digits.__init__", _in(data_dir))
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["backbone"].output_shape == (None, 2048)
    assert names["predictor"].path == (names["export"])
    assert (tmp_path / "runs" / "three" / "export" / "serving" / "1").is_dir()


def _in(data_dir):
    """The digits' builder, writing to the session's directory instead of the user's."""
    from resnet_tf.data.digits import Digits

    original = Digits.__init__

    def init(self, **kwargs):
        original(self, **{**kwargs, "data_dir": str(data_dir)})

    return init


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"pip install '\.\[test\]' && (.+)", README)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_network_family_and_linked_file_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists()
