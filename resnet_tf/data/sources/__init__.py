"""Data sources: `data.source` selects a TFDS data set, a folder, a table, TFRecord or IDX files, or a NumPy archive."""

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import readable, to_names
from resnet_tf.core.errors import UserError, is_full_disk, plain_reason, prefix_errors
from resnet_tf.core.logs import only_errors
from resnet_tf.core.paths import user_path
from resnet_tf.core.targets import SINGLE_LABEL, targets_of
from resnet_tf.core.text import printable
from resnet_tf.data.sources import arrays, folder, idx, imagenet_records, slices, tables, tfds_builders
from resnet_tf.data.sources.base import Corruption, DataSet, Source, Split
from resnet_tf.data.sources.labels import (
    UnlabeledError,
    check_form,
    check_training,
    match_classes,
    warn_of_unlabeled,
)
from resnet_tf.inputs import input_type

__all__ = [
    "Corruption",
    "Source",
    "Split",
    "check_form",
    "is_image_folder",
    "list_splits",
    "match_classes",
    "open_source",
    "open_splits",
    "resolve_splits",
    "warn_of_clash",
]

logger = logging.getLogger(__name__)


def open_source(
    config: DataConfig, *, for_training: bool = True, whole: bool = False, given: Collection[str] | None = None
) -> Source:
    """Open the data source of a configuration.

    A TFDS data set is downloaded and prepared if needed. Classes named by WordNet identifiers of ImageNet (`n01440764`)
    get their labels (`tench`). The splits are those that the configuration names; `resolve_splits` chooses them when a
    training begins.

    Args:
        config: its `source`, the names of its splits, `eval_fraction`, `data_dir` and `long_tail` apply.
        for_training: check that the training split has two classes or more, and all of the other splits.
        whole: the validation split of a folder of class/file is all of it, for the evaluation of data that a model was
            not trained on.
        given: keys that the user set, see `resolve_splits`.

    Returns:
        The splits and class names.

    Raises:
        UserError: if the source or a split does not exist or cannot be read, or has no labeled examples of the input
            type.
    """
    source = _open(config, for_training=for_training, whole=whole, given=given)
    _check_evaluated(source)
    return source


def _open(
    config: DataConfig, *, for_training: bool = False, whole: bool = False, given: Collection[str] | None = None
) -> Source:
    """Open a data source as `open_source` does, also with evaluated splits that have no examples."""
    with _translate_read_errors(config.source):
        warn_of_clash(config)
        found = _find(config, whole)
        source = found.open(slices.resolve(config, found.splits, given))
    if for_training:
        check_training(source)
    if source.targets is not SINGLE_LABEL:
        _check_multi_label(config)
    if config.long_tail > 1:
        kept = _long_tail(source.train.labels, len(source.class_names), config.long_tail)
        source = dataclasses.replace(source, train=source.train.select(kept))
    with prefix_errors(f"data.source={config.source!r}"):
        return dataclasses.replace(source, class_names=readable(to_names(source.class_names)))


def resolve_splits(config: DataConfig, given: Collection[str] | None = None) -> DataConfig:
    """Return the configuration with the names of existing splits, with which a training begins; see `slices.resolve`.

    Of data with a split for validation and one for testing, these are the validation and the test split, unless a user
    named the validation split.

    Args:
        config: names of the source and of its splits.
        given: keys that the user set, such as `data.eval_split`; by default, those with another value than the default.

    Raises:
        UserError: if the source does not exist, or cannot be read.
    """
    with _translate_read_errors(config.source):
        found = _find(config)
        return slices.resolve(config, found.splits, given, is_usable=lambda name: _is_usable(found, config, name))


def _is_usable(found: DataSet, config: DataConfig, name: str) -> bool:
    """Return True if a split has labels and can be used; log one that has not, as no user named it."""
    try:
        with only_errors("resnet_tf"):  # the rest is logged when the splits are opened
            found.open(dataclasses.replace(config, train_split=name, eval_split=name, test_split=""))
    except UserError as error:
        logger.info("%s", printable(f"split {name!r} of {config.source!r} is not used: {error}"))
        return False
    return True


def list_splits(config: DataConfig) -> tuple[str, ...]:
    """Return the names of the existing splits of a data source; `train` and `test` if it is divided when it is opened.

    Raises:
        UserError: if the source does not exist, or cannot be read.
    """
    with _translate_read_errors(config.source):
        return _find(config).splits or ("train", "test")


def open_splits(config: DataConfig) -> tuple[Source, dict[str, Split]]:
    """Open all splits of a data source; those without labels are left out, with a warning, if others have some.

    Returns:
        The source, whose training split is the sum of all splits, and each split by its name, with labels in the
        classes of the sum.

    Raises:
        UserError: as `open_source`.
    """
    found = _open_each(config, list_splits(config))
    names = list(found)
    whole = _open(dataclasses.replace(config, train_split="+".join(names), eval_split=names[0], test_split=""))
    splits = {}
    for name, opened in found.items():
        indices = np.array([whole.class_names.index(each) for each in opened.class_names], np.int64)
        labels = targets_of(opened.train.labels).renumber(opened.train.labels, indices, len(whole.class_names))
        if targets_of(labels) != whole.targets:  # of a split in which every example has one class
            labels = np.eye(len(whole.class_names), dtype=bool)[labels]
        splits[name] = dataclasses.replace(opened.train, labels=labels)
    return whole, splits


def _open_each(config: DataConfig, names: Sequence[str]) -> dict[str, Source]:
    """Open the splits that have labels, each as a source of its own."""
    found: dict[str, Source] = {}
    errors: dict[str, UnlabeledError] = {}
    for name in names:
        try:
            with only_errors("resnet_tf"):  # the rest is logged when all splits are opened
                found[name] = _open(dataclasses.replace(config, train_split=name, eval_split=name, test_split=""))
        except UnlabeledError as error:
            errors[name] = error
    if not found:
        raise next(iter(errors.values()))
    warn_of_unlabeled(config.source, list(errors))
    return found


@contextlib.contextmanager
def _translate_read_errors(source: str) -> Iterator[None]:
    """Raise an `OSError` of the block, which reads a data source, as a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        if is_full_disk(error):  # of a download or a cache
            raise
        raise UserError(f"data.source={source!r} cannot be read: {plain_reason(error)}") from error


def _check_evaluated(source: Source) -> None:
    """Refuse a validation or test split without examples, unless corrupt files lost them, which evaluation names."""
    for use, split in source.splits.items():
        if use != "training" and not split.num_examples and not split.corruption:
            raise UserError(f"split {split.name!r} of {source.name!r} has no examples; evaluation needs at least one")


def _check_multi_label(config: DataConfig) -> None:
    """Refuse settings that need one class for each example."""
    for key, value, unset in (("balance", config.balance, "none"), ("long_tail", config.long_tail, 1.0)):
        if value != unset:
            raise UserError(
                f"data.{key}={value} selects examples by their class, and those of {config.source!r} have any number "
                "of classes; loss.class_weights=inverse weights the classes"
            )


def is_image_folder(config: DataConfig) -> bool:
    """Return True if a data source is a folder of image files."""
    path = user_path(config.source)
    with _translate_read_errors(config.source):
        return config.source != "digits" and path.is_dir() and _find_in_directory(path, config, whole=False) is None


def _long_tail(labels: np.ndarray, classes: int, ratio: float) -> np.ndarray:
    """Return indices of a long-tailed subset: the first n_k examples of class k.

    n_k = n * ratio^(-k / (classes - 1)), where n is the mean number of examples of a class.

    References: Cui et al., Class-Balanced Loss, 2019, sec. 5.1; Cao et al., LDAM, 2019, with the same counts.
    """
    mean = len(labels) / classes
    counts = (mean * ratio ** (-np.arange(classes) / max(classes - 1, 1))).astype(int)
    members = (np.flatnonzero(labels == label)[: max(count, 1)] for label, count in enumerate(counts))
    return np.sort(np.concatenate(list(members)))


def warn_of_clash(config: DataConfig) -> None:
    """Log a warning if `data.source` is both the name of a data set and a file or folder."""
    with _translate_read_errors(config.source):
        if not user_path(config.source).exists():
            return
    if config.source == "digits":
        logger.warning(
            "data.source='digits' is the data set in the package; data.source=./digits is the file or folder"
        )
    elif config.source.isidentifier() and config.source in tfds.list_builders(with_community_datasets=False):
        logger.warning(
            "data.source=%r is the file or folder, not the data set of TFDS; write data.source=./%s, because the name "
            "means the data set in other directories",
            *[config.source] * 2,
        )


def _find(config: DataConfig, whole: bool = False) -> DataSet:
    path = user_path(config.source)
    input_type(config).check_source(config.source)
    if config.source == "digits":
        return tfds_builders.find_digits(config)
    if path.is_dir():
        return _find_in_directory(path, config, whole) or _find_images(path, config, whole)
    if path.suffix == ".npz" and path.is_file():
        return arrays.find_arrays(path)
    if path.is_file() and tables.is_table(path):
        return tables.find_table(path, config, whole=whole)
    if path.exists():
        raise UserError(
            f"data.source={config.source!r} is no .npz file and no table (.csv, .tsv, .parquet); expected one of "
            "these, a folder, or the directory or name of a TFDS data set"
        )
    if not tfds_builders.parse_name(config.source):
        raise UserError(f"data.source={config.source!r}: no such folder or file")
    return tfds_builders.find_registered(config)


def _find_in_directory(path: Path, config: DataConfig, whole: bool) -> DataSet | None:
    """Return the data set of files other than images in a directory, or None for a folder of images."""
    if version := tfds_builders.find_version(path):
        return tfds_builders.find_directory(version)
    if imagenet_records.has_split(path, config.train_split) or imagenet_records.has_only_records(path):
        return imagenet_records.find_records(path, config)
    if idx.list_files(path):
        return idx.find_idx(path)
    if tables.is_table(path):
        return tables.find_table(path, config, whole=whole)
    return None


def _find_images(path: Path, config: DataConfig, whole: bool) -> DataSet:
    """Return the data set of a folder of images; the name of a table in it is logged when it is opened."""
    found = folder.find_folder(path, config, whole=whole)

    def open_folder(config: DataConfig) -> Source:
        if beside := [each for each in sorted(path.iterdir()) if each.is_file() and tables.is_table(each)]:
            logger.info("%s", printable(f"{str(path)!r} has a table: data.source={beside[0]} takes labels from it"))
        return found.open(config)

    return DataSet(found.splits, open_folder)
