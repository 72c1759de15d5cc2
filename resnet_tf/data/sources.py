"""Where labelled pictures come from: the embedded digits, TFDS by name or directory, or a folder of images.

Every source gives the same thing: splits of still encoded pictures, in an order that follows from a seed.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from resnet_tf.config import DataConfig
from resnet_tf.data import digits
from resnet_tf.errors import UserError, closest
from resnet_tf.labels import readable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        name: as it was asked for, such as `train` or `train[:90%]`.
        num_examples: number of pictures.
        read: `read(seed, skip)` gives a tf.data.Dataset of one pass over (encoded picture: string, label: int64).
            `seed` is an int64 [2] tensor that decides the order, or None for the source's own; the first `skip`
            pictures of that order are left out without being decoded.
    """

    name: str
    num_examples: int
    read: Callable[[tf.Tensor | None, tf.Tensor | int], tf.data.Dataset]


@dataclass(frozen=True)
class Source:
    """A data set: its splits for training and testing, and the names of its classes in label order."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split

    @property
    def identity(self) -> dict[str, object]:
        """What a run must find again when it continues."""
        splits = {split.name: split.num_examples for split in (self.train, self.test)}
        return {"name": self.name, "class_names": list(self.class_names), "splits": splits}


def open_source(config: DataConfig) -> Source:
    """Open `config.source`, preparing a TFDS data set where that is still to be done.

    Classes that are named by ImageNet's identifiers (`n01440764`) are given their labels (`tench`).

    Raises:
        UserError: if there is no such source or split, or what is there is no labelled set of pictures.
    """
    source = _open(config)
    return dataclasses.replace(source, class_names=readable(source.class_names))


def _open(config: DataConfig) -> Source:
    path = Path(config.source).expanduser()
    if config.source == "digits":
        builder = digits.Digits(data_dir=config.data_dir or None)
    elif path.is_dir():
        version = _tfds_directory(path)
        if version is None:
            return _open_folder(path, config)
        builder = tfds.builder_from_directory(version)
    elif path.exists():
        raise UserError(f"data.source={config.source!r} is a file; give a folder, a TFDS directory or a TFDS name")
    elif {"/", "\\", "."} & set(config.source):
        raise UserError(f"data.source={config.source!r}: there is no such folder")
    else:
        builder = _registered_builder(config)
    return _open_tfds(builder, config)


def check_classes(labels: Sequence[str], source: Source) -> None:
    """Refuse a data set whose classes are not those that a model answers with."""
    if tuple(labels) != source.class_names:
        present = _shortened(source.class_names)
        raise UserError(f"the model knows the classes {_shortened(labels)}, but {source.name!r} has {present}")


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, ... ({len(names)})" if len(names) > 5 else shown


def _open_tfds(builder: tfds.core.DatasetBuilder, config: DataConfig) -> Source:
    _prepare(builder)
    features = dict(builder.info.features.items())
    image, label = builder.info.supervised_keys or ("image", "label")
    if not isinstance(features.get(image), tfds.features.Image) or not isinstance(
        features.get(label), tfds.features.ClassLabel
    ):
        raise UserError(
            f"data set {builder.info.full_name!r} has no picture with a class label; it has {list(features)}"
        )

    def split(name: str) -> Split:
        try:
            num_examples = builder.info.splits[name].num_examples
        except (KeyError, ValueError):
            raise UserError(
                f"data set {builder.info.full_name!r} has no split {name!r}; did you mean "
                f"{closest(name, builder.info.splits)}?"
            ) from None
        return Split(name, num_examples, _tfds_reader(builder, name, image, label, config.shuffle_buffer))

    names = tuple(features[label].int2str(index) for index in range(features[label].num_classes))
    return Source(builder.info.full_name, names, split(config.train_split), split(config.eval_split))


def _tfds_reader(builder: tfds.core.DatasetBuilder, name: str, image: str, label: str, buffer: int) -> Callable:
    def read(seed: tf.Tensor | None, skip: tf.Tensor | int) -> tf.data.Dataset:
        dataset = builder.as_dataset(
            split=name,
            decoders={image: tfds.decode.SkipDecoding()},  # decoding and cropping are one step of our pipeline
            read_config=tfds.ReadConfig(try_autocache=False, add_tfds_id=False),
            shuffle_files=False,
        )
        dataset = dataset.map(lambda example: (example[image], example[label]))
        if seed is not None:
            dataset = _shuffled(dataset, buffer, seed)
        return dataset.skip(tf.cast(skip, tf.int64))

    return read


def _shuffled(dataset: tf.data.Dataset, buffer: int, seed: tf.Tensor) -> tf.data.Dataset:
    """In an order that follows from `seed`, int64 [2], alone."""

    def in_graph(_: tf.Tensor) -> tf.data.Dataset:
        # `shuffle` mixes TensorFlow's global seed in, and fails where that is 0 and its own is a tensor. This sets the
        # seed of this function's graph and no other.
        tf.random.set_seed(1)
        mixed = tf.random.stateless_uniform([], seed, minval=None, maxval=None, dtype=tf.int64)
        return dataset.shuffle(buffer, seed=mixed, reshuffle_each_iteration=False)

    return tf.data.Dataset.from_tensors(0).flat_map(in_graph)


def _registered_builder(config: DataConfig) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(config.source, data_dir=config.data_dir or None)
    except tfds.core.registered.DatasetNotFoundError:
        names = ["digits", *tfds.list_builders(with_community_datasets=False)]
        raise UserError(
            f"unknown data set {config.source!r}; did you mean {closest(config.source, names)}? "
            "A folder of images is given by its path"
        ) from None


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Download and prepare, unless that is done already."""
    if builder.is_prepared():
        return
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    downloader.MAX_RETRIES = 3  # its ten take minutes to find that there is no network
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to results
            builder.download_and_prepare()
    except (OSError, tfds.download.DownloadError) as error:
        raise UserError(
            f"data set {builder.info.full_name!r} could not be prepared in {str(builder.data_dir)!r}: {error}. "
            "Without a network, copy a prepared directory there, or give its path as data.source"
        ) from error


def _tfds_directory(path: Path) -> Path | None:
    """`path` itself or its newest version, where TFDS wrote a data set there."""
    found = (
        [path] if (path / "dataset_info.json").is_file() else [info.parent for info in path.glob("*/dataset_info.json")]
    )
    return max(found, key=lambda directory: tfds.core.Version(directory.name) if directory != path else 0, default=None)


def _open_folder(root: Path, config: DataConfig) -> Source:
    files = {name: _list_images(root, name) for name in (config.train_split, config.eval_split)}
    train, test = str(root / config.train_split), str(root / config.eval_split)
    class_names = tuple(sorted(files[config.train_split]))
    if len(class_names) < 2:
        raise UserError(f"{train!r} has one class, {class_names[0]!r}; training takes two or more")
    unknown = sorted(set(files[config.eval_split]) - set(class_names))
    if unknown:
        raise UserError(f"class {unknown[0]!r} is in {test!r} but not in {train!r}")

    def split(name: str) -> Split:
        labelled = [(path, class_names.index(label)) for label, paths in files[name].items() for path in paths]
        return Split(name, len(labelled), _folder_reader(labelled))

    return Source(str(root), class_names, split(config.train_split), split(config.eval_split))


def _list_images(root: Path, split: str) -> dict[str, list[str]]:
    """Class name -> image files of a split, both sorted."""
    folder = root / split
    if not folder.is_dir():
        present = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        raise UserError(
            f"{str(root)!r} has no folder {split!r}; it has {', '.join(present) or 'no folders'}. "
            "Images belong in split/class/file; data.train_split and data.eval_split name the splits"
        )
    classes = {}
    for entry in sorted(folder.iterdir()):
        images = sorted(str(path) for path in _files(entry) if path.suffix.lower() in IMAGE_SUFFIXES)
        if images:
            classes[entry.name] = images
    if not classes:
        raise UserError(f"no images under {str(folder)!r}: expected class/file with {', '.join(IMAGE_SUFFIXES)}")
    return classes


def _files(entry: Path) -> Iterator[Path]:
    return entry.iterdir() if entry.is_dir() else iter(())


def _folder_reader(labelled: list[tuple[str, int]]) -> Callable:
    paths = tf.constant([path for path, _ in labelled])
    labels = tf.constant([label for _, label in labelled], tf.int64)
    count, last = len(labelled), tf.constant(len(labelled) - 1, tf.int64)

    def read(seed: tf.Tensor | None, skip: tf.Tensor | int) -> tf.data.Dataset:
        def load(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            index = place if seed is None else tf.random.experimental.index_shuffle(place, seed, last)
            return tf.io.read_file(paths[index]), labels[index]

        return tf.data.Dataset.range(skip, count).map(load, num_parallel_calls=tf.data.AUTOTUNE)

    return read
