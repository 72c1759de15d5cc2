"""Exports of every target in new processes: this package's commands, `verify`, and the code of the model card."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import verify

from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.run import load_run

PACKAGES = {"litert": ("ai_edge_litert",), "onnx": ("onnxruntime", "tf2onnx"), "openvino": ("openvino",)}
TIMEOUT = 300  # seconds


def _python(*arguments: str, directory=None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=directory, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "serving",
        *(pytest.param(each, marks=pytest.mark.long) for each in ("keras", "hub", "litert", "onnx", "openvino")),
    ],
)
def test_every_target_is_used_in_new_processes(target, tiny_run, tiny_images, tmp_path):
    for package in PACKAGES.get(target, ()):
        pytest.importorskip(package)
    run = load_run(tiny_run)
    path = export_model(run, tmp_path / target, target=target)
    (tmp_path / "digit.png").write_bytes(tiny_images[0])
    expected = Predictor(path)(tiny_images[0])
    predicted = json.loads(_python("-m", "resnet_tf.predict", f"--model={path}", "--json", str(tmp_path / "digit.png")))
    assert predicted["labels"] == list(expected.labels)
    np.testing.assert_allclose(predicted["scores"], expected.scores, atol=1e-4)
    evaluated = json.loads(_python("-m", "resnet_tf.evaluate", f"--model={path}", "--json"))
    assert (evaluated["examples"], evaluated["top1"]) == (100, pytest.approx(run.metrics["top1"], abs=0.011))


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["keras", *(pytest.param(each, marks=pytest.mark.long) for each in ("serving", "hub"))]
)
def test_every_target_is_verified(target, tiny_run, tmp_path):
    from resnet_tf.data.sources import open_source

    run = load_run(tiny_run)
    path = export_model(run, tmp_path, target=target)
    evaluation = Predictor(path).evaluate(open_source(run.config.data).validation, count=10)
    assert verify(path, evaluation.logits, batch_size=5).same_top1 == 10


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("target", ["serving", "keras", "litert", "onnx"])
def test_the_code_of_the_card_runs_in_a_new_process(target, tiny_run, tiny_images, tmp_path):
    for package in PACKAGES.get(target, ()):
        pytest.importorskip(package)
    path = export_model(load_run(tiny_run), tmp_path / target, target=target)
    blocks = re.findall(r"```python\n(.*?)```", (path / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "cat.jpg").write_bytes(tiny_images[0])
        assert _python("-c", block, directory=path).strip()
