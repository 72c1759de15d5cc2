"""Every JSON file that is read, mutated at random with fixed seeds: it is read, or refused in one line."""

import copy
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from resnet_tf.config import Config, DataConfig, flatten, load_config, override
from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_measurement import ExportMeasurement, Latency, Throughput
from resnet_tf.core.export_metadata import MANIFEST, METADATA, read_export
from resnet_tf.core.installation import require_tensorflow_backend
from resnet_tf.core.serving_benchmark import OmittedExport, ServingBenchmark
from resnet_tf.data.sources import open_source, records
from resnet_tf.data.unreadable import FILE_NAME, UnreadableExamples
from resnet_tf.inputs import Preprocess
from resnet_tf.model.create import create_model
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.weights import readers
from resnet_tf.report.page import Report, write_page
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training import checkpoint, run
from resnet_tf.training.evaluation import read_test_metrics
from resnet_tf.training.progress import RunState

# Values of another type, size or spelling than any field has.
_VALUES = (
    *("null", "true", "-1", "0", "1.5", "NaN", "-Infinity", "1e999", "9" * 30, "9" * 5000),
    *('""', '"x"', '"' + "x" * 5000 + '"', '"\\ud800"', '"\\u0000\\u001b[2J\\n"'),
    *("[]", "{}", '{"": {}}', "[[[[[]]]]]", "[" * 150 + "]" * 150),
)
_MARK = "a mark that no file has"


def _positions(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in a JSON value with each of its keys or indices."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _positions(value[key])


def _mutate_value(content: bytes, generator: random.Random) -> bytes:
    """Remove, replace, repeat or rename one value."""
    value = json.loads(content)
    container, key = generator.choice(list(_positions(value)))
    action = generator.choice(["remove", "replace", "replace", "replace", "repeat", "rename"])
    if action == "remove":
        del container[key]
    elif action == "replace":
        container[key] = _MARK
    elif isinstance(container, list):
        container += [copy.deepcopy(container[key])] * generator.choice([1, 100])
    else:
        container[f"{key}x" if action == "repeat" else ""] = container.pop(key)
    return json.dumps(value).replace(f'"{_MARK}"', generator.choice(_VALUES)).encode()


def _mutate_bytes(content: bytes, generator: random.Random) -> bytes:
    """Cut, flip, insert or repeat bytes."""
    position = generator.randrange(len(content))
    start, end = content[:position], content[position:]
    return generator.choice(
        [
            start,
            start + bytes([end[0] ^ 1 << generator.randrange(8)]) + end[1:],
            start + generator.randbytes(3) + end,
            start + generator.choice([b'"', b"{", b"]", b",", b"\\", b"\x00", b"\xff", b"\n"]) + end,
            start + end[generator.randrange(len(end)) :],
            content + content,
            b"\xef\xbb\xbf" + content,
        ]
    )


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Return one or two mutations of a JSON document."""
    if generator.random() < 0.6:
        content = _mutate_value(content, generator)
    return content if generator.random() < 0.5 else _mutate_bytes(content, generator)


def mutate_lines(content: bytes, generator: random.Random) -> bytes:
    """Return a mutation of one line of JSON Lines."""
    lines = content.splitlines()
    index = generator.randrange(len(lines))
    lines[index] = mutate(lines[index], generator)
    return b"\n".join(lines) + generator.choice([b"\n", b""])


@dataclass(frozen=True)
class Subject:
    """A JSON file and its reader.

    Attributes:
        valid: content of a valid file.
        read: writes a content where it belongs, and reads it as the package does.
        count: mutations in the default tier.
        mutate: mutates the content.
    """

    valid: bytes
    read: Callable[[bytes], Any]
    count: int = 150
    mutate: Callable[[bytes, random.Random], bytes] = mutate


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def _config(folder, request):
    path = folder / "config.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        load_config(path)

    return Subject(Config().to_json().encode(), read)


def _signed(directory: Path, file: Path, manifest: Path, content: bytes) -> None:
    (directory / file).write_bytes(content)
    (directory / manifest).unlink(missing_ok=True)
    files.write_manifest(directory, manifest)


def _small_export(folder: Path, tiny_export: Path) -> Path:
    """Return a copy of an export without its network, which `read_export` does not load."""
    directory = folder / "1"
    shutil.copytree(tiny_export / "assets.extra", directory / "assets.extra")
    return directory


def _export(folder, request):
    tiny_export = request.getfixturevalue("tiny_export")
    directory = _small_export(folder, tiny_export)

    def read(content: bytes) -> None:
        _signed(directory, METADATA, MANIFEST, content)
        metadata = read_export(directory).metadata
        Preprocess.from_dict(metadata["preprocess"])
        override(Config(), flatten(metadata.get("config", {})))

    return Subject((tiny_export / METADATA).read_bytes(), read)


def _predictor(folder, request):
    tiny_export = request.getfixturevalue("tiny_export")
    directory = shutil.copytree(tiny_export, folder / "1")

    def read(content: bytes) -> None:
        _signed(directory, METADATA, MANIFEST, content)
        predictor = Predictor(directory)
        predictor(np.zeros((2, 9, 9, 3), np.uint8))

    return Subject((tiny_export / METADATA).read_bytes(), read, count=3)


def _manifest(folder, request):
    directory = _small_export(folder, request.getfixturevalue("tiny_export"))
    (directory / MANIFEST).unlink()
    files.write_manifest(directory, MANIFEST)

    def read(content: bytes) -> None:
        (directory / MANIFEST).write_bytes(content)
        read_export(directory)

    return Subject((directory / MANIFEST).read_bytes(), read)


def _newest(tiny_run: Path) -> Path:
    return max((tiny_run / run.CHECKPOINTS).iterdir())


def _checkpoint(folder, request):
    newest = _newest(request.getfixturevalue("tiny_run"))
    (directory := folder / newest.name).mkdir()

    def read(content: bytes) -> None:
        _signed(directory, Path("metadata.json"), Path("sha256.json"), content)
        checkpoint.best(folder)
        metadata = checkpoint.read_metadata(directory)
        Preprocess.from_dict(metadata["preprocess"])
        RunState.from_dict(metadata["run"])

    return Subject((newest / "metadata.json").read_bytes(), read)


def _checkpoint_manifest(folder, request):
    newest = _newest(request.getfixturevalue("tiny_run"))
    directory = shutil.copytree(newest, folder / "checkpoints" / newest.name)

    def read(content: bytes) -> None:
        (directory / "sha256.json").write_bytes(content)
        checkpoint.latest(directory.parent)

    return Subject((newest / "sha256.json").read_bytes(), read)


def _metrics(folder, request):
    valid = (request.getfixturevalue("tiny_run") / run.METRICS).read_bytes()

    def read(content: bytes) -> None:
        (folder / run.METRICS).write_bytes(content)
        lines = run.read_metrics(folder)
        run.repair_metrics(folder)
        assert json.dumps(files.read_json_lines(folder / run.METRICS, run.MetricsLine)) == json.dumps(lines)

    return Subject(valid, read, mutate=mutate_lines)


def _report(folder, request):
    """The report plots what is left of the metrics."""
    tiny_run = request.getfixturevalue("tiny_run")
    evaluation = request.getfixturevalue("small_evaluation")

    def read(content: bytes) -> None:
        (folder / run.METRICS).write_bytes(content)
        images = np.zeros((4, 8, 8, 1))
        report = Report("x", evaluation, ["a", "b"], lambda indices: images[: len(indices)], run.read_metrics(folder))
        write_page(folder / "report", report)

    return Subject((tiny_run / run.METRICS).read_bytes(), read, count=2, mutate=mutate_lines)


def _unreadable(folder, request):
    tiny_config = request.getfixturevalue("tiny_config")
    split = open_source(tiny_config.data).train
    preprocess = Preprocess.from_dict({"type": "image", "size": [8, 8]})
    lines = [
        {"file": "a.jpg", "reason": "x", "examples": 1},
        {"file": "b", "offset": 5, "reason": "x", "examples": 1},
    ]

    def read(content: bytes) -> None:
        (folder / FILE_NAME).write_bytes(content)
        UnreadableExamples(split, preprocess, tiny_config.data, folder / FILE_NAME)

    return Subject("".join(json.dumps(line) + "\n" for line in lines).encode(), read, mutate=mutate_lines)


def _test_metrics(folder, request):
    metrics = {"step": 7, "weights_sha256": "", "test_examples": 100, "test_top1": 0.5}
    metrics |= {"test_top5": 0.75, "test_loss": 1.5}

    def read(content: bytes) -> None:
        (folder / run.TEST_METRICS).write_bytes(content)
        subject = run.Run(folder, Config(), 7, model=None, metrics={})
        read_test_metrics(subject)

    return Subject(json.dumps(metrics).encode(), read)


def _serving(folder, request):
    measured = ExportMeasurement(
        *("serving", "float32", (Latency(1, 2.0, 3.0, 99),), (Throughput(1, 1, 500.0),)),
        *(0.5, 1.5, 900.0, 200.0, 0.9),
    )
    omitted = (OmittedExport("onnx", "", "it is not installed"),)
    known = ServingBenchmark("resnet20", "top1", 0.9, 100, 0.01, 5.0, "CPU", 2, (measured,), omitted)

    def read(content: bytes) -> None:
        (folder / "serving.json").write_bytes(content)
        found = run.Run(folder, Config(), 7, model=None, metrics={}).serving
        if found:
            found.describe()
            assert len(found.titles()) == len(found.rows()[0]) if found.exports else True
            found.to_dict()

    return Subject(json.dumps({"step": 7, "weights_sha256": "", **known.to_dict()}).encode(), read)


def _tfds(file: str):
    def subject(folder, request):
        data_dir = request.getfixturevalue("data_dir")
        open_source(DataConfig(source="digits", data_dir=str(data_dir)))
        directory = shutil.copytree(data_dir / "digits" / "1.0.0", folder / "1.0.0")

        def read(content: bytes) -> None:
            (directory / file).write_bytes(content)
            open_source(DataConfig(source=str(directory)))

        return Subject((directory / file).read_bytes(), read, count=12)

    return subject


def _index(folder, request):
    """A corrupt index of records is written again."""
    monkeypatch = request.getfixturevalue("module_monkeypatch")
    monkeypatch.setattr(records, "_CACHED_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    data_dir = request.getfixturevalue("data_dir")
    config = DataConfig(source="digits", data_dir=str(data_dir), eval_split="train")
    open_source(config)
    (path,) = folder.rglob("*.json")
    valid = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        open_source(config)

    return Subject(valid, read, count=6)


def _network() -> Any:
    return create_model("resnet8_w32", num_classes=2, input_shape=(8, 8, 1))


def _safetensors(folder, request):
    path, arrays = folder / "x.safetensors", {"fc.weight": np.ones((2, 3), np.float32)}
    from safetensors.numpy import save_file

    def read(content: bytes) -> None:
        save_file(arrays, path, {"resnet_tf": content.decode("utf-8", "replace")})
        Metadata.from_dict(readers.read(path).metadata)

    return Subject(json.dumps(_network().metadata.to_dict()).encode(), read)


def _h5(folder, request):
    _network().save_weights(folder / "x.weights.h5")
    path = shutil.copy(folder / "x.weights.h5", folder / "y.h5")

    def read(content: bytes) -> None:
        with h5py.File(path, "a") as file:
            del file["_saved_metadata/vars/json"]
            file["_saved_metadata/vars/json"] = np.frombuffer(content or b" ", np.uint8)
        Metadata.from_dict(readers.read(Path(path)).metadata)

    with h5py.File(path) as file:
        valid = bytes(file["_saved_metadata/vars/json"][()])
    return Subject(valid, read, count=60)


def _keras(folder, request):
    _network().save(folder / "x.keras")
    with zipfile.ZipFile(folder / "x.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def read(content: bytes) -> None:
        with zipfile.ZipFile(folder / "y.keras", "w") as archive:
            for name, each in members.items():
                archive.writestr(name, content if name == "config.json" else each)
        Metadata.from_dict(readers.read(folder / "y.keras").metadata)

    return Subject(members["config.json"], read, count=30)


def _keras_json(folder, request):
    request.getfixturevalue("module_monkeypatch").setenv("KERAS_HOME", str(folder))

    def read(content: bytes) -> None:
        (folder / "keras.json").write_bytes(content)
        require_tensorflow_backend()

    return Subject(b'{"backend": "tensorflow", "floatx": "float32", "epsilon": 1e-07}', read)


SUBJECTS = {
    "config.json": _config,
    "export metadata": _export,
    "export manifest": _manifest,
    "loaded export": _predictor,
    "checkpoint metadata": _checkpoint,
    "checkpoint manifest": _checkpoint_manifest,
    "metrics.jsonl": _metrics,
    "report of metrics.jsonl": _report,
    "unreadable.jsonl": _unreadable,
    "test_metrics.json": _test_metrics,
    "serving.json": _serving,
    "features.json": _tfds("features.json"),
    "dataset_info.json": _tfds("dataset_info.json"),
    "index of records": _index,
    "safetensors metadata": _safetensors,
    "metadata in .h5": _h5,
    "configuration in .keras": _keras,
    "keras.json": _keras_json,
}


@pytest.fixture(scope="module")
def module_monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        yield patched


@pytest.fixture(scope="module")
def small_evaluation():
    from resnet_tf.core.metrics import SingleLabelEvaluation

    return SingleLabelEvaluation(
        targets=np.array([0, 1, 1, 0]), logits=np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    )


def _check(subject: Subject, name: str, seeds: range) -> None:
    subject.read(subject.valid)
    refusals = {}
    for seed in seeds:
        content = subject.mutate(subject.valid, random.Random(f"{name} {seed}"))
        try:
            subject.read(content)
        except UserError as error:
            refusals[seed] = str(error)
        except Exception as error:
            error.add_note(f"seed {seed}: {content[:1000]!r}")
            raise
    assert not [(seed, message) for seed, message in refusals.items() if "\n" in message]


@pytest.mark.filterwarnings("ignore")  # of libraries about the values that they are given
@pytest.mark.parametrize("name", SUBJECTS)
def test_mutated_files_are_read_or_refused_in_one_line(name, tmp_path_factory, request):
    subject = SUBJECTS[name](tmp_path_factory.mktemp("fuzz"), request)
    _check(subject, name, range(subject.count))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of libraries about the values that they are given
@pytest.mark.parametrize("name", SUBJECTS)
def test_many_mutated_files_are_read_or_refused_in_one_line(name, tmp_path_factory, request):
    subject = SUBJECTS[name](tmp_path_factory.mktemp("fuzz"), request)
    factor = int(os.environ.get("FUZZ_FACTOR", "20"))
    _check(subject, name, range(subject.count, factor * subject.count))
