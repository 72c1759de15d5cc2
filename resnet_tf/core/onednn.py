"""oneDNN's kernels in TensorFlow on all x86 processors; by default, TensorFlow uses them on the newest only."""

import os
import platform
import sys

from resnet_tf.core import machine

_VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
# TensorFlow 2.21 turns oneDNN on by itself where Linux reports one of these (`DefaultOneDnnPolicy`).
_FLAGS_OF_DEFAULT = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}
_state = {"advice": ""}


def turn_on() -> None:
    """Set the variable that TensorFlow reads at its import, unless it is set.

    Without these flags, TensorFlow computes convolutions with Eigen by default: on two cores with AVX2, a ResNet-50
    trains 2.7 images/s, and 4.1 with oneDNN. After an import of TensorFlow the variable has no effect on this process;
    then it states what is in effect, so that new processes compute the same bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or _VARIABLE in os.environ:
        return
    if "tensorflow" not in sys.modules:
        os.environ[_VARIABLE] = "1"
    elif not machine.cpu_flags() & _FLAGS_OF_DEFAULT:
        os.environ[_VARIABLE] = "0"
        _state["advice"] = (
            "TensorFlow was imported before resnet_tf, and so without oneDNN, which this processor needs for fast "
            f"convolutions: import resnet_tf before keras and tensorflow, or set {_VARIABLE}=1"
        )


def advice() -> str:
    """Return what to change if TensorFlow computes without oneDNN because it was imported first, otherwise nothing."""
    return _state["advice"]
