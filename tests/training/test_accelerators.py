"""Accelerators that are not here: memory, arithmetic and input of a GPU, by what is called on TensorFlow."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.client import device_lib

from resnet_tf.config import load_config
from resnet_tf.core import devices
from resnet_tf.core.devices import translate_memory_errors
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.training import runtime
from resnet_tf.training.trainer import Trainer
from resnet_tf.workflows.plan import plan

GPUS = [SimpleNamespace(name=f"/physical_device:GPU:{index}") for index in range(2)]


@pytest.fixture
def gpus(monkeypatch):
    """List two GPUs."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda device_type=None: GPUS)
    return GPUS


def test_memory_grows(gpus, monkeypatch):
    grown = []
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, enable: grown.append((gpu, enable)))
    devices.grow_memory()
    assert grown == [(gpu, True) for gpu in gpus]


def test_a_gpu_that_computed_before_is_named(gpus, monkeypatch, caplog):
    def refuse(gpu, enable):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    with caplog.at_level("INFO", logger="resnet_tf"):
        devices.grow_memory()
    assert caplog.messages[0].startswith("/physical_device:GPU:0 holds all of its memory")


def test_float32_is_not_rounded_within_the_context():
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = enabled()
    with devices.full_float32():
        assert not enabled()
    assert enabled() == before


def test_a_single_gpu_has_a_strategy_that_copies_ahead(monkeypatch):
    monkeypatch.setattr(runtime, "_devices", lambda: ["GPU:0"])
    monkeypatch.setattr(runtime, "one_device", lambda name: f"one device {name}")
    monkeypatch.setattr(runtime, "mirrored", lambda names: f"mirrored {names}")
    config = load_config("digits").runtime
    assert runtime._strategy(config) == "one device GPU:0"
    monkeypatch.setattr(runtime, "_devices", lambda: ["GPU:0", "GPU:1"])
    assert runtime._strategy(config) == "mirrored ('GPU:0', 'GPU:1')"


def test_one_device_trains_as_the_default_strategy_does(data_dir):
    config = load_config("digits", [f"data.data_dir={data_dir}", "model.name=resnet8_w32", "runtime.precision=float32"])
    runtime.start(config.runtime)
    source, weights = open_source(config.data), []
    for strategy in (tf.distribute.get_strategy(), runtime.one_device("CPU:0")):
        trained = Trainer(config, source, strategy)
        trained.take(trained.batches(), 3)
        weights.append([*trained.model.get_weights(), *(each.numpy() for each in trained.optimizer.variables)])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_step_that_does_not_fit_is_explained(data_dir, monkeypatch):
    config = load_config("digits", [f"data.data_dir={data_dir}", "model.name=resnet8_w32", "runtime.precision=float32"])
    trained = Trainer(config, open_source(config.data), runtime.start(config.runtime))

    def run(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[64,8,8,16]\nhints")

    monkeypatch.setattr(trained.step, "run", run)
    message = (
        r"out of memory in a training step of data.batch_size=128: OOM when allocating tensor with shape\[64,8,8,16\]; "
        r"it takes about [\d,]+ MB on each replica: .*; a smaller data.batch_size, train.accumulate=2 or "
        r"runtime.precision=mixed_bfloat16 takes less"
    )
    with pytest.raises(UserError, match=message):
        trained.take(None, 1)


def test_a_message_without_text_is_no_other_error():
    with (
        pytest.raises(UserError, match=r"out of memory in a step: .*ResourceExhausted.*; less"),
        translate_memory_errors("a step", lambda: "less"),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "")


def test_the_plan_states_the_memory_of_the_gpu(data_dir, monkeypatch):
    found = [
        SimpleNamespace(device_type=device_type, memory_limit=limit, name=f"/device:{device_type}:0")
        for device_type, limit in (("CPU", 2**28), ("GPU", 2**34))
    ]
    monkeypatch.setattr(device_lib, "list_local_devices", lambda: found)
    config = load_config("digits", [f"data.data_dir={data_dir}", "model.name=resnet8_w32"])
    assert plan(config).facts["memory"].endswith("of workspace; GPU:0 has 16,384 MB")
    monkeypatch.undo()
    assert plan(config).facts["memory"].endswith("of workspace")
