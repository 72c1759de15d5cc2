"""The model card of every kind of export: its figures are the metadata's, and its lines run as they stand."""

import base64
import json
import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from resnet_tf.core.export_metadata import read_export
from resnet_tf.model.create import create_model
from resnet_tf.serving.export import export_model
from resnet_tf.training.run import load_run

IN_PROCESS = ("serving", "litert", "keras", "onnx")


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run)


def _blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)


@pytest.mark.parametrize("target", IN_PROCESS)
def test_the_lines_of_a_card_run(run, tmp_path, monkeypatch, capsys, target):
    export = export_model(run, tmp_path / target, target=target)
    Image.new("RGB", (40, 30)).save(export / "cat.jpg")
    monkeypatch.chdir(export)
    for block in _blocks((export / "README.md").read_text(), "python"):
        assert len([line for line in block.splitlines() if line]) <= 6
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["hub", "hub_features"])
def test_the_lines_of_a_hub_card_run(run, tmp_path, target):
    """In a process of its own: the older Keras that TF Hub takes does not live beside the new one."""
    export = export_model(run, tmp_path / target, target=target)
    block = _blocks((export / "README.md").read_text(), "python")[0]
    done = subprocess.run([sys.executable, "-c", block], cwd=export, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_card_says_what_the_metadata_say(run, tiny_export):
    card, metadata = (tiny_export / "README.md").read_text(), read_export(tiny_export).metadata
    assert f"{run.model.count_params():,} parameters" in card
    assert "'digits'" in card
    assert "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card
    figures = [f"{run.metrics[name]:.4f}" for name in ("top1", "top5", "balanced_accuracy", "loss")]
    assert "On the 100 examples of split 'test[:100]'" in card
    assert f"| {' | '.join(figures)} |" in card
    assert metadata["speed"]["milliseconds"] > 0
    assert f"{metadata['speed']['milliseconds']:.3g} ms" in card
    assert "gray: values in [0, 1], minus (0.3), divided by (0.38)" in card


def test_the_request_of_a_card_carries_the_picture(tiny_export, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(bytes(range(256)) * 10)
    (block,) = _blocks((tiny_export / "README.md").read_text(), "sh")
    stub = "curl() { printf '%s' \"$2\"; }; "
    sent = subprocess.run(["bash", "-c", stub + block], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert base64.b64decode(json.loads(sent)["instances"][0]["b64"]) == (tmp_path / "cat.jpg").read_bytes()
    assert shlex.split(block)[-1] == "http://127.0.0.1:8501/v1/models/NAME:predict"


def test_the_card_of_a_bare_model_claims_nothing(tmp_path):
    model = create_model("resnet20", num_classes=40, input_shape=(32, 32, 3))
    export = export_model(model, tmp_path / "export", precision="bfloat16", default_signature="images")
    card = (export / "README.md").read_text()
    assert "What it was trained on is not known" in card
    assert "Trained on" not in card
    assert "40 classes: 0, 1, 2" in card
    assert "and 20 more, in `assets.extra/labels.txt`" in card
    assert 'model.signatures["image_bytes"]' in card
    assert re.search(r"This export answers \d+ of 32 examples \(random\) as the network does", card)
    assert "slow elsewhere" in card
