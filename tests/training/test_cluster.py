"""Workers that train together are one worker; one that dies ends the others, and both continue."""

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import free_addresses, override_groups, wait_until

from resnet_tf.config import RuntimeConfig, load_config
from resnet_tf.core.errors import Interrupted, UserError
from resnet_tf.core.files import read_json_lines
from resnet_tf.core.signals import StopRequested
from resnet_tf.data.sources import open_source
from resnet_tf.training import checkpoint, loop, runtime, time_budget
from resnet_tf.training import start as start_module
from resnet_tf.training.callbacks import Profile
from resnet_tf.training.cluster import Cluster, Task, is_chief, read_tf_config
from resnet_tf.training.pace import Pace
from resnet_tf.training.planner import Weights
from resnet_tf.training.progress import RunState
from resnet_tf.training.run import load_run
from resnet_tf.training.start import Start, check_workers_agree, start
from resnet_tf.training.time_budget import Deadline
from resnet_tf.training.trainer import Trainer
from resnet_tf.workflows import train as train_module
from resnet_tf.workflows.train import train, train_and_evaluate

TIMEOUT = 240  # seconds
EXAMPLE = Path(__file__).parents[2] / "examples" / "workers.py"


@contextlib.contextmanager
def _workers(workdir, settings, count=2, further=()):
    """`python -m resnet_tf.train` twice, in one cluster on 127.0.0.1; only the first has a directory to write to.

    Workers but the first have `further` settings.
    """
    hosts, processes = free_addresses(count), []
    try:
        for index in range(count):
            task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
            command = [sys.executable, "-m", "resnet_tf.train", "--set=runtime.strategy=multiworker"]
            command += [
                f"--workdir={workdir if index == 0 else workdir / 'never'}",
                *(f"--set={each}" for each in (*settings, *(further if index else ()))),
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
        wait_until(lambda: processes[0].poll() is not None or len(checkpoint.steps(directory)) >= 2, seconds=TIMEOUT)
        processes[lost].kill()
        _, errors = processes[1 - lost].communicate(timeout=120)
        assert processes[1 - lost].returncode == 75
        assert f"worker {1 - lost} lost another one after step" in errors.splitlines()[-1]
        assert "Traceback" not in errors
    reached = checkpoint.steps(directory)[-1]
    assert 2 <= reached < 40 * 14
    with _workers(tmp_path / "run", settings) as processes:
        wait_until(
            lambda: processes[0].poll() is not None or checkpoint.steps(directory)[-1] >= reached + 3, seconds=TIMEOUT
        )
        processes[1].terminate()  # all workers stop at the same step and save
        outputs = [process.communicate(timeout=TIMEOUT) for process in processes]
    assert [process.returncode for process in processes] == [75, 75], outputs
    assert "resuming from step" in outputs[0][1]
    assert "another worker was stopped: stopped at step" in outputs[0][1].splitlines()[-1]
    assert "SIGTERM: stopped at step" in outputs[1][1].splitlines()[-1]


@pytest.mark.slow
def test_a_worker_that_is_lost_before_the_first_step_ends_the_other(data_dir, tmp_path):
    with _workers(tmp_path / "run", _settings(data_dir)) as processes:
        while "on each of 2 workers" not in processes[1].stderr.readline():
            assert processes[1].poll() is None
        processes[1].kill()
        _, errors = processes[0].communicate(timeout=TIMEOUT)
    assert processes[0].returncode == 75, errors
    assert "worker 0 lost another one before the first step" in errors.splitlines()[-1]
    assert "Traceback" not in errors


@pytest.mark.slow
def test_workers_with_different_configurations_all_end(data_dir, tmp_path):
    with _workers(tmp_path / "run", _settings(data_dir), further=["train.epochs=3"]) as processes:
        outputs = [process.communicate(timeout=TIMEOUT) for process in processes]
    assert [process.returncode for process in processes] == [2, 2], outputs
    message = "the configuration of worker 1 differs from that of the chief; all workers need the same"
    for _, errors in outputs:
        assert message in errors.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_without_the_run_directory_continue_with_its_settings(data_dir, tmp_path):
    """The warmup is that of the run, and not a tenth of the epochs that the run has now."""
    settings = [each for each in _settings(data_dir) if not each.startswith("optimizer.warmup")]
    train_and_evaluate(load_config("digits", settings), tmp_path / "run")
    with _workers(tmp_path / "run", [*settings, "train.epochs=3", "train.extend=true"]) as processes:
        for process in processes:
            lines = [process.stderr.readline()]
            while "steps an epoch, 3 epochs" not in lines[-1]:  # all workers have the same configuration
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            assert "settings of the run continue: optimizer.warmup_epochs=0.2\n" in lines


_HERE = threading.local()  # with the index of the worker that runs in the thread


class _Worker(Cluster):
    """Worker of a cluster of two threads; it fails where the other one takes part in no sum, or in another one."""

    num_replicas_in_sync = 2

    def __init__(self, index, barrier, numbers):
        self.index, self.count, self.is_chief, self.replicas = index, 2, index == 0, 1
        self._barrier, self._numbers = barrier, numbers

    def sum(self, numbers):
        self._numbers[self.index] = list(numbers)
        self._barrier.wait(timeout=20)
        total = [sum(each) for each in zip(*self._numbers, strict=True)]
        self._barrier.wait(timeout=20)
        return total


def _on_both(call):
    """Return the results of a function of a worker, or the messages of its errors, on both workers."""
    barrier, numbers = threading.Barrier(2), [[], []]

    def run(index):
        _HERE.index = index
        try:
            return call(_Worker(index, barrier, numbers))
        except UserError as error:
            return str(error)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(2) as executor:
        return list(executor.map(run, range(2)))


@pytest.mark.parametrize("text", ["", "k\u00e4se", '{"a": 1}\n' * 100])
def test_the_text_of_the_chief_reaches_all_workers(text):
    assert _on_both(lambda worker: worker.text_from_chief(text if worker.is_chief else "other")) == [text, text]


def test_all_workers_know_where_a_condition_is_true():
    assert _on_both(lambda worker: worker.where(worker.index == 1)) == [[1], [1]]
    assert _on_both(lambda worker: worker.where(False)) == [[], []]


@pytest.mark.parametrize("numbers", [([], []), ([3], []), ([], [2**50 + 1, 7]), ([5, 6], [7])], ids=str)
def test_the_numbers_of_all_workers_are_concatenated(numbers):
    found = _on_both(lambda worker: worker.concatenate([float(each) for each in numbers[worker.index]]))
    assert found == [[*numbers[0], *numbers[1]]] * 2


@pytest.fixture
def two_replicas():
    """Return the chief of two workers, whose sums stay on this machine."""
    chief = Cluster(runtime.mirrored(("CPU:0", "CPU:1")))
    chief.count = 2
    return chief


def test_one_trace_sums_up_numbers_of_any_length(two_replicas):
    for length in range(1, 6):
        assert two_replicas.sum(range(length)) == list(range(length))
    assert two_replicas._add_up.experimental_get_tracing_count() == 2


def test_variables_are_broadcast_bit_by_bit_without_further_traces(two_replicas):
    values = [
        np.array([[-0.0, 0.0, np.inf], [np.nan, 1e-37, -1e38]], np.float32),
        np.float32(-0.0),
        np.arange(5, dtype=np.float32),
        np.array([1.5, -0.0], tf.bfloat16.as_numpy_dtype),
        np.array(2**40 + 1),
        np.arange(4),
    ]
    variables = [tf.Variable(each) for each in values]
    for _ in range(2):
        two_replicas.broadcast_variables(variables)
    assert [each.numpy().tobytes() for each in variables] == [each.tobytes() for each in values]
    assert two_replicas._add_up.experimental_get_tracing_count() == 4  # the first of each type, and any other


def test_different_configurations_are_refused_on_all_workers(tiny_config):
    other = override_groups(tiny_config, train={"epochs": 3})
    message = "the configuration of worker 1 differs from that of the chief; all workers need the same"
    found = _on_both(lambda worker: check_workers_agree(tiny_config if worker.is_chief else other, worker))
    assert found == [message, message]
    assert _on_both(lambda worker: check_workers_agree(tiny_config, worker)) == [None, None]


def test_the_stored_configuration_of_the_chief_applies_to_all_workers(tiny_config, tmp_path, monkeypatch):
    stored = override_groups(tiny_config, optimizer={"decay_epochs": (1.0, 2.5)}, train={"minutes": 0.5})
    for chiefs, others in ((stored, None), (None, stored)):
        found = _on_both(lambda worker, own=(chiefs, others): start_module._from_chief(own[worker.index], worker))
        assert found == [chiefs, chiefs]
    (tmp_path / "config.json").write_text(stored.to_json())
    monkeypatch.setattr(train_module, "start", lambda config, stored: stored)
    for chief, expected in ((True, stored), (False, None)):
        monkeypatch.setattr(train_module, "is_chief", lambda config, chief=chief: chief)
        assert train_module.start_run(tiny_config, tmp_path) == expected


def test_the_preprocessing_of_the_checkpoint_reaches_all_workers(tiny_run):
    """Others than the chief have no run directory, and none reads the initial weights of a run that resumes."""
    newest = checkpoint.latest(tiny_run / "checkpoints")

    def find(worker, path=newest):
        trainer = SimpleNamespace(cluster=worker, _resume_from=path if worker.is_chief else None)
        return Trainer._stored_preprocess(trainer)

    assert _on_both(find) == [load_run(tiny_run).preprocess] * 2
    assert _on_both(lambda worker: find(worker, None)) == [None, None]


def _lose_worker(*arguments):
    raise tf.errors.UnavailableError(None, None, "Socket closed")


@pytest.mark.parametrize("collective", ["check_workers_agree", "_from_chief", "fit_into_minutes"])
def test_a_loss_at_the_start_is_one_line(tiny_config, monkeypatch, collective):
    monkeypatch.setattr(start_module, "Cluster", lambda strategy: SimpleNamespace(index=1, count=2))
    monkeypatch.setattr(start_module, "check_workers_agree", lambda config, cluster: None)
    monkeypatch.setattr(start_module, "_from_chief", lambda stored, cluster: stored)
    monkeypatch.setattr(start_module, collective, _lose_worker)
    message = r"worker 1 lost another one before the first step \(Socket closed\); restart all workers"
    with pytest.raises(Interrupted, match=message):
        start(override_groups(tiny_config, train={"minutes": 1.0}))


def test_a_loss_while_the_network_is_created_is_one_line(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "Cluster", lambda strategy: SimpleNamespace(index=0, count=2, is_chief=True))
    monkeypatch.setattr(loop, "check_workers_agree", lambda config, cluster: None)
    monkeypatch.setattr(loop, "Trainer", _lose_worker)
    with pytest.raises(Interrupted, match=r"worker 0 lost another one before the first step \(Socket closed\)"):
        loop.fit(Start(tiny_config, None, None, Deadline(0.0)), tmp_path, plot_evaluation=None)


def test_the_wait_for_other_workers_is_not_part_of_the_minutes(tiny_config, monkeypatch):
    events = []
    monkeypatch.setattr(start_module.runtime, "start", lambda config: events.append("joined"))
    monkeypatch.setattr(start_module, "Deadline", lambda minutes: events.append("deadline"))
    monkeypatch.setattr(start_module, "Cluster", _lose_worker)
    with pytest.raises(tf.errors.UnavailableError):
        start(tiny_config)
    assert events == ["joined", "deadline"]


@pytest.mark.parametrize("call", [train, train_and_evaluate])
def test_no_worker_ends_before_the_chief_has_finished_the_run(tiny_config, tmp_path, monkeypatch, caplog, call):
    """Regression: a chief that was lost in the meantime came back, and waited for workers that had ended."""
    events, fitted = [], SimpleNamespace(source=SimpleNamespace(test="test"), step=1)
    fitted.evaluation = SimpleNamespace(to_dict=dict)
    run = SimpleNamespace(config=tiny_config)

    def finish(*arguments, **options):
        time.sleep(0.2)
        events.append("finished")
        return {}

    def on(worker):
        _HERE.worker = worker
        call(tiny_config, tmp_path)
        events.append("ended")

    for name, replacement in {
        "is_chief": lambda config: _HERE.worker.is_chief,
        "Cluster": lambda strategy: _HERE.worker,
        "start_run": lambda config, workdir: SimpleNamespace(config=config, strategy=None),
        "_exclusive": lambda *arguments: contextlib.nullcontext(tmp_path),
        "_fit": lambda *arguments: fitted,
        "_finish": finish,
        "load_run": lambda directory: run,
        "evaluate_test_split": finish,
    }.items():
        monkeypatch.setattr(train_module, name, replacement)
    _on_both(on)
    assert events == ["finished", "ended", "ended"]
    lost = SimpleNamespace(index=1, count=2, is_chief=False, sum=_lose_worker)
    with pytest.raises(Interrupted, match=r"worker 1 lost another one after the last step \(Socket closed\)"):
        on(lost)
    lost.is_chief = True
    on(lost)
    assert "worker 1 lost another one after the last step" in caplog.text
    assert events[-2:] == ["finished", "ended"], "a finished run needs no other worker"

    def fail(*arguments, **options):
        raise UserError("the disk is full")

    def end(worker):
        with pytest.raises(UserError, match="the disk is full" if worker.is_chief else "the chief could not finish"):
            on(worker)
        return worker.index

    monkeypatch.setattr(train_module, "_finish", fail)
    monkeypatch.setattr(train_module, "evaluate_test_split", fail)
    assert _on_both(end) == [0, 1]


def test_workers_take_the_same_steps_in_a_measurement(tiny_config, monkeypatch):
    """The first worker measures 1 s for four steps, the other one 0.2 s."""
    trainers = {}

    def create(config, source, worker):
        trainers[worker.index] = SimpleNamespace(
            config=config,
            cluster=worker,
            state=RunState(),
            length=SimpleNamespace(total_steps=1000),
            batches=lambda: None,
        )
        return trainers[worker.index]

    monkeypatch.setattr(time_budget, "Trainer", create)
    monkeypatch.setattr(time_budget, "_seconds", lambda trainer, batches, steps: 0.2 if trainer.cluster.index else 1.0)
    source = open_source(tiny_config.data)
    _on_both(lambda worker: time_budget._measure(tiny_config, source, worker, {}))
    assert [trainers[index].state.step for index in range(2)] == [12, 12]


def test_the_weights_that_all_workers_have_are_considered(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(time_budget, "cached_path", lambda row: tmp_path / f"{_HERE.index}" / row.file_name)
    rows = {name: next(iter(time_budget.PRETRAINED[name].items())) for name in ("resnet50", "resnet18")}

    def put(index, name):
        (tmp_path / f"{index}").mkdir(exist_ok=True)
        (tmp_path / f"{index}" / rows[name][1].file_name).touch()

    put(0, "resnet18")
    put(1, "resnet50")
    with caplog.at_level(logging.WARNING):
        assert _on_both(time_budget._agree_on_weights) == [(), ()]
    assert "of resnet18 are not in the cache of worker 1, and are left out" in caplog.text
    put(1, "resnet18")
    expected = (Weights("resnet18", rows["resnet18"][0], 224),)
    assert _on_both(time_budget._agree_on_weights) == [expected, expected]
    shutil.rmtree(tmp_path / "0")
    assert _on_both(time_budget._agree_on_weights) == [(), ()]


def _fit(worker, config, callbacks=()):
    """Return the parts of a loop that follow the chief, within an epoch of ten steps."""
    fit = loop._Fit.__new__(loop._Fit)
    model = SimpleNamespace(stop_training=False, get_weights=list)
    optimizer = SimpleNamespace(learning_rate_factor=keras.Variable(1.0))
    fit._trainer = SimpleNamespace(
        state=RunState(), model=model, optimizer=optimizer, average=None, length=SimpleNamespace(steps_per_epoch=10)
    )
    fit._config, fit._cluster, fit._callbacks = config, worker, callbacks
    fit._deadline = Deadline(1.0)
    fit._batches, fit._evaluation_seconds, fit._pace = iter(()), 0.0, Pace(most=5)
    fit._profile, fit._signals = Profile("", Path()), SimpleNamespace(received="")
    return fit


def test_unreadable_examples_of_all_workers_count_on_each(tiny_config):
    """Regression: each worker tolerated the fraction for itself, and listed its own examples only."""
    recorded = [[], []]

    def take_call(worker):
        fit = _fit(worker, tiny_config)
        missing = np.array([[-1, 4], [5, -1]]) if worker.is_chief else np.array([[-1, 9], [-1, -1]])
        fit._trainer.take = lambda batches, count: (np.zeros((count, 5), np.float32), missing)
        fit._unreadable = SimpleNamespace(record=lambda found: recorded[worker.index].append(found.tolist()))
        fit._call(2)

    _on_both(take_call)
    assert recorded == [[[4, 5, 9]], [[4, 5, 9]]]


def test_a_signal_after_the_last_step_stops_all_workers(tiny_config):
    def check(worker):
        fit = _fit(worker, tiny_config)
        fit._signals.received = "" if worker.is_chief else "SIGTERM"
        with pytest.raises(StopRequested) as caught:
            fit._check_signals()
        return str(caught.value)

    assert _on_both(check) == ["another worker was stopped", "SIGTERM"]


@pytest.mark.parametrize("ended", [True, False])
def test_all_workers_follow_a_callback_of_the_chief_within_an_epoch(tiny_config, ended):
    """`on_train_batch_end` of the chief may end the run, and set the learning rate."""

    def take_call(worker):
        fit = _fit(worker, tiny_config)
        if worker.is_chief:
            fit._trainer.model.stop_training = ended
            fit._trainer.optimizer.learning_rate_factor.assign(0.5)
        steps = fit._agree_on_steps()
        return steps, fit._trainer.model.stop_training, float(fit._trainer.optimizer.learning_rate_factor.value)

    assert _on_both(take_call) == [(0 if ended else 1, ended, 0.5)] * 2


def test_all_workers_follow_a_callback_of_the_chief_at_the_beginning_of_the_run(tiny_config):
    """Such as `on_train_begin` that ends the run, and `on_epoch_begin` of `LearningRateScheduler`."""

    def call_back(worker):
        fit = _fit(worker, tiny_config, callbacks=[None])

        def act():
            fit._trainer.model.stop_training = worker.is_chief
            fit._trainer.optimizer.learning_rate_factor.assign(0.5 if worker.is_chief else 1.0)

        fit._call_back(act)
        return fit._is_ended, float(fit._trainer.optimizer.learning_rate_factor.value)

    assert _on_both(call_back) == [(True, 0.5)] * 2


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
