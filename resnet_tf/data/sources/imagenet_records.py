"""TFRecord files in the common layout of ImageNet: features `image/encoded` and `image/class/label`.

The layout is that of TensorFlow's `build_imagenet_data.py`: files `train-00000-of-01024`, labels from 1 on (0 is
reserved for a background class), and the WordNet identifier in `image/class/synset`.
"""

import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import imagenet_labels
from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import MAX_CLASSES
from resnet_tf.data.sources import records
from resnet_tf.data.sources.base import Source, Split

_LABEL = {
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    "image/class/synset": tf.io.FixedLenFeature([], tf.string, ""),
    "image/class/text": tf.io.FixedLenFeature([], tf.string, ""),
}
_ENCODED = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
_SHARD = re.compile(r"-\d+-of-\d+$|\.tfrecords?(-\d+-of-\d+)?$")


def list_files(root: Path, split: str) -> list[str]:
    """Return the record files of a split: `split-00000-of-01024`, `split.tfrecord`, or any such name in `split/`."""
    beside = [path for path in root.iterdir() if re.match(rf"{re.escape(split)}(?![a-zA-Z0-9])", path.name)]
    inside = [path for folder in beside if folder.is_dir() and folder.name == split for path in folder.iterdir()]
    return sorted(str(path) for path in [*beside, *inside] if path.is_file() and _SHARD.search(path.name))


def open_records(root: Path, config: DataConfig) -> Source:
    """Open the splits that `config` names; labels that begin at 1 are shifted to 0.

    Raises:
        UserError: if a split has no record files, or no record has an image and a label.
    """
    found = {name: _index(root, name) for name in config.splits}
    labels = np.concatenate([each.labels[each.labels >= 0] for split in found.values() for each in split])
    if not len(labels):
        first = found[config.train_split][0]
        reason = first.corruption[0].reason if first.corruption else "it is empty"
        raise UserError(f"no record of {first.file!r} has image/encoded and image/class/label: {reason}")
    first_label = int(labels.min() > 0)
    names: dict[int, str] = {}
    for each in (each for split in found.values() for each in split):
        names |= {label: name for label, name in each.names.items() if name and label >= 0}
    count = int(labels.max()) + 1 - first_label
    if count > MAX_CLASSES:
        raise UserError(f"the records of {str(root)!r} have the label {labels.max()}, beyond {MAX_CLASSES:,} classes")
    if not names and count == len(imagenet_labels()):
        class_names = imagenet_labels()
    else:
        class_names = tuple(names.get(label + first_label, str(label)) for label in range(count))
    return Source(str(root), class_names, *(_split(name, each, first_label, count) for name, each in found.items()))


def _index(root: Path, split: str) -> list[records.Records]:
    files = list_files(root, split)
    if not files:
        present = ", ".join(sorted(path.name for path in root.iterdir())[:8])
        raise UserError(
            f"{str(root)!r} has no record files of split {split!r}, such as {split}-00000-of-00001; it has {present}. "
            "data.train_split, data.eval_split and data.test_split name the splits"
        )
    return records.index(files, _parse_label, layout="imagenet")


def _parse_label(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    example = tf.io.parse_single_example(record, _LABEL)
    synset = example["image/class/synset"]
    return example["image/class/label"], tf.where(synset == "", example["image/class/text"], synset)


def _split(name: str, found: list[records.Records], first_label: int, num_classes: int) -> Split:
    return records.split(
        name,
        [(each, slice(None)) for each in found],
        lambda record: tf.io.parse_single_example(record, _ENCODED)["image/encoded"],
        num_classes=num_classes,
        first_label=first_label,
    )
