"""Robustness to common corruptions: measured by `evaluate`, stored in the run, in its report and in model cards."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import resnet_tf
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import read_export
from resnet_tf.core.robustness import CORRUPTION_NAMES, GROUPS, Robustness
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.data import pipeline, robustness
from resnet_tf.data.corruptions import corrupt
from resnet_tf.data.sources import arrays
from resnet_tf.serving.export import export_model
from resnet_tf.workflows import evaluate


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """Return a run of which `evaluate` measured the robustness."""
    workdir = tmp_path_factory.mktemp("robust") / "run"
    shutil.copytree(tiny_run, workdir)
    config = workdir / "config.json"
    config.write_text(config.read_text().replace("test[:100]", "test[:20]"))
    resnet_tf.evaluate(workdir, corruptions=True).write_report(workdir / "report")
    return resnet_tf.load_run(workdir)


def test_accuracies_are_those_of_corrupted_pixels(run):
    split = resnet_tf.open_source(run.config.data).validation
    examples = np.stack(pipeline.load_examples(split, run.preprocess, range(20)))
    pixels = np.rint(255 * examples).astype(np.uint8)
    for name, severity in (("gaussian_noise", 5), ("contrast", 4), ("frost", 3)):
        corrupted = corrupt(pixels, name, severity, indices=range(20)) / np.float32(255)
        predictions = run.model(run.preprocess.normalize(corrupted)).numpy().argmax(axis=1)
        assert run.robustness.scores[name][severity - 1] == np.mean(predictions == split.labels[:20])
    assert run.robustness.examples == 20
    assert run.robustness.parameters == "CIFAR-10-C"  # of the smallest images


@pytest.mark.slow
def test_values_do_not_depend_on_batches_and_readings(run, monkeypatch):
    """Images are decoded again for each corruption if they do not fit into memory."""
    for name, value in (("_MAX_CACHE", 0), ("_MAX_BATCH", 3), ("_BATCH_VALUES", 1), ("_MIN_BATCH", 3)):
        monkeypatch.setattr(robustness, name, value)
    assert resnet_tf.evaluate(run, corruptions=True).robustness == run.robustness


def test_report_and_model_card_have_the_values(run, tmp_path):
    page = (run.workdir / "report" / "index.html").read_text()
    card = (export_model(run, tmp_path / "export") / "README.md").read_text()
    assert (run.workdir / "report" / "corruptions.png").is_file()
    for name, values in run.robustness.scores.items():
        numbers = [f"{value:.4f}" for value in (np.mean(values), *values)]
        title = name.replace("_", " ")
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        assert f"<td>{title}</td>{cells}" in page
        assert f"| {title} | {' | '.join(numbers)} |" in card
    (chart,) = re.findall(r"```mermaid\n(.*?)```", card, re.DOTALL)
    lines = [json.loads(line) for line in re.findall(r"line (\[.*\])", chart)]
    assert [line[0] for line in lines] == [pytest.approx(run.robustness.clean, abs=1e-4)] * len(GROUPS)
    stored = read_export(tmp_path / "export").metadata["robustness"]
    assert Robustness.from_dict(stored) == run.robustness


def test_exports_are_measured_on_pixels(run, tmp_path, command):
    export = export_model(run, tmp_path / "export", target="keras")
    outcome = command("evaluate", f"--model={export}", "--corruptions", "--json", f"--report={tmp_path / 'page'}")
    values = json.loads(outcome.out)["robustness"]
    assert values == run.robustness.to_dict()
    assert values["mean_error"] == pytest.approx(1 - np.mean(list(values["corruptions"].values())))
    others = [values["corruptions"][name] for name in CORRUPTION_NAMES if name != "frost"]
    assert values["mean_comparable"] == pytest.approx(np.mean(others))
    assert "Robustness to common corruptions" in (tmp_path / "page" / "index.html").read_text()


def test_values_of_other_weights_are_not_used(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    file = workdir / "robustness.json"
    stored = json.loads(file.read_text())
    copied = resnet_tf.load_run(workdir)
    assert copied.robustness == run.robustness
    for change in ({"step": 1}, {"weights_sha256": "of a run that began anew"}):
        file.write_text(json.dumps({**stored, **change}))
        assert copied.robustness is None
    for content, message in (
        ({**stored, "clean": 2}, "a value of a corruption is outside of"),
        ({**stored, "corruptions": {"fog": [0.5] * 5}}, "corruptions must be gaussian_noise"),
        ({**stored, "metric": "f1"}, "metric is 'f1', not one of top1"),
        ({}, "it has no step"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message) as error:
            _ = copied.robustness
        assert "robustness.json" in str(error.value)


def test_multi_label_targets_have_mean_average_precision(run):
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (12, 8, 8, 1), np.uint8), generator.random((12, 3)) < 0.5
    split = arrays.array_split(Path("val.npz"), "val", images, labels, "fingerprint")
    preprocess = run.preprocess

    def logits(batch):
        return batch.mean(axis=(1, 2))

    clean = MULTI_LABEL.evaluate(labels, logits(np.repeat(images, 3, -1) / np.float32(255)))
    measured = robustness.measure_robustness(logits, split, preprocess, clean)
    assert measured.metric == "mean_average_precision"
    assert measured.clean == clean.mean_average_precision
    assert len({value for values in measured.scores.values() for value in values}) > 5


def test_a_run_that_cannot_be_written_is_measured(run, tmp_path, monkeypatch, caplog):
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    (workdir / "robustness.json").unlink()
    (workdir / "robustness.json").mkdir()
    monkeypatch.setattr(evaluate, "_measure_robustness", lambda *_: run.robustness)
    assert resnet_tf.evaluate(workdir, corruptions=True).robustness == run.robustness
    assert "the metrics on corrupted images are not stored in the run: cannot write" in caplog.text


def test_mistakes_are_named(run):
    with pytest.raises(UserError, match="corruptions are measured without flip"):
        resnet_tf.evaluate(run, corruptions=True, flip=True)
    preprocess = resnet_tf.SignalPreprocess(length=32, channels=1)
    with pytest.raises(UserError, match="common corruptions are those of images, not of signals"):
        robustness.check_corruptible(preprocess)
