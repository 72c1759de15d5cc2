"""Checkpoints: atomic writes, verification, and errors for corrupt files."""

import errno
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CORRUPTIONS

from resnet_tf.config import load_config
from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.data.sources import open_source
from resnet_tf.model.create import create_model
from resnet_tf.training import checkpoint, runtime
from resnet_tf.training.optimizers.create import LOSS_SCALE, create_optimizer
from resnet_tf.training.progress import RunState
from resnet_tf.training.run import load_run
from resnet_tf.training.trainer import Trainer

FILES = ["state.index", "state.data-00000-of-00001", "metadata.json", "sha256.json"]


def _parts(name="resnet20"):
    model = create_model(name, num_classes=3, input_shape=(8, 8, 1))
    optimizer = keras.optimizers.SGD(momentum=0.9, name="optimizer")
    optimizer.build(model.trainable_variables)
    return {"model": checkpoint.variables_of(model), "optimizer": checkpoint.variables_of(optimizer)}


@pytest.fixture(scope="module")
def parts():
    return _parts()


def _save(directory, parts, step, *, keep=2, top1=None):
    return checkpoint.save(directory, parts, _metadata(step, top1), keep=keep)


def _metadata(step, top1=None):
    data = {"name": "x", "class_names": ["a", "b"], "splits": {"train": {"examples": 2, "labels": "0f"}}}
    metrics = None if top1 is None else {"top1": top1}
    return {"step": step, "run": RunState(step).to_dict(), "preprocess": {}, "data": data, "metrics": metrics}


def test_everything_comes_back(tmp_path, parts):
    values = {}
    for part, variables in parts.items():
        for path, variable in variables.items():
            values[part, path] = np.random.default_rng(0).uniform(1, 5, variable.shape).astype(variable.dtype.name)
            variable.assign(values[part, path])
    path = _save(tmp_path, parts, 7)
    again = _parts()
    checkpoint.restore(path, again)
    for (part, name), value in values.items():
        np.testing.assert_array_equal(again[part][name].numpy(), value)
    assert checkpoint.read_metadata(path) == _metadata(7)
    assert sorted(each.name for each in path.iterdir()) == sorted(FILES)


def test_the_newest_are_kept_and_the_best(tmp_path, parts):
    for step, top1 in ((5, 0.5), (10, 0.9), (15, None), (20, 0.9), (100, 0.8), (105, None), (110, 0.1)):
        _save(tmp_path, parts, step, top1=top1)
    assert checkpoint.steps(tmp_path) == [10, 105, 110], "of equally good ones the first"
    (tmp_path / ".resnet_tf-writing-1").mkdir()
    assert checkpoint.latest(tmp_path).name == "00000110"
    assert checkpoint.latest(tmp_path / "none") is None


def test_the_best_is_found_among_those_that_are_whole(tmp_path, parts, caplog):
    assert checkpoint.best(tmp_path) is None
    _save(tmp_path, parts, 1, keep=9)
    assert checkpoint.best(tmp_path).name == "00000001", "the newest, where none was tested"
    for step, top1 in ((2, 0.5), (3, 0.9), (4, 0.9), (5, 0.8), (6, None)):
        _save(tmp_path, parts, step, top1=top1, keep=9)
    assert checkpoint.best(tmp_path).name == "00000003"
    CORRUPTIONS["cut"](tmp_path / "00000003" / "state.index")
    assert checkpoint.best(tmp_path).name == "00000004"
    assert "00000003' is corrupt" in caplog.text
    assert "using the best of the others" in caplog.text


def test_a_step_is_written_anew(tmp_path, parts):
    _save(tmp_path, parts, 5)
    _save(tmp_path, parts, 5, top1=0.25)
    assert checkpoint.read_metadata(tmp_path / "00000005")["metrics"] == {"top1": 0.25}
    assert [path.name for path in tmp_path.iterdir()] == ["00000005"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path, parts):
    path = _save(tmp_path, parts, 1)
    with pytest.raises(UserError, match=r"is corrupt or of another network"):
        checkpoint.restore(path, _parts("resnet32"))


def _parts_in(precision):
    with runtime.precision_policy(precision):
        model = create_model("resnet8_w32", num_classes=3, input_shape=(8, 8, 1))
        optimizer = create_optimizer(load_config("digits"), TrainingLength(5, 10), model)
    return {"model": checkpoint.variables_of(model), "optimizer": checkpoint.variables_of(optimizer)}


def _fill(parts):
    for part in parts.values():
        for variable in part.values():
            values = np.random.default_rng(0).uniform(1, 5, variable.shape)
            variable.assign(np.asarray(values, variable.dtype.as_numpy_dtype))


@pytest.mark.parametrize("after", ["float32", "mixed_float16"])
@pytest.mark.parametrize("before", ["float32", "mixed_float16"])
def test_only_the_loss_scale_may_be_missing_in_a_checkpoint_or_in_the_optimizer(tmp_path, before, after):
    ours, theirs = _parts_in(before), _parts_in(after)
    _fill(ours)
    path = _save(tmp_path, ours, 1)
    checkpoint.restore(path, theirs, optional=LOSS_SCALE)
    for part, variables in theirs.items():
        for name, variable in variables.items():
            if name in ours[part]:
                np.testing.assert_array_equal(variable.numpy(), ours[part][name].numpy())
        assert all(name.startswith(f"{LOSS_SCALE}/") for name in variables.keys() ^ ours[part].keys())
    others = {name for name in theirs["optimizer"] if not name.startswith(LOSS_SCALE) or before == after}
    for name in sorted(others)[::10]:
        fewer = {key: variable for key, variable in theirs["optimizer"].items() if key != name}
        for optimizer in (fewer, theirs["optimizer"] | {f"{name}_2": tf.Variable(1.0)}):
            with pytest.raises(UserError, match=r"is corrupt or of another network"):
                checkpoint.restore(path, theirs | {"optimizer": optimizer}, optional=LOSS_SCALE)


def test_a_run_continues_in_the_precision_of_another_device(tiny_config, tiny_run):
    """Regression: a checkpoint in float32 was called corrupt where `runtime.precision=auto` chose float16."""
    with runtime.precision_policy("mixed_float16"):
        trainer = Trainer(tiny_config, open_source(tiny_config.data), tf.distribute.get_strategy())
        assert trainer.restore_newest(tiny_run / "checkpoints")
    assert (trainer.state.step, int(trainer.optimizer.iterations)) == (14, 14)
    assert float(trainer.optimizer.dynamic_scale) == trainer.optimizer.initial_scale


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_corrupt_checkpoint_is_named_and_the_previous_one_is_used(tmp_path, parts, caplog, name, corrupt):
    _save(tmp_path, parts, 1)
    newest = _save(tmp_path, parts, 2)
    corrupt(newest / name)
    assert checkpoint.latest(tmp_path).name == "00000001"
    assert f"checkpoint {str(newest)!r} is corrupt" in caplog.text
    shutil.rmtree(tmp_path / "00000001")
    message = r"no checkpoint under .* is intact: .*00000002' is corrupt.*; restore one from a copy, or delete this dir"
    with pytest.raises(UserError, match=message):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize(("best", "kept"), [(0.9, [100, 150]), (0.1, [150])])
def test_the_checkpoint_that_was_just_saved_stays_after_a_corrupt_one_of_a_later_step(tmp_path, parts, best, kept):
    """Regression: the corrupt one counted as the newest, and the only intact one was deleted."""
    _save(tmp_path, parts, 100, top1=best)
    CORRUPTIONS["flip"](_save(tmp_path, parts, 200, top1=0.95) / FILES[1])
    assert checkpoint.latest(tmp_path).name == "00000100"
    _save(tmp_path, parts, 150, top1=0.5, keep=1)
    assert checkpoint.steps(tmp_path) == kept
    assert checkpoint.latest(tmp_path).name == "00000150"


def _fill_disk(monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)


def test_a_full_disk_leaves_what_was_there(tmp_path, parts, monkeypatch):
    _save(tmp_path, parts, 1)
    _fill_disk(monkeypatch)
    message = (
        r"the checkpoint of step 2 cannot be written: No space left on device; make room.*; that of step 1 is intact"
    )
    with pytest.raises(UserError, match=message):
        _save(tmp_path, parts, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert not checkpoint.find_corruption(tmp_path / "00000001")


def test_a_full_disk_is_reported_with_a_checkpoint_that_is_intact(tmp_path, parts, monkeypatch):
    _save(tmp_path, parts, 1)
    CORRUPTIONS["flip"](_save(tmp_path, parts, 3) / FILES[1])
    _fill_disk(monkeypatch)
    with pytest.raises(UserError, match=r"the checkpoint of step 2 cannot be written: .*; that of step 1 is intact"):
        _save(tmp_path, parts, 2)


def _rewrite(checkpoint_, change):
    """Change the metadata of a checkpoint, with a manifest that fits."""
    metadata = json.loads((checkpoint_ / "metadata.json").read_text())
    change(metadata)
    (checkpoint_ / "metadata.json").write_text(json.dumps(metadata))
    (checkpoint_ / "sha256.json").unlink()
    files.write_manifest(checkpoint_, Path("sha256.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: metadata.pop("data"), "it has no 'data'"),
        (lambda metadata: metadata.update(step="7"), "step is a string, not an integer"),
        (lambda metadata: metadata.update(metrics=[1]), "metrics is a list, not an object or null"),
        (lambda metadata: metadata["data"].update(class_names="ab"), "data.class_names is a string, not a list"),
        (lambda metadata: metadata.update(preprocess={"type": "image", "size": "x"}), "size is a string"),
    ],
)
def test_a_field_of_another_type_is_named_with_its_file(tiny_run, tmp_path, change, message):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    newest = max((workdir / "checkpoints").iterdir())
    _rewrite(newest, change)
    with pytest.raises(UserError) as caught:
        load_run(workdir)
    assert message in str(caught.value)
    assert f"{str(newest / 'metadata.json')!r} is invalid" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 1.5}, "run.step is a number, not an integer"),
        ({"rolled_back": 1}, "run.rolled_back is an integer, not true or false"),
        ({"unknown": 1}, "run.unknown is unknown"),
    ],
)
def test_a_state_of_other_fields_is_refused(change, message):
    state = RunState(step=3, loss=0.5)
    assert RunState.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    with pytest.raises(UserError) as caught:
        RunState.from_dict(state.to_dict() | change)
    assert str(caught.value) == message
    fields = state.to_dict()
    del fields["loss"]
    with pytest.raises(UserError, match=r"run.loss is missing"):
        RunState.from_dict(fields)


def test_other_directories_are_no_checkpoints(tmp_path):
    for name in ("00000007", "\u00b2", ".resnet_tf-writing-x", "old"):
        (tmp_path / name).mkdir()
    assert checkpoint.steps(tmp_path) == [7]
