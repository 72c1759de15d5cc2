"""What every source gives: splits whose examples can be had one by one, in any order, as operations of a graph."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.core.machine import cores
from resnet_tf.core.text import printable
from resnet_tf.data.autotune import without_autotune


class DataIdentity(TypedDict):
    """Identity of a source, by which a run recognizes its data.

    Attributes:
        name: name of the source.
        class_names: class names in label order.
        splits: `examples` and a hash of the `labels` of each split.
    """

    name: str
    class_names: list[str]
    splits: dict[str, dict[str, int | str]]


@dataclass(frozen=True)
class Damage:
    """A place of a file where examples cannot be read.

    Attributes:
        file: its path.
        offset: in bytes.
        reason: what is wrong there.
        examples: how many are lost, as far as it can be told.
    """

    file: str
    offset: int
    reason: str
    examples: int = 1


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        name: as it was asked for, such as `train` or `train[:90%]`.
        labels: int64 [N], those of the examples in order.
        load: from an example's place (int64 scalar) to its picture, in graph operations: an encoded picture, a string
            scalar, or pixels, uint8 [height, width, 1 or 3]; or to a signal, float32 [length, channels].
        stream: the same as a dataset of one picture, for sources that are datasets themselves; None for others.
        locate: where an example lies, from its place: `file`, and `offset` or `index` if the file holds several.
        damage: what of its files cannot be read; the examples there are not counted.
    """

    name: str
    labels: np.ndarray
    load: Callable[[tf.Tensor], tf.Tensor]
    locate: Callable[[int], dict[str, Any]]
    damage: tuple[Damage, ...] = ()
    stream: Callable[[tf.Tensor], tf.data.Dataset] | None = None

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.labels)

    def examples(self, count: int = -1) -> tf.data.Dataset:
        """The first `count` examples, or all of them, in order: (picture, label: int64)."""
        places = tf.range(self.num_examples if count < 0 else min(count, self.num_examples), dtype=tf.int64)
        labels = tf.constant(self.labels)
        return without_autotune(self.rows(places, lambda row, picture: (picture, labels[row])))

    def rows(self, places: tf.Tensor, change: Callable[[tf.Tensor, tf.Tensor], Any]) -> tf.data.Dataset:
        """What `change(row, picture)` makes of the pictures at `places`, int64 [n], for the rows 0 to n - 1, in order.

        Side by side on all cores, also where TensorFlow's op determinism is on: that takes maps apart into single
        steps if they hold operations with a state, such as a dataset's, but not interleaved datasets
        (`make_deterministic.cc`).
        """
        rows, parallel = tf.data.Dataset.range(tf.size(places, tf.int64)), min(cores(), 8)
        if self.stream is None:
            return rows.map(lambda row: change(row, self.load(places[row])), num_parallel_calls=parallel)
        stream = self.stream
        pictures = rows.interleave(
            lambda row: stream(places[row]).map(lambda picture: (row, picture)),
            cycle_length=2 * parallel,
            num_parallel_calls=parallel,
            deterministic=True,
        )
        return pictures.map(change, num_parallel_calls=parallel)

    def chosen(self, places: np.ndarray) -> "Split":
        """The split of nothing but the examples at `places`, int64 [n], in that order."""
        where, load, stream, locate = tf.constant(places, tf.int64), self.load, self.stream, self.locate
        return dataclasses.replace(
            self,
            labels=self.labels[places],
            load=lambda place: load(where[place]),
            locate=lambda place: locate(int(places[place])),
            stream=stream and (lambda place: stream(where[place])),
        )

    def check_whole(self) -> None:
        """Refuse a split that a test would count short.

        Raises:
            UserError: naming the first damaged place.
        """
        if self.damage:
            first = self.damage[0]
            raise UserError(
                f"split {self.name!r} is damaged: {first.file!r} at byte {first.offset}: {first.reason}; a test takes "
                "every example"
            )


@dataclass(frozen=True, repr=False)
class Source:
    """A data set.

    Attributes:
        name: of the data set.
        class_names: in label order.
        train: the training split.
        validation: the validation split, `data.eval_split`, which selects checkpoints.
        test: the test split, `data.test_split`, which no decision depends on; None if there is none.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """Return the splits by their use: `training`, `validation` and, if there is one, `test`."""
        return {"training": self.train, "validation": self.validation} | ({"test": self.test} if self.test else {})

    def to_dict(self) -> dict[str, object]:
        """Return name, class names and the size of each split, ready for JSON."""
        splits = [{"name": split.name, "examples": split.num_examples} for split in self.splits.values()]
        return {"name": self.name, "class_names": list(self.class_names), "splits": splits}

    def __repr__(self) -> str:
        splits = (f"{split.name}={split.num_examples:,}" for split in self.splits.values())
        return f"Source({self.name!r}, {len(self.class_names):,} classes, {', '.join(splits)})"

    @property
    def identity(self) -> DataIdentity:
        """What a run must find again when it continues."""
        splits: dict[str, dict[str, int | str]] = {
            split.name: {
                "examples": split.num_examples,
                "labels": hashlib.sha256(split.labels.tobytes()).hexdigest()[:16],
            }
            for split in self.splits.values()
        }
        return {"name": self.name, "class_names": list(self.class_names), "splits": splits}

    @property
    def class_counts(self) -> np.ndarray:
        """Training examples of each class, int64 [C]."""
        return np.bincount(self.train.labels, minlength=len(self.class_names))

    def describe_splits(self) -> str:
        """Return the number of examples of each split in words."""
        parts = [f"{split.num_examples:,} {use}" for use, split in self.splits.items()]
        return f"{', '.join(parts[:-1])} and {parts[-1]} examples"

    def describe_classes(self) -> str:
        """The class counts in a line: all of them if they are few, otherwise the extremes."""
        counts, names = self.class_counts, [printable(name) for name in self.class_names]
        if len(counts) <= 10:
            return ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
        fewest, most = int(counts.argmin()), int(counts.argmax())
        return (
            f"{len(counts):,} classes of {counts[fewest]:,} ({names[fewest]}) to {counts[most]:,} "
            f"({names[most]}) examples, median {np.median(counts):,.0f}"
        )


def check_classes(labels: Sequence[str], source: Source) -> None:
    """Refuse a data set whose classes are not those that a model answers with."""
    if tuple(labels) != source.class_names:
        present = _shortened(source.class_names)
        raise UserError(f"the model knows the classes {_shortened(labels)}, but {source.name!r} has {present}")


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, ... ({len(names)})" if len(names) > 5 else shown
