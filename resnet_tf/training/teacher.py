"""A network that another one learns from."""

import json
from pathlib import Path

import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import Preprocess


class Teacher:
    """An exported model, answering what the student is fed. Make it inside the strategy's scope.

    Args:
        path: a SavedModel of this package, or the directory of its versions, of which the newest is taken.
        preprocess: the student's input.
        labels: the student's classes.

    Raises:
        UserError: if there is no such model, or it has other classes.
    """

    def __init__(self, path: str, preprocess: Preprocess, labels: tuple[str, ...]):
        self._preprocess = preprocess
        directory = _newest(Path(path))
        try:
            metadata = json.loads((directory / "assets.extra" / "resnet_tf.json").read_text())
            self._model = tf.saved_model.load(str(directory))  # kept: it owns the variables of its signatures
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise UserError(f"loss.teacher={path!r} is no exported model of this package: {error}") from error
        if list(metadata["labels"]) != list(labels):
            raise UserError(f"loss.teacher={path!r} knows other classes than the data: {', '.join(metadata['labels'])}")
        self._answer = self._model.signatures["images"]
        self._sizes = Preprocess.from_dict(metadata["preprocess"]).spatial_shape

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """From the student's input, float32 [B, H, W, C], to the teacher's logits, float32 [B, classes]."""
        images = self._preprocess.denormalize(inputs)
        if self._sizes != self._preprocess.spatial_shape:
            images = tf.image.resize(images, self._sizes, antialias=True)
        return tf.stop_gradient(self._answer(images=images)["logits"])


def _newest(path: Path) -> Path:
    versions = [each for each in path.glob("*") if each.name.isdigit()]
    return max(versions, key=lambda each: int(each.name)) if versions else path
