"""Predictions of an exported model for files, bytes, images and arrays."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config, flatten, override
from resnet_tf.core.calibration import Calibration
from resnet_tf.core.devices import translate_memory_errors
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import read_export
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.ranges import MAX_BATCH, check_integer
from resnet_tf.core.targets import targets_with
from resnet_tf.core.text import counted
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.sources import Split, check_form
from resnet_tf.data.unreadable import location, naming_nonfinite, translate_read_errors
from resnet_tf.inputs import Preprocess, UnreadableError
from resnet_tf.serving import examples as forms
from resnet_tf.serving import runners

# Index and reason in the errors of a graph that decodes images, see `Decoder.decode_batch`.
_UNREADABLE = re.compile(r"image (\d+) of the batch cannot be read: ([^\]\n]+)")


@dataclass(frozen=True, repr=False)
class Prediction:
    """The best classes for one example, in descending order of score.

    Attributes:
        labels: names of the classes.
        scores: their probabilities.
        indices: their positions in the logits.
        probabilities: of all classes, float32 [C].
        selected: names and probabilities of the classes that reach their threshold, in descending order of probability,
            for a multi-label model; None for a single-label one.
        file: path of the example; empty for one in memory.
        unsure: True if the best score is below `Predictor.confidence_threshold`; None for a model without one.
        energy: higher for examples unlike those of the training, see `Targets.energy`.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    indices: tuple[int, ...]
    probabilities: np.ndarray = field(compare=False)
    file: str = ""
    selected: dict[str, float] | None = None
    unsure: bool | None = None
    energy: float = math.nan

    @property
    def label(self) -> str:
        """Name of the best class."""
        return self.labels[0]

    @property
    def score(self) -> float:
        """Probability of the best class."""
        return self.scores[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields without `probabilities` and `energy`, ready for JSON, as `predict --json` prints them.

        `selected` is left out for a single-label model, and `unsure` for a model without a threshold.
        """
        return {
            "file": self.file,
            "labels": list(self.labels),
            "scores": list(self.scores),
            "indices": list(self.indices),
            **({} if self.selected is None else {"selected": self.selected}),
            **({} if self.unsure is None else {"unsure": self.unsure}),
        }

    def __repr__(self) -> str:
        file = f"{self.file!r}: " if self.file else ""
        return f"Prediction({file}{self.label!r} {self.score:.4f}, best of {counted(len(self.probabilities), 'class')})"


class Predictor:
    """An exported model of any target, verified and loaded.

        predictor = Predictor("run/export/serving")
        predictor("cat.jpg").label
        [prediction.score for prediction in predictor(["cat.jpg", image, array])]

    An image is a path, the content of a file as bytes, a PIL image, or an array of pixels, RGB or gray, uint8
    [height, width, 1 or 3]. A signal is a path or the content of an `.npy` file, or an array, float32 [L, C] or [L]. An
    example has the same prediction in every format. A predictor is thread-safe.

    Args:
        path: directory of a version, or of versions, of which the newest one is loaded.
        standard_loader: load a SavedModel with `tf.saved_model.load`, as other programs do. By default, the functions
            of a frozen SavedModel are called without rebuilding their graphs, which gives the first prediction in half
            the time.

    Attributes:
        path: directory of the loaded version, the newest one if the argument is a directory of versions.
        labels: class names in the order of the logits.
        preprocess: preprocessing of an example.
        metadata: metadata of the export, see `ExportMetadata`.
        config: configuration of the exported run; default values for a bare model.
        top_k: number of best classes in a prediction.
        thresholds: probability from which on each class is selected, [C]; None for a single-label model.
        calibration: map from logits to probabilities.

    Raises:
        UserError: if there is no export, it is corrupt, or it returns features instead of logits.
    """

    def __init__(self, path: str | Path, *, standard_loader: bool = False):
        export = read_export(path)
        self.path, self.metadata = export.directory, export.metadata
        self.labels: tuple[str, ...] = tuple(self.metadata["labels"])
        with export.naming_metadata():
            self.preprocess = Preprocess.from_dict(self.metadata["preprocess"])
            self.config = override(Config(), flatten(self.metadata.get("config", {})))
        export.check_classes()
        self.thresholds = self.metadata.get("thresholds")
        self.calibration = Calibration.from_dict(self.metadata.get("calibration"))
        self._targets = targets_with(self.thresholds)
        self._runner = runners.load_runner(
            self.path,
            self.metadata["target"],
            self.preprocess,
            classes=len(self.labels),
            targets=self._targets,
            calibration=self.calibration,
            standard_loader=standard_loader,
        )
        self.top_k = min(self.config.export.top_k, len(self.labels))

    def __repr__(self) -> str:
        model, target, precision = (self.metadata[name] for name in ("model", "target", "precision"))
        return f"Predictor({str(self.path)!r}: {model}, {target} {precision}, {counted(len(self.labels), 'class')})"

    @property
    def confidence_threshold(self) -> float | None:
        """Return the score below which a prediction is unsure; None without `export.target_precision`."""
        return self.calibration.threshold

    @overload
    def __call__(self, examples: str | Path | bytes, *, batch_size: int = 32) -> Prediction: ...

    @overload
    def __call__(self, examples: list[Any], *, batch_size: int = 32) -> list[Prediction]: ...

    @overload
    def __call__(self, examples: Any, *, batch_size: int = 32) -> Any: ...

    def __call__(self, examples: Any, *, batch_size: int = 32) -> Prediction | list[Prediction]:
        """Return a prediction for one example, or a list of them for several, in their order.

        Args:
            examples: an example in one of the formats above, or an iterable of examples; an array with one more axis
                is a batch.
            batch_size: examples per batch.

        Raises:
            UserError: for an example that cannot be read or has another type or shape, with its file or index.
        """
        if forms.is_single(examples, self.preprocess):
            return next(self.stream([examples]))
        return list(self.stream(examples, batch_size=batch_size))

    def stream(self, examples: Iterable[Any], *, batch_size: int = 32) -> Iterator[Prediction]:
        """Yield the predictions for several examples, batch by batch; see `__call__`."""
        for batch in forms.batches(examples, self.preprocess, batch_size):
            outputs = self.predict_batch([each.content for each in batch], names=[each.name for each in batch])
            ranking = self.calibration.ranking(outputs["logits"])
            rows = zip(batch, ranking, outputs["probabilities"], outputs["energy"], strict=True)
            for example, order, probabilities, energy in rows:
                if not np.isfinite(probabilities).all():
                    raise UserError(f"the prediction for {example.name} is not finite: {str(self.path)!r} overflows")
                yield self._best(order, probabilities, float(energy), example.file)

    @property
    def explains(self) -> bool:
        """Return True if the export has Grad-CAM heatmaps, see `explain`."""
        return isinstance(self._runner, runners.SavedModelRunner) and self._runner.explains

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return the logits, float32 [B, classes], for decoded inputs at the input size.

        Args:
            inputs: images, float32 [B, H, W, 3], RGB in [0, 1], or signals, float32 [B, L, C].

        Raises:
            UserError: for another shape, dtype or range.
        """
        return self._runner.logits(self.preprocess.check_unnormalized(np.asarray(inputs)))

    def predict_batch(self, encoded: Sequence[bytes], *, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return `logits` and `probabilities`, float32 [B, C], and `energy`, float32 [B], for encoded examples.

        Args:
            encoded: contents of files.
            names: names of the examples in error messages; by default, their indices in the batch.

        Raises:
            UserError: for an example that cannot be read, with its name.
        """
        size = counted(len(encoded), self.preprocess.noun)
        memory = f"a batch of {size}", lambda: "a smaller batch size takes less"
        try:
            with translate_memory_errors(*memory):
                return self._runner.predict(encoded)
        except (tf.errors.InvalidArgumentError, UnreadableError) as error:
            self._raise_unreadable(error, encoded, names)
            raise

    def explain(self, examples: Iterable[Any], *, batch_size: int = 32) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
        """Yield the cropped image, the Grad-CAM heatmap of its best class, and the label of this class.

        Args:
            examples: iterable of images, see `__call__`.
            batch_size: images per batch.

        Yields:
            For each example, image float32 [H, W, 3] in [0, 1], heatmap float32 [H, W] in [0, 1], and label.

        Raises:
            UserError: for an export without an `explain` signature, or as `__call__`.
        """
        if not self.explains:
            raise UserError(
                f"{str(self.path)!r} has no Grad-CAM heatmaps: export an image network with target serving or hub, "
                "whose head is one layer after the average pooling"
            )
        for batch in forms.batches(examples, self.preprocess, batch_size):
            encoded = [each.content for each in batch]
            logits = self.predict_batch(encoded, names=[each.name for each in batch])["logits"]
            best = self.calibration.ranking(logits).argmax(axis=1)
            heatmaps = cast(runners.SavedModelRunner, self._runner).heatmaps(encoded)[..., np.newaxis]
            heatmaps = tf.image.resize(heatmaps, self.preprocess.spatial_shape)[..., 0]
            crops = self.preprocess.decode_batch(encoded)
            yield from zip(crops, heatmaps.numpy(), (self.labels[index] for index in best), strict=True)

    def features(self, split: Split, indices: np.ndarray, *, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Yield the pooled features before the head, float32 [B, F], for batches of examples of a split.

        Args:
            split: holds the examples.
            indices: indices of the examples in order, int64 [n].
            batch_size: examples per batch.

        Raises:
            UserError: for an export without the signature `features`, or an example that cannot be read.
        """
        runner = self._runner
        if not isinstance(runner, runners.SavedModelRunner) or not runner.has_features:
            raise UserError(f"{str(self.path)!r} returns no features: export the network with target serving or hub")
        examples = without_autotune(split.map(tf.constant(indices, tf.int64), lambda position, example: example))
        with translate_read_errors(split, self.preprocess):
            encoded = map(self.preprocess.encode, examples.as_numpy_iterator())
            while batch := list(islice(encoded, batch_size)):
                yield runner.features(batch)

    def evaluate(self, split: Split, *, batch_size: int = 32, count: int = -1) -> Evaluation:
        """Evaluate the export on the first `count` examples of a split; -1 means all.

        Raises:
            UserError: for a batch size or count that is no positive number, an example that cannot be read, or a
                corrupt or missing file of the split.
        """
        check_integer("batch_size", batch_size, minimum=1, maximum=MAX_BATCH)
        if count != -1:
            check_integer("count", count, minimum=1, maximum=2**63 - 1)
        split.check_complete()
        check_form(split, self.thresholds)
        logits, total = [], split.num_examples if count < 0 else min(count, split.num_examples)
        progress = Progress(f"evaluating split {split.name!r}", noun="example", total=total)
        with translate_read_errors(split, self.preprocess), progress:
            encoded = (self.preprocess.encode(each) for each, _ in split.examples(count).as_numpy_iterator())
            while batch := list(islice(encoded, batch_size)):
                names = [location(split, progress.done + index) for index in range(len(batch))]
                logits.append(self.predict_batch(batch, names=names)["logits"])
                progress.done += len(batch)
        found = np.concatenate(logits)
        with naming_nonfinite(split):
            return self._targets.evaluate(
                split.labels[: len(found)], found, thresholds=self.thresholds, calibration=self.calibration
            )

    def _best(self, ranking: np.ndarray, probabilities: np.ndarray, energy: float, file: str) -> Prediction:
        indices = np.argsort(-ranking, kind="stable")[: self.top_k].tolist()
        scores = tuple(float(probabilities[index]) for index in indices)
        labels, selected = tuple(self.labels[index] for index in indices), None
        if self.thresholds is not None:
            above = np.flatnonzero(probabilities >= np.asarray(self.thresholds, np.float32))
            ordered = above[np.argsort(-probabilities[above], kind="stable")].tolist()
            selected = {self.labels[index]: float(probabilities[index]) for index in ordered}
        limit = self.confidence_threshold
        unsure = None if limit is None else scores[0] < limit
        return Prediction(labels, scores, tuple(indices), probabilities, file, selected, unsure, energy)

    def _raise_unreadable(self, error: Exception, encoded: Sequence[bytes], names: Sequence[str] | None) -> None:
        """Raise a `UserError` with the name of the first unreadable example; return if all can be read."""
        noun = self.preprocess.noun
        if named := _UNREADABLE.search(str(error)):
            found = {int(named[1]): named[2].strip(" '\"")}
        else:
            reasons = (self.preprocess.explain_unreadable(tf.constant(item)) for item in encoded)
            found = {index: reason for index, reason in enumerate(reasons) if reason}
        for index, reason in found.items():
            name = names[index] if names else f"{noun} {index} of the batch"
            raise UserError(f"{name} is not a readable {noun}: {reason}") from error
