"""Keras runs on TensorFlow here, and says so before it is imported."""

import json
import os
from pathlib import Path

from resnet_tf.errors import UserError


def require_tensorflow_backend() -> None:
    """Refuse any other Keras backend by the name that was asked for, in the environment or in Keras's own file."""
    backend, place = os.environ.get("KERAS_BACKEND"), "in the environment"
    if not backend:
        file = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
        backend, place = _read(file), f"in {str(file)!r}"
    if backend not in (None, "tensorflow"):
        raise UserError(f"KERAS_BACKEND={backend} is set {place}, but resnet_tf runs on tensorflow only")


def _read(file: Path) -> str | None:
    try:
        return json.loads(file.read_text()).get("backend")
    except (OSError, ValueError):  # Keras, too, passes over a file that it cannot read
        return None
