"""Checkpoints are whole or not there, and say what is wrong with them."""

import errno
import shutil

import keras
import numpy as np
import pytest
from conftest import CORRUPTIONS

from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.model.create import create_model
from resnet_tf.training import checkpoint

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
    metrics = None if top1 is None else {"top1": top1}
    return checkpoint.save(directory, parts, step=step, metadata={"note": "x", "metrics": metrics}, keep=keep)


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
    assert checkpoint.read_metadata(path) == {"step": 7, "note": "x", "metrics": None}
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


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(tmp_path, parts, caplog, name, corrupt):
    _save(tmp_path, parts, 1)
    newest = _save(tmp_path, parts, 2)
    corrupt(newest / name)
    assert checkpoint.latest(tmp_path).name == "00000001"
    assert f"checkpoint {str(newest)!r} is corrupt" in caplog.text
    shutil.rmtree(tmp_path / "00000001")
    with pytest.raises(UserError, match=r"no checkpoint under .* is intact: .*00000002' is corrupt"):
        checkpoint.latest(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path, parts, monkeypatch):
    _save(tmp_path, parts, 1)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    message = r"the checkpoint of step 2 cannot be written: No space left on device; that of step 1 is whole"
    with pytest.raises(UserError, match=message):
        _save(tmp_path, parts, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert not checkpoint.find_corruption(tmp_path / "00000001")
