"""TFRecord files in the common layout of ImageNet: features `image/encoded` and `image/class/label`.

The layout is that of TensorFlow's `build_imagenet_data.py`: files `train-00000-of-01024`, labels from 1 on (0 is
reserved for a background class), and the WordNet identifier in `image/class/synset`.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import imagenet_labels
from resnet_tf.core.errors import UserError
from resnet_tf.core.files import is_hidden
from resnet_tf.data.sources import records, slices
from resnet_tf.data.sources.base import DataSet, Source, Split
from resnet_tf.data.sources.labels import source_of_labels, source_of_names

_LABEL = {
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    "image/class/synset": tf.io.FixedLenFeature([], tf.string, ""),
    "image/class/text": tf.io.FixedLenFeature([], tf.string, ""),
}
# A record without an image is in the index as well, and counted as unreadable when it is read.
_INDEXED = _LABEL | {"image/encoded": tf.io.FixedLenFeature([], tf.string, "")}
_ENCODED = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
_SYNSET = re.compile(r"n\d{8}", re.ASCII)  # identifier of WordNet
_SHARD = re.compile(r"-\d+-of-\d+$|\.tfrecords?(-\d+-of-\d+)?$")


def list_files(root: Path, split: str) -> list[str]:
    """Return the record files of a split: `split-00000-of-01024`, `split.tfrecord`, or any such name in `split/`.

    A longer name is another split: `train_val-00000-of-00002` is no part of `train` if there are files
    `train-00000-of-00008`. Without these, files of one longer name, such as `train_images.tfrecord`, are the split.

    Args:
        root: path of the folder.
        split: name of the split.

    Raises:
        UserError: if files of several longer names could be the split.
    """
    beside = [path for path in root.iterdir() if re.match(rf"{re.escape(split)}(?![a-zA-Z0-9])", path.name)]
    inside = [path for folder in beside if folder.is_dir() and folder.name == split for path in folder.iterdir()]
    if any(path.is_file() and _SHARD.search(path.name) for path in inside):
        beside = [path for path in beside if _is_named(path, split)]
    else:
        beside = _select_named(root, split, [path for path in beside if path.is_file() and _SHARD.search(path.name)])
    return sorted(str(path) for path in [*beside, *inside] if path.is_file() and _SHARD.search(path.name))


def _select_named(root: Path, split: str, beside: list[Path]) -> list[Path]:
    """Return the files of a split among those whose names begin with its name; see `list_files`."""
    if own := [path for path in beside if _is_named(path, split)]:
        return own
    names = sorted({re.sub(r"[-_.]?\d+$", "", _SHARD.sub("", path.name)) for path in beside})
    if len(names) > 1:
        raise UserError(
            f"{str(root)!r} has no split {split!r}, but {', '.join(names)}; data.train_split, data.eval_split and "
            "data.test_split name splits"
        )
    return beside


def _is_named(path: Path, split: str) -> bool:
    """Return True for a file named by a split and a number, such as `train-00000-of-01024` and `train_01.tfrecord`."""
    return re.fullmatch(rf"{re.escape(split)}([-_.]\d+)?", _SHARD.sub("", path.name)) is not None


def has_split(root: Path, split: str) -> bool:
    """Return True if a split, a part of one, or a sum of them, has record files."""
    return any(list_files(root, slices.plain_name(term)) for term in slices.terms(split))


def has_only_records(root: Path) -> bool:
    """Return True for a folder of record files of any split, without further folders."""
    visible = [path for path in root.iterdir() if not is_hidden(path.name)]
    return any(map(_SHARD.search, map(str, visible))) and not any(path.is_dir() for path in visible)


def find_records(root: Path, config: DataConfig) -> DataSet:
    """Return the data set of record files in a folder; names in `config` that select files of longer names exist."""
    named = [plain for name in config.splits for plain in map(slices.plain_name, slices.terms(name))]
    selecting = [name for name in dict.fromkeys(named) if list_files(root, name)]
    return DataSet(tuple(dict.fromkeys([*_list_splits(root), *selecting])), lambda config: _open(root, config))


def _open(root: Path, config: DataConfig) -> Source:
    """Open the splits that `config` names, or slices of them.

    Classes are the labels that occur, named by their WordNet identifier, text or number; 1,000 classes without names,
    numbered from 0 or 1, are those of ImageNet.

    Raises:
        UserError: if a split has no record files, or no record with an image and a label.
    """
    present = _list_splits(root)
    found = {name: _index(root, name, config) for name in slices.plain_names(config.splits, present)}
    for split in found.values():
        if not any(each.corruption for each in split):  # corrupt files are named by whatever reads the split
            _check_readable(split)
    _check_readable([file for split in found.values() for file in split])
    labels = np.concatenate([each.labels[each.readable] for split in found.values() for each in split])
    splits = [
        slices.compose(name, present, lambda each: _split(each, found[slices.plain_name(each)]))
        for name in config.splits
    ]
    names = _names([each for split in found.values() for each in split])
    first_label = int(labels.min() > 0)
    if names or labels.max() + 1 - first_label != len(imagenet_labels()):
        return source_of_labels(str(root), splits, labels, names)
    shifted = [dataclasses.replace(split, labels=split.labels - first_label) for split in splits]
    return source_of_names(str(root), shifted, imagenet_labels())


def _check_readable(found: list[records.Records]) -> None:
    """Check that files have a readable record.

    Raises:
        UserError: if they have none; it states the first corrupt file, or else the first file.
    """
    if any(each.readable.any() for each in found):
        return
    first = next((each for each in found if each.corruption), found[0])
    reason = first.corruption[0].reason if first.corruption else "it is empty"
    raise UserError(f"no record of {first.file!r} has image/encoded and image/class/label: {reason}")


def _names(found: list[records.Records]) -> dict[int, str]:
    """Return the name of each label that has one; a WordNet identifier is preferred to another name.

    Raises:
        UserError: if files have different names for a label.
    """
    names: dict[int, tuple[str, str]] = {}
    for each in found:
        for label, name in each.names.items():
            if not name:
                continue
            other, file = names.setdefault(label, (name, each.file))
            if _SYNSET.fullmatch(name) and not _SYNSET.fullmatch(other):
                names[label] = name, each.file
            elif other != name and bool(_SYNSET.fullmatch(other)) == bool(_SYNSET.fullmatch(name)):
                raise UserError(f"label {label} is {other!r} in {file!r}, but {name!r} in {each.file!r}")
    return {label: name for label, (name, _) in names.items()}


def _index(root: Path, split: str, config: DataConfig) -> list[records.Records]:
    files = list_files(root, split)
    if not files:
        present = ", ".join(sorted(path.name for path in root.iterdir())[:8])
        raise UserError(
            f"{str(root)!r} has no record files of split {split!r}, such as {split}-00000-of-00001; it has {present}; "
            f"{slices.advise(config, split, _list_splits(root))}"
        )
    return records.index(files, _parse, layout="imagenet")


def _list_splits(root: Path) -> list[str]:
    """Return the names before the shard numbers of record files, and of folders that hold record files.

    A name whose files belong to another one, such as `train_1` where there is a `train`, is left out.
    """
    found = {_SHARD.sub("", path.name) for path in root.iterdir() if path.is_file() and _SHARD.search(path.name)}
    folders = (path for path in root.iterdir() if path.is_dir() and any(map(_SHARD.search, map(str, path.iterdir()))))
    names = sorted(found | {folder.name for folder in folders})
    files = {name: set(list_files(root, name)) for name in names}
    return [name for name in names if not any(files[name] < other for other in files.values())]


def _parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    example = tf.io.parse_single_example(record, _INDEXED)
    synset = example["image/class/synset"]
    return (
        example["image/class/label"],
        tf.where(synset == "", example["image/class/text"], synset),
        example["image/encoded"],
    )


def _cut(name: str, found: list[records.Records]) -> list[tuple[records.Records, slice]]:
    """Return the records of each file that a slice such as `train[:90%]` selects."""
    if slices.plain_name(name) == name:
        return [(each, slice(None)) for each in found]
    total = sum(len(each.labels) for each in found)
    part, start, parts = slices.part(name, total), 0, []
    for each in found:
        end = start + len(each.labels)
        # Also a file whose records are all lost, and the lost end of a file, are in the slice around them.
        begins_inside = part.start <= start < part.stop or start == part.stop == total
        if (begins_inside and (end > start or each.corruption)) or start < part.start < end:
            stop = None if end <= part.stop else part.stop - start
            parts.append((each, slice(max(part.start - start, 0), stop)))
        start = end
    return parts


def _split(name: str, found: list[records.Records]) -> Split:
    return records.split(
        name,
        _cut(name, found),
        lambda record: tf.io.parse_single_example(record, _ENCODED)["image/encoded"],
    )
