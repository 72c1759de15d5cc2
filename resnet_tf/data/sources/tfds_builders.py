"""TFDS data sets: by name, from a prepared directory, and the embedded digits."""

import contextlib
import dataclasses
import sys
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError, closest, plain_reason
from resnet_tf.data.sources import digits, records
from resnet_tf.data.sources.base import Corruption, Source, Split
from resnet_tf.data.sources.tfds_features import check_features


def open_digits(config: DataConfig) -> Source:
    """Open the embedded data set."""
    return _open(digits.Digits(data_dir=config.data_dir or None), config)


def open_directory(version: Path, config: DataConfig) -> Source:
    """Open the prepared data set in a directory that `find_version` returned.

    Raises:
        UserError: if its metadata is corrupt or names a class that is not TFDS's own.
    """
    check_features(version)
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
    return _open(builder_class(data_dir=config.data_dir or None), config)


def _find_prepared(config: DataConfig) -> Path | None:
    """Return the version directory of `data.source` in the directory of prepared data sets, or None."""
    data_dir = Path(config.data_dir or tfds.core.constants.DATA_DIR).expanduser()
    return find_version(data_dir / config.source)


def find_version(path: Path) -> Path | None:
    """Return the newest version of the TFDS data set at a path, or None.

    Args:
        path: directory of a version, of a data set, or a directory that contains one data set.

    Raises:
        UserError: if the directory contains several data sets.
    """
    if (path / "dataset_info.json").is_file():
        return path
    versions = [info.parent for pattern in ("*", "*/*") for info in path.glob(f"{pattern}/dataset_info.json")]
    names = sorted({str(version.parent) for version in versions})
    if len(names) > 1:
        raise UserError(f"{str(path)!r} contains several TFDS data sets; use one of {', '.join(names)}")
    return max(versions, key=lambda version: tfds.core.Version(version.name), default=None)


def _open(builder: tfds.core.DatasetBuilder, config: DataConfig) -> Source:
    _prepare(builder)
    name, features = builder.info.full_name, dict(builder.info.features.items())
    image, label = builder.info.supervised_keys or ("image", "label")
    if not isinstance(features.get(image), tfds.features.Image) or not isinstance(
        features.get(label), tfds.features.ClassLabel
    ):
        raise UserError(f"data set {name!r} has no image with a class label; its features are {list(features)}")
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        raise UserError(
            f"data set {name!r} is stored as {builder.info.file_format.value}; only tfrecord is supported, to which "
            "`tfds convert_format` converts"
        )
    splits = (_open_split(builder, each, image, label) for each in config.splits)
    names = tuple(features[label].int2str(index) for index in range(features[label].num_classes))
    return Source(name, names, *splits)


def _open_split(builder: tfds.core.DatasetBuilder, name: str, image: str, label: str) -> Split:
    try:
        shards = builder.info.splits[name].file_instructions
    except (KeyError, ValueError):
        raise UserError(
            f"data set {builder.info.full_name!r} has no split {name!r}; did you mean "
            f"{closest(name, builder.info.splits)}?"
        ) from None

    def example(record: tf.Tensor) -> dict[str, tf.Tensor]:
        # Images are decoded and cropped in one operation, later in the pipeline.
        return builder.info.features.deserialize_example(record, decoders={image: tfds.decode.SkipDecoding()})

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


def _add_lost(found: records.Records, expected: int) -> records.Records:
    """Add the number of lost examples of a file, of which the metadata of TFDS has the expected number."""
    lost = expected - len(found.labels)
    if not lost:
        return found
    *others, last = found.corruption or (Corruption(found.file, 0, f"{lost} of {expected} examples are missing"),)
    return dataclasses.replace(found, corruption=(*others, dataclasses.replace(last, examples=lost)))


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Download and prepare a data set, unless it is prepared already."""
    if builder.is_prepared():
        return
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    downloader.MAX_RETRIES = 3  # the default of 10 takes minutes to fail without a network
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            builder.download_and_prepare()
    except (OSError, tfds.download.DownloadError) as error:
        raise UserError(
            f"data set {builder.info.full_name!r} could not be prepared in {str(builder.data_dir)!r}: {error}. "
            "Without a network, copy a prepared directory there, or use its path as data.source"
        ) from error
