"""Calibration of probabilities, fitted on one part of the examples and reported on another."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.metrics import Evaluation, SingleLabelEvaluation
from resnet_tf.core.selective import choose_threshold
from resnet_tf.core.text import counted

_SEED = 0  # of the division into halves


@dataclass(frozen=True, eq=False)
class CalibrationCheck:
    """Probabilities before and after calibration, on examples that did not fit it.

    Attributes:
        before: evaluation of the logits as they are.
        after: evaluation of calibrated logits.
        cross_fitted: True if the split of the evaluation fitted the calibration: then each half of it is calibrated by
            a fit on the other half. False if another split fitted it.
        certain: True for each prediction that reaches the threshold, bool [N]; None without a threshold.
    """

    before: Evaluation
    after: Evaluation
    cross_fitted: bool
    certain: np.ndarray | None = None

    @property
    def coverage(self) -> float | None:
        """Return the fraction of predictions that reach the threshold, in [0, 1]; None without a threshold."""
        return None if self.certain is None else float(self.certain.mean())

    @property
    def precision(self) -> float | None:
        """Return the precision of the predictions that reach the threshold, in [0, 1]; None without any."""
        if self.certain is None or not self.certain.any():
            return None
        assert isinstance(self.after, SingleLabelEvaluation)
        return float(self.after.is_correct[self.certain].mean())

    def to_dict(self) -> dict[str, float | None]:
        """Return the metrics before and after; `coverage` and `precision` only with a threshold."""
        pairs = (("before", self.before), ("after", self.after))
        metrics: dict[str, float | None] = {"examples": len(self.before.targets)}
        for name in ("calibration_error", "loss", "brier_score"):
            metrics |= {f"{name}_{when}": getattr(evaluation, name) for when, evaluation in pairs}
        return metrics if self.certain is None else {**metrics, "coverage": self.coverage, "precision": self.precision}

    def __str__(self) -> str:
        known = self.to_dict()
        how = "each half with the fit of the other" if self.cross_fitted else "with the fit of another split"
        shown = (("calibration error", "calibration_error"), ("loss", "loss"), ("Brier score", "brier_score"))
        text = ", ".join(f"{name} {known[f'{key}_before']:.4f} to {known[f'{key}_after']:.4f}" for name, key in shown)
        text += f" on {counted(len(self.before.targets), 'example')}, {how}"
        if self.certain is None:
            return text
        precision = "" if self.precision is None else f", {self.precision:.4f} of them right"
        return f"{text}; {self.coverage:.4f} of the predictions are certain{precision}"


def calibrate(evaluation: Evaluation, *, target_precision: float | None = None) -> Calibration:
    """Fit a calibration to the evaluation of a split that took no part in the training.

        evaluation = resnet_tf.SingleLabelEvaluation(labels, model.predict(images))
        calibration = resnet_tf.calibrate(evaluation, target_precision=0.95)
        resnet_tf.export_model(model, "models/pets", calibration=calibration)

    Args:
        evaluation: labels and logits of the split.
        target_precision: of single-label predictions, precision of those that reach a threshold; chooses
            `Calibration.threshold`, see `choose_threshold`. None for no threshold.

    Returns:
        The temperatures and biases with the smallest loss. `held_out` has the metrics of a cross-fit: each half of the
        split, divided at random within each class, with the fit of the other half. None if there are fewer than two
        examples.
    """
    fitted = _fit(evaluation, target_precision)
    if len(evaluation.targets) < 2:
        return fitted
    check = check_calibration(dataclasses.replace(evaluation, calibration=fitted), cross_fitted=True)
    return dataclasses.replace(fitted, held_out=check.to_dict())


def check_calibration(evaluation: Evaluation, *, cross_fitted: bool) -> CalibrationCheck:
    """Return the metrics before and after the calibration of an evaluation, which must have one.

    Args:
        evaluation: with the calibration of its network.
        cross_fitted: True if the evaluated split fitted the calibration, so that a cross-fit must replace it.
    """
    before = dataclasses.replace(evaluation, calibration=UNCALIBRATED)
    if not cross_fitted:
        return CalibrationCheck(before, evaluation.calibrated, False, _certain(evaluation))
    logits = np.empty(evaluation.logits.shape)
    has_threshold = evaluation.calibration.threshold is not None
    certain = np.zeros(len(logits), bool) if has_threshold else None
    target = evaluation.calibration.target_precision if has_threshold else None
    first, second = _halves(evaluation.strata)
    for fitting, reporting in ((first, second), (second, first)):
        found = _fit(before.part(fitting), target) if len(fitting) else UNCALIBRATED
        part = dataclasses.replace(before.part(reporting), calibration=found)
        logits[reporting] = part.calibrated_logits
        if certain is not None and (known := _certain(part)) is not None:
            certain[reporting] = known
    return CalibrationCheck(before, evaluation.with_logits(logits), True, certain)


def check_if_calibrated(evaluation: Evaluation, *, cross_fitted: bool) -> CalibrationCheck | None:
    """Return `check_calibration`, or None for an evaluation without calibration."""
    if evaluation.calibration == UNCALIBRATED:
        return None
    return check_calibration(evaluation, cross_fitted=cross_fitted)


def _fit(evaluation: Evaluation, target_precision: float | None) -> Calibration:
    fitted = evaluation.fit_calibration()
    if target_precision is None or not isinstance(evaluation, SingleLabelEvaluation):
        return fitted
    calibrated = dataclasses.replace(evaluation, calibration=fitted)
    threshold = choose_threshold(calibrated.confidence, calibrated.is_correct, target_precision)
    return dataclasses.replace(fitted, threshold=threshold, target_precision=target_precision)


def _certain(evaluation: Evaluation) -> np.ndarray | None:
    """Return whether each prediction reaches the threshold of the calibration, bool [N]; None without one."""
    threshold = evaluation.calibration.threshold
    if threshold is None or not isinstance(evaluation, SingleLabelEvaluation):
        return None
    return evaluation.confidence >= threshold


def _halves(strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of two random halves, in which each stratum has as many examples, up to one."""
    shuffled = np.random.default_rng(_SEED).permutation(len(strata))
    ordered = shuffled[np.argsort(strata[shuffled], kind="stable")]
    return ordered[::2], ordered[1::2]
