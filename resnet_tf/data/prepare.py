"""Conversion of an image folder to a TFDS data set in sharded record files."""

import contextlib
import dataclasses
import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from resnet_tf.core import files, locks
from resnet_tf.core.class_names import check_tfds_names
from resnet_tf.core.errors import UserError
from resnet_tf.core.progress_line import Progress
from resnet_tf.data.sources import folder
from resnet_tf.data.sources.labels import check_classes

_VERSION = "1.0.0"


def prepare_folder(
    source: Path, target: Path, *, eval_fraction: float, check: Callable[[], None] = lambda: None
) -> tfds.core.DatasetInfo:
    """Write an image folder as a TFDS data set, `target`/NAME/1.0.0, where NAME is the name of the folder.

    Splits are the folders of split/class/file; each class of class/file is divided into `train` and `test` by file
    name. A failure leaves no files.

    Args:
        source: folder of images.
        target: new or empty directory.
        eval_fraction: for class/file, fraction of the split `test`.
        check: called between the steps, to raise an exception that ends them.

    Returns:
        Metadata of the data set.

    Raises:
        UserError: if there are no images or one is unreadable, if the split `train` has one class or lacks a class, or
            `target` is not empty or not writable.
    """
    if not source.is_dir():
        raise UserError(f"--from={str(source)!r}: no such folder")
    _check_empty(target)
    splits = _splits(source, eval_fraction)
    class_names = sorted({name for split in splits.values() for name in split.classes})
    if train := splits.get("train"):
        check_classes(str(source), "train", train.classes, {name: split.classes for name, split in splits.items()})
    check_tfds_names(class_names)
    name, existed = _builder_name(source), target.exists()
    try:
        with _only_writer(target), files.atomic_directory(target / name) as staging:
            _check_empty(target)  # again: another process may have written to it
            _write(staging, splits, class_names, check)
            _check_written(staging / _VERSION, splits, class_names)
            check()
    except OSError as error:
        raise UserError(f"--to={str(target)!r} cannot be written: {error.strerror or error}") from error
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                target.rmdir()  # succeeds only if it is empty, after a failure
    return tfds.builder_from_directory(target / name / _VERSION).info


def _check_empty(target: Path) -> None:
    if target.exists() and not (target.is_dir() and all(files.is_hidden(each.name) for each in target.iterdir())):
        raise UserError(f"--to={str(target)!r} is not empty; expected a new or an empty directory")


@contextlib.contextmanager
def _only_writer(target: Path) -> Iterator[None]:
    """Create the target, and refuse it while another process writes to it."""
    files.make_directory(target)
    try:
        lock = locks.acquire(target, wait=False)
    except BlockingIOError:
        raise UserError(f"--to={str(target)!r} is being written by another process; give another directory") from None
    try:
        yield
    finally:
        locks.release(lock)


def _write(
    staging: Path, splits: dict[str, folder.ClassFolder], class_names: list[str], check: Callable[[], None]
) -> None:
    features = {
        "image": tfds.features.Image(),  # stores the bytes of a file unchanged
        "label": tfds.features.ClassLabel(names=class_names),
        "file_name": tfds.features.Text(),
    }
    count = sum(len(paths) for split in splits.values() for paths in split.classes.values())
    with _quiet(), Progress(f"preparing {staging.name!r}", noun="image", total=count) as progress:
        tfds.dataset_builders.store_as_tfds_dataset(
            name=staging.name,
            version=_VERSION,
            features=tfds.features.FeaturesDict(features),
            split_datasets={name: _examples(split, check, progress) for name, split in splits.items()},
            data_dir=staging.parent,
            description="A folder of images, prepared with `python -m resnet_tf.prepare`.",
        )


def _check_written(version: Path, splits: dict[str, folder.ClassFolder], class_names: list[str]) -> None:
    """Compare class names, splits and numbers of examples, as TFDS reads them, with those of the folder."""
    info = tfds.builder_from_directory(version).info
    found = {name: split.num_examples for name, split in info.splits.items()}
    expected = {name: sum(map(len, split.classes.values())) for name, split in splits.items()}
    if info.features["label"].names != class_names or found != expected:
        raise UserError(
            f"TFDS reads {info.features['label'].num_classes} classes and the splits {found} instead of "
            f"{len(class_names)} classes and {expected}; rename folders with unusual characters"
        )


def _examples(
    split: folder.ClassFolder, check: Callable[[], None], progress: Progress
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, paths in split.classes.items():
        for file in paths:
            check()
            file_name = split.relative(file)
            yield file_name, {"image": io.BytesIO(_read(file)), "label": name, "file_name": file_name}
            progress.done += 1


def _read(file: str) -> bytes:
    """Read a file here and not in TFDS, to distinguish errors of reading from errors of writing."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file!r} cannot be read: {error.strerror}") from error


def _builder_name(source: Path) -> str:
    """Return the name of the folder as a name of TFDS: lower-case letters, digits and underscores, a letter first."""
    name = re.sub(r"[^a-z0-9]+", "_", source.resolve().name.lower()).strip("_")
    return name if re.match("[a-z]", name) else f"images_{name}".rstrip("_")


def _splits(root: Path, eval_fraction: float) -> dict[str, folder.ClassFolder]:
    direct = folder.list_classes(root)
    direct.check_layout()
    if (direct.has_classes and direct.has_splits) or not direct.classes:
        folder.log_skipped(root, direct)
        found = "both split/class/file and" if direct.has_splits else "neither split/class/file nor"
        raise UserError(f"{str(root)!r} contains {found} class/file images; expected one of the two")
    if direct.has_splits:
        by_split = {name: folder.list_classes(direct.folder(name)) for name in direct.classes}
        folder.log_skipped(root, *by_split.values())
        return by_split
    folder.log_skipped(root, direct)
    train, test = (dataclasses.replace(direct, classes=each) for each in folder.split_by_hash(direct, eval_fraction))
    return {"train": train, "test": test} if test.classes else {"train": train}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output of TFDS, which concerns downloads, and its progress bars, which concern parts of the work."""
    tfds.disable_progress_bar()
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
