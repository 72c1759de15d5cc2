"""Model cards of every export target: metrics equal the metadata, and the code examples run unchanged."""

import base64
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from resnet_tf.core.export_metadata import read_export
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.model.create import create_model
from resnet_tf.serving.card import model_card
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.run import load_run

INSIDE = "Inside the file; the caller must not normalize"
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
    assert "Compute gray = 0.299 R + 0.587 G + 0.114 B. Subtract (0.3) from the channels, and divide by (0.38)." in card


def _numbers(text: str) -> np.ndarray:
    return np.array([float(each) for each in text.split(", ")], np.float32)


def _kernel(name: str, x: np.ndarray) -> np.ndarray:
    """Return the triangle, or the cubic kernel of Keys (1981) with its parameter a, which follows the name."""
    x, (_, *a) = np.abs(x), name.split(" with a = ")
    if not a:
        return np.maximum(1 - x, 0)
    a = float(a[0])
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _resize(image: np.ndarray, size: list[int], kernel: str, *, widened: bool) -> np.ndarray:
    """Resize an image, [h, w, 3], by the weighted means of the pixels around the center of each new one."""
    for axis, length in enumerate(size):
        scale = image.shape[axis] / length
        centers, positions = (np.arange(length) + 0.5) * scale, np.arange(image.shape[axis]) + 0.5
        distances = (positions - centers[:, np.newaxis]) / (max(scale, 1) if widened else 1)
        weights = _kernel(kernel, distances)
        weights /= weights.sum(axis=1, keepdims=True)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
    return image


def _follow(card: str, image: Image.Image) -> np.ndarray:
    """Return the network's input for an image by the text of a model card, with PIL and NumPy."""
    assert "Decode the image to RGB with 8 bits per channel: drop an alpha channel" in card
    pixels = np.asarray(image.convert("RGB"), np.float64)
    kernel, width = re.search(r"Resize it \((.*?), a kernel (.*?) for reductions", card).groups()
    if least := re.search(r"by the smallest factor that gives at least (\d+)x(\d+) pixels, both edges rounded", card):
        factor = max(int(each) / edge for edge, each in zip(pixels.shape, least.groups(), strict=False))
        size = [round(factor * edge) for edge in pixels.shape[:2]]
    else:
        shorter = re.search(r"the shorter edge to (\d+) pixels, the longer edge in proportion, rounded down", card)
        size = [int(shorter[1]) * edge // min(pixels.shape[:2]) for edge in pixels.shape[:2]]
    pixels = _resize(pixels, size, kernel, widened=width == "that is widened")
    crop = [int(each) for each in re.search(r"Crop (\d+)x(\d+) pixels \(height x width\) at the center", card).groups()]
    top, left = (round((edge - each) / 2) for edge, each in zip(size, crop, strict=True))  # halves to even
    values = np.clip(pixels[top : top + crop[0], left : left + crop[1]] / 255, 0, 1)
    if "Reverse the channels to BGR." in card:
        values = values[..., ::-1]
    if "Compute gray = 0.299 R + 0.587 G + 0.114 B." in card:
        values = values @ [[0.299], [0.587], [0.114]]
    mean, std = re.search(r"Subtract \((.*?)\) from the channels, and divide by \((.*?)\)\.", card).groups()
    return (values - _numbers(mean)) / _numbers(std)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (61, 87)),
        ({"channel_order": "bgr", "mean": (0.4, 0.45, 0.48), "std": (1 / 255,), "interpolation": "bicubic"}, (151, 87)),
        ({"channels": 1, "mean": (0.3,), "std": (0.38,), "antialias": False}, (97, 121)),
        ({"interpolation": "bicubic", "antialias": False, "crop_fraction": 1.0}, (45, 45)),
        ({"size": (16, 40), "interpolation": "bicubic"}, (61, 67)),
        ({"size": (40, 16), "crop_fraction": 0.9}, (9, 11)),
    ],
    ids=["default", "bgr", "gray", "without antialiasing", "wide", "high"],
)
def test_a_card_describes_the_preprocessing(tiny_export, settings, shape):
    preprocess = ImagePreprocess(**{"size": (32, 32), **settings})
    metadata = {**read_export(tiny_export).metadata, "target": "onnx", "preprocess": preprocess.to_dict()}
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 4), np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    expected = _follow(model_card(metadata, signature="serving_default"), image)
    found = preprocess.to_input(tf.constant(file.getvalue()))
    np.testing.assert_allclose(found, expected, atol=1e-4 / min(preprocess.std))  # 1/40 of a level


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("serving", ("Inside the file for the input `image_bytes`, before the file for the input `images`", INSIDE)),
        ("hub", ("Inside the file for the input `image_bytes`, before the file for the input `images`", INSIDE)),
        *((target, ("Before the file", INSIDE)) for target in ("hub_features", "litert", "onnx", "openvino")),
        ("keras", ("Before the file", "Also before the file")),
    ],
)
def test_a_card_describes_who_normalizes(tiny_export, target, steps):
    metadata = {**read_export(tiny_export).metadata, "target": target}
    text = model_card(metadata, signature="serving_default").split("## Input\n\n")[1].split("\n\n## ")[0]
    assert re.fullmatch(r"\*\*(.*)\.\*\* Decode .*\n\n\*\*(.*)\.\*\* Compute gray .*", text).groups() == steps


def test_code_of_a_keras_card_normalizes(run, tmp_path, monkeypatch):
    export = export_model(run, tmp_path / "keras", target="keras")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (41, 30, 3), np.uint8)).save(
        export.parents[1] / "cat.jpg"
    )
    monkeypatch.chdir(export)
    block, values = _blocks((export / "README.md").read_text(), "python")[0], {}
    exec(compile(block, "README.md", "exec"), values)
    expected = Predictor(export).predict_batch([Path("../../cat.jpg").read_bytes()])["logits"]
    np.testing.assert_allclose(values["model"](values["inputs"]), expected, atol=1e-5 * np.abs(expected).max())


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
