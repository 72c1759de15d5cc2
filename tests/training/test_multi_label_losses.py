"""Losses of multi-label targets, compared with PyTorch and formulas of the papers."""

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.config import LossConfig
from resnet_tf.core.errors import UserError
from resnet_tf.training.losses import Objective
from resnet_tf.training.multi_label_losses import MultiLabelObjective, positive_weights

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((6, 5)) < 0.4).astype(np.float32)
LOGITS = RNG.normal(0, 3, (6, 5)).astype(np.float32)
COUNTS = np.array([0, 10, 40, 90, 100])


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="compares with PyTorch")


def _loss(logits=LOGITS, targets=TARGETS, teacher=None, **settings):
    return MultiLabelObjective(LossConfig(**settings), COUNTS, examples=100)(targets, logits, teacher)


@pytest.mark.parametrize("name", ["cross_entropy", "binary"])
def test_cross_entropy_is_that_of_pytorch(name, torch):
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(LOGITS), torch.tensor(TARGETS), reduction="none"
    )
    np.testing.assert_allclose(_loss(name=name), expected.mean(1), rtol=1e-5)


def test_a_threshold_of_targets_removes_their_smoothing():
    """As timm's BinaryCrossEntropy with `smooth_dense` and `target_threshold`."""
    found = _loss(name="binary", label_smoothing=0.1, target_threshold=0.2)
    np.testing.assert_array_equal(found, _loss(name="binary"))
    smoothed = _loss(name="cross_entropy", label_smoothing=0.1)
    np.testing.assert_array_equal(_loss(name="cross_entropy", label_smoothing=0.1, target_threshold=0.2), smoothed)


def test_inverse_class_weights_are_positive_weights_of_pytorch(torch):
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(LOGITS), torch.tensor(TARGETS), reduction="none", pos_weight=torch.tensor([1, 9, 1.5, 1 / 9, 1])
    )
    np.testing.assert_allclose(_loss(class_weights="inverse"), expected.mean(1), rtol=1e-5)


def test_effective_class_weights_lie_between_none_and_inverse():
    inverse, nearly, small = (
        positive_weights(LossConfig(class_weights=name, effective_beta=beta), COUNTS, 100)
        for name, beta in (("inverse", 0.5), ("effective", 1 - 1e-9), ("effective", 0.0))
    )
    np.testing.assert_allclose(nearly, inverse, rtol=1e-5)
    np.testing.assert_allclose(small, 1.0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_that_of_the_paper(gamma):
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    of_target = np.where(TARGETS > 0, p, 1 - p)  # p_t of Lin et al. 2017, eq. 2 and 4
    expected = (1 - of_target) ** gamma * -np.log(of_target)
    np.testing.assert_allclose(_loss(name="focal", focal_gamma=gamma), expected.mean(1), rtol=1e-4)


@pytest.mark.parametrize(
    ("positive", "negative", "margin"), [(0, 4, 0.05), (1, 4, 0.05), (1, 2, 0), (0, 0.5, 0.2), (0, 0, 0)]
)
def test_asymmetric_loss_is_that_of_the_paper(positive, negative, margin):
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    shifted = np.maximum(p - margin, 0)
    expected = TARGETS * (1 - p) ** positive * -np.log(p) + (1 - TARGETS) * shifted**negative * -np.log(1 - shifted)
    settings = {"positive_gamma": positive, "negative_gamma": negative, "margin": margin}
    np.testing.assert_allclose(_loss(name="asymmetric", **settings), expected.mean(1), rtol=2e-4)


def test_label_smoothing_moves_each_decision_towards_a_half(torch):
    smoothed = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(LOGITS), torch.tensor(TARGETS * 0.9 + 0.05), reduction="none"
    )
    np.testing.assert_allclose(_loss(label_smoothing=0.1), smoothed.mean(1), rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 1000.0])
def test_distillation_is_the_divergence_of_each_decision(temperature):
    teacher = RNG.normal(0, 3, LOGITS.shape).astype(np.float32)
    q, p = (1 / (1 + np.exp(-each.astype(np.float64) / temperature)) for each in (teacher, LOGITS))
    divergence = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    expected = divergence.mean(1) * temperature**2
    found = _loss(teacher=teacher, teacher_weight=1.0, temperature=temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "cross_entropy"},
        {"name": "focal", "focal_gamma": 0.1},
        {"name": "asymmetric"},
        {"name": "asymmetric", "negative_gamma": 0.1},
    ],
)
def test_losses_and_gradients_are_finite_for_all_logits(settings):
    logits = tf.constant(np.array([[-1e4, -88, -1e-3, 0, 1e-3, 30, 1e4]], np.float32))
    objective = MultiLabelObjective(LossConfig(**settings), np.ones(7), examples=2)
    teacher = -logits
    for targets in (tf.zeros_like(logits), tf.ones_like(logits)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = objective(targets, logits, teacher)
        assert np.isfinite(loss).all()
        assert np.isfinite(tape.gradient(loss, logits)).all()


def test_settings_of_the_other_form_are_refused():
    with pytest.raises(UserError, match=r"loss\.logit_adjustment"):
        MultiLabelObjective(LossConfig(logit_adjustment=1.0), COUNTS, examples=100)
    with pytest.raises(UserError, match=r"loss\.name=asymmetric is a multi-label loss, and each example has one class"):
        Objective(LossConfig(name="asymmetric"), COUNTS)
