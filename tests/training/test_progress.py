"""The counts of a run are the same in whatever portions its steps are taken."""

import json

import numpy as np
import pytest

from resnet_tf.training.pace import Pace
from resnet_tf.training.progress import RunState

STATISTICS = np.random.default_rng(0).uniform(1, 2, (20, 5)).astype(np.float32) * [1, 1, 1, 0, 1]


def _after(*portions: int) -> RunState:
    state, start = RunState(), 0
    for count in portions:
        state.add(STATISTICS[start : start + count], batch_size=4)
        state = RunState(**json.loads(json.dumps(state.to_dict())))
        start += count
    return state


def test_portions_do_not_matter():
    assert _after(20) == _after(1, 7, 12) == _after(*[1] * 20)
    logs = _after(20).to_logs()
    assert logs["step"] == 20
    np.testing.assert_allclose(logs["loss"], STATISTICS[:, 0].sum() / 80, rtol=1e-6)
    np.testing.assert_allclose(logs["gradient_norm"], STATISTICS[:, 2].mean(), rtol=1e-6)
    np.testing.assert_allclose(logs["top1"], STATISTICS[:, 1].sum() / STATISTICS[:, 4].sum(), rtol=1e-6)


def test_a_checkpoint_without_the_number_of_labeled_images_counts_all_images():
    """Checkpoints of earlier versions, within an epoch."""
    fields = _after(20).to_dict()
    del fields["labeled"]
    state = RunState.from_dict(fields)
    assert (state.labeled, state.to_logs()["top1"]) == (80, pytest.approx(STATISTICS[:, 1].sum() / 80))


def test_what_is_not_finite_is_counted_and_left_out():
    statistics = STATISTICS.copy()
    statistics[3] = [np.nan, 0, np.inf, 1, 4]
    statistics[5] = [1.0, 0, np.inf, 0, 4]  # a loss scale that can still shrink
    statistics[-2:] = [np.nan, 0, np.nan, 1, 4]
    state = RunState()
    state.add(statistics, batch_size=4)
    assert (state.step, state.taken, state.images, state.skipped, state.nonfinite_streak) == (20, 16, 64, 4, 2)
    assert np.isfinite(state.to_logs()["loss"])
    state.end_epoch()
    assert (state.epochs, state.images, state.skipped, state.step) == (1, 0, 4, 20)


def test_calls_take_as_many_steps_as_fit_into_two_seconds():
    pace = Pace(50)
    assert pace.count == 1
    pace.note(1, 30.0)  # compiling
    assert pace.count == 1
    pace.note(1, 0.1)
    assert pace.count == 20
    pace.note(20, 0.2)
    assert pace.count == 50
    pace.note(50, 500.0)
    assert pace.count == 1
