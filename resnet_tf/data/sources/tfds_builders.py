"""TFDS data sets: by name, from a prepared directory, and the embedded digits."""

import contextlib
import dataclasses
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from resnet_tf.config import DataConfig
from resnet_tf.core import locks
from resnet_tf.core.errors import UserError, closest, plain_reason
from resnet_tf.core.files import is_hidden, make_directory
from resnet_tf.core.paths import user_path
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.ranges import MAX_CLASSES
from resnet_tf.core.text import counted
from resnet_tf.data.sources import digits, label_sets, records, slices
from resnet_tf.data.sources.base import Corruption, DataSet, Source, Split
from resnet_tf.data.sources.labels import source_of_names
from resnet_tf.data.sources.tfds_metadata import check_label_file, check_metadata

logger = logging.getLogger(__name__)

# Reference: TFDS, `tfds.load`: `dataset_name[/config_name][:version]`, where `*` stands for any number of a version.
_NAME = re.compile(r"([a-z]\w*)(?:/([\w.-]+))?(?::((?:\d+|\*)\.(?:\d+|\*)\.(?:\d+|\*)))?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """Name of a TFDS data set.

    Attributes:
        data_set: name without configuration and version.
        config: name of a configuration, or empty.
        version: version such as `3.0.2` or `3.*.*`, or empty.
    """

    data_set: str
    config: str
    version: str

    @property
    def path(self) -> Path:
        """Path in the directory of prepared data sets."""
        return Path(self.data_set, self.config, self.version)


def parse_name(text: str) -> Name | None:
    """Return a name of the form `name[/config][:version]`, None for other text without a colon.

    Raises:
        UserError: for a namespace (`huggingface:x`, `kaggle:x`), because TFDS would download and run foreign code, or
            an incomplete version.
    """
    if found := _NAME.fullmatch(text):
        return Name(*(part or "" for part in found.groups()))
    before, colon, after = text.partition(":")
    if not colon or not _NAME.fullmatch(before):
        return None
    if re.match("[a-z]", after, re.IGNORECASE):
        raise UserError(
            f"data.source={text!r} names a community data set, whose code would be downloaded and run; prepare it with "
            "TFDS, and use the path of the prepared directory"
        )
    raise UserError(f"data.source={text!r} has no complete version; expected three numbers, such as {before}:1.0.0")


def find_digits(config: DataConfig) -> DataSet:
    """Return the embedded data set."""
    return _find_defined(digits.Digits, Name("digits", "", ""), config)


def find_directory(version: Path) -> DataSet:
    """Return the prepared data set in a directory that `find_version` returned.

    Raises:
        UserError: if its metadata is corrupt or names a class that is not TFDS's own.
    """
    check_metadata(version)
    try:
        builder = tfds.builder_from_directory(version)
    except Exception as error:  # TFDS raises many types for corrupt metadata
        raise UserError(f"{str(version)!r} is not a TFDS data set that can be read: {plain_reason(error)}") from error
    return _data_set(builder)


def find_registered(config: DataConfig) -> DataSet:
    """Return a data set by its name, see `parse_name`: one that TFDS defines, or is prepared in `data.data_dir`.

    Raises:
        UserError: if the data set, its configuration or its version is unknown, or it cannot be prepared.
    """
    name = parse_name(config.source)
    assert name is not None
    try:
        builder_class = tfds.builder_cls(name.data_set)
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        if prepared := find_version(_data_dir(config) / name.path):
            return find_directory(prepared)
        if name.config:
            raise UserError(
                f"data.source={config.source!r}: no such folder or file, and no data set {name.data_set!r}"
            ) from None
        names = ["digits", *tfds.list_builders(with_community_datasets=False)]
        raise UserError(
            f"unknown data set {config.source!r}; did you mean {closest(name.data_set, names)}? "
            "For a folder of images, use its path"
        ) from None
    return _find_defined(builder_class, name, config)


def _find_defined(builder_class: type[tfds.core.DatasetBuilder], name: Name, config: DataConfig) -> DataSet:
    """Return the data set of a known class; its versions in the directory of prepared data sets are checked first."""
    _check_config(builder_class, name)
    versions = _versions(builder_class)
    if name.version and not any(_matches(name.version, each) for each in versions):
        if prepared := find_version(_data_dir(config) / name.path):  # by an earlier release of TFDS
            return find_directory(prepared)
        raise UserError(
            f"data set {name.data_set!r} has no version {name.version!r}; TFDS defines {', '.join(versions)}, and "
            f"{str(_data_dir(config))!r} holds no other"
        )
    for version in _list_versions(_data_dir(config) / name.data_set):
        if version.name in versions:
            check_metadata(version)
    try:
        builder = builder_class(data_dir=_data_dir(config), config=name.config or None, version=name.version or None)
    except Exception as error:  # TFDS raises many types for corrupt metadata
        raise UserError(
            f"data set {config.source!r} cannot be opened in {str(_data_dir(config))!r}: {plain_reason(error)}"
        ) from error
    _prepare(builder)
    return _data_set(builder)


def _check_config(builder_class: type[tfds.core.DatasetBuilder], name: Name) -> None:
    known = [each.name for each in getattr(builder_class, "BUILDER_CONFIGS", None) or ()]
    if name.config and name.config not in known:
        reason = f"did you mean {closest(name.config, known)}?" if known else "it has none"
        raise UserError(f"data set {name.data_set!r} has no configuration {name.config!r}; {reason}")


def _versions(builder_class: type[tfds.core.DatasetBuilder]) -> list[str]:
    """Return the versions of a data set and of its configurations that TFDS can prepare, the current one first."""
    owners = (builder_class, *(getattr(builder_class, "BUILDER_CONFIGS", None) or ()))
    fields = ("VERSION", "version", "SUPPORTED_VERSIONS", "supported_versions")
    values = [getattr(owner, field, None) for field in fields for owner in owners]
    found = [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
    return list(dict.fromkeys(str(each) for each in found if isinstance(each, str | tfds.core.Version)))


def _matches(pattern: str, version: str) -> bool:
    """Return True if a version such as `3.*.*` stands for another."""
    pairs = zip(pattern.split("."), version.split("."), strict=True)
    return all(expected in ("*", found) for expected, found in pairs)


def _data_dir(config: DataConfig) -> Path:
    return user_path(config.data_dir or tfds.core.constants.DATA_DIR)


def find_version(path: Path) -> Path | None:
    """Return the newest version of the TFDS data set at a path, or None.

    Args:
        path: directory of a version, of a data set, or a directory that contains one data set.

    Raises:
        UserError: if the directory contains several data sets.
    """
    if (path / "dataset_info.json").is_file():
        return path
    versions = _list_versions(path)
    names = sorted({str(version.parent) for version in versions})
    if len(names) > 1:
        raise UserError(f"{str(path)!r} contains several TFDS data sets; use one of {', '.join(names)}")
    return max(versions, key=_version_key, default=None)


def _list_versions(path: Path) -> list[Path]:
    found = [info.parent for pattern in ("*", "*/*") for info in path.glob(f"{pattern}/dataset_info.json")]
    return [version for version in found if not any(is_hidden(each.name) for each in (version, version.parent))]


def _version_key(version: Path) -> tuple[int, ...]:
    """Return the numbers of a version such as 1.0.0; directories of other names come first."""
    numbers = re.fullmatch(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version.name, re.ASCII)
    return tuple(map(int, numbers.groups())) if numbers else ()


def _data_set(builder: tfds.core.DatasetBuilder) -> DataSet:
    return DataSet(tuple(builder.info.splits), lambda config: _open(builder, config))


def _open(builder: tfds.core.DatasetBuilder, config: DataConfig) -> Source:
    name, (image, label) = builder.info.full_name, _find_keys(builder)
    classes = _class_label(builder.info.features[label])
    assert classes is not None
    if not 0 < (classes.num_classes or 0) <= MAX_CLASSES:
        raise UserError(f"data set {name!r} has {classes.num_classes} classes, not 1 to {MAX_CLASSES:,}")
    check_label_file(Path(builder.data_dir), label, classes)
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        raise UserError(
            f"data set {name!r} is stored as {builder.info.file_format.value}; only tfrecord is supported, to which "
            "`tfds convert_format` converts"
        )

    def open_split(name: str) -> Split:
        return _open_split(builder, name, image, label, config)

    splits = [slices.compose(name, list(builder.info.splits), open_split) for name in config.splits]
    return source_of_names(name, splits, classes.names)


def _class_label(feature: Any) -> tfds.features.ClassLabel | None:
    """Return the classes of a feature that holds one, or any number of them; None for another feature."""
    if isinstance(feature, tfds.features.Sequence):
        feature = feature.feature
    return feature if isinstance(feature, tfds.features.ClassLabel) else None


def _find_keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Return the names of the image and its label among the features of a data set."""
    features, name = builder.info.features, builder.info.full_name
    if not isinstance(features, tfds.features.FeaturesDict):
        raise UserError(
            f"data set {name!r} has no image with a class label; its features are {type(features).__name__}"
        )
    present = dict(features.items())
    keys = builder.info.supervised_keys or ("image", "label" if "label" in present else "labels")
    if len(keys) == 2 and all(isinstance(key, str) and key in present for key in keys):
        image, label = (present[key] for key in keys)
        if isinstance(image, tfds.features.Image) and _class_label(label):
            if image.np_dtype not in (np.uint8, np.uint16):
                raise UserError(f"the images of data set {name!r} are {np.dtype(image.np_dtype)}, not uint8 or uint16")
            return keys
    raise UserError(f"data set {name!r} has no image with a class label; its features are {list(present)}")


def _open_split(builder: tfds.core.DatasetBuilder, name: str, image: str, label: str, config: DataConfig) -> Split:
    try:
        shards = builder.info.splits[name].file_instructions
    except (KeyError, ValueError, AssertionError):
        raise UserError(
            f"data set {builder.info.full_name!r} has no split {name!r}; "
            f"{slices.advise(config, slices.plain_name(name), builder.info.splits)}"
        ) from None

    _check_files(Path(builder.data_dir), name, [shard.filename for shard in shards])
    # Other features are not decoded: TFDS decodes images without a look at their size.
    features = tfds.features.FeaturesDict({key: builder.info.features[key] for key in (image, label)})

    def example(record: tf.Tensor) -> dict[str, tf.Tensor]:
        # Images are decoded and cropped in one operation, later in the pipeline.
        return features.deserialize_example(record, decoders={image: tfds.decode.SkipDecoding()})

    is_multi_label = not isinstance(features[label], tfds.features.ClassLabel)

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        found = example(record)
        return (*(label_sets.encode(found[label]) if is_multi_label else (found[label], tf.constant(""))), found[image])

    indexed = records.index(
        [shard.filename for shard in shards],
        parse,
        layout=f"tfds {label} {image}{' sets' if is_multi_label else ''}",
    )
    parts = []
    for each, shard in zip(indexed, shards, strict=True):
        end = None if shard.take == -1 else shard.skip + shard.take
        parts.append((_add_lost(each, shard.examples_in_shard), slice(shard.skip, end)))
    split = records.split(name, parts, lambda record: example(record)[image])
    classes = _class_label(features[label])
    if not is_multi_label or classes is None:
        return split
    names = {label: text for each in indexed for label, text in each.names.items()}
    return label_sets.decode(split, names, classes.num_classes)


def _check_files(data_dir: Path, split: str, files: Sequence[str]) -> None:
    if not files:
        raise UserError(f"split {split!r} of the data set at {str(data_dir)!r} is empty")
    for file in files:
        if not Path(os.path.abspath(file)).is_relative_to(os.path.abspath(data_dir)):
            raise UserError(f"split {split!r} of the data set at {str(data_dir)!r} has a file outside of it: {file!r}")


def _add_lost(found: records.Records, expected: int) -> records.Records:
    """Add the number of lost examples of a file, of which the metadata of TFDS has the expected number."""
    lost = expected - len(found.labels)
    if not lost:
        return found
    if lost < 0:
        raise UserError(
            f"{found.file!r} has {counted(len(found.labels), 'record')}, but the metadata of its data set {expected}"
        )
    *others, last = found.corruption or (Corruption(found.file, 0, f"{lost} of {expected} examples are missing"),)
    return dataclasses.replace(found, corruption=(*others, dataclasses.replace(last, examples=lost)))


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Download and prepare a data set, unless it is prepared already."""
    if builder.is_prepared():
        return
    with _only_preparation(builder):
        if Path(builder.data_dir, "dataset_info.json").is_file():  # by another process in the meantime
            builder.info.read_from_directory(builder.data_dir)
        else:
            _download_and_prepare(builder)


@contextlib.contextmanager
def _only_preparation(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Keep other processes from preparing the data set, and wait for one that does: with TFDS, only one succeeds."""
    if "://" in str(builder.data_dir):  # not a local path
        yield
        return
    directory = Path(builder.data_dir).parent
    with _naming_failures(builder):
        make_directory(directory)
        try:
            lock = locks.acquire(directory, wait=False)
        except BlockingIOError:
            logger.info("waiting for another process that prepares data set %r", builder.info.full_name)
            lock = locks.acquire(directory, wait=True)
    try:
        yield
    finally:
        locks.release(lock)


def _download_and_prepare(builder: tfds.core.DatasetBuilder) -> None:
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    downloader.MAX_RETRIES = 3  # the default of 10 takes minutes to fail without a network
    # The progress bars of TFDS, on a terminal, show each download.
    own = Progress(f"downloading and preparing {builder.info.full_name!r}")
    progress = contextlib.nullcontext() if sys.stderr.isatty() else own
    with _naming_failures(builder), contextlib.redirect_stdout(sys.stderr), progress:  # stdout is for results
        builder.download_and_prepare()


@contextlib.contextmanager
def _naming_failures(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    try:
        yield
    except (OSError, tfds.download.DownloadError, ValueError, AssertionError) as error:
        advice = "Without a network, copy a prepared directory there, or use its path as data.source"
        reason = str(error)
        if isinstance(error, OSError) and error.errno:  # of the file system, not of the network
            advice = "Set data.data_dir to a directory that can be written"
        if isinstance(error, ValueError | AssertionError):  # an old version, or files to be downloaded by hand
            advice, reason = "Copy a prepared directory there, or use its path as data.source", plain_reason(error)
        raise UserError(
            f"data set {builder.info.full_name!r} could not be prepared in {str(builder.data_dir)!r}: "
            f"{reason.rstrip('.')}. {advice}"
        ) from error
