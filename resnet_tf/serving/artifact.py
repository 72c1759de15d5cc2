"""The exported directory: what lies in it, how it is written, and how its place is found."""

import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf

from resnet_tf import __version__
from resnet_tf.config import Config, ExportConfig
from resnet_tf.errors import UserError, closest, plain_reason
from resnet_tf.model.resnet import LOGITS_LAYER
from resnet_tf.serving import signatures
from resnet_tf.spec import Preprocess

TARGETS = ("serving",)
PRECISIONS = ("auto", "float32")
METADATA = Path("assets.extra") / "resnet_tf.json"


class Trained(Protocol):
    """What an export needs of a run; `load_run` returns one."""

    @property
    def config(self) -> Config: ...
    @property
    def step(self) -> int: ...
    @property
    def model(self) -> keras.Model: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def metrics(self) -> dict[str, Any]: ...


def export_model(
    run_or_model: "Trained | keras.Model",
    directory: str | Path,
    *,
    target: str = "serving",
    precision: str = "auto",
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write a SavedModel as the next version under `directory`.

    The version is written beside its place and renamed once it is whole, so that a server which watches `directory`
    never sees half of it; versions that are there stay as they are.

    Args:
        run_or_model: what `load_run` returned, or a model of `create_model` with its class head.
        directory: where versions lie, `directory/1`, `directory/2`, ...
        target: `serving`; see `resnet_tf.serving.signatures` for the signatures.
        precision: `float32`, which is also what `auto` takes.
        preprocess: for a bare model, how pictures become its input; by default as its weights were trained
            (`model.preprocess`), or ImageNet's at the model's input size.
        labels: for a bare model, the names of its classes; by default those of its weights, or numbers.

    Returns:
        The directory of the new version.

    Raises:
        UserError: for an unknown target or precision, a model without a head, labels that do not match it, or a
            directory that holds something else or cannot be written.
    """
    _check_choice("target", target, TARGETS)
    _check_choice("precision", precision, PRECISIONS)
    if isinstance(run_or_model, keras.Model):
        model, settings, extra = run_or_model, ExportConfig(), {}
        preprocess = preprocess or getattr(model, "preprocess", None) or _default_preprocess(model)
        labels = labels or getattr(model, "labels", None) or [str(index) for index in range(model.output_shape[-1])]
    else:
        model, settings = run_or_model.model, run_or_model.config.export
        preprocess, labels = preprocess or run_or_model.preprocess, labels or run_or_model.labels
        config = asdict(run_or_model.config)
        extra = {"metrics": run_or_model.metrics, "step": run_or_model.step, "config": config}
    _check_model(model, preprocess, labels)
    holder, doors = signatures.add_signatures(model, preprocess, labels, top_k=settings.top_k)
    metadata = {
        "model": model.name,
        "target": target,
        "precision": "float32",
        "parameters": model.count_params(),
        "preprocess": preprocess.to_dict(),
        "labels": list(labels),
        **extra,
        "versions": _versions(),
    }
    return _write(Path(directory), holder, doors, metadata)


def find_export(path: str | Path) -> Path:
    """The SavedModel at `path`, or the newest version under it.

    Raises:
        UserError: if there is none, or one that this package did not write.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"no exported model at {str(path)!r}")
    versions = list_versions(path)
    found = path / str(versions[-1]) if versions else path
    for part in ("saved_model.pb", "variables/variables.index", METADATA):
        if not (found / part).is_file():
            raise UserError(f"{str(found)!r} is not a model exported by resnet_tf: {str(part)!r} is missing")
    return found


def find_export_of_step(directory: Path, step: int) -> Path | None:
    """The newest version under `directory`, if it was exported at this step of its run."""
    if not list_versions(directory):
        return None
    newest = find_export(directory)
    return newest if read_metadata(newest).get("step") == step else None


def list_versions(directory: Path) -> list[int]:
    """Version numbers under a directory, in order."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit() and path.is_dir())


def read_metadata(export: Path) -> dict[str, Any]:
    """What `export_model` wrote beside the graph."""
    try:
        return json.loads((export / METADATA).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{str(export / METADATA)!r} is damaged: {error}") from error


def load_saved_model(export: Path) -> Any:
    """The SavedModel's object, with `.signatures`.

    Raises:
        UserError: if TensorFlow cannot read it.
    """
    try:
        return tf.saved_model.load(str(export))
    except (OSError, ValueError, KeyError, IndexError, tf.errors.OpError) as error:
        raise UserError(f"{str(export)!r} cannot be loaded: {error}") from error


def _write(directory: Path, holder: Any, doors: dict[str, Any], metadata: dict[str, Any]) -> Path:
    strangers = [path.name for path in directory.glob("*") if not path.name.split(".")[0].isdigit()]
    if strangers or directory.is_file():
        raise UserError(
            f"{str(directory)!r} holds something else ({', '.join(strangers) or 'it is a file'}); "
            "exports need a directory of their own"
        )
    final = directory / str((list_versions(directory) or [0])[-1] + 1)
    staging = directory / f"{final.name}.writing"  # not a number: TensorFlow Serving passes it over
    try:
        shutil.rmtree(staging, ignore_errors=True)
        (staging / METADATA).parent.mkdir(parents=True)
        tf.saved_model.save(holder, str(staging), signatures=doors)
        (staging / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
        staging.rename(final)
    except (OSError, tf.errors.OpError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise UserError(f"cannot write to {str(directory)!r}: {plain_reason(error)}") from error
    return final


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"unknown {what} {value!r}; did you mean {closest(value, choices)}?")


def _check_model(model: keras.Model, spec: Preprocess, labels: Sequence[str]) -> None:
    if model.layers[-1].name != LOGITS_LAYER:
        raise UserError(f"{model.name} has no class head: create it with num_classes above 0 to export it")
    classes = model.output_shape[-1]
    if len(labels) != classes:
        raise UserError(f"{len(labels)} labels for the {classes} classes of {model.name}")
    expected, given = model.input_shape[1:], (*spec.size, spec.channels)
    if any(size not in (None, wanted) for size, wanted in zip(expected, given, strict=True)):
        raise UserError(f"preprocess gives {given}, but {model.name} takes {expected}")


def _default_preprocess(model: keras.Model) -> Preprocess:
    height, width, channels = model.input_shape[1:]
    if channels != 3 or height is None or width is None:
        raise UserError(
            f"{model.name} takes {model.input_shape[1:]}: say with preprocess=Preprocess(...) what to feed it"
        )
    return Preprocess(size=(height, width))


def _versions() -> dict[str, str]:
    return {
        "resnet_tf": __version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
