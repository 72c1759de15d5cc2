"""What runs this process: versions and hardware, for whoever reads its results."""

import os
import platform
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from resnet_tf import __version__


def versions() -> dict[str, str]:
    """Of what a result may depend on, by name."""
    return {
        "resnet_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def describe() -> dict[str, str]:
    """The versions, the system, and what it computes on."""
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return {
        **versions(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": str(cores()),
        "GPUs": ", ".join(each.get("device_name", "unknown") for each in gpus) or "none",
    }


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Its model, as Linux tells it, or its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
