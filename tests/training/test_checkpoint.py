"""Checkpoints are whole or not there, and say what is wrong with them."""

import keras
import numpy as np
import pytest

from resnet_tf.errors import UserError
from resnet_tf.model.create import create_model
from resnet_tf.training import checkpoint
from resnet_tf.training.run import load_run


def _model(name="resnet20"):
    model = create_model(name, num_classes=3, input_shape=(8, 8, 1))
    optimizer = keras.optimizers.SGD(momentum=0.9, name="optimizer")
    optimizer.build(model.trainable_variables)
    return model, optimizer


def _save(directory, model, optimizer, step, keep=2):
    return checkpoint.save(directory, model, optimizer, step=step, metadata={"note": "x"}, keep=keep)


def test_everything_comes_back(tmp_path):
    model, optimizer = _model()
    for variable in [*model.variables, *optimizer.variables]:
        variable.assign(np.random.default_rng(0).uniform(1, 5, variable.shape).astype(variable.dtype))
    path = _save(tmp_path, model, optimizer, 7)
    again, optimizer_again = _model()
    checkpoint.restore(path, again, optimizer_again)
    for ours, theirs in zip(
        [*again.variables, *optimizer_again.variables], [*model.variables, *optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert checkpoint.read_metadata(path) == {"step": 7, "note": "x"}


def test_the_newest_are_kept_and_unfinished_ones_passed_over(tmp_path):
    model, optimizer = _model()
    for step in (5, 10, 100):
        _save(tmp_path, model, optimizer, step)
    (tmp_path / "00000200.writing").mkdir()
    assert checkpoint.steps(tmp_path) == [10, 100]
    assert checkpoint.latest(tmp_path).name == "00000100"
    assert checkpoint.latest(tmp_path / "none") is None


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    path = _save(tmp_path, *_model(), 1)
    with pytest.raises(UserError, match=r"is damaged or of another network"):
        checkpoint.restore(path, *_model("resnet32"))


@pytest.mark.parametrize("name", ["state.index", "state.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    path = _save(tmp_path, *_model(), 1)
    file = path / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"00000001' is damaged"):
        checkpoint.restore(path, *_model())
    (path / "metadata.json").write_text("{")
    with pytest.raises(UserError, match=r"00000001' is damaged"):
        checkpoint.read_metadata(path)


def test_a_directory_without_a_run_is_refused(tmp_path, tiny_config):
    with pytest.raises(UserError, match=r"is not a run directory: it has no config.json"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text(tiny_config.to_json())
    with pytest.raises(UserError, match=r"has no checkpoint yet"):
        load_run(tmp_path)
