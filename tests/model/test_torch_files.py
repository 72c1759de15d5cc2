"""PyTorch checkpoints are read without PyTorch: the same bits as by torch.load, and no code of a hostile file runs."""

import argparse
import collections
import contextlib
import io
import pickle
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA

from resnet_tf.core.errors import UserError
from resnet_tf.core.machine import resident_memory
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.torch_files import _MAGIC, _state_dict, _Storage, _Tensor, read_torch

CIFAR = sorted((SHARED_DATA / "cifar_resnet").glob("*.th"))


def _contents(torch):
    """Contents of checkpoints by a description."""
    torch.manual_seed(0)
    whole = torch.randn(6, 5)
    model = torch.nn.Sequential(collections.OrderedDict(conv=torch.nn.Conv2d(3, 4, 3), norm=torch.nn.BatchNorm2d(4)))
    rate = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    rate.step()
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    dtypes += (torch.int8, torch.uint8, torch.bool)
    steps = torch.optim.lr_scheduler.MultiStepLR(rate, [30, 60])
    return {
        "state dict": model.state_dict(),
        "parameters": dict(model.named_parameters()),
        "types": {f"x.{each}": (3 * torch.randn(3, 4)).to(each) for each in dtypes},
        "views": {
            "a.whole": whole,
            "a.transposed": whole.T,
            "a.part": whole[2:, 1:4],
            "a.steps": whole[::2, ::3],
            "a.expanded": whole[:, :1].expand(6, 9),
            "a.last": whole[-1, -1],
        },
        "shapes": {"a.scalar": torch.tensor(3.5), "a.empty": torch.zeros(0, 7), "a.one": torch.ones(1, 1, 1)},
        "special values": {"a.b": torch.tensor([0.0, -0.0, 1e-45, 3.4e38, 65504.0])},
        "checkpoint": {
            "epoch": 3,
            "arch": "resnet20",
            "best": 0.5,
            "state_dict": model.state_dict(),
            "optimizer": rate.state_dict(),
            "scheduler": steps.state_dict(),
            "size": torch.Size([1, 2]),
            "dtype": torch.float32,
            "device": torch.device("cpu"),
            "bytes": b"\x00\xff",
        },
        "channels last": {"conv.weight": torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)},
    }


CONTENTS = ("state dict", "parameters", "types", "views", "shapes", "special values", "checkpoint", "channels last")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "sequence"])
@pytest.mark.parametrize("name", CONTENTS)
def test_arrays_are_those_of_pytorch(tmp_path, name, zipped):
    torch = pytest.importorskip("torch")
    torch.save(_contents(torch)[name], tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    loaded = torch.load(tmp_path / "x.pth", weights_only=True)
    expected = loaded.get("state_dict", loaded)
    found = read_torch(tmp_path / "x.pth")
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        values = (tensor.detach().float() if tensor.is_floating_point() else tensor).numpy()
        assert found[key].dtype == values.dtype
        assert found[key].shape == values.shape
        assert found[key].tobytes() == values.tobytes(), key


@pytest.mark.parametrize(
    "path",
    CIFAR or [pytest.param(None, marks=pytest.mark.skip(reason="published weights are not beside the checkout"))],
    ids=lambda path: path.name if path else "none",
)
def test_published_files_are_read_as_by_pytorch(path):
    torch = pytest.importorskip("torch")
    expected = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    found = read_torch(path)
    assert found.keys() == expected.keys()
    assert all(found[key].tobytes() == each.numpy().tobytes() for key, each in expected.items())


def test_big_endian_files(tmp_path):
    """As a machine of the other byte order writes them: only the elements and `byteorder` differ."""
    torch = pytest.importorskip("torch")
    torch.save({"a.b": torch.arange(5.0), "a.c": torch.arange(4).bfloat16()}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive, zipfile.ZipFile(tmp_path / "y.pth", "w") as swapped:
        for each in archive.namelist():
            content = archive.read(each)
            if each.endswith(("data/0", "data/1")):
                content = np.frombuffer(content, "u4" if each.endswith("0") else "u2").byteswap().tobytes()
            swapped.writestr(each, b"big" if each.endswith("byteorder") else content)
    found = read_torch(tmp_path / "y.pth")
    np.testing.assert_array_equal(found["a.b"], np.arange(5.0))
    np.testing.assert_array_equal(found["a.c"], np.arange(4.0))


def _zip(path, pickled: bytes, **storages: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _int(value: int) -> bytes:
    return f"L{value}L\n".encode()


def _storage(count: int, key: str = "k0", name: str = "FloatStorage") -> bytes:
    return b"(" + _text("storage") + _global("torch", name) + _text(key) + _text("cpu") + _int(count) + b"tQ"


def _tensor(storage: bytes, offset: int, shape, strides) -> bytes:
    sizes = [b"(" + b"".join(map(_int, each)) + b"t" for each in (shape, strides)]
    rebuild = _global("torch._utils", "_rebuild_tensor_v2")
    return rebuild + b"(" + storage + _int(offset) + sizes[0] + sizes[1] + b"\x89}tR"


def _dict(key: bytes, value: bytes) -> bytes:
    return b"\x80\x02}" + key + value + b"s."


def _one(tensor: bytes) -> bytes:
    return _dict(_text("a.b"), tensor)


def test_a_file_written_from_the_format_is_read(tmp_path):
    """Without PyTorch."""
    values = np.arange(12, dtype=np.float32)
    path = _zip(tmp_path / "x.pth", _one(_tensor(_storage(12), 2, (2, 3), (1, 4))), k0=values.tobytes())
    np.testing.assert_array_equal(read_torch(path)["a.b"], [[2, 6, 10], [3, 7, 11]])


def test_pytorch_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = _zip(tmp_path / "x.pth", _one(_tensor(_storage(3), 0, (3,), (1,))), k0=bytes(12))
    assert readers.read(path).arrays["a.b"].tolist() == [0, 0, 0]


# Calls that a pickle could make: module and name of the function, and its arguments.
CALLS = {
    "a shell": _global("os", "system") + b"(" + _text("touch EXECUTED") + b"tR",
    "a shell, posix": _global("posix", "system") + b"(" + _text("touch EXECUTED") + b"tR",
    "code": _global("builtins", "eval") + b"(" + _text("open('EXECUTED', 'w')") + b"tR",
    "code, Python 2": _global("__builtin__", "exec") + b"(" + _text("open('EXECUTED', 'w')") + b"tR",
    "an attribute of an allowed name": _global("collections", "namedtuple") + b"(" + _text("x") + b"tR",
    "a dotted name": b"\x80\x04" + _text("collections") + _text("OrderedDict.fromkeys") + b"\x93(tR",
    "an import": _global("importlib", "import_module") + b"(" + _text("antigravity") + b"tR",
    "pickle": _global("pickle", "loads") + b"(" + _text("x") + b"tR",
    "an old class": b"(" + _text("touch EXECUTED") + b"ios\nsystem\n",
    "a class": b"(" + _global("os", "system") + _text("touch EXECUTED") + b"o",
    "a new object": _global("torch", "Size") + b")\x81",
    "a registered extension": b"\x82\x01",
    "a namespace": _global("argparse", "Namespace") + b")R",
    "TorchScript": _global("__torch__.module", "Net") + b")R",
}
# Pickles that claim memory or time.
BOMBS = {
    "a memo entry": b"\x80\x02}r\xff\xff\xff\x7f.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "a byte array": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.",
    "an integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "digits": b"\x80\x02I" + b"9" * 100_000 + b"\n.",
    "a key of nested tuples": b"\x80\x02})q\x00" + b"h\x00\x86q\x00".join([b"h\x00"] * 60) + b"Ns.",
    "a set of nested tuples": b"\x80\x04\x8f()q\x00" + b"h\x00\x86q\x00".join([b"h\x00"] * 60) + b"\x90.",
    "a compressed codec": _dict(_text("a"), _global("_codecs", "encode") + b"(" + _text("x") + _text("zip") + b"tR"),
    "a storage": _one(_tensor(_storage(2**60), 0, (1,), (1,))),
    "an expanded tensor": _one(_tensor(_storage(3), 0, (2**20, 2**20), (0, 0))),
    "a negative offset": _one(_tensor(_storage(3), -1, (1,), (1,))),
    "a negative stride": _one(_tensor(_storage(3), 2, (3,), (-1,))),
    "a negative size": _one(_tensor(_storage(3), 0, (-3,), (1,))),
    "a tensor beyond its storage": _one(_tensor(_storage(3), 1, (3,), (1,))),
    "a stride beyond its storage": _one(_tensor(_storage(3), 0, (2,), (3,))),
    "an excessive size": _one(_tensor(_storage(3), 0, (2**64,), (0,))),
    "more sizes than strides": _one(_tensor(_storage(3), 0, (3, 1), (1,))),
    "a missing storage": _one(_tensor(_storage(3, "k1"), 0, (3,), (1,))),
    "another storage of the same key": _dict(_text("a.b"), b"(" + _storage(3) + _storage(3, name="IntStorage") + b"t"),
    "a storage that is none": _one(_tensor(_int(3), 0, (3,), (1,))),
    "a type without arrays": _one(_tensor(_storage(3, name="QInt8Storage"), 0, (3,), (1,))),
    "nothing": b"",
    "no end": b"\x80\x02}",
    "an unknown instruction": b"\x80\x02\xff.",
}
BOMBS["shared dicts"] = b"\x80\x02}q\x00" + b"}(%sh\x00%sh\x00uq\x00" % (_text("a"), _text("b")) * 60 + b"."
_HUGE = 2**20
# Calls that copy a memoized value, which double it or copy it for each of a few bytes of the pickle.
COPIES = {
    "devices": _text("a") + b"q\x00" + (_global("torch", "device") + b"h\x00h\x00\x86Rq\x00") * 40,
    "sizes": b"(" + b"K\x00" * _HUGE + b"tq\x00" + (_global("torch", "Size") + b"h\x00\x85R") * 1000,
    "size of text": _global("torch", "Size") + _text("a" * 100) + b"\x85R",
    "bytes": _text("a" * _HUGE) + b"q\x00" + (_global("_codecs", "encode") + b"h\x00X\6\0\0\0latin1\x86R") * 1000,
    "dicts": b"}(" + b"".join(b"K%cK\x00" % index for index in range(256)) * 100 + b"uq\x00"
    + (_global("collections", "OrderedDict") + b"h\x00\x85R") * 5000,
    "arguments": b"(" + b"K\x00" * _HUGE + b"tq\x00" + (_global("torch", "device") + b"h\x00R") * 1000,
    "rank": _tensor(_storage(1), 0, (2**60,) * 5000, (0,) * 5000),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["zip", "sequence"])
@pytest.mark.parametrize("name", CALLS)
def test_no_function_of_a_file_is_called(tmp_path, monkeypatch, name, layout):
    monkeypatch.chdir(tmp_path)
    path, content = tmp_path / "x.pth", _dict(_text("a.b"), CALLS[name])
    if layout == "zip":
        _zip(path, content)
    else:
        path.write_bytes(pickle.dumps(_MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + content)
    with pytest.raises(UserError, match=r"which are not loaded because they could run code|is corrupt or not a .pth"):
        readers.read(path)
    assert not (tmp_path / "EXECUTED").exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", BOMBS)
def test_claims_of_a_pickle_cost_neither_memory_nor_time(tmp_path, name):
    path = _zip(tmp_path / "x.pth", BOMBS[name], k0=bytes(12))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present memory
    before = resident_memory()
    with contextlib.suppress(UserError):
        assert not readers.read(path).arrays
    assert resident_memory(peak=True) - before < 128  # MB


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_one_value_are_refused(tmp_path, name):
    """Devices, which nothing reads, are not copied."""
    path = _zip(tmp_path / "x.pth", b"\x80\x02(" + COPIES[name] + b"t0}.", k0=bytes(4))
    if name == "devices":
        assert readers.read(path).arrays == {}
        return
    with pytest.raises(UserError, match=r"values are copied again and again|excessive rank|other values than int"):
        readers.read(path)


def test_the_keys_of_storages_are_names_or_numbers(tmp_path):
    """The text of a list that contains another one twice, and so on, would take years."""
    nested = b"]q\x00" + b"](h\x00h\x00eq\x00" * 60
    parts = [pickle.dumps(each, 2) for each in (_MAGIC, 1001, {}, {})]
    (tmp_path / "x.pth").write_bytes(b"".join(parts) + b"\x80\x02" + nested + b".")
    with pytest.raises(UserError, match="the list of storages is corrupt"):
        readers.read(tmp_path / "x.pth")


class _Counted(dict):
    looks = 0

    def items(self):
        _Counted.looks += 1
        return super().items()


def test_a_dict_in_many_others_is_searched_once(tmp_path):
    tensor = _Tensor(_Storage("f4", 1), 0, (), ())
    shared = _Counted({f"layer{index}": 0 for index in range(10)})
    direct = {f"d{index}": shared for index in range(100)}
    nested = {f"n{index}": {"inner": shared} for index in range(100)}
    assert _state_dict({**direct, **nested, "state_dict": {"a.b": tensor}}, tmp_path) == {"a.b": tensor}
    assert _Counted.looks == 1
    shared["c.d"] = tensor
    assert _state_dict({"first": {"again": {"model": shared}}}, tmp_path) is shared


def test_bytes_after_each_other_are_cut(tmp_path):
    """A file from before PyTorch 1.6 that ends within its storages, or whose counts differ."""
    torch = pytest.importorskip("torch")
    torch.save({"a.b": torch.ones(100)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "x.pth").read_bytes()
    for end in (1, 20, len(content) // 2, len(content) - 401, len(content) - 1):
        (tmp_path / "y.pth").write_bytes(content[:end])
        with pytest.raises(UserError, match=r"'.*y.pth' is corrupt or not a .pth file"):
            readers.read(tmp_path / "y.pth")
    (tmp_path / "y.pth").write_bytes(content[:-408] + struct.pack("<q", 99) + content[-400:])
    with pytest.raises(UserError, match=r"storage '\d+' has 99 elements instead of 100"):
        readers.read(tmp_path / "y.pth")


def test_other_files_are_named(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(UserError, match="it is empty"):
        readers.read(tmp_path / "x.bin")
    (tmp_path / "x.bin").write_bytes(b"<html>404</html>")
    with pytest.raises(UserError, match=r"it does not begin like a file of torch.save"):
        readers.read(tmp_path / "x.bin")
    with tarfile.open(tmp_path / "x.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    with pytest.raises(UserError, match=r"PyTorch before 0.2; load it with PyTorch and save it again"):
        readers.read(tmp_path / "x.pth")


def test_the_refused_object_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": {"a.b": torch.ones(1)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"could run code: 'argparse.Namespace'; save the state dict alone, by torch"):
        readers.read(tmp_path / "x.pth")
