"""Calibrated probabilities, unsure predictions and energies, from the checkpoint to the answers of every export."""

import dataclasses
import json
import logging
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.special
import sklearn.metrics
import tensorflow as tf
from conftest import LONG

from resnet_tf.config import DataConfig
from resnet_tf.core import files
from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.calibration_fit import fit_temperature
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import MANIFEST, METADATA, read_export
from resnet_tf.data.sources import Source, open_source
from resnet_tf.model.create import create_model
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.evaluation import evaluate_run, evaluate_test_split
from resnet_tf.training.run import Run, load_run
from resnet_tf.workflows.evaluate import _is_other, evaluate
from resnet_tf.workflows.push import push_to_hub

TEMPERATURE = 0.5


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    return load_run(tiny_run)


def _with(run: Run, calibration: Calibration) -> Run:
    """Return the run with another calibration of its own network."""
    model = keras.models.clone_model(run.model)
    model.set_weights(run.model.get_weights())
    model.calibration = calibration
    return dataclasses.replace(run, model=model)


@pytest.fixture(scope="module")
def unsure(run) -> Calibration:
    """Return a calibration by which half of the predictions are unsure."""
    evaluation = evaluate_run(run, open_source(run.config.data), batch_size=64)
    known = Calibration((TEMPERATURE,))
    median = float(np.median(dataclasses.replace(evaluation, calibration=known).confidence))
    return dataclasses.replace(known, threshold=median, target_precision=0.9)


@pytest.fixture(scope="module")
def unsure_export(run, unsure, tmp_path_factory) -> Path:
    return export_model(_with(run, unsure), tmp_path_factory.mktemp("unsure") / "serving")


def test_a_checkpoint_has_the_temperature_of_its_evaluation(run):
    evaluation = evaluate_run(run, open_source(run.config.data), batch_size=64)
    assert run.calibration.temperature == pytest.approx(
        fit_temperature(evaluation.targets, evaluation.logits), rel=1e-3
    )
    assert run.calibration.temperature != 1
    assert run.calibration.held_out["examples"] == 100
    assert run.calibration.threshold is None
    assert run.model.calibration == evaluation.calibration == run.calibration
    assert run.to_dict()["calibration"] == run.calibration.to_dict()


def test_runs_of_earlier_versions_have_none(tiny_run, tmp_path):
    workdir = tmp_path / "run"
    for file in (each for each in tiny_run.rglob("*") if each.is_file()):
        (workdir / file.relative_to(tiny_run)).parent.mkdir(parents=True, exist_ok=True)
        (workdir / file.relative_to(tiny_run)).write_bytes(file.read_bytes())
    newest = max((workdir / "checkpoints").iterdir())
    for change, calibration in ((lambda known: known.pop("calibration"), UNCALIBRATED), (None, None)):
        metadata = json.loads((newest / "metadata.json").read_text())
        if change:
            change(metadata)
        else:
            metadata["calibration"] = {"temperatures": [2.0, 2.0], "biases": [0.0, 0.0]}
        (newest / "metadata.json").write_text(json.dumps(metadata))
        (newest / "sha256.json").unlink()
        files.write_manifest(newest, Path("sha256.json"))
        if calibration:
            assert load_run(workdir).calibration == calibration
        else:
            with pytest.raises(UserError, match=r"metadata.json' is invalid: 2 temperatures for 10 classes"):
                load_run(workdir)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("serving", "float32"),
        ("onnx", "float32"),
        ("keras", "float32"),
        pytest.param("hub", "float32", marks=LONG),
        pytest.param("litert", "float32", marks=pytest.mark.slow),
        pytest.param("litert", "int8", marks=pytest.mark.slow),
    ],
)
def test_every_export_answers_with_the_same_temperature(target, precision, run, unsure, tiny_images, tmp_path):
    calibrated = _with(run, unsure)
    path = export_model(calibrated, tmp_path / "export", target=target, precision=precision)
    predictor = Predictor(path)
    assert predictor.calibration == unsure
    outputs = predictor.predict_batch(tiny_images)
    expected = scipy.special.softmax(outputs["logits"].astype(float) / TEMPERATURE, axis=1)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-6)
    np.testing.assert_allclose(
        outputs["energy"], -TEMPERATURE * scipy.special.logsumexp(outputs["logits"] / TEMPERATURE, axis=1), rtol=1e-5
    )
    np.testing.assert_array_equal(outputs["probabilities"].argmax(axis=1), outputs["logits"].argmax(axis=1))
    plain = Predictor(export_model(_with(run, UNCALIBRATED), tmp_path / "plain", target=target, precision=precision))
    assert plain.calibration == UNCALIBRATED
    np.testing.assert_allclose(plain.predict_batch(tiny_images)["logits"], outputs["logits"], atol=1e-6)
    for old, new in zip(plain(tiny_images), predictor(tiny_images), strict=True):
        assert old.indices == new.indices
        assert new.unsure is (new.score < unsure.threshold)
        assert old.unsure is None
    inputs = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)
    names = ["logits", "probabilities", "energy"]
    if target == "onnx":
        from onnxruntime import InferenceSession

        session = InferenceSession(str(path / "model.onnx"))
        assert [each.name for each in session.get_outputs()] == names, "logits first, as before"
        logits, probabilities, energy = session.run(None, {"images": inputs})
    elif target == "litert":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path / "model.tflite"))
        found = interpreter.get_signature_runner()(images=inputs)
        assert set(found) == ({"logits"} if precision == "int8" else set(names))
        if precision == "int8":
            return
        logits, probabilities, energy = (found[name] for name in names)
        assert interpreter.get_output_details()[0]["shape"].tolist()[1:] == [10], "logits first, as before"
    else:
        return
    np.testing.assert_allclose(probabilities, scipy.special.softmax(logits / TEMPERATURE, axis=1), atol=1e-6)
    np.testing.assert_allclose(energy, -TEMPERATURE * scipy.special.logsumexp(logits / TEMPERATURE, axis=1), rtol=1e-5)


def test_exports_of_earlier_versions_are_loaded(run, tiny_images, tmp_path):
    path = export_model(_with(run, UNCALIBRATED), tmp_path / "export", target="keras")
    assert "calibration" not in read_export(path).metadata
    metadata = read_export(path).metadata | {"calibration": {"temperatures": [1.0] * 3, "biases": [0.0] * 3}}
    (path / METADATA).write_text(json.dumps(metadata))
    (path / MANIFEST).unlink()
    files.write_manifest(path, MANIFEST)
    with pytest.raises(UserError, match=r"resnet_tf.json' is invalid: 3 temperatures for 10 classes"):
        Predictor(path)


def test_a_network_keeps_its_calibration_until_it_has_other_weights(unsure, tmp_path):
    model = create_model("resnet8_w32", num_classes=3, input_shape=(8, 8, 3))
    assert model.calibration == UNCALIBRATED
    model.calibration = unsure
    model.labels = ["a", "b", "c"]
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").calibration == unsure
    assert keras.models.clone_model(model).calibration == unsure
    with pytest.raises(UserError, match="2 temperatures for 3 classes"):
        model.calibration = Calibration((1.0, 2.0), (0.0, 0.0))
    other = create_model("resnet8_w32", num_classes=3, input_shape=(8, 8, 3))
    other.save_weights(tmp_path / "other.weights.h5")
    model.load_weights(tmp_path / "other.weights.h5")
    assert model.calibration == UNCALIBRATED


@pytest.mark.slow
def test_predict_answers_unsure(unsure, unsure_export, command, tmp_path, tiny_images):
    for number, image in enumerate(tiny_images):
        (tmp_path / f"{number:02}.png").write_bytes(image)
    predictions = Predictor(unsure_export)(tiny_images)
    certain = sum(not each.unsure for each in predictions)
    assert 0 < certain < len(predictions)
    text, limit = command("predict", f"--model={unsure_export}", str(tmp_path)), unsure.threshold
    coverage = (
        f"coverage  {certain} of 16 predictions ({certain / 16:.1%}) are certain: their score reaches {limit:.4f}"
    )
    assert coverage in text.err
    named = [line for line in text.out.splitlines() if ".png" in line]
    assert [line.endswith("  unsure") for line in named] == [each.unsure for each in predictions]
    lines = command("predict", f"--model={unsure_export}", "--json", str(tmp_path)).out.splitlines()
    assert [json.loads(line)["unsure"] for line in lines] == [each.unsure for each in predictions]
    head, *rows = command("predict", f"--model={unsure_export}", "--csv", str(tmp_path)).out.splitlines()
    assert head.startswith("file,unsure,label1")
    assert [row.split(",")[1] for row in rows] == ["unsure" if each.unsure else "" for each in predictions]


@pytest.mark.slow
def test_evaluate_reports_data_that_did_not_fit(run, tiny_export, command):
    own = evaluate(tiny_export)
    assert own.calibration.cross_fitted
    assert own.calibration.to_dict() == pytest.approx(run.calibration.held_out, abs=1e-4)
    other = evaluate(tiny_export, overrides=["data.eval_split=train[:200]"])
    assert not other.calibration.cross_fitted
    assert other.calibration.after.loss == pytest.approx(other.evaluation.calibrated.loss)
    assert evaluate(tiny_export, overrides=["data.eval_split=test[50:]"]).calibration.cross_fitted, "a part overlaps"
    printed = json.loads(command("evaluate", f"--model={tiny_export}", "--json").out)
    assert (printed["temperature"], printed["cross_fitted"]) == (run.calibration.temperature, True)
    assert printed["loss_after"] == pytest.approx(own.calibration.after.loss, abs=1e-6)
    assert printed["loss"] == pytest.approx(run.metrics["loss"], abs=1e-5), "the loss is that of the logits"


@pytest.mark.slow
def test_evaluate_states_how_well_the_energy_separates(run, tiny_export, tmp_path, command):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (60, 8, 8), np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for subject in (run, Predictor(tiny_export)):
        result = evaluate(subject, ood=str(tmp_path / "noise.npz"))
        assert result.out_of_distribution.examples == 60
        assert 0.5 < result.out_of_distribution.auroc <= 1
        assert result.to_dict()["ood"] == result.out_of_distribution.to_dict()
    text = command("evaluate", f"--model={tiny_export}", f"--ood={tmp_path / 'noise.npz'}").out
    assert f"ood  AUROC {result.out_of_distribution.auroc:.4f}, false positive rate" in text
    with pytest.raises(UserError, match="is the data set of the model"):
        evaluate(run, ood=run.config.data.source)


def test_other_data_are_mirrored_as_the_own_data_are(run, tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8), np.arange(60) % 10
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    other = open_source(dataclasses.replace(run.config.data, source=str(tmp_path / "noise.npz"), eval_split="test"))
    energies = [
        evaluate_run(run, Source("", run.labels, split, split), batch_size=64, flip=True).energy
        for split in (open_source(run.config.data).validation, other.validation)
    ]
    truth = np.repeat([0, 1], [len(each) for each in energies])
    found = evaluate(run, flip=True, ood=str(tmp_path / "noise.npz")).out_of_distribution
    assert found.auroc == pytest.approx(sklearn.metrics.roc_auc_score(truth, np.concatenate(energies)))


@pytest.mark.parametrize(
    ("trained", "evaluated", "is_other"),
    [
        ("digits", "digits", False),
        ("digits", "./digits", True),  # a folder of the user's
        ("photos", "./photos/", False),
        ("cifar10", "cifar100", True),
    ],
)
def test_data_are_compared_by_their_folder_or_name(trained, evaluated, is_other):
    first, second = (DataConfig(source=source) for source in (trained, evaluated))
    assert _is_other(first, second) == is_other


@pytest.mark.parametrize("subject", ["export", "run"])
def test_only_a_run_directory_has_several_checkpoints(run, tiny_export, subject):
    with pytest.raises(UserError, match="checkpoint=latest needs a run directory"):
        evaluate({"export": tiny_export, "run": run}[subject], checkpoint="latest")
    with pytest.raises(UserError, match="checkpoint=latest needs a run directory"):
        push_to_hub(run, "hf://user/repo", checkpoint="latest")


def test_a_test_split_reports_what_the_validation_split_fitted(run, unsure, tmp_path):
    calibrated = dataclasses.replace(_with(run, unsure), workdir=tmp_path)
    source = open_source(run.config.data)
    metrics = evaluate_test_split(calibrated, dataclasses.replace(source, test=source.validation), batch_size=64)
    evaluation = evaluate_run(calibrated, source, batch_size=64)
    assert metrics["test_loss_after"] == pytest.approx(evaluation.calibrated.loss, rel=1e-5)
    assert metrics["test_loss_before"] == metrics["test_loss"]
    certain = evaluation.confidence >= unsure.threshold
    assert metrics["test_coverage"] == pytest.approx(certain.mean())
    assert metrics["test_precision"] == pytest.approx(evaluation.is_correct[certain].mean())


def test_a_precision_that_no_threshold_reaches_is_one_warning(run, unsure, tmp_path, caplog):
    config = dataclasses.replace(run.config, export=dataclasses.replace(run.config.export, target_precision=0.999))
    for calibration, reason in (
        (dataclasses.replace(unsure, threshold=None, target_precision=0.999), "no confidence reaches it"),
        (run.calibration, "the evaluation of this checkpoint was without it"),
    ):
        caplog.clear()
        subject = dataclasses.replace(_with(run, calibration), config=config)
        with caplog.at_level(logging.WARNING):
            path = export_model(subject, tmp_path / "export", target="keras")
        found = [each.message for each in caplog.records if "target_precision" in each.message]
        assert len(found) == 1
        assert found[0].startswith("export.target_precision=0.999: ")
        assert reason in found[0]
        assert "threshold" not in read_export(path).metadata["calibration"]


@pytest.mark.slow
def test_cards_and_pages_state_the_calibration(run, unsure, unsure_export, tmp_path):
    text = (unsure_export / "README.md").read_text()
    assert "the softmax of the logits divided by the temperature 0.5000" in text
    assert f"A prediction whose probability is below {unsure.threshold:.4f} is unsure. Of the others, 90.0%" in text
    path = export_model(run, tmp_path / "own", target="keras")
    assert "each half of the split of the metrics with the fit on the other" in (path / "README.md").read_text()
    page = evaluate(unsure_export).write_report(tmp_path / "page").read_text()
    assert "Calibration of the probabilities" in page
    assert "of the predictions are certain" in page
    assert tf.io.read_file(str(tmp_path / "page" / "calibration.png")).numpy().startswith(b"\x89PNG")
