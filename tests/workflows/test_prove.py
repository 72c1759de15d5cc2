"""A run is trained again in a new process, and every difference is found."""

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import override_groups, wait_until

from resnet_tf.config import load_config
from resnet_tf.core import files
from resnet_tf.core.errors import Interrupted, UserError
from resnet_tf.data.sources import open_source
from resnet_tf.training import checkpoint, loop, proof
from resnet_tf.workflows.prove import prove
from resnet_tf.workflows.train import train_and_evaluate


@pytest.fixture(scope="module")
def proved(tiny_config, tmp_path_factory):
    """Return the directory of a deterministic run of two epochs, and its configuration."""
    workdir = tmp_path_factory.mktemp("run")
    config = override_groups(tiny_config, runtime={"deterministic": True}, train={"checkpoint_steps": 3, "ema": 0.9})
    train_and_evaluate(config, workdir)
    return workdir


@pytest.mark.slow
def test_a_run_is_the_same_again(proved, command):
    outcome = command("prove", str(proved), "--json")
    found = json.loads(outcome.out)
    assert (outcome.code, found["same"], found["difference"]) == (0, True, "")
    assert found["compared"] == [3, 6, 7, 9, 12, 14]
    assert found["metrics"] == 2


@pytest.mark.slow
def test_what_minutes_have_chosen_is_not_chosen_again(proved, tmp_path):
    planned = tmp_path / "planned"
    shutil.copytree(proved, planned)
    config = json.loads((planned / "config.json").read_text())
    config["train"]["minutes"] = 0.01
    (planned / "config.json").write_text(json.dumps(config))
    result = prove(planned, steps=7)
    assert result, str(result)
    assert result.compared == (3, 6, 7)


@pytest.mark.slow
@pytest.mark.long
def test_the_first_steps_are_the_same_and_a_difference_is_named(proved, tmp_path, command):
    changed = tmp_path / "changed"
    shutil.copytree(proved, changed)
    lines = proof.read_hashes(changed)
    files.write_json_lines(
        changed / proof.HASHES, [line | {"sha256": "0"} if line["step"] == 6 else line for line in lines]
    )
    start = files.read_json_lines(changed / proof.ENVIRONMENT)[0]
    start["environment"] |= {"tensorflow": "2.0", "XLA_FLAGS": "--xla"}
    files.write_json_lines(changed / proof.ENVIRONMENT, [start])
    before = {path: path.read_bytes() for path in changed.rglob("*") if path.is_file()}
    outcome = command("prove", f"--workdir={changed}", "--steps=4")
    assert outcome.code == 1
    assert "different: the variables at step 6; what differs from the run:" in outcome.out
    assert "tensorflow: '2.0' then, " in outcome.out
    assert "XLA_FLAGS: '--xla' then, 'not set' now" in outcome.out
    assert before == {path: path.read_bytes() for path in changed.rglob("*") if path.is_file()}


# Variables of other programs, most of which hold credentials, and variables that change results.
OTHERS = ("TF_TOKEN_app_terraform_io", "TF_VAR_password", "TF_HTTP_PASSWORD", "TF_CLI_ARGS", "TF_DATA_DIR")
OTHERS = (*OTHERS, "TF_WORKSPACE", "TF_LOG", "TF_ENCRYPTION", "NVIDIA_API_KEY")
KNOWN = ("TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL", "TF_GPU_ALLOCATOR", "TF_XLA_FLAGS", "TF_DETERMINISTIC_OPS")
KNOWN = (*KNOWN, "TF_CUDNN_DETERMINISTIC", "TF_NUM_INTEROP_THREADS", "TF_DISABLE_RZ_CHECK", "TF_USE_CUBLASLT")
KNOWN = (*KNOWN, "TF_FORCE_GPU_ALLOW_GROWTH", "TF_CONFIG", "XLA_FLAGS", "OMP_NUM_THREADS", "NVIDIA_TF32_OVERRIDE")


def test_only_variables_that_change_results_are_stored(tmp_path, monkeypatch):
    """Regression: all variables that begin with TF_ were, among them the tokens and passwords of Terraform."""
    for name in (*OTHERS, *KNOWN):
        monkeypatch.setenv(name, "secret")
    assert {name for name, value in proof.describe_environment().items() if value == "secret"} == set(KNOWN)
    earlier = {"step": 0, "environment": dict.fromkeys(OTHERS + KNOWN, "secret")}
    files.write_json_lines(tmp_path / proof.ENVIRONMENT, [earlier])
    (start,) = proof.read_environment(tmp_path)
    assert set(start["environment"]) == set(KNOWN), "prove prints what differs from this"


def test_hashes_of_later_steps_and_corrupt_lines_are_removed(tmp_path, caplog):
    for step in (3, 6, 9):
        proof.write_hash(tmp_path, step, {"model": {"kernel": tf.Variable([1.0, step])}})
    before = proof.read_hashes(tmp_path)
    assert len({line["sha256"] for line in before}) == 3
    (tmp_path / proof.HASHES).write_text("no JSON\n" + (tmp_path / proof.HASHES).read_text())
    proof.write_hash(
        tmp_path, 6, {"model": {"kernel": tf.Variable([1.0, 6.0])}}
    )  # of a run that was killed after step 9
    assert proof.read_hashes(tmp_path) == before[:2]
    assert "the line is removed" in caplog.text
    proof.write_hash(tmp_path, 9, {"model": {"other name": tf.Variable([1.0, 9.0])}})
    assert proof.read_hashes(tmp_path)[2] != before[2]


def test_metrics_are_compared(proved, tmp_path):
    from resnet_tf.workflows import prove as module

    changed = tmp_path / "changed"
    shutil.copytree(proved, changed)
    lines = files.read_json_lines(changed / "metrics.jsonl")
    files.write_json_lines(changed / "metrics.jsonl", [lines[0], lines[1] | {"val_loss": 7.0, "train_seconds": 9}])
    result = module._compare(changed, proved, 14, ())
    assert not result
    assert result.difference.startswith("val_loss of epoch 2 was 7.0 and is ")
    assert module._compare(proved, proved, 14, ())


def test_metrics_are_compared_by_epoch(proved, tmp_path):
    """Regression: after a corrupt line was removed, all later epochs were compared with others."""
    from resnet_tf.workflows import prove as module

    repaired = tmp_path / "repaired"
    shutil.copytree(proved, repaired)
    files.write_json_lines(repaired / "metrics.jsonl", files.read_json_lines(repaired / "metrics.jsonl")[1:])
    result = module._compare(repaired, proved, 14, ())
    assert (result.difference, result.metrics) == ("", 1)


def test_a_checkpoint_that_a_signal_caused_within_an_epoch_is_reached(proved, tmp_path):
    """Regression: a call of several steps passed over its step, and no checkpoint was compared."""
    from resnet_tf.workflows import prove as module

    run, again = tmp_path / "run", tmp_path / "again"
    shutil.copytree(proved, run)
    config = load_config(run / "config.json", ["train.checkpoint_steps=0"])  # none at step 3 by itself
    (run / "config.json").write_text(config.to_json())
    module.main([str(run), str(again), "3"])
    assert [line["step"] for line in proof.read_hashes(again)] == [3]
    result = module._compare(run, again, 3, ())
    assert (result.difference, result.compared, result.metrics) == ("", (3,), 0)


def test_other_data_are_refused_before_the_first_step(proved, tmp_path, monkeypatch):
    """Regression: they were not compared, and only a difference of the results was named."""
    from resnet_tf.workflows import prove as module

    changed = tmp_path / "changed"
    shutil.copytree(proved, changed)
    config = json.loads((changed / "config.json").read_text())
    config["data"]["train_split"] = "train[:500]"
    (changed / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(loop, "fit", lambda *arguments, **options: pytest.fail("it was trained"))
    message = r"holds other data than those of the run: the splits were train, test\[:100\]; they are train\[:500\],"
    with pytest.raises(UserError, match=message):
        module.main([str(changed), str(tmp_path / "again"), "14"])


def test_the_test_split_which_is_left_out_is_no_other_data(proved, tmp_path):
    from resnet_tf.workflows import prove as module

    tested = tmp_path / "tested"
    shutil.copytree(proved, tested)
    config = load_config(tested / "config.json", ["data.test_split=test[100:]"])
    (tested / "config.json").write_text(config.to_json())
    newest = checkpoint.latest(tested / "checkpoints")
    metadata = checkpoint.read_metadata(newest)
    metadata["data"] = open_source(config.data).identity
    (newest / "metadata.json").write_text(files.to_json(metadata))
    (newest / "sha256.json").unlink()
    files.write_manifest(newest, Path("sha256.json"))
    assert "test[100:]" in metadata["data"]["splits"]
    module._check_data(tested, open_source(load_config(proved / "config.json").data))


def test_an_evaluation_of_one_run_only_is_no_difference(proved, tmp_path):
    """The second run ends, and evaluates, after an epoch in which the first one did not evaluate."""
    from resnet_tf.workflows import prove as module

    rare = tmp_path / "rare"
    shutil.copytree(proved, rare)
    first, last = files.read_json_lines(rare / "metrics.jsonl")
    files.write_json_lines(rare / "metrics.jsonl", [{name: first[name] for name in first if name[:4] != "val_"}, last])
    assert module._compare(rare, proved, 14, ())
    files.write_json_lines(rare / "metrics.jsonl", [first, last | {"val_top1": 2.0}])
    assert "val_top1 of epoch 2" in module._compare(rare, proved, 14, ()).difference


def test_a_run_that_ends_earlier_is_not_the_same(proved, tmp_path):
    from resnet_tf.workflows import prove as module

    shorter = tmp_path / "shorter"
    shorter.mkdir()
    for name, count in ((proof.HASHES, 3), ("metrics.jsonl", 1)):
        files.write_json_lines(shorter / name, files.read_json_lines(proved / name)[:count])
    result = module._compare(proved, shorter, 14, ())
    assert result.difference == "training ends at step 7 now, before step 14"
    assert str(module._compare(proved, shorter, 7, ())).endswith("and the metrics of 1 epoch")


def _is_running(process: int) -> bool:
    """Return True for a process that has not ended; Python waits 0.25 seconds for the end of one that it has killed."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_sigterm_ends_the_new_process_and_leaves_no_files(proved, tmp_path, monkeypatch):
    program, started = tmp_path / "python", tmp_path / "started"
    program.write_text(f"#!/bin/sh\necho $$ > {started}.new; mv {started}.new {started}; exec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()

    def stop():
        wait_until(started.exists, seconds=50)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    try:
        with pytest.raises(Interrupted, match="SIGTERM: stopped, and the run is unchanged"):
            prove(proved)
    finally:
        thread.join(timeout=60)
    wait_until(lambda: not _is_running(int(started.read_text())), seconds=20)
    assert not list((tmp_path / "scratch").iterdir())


def test_runs_that_cannot_be_proved_are_refused(proved, tmp_path, command):
    with pytest.raises(UserError, match="is not a run directory"):
        prove(tmp_path)
    old = tmp_path / "old"
    shutil.copytree(proved, old)
    (old / proof.HASHES).unlink()
    with pytest.raises(UserError, match=r"has no hashes\.jsonl: an earlier version trained it"):
        prove(old)
    outcome = command("prove")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
