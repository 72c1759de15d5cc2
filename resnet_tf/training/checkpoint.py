"""Checkpoints: one directory for each step, written atomically, with a manifest that is verified on reading."""

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import keras
import tensorflow as tf

from resnet_tf.core import files, selection
from resnet_tf.core.calibration import CalibrationFields
from resnet_tf.core.errors import UserError, prefix_errors, write_failure
from resnet_tf.core.paths import literal_path
from resnet_tf.core.selection import AUTO
from resnet_tf.core.validation import check_types
from resnet_tf.data.sources.base import DataIdentity

logger = logging.getLogger(__name__)

# Groups of variables by name, such as "model", each with its variables by their path.
Parts = Mapping[str, Mapping[str, tf.Variable]]

_STATE = "state"
_METADATA = Path("metadata.json")
_MANIFEST = Path("sha256.json")
_DIGITS = 8  # of the step in the name of a checkpoint, which is filled up with zeros


class CheckpointMetadata(TypedDict):
    """Content of `metadata.json`.

    Attributes:
        step: training step.
        run: see `RunState.to_dict`.
        preprocess: see `Preprocess.to_dict`.
        data: identity of the data.
        metrics: metrics of an evaluation at this step; None without one.
        thresholds: probability from which on each class is selected, [C]; None or absent for single-label targets.
        calibration: see `Calibration.to_dict`; None or absent without one.
    """

    step: int
    run: dict[str, float | bool]
    preprocess: dict[str, Any]
    data: DataIdentity
    metrics: dict[str, float | None] | None
    thresholds: NotRequired[list[float] | None]
    calibration: NotRequired[CalibrationFields | None]


def save(directory: Path, parts: Parts, metadata: CheckpointMetadata, *, keep: int, metric: str = AUTO) -> Path:
    """Write the checkpoint of a step, then remove the oldest beyond `keep`; the best by `train.metric` stays.

    Checkpoints of later steps are removed as well: `latest` skipped them as corrupt when the run continued before them.

    Raises:
        UserError: if it cannot be written. Nothing that was there before is changed then.
    """
    step = metadata["step"]
    final = path_of(directory, step)
    try:
        with files.atomic_directory(final, replace=True) as staging:
            _write(staging, parts, metadata)
    except (OSError, tf.errors.OpError) as error:
        intact = (each for each in reversed(steps(directory)) if not find_corruption(path_of(directory, each)))
        newest = next(intact, None)
        kept = "there is no earlier one" if newest is None else f"that of step {newest} is intact"
        raise UserError(f"the checkpoint of step {step} cannot be written: {write_failure(error)}; {kept}") from error
    for skipped in [each for each in steps(directory) if each > step]:
        files.remove_directory(path_of(directory, skipped))
    for old in _superfluous(directory, keep, metric):
        files.remove_directory(path_of(directory, old))
    return final


def steps(directory: Path) -> list[int]:
    """Return the steps of the completely written checkpoints, in order."""
    return list(files.list_numbered(directory, digits=_DIGITS))


def latest(directory: Path) -> Path | None:
    """Return the newest checkpoint that is intact, None if there is none at all; corrupt ones are named in the log.

    Raises:
        UserError: if there are checkpoints, but all are corrupt.
    """
    found: list[str] = []
    for checkpoint in [path_of(directory, step) for step in reversed(steps(directory))]:
        corruption = find_corruption(checkpoint)
        if not corruption:
            return checkpoint
        if not checkpoint.exists():  # the run goes on, and removed it in the meantime
            return latest(directory)
        found.append(corruption)
        logger.warning("%s; using the checkpoint before it", corruption)
    if found:
        raise UserError(
            f"no checkpoint under {str(directory)!r} is intact: {'; '.join(found)}; restore one from a copy, or delete "
            "this directory to train the run from its beginning"
        )
    return None


def best(directory: Path, metric: str = AUTO) -> Path | None:
    """Return the intact checkpoint with the best `train.metric`; without evaluations, the newest one.

    Raises:
        UserError: if there are checkpoints, but all are corrupt.
    """
    newest = latest(directory)
    scores = _scores(directory, metric)
    while scores:
        step = _best_step(scores)
        checkpoint = path_of(directory, step)
        if not (corruption := find_corruption(checkpoint)):
            return checkpoint
        if not checkpoint.exists():  # the run goes on, and removed it in the meantime
            return best(directory, metric)
        logger.warning("%s; using the best of the others", corruption)
        del scores[step]
    return newest


def find_corruption(checkpoint: Path) -> str:
    """Describe the first file of a checkpoint that is missing or differs from its manifest; empty if none does."""
    corruption = files.find_corruption(checkpoint, _MANIFEST, needed=_METADATA)
    return corruption and f"checkpoint {str(checkpoint)!r} is corrupt: {corruption}"


def read_metadata(checkpoint: Path) -> CheckpointMetadata:
    """Return the metadata of a checkpoint.

    Raises:
        UserError: if they cannot be read, or a field is missing or not of its type.
    """
    content: Any = files.read_json(checkpoint / _METADATA)
    with naming_metadata(checkpoint):
        check_types(content, CheckpointMetadata)
        if content["step"] != int(checkpoint.name):
            raise UserError(f"it is of step {content['step']}")
        if not content["data"]["class_names"]:
            raise UserError("data.class_names is empty")
    return content


def naming_metadata(checkpoint: Path) -> contextlib.AbstractContextManager[None]:
    """Prefix a `UserError` of the block, which parses a part of the metadata, with the path of their file."""
    return prefix_errors(f"{str(checkpoint / _METADATA)!r} is invalid")


def restore(checkpoint: Path, parts: Parts, *, partly: bool = False, optional: str = "") -> None:
    """Load variables from a checkpoint that has exactly these variables, or others too if `partly`.

    Args:
        checkpoint: directory of the checkpoint.
        parts: the variables.
        partly: whether the checkpoint may have other variables.
        optional: first part of the path of variables that may all be absent from the checkpoint, where they keep their
            values, or from `parts`.

    Raises:
        UserError: if the checkpoint is corrupt or does not have these variables.
    """
    try:
        with literal_path(checkpoint) as path:
            if optional:
                parts = _with_optional(parts, str(path / _STATE), optional)
            reader = tf.train.Checkpoint(**parts)
            status = reader.read(str(path / _STATE))
            status.assert_existing_objects_matched()
            if partly:
                status.expect_partial()
            else:
                status.assert_consumed()
    except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
        raise UserError(f"checkpoint {str(checkpoint)!r} is corrupt or of another network: {error}") from error


def variables_of(owner: keras.Model | keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """Return path -> variable, such as `stage1_block1_conv1/kernel`; tf.train does not track Keras 3 variables.

    Variables of random generators, which Keras numbers per process, have the name of their layer, and a variable
    without a name (of Nadam) has no number. Variables of one path (of Adafactor) are numbered here, in their order.
    """
    layers = {
        id(variable): f"{layer.name}/{variable.name}"
        for layer in getattr(owner, "layers", ())
        for variable in layer.variables
    }
    values: dict[str, tf.Variable] = {}
    occurrences: Counter[str] = Counter()
    for variable in owner.variables:
        path = layers.get(id(variable)) or re.sub(r"^variable_\d+$", "variable", variable.path)
        number = occurrences[path]
        occurrences[path] += 1
        values[f"{path}_{number}" if number else path] = variable.value
    assert len(values) == len(owner.variables), "two variables have the same path"
    return values


def _with_optional(parts: Parts, state: str, optional: str) -> Parts:
    """Return the variables with those optional ones that a checkpoint has, see `restore`."""
    stored = tf.train.load_checkpoint(state)
    found: dict[str, dict[str, tf.Variable]] = {}
    for part, variables in parts.items():
        # Keys of TensorFlow, which writes `.S` for a slash in a name.
        prefix, suffix = f"{part}/{optional}.S", "/.ATTRIBUTES/VARIABLE_VALUE"
        keys = [key for key in stored.get_variable_to_shape_map() if key.startswith(prefix)]
        own = {name for name in variables if name.startswith(f"{optional}/")}
        found[part] = dict(variables)
        if keys and not own:
            logger.info("%s of the checkpoint is dropped: this precision has none", optional)
            names = [f"{optional}/{key.removeprefix(prefix).removesuffix(suffix)}" for key in keys]
            found[part] |= {name: tf.Variable(stored.get_tensor(key)) for name, key in zip(names, keys, strict=True)}
        elif own and not keys:
            logger.info("%s starts anew: the checkpoint has none", optional)
            found[part] = {name: each for name, each in variables.items() if name not in own}
    return found


def path_of(directory: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return directory / f"{step:0{_DIGITS}d}"


def _write(staging: Path, parts: Parts, metadata: CheckpointMetadata) -> None:
    tf.train.Checkpoint(**parts).write(str(staging / _STATE))
    (staging / _METADATA).write_text(files.to_json(metadata, indent=2) + "\n", encoding="utf-8")
    # The manifest describes the files as they read back: this checkpoint is readable before an older one is removed.
    files.write_manifest(staging, _MANIFEST)


def _superfluous(directory: Path, keep: int, metric: str) -> list[int]:
    scores = _scores(directory, metric)
    best_step = _best_step(scores) if scores else None
    return [step for step in steps(directory)[:-keep] if step != best_step]


def _scores(directory: Path, metric: str) -> dict[int, float]:
    """Return the score of each checkpoint with an evaluation, by step."""
    found = {step: _score(path_of(directory, step), metric) for step in steps(directory)}
    return {step: score for step, score in found.items() if score is not None}


def _best_step(scores: dict[int, float]) -> int:
    """Return the step with the highest score, the first of several."""
    return max(scores, key=lambda step: (scores[step], -step))


def _score(checkpoint: Path, metric: str) -> float | None:
    """Return the score of an evaluation at that step; None without one."""
    with contextlib.suppress(UserError):  # a corrupt one is not the best
        return selection.score(metric, read_metadata(checkpoint)["metrics"])
    return None
