"""NumPy arrays in `.npy` and `.npz` files of unknown origin, read without pickle and within the size of the file."""

import contextlib
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from resnet_tf.core.bounded import check_expansion, open_regular
from resnet_tf.core.errors import UserError, plain_reason

_SUFFIX = ".npy"


def read_npy(content: bytes) -> np.ndarray:
    """Return the array in the content of an `.npy` file.

    Raises:
        ValueError: if it is no such file, holds Python objects, or claims more values than it has bytes.
    """
    return _read_array(lambda: io.BytesIO(content), len(content))


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator["NpzArchive"]:
    """Open an `.npz` archive; its arrays are read one at a time.

    Raises:
        UserError: if it is not a regular file or no archive, or would decompress to much more than its size.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    with file:
        try:
            archive = zipfile.ZipFile(file)
            check_zip(archive, path)
        except Exception as error:  # zipfile raises many types for corrupt archives
            raise UserError(f"cannot read {str(path)!r}: {plain_reason(error)}") from error
        with archive:
            yield NpzArchive(archive, path)


def check_zip(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a zip archive that would decompress to much more than its size; see `check_expansion`.

    Raises:
        ValueError: if it would.
    """
    check_expansion(sum(member.file_size for member in archive.infolist()), path.stat().st_size)


class NpzArchive(Mapping[str, np.ndarray]):
    """Arrays of an archive by name. Reading raises a `UserError` for an array that is corrupt or holds objects."""

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        self._archive, self._path = archive, path
        listed = (member for member in archive.infolist() if member.filename.endswith(_SUFFIX))
        self._members = {member.filename.removesuffix(_SUFFIX): member for member in listed}

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def checksum(self, name: str) -> str:
        """Return size and CRC-32 of an array, from the directory of the archive."""
        return f"{self._members[name].file_size} {self._members[name].CRC}"

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._members[name]
        try:
            return _read_array(lambda: self._archive.open(member), member.file_size)
        except Exception as error:  # numpy, zipfile and the decompressors raise many types for corrupt files
            raise UserError(f"cannot read {name!r} of {str(self._path)!r}: {plain_reason(error)}") from error


def _read_array(open_file: Callable[[], IO[bytes]], size: int) -> np.ndarray:
    """Read an array of at most `size` bytes, after a look at its header."""
    with open_file() as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"version {version[0]}.{version[1]} of the format is for records only")
        shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    if min(shape, default=0) < 0 or math.prod(shape) * max(dtype.itemsize, 1) > size:
        raise ValueError(f"it claims {dtype} {list(shape)} in {size:,} bytes")
    with open_file() as file:
        return np.lib.format.read_array(file, allow_pickle=False)
