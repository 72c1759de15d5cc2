"""Writers that run at the same time: each gets a version of its own, and no result mixes the files of two."""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import TINY, is_staging, processes

from resnet_tf.config import Config
from resnet_tf.core import files, locks
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import read_export
from resnet_tf.model.create import create_model
from resnet_tf.model.weights import download
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training import checkpoint
from resnet_tf.training import workdir as workdirs
from resnet_tf.training.run import load_run
from resnet_tf.training.workdir import check_workdir, exclusive_workdir
from resnet_tf.workflows.prove import prove
from resnet_tf.workflows.train import train, train_and_evaluate

TIMEOUT = 240  # seconds


def _outcomes(*programs: str) -> list[tuple[int, str, str]]:
    with processes(*(["-c", program] for program in programs)) as started:
        outputs = [each.communicate(timeout=TIMEOUT) for each in started]
    return [(each.returncode, *output) for each, output in zip(started, outputs, strict=True)]


# Writers of a directory, a version, a file and files, each with a number that all its files hold.
WRITE = """
import sys
from pathlib import Path
from resnet_tf.core import files

def fill(directory):
    for name in "abcdef":
        (directory / name).write_text({number!r} * 1000)

path = Path({path!r})
print("ready", flush=True)
input()
for _ in range(20):
    {statement}
"""
STATEMENTS = {
    "directory": "with files.atomic_directory(path, replace=True) as staging: fill(staging)",
    "version": "files.write_version(path, fill)",
    "files": "with files.atomic_files(path) as staging: fill(staging)",
    "lines": "files.append_json_lines(path, [{{'number': {number!r}, 'text': {number!r} * 1000}}] * 5)",
}


def _numbers(directory: Path) -> set[str]:
    found = {(directory / name).read_text() for name in "abcdef"}
    assert all(text == text[0] * 1000 for text in found)
    return {text[0] for text in found}


@pytest.mark.parametrize("form", STATEMENTS)
def test_processes_that_write_at_once_never_mix(tmp_path, form):
    path = tmp_path / "written"
    programs = [
        WRITE.format(path=str(path), number=number, statement=STATEMENTS[form].format(number=number))
        for number in "123"
    ]
    assert [(code, error) for code, _, error in _outcomes(*programs)] == [(0, "")] * 3
    assert [each.name for each in tmp_path.iterdir()] == ["written"]
    if form == "lines":
        lines = files.read_json_lines(path)
        assert sorted(line["number"] for line in lines) == sorted("123" * 100)
        return
    assert not [each for each in path.iterdir() if is_staging(each)]
    if form == "version":
        assert list(files.list_numbered(path)) == list(range(1, 61))
        written = [_numbers(version) for version in files.list_numbered(path).values()]
        assert sorted(number for (number,) in written) == sorted("123" * 20)
    else:
        assert len(_numbers(path)) == 1


@pytest.mark.parametrize("winner", ["directory", "empty directory", "file"])
def test_the_writer_whose_rename_comes_second_takes_the_next_number(tmp_path, monkeypatch, winner):
    versions, replace = tmp_path / "versions", os.replace
    (versions / "1").mkdir(parents=True)

    def lose(source, target):
        if Path(target) == versions / "2" and not (versions / "2").exists():
            if winner == "file":
                (versions / "2").write_text("theirs")
            else:
                (versions / "2").mkdir()
            if winner == "directory":
                (versions / "2" / "theirs").touch()
        return replace(source, target)

    monkeypatch.setattr(os, "replace", lose)
    written = files.write_version(versions, lambda staging: (staging / "ours").touch())
    # A directory without files is no version of another writer: the rename replaces it.
    assert written == versions / ("2" if winner == "empty directory" else "3")
    assert [each.name for each in written.iterdir()] == ["ours"]
    assert sorted(each.name for each in versions.iterdir()) == sorted({"1", "2", written.name})


def test_a_directory_that_appears_during_a_replacement_is_replaced(tmp_path, monkeypatch):
    path, replace, times = tmp_path / "7", os.replace, []
    path.mkdir()
    (path / "old").touch()

    def lose(source, target):
        if Path(target) == path and len(times) < 3:
            times.append(target)
            path.mkdir(exist_ok=True)
            (path / f"theirs{len(times)}").touch()
        return replace(source, target)

    monkeypatch.setattr(os, "replace", lose)
    with files.atomic_directory(path, replace=True) as staging:
        (staging / "ours").touch()
    assert [each.name for each in path.iterdir()] == ["ours"]
    assert [each.name for each in tmp_path.iterdir()] == ["7"]


def test_a_directory_that_another_writer_removes_is_created_again(tmp_path, monkeypatch):
    versions, remove, times = tmp_path / "versions", files.remove_abandoned, []

    def take_away(directory):
        remove(directory)
        if len(times) < 3:
            times.append(directory)
            directory.rmdir()

    monkeypatch.setattr(files, "remove_abandoned", take_away)
    assert files.write_version(versions, lambda staging: (staging / "ours").touch()) == versions / "1"


def test_a_lock_is_not_held_by_forked_children(tmp_path):
    lock = locks.acquire(tmp_path / "lock", wait=False)
    with pytest.raises(BlockingIOError):
        locks.acquire(tmp_path / "lock", wait=False)
    child = subprocess.Popen(
        [sys.executable, "-c", FORK, str(tmp_path / "other")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "held\n"
        child.kill()
        child.wait(timeout=60)
        other = locks.acquire(tmp_path / "other", wait=False)  # the grandchild lives
    finally:
        child.communicate()
    locks.release(other)
    locks.release(lock)
    locks.release(locks.acquire(tmp_path / "lock", wait=False))


FORK = """
import os, sys, time
from pathlib import Path
from resnet_tf.core import locks
locks.acquire(Path(sys.argv[1]), wait=False)
if os.fork() == 0:
    print("held", flush=True)
    sys.stdin.readline()  # the end of the pipe
    os._exit(0)
time.sleep(600)
"""


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_has_none(tmp_path, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    assert locks.acquire(tmp_path / "lock", wait=False) is None
    locks.release(None)


EXPORT = """
import sys
from resnet_tf.model.create import create_model
from resnet_tf.model.weights import download
from resnet_tf.serving.export import export_model
classes, prefix = {classes}, {prefix!r}
model = create_model("resnet8_w32", num_classes=classes, input_shape=(8, 8, 3))
print("ready", flush=True)
input()
print(export_model(model, {directory!r}, labels=[prefix + str(index) for index in range(classes)], target={target!r}))
"""


def _check_exports(paths: dict[str, int], directory: Path) -> None:
    """Check that each version is complete and has the labels of its own network."""
    assert sorted(each.name for each in directory.iterdir()) == sorted(Path(path).name for path in paths)
    for path, classes in paths.items():
        labels = read_export(path).metadata["labels"]
        assert len(labels) == classes
        assert labels == [f"model{classes}-{index}" for index in range(classes)]
        assert Predictor(path).logits(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, classes)


@pytest.mark.slow
@pytest.mark.long
def test_processes_that_export_at_once_get_versions_of_their_own(tmp_path):
    directory = tmp_path / "models"
    counts = [2, 3]
    programs = [
        EXPORT.format(classes=count, prefix=f"model{count}-", directory=str(directory), target="serving")
        for count in counts
    ]
    outcomes = _outcomes(*programs)
    assert [code for code, _, _ in outcomes] == [0, 0], outcomes
    _check_exports({out.strip(): count for (_, out, _), count in zip(outcomes, counts, strict=True)}, directory)


@pytest.mark.slow
def test_threads_that_export_at_once_get_versions_of_their_own(tmp_path):
    directory, barrier, found = tmp_path / "models", threading.Barrier(2), {}

    def export(count: int) -> None:
        model = create_model("resnet8_w32", num_classes=count, input_shape=(8, 8, 3))
        barrier.wait(timeout=TIMEOUT)
        path = export_model(model, directory, labels=[f"model{count}-{index}" for index in range(count)])
        found[str(path)] = count

    threads = [threading.Thread(target=export, args=(count,)) for count in (2, 3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=TIMEOUT)
    assert sorted(found.values()) == [2, 3]
    _check_exports(found, directory)


@pytest.mark.parametrize("which", ["latest", "best"])
def test_a_checkpoint_that_the_run_removes_meanwhile_is_not_called_corrupt(
    tiny_run, tmp_path, monkeypatch, which, caplog
):
    """A run that goes on removes its oldest checkpoints while another process reads them."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    newest, find = max(checkpoint.steps(workdir / "checkpoints")), checkpoint.find_corruption
    step = newest + 14
    removed = workdir / "checkpoints" / f"{step:08d}"
    shutil.copytree(workdir / "checkpoints" / f"{newest:08d}", removed)

    def remove_first(path):
        if path == removed and removed.exists():
            shutil.rmtree(removed)
        return find(path)

    monkeypatch.setattr(checkpoint, "find_corruption", remove_first)
    assert load_run(workdir, checkpoint=which).step == newest
    assert "corrupt" not in caplog.text


# Holds a run directory until it is killed.
HOLD = """
import time
from pathlib import Path
from resnet_tf.config import Config
from resnet_tf.training.workdir import exclusive_workdir
with exclusive_workdir(Path({workdir!r}), Config(), name=""):
    print("ready", flush=True)
    time.sleep(600)
"""


def _exclusive(workdir: Path | None, name: str = "") -> contextlib.AbstractContextManager[Path]:
    return exclusive_workdir(workdir, Config(), name=name)


@pytest.mark.slow
@pytest.mark.parametrize("exists", [True, False])
def test_a_run_directory_in_use_names_its_holder_and_is_free_once_that_is_killed(tmp_path, exists):
    workdir = tmp_path / "runs" / "one"
    if exists:
        workdir.mkdir(parents=True)
    with processes(["-c", HOLD.format(workdir=str(workdir))]) as (holder,):
        message = f"process {holder.pid} on {re.escape(socket.gethostname())}; wait until it ends, or give another"
        with pytest.raises(UserError, match=rf"is used by another training, {message} directory$"), _exclusive(workdir):
            pass
        holder.kill()
        holder.wait(timeout=60)
        assert (workdir / ".lock").is_file()
        with _exclusive(workdir), pytest.raises(UserError, match=f"process {os.getpid()} on"), _exclusive(workdir):
            pass
    assert workdir.exists() is True, "a directory that another process created stays"
    assert list(workdir.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, UserError, None])
def test_a_training_that_never_began_leaves_nothing(tmp_path, error):
    def fail():
        if error:
            raise error

    expected = pytest.raises(error) if error else contextlib.nullcontext()
    with expected, _exclusive(tmp_path / "a" / "b") as workdir:
        assert workdir.is_dir()
        fail()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "own").mkdir()
    with contextlib.suppress(BaseException), _exclusive(tmp_path / "own"):
        fail()
    assert list((tmp_path / "own").iterdir()) == []


def test_default_names_are_unique(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workdirs, "default_name", lambda name: f"{name}-20260102-030405")
    with _exclusive(None, "digits") as first, _exclusive(None, "digits") as second, _exclusive(None, "x") as third:
        names = [str(each) for each in (first, second, third)]
        assert names == [
            f"runs/{name}" for name in ("digits-20260102-030405", "digits-20260102-030405-2", "x-20260102-030405")
        ]
        for each in (first, second):
            workdirs.write_config(each, Config())
    assert sorted(each.name for each in Path("runs").iterdir()) == [
        "digits-20260102-030405",
        "digits-20260102-030405-2",
    ]


UNUSUAL_LOCKS = {
    "empty": lambda path: path.touch(),
    "binary": lambda path: path.write_bytes(b"\xff\x00" * 1000),
    "control characters": lambda path: path.write_text("7 host\x1b[2J\n"),
    "large": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**40),
}


@pytest.mark.parametrize("write", UNUSUAL_LOCKS.values(), ids=UNUSUAL_LOCKS)
def test_a_lock_file_of_any_content_is_locked_and_its_holder_unknown(tmp_path, write):
    write(tmp_path / ".lock")
    lock = locks.acquire(tmp_path / ".lock", wait=False)
    with pytest.raises(UserError, match="is used by another training, another process; wait"), _exclusive(tmp_path):
        pass
    locks.release(lock)
    with _exclusive(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"


def test_a_lock_that_a_full_disk_refuses_is_released(tmp_path, monkeypatch):
    """Regression: the directory was "used by another training" as long as the process lived."""

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        with pytest.raises(UserError, match="cannot be written: No space left on device"), _exclusive(tmp_path):
            pass
    with _exclusive(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"


@pytest.mark.parametrize("hold", [locks.hold, download._locked])
def test_a_lock_whose_file_cannot_be_deleted_is_released(tmp_path, monkeypatch, hold):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionError), hold(tmp_path / "file"):
        pass
    locks.release(locks.acquire(tmp_path / "file", wait=False))


@pytest.mark.parametrize("form", ["link", "directory", "pipe"])
def test_a_lock_file_that_is_no_file_is_refused(tmp_path, form):
    (tmp_path / "victim").write_text("years of work")
    path = tmp_path / "run" / ".lock"
    path.parent.mkdir()
    {"link": lambda: path.symlink_to(tmp_path / "victim"), "directory": path.mkdir, "pipe": lambda: os.mkfifo(path)}[
        form
    ]()
    with pytest.raises(UserError, match=r"--workdir='.*run' cannot be written: "), _exclusive(path.parent):
        pass
    assert (tmp_path / "victim").read_text() == "years of work"


def test_without_locks_a_run_logs_it_once_and_its_configuration_is_written_once(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with _exclusive(tmp_path / "run") as first, _exclusive(tmp_path / "run") as second:
        assert [record.message for record in caplog.records] == [
            f"the file system of '{first}' has no locks: a second training in this directory would not be noticed"
        ] * 2
        config = Config()
        monkeypatch.setattr(Path, "is_file", lambda path: False)  # both look before either writes
        workdirs.write_config(first, config)
        with pytest.raises(UserError, match="is used by another training; give another directory"):
            workdirs.write_config(second, config)
    monkeypatch.undo()
    assert (tmp_path / "run" / "config.json").read_text() == config.to_json()


@pytest.mark.parametrize(
    "name",
    ["config.json", "robustness.json", "report", "export/serving", "checkpoints", "tensorboard/train/plugins"],
)
def test_a_run_directory_with_a_link_out_of_it_is_neither_read_nor_written(name, tmp_path):
    run, private = tmp_path / "run", tmp_path / "private"
    path = run / name
    path.parent.mkdir(parents=True)
    private.write_text(Config().to_json()) if path.suffix else private.mkdir()
    path.symlink_to(private)
    if name != "config.json":
        (run / "config.json").write_text(Config().to_json())
    for open_run in (check_workdir, load_run, prove):
        with pytest.raises(UserError, match=rf"{name}' is a symbolic link out of the run directory, which is not foll"):
            open_run(run)


def test_links_to_and_inside_of_a_run_directory_are_followed(tmp_path):
    run = tmp_path / "elsewhere" / "run"
    (run / "wandb" / "run-1" / "files").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("run-1")
    (run / "wandb" / "run-1" / "files" / "saved.txt").symlink_to(tmp_path / "saved.txt")
    (run / "config.json").write_text(Config().to_json())
    (tmp_path / "link").symlink_to(run)
    check_workdir(tmp_path / "link")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_run(tmp_path / "link")


@pytest.mark.parametrize("links", [True, False])
def test_of_writers_of_a_new_file_one_wins(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    files.write_atomically(tmp_path / "config.json", "first", new=True)
    with pytest.raises(FileExistsError):
        files.write_atomically(tmp_path / "config.json", "second", new=True)
    assert (tmp_path / "config.json").read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]


class _Act(keras.callbacks.Callback):
    def __init__(self, act):
        super().__init__()
        self.on_epoch_end = lambda epoch, logs=None: act()


@pytest.mark.slow
def test_a_run_directory_is_used_by_one_training_at_a_time(tiny_config, tmp_path):
    workdir, refused = tmp_path / "run", []

    def start_another():
        for start in (train_and_evaluate, train):
            with pytest.raises(UserError, match=f"is used by another training, process {os.getpid()} on ") as caught:
                start(tiny_config, workdir)
            refused.append(str(caught.value))
        assert "\n" not in refused[-1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(tiny_config, workdir, callbacks=[_Act(start_another)])
    assert len(refused) == 2
    assert not (workdir / ".lock").exists()
    # Sequential calls in one process continue, and then evaluate the finished run.
    assert [train_and_evaluate(tiny_config, workdir)["step"] for _ in range(2)] == [14, 14]
    assert not (workdir / ".lock").exists()
    assert [line["epoch"] for line in files.read_json_lines(workdir / "metrics.jsonl")] == [1, 2]


TRAIN = """
import runpy, sys
import tensorflow
from resnet_tf.training import workdir
workdir.default_name = lambda name: name + "-20260102-030405"
sys.argv = ["resnet_tf.train", "--config=digits", *{arguments!r}]
print("ready", flush=True)
input()
runpy.run_module("resnet_tf.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.long
def test_trainings_that_start_at_once_are_separate(tmp_path, monkeypatch):
    """Two in the same second without --workdir, which prepare the data set at once; then two in one directory."""
    monkeypatch.chdir(tmp_path)
    common = [f"--set={each}" for each in (*TINY, f"data.data_dir={tmp_path / 'data'}")]
    rates = ["0.01", "0.02"]
    programs = [TRAIN.format(arguments=[*common, f"--set=optimizer.base_lr={rate}"]) for rate in rates]
    outcomes = _outcomes(*programs)
    assert [code for code, _, _ in outcomes] == [0, 0], outcomes
    runs = sorted(each.name for each in Path("runs").iterdir())
    assert runs == ["digits-20260102-030405", "digits-20260102-030405-2"]
    for (_, out, _), rate in zip(outcomes, rates, strict=True):
        (report,) = re.findall(r"report  (.*)/report/index.html", out)
        run = load_run(report)
        assert run.config.optimizer.base_lr == float(rate)
        assert read_export(Path(report, "export", "serving")).metadata["config"] == json.loads(run.config.to_json())
        assert f"base_lr&quot;: {rate}" in Path(report, "report", "index.html").read_text()
    programs = [TRAIN.format(arguments=[*common, "--workdir=one", f"--set=optimizer.base_lr={rate}"]) for rate in rates]
    outcomes = _outcomes(*programs)
    assert sorted(code for code, _, _ in outcomes) == [0, 2], outcomes
    (error,) = [error for code, _, error in outcomes if code]
    assert "Traceback" not in error
    assert re.search(r"error: --workdir='one' is used by another training, process \d+ on .*\n$", error)


def test_reports_written_at_once_are_of_one_run(tmp_path, monkeypatch):
    """A second writer moves its files between two moves of the first, unless it waits for its turn."""
    replace, moved, started = os.replace, [], threading.Event()

    def write(text):
        with files.atomic_files(tmp_path) as staging:
            for name in "abc":
                (staging / name).write_text(text)
            if text == "second":
                started.set()

    def slow_replace(source, target):
        replace(source, target)
        moved.append(Path(target).name)
        if len(moved) == 1:
            other.start()
            assert started.wait(timeout=60)
            time.sleep(0.3)

    other = threading.Thread(target=write, args=("second",))
    monkeypatch.setattr(os, "replace", slow_replace)
    write("first")
    other.join(timeout=60)
    assert "".join(moved) == "abcabc"
    assert {(tmp_path / name).read_text() for name in "abc"} == {"second"}
