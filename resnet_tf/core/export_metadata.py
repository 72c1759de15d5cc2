"""Exported models as directories: their versions, manifest and metadata. Nothing of an export is used unverified."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from resnet_tf.core import files
from resnet_tf.core.calibration import Calibration, CalibrationFields
from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.paths import user_path
from resnet_tf.core.robustness import Robustness
from resnet_tf.core.targets import check_thresholds
from resnet_tf.core.validation import check_types

EXTRA = Path("assets.extra")
METADATA = EXTRA / "resnet_tf.json"
LABELS = EXTRA / "labels.txt"
MANIFEST = EXTRA / "sha256.json"
# Targets that are SavedModels with the signatures of `resnet_tf.serving.signatures`.
SAVED_MODELS = ("serving", "hub")
PRECISIONS = ("float32", "bfloat16", "float16", "dynamic", "int8")  # of the targets
DTYPE_POLICIES = ("mixed_bfloat16", "mixed_float16", "float64")  # others of networks, which `hub` and `keras` keep


class ExportMetadata(TypedDict):
    """Content of `assets.extra/resnet_tf.json`.

    Attributes:
        model: name of the network.
        target: a target of `resnet_tf.export_model`.
        precision: precision of the computation, one of `PRECISIONS` or `DTYPE_POLICIES`.
        parameters: number of the network's parameters.
        preprocess: see `Preprocess.from_dict`.
        labels: class names in the order of the logits; empty for features.
        arch: fields of the architecture, see `Arch`, unless the network was made from parts of others.
        versions: versions of the packages that wrote the export.
        thresholds: probability from which on each class is selected, [C]; only of multi-label networks, whose
            probabilities are sigmoids.
        calibration: see `Calibration.to_dict`; absent if the probabilities are those of the logits as they are.
        metrics: metrics on the validation split, of a trained run.
        step: training step, of a trained run.
        weights_sha256: hash of the weights, of a trained run.
        stopped_epoch: epoch after which the run ended early, if it did.
        config: configuration of the run.
        robustness: metrics on corrupted images of the validation split, see `Robustness`, if they were measured.
        drift: difference from the network in float32.
        speed: measured latency and throughput.
    """

    model: str
    target: str
    precision: str
    parameters: int
    preprocess: dict[str, Any]
    labels: list[str]
    versions: dict[str, str]
    arch: NotRequired[dict[str, Any]]
    thresholds: NotRequired[list[float]]
    calibration: NotRequired[CalibrationFields]
    metrics: NotRequired[dict[str, float | None]]
    step: NotRequired[int]
    weights_sha256: NotRequired[str]
    stopped_epoch: NotRequired[int]
    config: NotRequired[dict[str, dict[str, Any]]]
    robustness: NotRequired[dict[str, Any]]
    drift: NotRequired[dict[str, float | str | None]]
    speed: NotRequired[dict[str, float | str]]


@dataclass(frozen=True)
class Export:
    """A version of an exported model whose files are as they were written.

    Attributes:
        directory: the directory of the version.
        metadata: its metadata.
    """

    directory: Path
    metadata: ExportMetadata

    def check_classes(self) -> None:
        """Refuse an export of features.

        Raises:
            UserError: if it has no classes.
        """
        if not self.metadata["labels"]:
            raise UserError(f"{str(self.directory)!r} returns features and has no classes to predict")

    def naming_metadata(self) -> contextlib.AbstractContextManager[None]:
        """Prefix a `UserError` of the block, which evaluates a part of the metadata, with the name of their file."""
        return _naming(self.directory)


def read_export(path: str | Path) -> Export:
    """Verify the files of the export at `path`, or of the newest version under it, and read its metadata.

    Raises:
        UserError: if there is no export, this package did not write it, a file differs from the manifest, or the
            metadata are invalid.
    """
    path = user_path(path)
    if not path.is_dir():
        raise UserError(f"no exported model at {str(path)!r}")
    found = max(files.list_numbered(path).items(), default=(0, path))[1]
    if not (found / METADATA).is_file() and not (found / MANIFEST).is_file():
        raise UserError(f"{str(found)!r} is not a model exported by resnet_tf: {str(METADATA)!r} is missing")
    if corruption := files.find_corruption(found, MANIFEST, needed=METADATA):
        raise UserError(f"exported model {str(found)!r} is corrupt: {corruption}; export it again")
    content: Any = files.read_json(found / METADATA)
    with _naming(found):
        check_types(content, ExportMetadata)
        _check_values(content)
    return Export(found, content)


def holds_weights(path: Path) -> bool:
    """Return True for a file, the prefix of a TensorFlow checkpoint, and an export or the directory of its versions.

    Other directories may have the name of published weights, such as a data set in `imagenet`.
    """
    exports = (path.glob(str(METADATA)), path.glob(f"[0-9]*/{METADATA}"))
    return path.is_file() or Path(f"{path}.index").is_file() or any(map(any, exports))


def _check_values(metadata: ExportMetadata) -> None:
    for name, value in (("parameters", metadata["parameters"]), ("step", metadata.get("step", 0))):
        if value < 0:
            raise UserError(f"{name} is negative")
    if metadata["precision"] not in (*PRECISIONS, *DTYPE_POLICIES):
        raise UserError(f"precision is {metadata['precision']!r}, not one of {', '.join(PRECISIONS)}")
    if "" in metadata["labels"]:
        raise UserError("a label is empty")
    if "thresholds" in metadata:
        check_thresholds(metadata["thresholds"], len(metadata["labels"]))
    Calibration.from_dict(metadata.get("calibration"), len(metadata["labels"]))
    if "robustness" in metadata:
        Robustness.from_dict(metadata["robustness"])


def _naming(directory: Path) -> contextlib.AbstractContextManager[None]:
    return prefix_errors(f"{str(directory / METADATA)!r} is invalid")
