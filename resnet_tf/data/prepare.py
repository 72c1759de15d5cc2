"""A folder of pictures, written down as sharded records that TFDS reads."""

import contextlib
import io
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import folder

_VERSION = "1.0.0"


def prepare_folder(source: Path, target: Path, *, eval_fraction: float) -> tfds.core.DatasetInfo:
    """Write the pictures under `source` into `target`/NAME/1.0.0, NAME being that of the folder.

    The splits are the folders of split/class/file, or `train` and `test` of class/file. Nothing is left behind by a
    failure.

    Raises:
        UserError: if there are no such pictures, one cannot be read, or `target` is in use or cannot be written.
    """
    source, existed = source.expanduser(), target.exists()
    if not source.is_dir():
        raise UserError(f"--from={str(source)!r}: there is no such folder")
    if existed and not (target.is_dir() and all(map(files.is_staging, target.iterdir()))):
        raise UserError(f"--to={str(target)!r} is not empty; give a new or an empty directory")
    splits = _splits(source, eval_fraction)
    name = _builder_name(source)
    features = {
        "image": tfds.features.Image(),  # keeps the bytes of a file that it is given
        "label": tfds.features.ClassLabel(names=sorted({name for classes in splits.values() for name in classes})),
        "file_name": tfds.features.Text(),
    }
    try:
        with files.atomic_directory(target / name) as staging, _only_a_progress_bar():
            tfds.dataset_builders.store_as_tfds_dataset(
                name=name,
                version=_VERSION,
                features=tfds.features.FeaturesDict(features),
                split_datasets={split: _examples(classes) for split, classes in splits.items()},
                data_dir=staging.parent,
                description="A folder of pictures, prepared with `python -m resnet_tf.prepare`.",
            )
    except OSError as error:
        raise UserError(f"--to={str(target)!r} cannot be written: {error.strerror or error}") from error
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                target.rmdir()  # only where it is empty: the block failed
    return tfds.builder_from_directory(target / name / _VERSION).info


def _examples(classes: folder.Classes) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, paths in classes.items():
        for file in paths:
            file_name = f"{name}/{Path(file).name}"
            yield file_name, {"image": io.BytesIO(_read(file)), "label": name, "file_name": file_name}


def _read(file: str) -> bytes:
    """The file's bytes; read here and not by TFDS, so that what fails is told apart from what cannot be written."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file!r} cannot be read: {error.strerror}") from error


def _builder_name(source: Path) -> str:
    """The folder's name as TFDS wants names: small letters, digits and underscores, a letter first."""
    name = re.sub(r"[^a-z0-9]+", "_", source.resolve().name.lower()).strip("_")
    return name if re.match("[a-z]", name) else f"pictures_{name}".rstrip("_")


def _splits(root: Path, eval_fraction: float) -> dict[str, folder.Classes]:
    by_split = {entry.name: folder.list_classes(entry) for entry in sorted(root.iterdir()) if entry.is_dir()}
    by_split = {split: classes for split, classes in by_split.items() if classes}
    direct = folder.list_classes(root)
    if bool(by_split) == bool(direct):
        held = "both" if direct else "neither"
        raise UserError(f"{str(root)!r} holds {held} split/class/file and class/file pictures; it takes one of them")
    if by_split:
        return by_split
    train, test = folder.split_by_hash(direct, eval_fraction)
    return {"train": train, "test": test} if test else {"train": train}


@contextlib.contextmanager
def _only_a_progress_bar() -> Iterator[None]:
    """On stderr, where that is a terminal; what TFDS says beside it is about downloads."""
    if sys.stderr.isatty():
        tfds.enable_progress_bar()
    else:
        tfds.disable_progress_bar()
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
