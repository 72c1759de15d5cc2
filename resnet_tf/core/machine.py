"""Versions and hardware of this process, stored with its results."""

import os
import platform
from pathlib import Path

from resnet_tf.core.version import __version__


def versions() -> dict[str, str]:
    """Return the versions that results depend on, by the name of the package."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {
        "resnet_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def describe() -> dict[str, str]:
    """Return the versions, the system and the devices, by name."""
    import tensorflow as tf

    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return {
        **versions(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": str(cores()),
        "GPUs": ", ".join(each.get("device_name", "unknown") for each in gpus) or "none",
    }


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the model of the CPU that Linux reports; elsewhere its architecture."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the instruction-set extensions that Linux reports, such as `amx_bf16`; elsewhere an empty set."""
    return set(_cpu_info("flags").split())


def bfloat16_flags() -> set[str]:
    """Return the instruction-set extensions of the CPU that compute in bfloat16; without one, bfloat16 is slow."""
    return cpu_flags() & {"avx512_bf16", "amx_bf16"}


def resident_memory(*, peak: bool = False) -> float | None:
    """Return the resident memory of this process in MB, or its peak, as Linux reports it; elsewhere None."""
    kib = _field("/proc/self/status", "VmHWM" if peak else "VmRSS").removesuffix(" kB")
    return int(kib) * 1024 / 1e6 if kib else None


def _cpu_info(field: str) -> str:
    """Return a field of the first core in `/proc/cpuinfo`, empty where there is none."""
    return _field("/proc/cpuinfo", field)


def _field(path: str, field: str) -> str:
    """Return the first field of a name in a file of lines `name: value`; empty without the file or the field."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    values = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field)
    return next(values, "")
