"""TFDS data sets: by name, from a prepared directory, and the embedded digits."""

import contextlib
import dataclasses
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from resnet_tf.config import DataConfig
from resnet_tf.core import locks
from resnet_tf.core.errors import UserError, closest, plain_reason
from resnet_tf.core.files import is_hidden, make_directory
from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import MAX_CLASSES
from resnet_tf.data.sources import digits, records
from resnet_tf.data.sources.base import Corruption, Source, Split
from resnet_tf.data.sources.labels import source_of_names
from resnet_tf.data.sources.tfds_metadata import check_label_file, check_metadata

logger = logging.getLogger(__name__)


def open_digits(config: DataConfig) -> Source:
    """Open the embedded data set."""
    return _open_defined(digits.Digits, "digits", config)


def open_directory(version: Path, config: DataConfig) -> Source:
    """Open the prepared data set in a directory that `find_version` returned.

    Raises:
        UserError: if its metadata is corrupt or names a class that is not TFDS's own.
    """
    check_metadata(version)
    try:
        builder = tfds.builder_from_directory(version)
    except Exception as error:  # TFDS raises many types for corrupt metadata
        raise UserError(f"{str(version)!r} is not a TFDS data set that can be read: {plain_reason(error)}") from error
    return _open(builder, config)


def open_registered(config: DataConfig) -> Source:
    """Open a data set by name: one that TFDS defines, or else one that is prepared in `data.data_dir`.

    Names with a namespace (`huggingface:x`, `kaggle:x`) are refused, because TFDS would download and run foreign code.

    Raises:
        UserError: if the data set is unknown or cannot be prepared.
    """
    if ":" in config.source:
        raise UserError(
            f"data.source={config.source!r} names a community data set, whose code would be downloaded and run; "
            "prepare it with TFDS, and use the path of the prepared directory"
        )
    try:
        builder_class = tfds.builder_cls(config.source)
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        if prepared := _find_prepared(config):
            return open_directory(prepared, config)
        names = ["digits", *tfds.list_builders(with_community_datasets=False)]
        raise UserError(
            f"unknown data set {config.source!r}; did you mean {closest(config.source, names)}? "
            "For a folder of images, use its path"
        ) from None
    return _open_defined(builder_class, config.source, config)


def _open_defined(builder_class: type[tfds.core.DatasetBuilder], name: str, config: DataConfig) -> Source:
    """Open a data set of a known class; its version in the directory of prepared data sets is checked first."""
    configs = (each.version for each in getattr(builder_class, "BUILDER_CONFIGS", None) or ())
    current = {str(each) for each in (getattr(builder_class, "VERSION", None), *configs) if each}
    for version in _list_versions(_data_dir(config) / name):
        if version.name in current:
            check_metadata(version)
    try:
        builder = builder_class(data_dir=_data_dir(config))
    except Exception as error:  # TFDS raises many types for corrupt metadata
        raise UserError(
            f"data set {name!r} cannot be opened in {str(_data_dir(config))!r}: {plain_reason(error)}"
        ) from error
    _prepare(builder)
    return _open(builder, config)


def _find_prepared(config: DataConfig) -> Path | None:
    """Return the version directory of `data.source` in the directory of prepared data sets, or None."""
    return find_version(_data_dir(config) / config.source)


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


def _open(builder: tfds.core.DatasetBuilder, config: DataConfig) -> Source:
    name, (image, label) = builder.info.full_name, _find_keys(builder)
    features = builder.info.features
    if not 0 < (features[label].num_classes or 0) <= MAX_CLASSES:
        raise UserError(f"data set {name!r} has {features[label].num_classes} classes, not 1 to {MAX_CLASSES:,}")
    check_label_file(Path(builder.data_dir), label, features[label])
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        raise UserError(
            f"data set {name!r} is stored as {builder.info.file_format.value}; only tfrecord is supported, to which "
            "`tfds convert_format` converts"
        )
    splits = [_open_split(builder, each, image, label) for each in config.splits]
    return source_of_names(name, splits, features[label].names)


def _find_keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """Return the names of the image and its label among the features of a data set."""
    features, name = builder.info.features, builder.info.full_name
    if not isinstance(features, tfds.features.FeaturesDict):
        raise UserError(
            f"data set {name!r} has no image with a class label; its features are {type(features).__name__}"
        )
    keys = builder.info.supervised_keys or ("image", "label")
    present = dict(features.items())
    if len(keys) == 2 and all(isinstance(key, str) and key in present for key in keys):
        image, label = (present[key] for key in keys)
        if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
            if image.np_dtype not in (np.uint8, np.uint16):
                raise UserError(f"the images of data set {name!r} are {np.dtype(image.np_dtype)}, not uint8 or uint16")
            return keys
    raise UserError(f"data set {name!r} has no image with a class label; its features are {list(present)}")


def _open_split(builder: tfds.core.DatasetBuilder, name: str, image: str, label: str) -> Split:
    try:
        shards = builder.info.splits[name].file_instructions
    except (KeyError, ValueError, AssertionError):
        raise UserError(
            f"data set {builder.info.full_name!r} has no split {name!r}; did you mean "
            f"{closest(name, builder.info.splits)}?"
        ) from None

    _check_files(Path(builder.data_dir), name, [shard.filename for shard in shards])
    # Other features are not decoded: TFDS decodes images without a look at their size.
    features = tfds.features.FeaturesDict({key: builder.info.features[key] for key in (image, label)})

    def example(record: tf.Tensor) -> dict[str, tf.Tensor]:
        # Images are decoded and cropped in one operation, later in the pipeline.
        return features.deserialize_example(record, decoders={image: tfds.decode.SkipDecoding()})

    indexed = records.index(
        [shard.filename for shard in shards],
        lambda record: (example(record)[label], tf.constant("")),
        layout=f"tfds {label}",
    )
    parts = []
    for each, shard in zip(indexed, shards, strict=True):
        end = None if shard.take == -1 else shard.skip + shard.take
        parts.append((_add_lost(each, shard.examples_in_shard), slice(shard.skip, end)))
    return records.split(name, parts, lambda record: example(record)[image])


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
        raise UserError(f"{found.file!r} has {len(found.labels)} records, but the metadata of its data set {expected}")
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
    with _naming_failures(builder), contextlib.redirect_stdout(sys.stderr):  # stdout is for results
        builder.download_and_prepare()


@contextlib.contextmanager
def _naming_failures(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    try:
        yield
    except (OSError, tfds.download.DownloadError) as error:
        advice = "Without a network, copy a prepared directory there, or use its path as data.source"
        if isinstance(error, OSError) and error.errno:  # of the file system, not of the network
            advice = "Set data.data_dir to a directory that can be written"
        raise UserError(
            f"data set {builder.info.full_name!r} could not be prepared in {str(builder.data_dir)!r}: {error}. {advice}"
        ) from error
