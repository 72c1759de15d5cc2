"""Checks of weights files of unknown origin before their arrays are read: sizes, and references to other files."""

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py

from resnet_tf.core.bounded import check_expansion, open_regular
from resnet_tf.core.numpy_files import check_zip

_MAX_CONFIGURATION_BYTES = 2**26  # that of the deepest network has 4 MB
_METADATA = "/resnet_tf"  # metadata in files of earlier versions, a string
_MAX_DEPTH = 30  # of groups in a file; those of Keras have less than 10


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


def _check_configuration(archive: zipfile.ZipFile) -> None:
    for name in ("config.json", "metadata.json"):
        if name in archive.namelist() and (size := archive.getinfo(name).file_size) > _MAX_CONFIGURATION_BYTES:
            raise ValueError(f"{name} has {size:,} bytes, more than {_MAX_CONFIGURATION_BYTES:,}")


def _check_hdf5(file: h5py.File, path: Path) -> None:
    """Check the links, storage and size of all datasets in a file, without following a link to another name."""
    claimed, seen = 0, set()
    pending: list[tuple[str, Any, int]] = [("", file, 0)]
    while pending:
        name, each, depth = pending.pop()
        address = h5py.h5o.get_info(each.id).addr
        if address in seen:
            continue
        seen.add(address)
        if depth > _MAX_DEPTH:
            raise ValueError(f"groups are nested deeper than {_MAX_DEPTH} levels")
        if isinstance(each, h5py.Dataset):
            _check_dataset(name, each)
            claimed += each.nbytes
        elif isinstance(each, h5py.Group):
            for key in each:
                link = each.get(key, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise ValueError(f"{name}/{key} is a link to {getattr(link, 'filename', '')}{link.path!r}")
                pending.append((f"{name}/{key}", each[key], depth + 1))
    check_expansion(claimed, path.stat().st_size)


def _check_dataset(name: str, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual:
        raise ValueError(f"{name} is a view of other files")
    if dataset.external:
        raise ValueError(f"{name} is stored in another file, {dataset.external[0][0]!r}")
    if dataset.dtype.hasobject and name != _METADATA:
        raise ValueError(f"{name} holds values of variable size")
