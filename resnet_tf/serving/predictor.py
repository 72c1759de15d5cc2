"""An exported model as a Python function from pictures to labels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config, flatten, override
from resnet_tf.data import pipeline, preprocess
from resnet_tf.data.sources import Split
from resnet_tf.errors import UserError
from resnet_tf.serving import artifact
from resnet_tf.serving.signatures import BYTES_SIGNATURE
from resnet_tf.spec import Preprocess


@dataclass(frozen=True)
class Prediction:
    """The best classes for one picture, in falling order.

    Attributes:
        labels: names of the classes.
        scores: their probabilities.
        indices: their places in the logits.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    indices: tuple[int, ...]


class Predictor:
    """Loads an export and answers for pictures.

        predictor = Predictor("run/export/serving")
        predictor(["cat.jpg"])[0].labels

    Attributes:
        path: the SavedModel in use (the newest version, if `path` was their directory).
        labels: names of all classes.
        preprocess: what the graph does to a picture before the network sees it.
    """

    def __init__(self, path: str | Path):
        self.path = artifact.find_export(path)
        metadata = artifact.read_metadata(self.path)
        self.labels: tuple[str, ...] = tuple(metadata["labels"])
        self.preprocess = Preprocess.from_dict(metadata["preprocess"])
        self.metadata = metadata
        self._model = artifact.load_saved_model(self.path)
        self._answer = self._model.signatures[BYTES_SIGNATURE]

    @property
    def config(self) -> Config:
        """The configuration of the run that it was exported from; the default one for a bare model."""
        return override(Config(), flatten(self.metadata.get("config", {})))

    def __call__(self, pictures: Iterable[str | Path | bytes], *, batch_size: int = 32) -> list[Prediction]:
        """Predictions for files or encoded pictures, in their order.

        Raises:
            UserError: for a file that is missing or is not a picture, by its name.
        """
        return list(self.stream(pictures, batch_size=batch_size))

    def stream(self, pictures: Iterable[str | Path | bytes], *, batch_size: int = 32) -> Iterator[Prediction]:
        """As `__call__`, a batch at a time."""
        remaining = iter(pictures)
        while batch := list(islice(remaining, batch_size)):
            answer = self.answer([_read(picture) for picture in batch], names=[_name(picture) for picture in batch])
            rows = zip(answer["top_labels"], answer["top_scores"], answer["top_classes"], strict=True)
            for labels, scores, classes in rows:
                names = tuple(label.decode() for label in labels.numpy())
                yield Prediction(names, tuple(map(float, scores)), tuple(map(int, classes)))

    def answer(self, encoded: Sequence[bytes], *, names: Sequence[str] | None = None) -> dict[str, tf.Tensor]:
        """The outputs of `serving_default` for one batch of encoded pictures; `names` are for the error message."""
        try:
            return self._answer(image_bytes=tf.constant(list(encoded)))
        except tf.errors.InvalidArgumentError as error:
            for index, item in enumerate(encoded):
                if reason := preprocess.why_unreadable(tf.constant(item), self.preprocess):
                    name = names[index] if names else f"picture {index} of the batch"
                    raise UserError(f"{name} is no picture that can be read: {reason}") from error
            raise

    def logits(self, split: Split, *, batch_size: int = 32, count: int = -1) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 [N] and logits float32 [N, C] for the first `count` pictures of a split, or all of them.

        Raises:
            UserError: naming a picture that cannot be read, or a damaged file.
        """
        split.check_whole()
        parts = []
        with pipeline.naming_failures(split, self.preprocess):
            for pictures, _ in split.examples(count).map(_encoded).batch(batch_size):
                parts.append(self.answer(pictures.numpy())["logits"].numpy())
        logits = np.concatenate(parts)
        return split.labels[: len(logits)], logits


def _encoded(picture: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As the signature takes it: what a source keeps as pixels becomes a PNG."""
    return (tf.io.encode_png(picture) if picture.dtype == tf.uint8 else picture), label


def _read(picture: str | Path | bytes) -> bytes:
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {str(picture)!r}: {error.strerror}") from error


def _name(picture: str | Path | bytes) -> str:
    return "a picture given as bytes" if isinstance(picture, bytes) else repr(str(picture))
