"""Changes of two multi-label classifiers, compared with scikit-learn on repeated examples."""

import dataclasses

import numpy as np
import pytest
import sklearn.metrics

from resnet_tf.core import paired_multi_label
from resnet_tf.core.comparison import Answers, check_gates
from resnet_tf.core.errors import UserError
from resnet_tf.core.multi_label_comparison import MultiLabelComparison
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation
from resnet_tf.core.paired_multi_label import MultiLabelPaired, weighted_average_precision, weighted_f1


def _scores(targets: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Return probabilities, rounded so that some are equal, float [N, C]."""
    rng = np.random.default_rng(seed)
    return (1 / (1 + np.exp(-(2 * targets - 1 + rng.normal(0, noise, targets.shape))))).round(2)


@pytest.fixture(scope="module")
def targets():
    return np.random.default_rng(0).random((200, 4)) < (0.5, 0.2, 0.05, 0.0)


@pytest.fixture(scope="module")
def comparison(targets):
    old, new = _scores(targets, 1.0, 1), _scores(targets, 2.0, 2)
    answers = [Answers(name, "", each >= 0.5, each) for name, each in (("old", old), ("new", new))]
    names, halves = ("a", "b", "c", "none"), {"first": np.arange(100), "second": np.arange(100, 200)}
    return MultiLabelComparison("squares", *answers, targets, names, {"half": halves})


def test_weighted_metrics_are_those_of_repeated_examples(targets):
    scores = _scores(targets, 1.5, 3)
    weights = np.random.default_rng(4).multinomial(200, np.full(200, 1 / 200), 5)
    precision, f1 = weighted_average_precision(targets, scores, weights), weighted_f1(targets, scores >= 0.5, weights)
    for row, counts in enumerate(weights):
        repeated, values = np.repeat(targets, counts, axis=0), np.repeat(scores, counts, axis=0)
        expected = sklearn.metrics.f1_score(repeated, values >= 0.5, average=None, zero_division=0)
        np.testing.assert_allclose(f1[row], expected)
        for index in range(3):
            if repeated[:, index].any():
                known = sklearn.metrics.average_precision_score(repeated[:, index], values[:, index])
                assert precision[row, index] == pytest.approx(known)
    assert np.isnan(precision[:, 3]).all(), "no examples"


def test_changes_and_their_intervals(comparison, targets):
    known, (old, new) = comparison.multi_label, (each.confidence for each in comparison.answers)
    change = known.mean_average_precision
    for value, scores in ((change.old, old), (change.new, new)):
        assert value == pytest.approx(sklearn.metrics.average_precision_score(targets[:, :3], scores[:, :3]))
    assert known.f1_macro.new == pytest.approx(
        sklearn.metrics.f1_score(targets, new >= 0.5, average="macro", zero_division=0)
    )
    rng, differences = np.random.default_rng(9), []
    for _ in range(400):
        chosen = rng.integers(0, 200, 200)
        present = targets[chosen].any(axis=0)
        pair = [
            sklearn.metrics.average_precision_score(targets[chosen][:, present], scores[chosen][:, present])
            for scores in (old, new)
        ]
        differences.append(pair[1] - pair[0])
    np.testing.assert_allclose(change.interval, np.quantile(differences, [0.025, 0.975]), atol=0.03)
    assert change.interval[0] < change.difference < change.interval[1] < 0, "clearly worse"
    same = MultiLabelPaired(targets, (old, old), (old >= 0.5, old >= 0.5)).mean_average_precision
    assert (same.difference, same.interval) == (0, (0, 0))


def test_logits_rank_examples_whose_probabilities_are_rounded_to_1(targets):
    logits = (20 * (2 * targets + np.random.default_rng(5).normal(2, 1, targets.shape))).astype(np.float32)
    evaluation = MultiLabelEvaluation(targets, logits)
    probabilities = evaluation.probabilities
    assert (probabilities == 1).mean() > 0.3
    answers = Answers("", "", evaluation.selected, probabilities, logits=logits)
    change = MultiLabelComparison("", answers, answers, targets, "abcd", {}).multi_label.mean_average_precision
    expected = sklearn.metrics.average_precision_score(targets[:, :3], logits[:, :3])
    assert change.new == pytest.approx(expected) == pytest.approx(evaluation.mean_average_precision)
    rounded = sklearn.metrics.average_precision_score(targets[:, :3], probabilities[:, :3])
    assert expected - rounded > 0.01


def test_recalls_need_a_class_with_examples():
    nothing = np.zeros((5, 2), bool)
    answers = Answers("", "", nothing, np.zeros((5, 2)))
    comparison = MultiLabelComparison("squares", answers, answers, nothing, "ab", {})
    assert [gate.passed for gate in check_gates(comparison, max_accuracy_drop=0.0, max_negative_flips=0)] == [True] * 2
    with pytest.raises(UserError, match="min_class_recall cannot be measured: no example of squares has a class"):
        check_gates(comparison, min_class_recall=0.5)


def test_exact_matches_are_paired(comparison, targets):
    old, new = ((each.predictions == targets).all(axis=1) for each in comparison.answers)
    paired = comparison.paired
    assert paired.accuracies == (old.mean(), new.mean())
    assert paired.accuracies[0] == pytest.approx(sklearn.metrics.accuracy_score(targets, comparison.old.predictions))
    assert paired.negative == np.sum(old & ~new)
    decisions = {each.name: each.paired for each in comparison.slices["class"]}
    assert decisions["a"].accuracies[1] == np.mean(comparison.new.predictions[:, 0] == targets[:, 0])
    assert comparison.slices["half"][0].paired.examples == 100
    worst = comparison.negative_flips[0]
    wrong = comparison.new.predictions[worst] != targets[worst]
    certainty = np.abs(comparison.new.confidence[worst] - 0.5)[wrong].max() + 0.5
    assert comparison.flip_confidence(np.array([worst])) == pytest.approx([certainty])
    assert comparison.flip_confidence(comparison.negative_flips).max() == pytest.approx(certainty)
    recalls = sklearn.metrics.recall_score(targets[:, :3], comparison.new.predictions[:, :3], average=None)
    assert comparison.new_recalls == pytest.approx(dict(zip("abc", recalls, strict=True)))


def test_text_and_numbers(comparison):
    known, text = comparison.to_dict(), str(comparison)
    assert f"mAP            {comparison.multi_label.mean_average_precision}" in text
    assert "exact match    0." in text
    assert "average precision by class\n  0." in text
    change = known["mean_average_precision"]
    assert change["difference"] == pytest.approx(change["new"] - change["old"])
    assert [each["name"] for each in known["classes"]] == [name for name, *_ in comparison.class_changes]
    assert len(known["classes"]) == 3, "classes with examples"
    (gate,) = check_gates(comparison, max_accuracy_drop=0.01)
    assert not gate.passed
    assert gate.text.startswith("the exact match drops by 0.")
    (gate,) = check_gates(comparison, min_class_recall=0.1)
    assert gate.passed
    assert comparison.name_target(0) == (", ".join(np.array(list("abc"))[comparison.targets[0, :3]]) or "no class")


def test_resamples_are_taken_in_chunks(comparison, monkeypatch):
    expected = comparison.multi_label.f1_macro
    monkeypatch.setattr(paired_multi_label, "_CHUNK", 1000)
    found = dataclasses.replace(comparison.multi_label).f1_macro
    assert (found.old, found.new) == (expected.old, expected.new)
    np.testing.assert_allclose(found.interval, expected.interval, atol=0.01)
