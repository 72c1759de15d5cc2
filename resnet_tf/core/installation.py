"""Check of the installation before TensorFlow and Keras are imported: one TensorFlow, as Keras's backend."""

import importlib.metadata
import os
from pathlib import Path

from resnet_tf.core.bounded import parse_json, read_regular
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import keras_home
from resnet_tf.core.text import printable

# Distributions that each install a whole TensorFlow into the same folder.
_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tf-nightly", "tf-nightly-cpu", "tf-nightly-tpu")


def check_installation() -> None:
    """Check that one TensorFlow is installed and that Keras is set to run on it.

    Raises:
        UserError: if several distributions of TensorFlow are installed over each other, or another Keras backend is
            configured.
    """
    require_one_tensorflow()
    require_tensorflow_backend()


def require_one_tensorflow() -> None:
    """Refuse several TensorFlows in one environment, whose import fails with an undefined symbol."""
    found = [f"{name} {version}" for name in _TENSORFLOWS if (version := _version(name))]
    if len(found) > 1:
        raise UserError(
            f"{' and '.join(found)} are installed over each other; make a new environment with one of them (for a TPU: "
            "pip install -r requirements-tpu.txt && pip install --no-deps .)"
        )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_tensorflow_backend() -> None:
    """Refuse another Keras backend, set in the environment or in the configuration file of Keras."""
    backend, location = os.environ.get("KERAS_BACKEND"), "in the environment"
    if not backend:
        file = keras_home() / "keras.json"
        backend, location = _read(file), f"in {str(file)!r}"
    if backend not in (None, "tensorflow"):
        raise UserError(
            f"KERAS_BACKEND={printable(str(backend))} is set {location}, but resnet_tf runs on tensorflow only"
        )


def _read(file: Path) -> str | None:
    try:
        content = parse_json(read_regular(file))
    except (OSError, ValueError, RecursionError):  # Keras, too, passes over a file that it cannot read
        return None
    return content.get("backend") if isinstance(content, dict) else None
