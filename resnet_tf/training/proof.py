"""Record by which a run can be proved: its environment, and hashes of its variables at every checkpoint."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

import tensorflow as tf

from resnet_tf.core import files, machine
from resnet_tf.model.weights.values import hash_arrays

logger = logging.getLogger(__name__)

ENVIRONMENT = "environment.jsonl"
HASHES = "hashes.jsonl"
# Prefixes of environment variables that change how TensorFlow, oneDNN, XLA or OpenMP compute. Other programs have
# variables with `TF_` and `NVIDIA_` too, among them credentials: TF_TOKEN_* and TF_VAR_* of Terraform, NVIDIA_API_KEY.
_VARIABLES = (
    *("TF_CONFIG", "TF_CPP_", "TF_CPU_", "TF_NUM_", "TF_GPU_", "TF_CUDA_", "TF_CUDNN_", "TF_CUBLAS_", "TF_CUFFT_"),
    *("TF_ENABLE_", "TF_DISABLE_", "TF_FORCE_", "TF_USE_", "TF_OVERRIDE_", "TF_DETERMINISTIC_", "TF_AUTOTUNE_"),
    *("TF_XLA_", "TF_JIT_", "TF_FUNCTION_", "TF_ONEDNN_", "TF_SET_ONEDNN_", "TF_MKL_", "TF_AUTO_MIXED_PRECISION_"),
    *("TF_CONV2D_", "TF_FP16_", "TF_MATMUL_", "TF_DATA_EXPERIMENT_"),
    *("ONEDNN_", "DNNL_", "XLA_", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "CUDA_"),
    *("NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES"),
)
_SHARED = ("TF_", "NVIDIA_")  # with other programs
# Extensions of processors that kernels are chosen by.
_FLAGS = ("sse", "avx", "fma", "f16c", "amx", "neon", "asimd", "sve", "bf16")


class Start(TypedDict):
    """Line of `environment.jsonl`, one for each start of the run.

    Attributes:
        step: training step at which the process started.
        environment: versions, hardware and variables, see `describe_environment`.
    """

    step: int
    environment: dict[str, str]


class Hash(TypedDict):
    """Line of `hashes.jsonl`, one for each checkpoint.

    Attributes:
        step: training step of the checkpoint.
        sha256: hash of all variables of model, optimizer and average.
    """

    step: int
    sha256: str


def describe_environment() -> dict[str, str]:
    """Return everything that the bits of a result depend on besides configuration and data, by name."""
    flags = sorted(flag for flag in machine.cpu_flags() if flag.startswith(_FLAGS))
    variables = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    return machine.describe() | {"CPU flags": " ".join(flags)} | dict(sorted(variables.items()))


def write_environment(workdir: Path, step: int) -> None:
    """Add this start of a run to `environment.jsonl`.

    Raises:
        UserError: if it cannot be written.
    """
    path = workdir / ENVIRONMENT
    with files.translate_write_errors(path):
        files.append_json_lines(path, [Start(step=step, environment=describe_environment())])


def read_environment(workdir: Path) -> list[Start]:
    """Return the starts of a run; empty for a run of an earlier version.

    Variables of other programs, which earlier versions stored too, are left out: they may be credentials.

    Raises:
        UserError: if the file cannot be read.
    """
    starts = cast(list[Start], files.read_json_lines(workdir / ENVIRONMENT, Start))
    for start in starts:
        named = start["environment"].items()
        start["environment"] = {
            name: value for name, value in named if name.startswith(_VARIABLES) or not name.startswith(_SHARED)
        }
    return starts


def write_hash(workdir: Path, step: int, parts: Mapping[str, Mapping[str, tf.Variable]]) -> None:
    """Add the hash of the variables at a step to `hashes.jsonl`; lines of later steps, left by a kill, are dropped.

    Args:
        workdir: the run directory.
        step: training step.
        parts: groups of variables by name, see `training.checkpoint.Parts`.

    Raises:
        UserError: if it cannot be written.
    """
    digest = hash_arrays(
        (f"{group}/{name}", variable.numpy())
        for group, variables in sorted(parts.items())
        for name, variable in sorted(variables.items())
    )
    path = workdir / HASHES
    lines, corrupt = files.split_json_lines(path, Hash)
    for each in corrupt:
        logger.warning("%s; the line is removed", each)
    kept = [line for line in lines if line["step"] < step]
    with files.translate_write_errors(path):
        files.write_json_lines(path, [*kept, Hash(step=step, sha256=digest)])


def read_hashes(workdir: Path) -> list[Hash]:
    """Return the hashes of a run in the order of the steps; empty for a run of an earlier version.

    Raises:
        UserError: if the file cannot be read.
    """
    return cast(list[Hash], files.read_json_lines(workdir / HASHES, Hash))
