"""Metrics of multi-label targets, compared with scikit-learn."""

import pickle

import numpy as np
import pytest
import scipy.special
from sklearn import metrics

from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import NonFiniteError
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation, precision_recall_curve
from resnet_tf.core.targets import MULTI_LABEL, SINGLE_LABEL, check_thresholds, targets_of


def _random(seed, *, ties=False, examples=200, classes=7):
    rng = np.random.default_rng(seed)
    targets = rng.random((examples, classes)) < rng.uniform(0.05, 0.6, classes)
    targets[0] = True
    targets[1] = False
    logits = rng.normal(2.0 * targets - 1.0, 1.5).astype(np.float32)
    return targets, np.round(logits) if ties else logits


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_those_of_scikit_learn(seed, ties):
    targets, logits = _random(seed, ties=ties)
    evaluation = MultiLabelEvaluation(targets, logits)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    selected = probabilities >= 0.5
    values = evaluation.to_dict()
    expected = {
        "mean_average_precision": metrics.average_precision_score(targets, probabilities, average="macro"),
        "f1_micro": metrics.f1_score(targets, selected, average="micro", zero_division=0),
        "f1_macro": metrics.f1_score(targets, selected, average="macro", zero_division=0),
        "loss": np.mean([metrics.log_loss(targets[:, k], probabilities[:, k]) for k in range(7)]),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    per_class = metrics.precision_recall_fscore_support(targets, selected, zero_division=np.nan)
    np.testing.assert_allclose(evaluation.precision, per_class[0])
    np.testing.assert_allclose(evaluation.recall, per_class[1])
    np.testing.assert_array_equal(
        [each.examples for each in sorted(evaluation.by_class, key=lambda each: each.index)], per_class[3]
    )
    np.testing.assert_allclose(
        evaluation.average_precision, metrics.average_precision_score(targets, probabilities, average=None)
    )


def test_small_probabilities_keep_their_order():
    logits = np.array([-700, -90, -40, -36.5, -1, 0, 1, 30, 800], np.float32)[:, np.newaxis]
    evaluation = MultiLabelEvaluation(np.ones(logits.shape, bool), logits)
    np.testing.assert_allclose(evaluation.probabilities, scipy.special.expit(logits.astype(np.float64)), rtol=1e-15)
    assert (np.diff(evaluation.probabilities[:8, 0]) > 0).all()


def test_precision_recall_curve_equals_that_of_scikit_learn():
    targets, logits = _random(4, ties=True)
    precision, recall, _ = metrics.precision_recall_curve(targets[:, 0], logits[:, 0])
    found = precision_recall_curve(targets[:, 0], logits[:, 0])
    np.testing.assert_allclose(found[0][::-1], precision[:-1][-len(found[0]) :])
    np.testing.assert_allclose(found[1][::-1], recall[:-1][-len(found[1]) :])


@pytest.mark.parametrize("ties", [False, True])
def test_no_threshold_has_a_larger_f1_than_the_chosen_one(ties):
    targets, logits = _random(5, ties=ties)
    evaluation = MultiLabelEvaluation(targets, logits).with_chosen_thresholds()
    for label in range(targets.shape[1]):
        scores = evaluation.probabilities[:, label]
        best = max(metrics.f1_score(targets[:, label], scores >= threshold) for threshold in np.unique(scores))
        assert evaluation.f1[label] == pytest.approx(best)
    assert not np.isin(evaluation.thresholds, evaluation.probabilities).any()  # in between, robust to rounding


def test_top_k_counts_examples_of_which_a_class_is_among_the_best():
    targets = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]], bool)
    logits = np.array([[0, 2, 3], [0, 1, 2], [5, 0, 0], [1, 1, 1]], np.float32)
    evaluation = MultiLabelEvaluation(targets, logits)
    assert evaluation.ranks.tolist() == [0, 1, 0]  # the example without a class is left out
    assert (evaluation.top(1), evaluation.top(2)) == (pytest.approx(2 / 3), 1.0)


def test_equal_logits_count_as_in_predictions():
    targets, logits = _random(6, ties=True)
    labeled = targets.any(axis=1)
    order = np.argsort(-logits, axis=1, kind="stable")
    for k in (1, 2, 5):
        expected = np.take_along_axis(targets, order[:, :k], axis=1).any(axis=1)[labeled].mean()
        assert MultiLabelEvaluation(targets, logits).top(k) == pytest.approx(expected)


def test_classes_without_examples_are_left_out_of_means():
    targets = np.array([[1, 0, 1], [0, 0, 1]], bool)
    evaluation = MultiLabelEvaluation(targets, np.array([[1, -1, 2], [-1, -2, 1]], np.float32))
    assert np.isnan(evaluation.average_precision).tolist() == [False, True, False]
    assert evaluation.mean_average_precision == 1.0
    assert evaluation.choose_thresholds()[1:].tolist() == [0.5, 0.5]
    assert evaluation.classes(["a", "b", "c"])["average_precision"]["b"] is None
    assert evaluation.co_occurrence.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 2]]
    assert "  1.0000  1.0000     0.5000         1  a" in MultiLabelEvaluation(
        targets, evaluation.logits
    ).describe_classes("abc")


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteError, match="1 of 2 examples"):
        MultiLabelEvaluation(np.ones((2, 2), bool), np.array([[1, 2], [np.nan, 0]], np.float32))


def test_the_error_of_such_logits_comes_back_from_another_process():
    """Regression: it could not be unpickled, and `multiprocessing.Pool` waited forever."""
    error = NonFiniteError([3, 7], 9, "img{}.jpg".format)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is NonFiniteError
    assert (str(again), again.indices, again.count) == (str(error), (3, 7), 9)
    assert "img7.jpg" in str(again)


@pytest.mark.parametrize("labels", [np.array([0, 2, 1, 2]), np.eye(3, dtype=bool)[[0, 2, 1, 2]]])
def test_forms_of_the_same_labels_agree(labels):
    targets = targets_of(labels)
    assert targets is (SINGLE_LABEL if labels.ndim == 1 else MULTI_LABEL)
    assert targets.class_counts(labels, 3).tolist() == [1, 1, 2]
    assert targets.present(labels[:2]).tolist() == [0, 2]
    np.testing.assert_array_equal(targets.encode(labels, 3), np.eye(3)[[0, 2, 1, 2]])
    renumbered = targets.renumber(labels, np.array([1, 3, 4]), 5)
    np.testing.assert_array_equal(targets.encode(renumbered, 5), np.eye(5)[[1, 4, 3, 4]])
    assert targets.names(labels[1], "abc") == ["c"]


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [([0.5], "1 threshold for 2 classes"), ([0.5, float("nan")], "a threshold is nan"), ([0, 1.5], "1.5")],
)
def test_invalid_thresholds_are_refused(thresholds, message):
    with pytest.raises(UserError, match=message):
        check_thresholds(thresholds, 2)
