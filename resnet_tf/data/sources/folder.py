"""Image folders: split/class/file, or class/file, which is split by a hash of each file name."""

import hashlib
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources.base import Source, Split
from resnet_tf.inputs import ImagePreprocess

_SUFFIXES = ImagePreprocess.file_suffixes

# Class name -> paths of its files, both sorted.
Classes = dict[str, list[str]]


def open_folder(root: Path, config: DataConfig) -> Source:
    """Open the splits that `config` names, from their folders or by hash.

    Raises:
        UserError: for a folder without images, or classes that differ between splits.
    """
    if any((root / name).is_dir() for name in config.splits):
        listed = [_list_split(root, name) for name in config.splits]
        for name, classes in zip(config.splits[1:], listed[1:], strict=True):
            _check_classes(listed[0], classes, str(root / config.train_split), str(root / name))
    else:
        listed = _split_by_config(root, config)
    names = tuple(listed[0])
    splits = (_split(name, classes, names) for name, classes in zip(config.splits, listed, strict=True))
    return Source(str(root), names, *splits)


def _split_by_config(root: Path, config: DataConfig) -> list[Classes]:
    """Return the training and the validation split of a folder of class/file."""
    everything = list_classes(root)
    if not everything:
        raise UserError(_no_splits(root, config.train_split))
    if config.test_split:
        raise UserError(
            f"data.test_split={config.test_split!r} is a folder of {str(root)!r} with split/class/file; class/file is "
            "divided into a training and a validation split only"
        )
    train, validation = split_by_hash(everything, config.eval_fraction)
    path = f"{root} (data.eval_fraction={config.eval_fraction:g})"
    _check_classes(train, validation, path, path)
    if not validation:
        raise UserError(f"data.eval_fraction={config.eval_fraction:g} leaves no image of {str(root)!r} for evaluation")
    return [train, validation]


def list_classes(folder: Path) -> Classes:
    """Return the images of a folder of class/file, by their suffixes; classes without images are omitted."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    listed = {name: sorted(_list_files(os.path.join(folder, name))) for name in names}
    return {name: files for name, files in listed.items() if files}


def _list_files(folder: str) -> list[str]:
    # Strings are several times faster than `Path` for large data sets.
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.name.lower().endswith(_SUFFIXES)]


def _list_split(root: Path, split: str) -> Classes:
    if not (root / split).is_dir():
        raise UserError(_no_splits(root, split))
    classes = list_classes(root / split)
    if not classes:
        raise UserError(f"no images under {str(root / split)!r}: expected class/file with {', '.join(_SUFFIXES)}")
    return classes


def _no_splits(root: Path, split: str) -> str:
    present = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    return (
        f"{str(root)!r} has no folder {split!r}; it has {', '.join(present) or 'no folders'}. Images belong in "
        "split/class/file, where data.train_split, data.eval_split and data.test_split name the splits, or in "
        "class/file"
    )


def split_by_hash(everything: Classes, fraction: float) -> tuple[Classes, Classes]:
    """Split a folder of class/file at random into a training and a validation split.

    The split of a file depends on its class and its name only, and not on other files.

    Args:
        everything: all files.
        fraction: fraction of the validation split.

    Returns:
        The training split and the validation split, without classes that have no file there.
    """
    splits: tuple[Classes, Classes] = ({}, {})
    for name, files in everything.items():
        for file in files:
            splits[_hash(file) < fraction].setdefault(name, []).append(file)
    return splits


def _hash(file: str) -> float:
    """Hash class/file to a number in [0, 1)."""
    name = "/".join(Path(file).parts[-2:])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64


def _check_classes(train: Classes, evaluated: Classes, train_path: str, evaluated_path: str) -> None:
    if len(train) < 2:
        raise UserError(f"{train_path!r} has one class, {next(iter(train), '')!r}; training needs two or more")
    if unknown := sorted(set(evaluated) - set(train)):
        raise UserError(f"class {unknown[0]!r} is in {evaluated_path!r} but not in {train_path!r}")


def _split(name: str, classes: Classes, class_names: tuple[str, ...]) -> Split:
    files = [file for paths in classes.values() for file in paths]
    labels = {class_name: label for label, class_name in enumerate(class_names)}
    paths = tf.constant(files)
    return Split(
        name,
        np.repeat([labels[class_name] for class_name in classes], [len(paths) for paths in classes.values()]),
        load=lambda index: tf.io.read_file(paths[index]),
        locate=lambda index: {"file": files[index]},
    )
