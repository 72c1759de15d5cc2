"""From a trained network to the files that others run."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from resnet_tf.config import Config, DataConfig, ExportConfig
from resnet_tf.core.errors import UserError, closest
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Split, open_source
from resnet_tf.data.unreadable import translate_read_errors
from resnet_tf.inputs import Preprocess, default_preprocess
from resnet_tf.model.builder import LOGITS_LAYER
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.serving import artifact, runners
from resnet_tf.serving.drift import Drift, check_drift, measure_drift
from resnet_tf.serving.signatures import DEFAULT_SIGNATURE, default_signatures, signature_names
from resnet_tf.serving.speed import measure_speed
from resnet_tf.serving.targets import litert, onnx, saved_model

logger = logging.getLogger(__name__)

# By target, the precisions that it can have; the first is what `auto` takes, which answers as the network does.
TARGETS = {
    "serving": ("float32", "bfloat16"),
    "hub": ("float32",),
    "hub_features": ("float32",),
    "litert": ("float32", "float16", "dynamic", "int8"),
    "keras": ("float32",),
    "onnx": ("float32",),
}

_BATCH = 16
_RANDOM = 32  # examples


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


@dataclass(frozen=True)
class _Subject:
    """What is exported, and what is known of it."""

    model: keras.Model
    preprocess: Preprocess
    labels: tuple[str, ...]
    settings: ExportConfig
    data: DataConfig | None
    weight_decay: float
    known: dict[str, Any]


def export_model(
    run_or_model: "Trained | keras.Model",
    directory: str | Path,
    *,
    target: str = "serving",
    precision: str = "auto",
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
    data: DataConfig | None = None,
    default_signature: str = DEFAULT_SIGNATURE,
) -> Path:
    """Write an export as the next version under `directory`; versions that are there stay as they are.

    Args:
        run_or_model: what `load_run` returned, a model of `create_model`, or another Keras model with its layer names.
        directory: where versions lie, `directory/1`, `directory/2`, ...
        target: `serving`, a SavedModel that is folded, frozen and fast (see `resnet_tf.serving.signatures`); `hub`, one
            that can be called and fine-tuned, and `hub_features`, the same without the class head; `litert`; `keras`;
            `onnx`.
        precision: for `serving`, `float32` or `bfloat16`, which is fast only where the processor computes in it; for
            `litert`, `float32`, `float16`, `dynamic` or `int8`; `auto` is `float32`, which answers as the network does.
        preprocess: for a bare model, how examples become its input; by default as its weights were trained
            (`model.preprocess`), or ImageNet's at the model's input size. Signals are left as they are.
        labels: for a bare model, the names of its classes; by default those of its weights, or numbers.
        data: pictures on which a change of the answers is measured, and which `int8` takes its ranges from; by default
            those of the run. For a bare model without, the change is measured on random ones.
        default_signature: `images` for consumers of a `serving` export that read `serving_default` alone and cannot
            decode.

    Returns:
        The directory of the new version.

    Raises:
        UserError: for an unknown target or precision, a model without a head, labels that do not match it, a directory
            that holds something else or cannot be written, or answers that change by more than
            `export.max_logit_drift` or lose more than `export.max_accuracy_drop`.
    """
    _check_choice("target", target, tuple(TARGETS))
    precisions = TARGETS[target]
    _check_choice("precision", precision, ("auto", *precisions))
    if default_signature != DEFAULT_SIGNATURE and target != "serving":
        raise UserError(f"a default signature can be chosen for target serving only, not for {target}")
    precision = precisions[0] if precision == "auto" else precision
    subject = _subject(run_or_model, preprocess, labels, data)
    _check_model(subject, target)
    _check_default_signature(subject, default_signature)
    metadata = {
        "model": subject.model.name,
        "target": target,
        "precision": precision,
        "parameters": subject.model.count_params(),
        "preprocess": subject.preprocess.to_dict(),
        "labels": [] if target == "hub_features" else list(subject.labels),
        **subject.known,
    }
    with artifact.new_version(Path(directory)) as (staging, final):
        _write(subject, staging, target, precision, default_signature)
        if target != "hub_features":
            runner = runners.load_runner(staging, target, subject.preprocess)
            if precision != "float32" or target in ("litert", "onnx"):
                drift = _measure(subject, runner)
                logger.info("%s %s: %s", target, precision, drift)
                metadata["drift"] = dataclasses.asdict(drift)
            metadata["speed"] = measure_speed(runner, subject.preprocess)
        (first, *_), *_ = signature_names(subject.preprocess, default_signature).values()
        artifact.write_metadata(staging, metadata, signature=first)
    return final


def _write(subject: _Subject, staging: Path, target: str, precision: str, default: str) -> None:
    model, preprocess, labels, top_k = subject.model, subject.preprocess, subject.labels, subject.settings.top_k
    if target == "serving":
        saved_model.write_serving(model, preprocess, labels, staging, precision=precision, top_k=top_k, default=default)
    elif target == "hub":
        saved_model.write_hub(model, preprocess, labels, staging, weight_decay=subject.weight_decay, top_k=top_k)
    elif target == "hub_features":
        saved_model.write_hub_features(model, preprocess, staging, weight_decay=subject.weight_decay)
    elif target == "litert":
        file, pictures = staging / runners.LITERT_FILE, _calibration(subject) if precision == "int8" else ()
        litert.write_litert(model, preprocess, file, precision=precision, pictures=pictures)
    elif target == "keras":
        known = dataclasses.replace(_metadata(model), preprocess=preprocess, labels=labels)
        ResidualNetwork(model.input, model.output, model.name, metadata=known).save(staging / runners.KERAS_FILE)
    else:
        onnx.write_onnx(model, preprocess, staging / runners.ONNX_FILE)


def _subject(
    run_or_model: "Trained | keras.Model",
    preprocess: Preprocess | None,
    labels: Sequence[str] | None,
    data: DataConfig | None,
) -> _Subject:
    if isinstance(run_or_model, keras.Model):
        model = run_or_model
        stored = _metadata(model)
        preprocess = preprocess or stored.preprocess or _default_preprocess(model)
        labels = labels or stored.labels or [str(index) for index in range(model.output_shape[-1])]
        return _Subject(model, preprocess, tuple(labels), ExportConfig(), data, 0.0, {})
    run = run_or_model
    known = {"metrics": run.metrics, "step": run.step, "config": run.config.to_dict()}
    return _Subject(
        model=run.model,
        preprocess=preprocess or run.preprocess,
        labels=tuple(labels or run.labels),
        settings=run.config.export,
        data=data or run.config.data,
        weight_decay=run.config.optimizer.weight_decay,
        known=known,
    )


def _metadata(model: keras.Model) -> Metadata:
    """Return the metadata of a model, empty for a Keras model that is not a `ResidualNetwork`."""
    return model.metadata if isinstance(model, ResidualNetwork) else Metadata()


def _measure(subject: _Subject, runner: runners.Runner) -> Drift:
    """Refuses what answers too differently from the network in float32."""
    batches, data = _batches(subject)
    drift = measure_drift(runners.keras_logits(subject.model, subject.preprocess), runner.logits, batches, data)
    settings = subject.settings
    check_drift(drift, max_logit_drift=settings.max_logit_drift, max_accuracy_drop=settings.max_accuracy_drop)
    return drift


def _batches(subject: _Subject) -> tuple[Iterator[tuple[np.ndarray, np.ndarray | None]], str]:
    """Examples to measure on, with their classes if they are known, and in words where they are from."""
    if subject.data is None:
        noise = (
            np.random.default_rng(0).uniform(size=(_RANDOM, *subject.preprocess.unnormalized_shape)).astype(np.float32)
        )
        return ((noise[at : at + _BATCH], None) for at in range(0, _RANDOM, _BATCH)), "random"
    split = open_source(subject.data).validation
    places = _evenly(split.num_examples, subject.settings.drift_examples)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for at in range(0, len(places), _BATCH):
            chosen = places[at : at + _BATCH]
            yield _load(split, subject.preprocess, chosen), split.labels[chosen]

    return batches(), f"split {split.name!r}"


def _calibration(subject: _Subject) -> Iterator[np.ndarray]:
    """Training examples, one at a time: float32 [1, H, W, 3], or signals [1, L, C]."""
    if subject.data is None:
        raise UserError("precision int8 takes its ranges from examples: give data=DataConfig(source=...)")
    split = open_source(subject.data).train
    for place in _evenly(split.num_examples, subject.settings.calibration_examples):
        yield _load(split, subject.preprocess, [place])


def _load(split: Split, preprocess: Preprocess, places: list[int]) -> np.ndarray:
    with translate_read_errors(split, preprocess):  # not what keeps an export from being written
        return np.stack(pipeline.load_examples(split, preprocess, places))


def _evenly(total: int, count: int) -> list[int]:
    """`count` places, evenly over all: files often lie in the order of their classes."""
    return np.linspace(0, total - 1, min(count, total)).astype(int).tolist()


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"unknown {what} {value!r}; did you mean {closest(value, choices)}?")


def _check_model(subject: _Subject, target: str) -> None:
    model, preprocess, labels = subject.model, subject.preprocess, subject.labels
    expected, given = model.input_shape[1:], preprocess.input_shape
    if len(expected) != len(given) or any(
        size not in (None, wanted) for size, wanted in zip(expected, given, strict=True)
    ):
        raise UserError(f"preprocess gives {given}, but {model.name} takes {expected}")
    if target == "hub_features":
        return
    if model.layers[-1].name != LOGITS_LAYER:
        raise UserError(
            f"{model.name} has no class head: create it with num_classes above 0, or export it as hub_features"
        )
    classes = model.output_shape[-1]
    if len(labels) != classes:
        raise UserError(f"{len(labels)} labels for the {classes} classes of {model.name}")


def _check_default_signature(subject: _Subject, name: str) -> None:
    choices = default_signatures(subject.preprocess)
    if name not in choices and len(choices) == 1:
        plural = subject.preprocess.plural
        raise UserError(f"{subject.model.name} takes {plural}, which are not decoded: it has one default signature")
    _check_choice("default signature", name, choices)


def _default_preprocess(model: keras.Model) -> Preprocess:
    if preprocess := default_preprocess(model.input_shape[1:]):
        return preprocess
    raise UserError(
        f"{model.name} takes {model.input_shape[1:]}; give preprocess=ImagePreprocess(...) or SignalPreprocess(...)"
    )
