"""Workers that train together are one worker; one that dies ends the others, and both continue."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.config import RuntimeConfig, load_config
from resnet_tf.core.errors import UserError
from resnet_tf.core.files import read_json_lines
from resnet_tf.training import checkpoint, runtime
from resnet_tf.training.cluster import Task, is_chief, read_tf_config
from resnet_tf.training.run import load_run
from resnet_tf.workflows.train import train_and_evaluate

TIMEOUT = 240  # seconds
EXAMPLE = Path(__file__).parents[2] / "examples" / "workers.py"


@contextlib.contextmanager
def _workers(workdir, settings, count=2):
    """`python -m resnet_tf.train` twice, in one cluster on 127.0.0.1; only the first has a directory to write to."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    try:
        for index in range(count):
            task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
            command = [sys.executable, "-m", "resnet_tf.train", "--set=runtime.strategy=multiworker"]
            command += [
                f"--workdir={workdir if index == 0 else workdir / 'never'}",
                *(f"--set={each}" for each in settings),
            ]
            environment = {**os.environ, "TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": "-1"}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            processes.append(subprocess.Popen(command, env=environment, **pipes))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _settings(data_dir, *further):
    settings = [
        "model.name=resnet8_w32",
        "data.batch_size=64",
        "data.eval_split=test[:101]",
        "runtime.precision=float32",
    ]
    settings += [
        "train.epochs=2",
        # Rounding exceeds the tolerance at 0.005 in some orders, and at 0.002 on processors without AVX-512.
        "optimizer.base_lr=0.001",
        "optimizer.warmup_epochs=0",
        "runtime.sync_batch_norm=true",
    ]
    return [f"data.data_dir={data_dir}", *settings, *further]


@pytest.mark.slow
def test_two_workers_are_one(data_dir, tmp_path):
    settings = _settings(data_dir)
    alone = train_and_evaluate(load_config("digits", settings), tmp_path / "alone")
    with _workers(tmp_path / "run", settings) as processes:
        outputs = [process.communicate(timeout=TIMEOUT) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "have the same top-1 class" in outputs[0][0]
    assert outputs[1][0] == ""
    assert not (tmp_path / "run" / "never").exists()
    lines = [read_json_lines(tmp_path / name / "metrics.jsonl") for name in ("run", "alone")]
    assert len(lines[0]) == 2
    for ours, theirs in zip(*lines, strict=True):
        for name in ("loss", "val_loss", "val_top1"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert load_run(tmp_path / "run").metrics["examples"] == alone["examples"] == 101
    weights = [load_run(tmp_path / name).model.get_weights() for name in ("run", "alone")]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
def test_four_workers_of_the_example_are_one(data_dir, tmp_path):
    settings = _settings(data_dir)
    train_and_evaluate(load_config("digits", settings), tmp_path / "alone")
    command = [sys.executable, EXAMPLE, "4", f"--workdir={tmp_path / 'run'}", *(f"--set={each}" for each in settings)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout
    assert "have the same top-1 class" in done.stdout
    weights = [load_run(tmp_path / name).model.get_weights() for name in ("run", "alone")]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("lost", [1, 0], ids=["worker", "chief"])
def test_a_lost_worker_ends_the_other_and_both_continue(data_dir, tmp_path, lost):
    settings = _settings(data_dir, "train.checkpoint_steps=1", "runtime.steps_per_loop=1", "train.epochs=40")
    directory = tmp_path / "run" / "checkpoints"
    with _workers(tmp_path / "run", settings) as processes:
        while processes[0].poll() is None and len(checkpoint.steps(directory)) < 2:
            pass
        processes[lost].kill()
        _, errors = processes[1 - lost].communicate(timeout=120)
        assert processes[1 - lost].returncode == 75
        assert f"worker {1 - lost} lost another one after step" in errors.splitlines()[-1]
        assert "Traceback" not in errors
    reached = checkpoint.steps(directory)[-1]
    assert 2 <= reached < 40 * 14
    with _workers(tmp_path / "run", settings) as processes:
        while processes[0].poll() is None and checkpoint.steps(directory)[-1] < reached + 3:
            pass
        processes[1].terminate()  # all workers stop at the same step and save
        outputs = [process.communicate(timeout=TIMEOUT) for process in processes]
    assert [process.returncode for process in processes] == [75, 75], outputs
    assert "resuming from step" in outputs[0][1]
    assert "another worker was stopped: stopped at step" in outputs[0][1].splitlines()[-1]
    assert "SIGTERM: stopped at step" in outputs[1][1].splitlines()[-1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"runtime.strategy=multiworker reads TF_CONFIG, which is not set; for example \{"),
        ("{", r"TF_CONFIG describes no cluster that contains this worker \(Expecting"),
        ('{"cluster": {"worker": ["a:1"]}}', r"TF_CONFIG, which has no 'task'; for example"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            r"no cluster that contains this worker",
        ),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
            r"the task is ps 0; it must be a chief or a worker",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
            r"the task is worker -1; it must be a chief or a worker",
        ),
        ('{"cluster": [], "task": {"type": "worker", "index": 0}}', r"no cluster that contains this worker"),
    ],
)
def test_a_wrong_tf_config_is_named(monkeypatch, value, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(UserError, match=message):
        read_tf_config()


def test_the_first_worker_is_the_chief_unless_there_is_one_by_name(monkeypatch):
    workers = {"worker": ["a:1", "b:1"]}
    for members, task_type, index, expected in (
        (workers, "worker", 0, Task(0, 2)),
        (workers, "worker", 1, Task(1, 2)),
        ({"chief": ["c:1"], **workers}, "worker", 0, Task(1, 3)),
        ({"chief": ["c:1"], **workers}, "worker", 1, Task(2, 3)),
        ({"chief": ["c:1"], **workers}, "chief", 0, Task(0, 3)),
    ):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": members, "task": {"type": task_type, "index": index}}))
        assert read_tf_config() == expected
        assert is_chief(RuntimeConfig(strategy="multiworker")) == (expected.index == 0)
    monkeypatch.delenv("TF_CONFIG")
    assert is_chief(RuntimeConfig(strategy="mirrored"))


def test_a_tpu_is_connected_to_initialized_and_only_then_used(monkeypatch):
    """Order of the calls, with mocks of everything that needs a TPU; not verified on a TPU."""
    calls = []

    class Strategy:
        def __init__(self, resolver):
            calls.append(("strategy", resolver))

    class Resolver(str):
        def master(self):
            return ""

    monkeypatch.setattr(
        tf.distribute.cluster_resolver, "TPUClusterResolver", lambda tpu: Resolver(f"resolver of {tpu}")
    )
    monkeypatch.setattr(
        tf.config, "experimental_connect_to_cluster", lambda resolver: calls.append(("connect", resolver))
    )
    monkeypatch.setattr(
        tf.tpu.experimental, "initialize_tpu_system", lambda resolver: calls.append(("initialize", resolver))
    )
    monkeypatch.setattr(tf.distribute, "TPUStrategy", Strategy)
    runtime._strategy(RuntimeConfig(strategy="tpu", tpu="v5"))
    assert calls == [(name, "resolver of v5") for name in ("connect", "initialize", "strategy")]


def test_a_tpu_that_is_not_there_is_named(monkeypatch):
    def fail(tpu):
        raise ValueError("Could not find TPU")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", fail)
    with pytest.raises(UserError, match=r"runtime.tpu='v5' cannot be reached: Could not find TPU"):
        runtime._strategy(RuntimeConfig(strategy="tpu", tpu="v5"))
