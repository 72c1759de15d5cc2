"""IDX files of MNIST and Fashion-MNIST, such as `train-images-idx3-ubyte.gz`, compressed or not."""

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from resnet_tf.config import DataConfig
from resnet_tf.core.bounded import check_expansion, open_regular
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.text import counted
from resnet_tf.data.sources import slices
from resnet_tf.data.sources.arrays import array_split, warn_of_binary_pixels
from resnet_tf.data.sources.base import DataSet, Source, Split, hash_parts
from resnet_tf.data.sources.labels import source_of_labels

_SPLITS = {"test": "t10k"}  # split -> prefix of its files
_IMAGES = re.compile(r"(.*)-images[-.]idx3-ubyte")


def list_files(directory: Path) -> list[Path]:
    """Return the image files in a directory."""
    # Archives of Kaggle also have a folder with the name of each file.
    return sorted(each for each in directory.iterdir() if _IMAGES.match(each.name) and not each.is_dir())


def find_idx(directory: Path) -> DataSet:
    """Return the data set of IDX files in a directory."""
    return DataSet(tuple(_list_splits(directory)), lambda config: _open(directory, config))


def _open(directory: Path, config: DataConfig) -> Source:
    """Open splits of images uint8 [N, H, W] and labels uint8 [N]; the classes are the labels that occur.

    Reference: LeCun et al., the MNIST database, file formats.

    Raises:
        UserError: if files of a split are missing, corrupt, or do not match.
    """
    present = _list_splits(directory)
    arrays = {name: _read_split(directory, name, config) for name in slices.plain_names(config.splits, present)}
    warn_of_binary_pixels(directory, [images for _, images, _ in arrays.values()])

    def open_split(name: str) -> Split:
        file, images, labels = arrays[slices.plain_name(name)]
        return array_split(file, name, images, labels, _hash_images(images))

    splits = [slices.compose(name, present, open_split) for name in config.splits]
    return source_of_labels(str(directory), splits, np.concatenate([labels for _, _, labels in arrays.values()]))


def _hash_images(images: np.ndarray) -> str:
    """Return a hash of images in memory."""
    return hash_parts([str(images.shape), str(zlib.crc32(np.ascontiguousarray(images).data))])


def _read_split(directory: Path, split: str, config: DataConfig) -> tuple[Path, np.ndarray, np.ndarray]:
    """Return the path of the images, the images uint8 [N, H, W, 1] and the labels int64 [N]."""
    prefix = _SPLITS.get(split, split)
    advice = slices.advise(config, split, _list_splits(directory))
    files = [_find(directory, f"{prefix}-{content}", advice) for content in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    images, labels = (read_array(file, rank) for file, rank in zip(files, (3, 1), strict=True))
    if len(images) != len(labels) or not len(labels):
        raise UserError(
            f"{str(files[0])!r} has {counted(len(images), 'image')}, {str(files[1])!r} {counted(len(labels), 'label')}"
        )
    return files[0], images[..., np.newaxis], labels.astype(np.int64)


def _list_splits(directory: Path) -> list[str]:
    prefixes = {prefix: split for split, prefix in _SPLITS.items()}
    found = [match[1] for file in list_files(directory) if (match := _IMAGES.match(file.name))]
    return sorted({prefixes.get(prefix, prefix) for prefix in found})


def _find(directory: Path, name: str, advice: str) -> Path:
    for stem in (name, name.replace("-idx", ".idx")):
        for file in (directory / stem, directory / f"{stem}.gz"):
            if file.is_file():
                return file
    present = ", ".join(each.name for each in list_files(directory))
    raise UserError(f"{str(directory)!r} has no {name}; it has {present}; {advice}")


def read_array(file: Path, rank: int) -> np.ndarray:
    """Read an array of uint8.

    Format: two zero bytes, the type (8 for uint8), the rank, each dimension as a big-endian int32, and the values.
    """
    start = 4 + 4 * rank
    try:
        with open_regular(file) as stored, gzip.open(stored) if file.suffix == ".gz" else stored as stream:
            header = stream.read(start)
            shape = np.frombuffer(header[4:], ">i4").tolist() if len(header) == start else [-1]
            size = math.prod(shape) if min(shape) >= 0 else -1
            check_expansion(max(size, 0), file.stat().st_size)
            content = stream.read(size + 1) if header[:4] == bytes((0, 0, 8, rank)) and size >= 0 else b""
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"cannot read {str(file)!r}: {plain_reason(error)}") from error
    if len(content) != size:
        raise UserError(f"{str(file)!r} is not a complete IDX file of uint8 with {rank} dimensions")
    return np.frombuffer(content, np.uint8).reshape(shape)
