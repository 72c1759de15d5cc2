"""Fitting of a calibration: one temperature for a softmax, and vector scaling for sigmoids, by Newton's method."""

import numpy as np

# Range of temperatures. A split whose loss still falls at the lowest one, such as one without errors, keeps 1.
_LOWEST, _HIGHEST = 0.01, 100.0
_STEPS, _HALVINGS = 50, 30  # largest numbers of steps, and of halvings of a step
_TOLERANCE = 1e-7  # relative change of the last step
_ROWS = 4096  # examples at a time
_MIN_EXAMPLES = 10  # with the class, and without it, for a scale of its own


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the temperature with the smallest cross-entropy of the softmax of `logits / temperature`.

    The cross-entropy is convex in the inverse temperature, whose root is found by Newton steps within a bracket. A
    split whose cross-entropy still falls at the lowest temperature, as it does without errors, gives 1.

    Reference: Guo et al., On Calibration of Modern Neural Networks, 2017.

    Args:
        labels: classes, int64 [N].
        logits: float [N, C].
    """
    low, high, inverse = 1 / _HIGHEST, 1 / _LOWEST, 1.0
    if _slope(high, labels, logits)[0] <= 0:  # Newton steps, of about 1 / margin each, could end before
        return 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(inverse, labels, logits)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else high
        following = step if low < step < high else float(np.sqrt(low * high))
        if abs(following - inverse) <= _TOLERANCE * inverse:
            break
        inverse = following
    return min(1 / inverse, _HIGHEST)


def _slope(inverse: float, labels: np.ndarray, logits: np.ndarray) -> tuple[float, float]:
    """Return first and second derivative of the summed cross-entropy with respect to the inverse temperature."""
    first = second = 0.0
    for start in range(0, len(labels), _ROWS):
        part = logits[start : start + _ROWS]
        # Other logits may be infinite. The type of the limit widens float16, in which it would be infinite, too.
        below = np.maximum(part - part.max(axis=1, keepdims=True), np.float32(-1e9))
        weights = np.exp(inverse * below)
        total, weighted = weights.sum(axis=1), weights * below
        mean = weighted.sum(axis=1) / total
        first += float(np.sum(mean - below[np.arange(len(below)), labels[start : start + _ROWS]], dtype=np.float64))
        second += float(np.sum(np.einsum("nc,nc->n", weighted, below) / total - mean**2, dtype=np.float64))
    return first, second


def fit_vector_scaling(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return temperature and bias of each class, float64 [C] each, of sigmoids of `logits / temperature + bias`.

    Each class is a logistic regression of two parameters on targets with Platt's correction, (n + 1) / (n + 2) for the
    n examples with the class and 1 / (m + 2) for the m without it, so that a minimum exists for separable classes, too.
    Classes with fewer than 10 examples of either form, and those whose logits do not increase with the probability,
    keep temperature 1 and bias 0.

    References:
        Guo et al., On Calibration of Modern Neural Networks, 2017.
        Platt, Probabilistic Outputs for Support Vector Machines, 1999.

    Args:
        labels: bool [N, C].
        logits: float [N, C].
    """
    present, count = labels.sum(axis=0), len(labels)
    if count < 2 * _MIN_EXAMPLES:
        return np.ones(len(present)), np.zeros(len(present))
    wide = logits.astype(np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    fits = (present >= _MIN_EXAMPLES) & (count - present >= _MIN_EXAMPLES) & (deviation > 0)
    standard = (wide - mean) / np.where(fits, deviation, 1.0)
    targets = np.where(labels, (present + 1) / (present + 2), 1 / (count - present + 2))
    slope, offset = _minimize(targets, standard)
    scale = slope / np.where(fits, deviation, 1.0)
    fits &= (scale >= 1 / _HIGHEST) & (scale <= 1 / _LOWEST)
    bias = offset - scale * mean
    return np.where(fits, 1 / np.where(fits, scale, 1.0), 1.0), np.where(fits, bias, 0.0)


def _minimize(targets: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and offset of the logistic regression of each column, float64 [C] each, by damped Newton steps."""
    slope, offset = np.ones(targets.shape[1]), np.zeros(targets.shape[1])
    loss = _cross_entropy(targets, slope * inputs + offset)
    for _ in range(_STEPS):
        probabilities = 0.5 * (1 + np.tanh(0.5 * (slope * inputs + offset)))
        errors, weights = probabilities - targets, probabilities * (1 - probabilities) + 1e-12
        first = np.sum(errors * inputs, axis=0), np.sum(errors, axis=0)
        a, b, c = np.sum(weights * inputs**2, axis=0), np.sum(weights * inputs, axis=0), np.sum(weights, axis=0)
        determinant = np.maximum(a * c - b * b, 1e-12)
        steps = (c * first[0] - b * first[1]) / determinant, (a * first[1] - b * first[0]) / determinant
        size = np.ones(len(slope))
        for _ in range(_HALVINGS):
            found = _cross_entropy(targets, (slope - size * steps[0]) * inputs + offset - size * steps[1])
            worse = found > loss
            if not worse.any():
                break
            size[worse] /= 2
        moved = np.where(found <= loss, size, 0.0)
        slope, offset, loss = slope - moved * steps[0], offset - moved * steps[1], np.minimum(found, loss)
        if np.all(moved * (np.abs(steps[0]) + np.abs(steps[1])) <= _TOLERANCE * (1 + np.abs(slope) + np.abs(offset))):
            break
    return slope, offset


def _cross_entropy(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return np.sum(np.logaddexp(0, logits) - targets * logits, axis=0)
