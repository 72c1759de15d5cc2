"""Model cards of every export target: metrics equal the metadata, and the code examples run unchanged."""

import base64
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from resnet_tf.core.export_metadata import read_export
from resnet_tf.model.create import create_model
from resnet_tf.serving.card import model_card
from resnet_tf.serving.export import export_model
from resnet_tf.training.run import load_run

IN_PROCESS = ("serving", "litert", "keras", "onnx", pytest.param("openvino", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run)


def _blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("target", IN_PROCESS)
def test_code_of_a_card_runs(run, tmp_path, monkeypatch, capsys, target):
    export = export_model(run, tmp_path / target, target=target)
    Image.new("RGB", (40, 30)).save(export.parents[1] / "cat.jpg")
    monkeypatch.chdir(export)
    for block in _blocks((export / "README.md").read_text(), "python"):
        assert len([line for line in block.splitlines() if line]) <= 6
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["hub", pytest.param("hub_features", marks=pytest.mark.long)])
def test_code_of_a_hub_card_runs(run, tmp_path, target):
    """Runs in a new process: TF Hub needs Keras 2, which cannot be imported together with Keras 3."""
    export = export_model(run, tmp_path / target, target=target)
    block = _blocks((export / "README.md").read_text(), "python")[0]
    child = subprocess.run([sys.executable, "-c", block], cwd=export, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr


def test_card_contains_the_metadata(run, tiny_export):
    card, metadata = (tiny_export / "README.md").read_text(), read_export(tiny_export).metadata
    assert f"{run.model.count_params():,} parameters" in card
    assert "`digits.npz`" in card  # without the directory, which only this machine has
    assert str(Path(run.config.data.source).parent) not in card
    assert "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card
    metrics = [f"{run.metrics[name]:.4f}" for name in ("top1", "top5", "balanced_accuracy", "loss")]
    assert "float32 on the 100 examples of split `test[:100]`" in card
    assert f"| {' | '.join(metrics)} |" in card
    assert metadata["speed"]["milliseconds"] > 0
    assert f"{metadata['speed']['milliseconds']:.3g} ms" in card
    assert "gray: values in [0, 1], minus (0.3), divided by (0.38)" in card


@pytest.mark.parametrize("target", ["hub", "hub_features"])
def test_packages_of_a_hub_card_suffice(tiny_export, target):
    """tensorflow-hub imports pkg_resources, which later releases of setuptools lack; CI installs the same."""
    metadata = {**read_export(tiny_export).metadata, "target": target}
    setup = (Path(__file__).parents[2] / "setup.py").read_text()
    assert '"setuptools<82"' in setup
    assert "`pip install tensorflow-hub tf_keras 'setuptools<82'`" in model_card(metadata, signature="serving_default")


def test_request_of_a_card_contains_the_image(tiny_export, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(bytes(range(256)) * 10)
    directory = tmp_path / "models" / "1"
    directory.mkdir(parents=True)
    (block,) = _blocks((tiny_export / "README.md").read_text(), "sh")
    stub = "curl() { printf '%s' \"$2\"; }; "
    sent = subprocess.run(
        ["bash", "-c", stub + block], cwd=directory, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(sent)["signature_name"] == "serving_default"
    assert base64.b64decode(json.loads(sent)["instances"][0]["b64"]) == (tmp_path / "cat.jpg").read_bytes()
    assert shlex.split(block)[-1] == "http://127.0.0.1:8501/v1/models/NAME:predict"


def test_card_of_a_bare_model_has_no_training_data(tmp_path):
    model = create_model("resnet20", num_classes=40, input_shape=(32, 32, 3))
    export = export_model(model, tmp_path / "export", precision="bfloat16", default_signature="images")
    card = (export / "README.md").read_text()
    assert "The training data are unknown to this package" in card
    assert "Trained on" not in card
    assert "40 classes: 0, 1, 2" in card
    assert "and 20 more, in `assets.extra/labels.txt`" in card
    assert 'model.signatures["image_bytes"]' in card
    assert '\\"signature_name\\": \\"image_bytes\\"' in card, "serving_default takes float32 arrays"
    assert re.search(r"the same top-1 class as the network on \d+ of 32 examples \(random\)", card)
    assert "slow on others" in card
    assert "`TF_ENABLE_ONEDNN_OPTS=1` in the environment makes it faster" in card
