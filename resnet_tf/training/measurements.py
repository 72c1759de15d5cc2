"""Measurements of a run that are stored in its directory for reports and exports: robustness, and speed of exports."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from resnet_tf.core import files
from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.robustness import Robustness
from resnet_tf.core.serving_benchmark import ServingBenchmark

logger = logging.getLogger(__name__)

_Measurement = TypeVar("_Measurement", Robustness, ServingBenchmark)

_FILES = {Robustness: "robustness.json", ServingBenchmark: "serving.json"}


def write_measurement(workdir: Path, identity: Mapping[str, Any], measurement: Robustness | ServingBenchmark) -> None:
    """Store a measurement of weights, in place of an earlier one of the same type.

    Args:
        workdir: the run directory.
        identity: see `Run.identity`.
        measurement: the measurement.

    Raises:
        UserError: if its file in the run directory cannot be written.
    """
    path = workdir / _FILES[type(measurement)]
    text = files.to_json({**identity, **measurement.to_dict()}, indent=2) + "\n"
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


def read_measurement(workdir: Path, identity: Mapping[str, Any], measured: type[_Measurement]) -> _Measurement | None:
    """Return the stored measurement of weights; None if none is stored for them.

    Args:
        workdir: the run directory.
        identity: see `Run.identity`.
        measured: type of the measurement.

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
    return measurement if identity.items() <= stored.items() else None
