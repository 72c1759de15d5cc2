"""Predictions for files and folders."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import MAX_BATCH, check_integer
from resnet_tf.inputs import Preprocess, files
from resnet_tf.report.overlay import plot_overlay
from resnet_tf.serving.predictor import Prediction, Predictor

_STANDARD_INPUT = "-"


def predict(
    model: Predictor | str | Path,
    paths: str | Path | Sequence[str | Path],
    *,
    batch_size: int = 32,
    explain: str | Path | None = None,
) -> Iterator[Prediction]:
    """Yield a prediction for each file, batch by batch; `prediction.file` names it.

    For images in memory, call a `Predictor`.

    Args:
        model: a predictor, or the directory of an export.
        paths: a file or a folder, which stands for all files below it with a suffix or the content of an example, or
            several of them; other files are counted and named in the log. `-` reads one file from standard input.
        batch_size: files per batch.
        explain: directory for Grad-CAM overlays, a PNG for each file, numbered in their order; written with the
            predictions of each batch.

    Raises:
        UserError: for a missing export, a folder without examples, or, by name, a file that cannot be read.
    """
    check_integer("batch_size", batch_size, minimum=1, maximum=MAX_BATCH)
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    given = [paths] if isinstance(paths, str | Path) else paths
    listed = [file for path in given for file in _list_files(str(path), type(predictor.preprocess))]
    return _predict(predictor, listed, batch_size, None if explain is None else user_path(explain))


def _predict(predictor: Predictor, files: Sequence[str], batch_size: int, explain: Path | None) -> Iterator[Prediction]:
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        items = [sys.stdin.buffer.read() if file == _STANDARD_INPUT else file for file in batch]
        for file, prediction in zip(batch, predictor(items, batch_size=batch_size), strict=True):
            yield dataclasses.replace(prediction, file=file)
        if explain:
            _plot_explanations(predictor, batch, items, explain, first=start + 1, digits=len(str(len(files))))


def _list_files(path: str, input_type: type[Preprocess]) -> list[str]:
    """Return the file itself; for a folder, the files of examples below it, in order."""
    folder = user_path(path)
    if not folder.is_dir():
        return [path]
    found = files.list_files(str(folder), input_type)
    files.log_skipped(path, found.skipped, input_type)
    if not found.files:
        suffixes = ", ".join(input_type.file_suffixes)
        raise UserError(f"no {input_type.plural} in {path!r}: none of its files ends in {suffixes} or has such content")
    return found.files


def _plot_explanations(
    predictor: Predictor,
    files: Sequence[str],
    items: Sequence[str | bytes],
    directory: Path,
    *,
    first: int,
    digits: int,
) -> None:
    """Write a PNG for each file, numbered, as two folders may hold files of the same name."""
    explanations = predictor.explain(items, batch_size=len(items))
    for number, (file, (crop, heatmap, label)) in enumerate(zip(files, explanations, strict=True), start=first):
        stem = "stdin" if file == _STANDARD_INPUT else Path(file).stem
        plot_overlay(directory / f"{number:0{digits}d}_{stem}.png", crop, heatmap, title=label)
