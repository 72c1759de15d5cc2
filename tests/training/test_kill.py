"""Killed at any instant and started again, a run ends bitwise as one that was never killed."""

import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import is_staging, untimed_metrics

from resnet_tf.training import checkpoint
from resnet_tf.training.run import load_run

TIMES = 25
TIMEOUT = 300  # seconds
SETTINGS = ["model.name=resnet8_w32", "train.epochs=6", "train.checkpoint_steps=2", "runtime.steps_per_loop=1"]
SETTINGS += ["train.ema=0.99", "model.dropout=0.2", "data.batch_size=64", "runtime.deterministic=true"]


def _start(data_dir, workdir) -> subprocess.Popen:
    command = [sys.executable, "-m", "resnet_tf.train", f"--workdir={workdir}", f"--set=data.data_dir={data_dir}"]
    command += [f"--set={each}" for each in SETTINGS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def _finish(data_dir, workdir) -> tuple[str, float]:
    """Run the command to its end; return its output and its duration in seconds."""
    start = time.monotonic()
    process = _start(data_dir, workdir)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    return out, time.monotonic() - start


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_the_same(data_dir, tmp_path):
    """SIGKILL at 25 uniformly sampled instants: in steps, saving, evaluation, plots, export and verification."""
    _finish(data_dir, tmp_path / "first")  # prepares the data
    expected, seconds = _finish(data_dir, tmp_path / "uninterrupted")
    generator = random.Random(0)
    workdir, reached, killed = tmp_path / "killed", set(), 0
    while killed < TIMES:
        process = _start(data_dir, workdir)
        try:
            process.wait(timeout=generator.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        finally:
            process.kill()
            process.communicate()
        reached.add(max(checkpoint.steps(workdir / "checkpoints"), default=0))
        if process.returncode == 0:  # the run has finished: begin another one
            _assert_same(workdir, tmp_path / "uninterrupted")
            workdir = tmp_path / f"killed{killed}"
    assert len(reached) > 3, "the kills came at different steps"
    output, _ = _finish(data_dir, workdir)
    assert output.splitlines()[0] == expected.splitlines()[0]
    _assert_same(workdir, tmp_path / "uninterrupted")


def _assert_same(ours, theirs):
    for mine, other in zip(load_run(ours).model.get_weights(), load_run(theirs).model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert untimed_metrics(ours) == untimed_metrics(theirs)
    assert not [path for path in ours.rglob("*") if is_staging(path)]
