"""Accelerators that are not here: memory, arithmetic and input of a GPU, by what is called on TensorFlow."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.client import device_lib

from resnet_tf.config import load_config
from resnet_tf.core import devices
from resnet_tf.core.devices import translate_memory_errors
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import create_preprocess
from resnet_tf.model.layers import BatchNormalization
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.training import runtime, trainer
from resnet_tf.training.evaluation import Evaluator
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


class _Name(str):
    """Name of a CPU that stands for a TPU: `TPUStrategy` selects its devices by their names."""

    def __contains__(self, text):
        return text == "device:TPU:" or super().__contains__(text)


@pytest.fixture(scope="module")
def tpu() -> tf.distribute.TPUStrategy:
    """Return TensorFlow's strategy for two TPUs, with CPUs in place of them: graphs are traced, not computed."""
    devices = [SimpleNamespace(name=_Name(f"/job:localhost/replica:0/task:0/device:CPU:{index}")) for index in range(2)]
    system = SimpleNamespace(devices=devices, num_hosts=1, num_cores=2, num_of_cores_per_host=2, topology=None)
    return tf.distribute.TPUStrategy(SimpleNamespace(get_tpu_system_metadata=lambda: system, task_type=None))


def _small_network(config, *, num_classes, weights=None):
    inputs = keras.Input((None, None, 1))
    x = BatchNormalization(name="bn")(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    x = keras.layers.Dropout(0.1, name="dropout")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    return ResidualNetwork(inputs, keras.layers.Dense(num_classes, name="logits")(x))


def test_steps_of_a_tpu_are_traced(digits_arrays, tpu, monkeypatch):
    """`TPUStrategy.run` makes a tensor of every argument, which Python cannot decide by."""
    monkeypatch.setattr(trainer.run, "create_network", _small_network)
    settings = ["data.batch_size=64", "train.ema=0.9", "optimizer.name=adamw", "optimizer.clip_norm=1"]
    config = load_config("digits", [f"data.source={digits_arrays}", *settings])
    trained = Trainer(config, open_source(config.data), tpu)
    batches, count = trained.batches(), tf.constant(2)
    for variant in ({}, {"head_only": True}, {"size": 6}):
        statistics, unreadable = trained.step.run.get_concrete_function(batches, count, **variant).structured_outputs
        assert (statistics.shape[1:], unreadable.shape[1:]) == ([5], [64])


def test_an_evaluation_of_a_tpu_is_traced(digits_arrays, tpu):
    config = load_config("digits", [f"data.source={digits_arrays}"])
    source, preprocess = open_source(config.data), create_preprocess(config.data)
    with tpu.scope():
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    evaluator = Evaluator(model, source.validation, preprocess, batch_size=64, strategy=tpu)
    traced = evaluator._predict.get_concrete_function(*next(iter(evaluator._batches)))
    assert [each.shape for each in traced.structured_outputs] == [[64, 10], [64]]


def test_a_tf_data_service_for_several_machines_of_a_tpu_is_refused():
    def distribute(create):
        return create(tf.distribute.InputContext(2, 0, num_replicas_in_sync=4))

    strategy = SimpleNamespace(distribute_datasets_from_function=distribute)
    config = load_config("digits", ["data.service=input:5000"])
    with pytest.raises(UserError, match=r"data\.service sends batches to one machine, and this TPU has several"):
        Trainer.batches(SimpleNamespace(config=config, cluster=SimpleNamespace(count=1), strategy=strategy))


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
