"""Files of unknown origin: JSON, manifests and directories are read within bounds, or refused in one line."""

import errno
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.core import bounded, files
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import MANIFEST, METADATA, read_export
from resnet_tf.core.validation import find_mismatch
from resnet_tf.serving.artifact import new_version
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training import checkpoint, run
from resnet_tf.training.progress import RunState

SECONDS = 20  # a test that takes longer waits for a pipe, or reads a device


@pytest.fixture(autouse=True)
def _no_hang():
    """Fail a test that waits for a pipe or a device, instead of waiting with it."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
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
        ({"a\x1b[2Jb" + "c" * 100: 1}, dict[str, str], "it.a\ufffd[2Jb" + "c" * 54 + " is an integer, not a string"),
    ],
)
def test_numbers_beyond_64_bits_and_long_keys_are_described(value, declared, expected):
    assert find_mismatch(value, declared, "it") == expected


def _listed(directory: Path) -> Path:
    (directory / "below").mkdir(parents=True)
    for name in ("needed", "below/other"):
        (directory / name).write_text(name)
    files.write_manifest(directory, Path("sha256.json"))
    return directory


def _find(directory: Path) -> str:
    return files.find_corruption(directory, Path("sha256.json"), needed=Path("needed"))


@pytest.mark.parametrize(
    "name",
    ["", ".", "./needed", "below//other", "below/", "below\\other", "/needed", "../needed", "a/../needed", "a\0b"],
)
def test_names_in_a_manifest_are_plain_relative_paths(tmp_path, name):
    _listed(tmp_path)
    digests = json.loads((tmp_path / "sha256.json").read_text())
    (tmp_path / "sha256.json").write_text(json.dumps(digests | {name: digests["needed"]}))
    assert _find(tmp_path)


@pytest.mark.parametrize("digest", [None, 7, [], {}, "", "0" * 64, 1e400], ids=str)
def test_a_strange_digest_is_a_difference(tmp_path, digest):
    _listed(tmp_path)
    digests = json.loads((tmp_path / "sha256.json").read_text())
    (tmp_path / "sha256.json").write_text(json.dumps(digests | {"needed": digest}))
    assert _find(tmp_path) == "needed differs from what was written"


@pytest.mark.parametrize("name", ["needed", "below/other", "sha256.json"])
@each_irregular
def test_listed_files_are_regular(tmp_path, name, replace):
    _listed(tmp_path / "inside")
    (tmp_path / "inside" / name).unlink()
    replace(tmp_path / "inside" / name, tmp_path)
    assert re.match(rf"^{name}[: ][^\n]+$", _find(tmp_path / "inside"))


def test_links_are_followed_only_inside_the_directory(tmp_path):
    directory = _listed(tmp_path / "inside")
    (directory / "needed").rename(tmp_path / "outside")
    (directory / "needed").symlink_to(tmp_path / "outside")
    assert re.match(r"needed: a symbolic link to a file outside of '.*inside'$", _find(directory))
    (directory / "needed").unlink()
    (tmp_path / "outside").rename(directory / ".blob")
    (directory / "needed").symlink_to(".blob")
    assert _find(directory) == ""
    (tmp_path / "link").symlink_to(directory)
    assert _find(tmp_path / "link") == "", "the directory itself may be a link"


@pytest.mark.parametrize("name", ["extra", "below/saved_model.cpb", "new/extra", "other.json"])
def test_files_that_a_manifest_does_not_list_are_refused(tmp_path, name):
    _listed(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    assert _find(tmp_path) == f"{name!r} is not one of the files that were written; remove it"


def test_a_link_to_a_directory_is_refused(tmp_path):
    directory = _listed(tmp_path / "inside")
    (tmp_path / "outside").mkdir()
    (directory / "assets").symlink_to(tmp_path / "outside")
    assert _find(directory) == "'assets' is not one of the files that were written; remove it"


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
    with new_version(tmp_path) as (staging, _):
        (staging / "x").write_text("")
    assert sorted(files.list_numbered(tmp_path)) == [7, 8]
    (tmp_path / "9").symlink_to(tmp_path / "0007")
    assert read_export(tmp_path).directory == tmp_path / "9"
    (tmp_path / "7").mkdir()
    with pytest.raises(UserError, match="are the same version; remove one of them"):
        read_export(tmp_path)


def test_directories_of_other_files_are_still_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"contains files that are not exports \(notes.txt\)"), new_version(tmp_path):
        pass


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
    _listed(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    assert _find(tmp_path) == ""


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
    "null": json.dumps(METRICS | {"train_seconds": 1.0, "val_loss": None}),
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
