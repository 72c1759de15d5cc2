"""Files of unknown origin: JSON, manifests and directories are read within bounds, or refused in one line."""

import errno
import gzip
import io
import itertools
import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
from conftest import find_listed_corruption, write_imagenet_records, write_listed
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from resnet_tf.config import DataConfig, load_config
from resnet_tf.core import bounded, files
from resnet_tf.core.errors import Interrupted, UserError
from resnet_tf.core.export_metadata import MANIFEST, METADATA, PRECISIONS, read_export
from resnet_tf.core.numpy_files import read_npy
from resnet_tf.core.signals import clean_up_on_sigterm
from resnet_tf.core.validation import find_mismatch
from resnet_tf.data import prepare as prepare_module
from resnet_tf.data.sources import open_source
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.bounds import check_bounds
from resnet_tf.serving.artifact import write_version
from resnet_tf.serving.export import TARGETS
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training import checkpoint, run, workdir
from resnet_tf.training.progress import RunState
from resnet_tf.workflows.prepare import prepare
from resnet_tf.workflows.train import train_and_evaluate

SECONDS = 30  # a test that takes longer waits for a pipe, or reads a device


@pytest.fixture(autouse=True)
def _no_hang(request):
    """Fail a test that waits for a pipe or a device, instead of waiting with it."""

    seconds = SECONDS * (10 if request.node.get_closest_marker("slow") else 1)

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _directory(path: Path, outside: Path) -> None:
    path.mkdir()


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


# Replacements of a file that a reader must not open.
IRREGULAR = {
    "pipe": lambda path, outside: os.mkfifo(path),
    "device": lambda path, outside: path.symlink_to("/dev/zero"),
    "directory": _directory,
    "link to nothing": lambda path, outside: path.symlink_to(outside / "missing"),
    "link to itself": lambda path, outside: path.symlink_to(path),
    "sparse file": lambda path, outside: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**40),
}
each_irregular = pytest.mark.parametrize("replace", IRREGULAR.values(), ids=IRREGULAR)

# Texts that are no JSON value of ours, and the reason that is reported for each.
STRANGE_JSON = {
    "empty": (b"", "Expecting value"),
    "cut": (b'{"a": ', "Expecting value"),
    "twice": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' occurs twice"),
    "twice at the end": (b'{%s"a":0,"a":1}' % b"".join(b'"%d":0,' % each for each in range(10**5)), "'a' occurs twice"),
    "very deep": (b"[" * 100_000, "recursion"),
    "deep": (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", "nested deeper than 100 levels"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "can't decode byte"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "can't decode byte"),
    "null bytes": (b"\x00" * 10, "Expecting value"),
    "half of a pair": (b'{"a": "\\ud800"}', "half of a surrogate pair"),
    "half of a pair as a key": (b'{"\\udfff": 1}', "half of a surrogate pair"),
    "many digits": (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    "two values": (b"{} {}", "Extra data"),
    "comment": (b'{"a": 1} // x', "Extra data"),
}


@each_irregular
def test_json_is_read_from_regular_files_of_a_bounded_size(tmp_path, replace):
    replace(tmp_path / "x.json", tmp_path)
    with pytest.raises(UserError, match=r"^cannot read '.*x.json': [^\n]+$"):
        files.read_json(tmp_path / "x.json")


@each_irregular
def test_json_lines_are_read_from_regular_files_of_a_bounded_size(tmp_path, replace, request):
    replace(tmp_path / "x.jsonl", tmp_path)
    if "link to nothing" in request.node.callspec.id:
        assert files.read_json_lines(tmp_path / "x.jsonl") == []
        return
    with pytest.raises(UserError, match=r"^cannot read '.*x.jsonl': [^\n]+$"):
        files.read_json_lines(tmp_path / "x.jsonl")


@pytest.mark.parametrize(("content", "reason"), STRANGE_JSON.values(), ids=STRANGE_JSON)
def test_strange_json_is_described_in_one_line(tmp_path, content, reason):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"^'.*x.json' is not JSON: [^\n]*{reason}[^\n]*$"):
        files.read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": NaN, "b": -Infinity}', {"a": pytest.approx(float("nan"), nan_ok=True), "b": float("-inf")}),
        (b'{"a": "\\udce9.jpg"}', {"a": "\udce9.jpg"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b' {"a": 1}\r\n', {"a": 1}),
    ],
    ids=["byte order mark", "not finite", "byte of a file name", "pair", "blanks"],
)
def test_json_of_other_programs_is_read(content, value):
    assert bounded.parse_json(content) == value


@pytest.mark.parametrize(
    ("value", "declared", "expected"),
    [
        (2**63, int, "it is an integer beyond 64 bits, not an integer"),
        (-(2**63) - 1, int | None, "it is an integer beyond 64 bits, not an integer or null"),
        (10**400, float, "it is an integer beyond 64 bits, not a number"),
        ({"a\x1b[2Jb" + "c" * 100: 1}, dict[str, str], "it.a\\x1b[2Jb" + "c" * 54 + " is an integer, not a string"),
    ],
)
def test_numbers_beyond_64_bits_and_long_keys_are_described(value, declared, expected):
    assert find_mismatch(value, declared, "it") == expected


@pytest.mark.parametrize(
    "name",
    ["", ".", "./needed", "below//other", "below/", "below\\other", "/needed", "../needed", "a/../needed", "a\0b"],
)
def test_names_in_a_manifest_are_plain_relative_paths(tmp_path, name):
    write_listed(tmp_path, "content")
    digests = json.loads((tmp_path / "sha256.json").read_text())
    (tmp_path / "sha256.json").write_text(json.dumps(digests | {name: digests["needed"]}))
    assert find_listed_corruption(tmp_path)


@pytest.mark.parametrize("digest", [None, 7, [], {}, "", "0" * 64, 1e400], ids=str)
def test_a_strange_digest_is_a_difference(tmp_path, digest):
    write_listed(tmp_path, "content")
    digests = json.loads((tmp_path / "sha256.json").read_text())
    (tmp_path / "sha256.json").write_text(json.dumps(digests | {"needed": digest}))
    assert find_listed_corruption(tmp_path) == "needed differs from what was written"


@pytest.mark.parametrize("name", ["needed", "below/other", "sha256.json"])
@each_irregular
def test_listed_files_are_regular(tmp_path, name, replace):
    write_listed(tmp_path / "inside", "content")
    (tmp_path / "inside" / name).unlink()
    replace(tmp_path / "inside" / name, tmp_path)
    assert re.match(rf"^{name}[: ][^\n]+$", find_listed_corruption(tmp_path / "inside"))


def test_links_are_followed_only_inside_the_directory(tmp_path):
    directory = write_listed(tmp_path / "inside", "content")
    (directory / "needed").rename(tmp_path / "outside")
    (directory / "needed").symlink_to(tmp_path / "outside")
    assert re.match(r"needed: a symbolic link to a file outside of '.*inside'$", find_listed_corruption(directory))
    (directory / "needed").unlink()
    (tmp_path / "outside").rename(directory / ".blob")
    (directory / "needed").symlink_to(".blob")
    assert find_listed_corruption(directory) == ""
    (tmp_path / "link").symlink_to(directory)
    assert find_listed_corruption(tmp_path / "link") == "", "the directory itself may be a link"


@pytest.mark.parametrize("name", ["extra", "below/saved_model.cpb", "new/extra", "other.json"])
def test_files_that_a_manifest_does_not_list_are_refused(tmp_path, name):
    write_listed(tmp_path, "content")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    assert find_listed_corruption(tmp_path) == f"{name!r} is not one of the files that were written"


def test_a_link_to_a_directory_is_refused(tmp_path):
    directory = write_listed(tmp_path / "inside", "content")
    (tmp_path / "outside").mkdir()
    (directory / "assets").symlink_to(tmp_path / "outside")
    assert find_listed_corruption(directory) == "'assets' is not one of the files that were written"


def _rewrite(directory: Path, file: Path, manifest: Path, **changes: Any) -> None:
    """Change fields of a JSON file, `...` removing one, with a manifest that fits."""
    content = json.loads((directory / file).read_text()) | changes
    (directory / file).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    _sign(directory, manifest)


def _sign(directory: Path, manifest: Path) -> None:
    (directory / manifest).unlink()
    files.write_manifest(directory, manifest)


PREPROCESS = {"type": "image", "size": [8, 8], "channels": 1, "mean": [0.5], "std": [0.5]}
INCONSISTENT_EXPORTS = {
    "fewer labels": ({"labels": ["a", "b"]}, r"must return logits: float32 \[batch, 2\], has float32 \(None, 10\)"),
    "empty label": ({"labels": [""] * 10}, r"a label is empty"),
    "other size": ({"preprocess": PREPROCESS | {"size": [9, 8]}}, r"takes images: .*\(None, 8, 8, 3\); its preproc"),
    "huge size": ({"preprocess": PREPROCESS | {"size": [2**40, 2**40]}}, r"size|takes images"),
    "beyond 64 bits": ({"preprocess": PREPROCESS | {"size": [2**70, 8]}}, r"integer beyond 64 bits"),
    "signals": (
        {"preprocess": {"type": "signal", "length": 8, "channels": 1, "mean": [0], "std": [1]}},
        r"takes image",
    ),
    "negative step": ({"step": -1}, r"step is negative"),
    "unknown precision": ({"precision": "float31"}, r"precision is 'float31', not one of float32, bfloat16,"),
    "negative parameters": ({"parameters": -1}, r"parameters is negative"),
    "other target": ({"target": "litert"}, r"model.tflite' cannot be loaded"),
    "not an export of classes": ({"labels": []}, r"has no classes to predict"),
}


@pytest.mark.parametrize(("changes", "message"), INCONSISTENT_EXPORTS.values(), ids=INCONSISTENT_EXPORTS)
def test_exports_whose_parts_do_not_fit_are_refused(tiny_export, tmp_path, changes, message):
    directory = shutil.copytree(tiny_export, tmp_path / "1")
    _rewrite(directory, METADATA, MANIFEST, **changes)
    with pytest.raises(UserError, match=message) as caught:
        Predictor(directory)
    assert "\n" not in str(caught.value)


class _Graph(tf.Module):
    """A network in whose signatures a part is missing."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def encoded(self, image_bytes):
        return {"logits": tf.zeros([tf.size(image_bytes), 10]), "probabilities": tf.zeros([tf.size(image_bytes), 10])}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")])
    def images(self, images):
        return {"logits": tf.zeros([tf.shape(images)[0], 10]), "probabilities": tf.zeros([tf.shape(images)[0], 10])}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")])
    def logits_only(self, images):
        return {"logits": tf.zeros([tf.shape(images)[0], 10])}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float64, name="images")])
    def float64(self, images):
        return {"logits": tf.zeros([tf.shape(images)[0], 10]), "probabilities": tf.zeros([tf.shape(images)[0], 10])}


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        ({"serving_default": "encoded", "images": "images"}, ""),
        ({}, r"has no signature 'serving_default'"),
        ({"serving_default": "encoded"}, r"the signature 'serving_default' of .* takes image_bytes: string"),
        ({"serving_default": "images", "images": "images"}, r"'serving_default' of .* takes images: float32"),
        ({"serving_default": "encoded", "images": "logits_only"}, r"must return probabilities: .*has no such output"),
        ({"serving_default": "encoded", "images": "float64"}, r"takes images: float64 .* gives images: float32"),
    ],
)
def test_a_saved_model_without_our_signatures_is_refused(tiny_export, tmp_path, signatures, message):
    directory = shutil.copytree(tiny_export, tmp_path / "1")
    shutil.rmtree(directory / "variables")
    graph = _Graph()
    tf.saved_model.save(graph, str(directory), {name: getattr(graph, method) for name, method in signatures.items()})
    _sign(directory, MANIFEST)
    if message:
        with pytest.raises(UserError, match=message):
            Predictor(directory)
    else:
        assert Predictor(directory).logits(np.zeros((2, 8, 8, 3), np.float32)).shape == (2, 10)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x0a\xff\xff\xff\xff\x0f"], ids=["empty", "text", "length"])
def test_a_graph_that_is_none_is_refused(tiny_export, tmp_path, content):
    directory = shutil.copytree(tiny_export, tmp_path / "1")
    (directory / "saved_model.pb").write_bytes(content)
    _sign(directory, MANIFEST)
    with pytest.raises(UserError, match="cannot be loaded"):
        Predictor(directory)


def test_versions_of_servers_and_file_managers_are_found(tiny_export, tmp_path):
    """TensorFlow Serving takes the name of a version as a number, zeros in front included."""
    shutil.copytree(tiny_export, tmp_path / "0007")
    for name in (".DS_Store", "Thumbs.db", "._0007"):
        (tmp_path / name).write_text("")
    assert read_export(tmp_path).directory == tmp_path / "0007"
    write_version(tmp_path, lambda staging: (staging / "x").touch())
    assert sorted(files.list_numbered(tmp_path)) == [7, 8]
    (tmp_path / "9").symlink_to(tmp_path / "0007")
    assert read_export(tmp_path).directory == tmp_path / "9"
    (tmp_path / "7").mkdir()
    with pytest.raises(UserError, match="are the same version; remove one of them"):
        read_export(tmp_path)


def test_directories_of_other_files_are_still_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"contains files that are not exports \(notes.txt\)"):
        write_version(tmp_path, lambda staging: None)


INCONSISTENT_CHECKPOINTS = {
    "other step": ({"step": 4}, r"metadata.json' is invalid: it is of step 4"),
    "negative step": ({"step": -7}, r"it is of step -7"),
    "no classes": ({"data": {"name": "x", "class_names": [], "splits": {}}}, r"data.class_names is empty"),
    "other classes": ({"data": {"name": "x", "class_names": ["a"], "splits": {}}}, r"is corrupt or of another network"),
    "other size": ({"preprocess": PREPROCESS | {"size": [9, 8]}}, r"its preprocessing gives \(9, 8, 1\), but the net"),
    "signals": (
        {"preprocess": {"type": "signal", "length": 8, "channels": 1, "mean": [0], "std": [1]}},
        r"preprocessing",
    ),
    "no preprocessing": ({"preprocess": None}, r"preprocess is null, not an object"),
    "metrics": ({"metrics": {"top1": "best"}}, r"metrics.top1 is a string"),
}


@pytest.fixture(scope="module")
def copied_run(tiny_run, tmp_path_factory) -> Path:
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("copy") / "run")


def _newest(workdir: Path) -> Path:
    return max((workdir / run.CHECKPOINTS).iterdir())


@pytest.mark.parametrize(("changes", "message"), INCONSISTENT_CHECKPOINTS.values(), ids=INCONSISTENT_CHECKPOINTS)
def test_checkpoints_whose_parts_do_not_fit_are_refused(copied_run, changes, message):
    newest = _newest(copied_run)
    before = (newest / "metadata.json").read_text()
    _rewrite(newest, Path("metadata.json"), Path("sha256.json"), **changes)
    try:
        with pytest.raises(UserError, match=message) as caught:
            run.load_run(copied_run)
        assert "\n" not in str(caught.value)
    finally:
        (newest / "metadata.json").write_text(before)
        _sign(newest, Path("sha256.json"))


@pytest.mark.parametrize("name", [".DS_Store", "notes.txt", "7", "00000099", "0000000x", "best/00000001"])
def test_foreign_files_beside_checkpoints_are_ignored(copied_run, name):
    step = int(_newest(copied_run).name)
    path = copied_run / run.CHECKPOINTS / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    assert run.load_run(copied_run).step == step
    path.unlink()


@pytest.mark.parametrize(
    "changes",
    [{"step": -1}, {"loss": float("nan")}, {"seconds": float("inf")}, {"step": 2**70}, {"images": -3}],
    ids=str,
)
def test_impossible_counters_of_a_run_are_refused(changes):
    with pytest.raises(UserError, match=rf"run.{next(iter(changes))} is "):
        RunState.from_dict(RunState().to_dict() | changes)


FOREIGN = [".DS_Store", "._needed", "Thumbs.db", "desktop.ini", ".nfs000000000001", ".git/config", "__MACOSX/x"]


@pytest.mark.parametrize("name", FOREIGN)
def test_leftovers_of_file_managers_are_ignored(tmp_path, name):
    write_listed(tmp_path, "content")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    assert find_listed_corruption(tmp_path) == ""


def test_numbered_directories(tmp_path):
    assert files.list_numbered(tmp_path / "missing") == {}
    for name in ("0012", "3", "latest", "\u0663", "-1", "1.5", "9" * 30, "99x"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    (tmp_path / "20").symlink_to(tmp_path / "3")
    (tmp_path / "21").symlink_to(tmp_path / "missing")
    assert files.list_numbered(tmp_path) == {3: tmp_path / "3", 12: tmp_path / "0012", 20: tmp_path / "20"}
    assert list(files.list_numbered(tmp_path, digits=4)) == [12]
    (tmp_path / "12").mkdir()
    with pytest.raises(UserError, match=r"'.*0012' and '.*12' are the same version; remove one of them"):
        files.list_numbered(tmp_path)


def test_a_directory_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    def deny(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", deny)  # tests run as root, which may read anything
    for find in (files.list_numbered, checkpoint.latest, checkpoint.best):
        with pytest.raises(UserError, match=r"cannot read '.*': Permission denied"):
            find(tmp_path)


METRICS = {"epoch": 1, "step": 9, "loss": 1.0, "top1": 0.5, "learning_rate": 0.1, "images_per_second": 5.0}
CORRUPT_LINES = {
    "text": "garbage",
    "bytes": "\udcff\udc80",
    "list": "[1, 2]",
    "missing": '{"step": 3}',
    "type": json.dumps(METRICS | {"train_seconds": "long"}),
    "huge": json.dumps(METRICS | {"train_seconds": 1, "step": 10**30}),
    "blank": "",
    "null": json.dumps(METRICS | {"train_seconds": 1.0, "step": None}),  # a null is NaN, which no integer is
    "nested": json.dumps(METRICS | {"train_seconds": 1.0, "val_loss": [None]}),
}


@pytest.mark.parametrize("line", CORRUPT_LINES.values(), ids=CORRUPT_LINES)
def test_corrupt_metrics_do_not_block_a_run(tmp_path, caplog, line):
    good = [METRICS | {"train_seconds": 1.0, "epoch": epoch} for epoch in (1, 2)]
    text = f"{json.dumps(good[0])}\n{line}\n{json.dumps(good[1])}\n".encode(errors="surrogateescape")
    (tmp_path / "metrics.jsonl").write_bytes(text)
    assert run.read_metrics(tmp_path) == good, "a report shows the others"
    assert re.search(r"line 2 of '.*metrics.jsonl'[^\n]+; it is left out", caplog.text)
    assert (tmp_path / "metrics.jsonl").read_bytes() == text
    run.repair_metrics(tmp_path)
    assert files.read_json_lines(tmp_path / "metrics.jsonl", run.MetricsLine) == good
    assert (tmp_path / "metrics.jsonl.corrupt").read_bytes() == text
    caplog.clear()
    run.repair_metrics(tmp_path)
    assert not caplog.records


IMAGES, LABELS = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
ARRAYS = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}


def _header(dtype: str, shape: str) -> bytes:
    """Return the content of an `.npy` file that claims another dtype and shape than it has values."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(16)


def _write_npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in ARRAYS.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("EXECUTED"),))


# Members of an archive, `class_names` beside the arrays above, that no array can be read from.
WRONG_MEMBERS = {
    "empty": b"",
    "text": b"cat\ndog\n",
    "cut header": _header("'<U3'", "(2,)")[:20],
    "objects": _npy(np.array([_Bomb()], object)),
    "claimed objects": _header("'|O'", "(2,)"),
    "huge shape": _header("'<f4'", "(1000000, 1000000, 1000000)"),
    "beyond 64 bits": _header("'<f4'", f"({2**40}, {2**40})"),
    "huge items": _header("'<U2000000000'", "(1,)"),
    "many empty items": _header("'<U0'", f"({2**60},)"),
    "negative shape": _header("'<f4'", "(-1, -4)"),
    "more than there is": _header("'<U3'", "(2000,)"),
    "shape as text": _header("'<U3'", "'many'"),
    "code as dtype": _header("__import__('os').getcwd()", "(2,)"),
    "other version": b"\x93NUMPY\x09\x00" + bytes(100),
}


@pytest.mark.parametrize("content", WRONG_MEMBERS.values(), ids=WRONG_MEMBERS)
def test_arrays_that_cannot_be_read_are_named(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    _write_npz(tmp_path / "x.npz", {"class_names": content})
    with pytest.raises(UserError, match=r"^cannot read 'class_names' of '.*x.npz': [^\n]+$"):
        open_source(DataConfig(source=str(tmp_path / "x.npz"), channels=1))
    with pytest.raises(UserError, match=r"'.*w.npz'"):
        readers.read(_copy(tmp_path / "x.npz", tmp_path / "w.npz"))
    with pytest.raises(ValueError, match=r"."):
        read_npy(content)
    assert not Path("EXECUTED").exists()


def _copy(path: Path, target: Path) -> Path:
    return Path(shutil.copy(path, target))


def test_the_arrays_without_them_are_read(tmp_path):
    _write_npz(tmp_path / "x.npz", {"class_names": _npy(np.array(["cat", "dog"]))})
    assert open_source(DataConfig(source=str(tmp_path / "x.npz"), channels=1)).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "names", [np.array([["cat", "dog"]]), np.array("cat"), np.zeros(0, str), np.array([1.5, 2.5])], ids=repr
)
def test_names_of_classes_are_a_list_of_text(tmp_path, names):
    _write_npz(tmp_path / "x.npz", {"class_names": _npy(names)})
    with pytest.raises(UserError, match=r"class_names of '.*' is .*; expected text \[classes\]"):
        open_source(DataConfig(source=str(tmp_path / "x.npz")))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 2, 3, 4, 2**40]), r"has label 1099511627776, but the number of classes is 1,048,576"),
        (np.full(6, 2**63, np.uint64), r"expected non-negative integers"),
        (np.array(0), r"expected non-negative integers"),
        (np.array([0, 1, 2, 3, 4, -1]), r"expected non-negative integers"),
        (np.zeros((6, 0), int), r"expected non-negative integers"),
    ],
    ids=["huge", "beyond 64 bits", "scalar", "negative", "none"],
)
def test_impossible_labels_are_refused(tmp_path, labels, message):
    np.savez(tmp_path / "x.npz", **(ARRAYS | {"y_train": labels}))
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=str(tmp_path / "x.npz"), channels=1))


def _bomb(path: Path) -> None:
    _write_npz(path, {"x": bytes(2**29)}, zipfile.ZIP_DEFLATED)


def _encrypted(path: Path) -> None:
    _write_npz(path, {})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + offset] |= 1
            start = content.find(signature, start + 4)
    path.write_bytes(content)


WRONG_ARCHIVES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"x_train"),
    "an array": lambda path: path.write_bytes(_npy(IMAGES)),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(_Bomb())),
    "cut": lambda path: _write_npz(path, {}) or os.truncate(path, path.stat().st_size - 30),
    "bomb": _bomb,
    "encrypted": _encrypted,
}


@pytest.mark.parametrize("write", WRONG_ARCHIVES.values(), ids=WRONG_ARCHIVES)
def test_archives_that_cannot_be_read_are_named(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"^cannot read .*'.*x.npz': [^\n]+$"):
        open_source(DataConfig(source=str(tmp_path / "x.npz"), channels=1))
    with pytest.raises(UserError, match=r"'.*w.npz'"):
        readers.read(_copy(tmp_path / "x.npz", tmp_path / "w.npz"))
    assert not Path("EXECUTED").exists()


WRONG_IDX = {
    "empty": b"",
    "text": b"garbage",
    "cut": struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(31),
    "more": struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(33),
    "huge": struct.pack(">HBBIII", 0, 8, 3, 2**31 - 1, 2**31 - 1, 2**31 - 1) + bytes(32),
    "negative": struct.pack(">HBBiii", 0, 8, 3, -1, -4, 8) + bytes(32),
    "other type": struct.pack(">HBBIII", 0, 13, 3, 2, 4, 4) + bytes(128),
}


@pytest.mark.parametrize("content", WRONG_IDX.values(), ids=WRONG_IDX)
@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress, lambda content: gzip.compress(content)[:-9]])
def test_idx_files_of_impossible_sizes_are_named(tmp_path, content, pack):
    suffix = "" if pack(b"x") == b"x" else ".gz"
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(pack(content))
    labels = struct.pack(">HBBI", 0, 8, 1, 2) + bytes(2)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.*'"):
        open_source(DataConfig(source=str(tmp_path), eval_split="train", channels=1))


def test_an_idx_file_that_decompresses_to_more_than_it_claims_is_read_no_further(tmp_path):
    content = struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(2**28)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + bytes(2))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"is not a complete IDX file"):
            open_source(DataConfig(source=str(tmp_path), eval_split="train", channels=1))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def _masked_checksum(data: bytes) -> int:
    """Return the masked CRC32C of TFRecord files."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("length", [2**33, 2**45, 2**62, 2**64 - 17, 2**64 - 1])
@pytest.mark.parametrize("first", [True, False], ids=["first record", "last record"])
def test_a_record_that_claims_more_than_its_file_does_not_end_the_process(tmp_path, length, first):
    """TensorFlow allocates as many bytes, and ends the process if there are not as many."""
    claim = struct.pack("<Q", length)
    claim += struct.pack("<I", _masked_checksum(claim)) + b"abc"
    for split in ("train", "validation"):
        path = tmp_path / f"{split}-00000-of-00001"
        write_imagenet_records(path, [(tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy(), 1, {})] * 3)
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(claim + path.read_bytes() if first else path.read_bytes() + claim)
    config = DataConfig(source=str(tmp_path), eval_split="validation")
    train = open_source(config, for_training=False).train
    assert train.num_examples == (0 if first else 3)
    assert "the rest of the file is lost" in train.corruption[-1].reason


def test_labels_of_records_are_bounded(tmp_path):
    image = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    for split, labels in (("train", [1, 2, 2**40]), ("validation", [1, 2]), ("signed", [1, -1])):
        write_imagenet_records(tmp_path / f"{split}-00000-of-00001", [(image, label, {}) for label in labels])
    with pytest.raises(UserError, match=r"byte \d+, has label 1099511627776, but the number of classes is 1,048,576"):
        open_source(DataConfig(source=str(tmp_path), eval_split="validation"))
    with pytest.raises(UserError, match=r"split 'signed': .*, byte \d+, has label -1, expected non-negative integers"):
        open_source(DataConfig(source=str(tmp_path), train_split="signed", eval_split="validation"))


def _external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["x"] = np.ones(3, np.float32)
    file["layers/a/vars/0"] = h5py.ExternalLink(str(folder / "secret.h5"), "x")


def _link_to_a_pipe(file: h5py.File, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    file["layers/a/vars/0"] = h5py.ExternalLink(str(folder / "pipe"), "x")


def _soft_link(file: h5py.File, folder: Path) -> None:
    file["layers/a/vars/0"] = h5py.SoftLink("/layers")


def _virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["x"] = np.ones(3, np.float32)
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "x", (3,))
    file.create_virtual_dataset("layers/a/vars/0", layout)


def _external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(12))
    file.create_dataset("layers/a/vars/0", (3,), np.float32, external=[(str(folder / "secret"), 0, 12)])


def _without_storage(file: h5py.File, folder: Path) -> None:
    file.create_dataset("layers/a/vars/0", (2**20, 2**20, 2**10), np.float32, chunks=(64, 64, 1), fillvalue=1)


def _compressed(file: h5py.File, folder: Path) -> None:
    for name in ("a", "b"):
        file.create_dataset(f"layers/{name}/vars/0", data=np.zeros(2**26, np.float32), compression="gzip")


def _of_variable_size(file: h5py.File, folder: Path) -> None:
    file["layers/a/vars/0"] = ["text"] * 3


def _deep(file: h5py.File, folder: Path) -> None:
    file["layers/" + "a/" * 1000 + "vars"] = 1.0


def _two_names(file: h5py.File, folder: Path) -> None:
    """Each level doubles the number of paths to the last one."""
    group = file.create_group("layers")
    for _ in range(20):
        below = group.create_group("layers")
        group["again"], group = below, below


def _dataset(file: h5py.File, chunk: int = 16, **settings: Any) -> h5py.Dataset:
    return file.create_dataset("layers/a/vars/0", (16,), np.float32, chunks=(chunk,), maxshape=(None,), **settings)


def _inflated(file: h5py.File, folder: Path) -> None:
    _dataset(file, compression="gzip").id.write_direct_chunk((0,), zlib.compress(bytes(2**20)))


def _inflated_twice(file: h5py.File, folder: Path) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((16,))
    settings.set_deflate(9)
    settings.set_deflate(9)
    group, space = file.create_group("layers/a/vars"), h5py.h5s.create_simple((16,))
    stored = h5py.Dataset(h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, settings))
    stored.id.write_direct_chunk((0,), zlib.compress(zlib.compress(bytes(2**20))))


def _large_chunk(file: h5py.File, folder: Path) -> None:
    _dataset(file, 2**28)


def _small_chunks(file: h5py.File, folder: Path) -> None:
    file.create_dataset("layers/a/vars/0", (2**20,), np.float32, chunks=(1,))


def _long_name(file: h5py.File, folder: Path) -> None:
    _dataset(file)
    file["layers/a/vars"].attrs["name"] = "a" * 2**16


HDF5 = {
    "external link": (_external_link, r"/layers/a/vars/0 is a link to '?/.*secret.h5'?x'"),
    "link to a pipe": (_link_to_a_pipe, r"is a link to"),
    "soft link": (_soft_link, r"is a link to '/layers'"),
    "virtual": (_virtual, r"is a view of other files"),
    "external storage": (_external_storage, r"is stored in another file, '.*secret'"),
    "without storage": (_without_storage, r"claims [\d,]+ bytes of content in a file of"),
    "compressed": (_compressed, r"claims [\d,]+ bytes of content in a file of"),
    "variable size": (_of_variable_size, r"holds values of variable size"),
    "deep": (_deep, r"nested deeper than 30 levels"),
    "two names": (_two_names, r"is another name of an object in the file"),
    "inflated": (_inflated, r"a chunk of /layers/a/vars/0 holds more than its 64 bytes"),
    "inflated twice": (_inflated_twice, r"/layers/a/vars/0 is stored with other filters than gzip, shuffle and fletch"),
    "other filter": (lambda file, folder: _dataset(file, compression="lzf"), r"is stored with other filters than gzip"),
    "large chunk": (_large_chunk, r"claims [\d,]+ bytes of content in a file of"),
    "small chunks": (_small_chunks, r"claims [\d,]+ bytes of content in a file of"),
    "long name": (_long_name, r"the name of a layer has 65,536 characters; the limit is 4,096"),
}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(("write", "message"), HDF5.values(), ids=HDF5)
def test_hdf5_files_hold_all_of_their_arrays(tmp_path, suffix, write, message):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write(file, tmp_path)
    if suffix == ".keras":
        with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
            archive.write(tmp_path / "x.h5", "model.weights.h5")
            archive.writestr("config.json", "{}")
    with pytest.raises(UserError, match=rf"'.*x{suffix}' is corrupt or not a {suffix} file: .*{message}"):
        readers.read(tmp_path / f"x{suffix}")


def test_groups_in_a_circle_end(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("layers/a")
        file["layers/a/layers"] = file["layers"]
    with pytest.raises(ValueError, match="/layers/a/layers is another name of an object in the file"):
        check_bounds(tmp_path / "x.h5")


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("fletcher32", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_compressed_arrays_are_read(tmp_path, shuffle, fletcher32, compression):
    values = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)  # incompressible
    with h5py.File(tmp_path / "x.h5", "w") as file:
        settings = {"compression": compression, "shuffle": shuffle, "fletcher32": fletcher32}
        file.create_dataset("a/k", data=values, chunks=(16, 16), **settings)
        file["a"].attrs["weight_names"] = [b"k"]
        file.attrs["layer_names"] = [b"a"]
    np.testing.assert_array_equal(readers.read(tmp_path / "x.h5").arrays["a/k"], values)


@pytest.mark.parametrize("names", [["a", "./a"], ["a", "/a"], ["a", "a"], ["b", "a"]])
def test_an_array_that_a_file_lists_twice_is_refused(tmp_path, names):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/k"] = np.zeros(3, np.float32)
        file.create_group("b").attrs["weight_names"] = [b"/a/k"]
        file["a"].attrs["weight_names"] = [b"k"]
        file.attrs["layer_names"] = [name.encode() for name in names]
    with pytest.raises(UserError, match=r"x.h5' is corrupt or not a .h5 file: '/a/k' is listed twice"):
        readers.read(tmp_path / "x.h5")


class _Checkpoint:
    """Reader of a checkpoint with more variables at the same bytes of its file than memory could hold."""

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        return {f"v{index}": [2**20, 2**20] for index in range(100)}

    def get_variable_to_dtype_map(self) -> dict[str, tf.DType]:
        return dict.fromkeys(self.get_variable_to_shape_map(), tf.float32)

    def get_tensor(self, name: str) -> np.ndarray:
        raise AssertionError(f"{name} is read")


def test_variables_larger_than_the_files_of_a_checkpoint_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tf.train, "load_checkpoint", lambda path: _Checkpoint())
    saved = SavedModel()
    nodes = saved.meta_graphs.add().object_graph_def.nodes
    nodes.add().children.add(local_name="variables", node_id=1)
    nodes.add()
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    (tmp_path / "variables").mkdir()
    for part in ("index", "data-00000-of-00001"):
        (tmp_path / "variables" / f"variables.{part}").write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"variables' is corrupt or not a checkpoint: it claims [\d,]+ bytes of"):
        readers.read(tmp_path / "variables" / "variables")
    with pytest.raises(ValueError, match=r"it claims [\d,]+ bytes of content in a file of 200 bytes"):
        readers._read_hub(tmp_path)


@pytest.mark.parametrize("suffix", [*readers.SUFFIXES])
@each_irregular
def test_weights_are_regular_files(tmp_path, suffix, replace):
    replace(tmp_path / f"x{suffix}", tmp_path)
    with pytest.raises(UserError):
        readers.read(tmp_path / f"x{suffix}")


@each_irregular
def test_checkpoints_of_weights_are_regular_files(tmp_path, replace):
    (tmp_path / "x.index").write_bytes(b"")
    replace(tmp_path / "x.data-00000-of-00001", tmp_path)
    with pytest.raises(UserError):
        readers.read(tmp_path / "x")


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**26) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 66) + b'{"x":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,16]}}  ' + bytes(16),
        struct.pack("<Q", 62) + b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999]}}  ' + bytes(16),
        b"",
    ],
    ids=["beyond", "long", "list", "shape", "offsets", "empty"],
)
def test_safetensors_of_impossible_sizes_are_refused(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(header)
    with pytest.raises(UserError, match=r"'.*x.safetensors' is corrupt or not a .safetensors file: [^\n]+$"):
        readers.read(tmp_path / "x.safetensors")


def test_archives_of_weights_that_decompress_to_more_are_refused(tmp_path):
    for suffix, member in ((".keras", "model.weights.h5"), (".pth", "archive/data/0")):
        with zipfile.ZipFile(tmp_path / f"x{suffix}", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, bytes(2**29))
        with pytest.raises(UserError, match=r"it claims 536,870,912 bytes of content in a file of"):
            readers.read(tmp_path / f"x{suffix}")


def test_tensors_without_bytes_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.zeros(1).expand(2**20, 2**20)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"claims 4,398,046,511,104 bytes of content"):
        readers.read(tmp_path / "x.pth")
    torch.save({"x": torch.zeros(3), "y": _Bomb()}, tmp_path / "y.pth")
    with pytest.raises(UserError, match=r"objects other than arrays, which are not loaded because they could run code"):
        readers.read(tmp_path / "y.pth")
    assert not Path("EXECUTED").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 512, b'{"data": {', b"[]"], ids=["empty", "null bytes", "cut", "list"]
)
def test_a_corrupt_configuration_blocks_no_run_that_has_not_started(copied_run, tiny_config, tmp_path, content):
    for name in (".DS_Store", "config.json"):
        (tmp_path / name).write_bytes(content)
    workdir.check_workdir(tmp_path, tiny_config)
    assert (tmp_path / "config.json").read_bytes() == content, "a check changes nothing"
    workdir.write_config(tmp_path, tiny_config)
    assert load_config(tmp_path / "config.json") == tiny_config
    shutil.copytree(copied_run / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config.json' is not .*; the checkpoints beside it need it: restore it from"):
        workdir.check_workdir(tmp_path, tiny_config)


def test_leftovers_of_file_managers_are_no_run(tmp_path, tiny_config):
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_text("")
    workdir.check_workdir(tmp_path, tiny_config)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        workdir.check_workdir(tmp_path, tiny_config)


def _photos(folder: Path, count: int) -> Path:
    content = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            (folder / name / f"{index}.png").write_bytes(content)
    return folder


@pytest.mark.parametrize("existed", [True, False], ids=["existing", "new"])
def test_a_preparation_that_is_stopped_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch, existed):
    source, target = _photos(tmp_path / "photos", 20), tmp_path / "prepared"
    if existed:
        target.mkdir()
        (target / ".DS_Store").write_text("")
    read, numbers = prepare_module._read, itertools.count(1)

    def stop(file: str) -> bytes:
        if next(numbers) == 30:  # in one of the threads that read
            os.kill(os.getpid(), signal.SIGTERM)
        return read(file)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(prepare_module, "_read", stop)
        with pytest.raises(Interrupted, match=r"^SIGTERM: stopped, and nothing is written; the same command starts"):
            prepare(source, target)
    assert signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in tmp_path.glob("prepared/*")] == [".DS_Store"] * existed
    assert target.exists() == existed
    assert prepare(source, target).splits["train"].examples > 20
    assert open_source(DataConfig(source=str(target))).train.num_examples > 20


def test_an_exception_that_a_finalizer_drops_is_raised_again(monkeypatch):
    class Stopped:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def work():
        with clean_up_on_sigterm("nothing is written") as check:
            Stopped()
            assert dropped == [KeyboardInterrupt]
            check()

    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: dropped.append(raised.exc_type))
    with pytest.raises(Interrupted, match="SIGTERM: nothing is written"):
        work()


@pytest.mark.slow
def test_prepare_ends_with_the_code_of_a_temporary_failure(tmp_path):
    source, target = _photos(tmp_path / "photos", 10_000), tmp_path / "prepared"
    command = [sys.executable, "-m", "resnet_tf.prepare", f"--from={source}", f"--to={target}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        while not list(target.glob(".resnet_tf-writing-*/*/*")):
            assert child.poll() is None
            time.sleep(0.05)
        child.terminate()
        _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors.splitlines()[-1][:8]) == (75, "SIGTERM:")
    assert not target.exists()


@pytest.mark.parametrize("module", ["predict", "evaluate"])
def test_the_help_names_what_is_trusted(module, command):
    assert "A SavedModel is a program: load exports of people you trust." in command(module, "--help").out


def test_pipes_and_devices_in_a_folder_of_images_are_not_opened(tmp_path):
    source = _photos(tmp_path / "photos", 20)
    os.mkfifo(source / "a" / "pipe.png")
    (source / "b" / "device.png").symlink_to("/dev/zero")
    (source / "b" / "circle").symlink_to("circle")
    opened = open_source(DataConfig(source=str(source), eval_fraction=0.2))
    assert opened.train.num_examples + opened.validation.num_examples == 40
    prepare(source, tmp_path / "prepared", eval_fraction=0.2)


@pytest.mark.parametrize("name", ["train-00000-of-00001", "train-images-idx3-ubyte", "data.npz"])
@each_irregular
def test_data_are_regular_files(tmp_path, name, replace):
    replace(tmp_path / name, tmp_path)
    source = tmp_path / name if name.endswith(".npz") else tmp_path
    with pytest.raises(UserError):
        open_source(DataConfig(source=str(source), eval_split="train"))


def test_the_precisions_of_all_targets_are_known():
    assert {precision for each in TARGETS.values() for precision in each} == set(PRECISIONS)


def test_a_file_of_garbage_is_refused(tmp_path):
    (tmp_path / run.METRICS).write_bytes(b"\n" * 200)
    with pytest.raises(UserError, match=r"metrics.jsonl' has more than 100 corrupt lines; move the file away"):
        run.read_metrics(tmp_path)


@pytest.mark.slow
def test_garbage_in_the_logs_of_a_run_stops_no_command(tiny_run, tiny_config, tmp_path, command, caplog):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    for name in (run.METRICS, "unreadable.jsonl"):
        with (workdir / name).open("ab") as file:
            file.write(b"garbage\n\xff\xfe\n[]\n")
    outcome = command("evaluate", f"--workdir={workdir}")
    assert (outcome.code, "Traceback" in outcome.err) == (0, False)
    assert "line 3 of" in caplog.text
    newest = max((workdir / run.CHECKPOINTS).iterdir())
    shutil.rmtree(newest)  # the last epoch is trained again, on top of its own line
    train_and_evaluate(tiny_config, workdir)
    assert [line["epoch"] for line in files.read_json_lines(workdir / run.METRICS)] == [1, 2]
    assert (workdir / f"{run.METRICS}.corrupt").read_bytes().endswith(b"garbage\n\xff\xfe\n[]\n")


def test_a_configuration_that_takes_much_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"[" * 2**27)
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(UserError, match=r"config.json has 134,217,728 bytes, more than 67,108,864"):
        readers.read(tmp_path / "x.keras")
