"""Checks of weights files of unknown origin before their arrays are read: sizes, and references to other files."""

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py

from resnet_tf.core.bounded import check_expansion, open_regular
from resnet_tf.core.numpy_files import check_zip

_MAX_CONFIGURATION_BYTES = 2**26  # that of the deepest network has 4 MB
_METADATA = "/resnet_tf"  # metadata in files of earlier versions, a string
_MAX_DEPTH = 30  # of groups in a file; those of Keras have less than 10
_CHUNK_BYTES = 2**10  # of memory that HDF5 takes to read a chunk, beside its content
_CHECKSUM_BYTES = 4
# Filters of h5py in their order; Keras stores arrays without any.
_FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE)  # in this order, with fletcher32 anywhere


def check_bounds(path: Path) -> None:
    """Check that a file holds all of its arrays, and not much more than its size.

    Args:
        path: a weights file.

    Raises:
        OSError: if it is not a regular file.
        ValueError: if its arrays are larger than its size allows, see `check_expansion`, or are in other files, to
            which HDF5 files may refer.
    """
    with open_regular(path) as file:
        if path.suffix == ".h5":
            with h5py.File(path) as content:
                _check_hdf5(content, path)
        elif zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                check_zip(archive, path)
                if path.suffix == ".keras":
                    _check_configuration(archive)
                    with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as content:
                        _check_hdf5(content, path)


def check_variables(checkpoint: Any, prefix: Path) -> None:
    """Check that the variables of a TensorFlow checkpoint are not much larger than its files.

    Args:
        checkpoint: reader of the checkpoint.
        prefix: path that the names of its files begin with.

    Raises:
        ValueError: if the variables are larger, see `check_expansion`.
    """
    types, shapes = checkpoint.get_variable_to_dtype_map(), checkpoint.get_variable_to_shape_map()
    claimed = sum(math.prod(shape) * max(types[name].size, 1) for name, shape in shapes.items())
    stored = [file for file in prefix.parent.iterdir() if file.name.startswith(f"{prefix.name}.")]
    check_expansion(claimed, sum(file.stat().st_size for file in stored))


def _check_configuration(archive: zipfile.ZipFile) -> None:
    for name in ("config.json", "metadata.json"):
        if name in archive.namelist() and (size := archive.getinfo(name).file_size) > _MAX_CONFIGURATION_BYTES:
            raise ValueError(f"{name} has {size:,} bytes, more than {_MAX_CONFIGURATION_BYTES:,}")


def _check_hdf5(file: h5py.File, path: Path) -> None:
    """Check the links, storage and size of all datasets in a file, each of which must have one name only.

    Several names of a group could make a file of a few bytes take years to read.
    """
    claimed, seen, datasets = 0, set(), []
    pending: list[tuple[str, Any, int]] = [("", file, 0)]
    while pending:
        name, each, depth = pending.pop()
        address = h5py.h5o.get_info(each.id).addr
        if address in seen:
            raise ValueError(f"{name} is another name of an object in the file")
        seen.add(address)
        if depth > _MAX_DEPTH:
            raise ValueError(f"groups are nested deeper than {_MAX_DEPTH} levels")
        if isinstance(each, h5py.Dataset):
            _check_dataset(name, each)
            datasets.append((name, each))
            claimed += _claimed_bytes(each)
        elif isinstance(each, h5py.Group):
            for key in each:
                link = each.get(key, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise ValueError(f"{name}/{key} is a link to {getattr(link, 'filename', '')}{link.path!r}")
                pending.append((f"{name}/{key}", each[key], depth + 1))
    check_expansion(claimed, path.stat().st_size)
    for name, each in datasets:
        _check_compression(name, each)


def _check_dataset(name: str, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual:
        raise ValueError(f"{name} is a view of other files")
    if dataset.external:
        raise ValueError(f"{name} is stored in another file, {dataset.external[0][0]!r}")
    if dataset.dtype.hasobject and name != _METADATA:
        raise ValueError(f"{name} holds values of variable size")


def _claimed_bytes(dataset: h5py.Dataset) -> int:
    """Return the bytes of memory that are needed to read a dataset, of which HDF5 reads whole chunks."""
    if dataset.chunks is None:
        return dataset.nbytes
    count = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return count * (_chunk_bytes(dataset) + _CHUNK_BYTES)


def _chunk_bytes(dataset: h5py.Dataset) -> int:
    return math.prod(dataset.chunks) * dataset.dtype.itemsize


def _check_compression(name: str, dataset: h5py.Dataset) -> None:
    """Check that no chunk of a dataset decompresses to more than its size: HDF5 decompresses without limit."""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    data = [each for each in filters if each != h5py.h5z.FILTER_FLETCHER32]
    if len(filters) > len(data) + 1 or data != [each for each in _FILTERS if each in data]:
        raise ValueError(f"{name} is stored with other filters than gzip, shuffle and fletcher32; store it without")
    if dataset.chunks is None or h5py.h5z.FILTER_DEFLATE not in filters:
        return
    skipped, largest = 1 << filters.index(h5py.h5z.FILTER_DEFLATE), _chunk_bytes(dataset) + _CHECKSUM_BYTES
    stored: list[Any] = []
    dataset.id.chunk_iter(stored.append)
    for chunk in stored:
        is_excessive = chunk.size > 2 * largest + _CHUNK_BYTES
        if not (is_excessive or chunk.filter_mask & skipped):
            _, content = dataset.id.read_direct_chunk(chunk.chunk_offset)
            is_excessive = len(zlib.decompressobj().decompress(content, largest + 1)) > largest
        if is_excessive:
            raise ValueError(f"a chunk of {name} holds more than its {_chunk_bytes(dataset):,} bytes")
