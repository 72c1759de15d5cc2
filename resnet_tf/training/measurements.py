"""Measurements of a run that are stored in its directory for reports and exports: robustness, and speed of exports."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from resnet_tf.core import files
from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.robustness import Robustness
from resnet_tf.core.serving_benchmark import ServingBenchmark

logger = logging.getLogger(__name__)

_Measurement = TypeVar("_Measurement", Robustness, ServingBenchmark)

_FILES = {Robustness: "robustness.json", ServingBenchmark: "serving.json"}


def write_measurement(workdir: Path, step: int, measurement: Robustness | ServingBenchmark) -> None:
    """Store a measurement of the weights after a training step, in place of an earlier one of the same type.

    Raises:
        UserError: if its file in the run directory cannot be written.
    """
    path = workdir / _FILES[type(measurement)]
    text = files.to_json({"step": step, **measurement.to_dict()}, indent=2) + "\n"
    with files.translate_write_errors(path):
        files.write_atomically(path, text)


@contextlib.contextmanager
def warning_if_unwritable(what: str) -> Iterator[None]:
    """Log that something is not stored in a run directory, such as one of somebody else, where the block cannot write.

    Args:
        what: plural that the message begins with.
    """
    try:
        yield
    except UserError as error:
        logger.warning("%s are not stored in the run: %s", what, error)


def read_measurement(workdir: Path, step: int, measured: type[_Measurement]) -> _Measurement | None:
    """Return the stored measurement of the weights after a training step; None if none is stored for it.

    Raises:
        UserError: if its file in the run directory is corrupt.
    """
    path = workdir / _FILES[measured]
    if not path.is_file():
        return None
    stored = files.read_json(path)
    with prefix_errors(f"{str(path)!r} is invalid; delete it to measure again"):
        if not isinstance(stored.get("step"), int):
            raise UserError("it has no step")
        measurement = measured.from_dict(stored)
    return measurement if stored["step"] == step else None
