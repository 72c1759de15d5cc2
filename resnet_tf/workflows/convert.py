"""Conversion of weight files."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resnet_tf.core.paths import user_path
from resnet_tf.model.create import convert_file


@dataclass(frozen=True)
class ConvertResult:
    """Outcome of `convert`.

    Attributes:
        path: the file that was written.
        model: name of the network.
        dialect: naming convention of the source, such as `torchvision`.
    """

    path: Path
    model: str
    dialect: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as text, ready for JSON."""
        return asdict(self) | {"path": str(self.path)}


def convert(source: str | Path, model: str, target: str | Path, *, num_classes: int = 1000) -> ConvertResult:
    """Read the weights of a network in any dialect and write them for Keras or for PyTorch.

    Args:
        source: a file or the name of published weights, as for `create_model`. The number of input channels is that of
            the weights.
        model: one of `list_models()`.
        target: `.weights.h5` or `.keras` for Keras, `.safetensors` for torchvision or timm. An existing file is
            replaced once the new one is complete. Preprocessing, class names, thresholds and calibration of the weights
            are stored with them. A warning names what differs in PyTorch's network of the same names, if it computes
            other outputs.
        num_classes: classes of the head; 0 drops it.

    Raises:
        UserError: for weights that do not fit, or a target that cannot be written.
    """
    dialect = convert_file(source, model, user_path(target), num_classes=num_classes)
    return ConvertResult(user_path(target), model, dialect)
