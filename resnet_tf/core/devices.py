"""Memory and arithmetic of GPUs."""

import contextlib
import logging
from collections.abc import Callable, Iterator

import tensorflow as tf

from resnet_tf.core import processes
from resnet_tf.core.errors import UserError, plain_reason

logger = logging.getLogger(__name__)

# Environment of a new process that leaves GPUs and TPUs to this one, which holds their memory.
CPU_ONLY = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}


def grow_memory() -> None:
    """Let TensorFlow allocate memory of GPUs as needed instead of all of it, unless it has started already."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            logger.info("%s holds all of its memory: TensorFlow computed on it before", gpu.name)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 products in float32: by default GPUs round the factors to the 10 bits of TF32."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def default_type() -> str:
    """Return the type of the device that computes outside of a distribution strategy, GPU or CPU."""
    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"


def cpu_environment() -> dict[str, str]:
    """Return the environment of a new Python process that computes on the CPU."""
    return processes.environment() | CPU_ONLY


@contextlib.contextmanager
def translate_memory_errors(what: str, remedies: Callable[[], str]) -> Iterator[None]:
    """Raise a `UserError` if a device has not the memory of what is computed in the block.

    Args:
        what: what is computed, such as "a training step of data.batch_size=256".
        remedies: returns settings that need less.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(f"out of memory in {what}: {plain_reason(error)[:200]}; {remedies()}") from error


def memory_of_accelerator() -> tuple[str, int] | None:
    """Return name and bytes of memory of the GPU that has least; None without a GPU."""
    from tensorflow.python.client import device_lib  # the one interface that states it

    limits = [(each.memory_limit, each.name) for each in device_lib.list_local_devices() if each.device_type == "GPU"]
    if not limits:
        return None
    least, name = min(limits)
    return name.removeprefix("/device:"), least
