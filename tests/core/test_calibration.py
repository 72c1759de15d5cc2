"""Calibration, confidence thresholds and energies, compared with SciPy, scikit-learn and PyTorch."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics
import tensorflow as tf

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.calibration_check import calibrate, check_calibration
from resnet_tf.core.calibration_fit import fit_temperature, fit_vector_scaling
from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation
from resnet_tf.core.out_of_distribution import separate
from resnet_tf.core.selective import choose_threshold, lower_precision
from resnet_tf.core.targets import MULTI_LABEL, SINGLE_LABEL

CLASSES = 6


def _single(count: int, *, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels that follow the softmax of logits, and these logits times a factor, float32 [N, C]."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, CLASSES))
    cumulative = np.cumsum(scipy.special.softmax(logits, axis=1), axis=1)
    labels = (rng.random((count, 1)) > cumulative).sum(axis=1).clip(max=CLASSES - 1)
    return labels, (factor * logits).astype(np.float32)


def _multi(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels that follow sigmoids, bool [N, 3], and logits with a wrong scale and bias for each class."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, (count, 3))
    labels = rng.random(logits.shape) < scipy.special.expit(logits)
    return labels, ((logits - [0.5, -1.0, 0.0]) * [3.0, 0.5, 1.0]).astype(np.float32)


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5, 20.0])
def test_the_temperature_is_that_of_scipy(factor):
    labels, logits = _single(5000, factor=factor)

    def loss(temperature: float) -> float:
        return sklearn.metrics.log_loss(labels, scipy.special.softmax(logits.astype(float) / temperature, axis=1))

    expected = scipy.optimize.minimize_scalar(loss, bounds=(0.05, 90), method="bounded", options={"xatol": 1e-8}).x
    found = fit_temperature(labels, logits)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(factor, rel=0.1), "the data were made with it"


def test_a_split_without_errors_has_no_temperature():
    labels, logits = _single(500, factor=1.0)
    assert fit_temperature(logits.argmax(axis=1), logits) == 1.0
    assert fit_temperature(logits.argmin(axis=1), logits) == pytest.approx(100.0)
    infinite = np.where(logits < logits.mean(), -np.inf, logits)
    possible = np.isfinite(np.take_along_axis(infinite, labels[:, None], axis=1))[:, 0]
    assert 0.5 < fit_temperature(labels[possible], infinite[possible]) < 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("margin", [0.1, 1.0, 9.0, 30.0])
def test_separable_logits_have_no_temperature(margin, dtype):
    labels = np.arange(40) % 4
    logits = (margin * np.eye(4)[labels]).astype(dtype)
    assert fit_temperature(labels, logits) == 1.0
    labels[0] = 1  # the best softmax has a probability of 39 / 40
    assert fit_temperature(labels, logits) == pytest.approx(float(logits.max()) / np.log(3 * 39), rel=1e-4)
    logits[:, 3] = np.where(labels == 3, logits[:, 3], -np.inf)
    assert np.isfinite(fit_temperature(labels, logits))


def test_vector_scaling_is_that_of_torch():
    torch = pytest.importorskip("torch")
    labels, logits = _multi(3000)
    positives, total = labels.sum(axis=0), len(labels)
    targets = torch.tensor(np.where(labels, (positives + 1) / (positives + 2), 1 / (total - positives + 2)))
    inputs = torch.tensor(logits, dtype=torch.float64)
    scale, bias = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    parameters = [each.requires_grad_() for each in (scale, bias)]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scale * inputs + bias, targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    temperatures, biases = fit_vector_scaling(labels, logits)
    np.testing.assert_allclose(1 / temperatures, scale.detach().numpy(), rtol=1e-4)
    np.testing.assert_allclose(biases, bias.detach().numpy(), atol=5e-4)
    np.testing.assert_allclose(temperatures, [3.0, 0.5, 1.0], rtol=0.15)  # the data were made with it
    np.testing.assert_allclose(biases, [0.5, -1.0, 0.0], atol=0.2)


def test_classes_that_cannot_be_fitted_keep_their_probabilities():
    labels, logits = _multi(400)
    labels[:, 0] = np.arange(400) < 9  # too few examples
    labels[:, 1] = logits[:, 1] < 0  # the wrong way round
    logits[:, 2] = 1.5  # constant
    temperatures, biases = fit_vector_scaling(labels, logits)
    assert temperatures.tolist() == [1, 1, 1]
    assert biases.tolist() == [0, 0, 0]
    labels[:, 2], logits[:, 2] = np.arange(400) < 100, np.where(np.arange(400) < 100, 1, -1)  # separable
    temperatures, biases = fit_vector_scaling(labels, logits)
    assert np.isfinite(biases[2])
    probabilities = scipy.special.expit(np.array([1, -1]) / temperatures[2] + biases[2])
    np.testing.assert_allclose(probabilities, [101 / 102, 1 / 302], rtol=1e-3)


def test_brier_scores_and_losses_are_those_of_scikit_learn():
    labels, logits = _single(1000, factor=3.0)
    evaluation = SingleLabelEvaluation(labels, logits, calibration=Calibration((2.0,)))
    softmax = scipy.special.softmax(logits.astype(float) / 2, axis=1)
    np.testing.assert_allclose(evaluation.probabilities, softmax, rtol=1e-6)
    squares = sum(sklearn.metrics.brier_score_loss(labels == index, softmax[:, index]) for index in range(CLASSES))
    assert evaluation.calibrated.brier_score == pytest.approx(squares, rel=1e-6)
    assert evaluation.calibrated.loss == pytest.approx(sklearn.metrics.log_loss(labels, softmax), rel=1e-6)
    assert evaluation.loss > evaluation.calibrated.loss, "the loss is that of the logits as they are"
    labels, logits = _multi(1000)
    calibration = Calibration((3.0, 0.5, 1.0), (0.5, -1.0, 0.0))
    evaluation = MultiLabelEvaluation(labels, logits, calibration=calibration)
    sigmoid = scipy.special.expit(logits.astype(float) / [3.0, 0.5, 1.0] + [0.5, -1.0, 0.0])
    np.testing.assert_allclose(evaluation.probabilities, sigmoid, rtol=1e-6)
    brier = sklearn.metrics.brier_score_loss(labels.ravel(), sigmoid.ravel())
    assert evaluation.calibrated.brier_score == pytest.approx(brier, rel=1e-6)


def test_the_best_class_and_the_decisions_stay():
    labels, logits = _single(2000, factor=4.0)
    near = np.nextafter(logits[:, :1], np.float32(np.inf))  # neighbors, which a division can make equal
    logits = np.concatenate([logits[:, :1], near, logits[:, 1:] - 10], axis=1).astype(np.float32)
    calibration = Calibration((fit_temperature(labels, logits),))
    assert calibration.temperature != 1
    ranking = calibration.ranking(tf.constant(logits))
    np.testing.assert_array_equal(np.argmax(ranking, axis=1), logits.argmax(axis=1))
    before = SingleLabelEvaluation(labels, logits)
    assert dataclasses.replace(before, calibration=calibration).to_dict() == before.to_dict()
    labels, logits = _multi(500)
    before = MultiLabelEvaluation(labels, logits).with_chosen_thresholds()
    after = dataclasses.replace(before, calibration=before.fit_calibration()).with_chosen_thresholds()
    np.testing.assert_array_equal(after.selected, before.selected)
    assert not np.allclose(after.thresholds, before.thresholds)
    np.testing.assert_array_equal(after.average_precision, before.average_precision)


def test_metrics_are_those_of_the_half_that_did_not_fit():
    labels, logits = _single(301, factor=5.0)
    evaluation = SingleLabelEvaluation(labels, logits)
    calibration = calibrate(evaluation)
    check = check_calibration(dataclasses.replace(evaluation, calibration=calibration), cross_fitted=True)
    inverse = np.unique((check.after.logits[:, 0] / logits[:, 0]).round(6))
    assert len(inverse) == 2, "two temperatures"
    for each in inverse:
        reported = np.isclose(check.after.logits[:, 0] / logits[:, 0], each, atol=2e-6)
        assert 1 / each == pytest.approx(fit_temperature(labels[~reported], logits[~reported]), rel=1e-4)
        counts = np.bincount(labels[reported], minlength=CLASSES) - np.bincount(labels[~reported], minlength=CLASSES)
        assert np.abs(counts).max() <= 1, "stratified"
    assert calibration.temperature == pytest.approx(fit_temperature(labels, logits))
    assert calibration.held_out == check.to_dict()
    assert calibration.held_out["loss_after"] < calibration.held_out["loss_before"]
    assert calibration.held_out["calibration_error_after"] < calibration.held_out["calibration_error_before"]
    assert calibration.held_out["loss_before"] == pytest.approx(evaluation.loss)
    other = check_calibration(dataclasses.replace(evaluation, calibration=Calibration((5.0,))), cross_fitted=False)
    assert other.after.loss == pytest.approx(SingleLabelEvaluation(labels, logits / 5).loss, rel=1e-6)
    assert calibrate(evaluation.part(np.arange(1))).held_out is None


def test_the_limit_of_the_precision_is_that_of_scipy():
    for right, count in ((0, 5), (5, 5), (60, 70), (999, 1000)):
        expected = scipy.stats.binomtest(right, count).proportion_ci(0.9, "wilson").low  # two-sided
        assert lower_precision(np.array(right), np.array(count)) == pytest.approx(expected, abs=1e-9)


def test_a_threshold_reaches_its_precision_on_other_examples():
    labels, logits = _single(4000, factor=3.0)
    calibration = calibrate(SingleLabelEvaluation(labels, logits), target_precision=0.9)
    other_labels, other = _single(40_000, factor=3.0, seed=1)
    evaluation = SingleLabelEvaluation(other_labels, other, calibration=calibration)
    check = check_calibration(evaluation, cross_fitted=False)
    assert 0.9 <= check.precision < 0.93
    assert check.coverage == pytest.approx(calibration.held_out["coverage"], abs=0.1)
    assert calibration.held_out["precision"] == pytest.approx(0.9, abs=0.02)
    lower = dataclasses.replace(calibration, threshold=calibration.threshold - 0.05)
    check = check_calibration(dataclasses.replace(evaluation, calibration=lower), cross_fitted=False)
    assert check.precision < 0.9, "the smallest threshold"


def test_thresholds_of_few_examples():
    confidence = np.linspace(0.99, 0.5, 60)
    assert choose_threshold(confidence[:51], np.ones(51, bool), 0.95) is None
    assert choose_threshold(confidence[:52], np.ones(52, bool), 0.95) == 0.0
    correct = np.arange(60) < 55
    found = choose_threshold(confidence, correct, 0.95)
    assert found == pytest.approx((confidence[55] + confidence[56]) / 2, abs=0.009)
    assert confidence[54] > found
    assert choose_threshold(np.full(60, 0.7), correct, 0.95) is None, "equal confidences are not divided"
    labels, logits = _single(300, factor=1.0)
    calibration = calibrate(SingleLabelEvaluation(labels, logits), target_precision=0.9999)
    assert (calibration.threshold, calibration.target_precision) == (None, 0.9999)
    assert "coverage" not in calibration.held_out


def test_an_empty_split_has_no_threshold():
    single = SingleLabelEvaluation(np.zeros(0, int), np.zeros((0, 3), np.float32))
    assert calibrate(single, target_precision=0.9) == Calibration(target_precision=0.9)
    multi = MultiLabelEvaluation(np.zeros((0, 3), bool), np.zeros((0, 3), np.float32))
    assert calibrate(multi).is_identity


def test_the_separation_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    known, other = rng.normal(0, 1, 500).round(1), rng.normal(1, 2, 300).round(1)  # with ties
    found = separate(known, other, "other")
    truth, scores = np.repeat([0, 1], [500, 300]), np.concatenate([known, other])
    assert found.auroc == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores))
    rates, recall, _ = sklearn.metrics.roc_curve(1 - truth, -scores, drop_intermediate=False)
    assert found.false_positive_rate == pytest.approx(rates[np.argmax(recall >= 0.95)])
    assert separate(known, known + 100, "far").to_dict() == {
        "data": "far",
        "examples": 500,
        "auroc": 1.0,
        "false_positive_rate": 0.0,
    }


@pytest.mark.parametrize("form", ["single", "multi"])
def test_graph_operations_and_evaluations_agree(form):
    labels, logits = _single(50, factor=3.0) if form == "single" else _multi(50)
    targets = SINGLE_LABEL if form == "single" else MULTI_LABEL
    calibration = Calibration((2.5,)) if form == "single" else Calibration((2.0, 0.5, 1.0), (0.1, -1.0, 0.0))
    evaluation = targets.evaluate(labels, logits, calibration=calibration)
    np.testing.assert_allclose(targets.probabilities(logits, calibration), evaluation.probabilities, rtol=2e-5)
    np.testing.assert_allclose(targets.energy(logits, calibration), evaluation.energy, rtol=2e-5)
    if form == "single":  # Liu et al. 2020, equation 4
        expected = -2.5 * scipy.special.logsumexp(logits.astype(float) / 2.5, axis=1)
    else:  # Wang et al. 2021, equation 8
        expected = -np.log1p(np.exp(calibration.apply(logits.astype(float)))).sum(axis=1)
    np.testing.assert_allclose(evaluation.energy, expected, rtol=1e-5)
    assert targets.probabilities(logits, UNCALIBRATED).dtype == tf.float32


def test_fields_in_files_are_checked():
    known = Calibration((1.5,), threshold=0.7, target_precision=0.9, held_out={"examples": 5.0, "precision": None})
    assert Calibration.from_dict(json.loads(json.dumps(known.to_dict())), 10) == known
    assert Calibration.from_dict(None) is UNCALIBRATED
    for fields, message in (
        ({"temperatures": [1.0]}, "has no 'biases'"),
        ({"temperatures": [0.0], "biases": [0.0]}, "a temperature is 0.0; expected a positive number"),
        ({"temperatures": [float("nan")], "biases": [0.0]}, "a temperature is nan"),
        ({"temperatures": [1.0], "biases": [1e9]}, "a bias is"),
        ({"temperatures": [1.0], "biases": []}, "1 temperature for 0 biases"),
        ({"temperatures": [], "biases": []}, "0 temperatures for 0 biases"),
        ({"temperatures": [1.0, 2.0], "biases": [0.0, 0.0]}, "2 temperatures for 10 classes"),
        ({"temperatures": "1", "biases": [0.0]}, "temperatures is a string, not a list"),
        ({"temperatures": [1.0], "biases": [0.0], "threshold": 2.0}, "threshold is 2.0; expected a probability"),
        ({"temperatures": [1.0], "biases": [0.0], "held_out": {"a": "b"}}, "held_out.a is a string"),
        ({"temperatures": [1.0], "biases": [0.0], "threshold": 0.5}, "threshold is set, and target_precision is not"),
        ([1.0], "it is a list, not an object"),
    ):
        with pytest.raises(UserError, match=message):
            Calibration.from_dict(fields, 10)
