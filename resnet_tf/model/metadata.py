"""Metadata of a network: architecture, preprocessing and labels, and their form in files."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.errors import UserError
from resnet_tf.core.targets import check_thresholds
from resnet_tf.core.validation import find_mismatch
from resnet_tf.inputs import Preprocess
from resnet_tf.model.arch import Arch


@dataclass(frozen=True)
class Metadata:
    """Properties of a network that its layers and variables do not show; None for what is unknown.

    Attributes:
        zoo_name: name in the zoo, one of `list_models()`.
        arch: architecture, which may differ from the zoo's in some fields.
        preprocess: preprocessing that the weights need.
        labels: class names in the order of the logits.
        thresholds: of a network of sigmoids, the probability from which on each class is selected.
        calibration: map from logits to probabilities.
    """

    zoo_name: str | None = None
    arch: Arch | None = None
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    calibration: Calibration = UNCALIBRATED

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        fields = {
            "model": self.zoo_name,
            "arch": self.arch and dataclasses.asdict(self.arch),
            "preprocess": self.preprocess and self.preprocess.to_dict(),
            "labels": self.labels,
            **({} if self.thresholds is None else {"thresholds": self.thresholds}),
            **self.calibration.to_entry(),
        }
        return json.loads(json.dumps(fields))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Metadata":
        """Return the metadata that `to_dict` described; absent keys give None, unknown keys are ignored.

        Raises:
            UserError: for a field of the wrong type, as in a corrupt file.
        """
        if not isinstance(fields, Mapping):
            raise UserError(f"metadata is {type(fields).__name__}, not an object")
        zoo_name, arch, preprocess, labels = (fields.get(key) for key in ("model", "arch", "preprocess", "labels"))
        if not isinstance(zoo_name, str | None):
            raise UserError(f"model is {type(zoo_name).__name__}, not a string")
        if labels and not (isinstance(labels, list | tuple) and all(isinstance(label, str) for label in labels)):
            raise UserError("labels is not a list of strings")
        thresholds = fields.get("thresholds")
        if mismatch := find_mismatch(thresholds, list[float] | None, "thresholds"):
            raise UserError(mismatch)
        return cls(
            zoo_name=zoo_name,
            arch=Arch.from_dict(arch) if arch else None,
            preprocess=Preprocess.from_dict(preprocess) if preprocess else None,
            labels=tuple(labels) if labels else None,
            thresholds=None if thresholds is None else check_thresholds(thresholds, len(labels or thresholds)),
            calibration=Calibration.from_dict(fields.get("calibration"), len(labels) if labels else None),
        )
