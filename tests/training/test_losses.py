"""Losses beside NumPy written from the papers, Keras's own, and, in the slow tier, torch's and timm's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import import_torch_zoo
from scipy.special import log_softmax, softmax

from resnet_tf.config import LossConfig
from resnet_tf.core.errors import UserError
from resnet_tf.training.losses import Objective, class_weights

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(6, 4)).astype(np.float32) * 3
LABELS = np.array([0, 1, 2, 3, 1, 1])
HARD = np.eye(4, dtype=np.float32)[LABELS]
MIXED = (0.7 * HARD + 0.3 * HARD[::-1]).astype(np.float32)
COUNTS = np.array([100, 10, 1000, 5])


def _losses(targets, **settings) -> np.ndarray:
    return Objective(LossConfig(**settings), COUNTS)(tf.constant(targets), tf.constant(LOGITS)).numpy()


@pytest.mark.parametrize("targets", [HARD, MIXED], ids=["labels", "mixed"])
def test_cross_entropy_with_smoothing(targets):
    smooth = targets * 0.9 + 0.1 / 4
    np.testing.assert_allclose(_losses(targets), -(targets * log_softmax(LOGITS, -1)).sum(-1), rtol=1e-5)
    expected = -(smooth * log_softmax(LOGITS, -1)).sum(-1)
    np.testing.assert_allclose(_losses(targets, label_smoothing=0.1), expected, rtol=1e-5)


@pytest.mark.parametrize("targets", [HARD, MIXED], ids=["labels", "mixed"])
def test_binary_is_a_sigmoid_for_each_class(targets):
    chance = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    expected = -(targets * np.log(chance) + (1 - targets) * np.log(1 - chance)).mean(-1)
    np.testing.assert_allclose(_losses(targets, name="binary"), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_both_classes_of_a_mixed_example_are_targets_of_binary(smoothing):
    """Wightman et al. 2021, section 2; in timm, the threshold is that of smoothed targets."""
    present = (MIXED > 0).astype(np.float64)
    chance = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    expected = -(present * np.log(chance) + (1 - present) * np.log(1 - chance)).mean(-1)
    settings = {"name": "binary", "label_smoothing": smoothing}
    np.testing.assert_allclose(_losses(MIXED, target_threshold=0.2, **settings), expected, rtol=1e-5)
    only_larger = _losses(MIXED, target_threshold=0.5, **settings)
    np.testing.assert_allclose(only_larger, _losses(np.round(MIXED), name="binary"), rtol=1e-5)
    # The threshold of a recipe stays with another loss, where it has no effect.
    np.testing.assert_array_equal(_losses(MIXED, target_threshold=0.2), _losses(MIXED))


def test_focal_counts_easy_examples_less():
    expected = keras.losses.categorical_focal_crossentropy(HARD, LOGITS, alpha=1.0, gamma=2.0, from_logits=True)
    np.testing.assert_allclose(_losses(HARD, name="focal"), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(_losses(HARD, name="focal", focal_gamma=0.0), _losses(HARD), rtol=1e-5)
    chance = softmax(LOGITS, -1)[np.arange(6), LABELS]
    np.testing.assert_allclose(_losses(HARD, name="focal"), (1 - chance) ** 2 * -np.log(chance), rtol=1e-4, atol=1e-6)


def test_class_weights():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(np.arange(4), COUNTS)
    inverse = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(class_weights(LossConfig(class_weights="inverse"), COUNTS), inverse, rtol=1e-6)
    effective = class_weights(LossConfig(class_weights="effective", effective_beta=0.99), COUNTS)
    numbers = (1 - 0.99**COUNTS) / (1 - 0.99)  # Cui et al. 2019, equation 2
    np.testing.assert_allclose(effective, 1 / numbers / (1 / numbers).sum() * 4, rtol=1e-5)
    np.testing.assert_allclose(_losses(HARD, class_weights="inverse"), inverse[LABELS] * _losses(HARD), rtol=1e-5)
    smooth = {"label_smoothing": 0.1}
    weighted, plain = _losses(MIXED, class_weights="inverse", **smooth), _losses(MIXED, **smooth)
    np.testing.assert_allclose(weighted, MIXED @ inverse * plain, rtol=1e-5, err_msg="weights of labels, not smooth")
    absent = class_weights(LossConfig(class_weights="inverse"), np.array([3, 0, 1]))
    np.testing.assert_allclose(absent, [2 / 3, 0, 2])


def test_logit_adjustment_adds_the_logarithm_of_the_class_frequencies():
    adjusted = LOGITS + 1.5 * np.log(COUNTS / COUNTS.sum())
    expected = -(HARD * log_softmax(adjusted, -1)).sum(-1)
    np.testing.assert_allclose(_losses(HARD, logit_adjustment=1.5), expected, rtol=1e-5)
    with pytest.raises(UserError, match=r"loss.logit_adjustment is for softmax losses"):
        Objective(LossConfig(name="binary", logit_adjustment=1.0), COUNTS)


def test_logit_adjustment_does_not_change_the_divergence_from_a_teacher():
    settings = {"teacher": "x", "teacher_weight": 1.0}
    plain, adjusted = (
        Objective(LossConfig(**settings, logit_adjustment=factor), COUNTS)(HARD, LOGITS, LOGITS[::-1])
        for factor in (0.0, 2.0)
    )
    np.testing.assert_array_equal(adjusted, plain)


@pytest.mark.slow
def test_they_are_torchs_and_timms():
    torch = pytest.importorskip("torch", reason="live parity takes torch and timm")
    losses = import_torch_zoo("timm.loss")
    logits, labels, mixed = torch.tensor(LOGITS), torch.tensor(LABELS), torch.tensor(MIXED)
    pairs = [
        (_losses(HARD, label_smoothing=0.1), losses.LabelSmoothingCrossEntropy(0.1)(logits, labels)),
        (_losses(HARD, label_smoothing=0.1), torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)),
        (_losses(MIXED), losses.SoftTargetCrossEntropy()(logits, mixed)),
        (_losses(HARD, name="binary", label_smoothing=0.1), losses.BinaryCrossEntropy(smoothing=0.1)(logits, labels)),
        (_losses(MIXED, name="binary"), losses.BinaryCrossEntropy(smoothing=0.0)(logits, mixed)),
        *(
            (
                _losses(MIXED, name="binary", label_smoothing=smoothing, target_threshold=threshold),
                losses.BinaryCrossEntropy(target_threshold=threshold)(
                    logits,
                    mixed * (1 - smoothing) + smoothing / 4,  # timm's Mixup smooths
                ),
            )
            for smoothing in (0.0, 0.1)
            for threshold in (0.2, 0.28, 0.5)
        ),
    ]
    for ours, theirs in pairs:
        assert ours.mean() == pytest.approx(float(theirs), rel=1e-5)
