"""Reading of PyTorch checkpoints, without PyTorch and without running code."""

import math
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from resnet_tf.core.bounded import check_expansion, open_regular
from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import shorten
from resnet_tf.core.text import shortened

# Names of the weights in checkpoints of training programs, in the order of preference: the averaged ones come last.
_WEIGHTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights", "module")
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "params_ema", "ema")

# Not the one in C, which allocates as much memory as the number of a memo entry claims.
_PYTHON_UNPICKLER: Any = pickle._Unpickler
_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file that `torch.save` wrote before PyTorch 1.6
ByteOrder = Literal["<", ">"]
_MAX_NAME = 100  # characters of a name in messages
_MAX_RANK = 64  # of NumPy arrays
_BFLOAT16 = "bfloat16"  # which NumPy lacks
# Instructions that `torch.save` does not write: calls of classes, sets, and memory before its content.
_REFUSED = (
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)
# Class of a storage in the module `torch` -> NumPy type of its elements.
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "ComplexFloatStorage": "c8",  # read, so that values that are no weights are named
    "ComplexDoubleStorage": "c16",
}


@dataclass(eq=False)
class _Storage:
    """Elements of one or several tensors.

    Attributes:
        dtype: NumPy type of the elements, or `bfloat16`.
        count: number of elements.
        content: the elements as bytes; in files from before PyTorch 1.6, they follow after the pickle.
    """

    dtype: str
    count: int
    content: bytes = b""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return 2 if self.dtype == _BFLOAT16 else np.dtype(self.dtype).itemsize


@dataclass(eq=False)
class _Tensor:
    """A tensor: elements of a storage from `offset` on, with strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the values as stored."""
        return math.prod((*self.shape, self.storage.itemsize))

    def check(self) -> None:
        """Check that the tensor lies within its storage.

        Raises:
            ValueError: if it does not.
        """
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= self.storage.count:
            raise ValueError(f"a tensor of shape {self.shape} exceeds its {self.storage.count} stored elements")

    def read(self, byte_order: ByteOrder) -> np.ndarray:
        """Return the values: floating-point numbers as float32, others as stored."""
        is_bfloat16 = self.storage.dtype == _BFLOAT16
        dtype = np.dtype("u2" if is_bfloat16 else self.storage.dtype).newbyteorder(byte_order)
        elements = np.frombuffer(self.storage.content, dtype)[self.offset :]
        if 0 in self.shape:
            values = np.zeros(self.shape, dtype)
        else:
            strides = [stride * dtype.itemsize for stride in self.strides]
            values = np.lib.stride_tricks.as_strided(elements, self.shape, strides, writeable=False)  # codespell:ignore
        if is_bfloat16:  # the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):  # the caller names values that are not finite
            return values.astype(np.float32 if dtype.kind == "f" else dtype.newbyteorder("="), order="C")


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict, bare or inside the checkpoint of a training program.

    Only arrays, dicts, lists, numbers and text are unpickled. Averaged weights are read if there are no others.

    Reference: PyTorch, `torch/serialization.py`: the zip format of PyTorch 1.6 and later, and the format before.

    Raises:
        UserError: for other objects, several dicts of arrays of unknown names, or arrays under numbers.
        ValueError: for a corrupt file.
    """
    with open_regular(path) as file:
        read = _read_archive if zipfile.is_zipfile(file) else _read_sequence
        file.seek(0)
        content, byte_order = read(file, path)
    tensors = {name: each for name, each in _state_dict(content, path).items() if isinstance(each, _Tensor)}
    if numbers := [name for name in tensors if not isinstance(name, str)]:
        raise UserError(f"{str(path)!r} contains an array under {shorten(numbers[0])}, which is no name of a layer")
    for tensor in tensors.values():
        tensor.check()
    # A tensor may repeat one value along an axis, without any bytes for it.
    check_expansion(sum(tensor.nbytes for tensor in tensors.values()), path.stat().st_size)
    return {name: tensor.read(byte_order) for name, tensor in tensors.items()}


class _Unpickler(_PYTHON_UNPICKLER):
    """Unpickler of arrays.

    Args:
        file: file of the pickle.
        path: its path, for messages.
        size: largest size of the pickle in bytes.
        load_storage: function from the arguments of a storage to the storage.
    """

    def __init__(self, file: IO[bytes], path: Path, size: int, load_storage: Callable[..., _Storage]):
        super().__init__(file, encoding="utf-8")
        self._path, self._uncopied, self._load_storage = path, size, load_storage

    def find_class(self, module: str, name: str) -> Any:
        """Return the function or class that stands for one of PyTorch's.

        Raises:
            UserError: for any other.
        """
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        if module == "torch" and name in _DTYPES:
            return name
        raise UserError(
            f"{str(self._path)!r} contains objects other than arrays, which are not loaded because they could run "
            f"code: {shortened(f'{module}.{name}', _MAX_NAME)!r}; save the state dict alone, by "
            "torch.save(model.state_dict(), path)"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage with an identifier."""
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] in ("storage", b"storage")):
            raise ValueError("a storage has no identifier of PyTorch")
        _, dtype, key, _, count, *view = pid
        types = (isinstance(dtype, str), isinstance(key, str | int), isinstance(count, int))
        if not all(types) or dtype not in _STORAGES.values() or not 0 <= count < 2**63 or view not in ([], [None]):
            raise ValueError("a storage has no type, key and number of elements of PyTorch")
        return self._load_storage(dtype, str(key), count)

    def refuse(self) -> None:
        """Refuse an instruction that `torch.save` does not write, and that calls a class or claims memory."""
        raise pickle.UnpicklingError("an instruction that no state dict has")

    def reduce(self) -> None:
        """Call a function, which may copy its arguments, unless all calls together copy more than the pickle holds."""
        arguments = self.stack.pop()
        self._uncopied -= sum(1 + (len(each) if isinstance(each, Sized) else 0) for each in arguments)
        if self._uncopied < 0:
            raise pickle.UnpicklingError("the same values are copied again and again")
        self.stack[-1] = self.stack[-1](*arguments)

    def set_item(self) -> None:
        """Add an item to a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_checked_key(key)] = value

    def set_items(self) -> None:
        """Add the items since the last mark to a dict."""
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_checked_key(key)] = value

    def make_dict(self) -> None:
        """Make a dict of the items since the last mark."""
        items = self.pop_mark()
        self.append({_checked_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def build(self) -> None:
        """Drop the state of an object: that of a dict, its `_metadata`, is not needed, and others have none."""
        self.stack.pop()

    dispatch = _PYTHON_UNPICKLER.dispatch | {
        **dict.fromkeys((each[0] for each in _REFUSED), refuse),
        pickle.REDUCE[0]: reduce,
        pickle.BUILD[0]: build,
        pickle.SETITEM[0]: set_item,
        pickle.SETITEMS[0]: set_items,
        pickle.DICT[0]: make_dict,
    }


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor has no storage, shape and strides")
    numbers = (offset, *shape, *strides)
    is_valid = all(isinstance(each, int) and 0 <= each < 2**63 for each in numbers)
    if not is_valid or not len(shape) == len(strides) <= _MAX_RANK:
        raise ValueError("a tensor has a negative or excessive offset, size or stride, or an excessive rank")
    return _Tensor(storage, offset, shape, strides)


def _mapping(items: Any = ()) -> OrderedDict[Any, Any]:
    pairs = items.items() if isinstance(items, Mapping) else items
    return OrderedDict((_checked_key(key), value) for key, value in pairs)


def _checked_key(key: Any) -> Any:
    """Return a key of a dict, which must be a name or a number: the hash of nested tuples can take years."""
    if not isinstance(key, str | int | float | bytes | None):
        raise pickle.UnpicklingError("a dict has a key that is neither a name nor a number")
    return key


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    """Return bytes that protocol 2, which has no instruction for them, stores as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"bytes are stored in the encoding {encoding!r}")
    return text.encode("latin1")


def _size(values: Any = ()) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(isinstance(each, int) for each in values):
        raise ValueError("the size of a tensor holds other values than integers")
    return tuple(values)


# Module and name of an object of a state dict, or of the numbers beside it -> what stands for it.
_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _mapping,
    ("collections", "Counter"): _mapping,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch", "Size"): _size,
    ("torch", "device"): lambda *_: None,
    ("_codecs", "encode"): _encode,
}
_DTYPES = frozenset(
    ("float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool", "half", "float")
)


def _read_archive(file: IO[bytes], path: Path) -> tuple[Any, ByteOrder]:
    """Return the content of a file in the zip format, and its byte order."""
    with zipfile.ZipFile(file) as archive:
        (pickled, *others) = [name for name in archive.namelist() if name.endswith("/data.pkl")] or [""]
        if not pickled or others:
            raise ValueError("the archive has no data.pkl, or several")
        root = pickled.removesuffix("data.pkl")
        storages: dict[str, _Storage] = {}

        def load_storage(dtype: str, key: str, count: int) -> _Storage:
            if key not in storages:
                storages[key] = _Storage(dtype, count, archive.read(f"{root}data/{key}"))
            return _checked(storages[key], dtype, key, count)

        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.namelist() else b"little"
        with archive.open(pickled) as stream:
            content = _Unpickler(stream, path, archive.getinfo(pickled).file_size, load_storage).load()
        for key, storage in storages.items():
            if len(storage.content) < storage.count * storage.itemsize:
                raise ValueError(f"storage {key!r} is incomplete")
        return content, ">" if order == b"big" else "<"


def _read_sequence(file: IO[bytes], path: Path) -> tuple[Any, ByteOrder]:
    """Return the content of a file from before PyTorch 1.6, and its byte order.

    Such a file has five pickles: a magic number, the version, a description of the system, the content, and the keys of
    the storages, whose elements follow in this order, each after their number.
    """
    storages: dict[str, _Storage] = {}

    def load_storage(dtype: str, key: str, count: int) -> _Storage:
        return _checked(storages.setdefault(key, _Storage(dtype, count)), dtype, key, count)

    def load() -> Any:
        return _Unpickler(file, path, path.stat().st_size, load_storage).load()

    try:
        magic = load()
    except UserError:
        raise
    except Exception as error:  # pickle raises many types for other files
        raise ValueError(_describe_foreign(file, path)) from error
    if magic != _MAGIC:
        raise ValueError(_describe_foreign(file, path))
    _, system, content, keys = (load() for _ in range(4))
    is_list = isinstance(keys, list) and all(isinstance(key, str | int) for key in keys)
    if not is_list or not {str(key) for key in keys} == storages.keys():
        raise ValueError("the list of storages is corrupt")
    order: ByteOrder = "<" if not isinstance(system, Mapping) or system.get("little_endian", True) else ">"
    for key in keys:
        storage = storages[str(key)]
        count = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        rest = path.stat().st_size - file.tell()
        if count != storage.count or count * storage.itemsize > rest:
            raise ValueError(f"storage {key!r} has {count} elements instead of {storage.count}, in {rest} bytes")
        storage.content = file.read(count * storage.itemsize)
    return content, order


def _checked(storage: _Storage, dtype: str, key: str, count: int) -> _Storage:
    """Return a storage of several tensors, which must agree about it."""
    if (storage.dtype, storage.count) != (dtype, count):
        raise ValueError(f"storage {key!r} is {storage.count} {storage.dtype} and {count} {dtype}")
    return storage


def _describe_foreign(file: IO[bytes], path: Path) -> str:
    """Describe a file that is neither of the two formats."""
    file.seek(0)
    if _is_tar(file):
        return "its format is that of PyTorch before 0.2; load it with PyTorch and save it again"
    return "it does not begin like a file of torch.save" if path.stat().st_size else "it is empty"


def _is_tar(file: IO[bytes]) -> bool:
    """Return True for an archive without compression; `is_tarfile` decompresses, and xz skips zeros to the end."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            return archive.next() is not None
    except tarfile.ReadError:
        return False


def _state_dict(content: Any, path: Path) -> Mapping[str, Any]:
    """Return the innermost dict of arrays."""
    if not isinstance(content, Mapping):
        found = "an array" if isinstance(content, _Tensor) else type(content).__name__
        raise UserError(f"{str(path)!r} contains {found}, not a state dict")
    return _innermost(content, _find_layers(content), path)


def _innermost(content: Mapping[str, Any], layered: set[int], path: Path) -> Mapping[str, Any]:
    dicts = {name: each for name, each in content.items() if id(each) in layered}
    known = [name for name in (*_WEIGHTS, *_AVERAGED) if name in dicts]
    if not dicts:
        return content
    if not known and len(dicts) > 1:
        raise UserError(
            f"{str(path)!r} contains several state dicts, {', '.join(map(repr, dicts))}; save the one to load by itself"
        )
    return _innermost(dicts[known[0] if known else next(iter(dicts))], layered, path)


def _find_layers(content: Mapping[Any, Any]) -> set[int]:
    """Return the `id` of each state dict and of each dict that contains one, which may be in several others.

    The states of optimizers have numbers as keys.
    """
    containers: dict[int, list[int]] = {id(content): []}  # id of a dict -> those of the dicts that it is in
    pending, states = [content], []
    while pending:
        each = pending.pop()
        if any(isinstance(name, str) and "." in name and isinstance(value, _Tensor) for name, value in each.items()):
            states.append(id(each))
        for value in each.values():
            if isinstance(value, Mapping):
                if id(value) not in containers:
                    pending.append(value)
                containers.setdefault(id(value), []).append(id(each))
    found: set[int] = set()
    while states:
        if (state := states.pop()) not in found:
            found.add(state)
            states += containers[state]
    return found
