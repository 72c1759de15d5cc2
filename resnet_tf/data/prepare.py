"""Conversion of any data source to a TFDS data set in sharded record files."""

import contextlib
import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from resnet_tf.config import DataConfig
from resnet_tf.core import files, locks
from resnet_tf.core.class_names import check_tfds_names
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.logs import only_errors
from resnet_tf.core.paths import user_path
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.targets import MULTI_LABEL, SINGLE_LABEL, Targets, targets_of
from resnet_tf.core.text import from_file_name
from resnet_tf.data.sources import folder, is_image_folder, open_splits, slices, tables
from resnet_tf.data.sources.base import Split
from resnet_tf.data.sources.labels import check_classes, warn_of_unlabeled

_VERSION = "1.0.0"


@dataclass(frozen=True)
class _Part:
    """A split to write.

    Attributes:
        num_examples: number of examples.
        class_names: names of the classes that occur.
        examples: function that yields (key, image, label, file name) of each example.
    """

    num_examples: int
    class_names: Sequence[str]
    examples: Callable[[], Iterator[tuple[bytes | int, Any, Any, str]]]


@dataclass(frozen=True)
class _Content:
    """A data set to write.

    Attributes:
        source: name or path of the data set.
        parts: its splits by their names.
        class_names: names of all classes, in label order.
        targets: form of the labels.
        channels: channels of images that are arrays; None for encoded images, whose bytes are stored unchanged.
        is_ordered: keep the order of the examples, which slices of the data set select by.
    """

    source: str
    parts: Mapping[str, _Part]
    class_names: Sequence[str]
    targets: Targets = SINGLE_LABEL
    channels: int | None = None
    is_ordered: bool = False


def prepare_source(config: DataConfig, target: Path, *, check: Callable[[], None]) -> tfds.core.DatasetInfo:
    """Write all splits of a data source as a TFDS data set, `target`/NAME/1.0.0, where NAME is the name of the source.

    Encoded images are stored unchanged, and arrays as PNG. Names and order of splits and classes stay, and so does the
    order of examples, except in folders and tables, whose slices do not depend on it. Splits without labels are left
    out, with a warning. A failure leaves no files.

    Args:
        config: data source, `eval_fraction` of sources without splits, columns of a table, and names of splits of a
            folder that are not usual ones.
        target: new or empty directory.
        check: called between the steps, to raise an exception that ends them.

    Returns:
        Metadata of the data set.

    Raises:
        UserError: as `open_source`, for an example that cannot be read, or if `target` is not empty or not writable.
    """
    path = user_path(config.source)
    if is_image_folder(config):
        named = slices.plain_names(config.splits, [])
        return prepare_folder(path, target, eval_fraction=config.eval_fraction, named=named, check=check)
    _check_empty(target)
    return _store(_open(config), target, _builder_name(path), check)


def prepare_folder(
    source: Path,
    target: Path,
    *,
    eval_fraction: float,
    named: Sequence[str] = (),
    check: Callable[[], None] = lambda: None,
) -> tfds.core.DatasetInfo:
    """Write an image folder as a TFDS data set, `target`/NAME/1.0.0, where NAME is the name of the folder.

    Splits are the folders of split/class/file; each class of class/file is divided into `train` and `test` by file
    name. A failure leaves no files.

    Args:
        source: folder of images.
        target: new or empty directory.
        eval_fraction: for class/file, fraction of the split `test`.
        named: names of splits, for folders that have other names than the usual ones.
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
    splits = _splits(source, eval_fraction, named)
    class_names = sorted({name for split in splits.values() for name in split.classes})
    parts = {name: _folder_part(split, class_names) for name, split in splits.items()}
    return _store(_Content(str(source), parts, class_names), target, _builder_name(source), check)


def _folder_part(split: folder.ClassFolder, class_names: Sequence[str]) -> _Part:
    labels = {name: label for label, name in enumerate(class_names)}

    def examples() -> Iterator[tuple[bytes | int, Any, Any, str]]:
        for name, paths in split.classes.items():
            for file in paths:
                path = split.relative(file)
                # The bytes of a path are a key that no other file has, unlike its text with escapes.
                yield os.fsencode(path), io.BytesIO(_read(file)), labels[name], from_file_name(path)

    return _Part(sum(map(len, split.classes.values())), list(split.classes), examples)


def _open(config: DataConfig) -> _Content:
    """Open all splits of a source, with the classes of all of them."""
    whole, splits = open_splits(config)
    parts = {}
    for name, split in splits.items():
        split.check_complete()
        parts[name] = _split_part(split, whole.class_names, config)
    example = whole.train.load(tf.constant(0, tf.int64))
    channels = None if example.dtype == tf.string else int(example.shape[-1])
    if example.dtype not in (tf.string, tf.uint8) or channels not in (None, 1, 3, 4):
        shape = "x".join(map(str, example.shape))
        raise UserError(
            f"{config.source!r} holds {example.dtype.name} arrays of {shape}; `prepare` writes encoded images, and "
            "uint8 arrays with 1, 3 or 4 channels"
        )
    is_ordered = not tables.is_table(user_path(config.source))
    return _Content(config.source, parts, whole.class_names, whole.targets, channels, is_ordered)


def _split_part(split: Split, class_names: Sequence[str], config: DataConfig) -> _Part:
    targets = targets_of(split.labels)
    root = user_path(config.source)
    root = (root if root.is_dir() else root.parent).absolute()

    def examples() -> Iterator[tuple[bytes | int, Any, Any, str]]:
        index = 0
        try:
            for index, (image, label) in enumerate(split.examples().as_numpy_iterator()):
                found = io.BytesIO(image) if isinstance(image, bytes) else image
                value = np.flatnonzero(label).tolist() if targets is MULTI_LABEL else int(label)
                yield index, found, value, _file_name(split.locate(index), root)
        except tf.errors.OpError as error:
            file = split.locate(index).get("file")
            raise UserError(f"{file!r} or a file after it cannot be read: {plain_reason(error)}") from error

    return _Part(split.num_examples, [class_names[label] for label in targets.present(split.labels)], examples)


def _file_name(location: dict[str, Any], root: Path) -> str:
    """Return the path of a file, relative to that of the source, and the position of an example in it."""
    file, *position = map(str, location.values())
    file = os.path.relpath(file, root) if Path(file).absolute().is_relative_to(root) else file
    return from_file_name(":".join([file, *position]))


def _store(content: _Content, target: Path, name: str, check: Callable[[], None]) -> tfds.core.DatasetInfo:
    """Write a data set; see `prepare_source`."""
    if train := content.parts.get("train"):
        present = {split: part.class_names for split, part in content.parts.items()}
        check_classes(content.source, "train", train.class_names, present)
    check_tfds_names(content.class_names)
    existed = target.exists()
    try:
        with _only_writer(target), files.atomic_directory(target / name) as staging:
            _check_empty(target)  # again: another process may have written to it
            _write(staging, content, check)
            _check_written(staging / _VERSION, content)
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


def _write(staging: Path, content: _Content, check: Callable[[], None]) -> None:
    classes = tfds.features.ClassLabel(names=list(content.class_names))
    label = {"label": classes} if content.targets is SINGLE_LABEL else {"labels": tfds.features.Sequence(classes)}
    image = {"encoding_format": "png", "shape": (None, None, content.channels)} if content.channels else {}
    # An image without arguments stores the bytes of a file unchanged.
    features = {"image": tfds.features.Image(**image), **label, "file_name": tfds.features.Text()}
    count = sum(part.num_examples for part in content.parts.values())
    with _quiet(), Progress(f"preparing {staging.name!r}", noun="image", total=count) as progress:
        tfds.dataset_builders.store_as_tfds_dataset(
            name=staging.name,
            version=_VERSION,
            features=tfds.features.FeaturesDict(features),
            split_datasets={
                name: _examples(part, next(iter(label)), check, progress) for name, part in content.parts.items()
            },
            data_dir=staging.parent,
            description="Images, prepared with `python -m resnet_tf.prepare`.",
            disable_shuffling=content.is_ordered,
        )


def _check_written(version: Path, content: _Content) -> None:
    """Compare class names, splits and numbers of examples, as TFDS reads them, with those of the source."""
    info = tfds.builder_from_directory(version).info
    label = info.features["label"] if content.targets is SINGLE_LABEL else info.features["labels"].feature
    found = {name: split.num_examples for name, split in info.splits.items()}
    expected = {name: part.num_examples for name, part in content.parts.items()}
    if label.names != list(content.class_names) or found != expected:
        raise UserError(
            f"TFDS reads {label.num_classes} classes and the splits {found} instead of {len(content.class_names)} "
            f"classes and {expected}; rename folders with unusual characters"
        )


def _examples(
    part: _Part, label: str, check: Callable[[], None], progress: Progress
) -> Iterator[tuple[bytes | int, dict[str, Any]]]:
    for key, image, value, file_name in part.examples():
        check()
        yield key, {"image": image, label: value, "file_name": file_name}
        progress.done += 1


def _read(file: str) -> bytes:
    """Read a file here and not in TFDS, to distinguish errors of reading from errors of writing."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file!r} cannot be read: {error.strerror}") from error


def _builder_name(source: Path) -> str:
    """Return the name of a source as a name of TFDS: lower-case letters, digits and underscores, a letter first."""
    name = re.sub(r"[^a-z0-9]+", "_", (source.resolve().name if source.is_dir() else source.stem).lower()).strip("_")
    return name if re.match("[a-z]", name) else f"images_{name}".rstrip("_")


def _splits(root: Path, eval_fraction: float, named: Sequence[str]) -> dict[str, folder.ClassFolder]:
    direct = folder.list_classes(root)
    unlabeled = direct.unlabeled_splits()
    warn_of_unlabeled(str(root), unlabeled)
    direct = direct.without(unlabeled)
    direct.check_layout(named)
    has_splits = direct.has_splits(named)
    if (direct.has_classes and has_splits) or not direct.classes:
        folder.log_skipped(root, direct)
        found = "both split/class/file and" if has_splits else "neither split/class/file nor"
        raise UserError(f"{str(root)!r} contains {found} class/file images; expected one of the two")
    if has_splits:
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
    with only_errors("absl"), contextlib.redirect_stdout(io.StringIO()):
        yield
