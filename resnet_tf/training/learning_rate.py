"""Learning-rate schedules with warmup, composed of Keras's own."""

import math
from typing import Any

import keras
import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data.pipeline import TrainingLength


def learning_rate(config: Config, length: TrainingLength) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return linear warmup from 0 to the peak (Goyal et al. 2017), followed by `optimizer.schedule`.

    The step after the last one would have the final learning rate, `end_lr_fraction` of the peak. `cosine` is half a
    cosine (Loshchilov and Hutter 2016), `step` decays at the ends of `decay_epochs`, counted from the start of the run,
    and `one_cycle` has its own rise instead of warmup (Smith and Topin 2017, with the cosines and divisors of PyTorch's
    OneCycleLR).
    """
    settings, total = config.optimizer, length.total_steps
    peak, end = config.peak_learning_rate, config.peak_learning_rate * settings.end_lr_fraction
    if settings.schedule == "one_cycle":
        return OneCycle(peak, total_steps=total, rise_fraction=settings.rise_fraction)
    warmup = min(round(settings.warmup_epochs * length.steps_per_epoch), total - 1)
    schedules = keras.optimizers.schedules
    match settings.schedule:
        case "cosine":
            falling = schedules.CosineDecay(peak, total - warmup, alpha=settings.end_lr_fraction)
        case "linear" | "polynomial":
            power = 1.0 if settings.schedule == "linear" else settings.power
            falling = schedules.PolynomialDecay(peak, total - warmup, end, power=power)
        case "step":
            # PiecewiseConstantDecay keeps a value up to and including its boundary.
            ends = [round(epoch * length.steps_per_epoch) - 1 - warmup for epoch in sorted(settings.decay_epochs)]
            rates = [peak * settings.decay_factor**count for count in range(len(ends) + 1)]
            falling = schedules.PiecewiseConstantDecay(ends, rates) if ends else _Constant(peak)
        case _:
            falling = _Constant(peak)
    return Warmup(peak, steps=warmup, after=falling) if warmup else falling


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup from 0 to `peak` in `steps` steps, then the schedule `after`, whose steps start at 0 there."""

    def __init__(self, peak: float, *, steps: int, after: keras.optimizers.schedules.LearningRateSchedule):
        self.peak, self.steps, self.after = peak, steps, after

    def __call__(self, step: Any) -> tf.Tensor:
        """Return the learning rate of a step, float32 scalar."""
        done = tf.cast(step, tf.float32) - self.steps
        rising = self.peak * (done + self.steps) / self.steps
        return tf.where(done < 0, rising, tf.cast(self.after(tf.maximum(done, 0.0)), tf.float32))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {"peak": self.peak, "steps": self.steps, "after": self.after}


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """One-cycle schedule: a cosine from peak / 25 to `peak` in `rise_fraction` of the steps, then to peak / 250,000."""

    def __init__(self, peak: float, *, total_steps: int, rise_fraction: float):
        self.peak, self.total_steps, self.rise_fraction = peak, total_steps, rise_fraction

    def __call__(self, step: Any) -> tf.Tensor:
        """Return the learning rate of a step, float32 scalar."""
        step = tf.cast(step, tf.float32)
        top, last = self.rise_fraction * self.total_steps - 1, float(self.total_steps - 1)
        start, end = self.peak / 25, self.peak / 25 / 1e4
        rising = _half_cosine(start, self.peak, step / max(top, 1e-9))
        falling = _half_cosine(self.peak, end, (step - top) / max(last - top, 1e-9))
        return tf.where(step <= top, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {"peak": self.peak, "total_steps": self.total_steps, "rise_fraction": self.rise_fraction}


class _Constant(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, step: Any) -> tf.Tensor:
        return tf.constant(self.rate, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate}


def _half_cosine(start: float, end: float, progress: tf.Tensor) -> tf.Tensor:
    return end + (start - end) / 2 * (1 + tf.cos(math.pi * tf.minimum(progress, 1.0)))
