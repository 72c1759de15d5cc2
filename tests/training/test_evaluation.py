"""Evaluation metrics for any batch size and number of replicas, compared with scikit-learn."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)

from resnet_tf.config import load_config
from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.core.targets import SINGLE_LABEL
from resnet_tf.data import pipeline
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import create_preprocess
from resnet_tf.report.plots import plot_evaluation
from resnet_tf.training import runtime
from resnet_tf.training.evaluation import Evaluator, evaluate_run
from resnet_tf.training.run import load_run
from resnet_tf.workflows import train


def test_metrics_equal_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(500, 7)).astype("float32") * 3
    labels = generator.integers(0, 7, 500)
    evaluation = SingleLabelEvaluation(labels, logits)
    probabilities = np.exp(logits.astype("float64"))
    probabilities /= probabilities.sum(1, keepdims=True)
    assert evaluation.loss == pytest.approx(log_loss(labels, probabilities, labels=range(7)), rel=1e-6)
    for k in (1, 5):
        assert evaluation.top(k) == top_k_accuracy_score(labels, logits, k=k, labels=range(7))
    assert evaluation.to_dict()["examples"] == 500
    predicted = logits.argmax(1)
    assert evaluation.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    np.testing.assert_allclose(evaluation.recall, recall_score(labels, predicted, average=None))
    np.testing.assert_array_equal(evaluation.confusion, confusion_matrix(labels, predicted))
    named = evaluation.classes("abcdefg")
    assert list(named["recall"]) == list("abcdefg")
    np.testing.assert_allclose(evaluation.precision, precision_score(labels, predicted, average=None))
    errors = confusion_matrix(labels, predicted) * (1 - np.eye(7, dtype=int))
    assert [errors[target, other] for target, other, _ in evaluation.confused_pairs(50)] == sorted(
        errors[errors > 0], reverse=True
    )
    assert {each.index: each.confusions for each in evaluation.by_class} == dict(enumerate(errors.max(axis=1)))
    assert evaluation.describe_classes("abcdefg").splitlines()[0].split()[0] == f"{evaluation.recall.min():.4f}"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1, 0], r"labels are int64 \[2\] and logits \[2, 2\]; expected labels integers \[N\] from 0 to C - 1"),
        ([0, 2], r"labels are int64 \[2\]"),
        ([[0], [1]], r"labels are int64 \[2, 1\]"),
        ([0.0, 1.0], r"labels are float64 \[2\]"),
        ([0, 1, 1], r"labels are int64 \[3\]"),
    ],
)
def test_labels_of_another_form_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        SingleLabelEvaluation(labels, [[0.0, 9.0], [9.0, 0.0]])


def test_metrics_of_many_classes_take_little_memory():
    """A confusion matrix of 300,000 classes takes 720 GB."""
    labels = np.array([0, 299_999, 7])
    logits = np.zeros((3, 300_000), np.float32)
    logits[[0, 1, 2], [0, 1, 1]] = 1.0
    evaluation = SingleLabelEvaluation(labels, logits)
    assert evaluation.balanced_accuracy == pytest.approx(1 / 3)
    assert [(each.index, each.confused_with, each.confusions) for each in evaluation.by_class] == [
        (7, 1, 1),
        (299_999, 1, 1),
        (0, 0, 0),
    ]
    assert evaluation.confused_pairs(1) == [(7, 1, 1)]
    assert plot_evaluation(evaluation, list(map(str, range(300_000)))).shape[2] == 4


def test_calibration_error_is_that_of_guo_et_al():
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(2000, 5)) * 4, generator.integers(0, 5, 2000)
    confidence = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = confidence.max(1), confidence.argmax(1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:  # equation 3, with bins open below and closed above
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert SingleLabelEvaluation(labels, logits).calibration_error == pytest.approx(expected, rel=1e-9)
    sure = SingleLabelEvaluation(np.array([0, 1]), np.array([[100.0, 0.0], [0.0, 100.0]]))
    assert sure.calibration_error == pytest.approx(0.0, abs=1e-12)


def test_classes_without_examples_do_not_count():
    evaluation = SingleLabelEvaluation(np.array([0, 0, 2]), np.eye(3)[[0, 1, 2]])
    assert evaluation.balanced_accuracy == 0.75
    assert evaluation.classes(["a", "b", "c"])["recall"] == {"a": 0.5, "b": None, "c": 1.0}
    assert evaluation.describe_classes(["a", "b", "c"]).splitlines() == [
        "  0.5000 of      2  a  1 predicted as b",
        "  1.0000 of      1  c",
    ]
    assert "\x1b" not in evaluation.describe_classes(["\x1b[2J", "\x1b[1m", "\x1b[0m"])


def test_a_flipped_test_takes_the_mean_of_both(tiny_run):
    run = load_run(tiny_run)
    split, strategy = open_source(run.config.data).validation, tf.distribute.get_strategy()
    both = Evaluator(run.model, split, run.preprocess, batch_size=100, strategy=strategy, flip=True)()
    plain = Evaluator(run.model, split, run.preprocess, batch_size=100, strategy=strategy)()
    batches = pipeline.eval_batches(split, run.preprocess, 100)
    mirrored = np.concatenate([run.model(images[:, :, ::-1], training=False).numpy() for images, *_ in batches])
    np.testing.assert_allclose(both.logits, (plain.logits + mirrored) / 2, atol=1e-5)


def test_equal_logits_count_as_in_predictions():
    """Logits of int8 have 256 values. Of equal scores, Keras takes the smaller index, scikit-learn the larger one."""
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(0, 30, 400), generator.integers(0, 4, (400, 30)).astype(np.float32)
    evaluation = SingleLabelEvaluation(labels, logits)
    assert evaluation.top(1) == accuracy_score(labels, logits.argmax(1)) == np.mean(evaluation.is_correct)
    keras_metric = keras.metrics.SparseCategoricalAccuracy()
    keras_metric.update_state(labels, logits)
    assert evaluation.top(1) == pytest.approx(float(keras_metric.result()))
    for k in (1, 2, 5, 29):
        expected = top_k_accuracy_score(29 - labels, logits[:, ::-1], k=k, labels=range(30))
        assert evaluation.top(k) == pytest.approx(expected)
    assert SingleLabelEvaluation(np.array([0, 1, 2, 2]), np.zeros((4, 3))).top(1) == 0.25


@pytest.mark.parametrize("row", [[np.nan, 0.0], [0.0, np.nan], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_logits_without_order_are_refused(row):
    with pytest.raises(UserError, match="1 of 2 examples have logits that are not finite"):
        SingleLabelEvaluation(np.array([0, 1]), np.array([row, [0.0, 1.0]]))
    assert SingleLabelEvaluation(np.array([0]), np.array([[0.0, -np.inf]])).top(1) == 1  # a class that is ruled out


def test_the_worst_errors_come_first():
    logits = np.array([[3.0, 0.0], [0.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    evaluation = SingleLabelEvaluation(np.array([1, 0, 0, 0]), logits)
    assert evaluation.worst_errors(12) == [1, 0, 3]
    assert evaluation.worst_errors(1) == [1]
    assert evaluation.worst_errors(12, pair=(0, 1)) == [1, 3]


@pytest.mark.slow
def test_every_batch_size_and_replica_count_gives_the_same(tiny_run):
    run = load_run(tiny_run)
    split = open_source(run.config.data).validation
    expected = Evaluator(run.model, split, run.preprocess, batch_size=100, strategy=tf.distribute.get_strategy())()
    mirrored = runtime.mirrored(("CPU:0", "CPU:1"))
    with mirrored.scope():
        twin = keras.models.clone_model(run.model)
        twin.set_weights(run.model.get_weights())
    cases = [(run.model, tf.distribute.get_strategy(), size) for size in (1, 7, 64)]
    cases += [(twin, mirrored, size) for size in (7, 64, 1000)]
    for model, strategy, size in cases:
        found = Evaluator(model, split, run.preprocess, batch_size=size, strategy=strategy)()
        np.testing.assert_array_equal(found.targets, expected.targets)
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)


def test_a_run_is_tested_on_its_own_or_other_data(tiny_run, photos):
    run = load_run(tiny_run)
    own = open_source(run.config.data)
    assert evaluate_run(run, own, batch_size=64).to_dict() == pytest.approx(run.metrics)
    other = open_source(load_config("digits", [f"data.source={photos}"]).data)
    with pytest.raises(UserError, match=r"the model has the classes 0, 1, 2, 3, 4, ... \(10\), but .* has blue, red"):
        evaluate_run(run, other, batch_size=64)
    assert run.preprocess == create_preprocess(run.config.data)


@pytest.mark.parametrize(
    ("before", "now", "examples", "warned"),
    [(0.91, 0.80, 1000, True), (0.91, 0.80, 20, False), (0.91, 0.90, 1000, False), (None, 0.80, 1000, False)],
)
def test_a_lower_accuracy_in_float32_than_in_training_is_warned_of(before, now, examples, warned, caplog):
    run = SimpleNamespace(metrics={} if before is None else {"top1": before})
    evaluation = SimpleNamespace(to_dict=lambda: {"top1": now, "examples": examples})
    train._warn_of_precision(run, evaluation, SimpleNamespace(targets=SINGLE_LABEL))
    text = "accuracy was 0.9100 in training, and is 0.8000 in float32, in which the model is evaluated and exported"
    assert (text in caplog.text) == warned
