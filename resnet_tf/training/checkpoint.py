"""Checkpoints: one directory a step, written beside its place and renamed once it is whole."""

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from resnet_tf.errors import UserError

_STATE = "state"
_METADATA = "metadata.json"


def save(
    directory: Path,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    step: int,
    metadata: dict[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of a step, then drop the oldest beyond `keep`."""
    final = directory / f"{step:08d}"
    staging = directory / f"{final.name}.writing"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    tf.train.Checkpoint(model=_values(model), optimizer=_values(optimizer)).write(str(staging / _STATE))
    (staging / _METADATA).write_text(json.dumps({"step": step, **metadata}, indent=2) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    staging.rename(final)
    for old in steps(directory)[:-keep]:
        shutil.rmtree(directory / f"{old:08d}")
    return final


def steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints, in order."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit())


def latest(directory: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    present = steps(directory)
    return directory / f"{present[-1]:08d}" if present else None


def read_metadata(checkpoint: Path) -> dict[str, Any]:
    """What `save` was given, and the step."""
    try:
        return json.loads((checkpoint / _METADATA).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {str(checkpoint)!r} is damaged: {error}") from error


def restore(checkpoint: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None) -> None:
    """Load the model's variables and, if given, the built optimizer's. Everything must be there."""
    parts = {"model": _values(model)} | ({"optimizer": _values(optimizer)} if optimizer else {})
    reader = tf.train.Checkpoint(**parts)
    try:
        status = reader.read(str(checkpoint / _STATE))
        status.assert_existing_objects_matched()
        if optimizer:
            status.assert_consumed()
        else:
            status.expect_partial()
    except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
        raise UserError(f"checkpoint {str(checkpoint)!r} is damaged or of another network: {error}") from error


def _values(owner: keras.Model | keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Variables by their path, such as `stage1_block1_conv1/kernel`: Keras 3's own are not seen by tf.train."""
    values = {variable.path: variable.value for variable in owner.variables}
    assert len(values) == len(owner.variables), "two variables share a path"
    return values
