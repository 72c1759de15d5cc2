"""The tutorial docs/own_images.md: its commands and its Python code, on a small folder."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnet_tf
from resnet_tf.training.run import load_run

PAGE = (Path(__file__).parents[1] / "docs" / "own_images.md").read_text()
COMMANDS = re.findall(r"^    python -m resnet_tf\.(.+)$", PAGE, re.MULTILINE)
# Settings for a run of seconds; in the tutorial, the default settings follow from the number of photos.
SHORT = ("data.image_size=64", "train.epochs=3", "train.head_epochs=1", "data.batch_size=16")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Return a directory with photos/ of three classes that differ in color, and replace the published weights."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog", "hamster")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(30):
            pixels = generator.integers(0, 100, (80, 100, 3), np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.jpg")
    published = tmp_path / "published.weights.h5"
    resnet_tf.create_model("resnet18").save_weights(published)
    monkeypatch.setattr("resnet_tf.model.create.fetch", lambda row: published)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.long
def test_every_command_of_the_tutorial_runs(command, folder):
    assert len(COMMANDS) == 8
    outputs = {}
    for line in COMMANDS:
        name, *arguments = shlex.split(line)
        short = [f"--set={each}" for each in SHORT] if name == "train" else []
        outcome = command(name, *arguments, *short)
        assert outcome.code == 0, f"{line}: {outcome.err}"
        outputs[line] = outcome.out
    plan, trained, automatic, metrics, predictions, _, phone, comparison = outputs.values()
    assert "cat 2" in plan
    assert (folder / "finetune-dry-run.png").exists()
    assert "have the same top-1 class" in trained
    assert "have the same top-1 class" in automatic
    assert (folder / "runs/photos/report/index.html").exists()
    assert re.search(r"of +\d+  hamster", metrics)
    assert predictions.count("photos/cat/") == 30
    assert len(list((folder / "maps").iterdir())) == 30
    assert (folder / phone.strip() / "model.tflite").exists()
    assert "accuracy" in comparison
    run = load_run("runs/photos")
    assert run.config.train.defaults == "photos"
    assert run.labels == ("cat", "dog", "hamster")
    names: dict = {}
    exec(compile(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], "own_images.md", "exec"), names)
    assert names["predictor"].labels == run.labels
