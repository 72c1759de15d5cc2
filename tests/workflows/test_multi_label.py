"""Examples with any number of classes, from the data to predictions of every export target."""

import dataclasses
import json
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import LONG, override_groups, train_and_kill, untimed_metrics
from PIL import Image

from resnet_tf.config import AugmentConfig, load_config
from resnet_tf.core.calibration import UNCALIBRATED
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import read_export
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.data import pipeline
from resnet_tf.data.augmentation import mixing
from resnet_tf.data.sources import match_classes, open_source
from resnet_tf.inputs import create_preprocess
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.serving.card import model_card
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training import runtime
from resnet_tf.training.run import load_run
from resnet_tf.training.trainer import Trainer
from resnet_tf.workflows.compare import compare
from resnet_tf.workflows.evaluate import evaluate
from resnet_tf.workflows.train import train_and_evaluate

NAMES = ("red", "green", "blue")


def _squares(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images with a red, a green and a blue square, each with its own probability, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, 3)) < (0.2, 0.5, 0.7)
    images = rng.integers(0, 60, (count, 8, 8, 3), np.uint8)
    for image, row in zip(images, labels, strict=True):
        for channel in np.flatnonzero(row):
            image[2 * channel : 2 * channel + 3, 1:6, channel] = 220
    return images, labels


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    path = tmp_path_factory.mktemp("squares") / "squares.npz"
    (x_train, y_train), (x_test, y_test) = _squares(384, 0), _squares(90, 1)
    np.savez(
        path,
        x_train=x_train,
        y_train=y_train.astype(np.uint8),
        x_test=x_test,
        y_test=y_test.astype(np.float32),
        class_names=np.array(NAMES),
    )
    return path


@pytest.fixture(scope="module")
def config(squares):
    settings = [f"data.source={squares}", "model.name=resnet8_w32", "data.image_size=8"]
    settings += ["data.channels=3", "data.batch_size=32", "data.mean=0.3", "data.std=0.3", "data.crop_fraction=1"]
    settings += ["train.epochs=4", "optimizer.base_lr=1", "optimizer.warmup_epochs=0", "runtime.precision=float32"]
    return load_config("digits", [*settings, "augment.shift=0", "augment.scale=0", "augment.rotation=0"])


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train_and_evaluate(config, workdir)
    return load_run(workdir)


@pytest.fixture(scope="module")
def export(run, tmp_path_factory):
    return export_model(run, tmp_path_factory.mktemp("exports") / "serving")


def test_labels_of_an_archive(config, squares):
    source = open_source(config.data)
    assert (source.class_names, source.train.labels.dtype, source.train.labels.shape) == (NAMES, bool, (384, 3))
    np.testing.assert_array_equal(source.class_counts, _squares(384, 0)[1].sum(0))
    np.testing.assert_array_equal(source.validation.labels, _squares(90, 1)[1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([[0, 2], [1, 0]] * 5), "hold 2; expected 0 or 1"),
        (np.array([[0, 0.5], [1, 0]] * 5), "hold 0.5; expected 0 or 1"),
        (np.array([[0, np.nan], [1, 0]] * 5), "hold nan; expected 0 or 1"),
        (np.array([["a", "b"]] * 10), r"expected 0 and 1"),
        (np.arange(10) % 2, "labels of 'train' have a column for each class, others not"),
        (np.ones((10, 3), int), "different numbers of classes: 'train' 2, 'test' 3"),
    ],
)
def test_invalid_columns_of_labels_are_refused(labels, message, config, tmp_path):
    path, images = tmp_path / "data.npz", np.arange(10 * 64, dtype=np.uint8).reshape(10, 8, 8)
    np.savez(path, x_train=images, y_train=np.array([[1, 1], [1, 0]] * 5), x_test=images, y_test=labels)
    with pytest.raises(UserError, match=message):
        open_source(dataclasses.replace(config.data, source=str(path), channels=1))


def test_one_hot_labels_are_single_label(config, tmp_path, caplog):
    path, images = tmp_path / "data.npz", np.arange(10 * 64, dtype=np.uint8).reshape(10, 8, 8)
    labels = np.eye(2)[[0, 1] * 5]
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    with caplog.at_level(logging.INFO):
        source = open_source(dataclasses.replace(config.data, source=str(path), channels=1))
    assert source.train.labels.tolist() == [0, 1] * 5
    assert "every example has one class: single-label targets" in caplog.text


@pytest.mark.parametrize("setting", ["data.balance=uniform", "data.long_tail=10"])
def test_selection_by_class_is_refused(setting, squares):
    config = load_config("digits", [f"data.source={squares}", setting])
    with pytest.raises(UserError, match=r"any number of classes; loss\.class_weights=inverse"):
        open_source(config.data)


def test_labels_of_a_tfds_data_set(config, tmp_path):
    images, labels = _squares(40, 2)
    examples = [
        {"image": image, "labels": np.flatnonzero(row).tolist()} for image, row in zip(images, labels, strict=True)
    ]
    features = {
        "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
        "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=NAMES)),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="squares",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: [(str(index), example) for index, example in enumerate(part)]
            for split, part in (("train", examples[:30]), ("test", examples[30:]))
        },
        data_dir=tmp_path,
    )
    source = open_source(dataclasses.replace(config.data, source=str(tmp_path / "squares")))
    assert source.class_names == NAMES
    for image, row in ((each, label) for split in (source.train, source.validation) for each, label in _pixels(split)):
        (index,) = np.flatnonzero((images == image).all((1, 2, 3)))
        np.testing.assert_array_equal(row, labels[index])
    assert source.train.num_examples == 30


def _pixels(split):
    return [(tf.io.decode_png(image).numpy(), label) for image, label in split.examples().as_numpy_iterator()]


def test_mixed_examples_have_the_classes_of_both():
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    mix = np.array([[0.3, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 8, 0, 8], [1, 0, 4, 0, 4]], np.float32)
    found = mixing.targets(labels, mix, AugmentConfig(mixup=1.0, cutmix=1.0), num_classes=3, size=(8, 8))
    # Blended; untouched; replaced completely; pasted into.
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])


def test_a_batch_has_its_labels(config):
    source = open_source(config.data)
    _, fractions = pipeline.load_batch(config, source, create_preprocess(config.data), step=0)
    assert fractions.shape == (32, 3)
    assert (fractions.sum(1) > 1).any()
    assert (fractions.sum(1) == 0).any()


def test_the_squares_are_recognized(run, config):
    assert run.metrics["mean_average_precision"] > 0.95
    line = json.loads((run.workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"val_mean_average_precision", "val_f1_micro", "val_f1_macro", "val_loss", "val_top1"} <= set(line)
    assert "balanced_accuracy" not in run.metrics


def test_thresholds_are_those_with_the_largest_f1_on_the_validation_split(run):
    evaluation = evaluate(run).evaluation
    assert isinstance(evaluation, MultiLabelEvaluation)
    np.testing.assert_allclose(evaluation.choose_thresholds(), run.thresholds, atol=1e-5)
    assert evaluation.to_dict() == pytest.approx(run.metrics, rel=1e-4)


@pytest.mark.slow
def test_the_best_checkpoint_has_the_largest_mean_average_precision(config, tmp_path):
    best = override_groups(config, train={"epochs": 3}, export={"checkpoint": "best"})
    metrics = train_and_evaluate(best, tmp_path)
    lines = untimed_metrics(tmp_path)
    assert metrics["mean_average_precision"] == max(line["val_mean_average_precision"] for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", [{"loss": {"name": "asymmetric", "class_weights": "inverse"}}, pytest.param({}, marks=LONG)]
)
def test_a_resumed_run_is_bitwise_the_same(other, config, tmp_path):
    changed = override_groups(config, augment={"mixup": 0.5}, train={"epochs": 3, "ema": 0.9}, **other)
    changed = override_groups(changed, runtime={"deterministic": True})
    train_and_evaluate(changed, tmp_path / "whole")
    train_and_kill(changed, tmp_path / "killed", epochs=1)
    train_and_evaluate(changed, tmp_path / "killed")
    assert untimed_metrics(tmp_path / "killed") == untimed_metrics(tmp_path / "whole")
    whole, resumed = (load_run(tmp_path / name) for name in ("whole", "killed"))
    assert resumed.thresholds == whole.thresholds
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_two_replicas_are_one(config):
    losses = []
    for strategy in ({}, {"strategy": "mirrored", "logical_devices": 2, "sync_batch_norm": True}):
        settings = override_groups(config, runtime=strategy, augment={"cutmix": 1.0}, optimizer={"base_lr": 0.01})
        trainer = Trainer(settings, open_source(settings.data), runtime.start(settings.runtime))
        losses.append(trainer.step.run(trainer.batches(), tf.constant(5))[0].numpy()[:, :2])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_a_target_for_the_precision_is_refused(config, tmp_path):
    settings = override_groups(config, export={"target_precision": 0.9})
    with pytest.raises(UserError, match=r"export\.target_precision does not apply to .*, which has multi-label data"):
        train_and_evaluate(settings, tmp_path)


@pytest.mark.slow
def test_a_student_is_trained_by_a_multi_label_teacher(config, export, tmp_path):
    settings = override_groups(config, loss={"teacher": str(export), "teacher_weight": 1.0}, train={"epochs": 2})
    assert train_and_evaluate(settings, tmp_path)["mean_average_precision"] > 0.8


def test_signatures_return_sigmoids_and_selected_classes(run, export):
    signature = tf.saved_model.load(str(export)).signatures["images"]
    images, _ = _squares(20, 3)
    outputs = signature(images=tf.constant(images / 255, tf.float32))
    assert len(set(run.calibration.temperatures)) == 3, "one for each class"
    sigmoids = tf.sigmoid(outputs["logits"] / run.calibration.temperatures + run.calibration.biases)
    np.testing.assert_allclose(outputs["probabilities"], sigmoids, atol=1e-6)
    np.testing.assert_allclose(outputs["energy"], MULTI_LABEL.energy(outputs["logits"], run.calibration), rtol=1e-5)
    np.testing.assert_array_equal(outputs["selected"], outputs["probabilities"].numpy() >= np.float32(run.thresholds))
    assert outputs["selected"].numpy().any()
    assert not outputs["selected"].numpy().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "litert",
        *(pytest.param(name, marks=LONG) for name in ("hub", "keras", "openvino")),
        pytest.param("onnx", marks=pytest.mark.slow),
    ],
)
def test_every_target_selects_the_same_classes(target, run, export, tmp_path):
    if package := {"onnx": "tf2onnx", "openvino": "openvino"}.get(target):
        pytest.importorskip(package)
    other = Predictor(export_model(run, tmp_path / target, target=target))
    images, _ = _squares(20, 3)
    expected, found = (predictor(images) for predictor in (Predictor(export), other))
    assert other.thresholds == list(run.thresholds)
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours.selected) == list(theirs.selected)
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4)


@pytest.mark.slow
def test_predictions_list_the_classes_above_their_thresholds(export, tmp_path, command):
    images, labels = _squares(6, 4)
    predictor, files = Predictor(export), []
    for index, image in enumerate(images):
        files.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(image).save(files[-1])
    found = [json.loads(line) for line in command("predict", f"--model={export}", "--json", *files).out.splitlines()]
    for each, prediction, row in zip(found, predictor(images), labels, strict=True):
        assert each["selected"] == pytest.approx(prediction.selected, rel=1e-5)
        assert set(each["selected"]) == {NAMES[label] for label in np.flatnonzero(row)}
        assert list(each["selected"].values()) == sorted(each["selected"].values(), reverse=True)
    text = command("predict", f"--model={export}", *files).out
    assert text.count("no class reaches its threshold") == sum(not row.any() for row in labels)
    head, *rows = command("predict", f"--model={export}", "--csv", *files).out.splitlines()
    assert head.startswith("file,selected,label1,score1")
    assert [set(filter(None, row.split(",")[1].split("|"))) for row in rows] == [
        set(each["selected"]) for each in found
    ]


def test_evaluation_of_run_and_export_agree(run, export, command):
    metrics = [
        json.loads(command("evaluate", argument, "--json", "--classes").out)
        for argument in (f"--workdir={run.workdir}", f"--model={export}")
    ]
    assert {"examples", "top1", "top5", "loss", "mean_average_precision", "f1_micro", "f1_macro"} <= set(metrics[0])
    for name in ("mean_average_precision", "f1_micro", "f1_macro", "loss"):
        assert metrics[1][name] == pytest.approx(metrics[0][name], rel=1e-4)
    assert list(metrics[0]["threshold"]) == list(NAMES)
    assert "threshold  examples" in command("evaluate", f"--workdir={run.workdir}", "--classes").out


def test_the_report_shows_curves_and_selected_classes(run, command):
    command("evaluate", f"--workdir={run.workdir}")
    page = (run.workdir / "report" / "index.html").read_text()
    for text in ("mean average precision", "Classes that occur together", "selected together", "threshold"):
        assert text in page
    plots = {path.stem for path in (run.workdir / "report").glob("*.png")}
    assert {"precision_recall", "average_precision", "co_occurrence", "summary"} <= plots


@pytest.mark.slow
def test_the_card_describes_thresholds_and_metrics(export):
    card = (export / "README.md").read_text()
    assert "mean average precision" in card
    assert "probabilities are sigmoids" in card
    layer = model_card(read_export(export).metadata | {"target": "hub"}, signature="")
    assert "losses.BinaryCrossentropy(from_logits=True)" in layer


def test_data_of_the_other_form_are_refused(run, digits_arrays, config, tmp_path):
    path = tmp_path / "data.npz"
    images, labels = _squares(30, 5)
    np.savez(
        path,
        x_train=images,
        y_train=labels.argmax(1),
        x_test=images,
        y_test=labels.argmax(1),
        class_names=np.array(NAMES),
    )
    for subject in (run, run.workdir):
        with pytest.raises(UserError, match="any number of classes, but those of split 'test' have one class"):
            evaluate(subject, data=str(path))


def test_classes_that_the_data_lack_are_added(run, config):
    source = open_source(config.data)
    columns = [0, 2]
    fewer = dataclasses.replace(
        source,
        class_names=("red", "blue"),
        train=dataclasses.replace(source.train, labels=source.train.labels[:, columns]),
        validation=dataclasses.replace(source.validation, labels=source.validation.labels[:, columns]),
    )
    matched = match_classes(run.labels, fewer)
    np.testing.assert_array_equal(matched.validation.labels[:, columns], source.validation.labels[:, columns])
    assert not matched.validation.labels[:, 1].any()


@pytest.mark.parametrize("stored", [None, [0.5], [0.5, 2.0, 0.5], ["a", 0.5, 0.5]])
def test_a_bare_model_takes_thresholds(stored, run, tmp_path):
    model = keras.models.clone_model(run.model)
    if stored is None:
        export = export_model(model, tmp_path, thresholds=[0.1, 0.2, 0.3], labels=NAMES, preprocess=run.preprocess)
        assert Predictor(export).thresholds == pytest.approx([0.1, 0.2, 0.3])
    else:
        with pytest.raises(UserError, match="threshold"):
            export_model(model, tmp_path, thresholds=stored, labels=NAMES, preprocess=run.preprocess)


@pytest.mark.parametrize("name", ["focal", pytest.param("binary", marks=LONG)])
def test_other_losses_learn(name, config, tmp_path):
    settings = override_groups(config, loss={"name": name}, train={"epochs": 3})
    assert train_and_evaluate(settings, tmp_path)["mean_average_precision"] > 0.8


@pytest.mark.slow
def test_two_models_are_compared(run, export, tmp_path):
    labels = ("blue", "red", "green")  # in another order
    order = [NAMES.index(label) for label in labels]
    changed = keras.models.clone_model(run.model)
    kernel, bias = run.model.layers[-1].get_weights()
    evaluation = evaluate(run).evaluation
    bias[0] -= evaluation.logits[:, 0].max() + 1  # red is not selected any more
    changed.set_weights([*run.model.get_weights()[:-2], kernel[:, order], bias[order]])
    changed.labels, changed.calibration = labels, UNCALIBRATED
    new = export_model(changed, tmp_path / "new", thresholds=[0.5] * 3)
    result = compare(export, new, latency=False, min_class_recall=0.9)
    comparison = result.comparison
    assert comparison.class_names == list(NAMES)
    np.testing.assert_array_equal(comparison.old.predictions, evaluation.selected)
    np.testing.assert_allclose(comparison.old.ranking, evaluation.logits, atol=1e-3)
    assert comparison.multi_label.mean_average_precision.old == pytest.approx(evaluation.mean_average_precision)
    assert [each.difference for each in comparison.multi_label.average_precision_by_class] == pytest.approx([0] * 3)
    f1 = {name: change.difference for name, _, _, change in comparison.class_changes}
    assert min(f1, key=f1.get) == "red"
    assert comparison.paired.negative > 0
    assert [gate.text for gate in result.failures] == [gate.text for gate in result.gates]
    assert "the recall of 'red' is" in result.gates[0].text
    values = json.loads(json.dumps(result.to_dict()))
    assert set(values["flips"][0]) >= {"class", "old", "new"}
    page = result.write_report(tmp_path / "page").read_text()
    assert "Metrics by class, largest drop of average precision first" in page
    assert "mean average precision" in page
    assert "exact match" in page
    changed = ResidualNetwork(run.model.input, run.model.output, metadata=run.model.metadata)
    changed.labels = ("red", "green", "other")
    other = export_model(changed, tmp_path / "other", target="keras")
    with pytest.raises(UserError, match="has no class 'other'; both models need the same classes"):
        compare(export, other, latency=False)
    (tmp_path / "answers.csv").write_text("file,label1,score1\n")
    with pytest.raises(UserError, match=r"answers.csv' has no probabilities of all classes"):
        compare(export, tmp_path / "answers.csv", latency=False)
