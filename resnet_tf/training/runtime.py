"""Runtime of training: devices, distribution strategy, determinism and numeric precision."""

import contextlib
import functools
import logging
import random
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.config import RuntimeConfig
from resnet_tf.core import devices, onednn
from resnet_tf.core.errors import UserError
from resnet_tf.core.machine import bfloat16_flags
from resnet_tf.core.signals import restore_signal_handlers
from resnet_tf.core.text import counted
from resnet_tf.core.waiting import killed_after
from resnet_tf.training import rendezvous
from resnet_tf.training.cluster import Cluster, read_addresses, read_tf_config

logger = logging.getLogger(__name__)

_GPU_PRECISIONS = (((8, 0), "mixed_bfloat16"), ((7, 0), "mixed_float16"))  # from a compute capability on


def start(config: RuntimeConfig) -> tf.distribute.Strategy:
    """Set determinism and the process-wide precision policy, and return the distribution strategy."""
    devices.grow_memory()
    if config.logical_devices > 1:
        _split_cpu(config.logical_devices)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = _strategy(config)  # before anything else: a cluster must be joined before TensorFlow computes
    policy, reason = choose_precision(config.precision, on_tpu=isinstance(strategy, tf.distribute.TPUStrategy))
    keras.config.set_dtype_policy(policy)
    cluster = Cluster(strategy)
    among = f" on each of {counted(cluster.count, 'worker')}" if cluster.count > 1 else ""
    names = ", ".join(_devices()[: cluster.replicas])
    logger.info("precision %s (%s); %s%s: %s", policy, reason, counted(cluster.replicas, "replica"), among, names)
    if (advice := onednn.advice()) and not is_on_accelerator(strategy):
        logger.warning(advice)
    return strategy


@contextlib.contextmanager
def restored_state() -> Iterator[None]:
    """Restore the random generators of Python and NumPy, and Keras's dtype policy, at the end of the block.

    A training sets them for the process. TensorFlow and Keras have no public function that reads their seeds, or that
    ends the determinism of operations: these stay set.
    """
    policy, python, numpy = keras.config.dtype_policy(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def precision_policy(policy: str) -> Iterator[None]:
    """Set Keras's dtype policy for the layers created within the context."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def choose_precision(asked: str, *, on_tpu: bool = False) -> tuple[str, str]:
    """Return the precision policy and its reason; `auto` selects that of the hardware's matrix units."""
    if asked != "auto":
        return asked, "as configured"
    if on_tpu:
        return "mixed_bfloat16", "auto: TPU"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        # The GPUs of a strategy compute in one precision, that of the oldest.
        details = (tf.config.experimental.get_device_details(each) for each in gpus)
        capability = min(each.get("compute_capability", (0, 0)) for each in details)
        # NVIDIA, CUDA C++ Programming Guide, Tensor Cores: float16 from 7.0, bfloat16 from 8.0.
        policy = next((name for least, name in _GPU_PRECISIONS if capability >= least), "float32")
        return policy, f"auto: GPU of compute capability {capability[0]}.{capability[1]}"
    if flags := bfloat16_flags():
        return "mixed_bfloat16", f"auto: the CPU has {', '.join(sorted(flags))}"
    return "float32", "auto: the CPU has no bfloat16 instructions"


def is_on_accelerator(strategy: tf.distribute.Strategy) -> bool:
    """Return True if the replicas compute on GPUs or TPUs."""
    return isinstance(strategy, tf.distribute.TPUStrategy) or devices.default_type() == "GPU"


def uses_xla(asked: str, strategy: tf.distribute.Strategy) -> bool:
    """Return True if training steps are to be compiled with XLA; `auto` compiles them on GPUs.

    `TPUStrategy` compiles whatever a replica computes.
    """
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return False
    return is_on_accelerator(strategy) if asked == "auto" else asked == "true"


def _strategy(config: RuntimeConfig) -> tf.distribute.Strategy:
    match config.strategy:
        case "multiworker":
            if not _multiworker.cache_info().currsize:  # not joined yet
                rendezvous.meet(read_tf_config().index, read_addresses(), seconds=config.wait_seconds)
                with killed_after(config.wait_seconds, _lost(config, "the cluster of TF_CONFIG")):
                    _multiworker()
            return _multiworker()
        case "tpu":
            return _tpu(config)
    names = _devices()
    on_gpu = names[0].startswith("GPU")
    if config.strategy == "mirrored" or (config.strategy == "auto" and on_gpu and len(names) > 1):
        return mirrored(tuple(names))
    # The default strategy copies a batch to the GPU when a step asks for it, this one while the step before computes.
    return one_device(names[0]) if on_gpu else tf.distribute.get_strategy()


@functools.cache
def _multiworker() -> tf.distribute.MultiWorkerMirroredStrategy:
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        restore_signal_handlers()  # TensorFlow handles SIGTERM, as a notice for a mechanism that is not used here
        return strategy
    except (tf.errors.OpError, RuntimeError) as error:
        raise UserError(f"the cluster of TF_CONFIG cannot be joined: {str(error).splitlines()[0]}") from error


def _tpu(config: RuntimeConfig) -> tf.distribute.TPUStrategy:
    """Connect, initialize and create the strategy, in the order that TensorFlow documents."""
    name = config.tpu
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        rendezvous.wait_for_server(f"runtime.tpu={name!r}", _master(resolver), seconds=config.wait_seconds)
        with killed_after(config.wait_seconds, _lost(config, f"runtime.tpu={name!r}")):
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
    except UserError:
        raise
    except (tf.errors.OpError, ValueError, OSError) as error:
        raise UserError(f"runtime.tpu={name!r} cannot be reached: {str(error).splitlines()[0]}") from error
    return tf.distribute.TPUStrategy(resolver)


def _master(resolver: tf.distribute.cluster_resolver.TPUClusterResolver) -> str:
    """Return `host:port` of a TPU's server; empty for a local TPU."""
    return str(resolver.master()).removeprefix("grpc://")


def _lost(config: RuntimeConfig, name: str) -> str:
    return f"error: {name} was not joined within {counted(config.wait_seconds, 'second')} (runtime.wait_seconds)"


@functools.cache
def one_device(device: str) -> tf.distribute.OneDeviceStrategy:
    """Return the strategy for a single device, one per process."""
    return tf.distribute.OneDeviceStrategy(device)


@functools.cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Return the strategy for these devices, one per process: two would mix up their collective operations."""
    return tf.distribute.MirroredStrategy(devices)


def _devices() -> list[str]:
    """Return the names of the GPUs, or of the logical CPU devices without GPUs."""
    device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return [f"{device}:{index}" for index in range(len(tf.config.list_logical_devices(device)))]


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise UserError(
            f"runtime.logical_devices={count} must be set before TensorFlow computes anything in the process"
        ) from error
