"""Labels, class names and the classes of splits, checked in the same way for every data source."""

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from resnet_tf.core.class_names import canonical, find_duplicate, find_indices
from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import MAX_CLASSES
from resnet_tf.core.targets import MULTI_LABEL, SINGLE_LABEL, targets_of, targets_with
from resnet_tf.core.text import counted, printable, shortened
from resnet_tf.data.sources.base import Source, Split, shorten_names

logger = logging.getLogger(__name__)

_MAX_NAME = 40  # characters of a class name in messages


class UnlabeledError(UserError):
    """Split without labels, such as a test split whose labels are hidden."""


def source_of_names(name: str, splits: Sequence[Split], class_names: Sequence[str]) -> Source:
    """Return a source whose labels are indices of its class names.

    Args:
        name: name or path of the data set.
        splits: training, validation and optional test split.
        class_names: names of the classes in label order.

    Raises:
        UserError: for a label without a class, which is named with its file and position, or for two classes of one
            name.
    """
    check_distinct(class_names, name)
    for split in splits:
        _check_range(split, len(class_names))
    return Source(name, tuple(class_names), *splits)


def source_of_labels(
    name: str, splits: Sequence[Split], labels: np.ndarray, class_names: Mapping[int, str] | None = None
) -> Source:
    """Return a source whose classes are the labels that occur, in ascending order.

    A class is named by its label, unless a name is given: labels 1 to 3 make the classes `1`, `2` and `3`, not `0` to
    `3`, so that data with another numbering has other class names.

    Args:
        name: name or path of the data set.
        splits: training, validation and optional test split, with labels as stored.
        labels: all labels of the complete splits, of which `splits` may be slices.
        class_names: names of labels.

    Raises:
        UserError: for a negative label or one beyond the largest possible number of classes, which is named with its
            file and position, or for two classes of one name.
    """
    for split in splits:
        _check_range(split, MAX_CLASSES)
    found = np.unique(labels)
    found = found[(found >= 0) & (found < MAX_CLASSES)]
    named = class_names or {}
    names = [named.get(int(label)) or str(label) for label in found]
    check_distinct(names, name)
    if not named and len(gaps := np.flatnonzero(np.diff(found) > 1)):
        logger.warning(
            "%s",
            printable(
                f"{name!r} has no label between {found[gaps[0]]} and {found[gaps[0] + 1]}; its {len(found):,} labels "
                f"make as many classes: {shorten_names(names)}"
            ),
        )
    encoded = (dataclasses.replace(split, labels=np.searchsorted(found, split.labels)) for split in splits)
    return Source(name, tuple(names), *encoded)


def columns_to_labels(columns: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return the labels of splits from one column for each class: single-label if every example has one class.

    Args:
        columns: for each split, 1 or True where an example has a class, numbers or bool [N, C].
        name: name or path of the data set.

    Returns:
        For each split, int64 [N] if each row of all splits has a single 1, as one-hot labels do, otherwise bool [N, C].

    Raises:
        UserError: for other values than 0 and 1, or splits with different numbers of classes, naming the split.
    """
    widths = {split: array.shape[1] for split, array in columns.items()}
    if len(set(widths.values())) > 1:
        counts = ", ".join(f"{split!r} {width:,}" for split, width in widths.items())
        raise UserError(f"{name!r}: the splits have labels for different numbers of classes: {counts}")
    for split, array in columns.items():
        if wrong := next((each for each in np.unique(array) if each not in (0, 1)), None):
            raise UserError(
                f"{name!r}: the labels of {split!r} have a column for each class, and hold {wrong:g}; expected 0 or 1"
            )
    if all((array.sum(axis=1) == 1).all() for array in columns.values()):
        logger.info("%s", printable(f"{name!r}: every example has one class: single-label targets"))
        return {split: array.argmax(axis=1) for split, array in columns.items()}
    return {split: array.astype(bool) for split, array in columns.items()}


def check_distinct(class_names: Sequence[str], name: str) -> None:
    """Check that no two classes have the same name.

    Raises:
        UserError: naming the first two classes of one name.
    """
    if pair := find_duplicate(class_names):
        raise UserError(f"{name!r}: {pair}")


def check_training(source: Source) -> None:
    """Check that a network can be trained: on two classes or more, and on each class that it is evaluated on.

    A slice of the training split that lacks a class, such as `train[:100]`, gives a warning only.

    Raises:
        UserError: naming the class and the split.
    """
    present = {
        split.name: [source.class_names[label] for label in source.targets.present(split.labels)]
        for split in source.splits.values()
    }
    test = source.test.name if source.test else ""
    check_classes(source.name, source.train.name, present[source.train.name], present, test=test)


def check_classes(
    name: str, train: str, trained: Collection[str], evaluated: Mapping[str, Collection[str]], *, test: str = ""
) -> None:
    """Check the classes of the splits of a data set; see `check_training`.

    Args:
        name: name or path of the data set.
        train: name of the training split.
        trained: classes of the training split.
        evaluated: classes of each split, by its name.
        test: name of the test split, which may be left out.

    Raises:
        UserError: naming the class and the split.
    """
    if len(trained) < 2:
        only = shortened(next(iter(trained), ""), _MAX_NAME)
        raise UserError(
            f"{name!r}: split {train!r} has one class, {only!r}; training needs two or more. data.train_split names "
            "the training split"
        )
    known = set(trained)
    for split, classes in evaluated.items():
        if missing := [each for each in classes if each not in known]:
            more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
            message = f"{name!r}: class {shortened(missing[0], _MAX_NAME)!r}{more} is in {split!r} but not in {train!r}"
            if "[" not in train:
                advice = (
                    "data.test_split= leaves it out"
                    if split == test
                    else "data.train_split and data.eval_split name splits"
                )
                raise UserError(f"{message}, where training needs all classes. {advice}")
            logger.warning("%s", printable(message))


def check_form(split: Split, thresholds: Sequence[float] | None) -> None:
    """Check that the examples of a split have one class or any number of them, as those that a network was trained on.

    Args:
        split: split to evaluate.
        thresholds: see `core.targets.targets_with`.

    Raises:
        UserError: if they differ.
    """
    found, expected = targets_of(split.labels), targets_with(thresholds)
    if found is not expected:
        texts = {SINGLE_LABEL: "one class", MULTI_LABEL: "any number of classes"}
        raise UserError(
            f"the model gives an example {texts[expected]}, but those of split {split.name!r} have {texts[found]}"
        )


def match_classes(class_names: Sequence[str], source: Source, trained_names: Sequence[str] = ()) -> Source:
    """Return a data set with the classes of a model, matched by name; it may lack some, and have another order.

    Args:
        class_names: class names of the model.
        source: data set, for evaluation.
        trained_names: names of the same classes in the training data, if these are known and the model may rename them.

    Raises:
        UserError: if the data set has a class that the model lacks, or one of both has two classes of one name.
    """
    if list(map(canonical, class_names)) == list(map(canonical, source.class_names)):
        return source
    if source.class_names == tuple(trained_names) and set(trained_names) != set(class_names):
        return dataclasses.replace(source, class_names=tuple(class_names))
    labels = np.array(find_indices(source.class_names, class_names), np.int64)
    if (labels < 0).any() or any(map(find_duplicate, (class_names, source.class_names))):
        raise UserError(
            f"the model has the classes {shorten_names(class_names)}, but {source.name!r} has "
            f"{shorten_names(source.class_names)}"
        )
    lacking = [class_names[label] for label in np.setdiff1d(np.arange(len(class_names)), labels)]
    if lacking:
        count = f"{len(lacking):,} of {len(class_names):,} classes of the model"
        logger.warning("%s", printable(f"{count} are not in {source.name!r}: {shorten_names(lacking)}"))
    splits = (
        dataclasses.replace(split, labels=source.targets.renumber(split.labels, labels, len(class_names)))
        for split in source.splits.values()
    )
    return Source(source.name, tuple(class_names), *splits)


def _check_range(split: Split, count: int) -> None:
    """Check that the labels of a split are in [0, count); those of several labels have one column for each."""
    if split.labels.ndim > 1:
        if split.labels.shape[1] != count:
            raise UserError(f"split {split.name!r} has {split.labels.shape[1]:,} labels for {counted(count, 'class')}")
        return
    wrong = np.flatnonzero((split.labels < 0) | (split.labels >= count))
    if not len(wrong):
        return
    label, location = split.labels[wrong[0]], split.locate(int(wrong[0]))
    units = {"offset": "byte", "row": "row", "index": "index"}
    position = next((f", {unit} {location[key]}" for key, unit in units.items() if key in location), "")
    reason = f"but the number of classes is {count:,}" if label >= 0 else "expected non-negative integers"
    if label == -1:
        reason += "; -1 is usual for examples without a label"
    elif label == count and split.labels.min() == 1:
        reason += "; labels count from 0, but the lowest is 1"
    further = f" ({len(wrong):,} such labels)" if len(wrong) > 1 else ""
    error = UnlabeledError if (split.labels < 0).all() else UserError
    raise error(f"split {split.name!r}: {location['file']!r}{position}, has label {label}, {reason}{further}")


def warn_of_unlabeled(source: str, splits: Sequence[str]) -> None:
    """Log a warning about splits without labels that are left out; nothing if there are none."""
    if splits:
        noun = "a split without labels is" if len(splits) == 1 else "splits without labels are"
        logger.warning("%s", printable(f"{source!r}: {noun} left out: {', '.join(splits)}"))
