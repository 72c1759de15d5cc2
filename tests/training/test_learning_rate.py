"""Learning rates beside the formulas of the papers and PyTorch's schedulers."""

import dataclasses

import numpy as np
import pytest

from resnet_tf.config import Config, DataConfig, OptimizerConfig, TrainConfig
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.training.learning_rate import learning_rate

PEAK = 0.2


def _rates(*, epochs=10, steps_per_epoch=7, **settings) -> list[float]:
    """Of every step, and of the one after the last."""
    optimizer = OptimizerConfig(base_lr=PEAK, **{"warmup_epochs": 0.0, **settings})
    config = Config(data=DataConfig(batch_size=256), train=TrainConfig(epochs=epochs), optimizer=optimizer)
    rate = learning_rate(config, TrainingLength(steps_per_epoch, epochs * steps_per_epoch))
    return [float(rate(step)) for step in range(epochs * steps_per_epoch + 1)]


def _after_warmup(decay):
    """Return learning rates of ten epochs of seven steps, the first two epochs being warmup."""
    return [PEAK * step / 14 if step < 14 else decay((step - 14) / 56) for step in range(71)]


@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({"schedule": "cosine"}, lambda progress: PEAK * 0.5 * (1 + np.cos(np.pi * progress))),
        (
            {"schedule": "cosine", "end_lr_fraction": 0.1},
            lambda progress: PEAK * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress))),
        ),
        ({"schedule": "linear", "end_lr_fraction": 0.5}, lambda progress: PEAK * (1 - 0.5 * progress)),
        ({"schedule": "polynomial", "power": 2.0}, lambda progress: PEAK * (1 - progress) ** 2),
        ({"schedule": "constant"}, lambda progress: PEAK),
    ],
    ids=lambda value: value["schedule"] if isinstance(value, dict) else "",
)
def test_after_a_linear_warmup_it_falls_by_the_formula(settings, decay):
    np.testing.assert_allclose(_rates(warmup_epochs=2.0, **settings), _after_warmup(decay), atol=1e-7)


def test_steps_fall_at_the_ends_of_epochs_counted_from_the_start():
    rates = _rates(schedule="step", decay_epochs=(3.0, 6.0), decay_factor=0.1, warmup_epochs=1.0)
    expected = [PEAK * step / 7 for step in range(7)] + [PEAK] * 14 + [PEAK * 0.1] * 21 + [PEAK * 0.01] * 29
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize("rise", [0.1, 0.6])
def test_one_cycle_is_two_half_cosines(rise):
    """From peak / 25 to the peak at the end of the rise, and to peak / 250,000."""
    progress = np.interp(np.arange(70), [0, 70 * rise - 1, 69], [0, 1, 2])
    lowest = np.where(progress < 1, PEAK / 25, PEAK / 25 / 1e4)
    expected = lowest + (PEAK - lowest) * (1 - np.cos(np.pi * progress)) / 2
    np.testing.assert_allclose(_rates(schedule="one_cycle", rise_fraction=rise)[:70], expected, rtol=1e-4, atol=1e-7)


def test_the_peak_scales_with_the_batch():
    config = Config(data=DataConfig(batch_size=1024), optimizer=OptimizerConfig(base_lr=0.1, schedule="constant"))
    rate = learning_rate(dataclasses.replace(config), TrainingLength(10, 900))
    assert float(rate(800)) == pytest.approx(0.4)


@pytest.mark.slow
def test_they_are_pytorchs():
    torch = pytest.importorskip("torch", reason="live parity takes torch")
    schedulers = torch.optim.lr_scheduler

    def rates(make, count=70):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
        scheduler, found = make(optimizer), []
        for _ in range(count):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    cases = [
        ({"schedule": "cosine"}, lambda each: schedulers.CosineAnnealingLR(each, 70)),
        ({"schedule": "polynomial", "power": 3.0}, lambda each: schedulers.PolynomialLR(each, 70, power=3.0)),
        (
            {"schedule": "step", "decay_epochs": (3.0, 6.0)},
            lambda each: schedulers.MultiStepLR(each, [21, 42], gamma=0.1),
        ),
        ({"schedule": "one_cycle"}, lambda each: schedulers.OneCycleLR(each, PEAK, total_steps=70)),
        (
            {"schedule": "one_cycle", "rise_fraction": 0.6},
            lambda each: schedulers.OneCycleLR(each, PEAK, total_steps=70, pct_start=0.6),
        ),
    ]
    for settings, make in cases:
        np.testing.assert_allclose(_rates(**settings)[:70], rates(make), rtol=1e-5, atol=1e-8, err_msg=str(settings))
