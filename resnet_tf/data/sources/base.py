"""Sources and splits: random access to examples as graph operations."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import canonical
from resnet_tf.core.errors import UserError
from resnet_tf.core.graphs import without_autograph
from resnet_tf.core.machine import cores
from resnet_tf.core.targets import Targets, targets_of
from resnet_tf.core.text import counted, printable, shortened
from resnet_tf.data.autotune import without_autotune
from resnet_tf.inputs import headers

_MAX_NAME = 40  # characters of a class name in messages
_SAMPLED = 64  # images whose sizes are sampled


class DataIdentity(TypedDict):
    """Identity of a source, by which a run recognizes its data.

    Attributes:
        name: name of the source.
        class_names: class names in label order.
        splits: `examples`, a hash of the `labels` in order, and the `content` of each split (`Split.fingerprint`).
    """

    name: str
    class_names: list[str]
    splits: dict[str, dict[str, int | str]]


@dataclass(frozen=True)
class Corruption:
    """A corrupt part of a file.

    Attributes:
        file: path of the file.
        offset: where the part begins, in bytes.
        reason: description of the error.
        examples: number of lost examples, as far as it is known.
    """

    file: str
    offset: int
    reason: str
    examples: int = 1


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set.

    Attributes:
        name: name in the configuration, such as `train` or `train[:90%]`.
        labels: labels of the examples in order, int64 [N], or bool [N, C] with any number of classes for each example;
            see `core.targets`.
        load: function, in graph operations, from the index of an example, an int64 scalar, to the example: an encoded
            image, a string scalar; pixels, uint8 [H, W, 1 or 3]; or a signal, float32 [L, C].
        locate: function from the index of an example to its location: `file`, and, if the file holds several examples,
            `offset` (bytes), `row` (from 1), or `split` and `index`.
        hashes: hash of the content of each example, int64 [N], where it is known without reading the examples.
        corruption: corrupt parts of the files; their examples are not in the split.
        stream: like `load`, but returns a dataset of one example, for sources that read datasets; otherwise None.
        fingerprint: function that returns a hash of the names and sizes of the examples in order, independent of the
            directory that they lie in. It reads no examples.
        column: function from the name of a column to its text for each example, where examples come from a table;
            otherwise it raises a `UserError`.
    """

    name: str
    labels: np.ndarray
    load: Callable[[tf.Tensor], tf.Tensor]
    locate: Callable[[int], dict[str, Any]]
    hashes: np.ndarray | None = None
    corruption: tuple[Corruption, ...] = ()
    stream: Callable[[tf.Tensor], tf.data.Dataset] | None = None
    fingerprint: Callable[[], str] = lambda: ""
    column: Callable[[str], list[str]] = lambda name: _no_column(name)

    @property
    def num_examples(self) -> int:
        """Number of readable examples, N."""
        return len(self.labels)

    def examples(self, count: int = -1) -> tf.data.Dataset:
        """Return a dataset of (example, its label), in order; the first `count` of them if not negative."""
        indices = tf.range(self.num_examples if count < 0 else min(count, self.num_examples), dtype=tf.int64)
        labels = tf.constant(self.labels)
        return without_autotune(self.map(indices, lambda position, example: (example, labels[position])))

    def map(self, indices: tf.Tensor, function: Callable[[tf.Tensor, tf.Tensor], Any]) -> tf.data.Dataset:
        """Apply a function to examples, in parallel on all cores.

        Execution is also parallel with TensorFlow's op determinism, which serializes maps that hold stateful
        operations, such as those of a dataset, but not interleaved datasets (`make_deterministic.cc`).

        Args:
            indices: indices of examples, int64 [n].
            function: function, in graph operations, of a position in `indices`, an int64 scalar, and the example there.

        Returns:
            A dataset of the n results in order.
        """
        positions, parallel = tf.data.Dataset.range(tf.size(indices, tf.int64)), min(cores(), 8)
        if self.stream is None:
            return positions.map(
                without_autograph(lambda position: function(position, self.load(indices[position]))),
                num_parallel_calls=parallel,
            )
        stream = self.stream
        examples = positions.interleave(
            without_autograph(lambda position: stream(indices[position]).map(lambda example: (position, example))),
            cycle_length=2 * parallel,
            num_parallel_calls=parallel,
            deterministic=True,
        )
        return examples.map(without_autograph(function), num_parallel_calls=parallel)

    def evenly_spaced(self, count: int) -> np.ndarray:
        """Return indices of at most `count` examples across the split, which is often sorted by class, int64 [n]."""
        return np.linspace(0, self.num_examples - 1, min(count, self.num_examples)).astype(np.int64)

    def select(self, indices: np.ndarray) -> "Split":
        """Return a split of the examples at `indices`, int64 [n], in that order."""
        selected, load, stream, locate = tf.constant(indices, tf.int64), self.load, self.stream, self.locate
        column = self.column

        def select_column(name: str) -> list[str]:
            values = column(name)
            return [values[index] for index in indices]

        return dataclasses.replace(
            self,
            labels=self.labels[indices],
            hashes=None if self.hashes is None else self.hashes[indices],
            load=lambda index: load(selected[index]),
            locate=lambda index: locate(int(indices[index])),
            stream=stream and (lambda index: stream(selected[index])),
            column=select_column,
        )

    @staticmethod
    def join(name: str, splits: Sequence["Split"]) -> "Split":
        """Return the examples of several splits, one split after the other, under a name."""
        if len(splits) == 1:
            return dataclasses.replace(splits[0], name=name)
        corruption = tuple(corrupt for split in splits for corrupt in split.corruption)  # also of a split that is empty
        splits = [split for split in splits if split.num_examples] or splits[:1]
        ends = np.cumsum([split.num_examples for split in splits])
        starts = ends - [split.num_examples for split in splits]
        hashes = [split.hashes for split in splits if split.hashes is not None]
        streams = [split.stream for split in splits if split.stream]

        def load(index: tf.Tensor) -> tf.Tensor:
            position = tf.searchsorted(ends, index[tf.newaxis], side="right")[0]
            functions = [
                functools.partial(split.load, index - start) for split, start in zip(splits, starts, strict=True)
            ]
            return tf.switch_case(position, functions)

        def stream(index: tf.Tensor) -> tf.data.Dataset:
            # One of these datasets has an example, and only its file is opened.
            parts = [
                read(tf.clip_by_value(index, start, end - 1) - start).take(
                    tf.cast((start <= index) & (index < end), tf.int64)
                )
                for read, start, end in zip(streams, starts, ends, strict=True)
            ]
            return functools.reduce(tf.data.Dataset.concatenate, parts)

        def locate(index: int) -> dict[str, Any]:
            position = int(np.searchsorted(ends, index, side="right"))
            return splits[position].locate(index - int(starts[position]))

        return Split(
            name,
            np.concatenate([split.labels for split in splits]),
            load,
            locate,
            hashes=np.concatenate(hashes) if len(hashes) == len(splits) else None,
            corruption=corruption,
            stream=stream if len(streams) == len(splits) else None,
            fingerprint=lambda: hash_parts(split.fingerprint() for split in splits),
            column=lambda column: [value for split in splits for value in split.column(column)],
        )

    def check_complete(self) -> None:
        """Refuse a split with corrupt files, for evaluation, which counts every example.

        Raises:
            UserError: naming the first corrupt part.
        """
        if self.corruption:
            first = self.corruption[0]
            raise UserError(
                f"split {self.name!r} is corrupt: {first.file!r} at byte {first.offset}: {first.reason}; evaluation "
                "needs every example"
            )


@dataclass(frozen=True, repr=False)
class Source:
    """A data set with its splits.

    Attributes:
        name: name or path of the data set.
        class_names: names of the classes in label order.
        train: training split, `data.train_split`.
        validation: validation split, `data.eval_split`, which selects checkpoints.
        test: test split, `data.test_split`, which no decision depends on, or None.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None = None

    @property
    def targets(self) -> Targets:
        """Form of the labels."""
        return targets_of(self.train.labels)

    @property
    def splits(self) -> dict[str, Split]:
        """Splits by their use: `training`, `validation` and, if it exists, `test`."""
        return {"training": self.train, "validation": self.validation} | ({"test": self.test} if self.test else {})

    def to_dict(self) -> dict[str, object]:
        """Return name, class names and the size of each split, ready for JSON."""
        splits = [{"name": split.name, "examples": split.num_examples} for split in self.splits.values()]
        return {"name": self.name, "class_names": list(self.class_names), "splits": splits}

    def __repr__(self) -> str:
        splits = (f"{printable(split.name)}={split.num_examples:,}" for split in self.splits.values())
        return f"Source({self.name!r}, {counted(len(self.class_names), 'class')}, {', '.join(splits)})"

    @functools.cached_property
    def identity(self) -> DataIdentity:
        """Identity of the data, which a resumed run compares with that of its checkpoint."""
        splits: dict[str, dict[str, int | str]] = {
            split.name: {
                "examples": split.num_examples,
                "labels": hashlib.sha256(split.labels.tobytes()).hexdigest()[:16],
                "content": split.fingerprint(),
            }
            for split in self.splits.values()
        }
        return {"name": self.name, "class_names": list(self.class_names), "splits": splits}

    @property
    def class_counts(self) -> np.ndarray:
        """Number of training examples of each class, int64 [C]."""
        return self.targets.class_counts(self.train.labels, len(self.class_names))

    def describe_splits(self) -> str:
        """Describe the number of examples of each split, and the names of the splits."""
        *parts, last = ((split.num_examples, use) for use, split in self.splits.items())
        first = ", ".join(f"{count:,} {use}" for count, use in parts)
        names = ", ".join(repr(split.name) for split in self.splits.values())
        return f"{first} and {counted(last[0], f'{last[1]} example')} (splits {names})"

    def describe_classes(self) -> str:
        """Describe the class counts in one line: all of at most 10 classes, otherwise smallest, largest and median."""
        counts, names = self.class_counts, [shortened(name, _MAX_NAME) for name in self.class_names]
        if len(counts) <= 10:
            return ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
        fewest, most = int(counts.argmin()), int(counts.argmax())
        return (
            f"{len(counts):,} classes of {counts[fewest]:,} ({names[fewest]}) to {counts[most]:,} "
            f"({names[most]}) examples, median {np.median(counts):,.0f}"
        )


@dataclass(frozen=True)
class DataSet:
    """A data set that was found at `data.source`, and whose splits are not opened yet.

    Attributes:
        splits: names of the existing splits, in order; empty if it has a training and a validation split under any of
            their usual names.
        open: function that opens the splits that a configuration names.
    """

    splits: tuple[str, ...]
    open: Callable[[DataConfig], Source]


def sample_sizes(split: Split) -> np.ndarray:
    """Return (height, width) of at most 64 images across a split, int64 [n, 2], without decoding them.

    Unreadable images are left out.
    """
    indices = tf.constant(split.evenly_spaced(_SAMPLED))
    sizes = split.map(indices, lambda position, example: headers.stored_size(example))
    found = list(without_autotune(sizes.ignore_errors(log_warning=False)).as_numpy_iterator())
    return np.array([size for size in found if size.all()], np.int64).reshape(-1, 2)


def find_difference(before: DataIdentity, now: DataIdentity) -> str:
    """Describe the first difference between the identities of two sources; empty if they hold the same data.

    Names of sources are not compared, since data may have been moved; nor is content that a checkpoint does not state.

    >>> before = {"name": "photos", "class_names": ["cat"], "splits": {"train": {"examples": 12}}}
    >>> now = {"name": "photos", "class_names": ["cat"], "splits": {"train": {"examples": 13}}}
    >>> find_difference(before, now)
    'train: 12 examples then, 13 now'
    """
    if list(map(canonical, before["class_names"])) != list(map(canonical, now["class_names"])):
        names = [shorten_names(each["class_names"]) for each in (before, now)]
        return f"the classes were {names[0]}; they are {names[1]} now"
    if sorted(before["splits"]) != sorted(now["splits"]):
        return f"the splits were {', '.join(before['splits'])}; they are {', '.join(now['splits'])} now"
    for name, found in now["splits"].items():
        earlier, examples = before["splits"][name], found["examples"]
        if earlier.get("examples") != examples:
            return f"{name}: {counted(int(earlier.get('examples', 0)), 'example')} then, {int(examples):,} now"
        if earlier.get("labels") != found["labels"]:
            return f"{name}: {counted(int(examples), 'example')} as before, but their labels or their order differ"
        if earlier.get("content", found["content"]) != found["content"]:
            return f"{name}: {counted(int(examples), 'example')} as before, but their names or sizes differ"
    return ""


def _no_column(name: str) -> list[str]:
    raise UserError(f"there is no column {name!r}: the data do not come from a table")


def hash_parts(parts: Iterable[str | bytes]) -> str:
    """Return a hash of texts and bytes in order, for `Split.fingerprint`."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = os.fsencode(part)
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.hexdigest()[:16]


def shorten_names(names: Sequence[str]) -> str:
    """Return the first five class names, and their number if there are more."""
    shown = ", ".join(shortened(name, _MAX_NAME) for name in names[:5])
    return f"{shown}, ... ({len(names)})" if len(names) > 5 else shown
