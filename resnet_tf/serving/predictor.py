"""An exported model as a Python function from pictures, or signals, to labels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config, flatten, override
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import Split
from resnet_tf.data.unreadable import translate_read_errors
from resnet_tf.inputs import Preprocess, UnreadableError
from resnet_tf.serving import artifact, runners


@dataclass(frozen=True, repr=False)
class Prediction:
    """The best classes for one example, in descending order of score.

    Attributes:
        labels: names of the classes.
        scores: their probabilities.
        indices: their positions in the logits.
        probabilities: of all classes, float32 [C].
        file: path of the example; empty for one in memory.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    indices: tuple[int, ...]
    probabilities: np.ndarray = field(compare=False)
    file: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return `file`, `labels`, `scores` and `indices`, ready for JSON, as `predict --json` prints them."""
        return {
            "file": self.file,
            "labels": list(self.labels),
            "scores": list(self.scores),
            "indices": list(self.indices),
        }

    def __repr__(self) -> str:
        file = f"{self.file!r}: " if self.file else ""
        return f"Prediction({file}{self.labels[0]!r} {self.scores[0]:.4f}, best of {len(self.probabilities):,} classes)"


class Predictor:
    """Loads an export of any kind, checks that its files are as they were written, and answers for pictures.

        predictor = Predictor("run/export/serving")
        predictor(["cat.jpg"])[0].labels

    A model of signals takes NumPy's `.npy` files in place of pictures, each float [L], or [L, C]. It can be used by
    several threads at a time.

    Attributes:
        path: the version in use (the newest, if `path` was their directory).
        labels: names of all classes.
        preprocess: what is done to a picture, or signal, before the network sees it.
        metadata: what was written beside the model.
        top_k: classes named in a prediction.

    Raises:
        UserError: if there is no export, it is damaged, or it gives features instead of classes.
    """

    def __init__(self, path: str | Path):
        self.path = artifact.find_export(path)
        self.metadata = artifact.read_metadata(self.path)
        self.labels: tuple[str, ...] = tuple(self.metadata["labels"])
        self.preprocess = Preprocess.from_dict(self.metadata["preprocess"])
        if not self.labels:
            raise UserError(f"{str(self.path)!r} gives features: it has no classes to name")
        self._runner = runners.load_runner(self.path, self.metadata)
        self.top_k = min(self.config.export.top_k, len(self.labels))

    def __repr__(self) -> str:
        model, target, precision = (self.metadata[name] for name in ("model", "target", "precision"))
        return f"Predictor({str(self.path)!r}: {model}, {target} {precision}, {len(self.labels):,} classes)"

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
        for encoded, names in _batches(pictures, batch_size):
            for probabilities in self.answer(encoded, names=names)["probabilities"]:
                yield self._best(probabilities)

    def from_pixels(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 [B, C], for pictures of the network's size: float32 [B, H, W, 3], RGB in [0, 1].

        For signals of its length, float32 [B, L, C], as they are.

        Raises:
            UserError: for another shape, kind of number or range.
        """
        return self._runner.logits(self.preprocess.check_unnormalized(np.asarray(images)))

    def answer(self, encoded: Sequence[bytes], *, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """`logits` and `probabilities`, float32 [B, C], for one batch of encoded pictures.

        Args:
            encoded: JPEG, PNG, BMP, GIF or WebP; of a signal, NumPy's `.npy`.
            names: of the pictures, for the error's message.
        """
        try:
            return self._runner.answer(encoded)
        except (tf.errors.InvalidArgumentError, UnreadableError) as error:
            self._blame_one(error, encoded, names)
            raise

    def explain(
        self, pictures: Iterable[str | Path | bytes], *, batch_size: int = 32
    ) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
        """What the network saw of each picture, float32 [H, W, 3] in [0, 1]; where what spoke for its best class was
        seen, float32 [H, W] in [0, 1] (Grad-CAM, enlarged); and the name of that class.

        Raises:
            UserError: for a kind of export that does not tell, or as `__call__`.
        """
        if not isinstance(self._runner, runners.SavedModelRunner) or not self._runner.explains:
            raise UserError(
                f"{str(self.path)!r} cannot explain its answers: export a network of images for serving or hub"
            )
        for encoded, names in _batches(pictures, batch_size):
            best = self.answer(encoded, names=names)["probabilities"].argmax(axis=1)
            heatmaps = self._runner.heatmaps(encoded)[..., np.newaxis]
            heatmaps = tf.image.resize(heatmaps, self.preprocess.spatial_shape)[..., 0]
            crops = self.preprocess.decode_batch(encoded)
            yield from zip(crops, heatmaps.numpy(), (self.labels[place] for place in best), strict=True)

    def logits(self, split: Split, *, batch_size: int = 32, count: int = -1) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 [N] and logits float32 [N, C] for the first `count` pictures of a split, or all of them.

        Raises:
            UserError: naming a picture that cannot be read, or a damaged file.
        """
        split.check_whole()
        parts = []
        with translate_read_errors(split, self.preprocess):
            examples = (self.preprocess.encode(each) for each, _ in split.examples(count).as_numpy_iterator())
            while batch := list(islice(examples, batch_size)):
                parts.append(self.answer(batch)["logits"])
        logits = np.concatenate(parts)
        return split.labels[: len(logits)], logits

    def _best(self, probabilities: np.ndarray) -> Prediction:
        places = np.argsort(-probabilities, kind="stable")[: self.top_k].tolist()
        scores = tuple(float(probabilities[place]) for place in places)
        labels = tuple(self.labels[place] for place in places)
        return Prediction(labels, scores, tuple(places), probabilities)

    def _blame_one(self, error: Exception, encoded: Sequence[bytes], names: Sequence[str] | None) -> None:
        """Raise by name, if a picture or a signal is the reason of an error."""
        noun = self.preprocess.noun
        for index, item in enumerate(encoded):
            if reason := self.preprocess.explain_unreadable(tf.constant(item)):
                name = names[index] if names else f"{noun} {index} of the batch"
                raise UserError(f"{name} is no {noun} that can be read: {reason}") from error


def _batches(pictures: Iterable[str | Path | bytes], size: int) -> Iterator[tuple[list[bytes], list[str]]]:
    """`size` pictures at a time, encoded, and what to call them."""
    remaining = iter(pictures)
    while batch := list(islice(remaining, size)):
        yield [_read(picture) for picture in batch], [_name(picture) for picture in batch]


def _read(picture: str | Path | bytes) -> bytes:
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {str(picture)!r}: {error.strerror}") from error


def _name(picture: str | Path | bytes) -> str:
    return "a picture given as bytes" if isinstance(picture, bytes) else repr(str(picture))
