"""Linear probe: probabilities of the classes of each example, by a probe that was fitted without the example.

The probe is ridge regression on the labels. The sums that it needs are collected in one pass over the features, for all
folds and penalties, whatever the number of examples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnet_tf.core.progress_line import Progress
from resnet_tf.data.audit.scan import allocate

FOLDS = 5

ToProbabilities = Callable[[np.ndarray], np.ndarray]  # from regressions to probabilities, both float32 [n, C]

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # relative to the variance of a feature
_SAMPLE = 10_000  # examples that choose the penalty and the scale of the probabilities
_CHUNK = 2048


@dataclass
class _Sums:
    """Sums over the examples of each of K folds; x are features minus `shift`, y targets.

    Attributes:
        shift: about the mean of the features, [D]; without it, products of large means would cancel in float32.
        count: number of examples, [K].
        x: [K, D].
        y: [K, C].
        xx: [K, D, D].
        xy: [K, D, C].
    """

    shift: np.ndarray
    count: np.ndarray
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray


@dataclass(frozen=True)
class _Probe:
    """Regression from features to targets: (x - `mean`) @ `weights` + `bias`."""

    mean: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features.astype(np.float32) - self.mean) @ self.weights + self.bias


def cross_validate(features: np.ndarray, labels: np.ndarray, classes: int, directory: Path) -> np.ndarray:
    """Return the probabilities of the classes of each example, float32 [N, C], by a probe that was fitted without it.

    Args:
        features: [N, D].
        labels: int64 [N], for probabilities with the sum 1; or bool [N, C], for one probability of each class.
        classes: number of classes C.
        directory: of temporary files, see `allocate`.
    """
    folds = assign_folds(labels)
    sums = _collect(features, labels, folds, classes)
    sample = np.sort(np.random.default_rng(0).permutation(len(folds))[:_SAMPLE])
    targets = _encode(labels[sample], classes)
    candidates = [[_solve(sums, fold, penalty) for fold in range(FOLDS)] for penalty in _PENALTIES]
    found = [_predict(probes, features[sample], folds[sample]) for probes in candidates]
    best = int(np.argmin([np.square(each - targets).sum() for each in found]))
    calibrate = _fit_sigmoids if labels.ndim > 1 else _fit_softmax
    to_probabilities = calibrate(found[best], targets)
    probabilities = allocate(directory, "probabilities", (len(folds), classes), np.float32)
    for start in range(0, len(folds), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        probabilities[chunk] = to_probabilities(_predict(candidates[best], features[chunk], folds[chunk]))
    return probabilities


def assign_folds(labels: np.ndarray) -> np.ndarray:
    """Return a fold for each example, int8 [N], with all classes, or combinations of them, in proportion."""
    codes = labels if labels.ndim == 1 else np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(codes + np.random.default_rng(0).random(len(codes)), kind="stable")
    folds = np.empty(len(codes), np.int8)
    folds[order] = np.arange(len(codes)) % FOLDS
    return folds


def _encode(labels: np.ndarray, classes: int) -> np.ndarray:
    encoded = labels if labels.ndim > 1 else labels[:, np.newaxis] == np.arange(classes)
    return encoded.astype(np.float32)


def _collect(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, classes: int) -> _Sums:
    width = features.shape[1]
    shapes = ((), (width,), (classes,), (width, width), (width, classes))
    shift = features[:_CHUNK].mean(axis=0, dtype=np.float64).astype(np.float32)
    sums = _Sums(shift, *(np.zeros((FOLDS, *shape)) for shape in shapes))
    with Progress("fitting a linear probe", noun="image", total=len(folds)) as progress:
        for start in range(0, len(folds), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            part, targets = features[chunk].astype(np.float32) - shift, _encode(labels[chunk], classes)
            for fold in range(FOLDS):
                own = folds[chunk] == fold
                x, y = part[own], targets[own]
                sums.count[fold] += len(x)
                sums.x[fold] += x.sum(axis=0, dtype=np.float64)
                sums.y[fold] += y.sum(axis=0)
                sums.xx[fold] += x.T @ x
                sums.xy[fold] += x.T @ y
            progress.done += len(part)
    return sums


def _solve(sums: _Sums, fold: int, penalty: float) -> _Probe:
    """Return the probe that is fitted to all folds but one; features have their standard deviation as a unit."""
    from scipy import linalg

    count, x, y, xx, xy = (
        np.delete(each, fold, axis=0).sum(axis=0) for each in (sums.count, sums.x, sums.y, sums.xx, sums.xy)
    )
    mean, bias = x / count, y / count
    covariance = xx / count - np.outer(mean, mean)
    scales = np.sqrt(np.maximum(covariance.diagonal(), 1e-12))
    correlations = covariance / np.outer(scales, scales) + penalty * np.eye(len(mean))
    targets = (xy / count - np.outer(mean, bias)) / scales[:, np.newaxis]
    weights = linalg.solve(correlations, targets, assume_a="pos") / scales[:, np.newaxis]
    return _Probe((mean + sums.shift).astype(np.float32), weights.astype(np.float32), bias.astype(np.float32))


def _predict(probes: list[_Probe], features: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the regression of each example by the probe of its fold, float32 [n, C]."""
    found = np.empty((len(features), len(probes[0].bias)), np.float32)
    for fold, probe in enumerate(probes):
        found[folds == fold] = probe(features[folds == fold])
    return found


def _fit_softmax(scores: np.ndarray, targets: np.ndarray) -> ToProbabilities:
    """Return the map from regressions to probabilities with the least cross-entropy: a softmax with one scale."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax, softmax

    def loss(exponent: float) -> float:
        return -float((targets * log_softmax(np.exp(exponent) * scores, axis=1)).sum())

    scale = np.exp(minimize_scalar(loss, bounds=(-2.0, 6.0), method="bounded").x)
    return lambda values: softmax(scale * values, axis=1)


def _fit_sigmoids(scores: np.ndarray, targets: np.ndarray) -> ToProbabilities:
    """Return the map from regressions to probabilities: one logistic regression for each class (Platt 1999)."""
    from scipy.special import expit
    from sklearn.linear_model import LogisticRegression

    slopes, biases = np.zeros(targets.shape[1]), np.full(targets.shape[1], -20.0)
    for label, (values, own) in enumerate(zip(scores.T, targets.T, strict=True)):
        if own.min() == own.max():
            biases[label] *= -1 if own.min() else 1
            continue
        fitted = LogisticRegression(C=1e4).fit(values[:, np.newaxis], own)
        slopes[label], biases[label] = fitted.coef_[0, 0], fitted.intercept_[0]
    return lambda values: expit(slopes * values + biases)
