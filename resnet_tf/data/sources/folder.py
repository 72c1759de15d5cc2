"""A folder of pictures: split/class/file, or class/file, which is split by a hash of each file's name."""

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

# Class name -> its files, both sorted.
Classes = dict[str, list[str]]


def open_folder(root: Path, config: DataConfig) -> Source:
    """The splits that `config` names, from their folders or by hash."""
    if (root / config.train_split).is_dir() or (root / config.eval_split).is_dir():
        train, test = (_list_split(root, name) for name in (config.train_split, config.eval_split))
        _check_classes(train, test, str(root / config.train_split), str(root / config.eval_split))
    else:
        everything = list_classes(root)
        if not everything:
            raise UserError(_no_splits(root, config.train_split))
        train, test = split_by_hash(everything, config.eval_fraction)
        whole = f"{root} (data.eval_fraction={config.eval_fraction:g})"
        _check_classes(train, test, whole, whole)
        if not test:
            raise UserError(f"data.eval_fraction={config.eval_fraction:g} leaves nothing of {str(root)!r} to test on")
    names = tuple(train)
    return Source(str(root), names, _split(config.train_split, train, names), _split(config.eval_split, test, names))


def list_classes(folder: Path) -> Classes:
    """The pictures under class/file, by their suffix; classes without any are left out."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    listed = {name: sorted(_list_files(os.path.join(folder, name))) for name in names}
    return {name: files for name, files in listed.items() if files}


def _list_files(folder: str) -> list[str]:
    # Strings instead of paths: a large data set is listed several times as fast.
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.name.lower().endswith(_SUFFIXES)]


def _list_split(root: Path, split: str) -> Classes:
    if not (root / split).is_dir():
        raise UserError(_no_splits(root, split))
    classes = list_classes(root / split)
    if not classes:
        raise UserError(f"no pictures under {str(root / split)!r}: expected class/file with {', '.join(_SUFFIXES)}")
    return classes


def _no_splits(root: Path, split: str) -> str:
    present = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    return (
        f"{str(root)!r} has no folder {split!r}; it has {', '.join(present) or 'no folders'}. Images belong in "
        "split/class/file, where data.train_split and data.eval_split name the splits, or in class/file"
    )


def split_by_hash(everything: Classes, fraction: float) -> tuple[Classes, Classes]:
    """For training and testing: a file keeps its side whatever is added beside it."""
    sides: tuple[Classes, Classes] = ({}, {})
    for name, files in everything.items():
        for file in files:
            sides[_hash(file) < fraction].setdefault(name, []).append(file)
    return sides


def _hash(file: str) -> float:
    """From class/file to [0, 1)."""
    name = "/".join(Path(file).parts[-2:])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64


def _check_classes(train: Classes, test: Classes, train_place: str, test_place: str) -> None:
    if len(train) < 2:
        raise UserError(f"{train_place!r} has one class, {next(iter(train), '')!r}; training takes two or more")
    if unknown := sorted(set(test) - set(train)):
        raise UserError(f"class {unknown[0]!r} is in {test_place!r} but not in {train_place!r}")


def _split(name: str, classes: Classes, class_names: tuple[str, ...]) -> Split:
    files = [file for paths in classes.values() for file in paths]
    labels = {class_name: label for label, class_name in enumerate(class_names)}
    paths = tf.constant(files)
    return Split(
        name,
        np.repeat([labels[class_name] for class_name in classes], [len(paths) for paths in classes.values()]),
        load=lambda place: tf.io.read_file(paths[place]),
        locate=lambda place: {"file": files[place]},
    )
