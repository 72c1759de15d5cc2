"""Export a trained network to SavedModel, LiteRT, ONNX, OpenVINO or Keras files."""

import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from resnet_tf.config import Config, DataConfig, ExportConfig
from resnet_tf.core import files
from resnet_tf.core.calibration import Calibration
from resnet_tf.core.class_names import find_duplicate, to_names
from resnet_tf.core.errors import UserError, closest
from resnet_tf.core.export_metadata import SAVED_MODELS, read_export
from resnet_tf.core.paths import check_writable_by_tensorflow, user_path
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.ranges import shorten
from resnet_tf.core.robustness import Robustness
from resnet_tf.core.targets import check_thresholds, targets_with
from resnet_tf.core.text import counted
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source, Split, match_classes, open_source
from resnet_tf.data.unreadable import translate_read_errors
from resnet_tf.inputs import Preprocess
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.weights.values import check_model, find_precision, hash_weights
from resnet_tf.serving import artifact, runners
from resnet_tf.serving.canonical import canonical_model
from resnet_tf.serving.drift import Drift, check_drift, measure_drift
from resnet_tf.serving.fold import fold
from resnet_tf.serving.provenance import complete_metadata, stored_metadata
from resnet_tf.serving.signatures import DEFAULT_SIGNATURE, default_signatures, signature_names
from resnet_tf.serving.speed import measure_speed
from resnet_tf.serving.targets import litert, onnx, openvino, saved_model

logger = logging.getLogger(__name__)

# Precisions of each target. `auto` selects the first one, or that of the network for targets that keep its layers.
TARGETS = {
    "serving": ("float32", "bfloat16"),
    "hub": ("float32",),
    "hub_features": ("float32",),
    "litert": ("float32", "float16", "dynamic", "int8"),
    "keras": ("float32",),
    "onnx": ("float32",),
    "openvino": ("float32", "bfloat16", "int8"),
}

_UNCHANGED = ("hub", "hub_features", "keras")
_CONVERTED = ("litert", "onnx", "openvino")  # to the format of another library
# Metadata of a run's export that decide its answers; so does `export.top_k`.
_DECISIVE = ("target", "precision", "preprocess", "labels", "thresholds", "calibration", "step", "weights_sha256")

_BATCH_SIZE = 16
_RANDOM_EXAMPLES = 32


class TrainedRun(Protocol):
    """Attributes of a training run that an export reads; `load_run` returns such an object."""

    @property
    def config(self) -> Config:
        """Configuration of the run."""

    @property
    def step(self) -> int:
        """Training step of the checkpoint."""

    @property
    def stopped_epoch(self) -> int:
        """Epoch after which the run ended early; 0 if it did not."""

    @property
    def model(self) -> keras.Model:
        """The trained network."""

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of an example."""

    @property
    def labels(self) -> Sequence[str]:
        """Class names in the order of the logits."""

    @property
    def data_classes(self) -> tuple[str, ...]:
        """Class names of the training data in the order of the logits."""

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics on the validation split."""

    @property
    def robustness(self) -> Robustness | None:
        """Metrics on corrupted images of the validation split; None if they were not measured."""


@dataclass(frozen=True)
class _Exportable:
    """A network with the settings and the metadata of its export.

    Attributes:
        model: the network as `canonical_model` returns it.
        origin: architecture, preprocessing and labels.
        settings: the `export` group of the configuration.
        data: data source for drift and calibration, or None.
        data_classes: class names of the training data of a run, which `labels` may rename; empty for a bare model.
        weight_decay: coefficient of the regularization losses of `hub` exports.
        metadata: `metrics`, `step` and `config` of a training run; empty for a bare model.
    """

    model: keras.Model
    origin: Metadata
    settings: ExportConfig
    data: DataConfig | None
    data_classes: tuple[str, ...]
    weight_decay: float
    metadata: dict[str, Any]

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of an example."""
        assert self.origin.preprocess
        return self.origin.preprocess

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty for features without them."""
        return self.origin.labels or ()

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Probability from which on each class of a multi-label network is selected; otherwise None."""
        return self.origin.thresholds

    @property
    def calibration(self) -> Calibration:
        """Map from logits to probabilities."""
        return self.origin.calibration

    def with_answers(self, thresholds: Sequence[float] | None, calibration: Calibration | None) -> "_Exportable":
        """Return a copy with other thresholds and another calibration, as far as they are given."""
        changes: dict[str, Any] = {}
        if thresholds is not None:
            changes["thresholds"] = check_thresholds(thresholds, len(self.labels))
        if calibration is not None:
            changes["calibration"] = calibration.check_classes(len(self.labels))
        return dataclasses.replace(self, origin=dataclasses.replace(self.origin, **changes))

    def describe(self, target: str, precision: str) -> dict[str, Any]:
        """Return the metadata of an export, without drift and speed."""
        answers: dict[str, Any] = {}
        if target != "hub_features":
            answers = {"thresholds": list(self.thresholds)} if self.thresholds else {}
            answers |= self.calibration.to_entry()
        return {
            "model": self.model.name,
            "target": target,
            "precision": precision,
            "parameters": self.model.count_params(),
            "preprocess": self.preprocess.to_dict(),
            "labels": [] if target == "hub_features" else list(self.labels),
            **({"arch": dataclasses.asdict(self.origin.arch)} if self.origin.arch else {}),
            **answers,
            **self.metadata,
        }


def check_target(target: str, precision: str = "auto") -> None:
    """Refuse what no export can have, before a network is loaded.

    Raises:
        UserError: for an unknown target or precision, and for a target whose packages are not installed.
    """
    _check_choice("target", target, tuple(TARGETS))
    _check_choice("precision", precision, ("auto", *TARGETS[target]))
    if not runners.is_installed(target):
        raise UserError(f"target {target!r} needs pip install 'resnet_tf[{target}]'")


def export_model(
    run_or_model: "TrainedRun | keras.Model",
    directory: str | Path,
    *,
    target: str = "serving",
    precision: str = "auto",
    preprocess: Preprocess | None = None,
    labels: Iterable[str | int] | None = None,
    thresholds: Sequence[float] | None = None,
    calibration: Calibration | None = None,
    data: DataConfig | None = None,
    default_signature: str = DEFAULT_SIGNATURE,
) -> Path:
    """Export a network as the next version under `directory`; older versions are kept.

    Args:
        run_or_model: the run that `load_run` returned, a model of `create_model`, or a Functional or Sequential model
            that contains one and ends in a Dense layer, whose outputs are logits, their softmax or sigmoid.
        directory: parent directory of the versions `directory/1`, `directory/2`, ...
        target: `serving`, a SavedModel for inference with folded BatchNorm and frozen weights (see
            `resnet_tf.serving.signatures`); `hub`, a SavedModel that can be called and fine-tuned; `hub_features`, the
            same without the head; `litert`; `keras`; `onnx`; `openvino`.
        precision: for `serving`, `float32` or `bfloat16`, which is fast only on processors with bfloat16 instructions;
            for `litert`, `float32`, `float16`, `dynamic` or `int8`; for `openvino`, `float32`, `bfloat16` or `int8`;
            `auto` selects `float32`. The other targets keep that of the network, the name of its dtype policy.
        preprocess: preprocessing of a bare model; by default `model.preprocess`, or that of the network that takes the
            input of the model. Only for an untrained network, the default is that of ImageNet, or none for signals.
        labels: class names of a bare model, in the order of its logits; by default `model.labels`. Only for an
            untrained network, the default are indices.
        thresholds: for a bare model with a sigmoid for each class, the probability from which on each is selected,
            such as `[0.5] * classes`; by default `model.thresholds`, 0.5 for a model that ends in a sigmoid, and those
            of the run. The `probabilities` of the export are sigmoids then, and it returns `selected`, too.
        calibration: for a bare model, the map from logits to the probabilities of the export, as `calibrate` returns
            it; by default `model.calibration`, and that of the run. The `logits` of the export are those of the model.
        data: data source whose validation split measures the drift, and whose training split calibrates `int8`; by
            default that of the run. Classes are matched by name, or by index if data or network have indices for
            names. The drift of a bare model without a data source is measured on random inputs.
        default_signature: `images`, to make the decoded images of a `serving` export the input of `serving_default`.

    Returns:
        The directory of the new version.

    Raises:
        UserError: for an unknown target or precision, a target whose packages are missing, unknown preprocessing or
            class names, a model without a head or with another activation than softmax or sigmoid at the end, labels
            that do not match the head, data with other classes, a directory that contains other files or cannot be
            written, a logit drift above `export.max_logit_drift`, or a loss of top-1 accuracy above
            `export.max_accuracy_drop`.
    """
    check_target(target, precision)
    if default_signature != DEFAULT_SIGNATURE and target != "serving":
        raise UserError(f"a default signature applies to target 'serving' only, not to {target!r}")
    names = None if labels is None else to_names(labels)
    if target in (*SAVED_MODELS, "hub_features"):
        check_writable_by_tensorflow(user_path(directory))
    source = _exportable(run_or_model, preprocess, names, data, needs_head=target != "hub_features")
    source = source.with_answers(thresholds, calibration)
    _check_model(source, target)
    _warn_of_missing_threshold(source)
    precision = _choose_precision(source.model, target, precision)
    _check_default_signature(source, default_signature)
    metadata = source.describe(target, precision)

    def write(staging: Path) -> None:
        _write(source, staging, target, precision, default_signature)
        if target != "hub_features":
            targets = targets_with(source.thresholds)
            runner = runners.load_runner(
                staging, target, source.preprocess, targets=targets, calibration=source.calibration
            )
            if precision != "float32" or find_precision(source.model) != "float32" or target in _CONVERTED:
                drift = _checked_drift(source, runner)
                logger.info("%s %s: %s", target, precision, drift)
                metadata["drift"] = dataclasses.asdict(drift)
            metadata["speed"] = measure_speed(runner, source.preprocess)
        (first, *_), *_ = signature_names(source.preprocess, default_signature).values()
        artifact.write_metadata(staging, metadata, signature=first)

    with Progress(f"exporting for target {target!r}"):
        return artifact.write_version(user_path(directory), write)


def find_export(run: TrainedRun, directory: str | Path) -> Path | None:
    """Return the newest version under `directory` that answers as that of `export_model(run, directory)` would.

    Versions that cannot be read are reported in the log and left out.

    Args:
        run: see `export_model`.
        directory: parent directory of the versions.

    Returns:
        The directory of the version; None without one.
    """
    described = _exportable(run, None, None, None, needs_head=True).describe("serving", TARGETS["serving"][0])
    expected = _decisive(json.loads(files.to_json(described)))
    for version in reversed(files.list_numbered(user_path(directory)).values()):
        try:
            export = read_export(version)
        except UserError as error:
            logger.warning("%s", error)
            continue
        if _decisive(export.metadata) == expected:
            return export.directory
    return None


def _decisive(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that decide the answers of an export."""
    top_k = metadata.get("config", {}).get("export", {}).get("top_k")
    return {"top_k": top_k} | {name: metadata.get(name) for name in _DECISIVE}


def _write(source: _Exportable, staging: Path, target: str, precision: str, default: str) -> None:
    model, preprocess, labels = source.model, source.preprocess, source.labels
    answers: dict[str, Any] = {"targets": targets_with(source.thresholds), "calibration": source.calibration}
    outputs: dict[str, Any] = {
        "top_k": source.settings.top_k,
        "thresholds": source.thresholds,
        "calibration": source.calibration,
    }
    if target == "serving":
        saved_model.write_serving(model, preprocess, labels, staging, precision=precision, default=default, **outputs)
    elif target == "hub":
        saved_model.write_hub(model, preprocess, labels, staging, weight_decay=source.weight_decay, **outputs)
    elif target == "hub_features":
        saved_model.write_hub_features(model, preprocess, staging, weight_decay=source.weight_decay)
    elif target in ("litert", "openvino"):
        examples = _calibration_examples(source) if precision == "int8" else ()
        options: dict[str, Any] = {"precision": precision, "calibration_examples": examples}
        if target == "litert":
            litert.write_litert(model, preprocess, staging / runners.LITERT_FILE, **options, **answers)
        else:
            openvino.write_openvino(model, preprocess, staging / runners.OPENVINO_FILE, **options)
    elif target == "keras":
        network = ResidualNetwork(model.input, model.output, model.name, metadata=source.origin)
        network.save(staging / runners.KERAS_FILE)
    else:
        onnx.write_onnx(model, preprocess, staging / runners.ONNX_FILE, **answers)


def _choose_precision(model: keras.Model, target: str, precision: str) -> str:
    """Return the precision that an export computes in; `hub` and `keras` keep that of the network.

    Raises:
        UserError: if `precision` is another one.
    """
    if target not in _UNCHANGED:
        return TARGETS[target][0] if precision == "auto" else precision
    found = find_precision(model)
    if precision not in ("auto", found):
        raise UserError(
            f"{model.name} computes in {found}, and target {target!r} keeps the layers of a network: precision="
            f"{precision!r} takes a network that was created under that dtype policy"
        )
    return found


def _exportable(
    run_or_model: "TrainedRun | keras.Model",
    preprocess: Preprocess | None,
    labels: Sequence[str] | None,
    data: DataConfig | None,
    *,
    needs_head: bool,
) -> _Exportable:
    if isinstance(run_or_model, keras.Model):
        model = canonical_model(run_or_model, needs_head=needs_head)
        origin = complete_metadata(run_or_model, preprocess, labels, needs_labels=needs_head)
        return _Exportable(model, origin, ExportConfig(), data, (), 0.0, {})
    run = run_or_model
    origin, robustness = stored_metadata(run.model), run.robustness
    return _Exportable(
        model=canonical_model(run.model, needs_head=needs_head),
        origin=dataclasses.replace(
            origin, preprocess=preprocess or run.preprocess, labels=tuple(run.labels if labels is None else labels)
        ),
        settings=run.config.export,
        data=data or run.config.data,
        data_classes=run.data_classes,
        weight_decay=run.config.optimizer.weight_decay,
        metadata={
            "metrics": run.metrics,
            "step": run.step,
            "weights_sha256": hash_weights(run.model),
            **({"robustness": robustness.to_dict()} if robustness else {}),
            **({"stopped_epoch": run.stopped_epoch} if run.stopped_epoch else {}),
            "config": run.config.to_dict(),
        },
    )


def _checked_drift(source: _Exportable, runner: runners.Runner) -> Drift:
    """Return the drift from the network in float32, and refuse an export beyond the tolerances."""
    batches, data = _drift_batches(source)
    exact = source.model if find_precision(source.model) == "float32" else fold(source.model)
    drift = measure_drift(runners.keras_logits(exact, source.preprocess), runner.logits, batches, data)
    settings = source.settings
    check_drift(drift, max_logit_drift=settings.max_logit_drift, max_accuracy_drop=settings.max_accuracy_drop)
    return drift


def _drift_batches(source: _Exportable) -> tuple[Iterator[tuple[np.ndarray, np.ndarray | None]], str]:
    """Return batches of unnormalized examples with their labels or None, and a name of their origin."""
    if source.data is None:
        shape = (_RANDOM_EXAMPLES, *source.preprocess.unnormalized_shape)
        noise = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
        starts = range(0, _RANDOM_EXAMPLES, _BATCH_SIZE)
        return ((noise[start : start + _BATCH_SIZE], None) for start in starts), "random"
    split = _open_data(source.data, source.labels, source.data_classes).validation
    indices = split.evenly_spaced(source.settings.drift_examples).tolist()

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(indices), _BATCH_SIZE):
            chosen = indices[start : start + _BATCH_SIZE]
            yield _load(split, source.preprocess, chosen), split.labels[chosen]

    return batches(), f"split {split.name!r}"


def _calibration_examples(source: _Exportable) -> Iterator[np.ndarray]:
    """Yield batches of one training example: images float32 [1, H, W, 3] in [0, 1], or signals float32 [1, L, C]."""
    if source.data is None:
        raise UserError("precision int8 needs examples for calibration: pass data=DataConfig(source=...)")
    split = _open_data(source.data, source.labels, source.data_classes).train
    for index in split.evenly_spaced(source.settings.calibration_examples).tolist():
        yield _load(split, source.preprocess, [index])


def _open_data(data: DataConfig, labels: Sequence[str], trained_names: Sequence[str] = ()) -> Source:
    """Open a data source for the classes of a network, by index if one of both has no names; see `match_classes`."""
    source = open_source(data, for_training=False)
    names, indices = source.class_names, tuple(map(str, range(len(labels))))
    is_unnamed = indices in (names, tuple(labels)) and len(names) == len(labels) and set(names).isdisjoint(labels)
    return source if is_unnamed else match_classes(labels, source, trained_names)


def _load(split: Split, preprocess: Preprocess, indices: list[int]) -> np.ndarray:
    """Return unnormalized examples, float32 [B, H, W, 3] or [B, L, C]; refuse unreadable ones by name."""
    with translate_read_errors(split, preprocess):
        return np.stack(pipeline.load_examples(split, preprocess, indices))


def _check_choice(option: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"unknown {option} {value!r}; did you mean {closest(value, choices)}?")


def _check_model(source: _Exportable, target: str) -> None:
    model, preprocess, labels = source.model, source.preprocess, source.labels
    for name, value, expected in (("preprocess", preprocess, Preprocess), ("data", source.data, DataConfig | None)):
        if not isinstance(value, expected):
            raise UserError(f"{name}={shorten(value)} is {type(value).__name__}; see the documentation of export_model")
    expected, given = model.input_shape[1:], preprocess.input_shape
    if len(expected) != len(given) or any(
        size not in (None, given_size) for size, given_size in zip(expected, given, strict=True)
    ):
        raise UserError(f"preprocess returns inputs of shape {given}, but {model.name} takes {expected}")
    check_model(model)
    if target == "hub_features":
        return
    classes = model.output_shape[-1]
    if len(labels) != classes:
        raise UserError(f"{counted(len(labels), 'label')} for the {counted(classes, 'class')} of {model.name}")
    if source.thresholds is not None and (pair := find_duplicate(labels)):
        raise UserError(f"{pair}; the selected classes of an example are answered by name")
    if classes == 1 and source.thresholds is None:
        raise UserError(f"the softmax of {model.name} is always 1, with one class; thresholds=[0.5] takes its sigmoid")


def _warn_of_missing_threshold(source: _Exportable) -> None:
    """Log that a run was to have a threshold of confidence, and has none."""
    target, known = source.settings.target_precision, source.calibration
    if target and (known.threshold is None or known.target_precision != target):
        reason = "no confidence reaches it on the evaluation split"
        if known.target_precision != target:
            reason = "the evaluation of this checkpoint was without it; it applies to the next evaluation of a run"
        logger.warning("export.target_precision=%g: %s; no prediction is answered as unsure", target, reason)


def _check_default_signature(source: _Exportable, name: str) -> None:
    choices = default_signatures(source.preprocess)
    if name not in choices and len(choices) == 1:
        plural = source.preprocess.plural
        raise UserError(
            f"default signature {name!r} does not apply to {source.model.name}: its input, {plural}, is not decoded"
        )
    _check_choice("default signature", name, choices)
