"""Shared fixtures: two logical CPUs, prepared digits, a folder of images, a small trained run, commands in process."""

import contextlib
import dataclasses
import functools
import gc
import gzip
import hashlib
import json
import os
import runpy
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import resnet_tf  # noqa: F401 (before TensorFlow, which then computes with oneDNN)

# isort: split
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.python.framework import config as tensorflow_config  # op determinism has no public end

# Before TensorFlow starts: tests of several replicas need two devices, and a process can split its CPU only once.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

from resnet_tf.config import Config, load_config  # noqa: E402 (after the devices are set)
from resnet_tf.core import files, progress_line  # noqa: E402
from resnet_tf.core.files import read_json_lines  # noqa: E402
from resnet_tf.core.saved_models import load_saved_model  # noqa: E402
from resnet_tf.inputs import ImagePreprocess  # noqa: E402
from resnet_tf.model.builder import build  # noqa: E402
from resnet_tf.model.zoo import MODELS  # noqa: E402
from resnet_tf.serving import runners  # noqa: E402
from resnet_tf.serving.verify import Verification, Verifier  # noqa: E402
from resnet_tf.training import loop  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import peers  # noqa: E402

# What is imported is no garbage. Collections at the thresholds of Python took 7 % of the time of the tests.
gc.freeze()
gc.set_threshold(50_000, 20, 20)

_open_board = loop._Fit._open_board
loop._Fit._open_board = lambda fit: None  # the plots of TensorBoard take a quarter of the time of a short run


@contextlib.contextmanager
def writing_tensorboard() -> Iterator[None]:
    """Let runs write the event files of TensorBoard, for tests that read them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Fit, "_open_board", _open_board)
        yield


@functools.lru_cache(maxsize=8)
def _loaded(load: Callable[[Path], Any], directory: Path, identity: tuple[tuple[Path, int, int, int], ...]) -> Any:
    return load(directory)


def load_once(directory: Path, load: Callable[[Path], Any] = load_saved_model) -> Any:
    """Load a SavedModel; one of the last eight is returned as it was loaded, unless a file of its graph has changed.

    A graph takes a second to load, and another one in its first call.
    """
    files = sorted([*directory.glob("*.pb"), *directory.glob("variables/*")])
    stats = [(file, file.stat()) for file in files]
    return _loaded(load, directory, tuple((file, each.st_ino, each.st_mtime_ns, each.st_size) for file, each in stats))


runners.load_signatures = functools.partial(load_once, load=runners.load_signatures)

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
CIFAR_ARCHIVE = SHARED_DATA / "cifar10_jpeg.tar.xz"
needs_cifar = pytest.mark.skipif(
    not CIFAR_ARCHIVE.is_file(), reason="CIFAR-10 as JPEG files is not beside the checkout"
)

# SGD with a low learning rate, so that the logits stay moderate after two epochs.
TINY = (
    "model.name=resnet8_w32",
    "train.epochs=2",
    "data.batch_size=128",
    "data.eval_split=test[:100]",
    *("optimizer.name=sgd", "optimizer.schedule=cosine", "optimizer.momentum=0.9", "optimizer.weight_decay=1e-3"),
    "optimizer.base_lr=0.02",
    "optimizer.warmup_epochs=0",
    "loss.label_smoothing=0",
)

# Marks of the cases of a test that CI leaves out; see CONTRIBUTING.md.
LONG = (pytest.mark.slow, pytest.mark.long)

# Tests whose cases repeat one another with other names, networks or files -> number of cases, the first ones, that are
# not long.
FIRST_CASES = {
    "test_a_folded_network_computes_the_same_logits": 6,
    "test_a_network_inside_of_a_model_is_found_with_its_metadata": 3,
    "test_a_network_is_initialized_from_a_hub_export": 1,
    "test_a_run_directory_in_use_names_its_holder_and_is_free_once_that_is_killed": 1,
    "test_an_epoch_has_no_example_twice": 2,
    "test_archives_of_older_keras_are_read_by_their_configuration": 1,
    "test_batches_do_not_depend_on_the_first_step": 1,
    "test_bodies_of_our_own_files_come_back": 2,
    "test_closed_streams": 3,
    "test_combinations_that_make_no_plan": 7,
    "test_costly_images_are_refused_by_name": 2,
    "test_evaluation_reads_every_example_once_in_order": 2,
    "test_every_block_has_a_form_in_one_dimension": 3,
    "test_every_format_has_the_same_prediction": 2,
    "test_every_weight_has_a_name_or_is_refused": 30,
    "test_heatmaps_that_cannot_be_written": 1,
    "test_hidden_and_system_folders_are_no_classes": 2,
    "test_keras_knows_the_classes_after_the_import": 1,
    "test_links_are_followed_alike": 4,
    "test_logits_equal_keras_applications": 2,
    "test_logits_equal_the_original_librarys_and_weights_go_back_as_they_came": 4,
    "test_metadata_come_along_with_every_copy_and_its_copies": 1,
    "test_metadata_state_the_precision_that_computes": 1,
    "test_models_are_functional_keras_models_that_fit": 4,
    "test_no_dataset_has_an_autotuner": 1,
    "test_one_program_runs_every_command": 1,
    "test_our_own_files_come_back": 10,
    "test_output_stride_keeps_the_weights_and_enlarges_the_map": 2,
    "test_preprocessing_is_that_of_the_network_or_must_be_given": 5,
    "test_probabilities_of_an_export_are_those_of_the_model": 2,
    "test_slices_of_all_are_disjoint_and_complete": 3,
    "test_slices_of_every_source_have_the_sizes_of_tfds_and_are_disjoint": 9,
    "test_splits_of_every_source_may_be_in_the_wrong_order": 3,
    "test_sums_of_splits_of_every_source": 10,
    "test_the_body_of_another_network_is_refused_without_head_too": 2,
    "test_the_canonical_model_has_the_same_probabilities": 8,
    "test_the_exif_orientation_of_pil_images_is_applied_like_that_of_files": 1,
    "test_the_grids_align_at_every_width": 2,
    "test_the_pipeline_is_parallel_with_op_determinism": 2,
    "test_train_from_other_sources": 1,
    "test_train_is_the_function_after_any_import": 1,
    "test_training_skips_and_lists_unreadable_images": 1,
    "test_two_workers_have_the_batches_of_one": 1,
    "test_warmup_requests_match_the_signatures": 1,
    "test_wrong_values_in_dataset_info_are_one_line": 15,
}


SESSION_START = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--slow-within`, for CI, whose time is limited and whose machines differ in speed by a factor of three."""
    parser.addoption(
        "--slow-within",
        type=float,
        metavar="SECONDS",
        help="run slow tests after all others, file by file in random order, and skip those that would start later",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a slow test for which no time is left."""
    limit = item.config.getoption("slow_within")
    if limit is not None and item.get_closest_marker("slow") and time.monotonic() - SESSION_START > limit:
        pytest.skip("no time is left in CI; by hand: python -m pytest -n 2 -m slow")


def _slow_last(item: pytest.Item, order: str) -> str:
    """Return a sort key that depends on the file of a slow test, and keeps the others where they are."""
    return hashlib.sha256(f"{order} {item.path}".encode()).hexdigest() if item.get_closest_marker("slow") else ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the cases beyond `FIRST_CASES` as long, and order slow tests for `--slow-within`."""
    seen: Counter[str] = Counter()
    for item in items:
        name = getattr(item, "originalname", item.name)
        seen[name] += 1
        if seen[name] > FIRST_CASES.get(name, seen[name]):
            for mark in LONG:
                item.add_marker(mark)
    if config.getoption("slow_within") is not None:
        worker = getattr(config, "workerinput", {"testrunuid": secrets.token_hex()})  # the same for all of a session
        items.sort(key=functools.partial(_slow_last, order=worker["testrunuid"]))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


# Ways in which a file becomes corrupt.
CORRUPTIONS: dict[str, Callable[[Path], None]] = {"cut": _cut, "flip": _flip, "delete": Path.unlink}


@dataclass(frozen=True)
class Outcome:
    """Result of a command: exit code, and text on stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory):
    """Hide cached weights and records of the developer, also from processes that tests start.

    The caches of pip and of the fonts change no result, and take minutes and seconds to fill.
    """
    directory = tmp_path_factory.mktemp("home")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        for name, program in (("PIP_CACHE_DIR", "pip"), ("MPLCONFIGDIR", "matplotlib")):
            patch.setenv(name, os.environ.get(name) or str(cache / program))
        patch.setenv("KERAS_HOME", str(directory / "keras"))
        patch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
        yield


@pytest.fixture(autouse=True)
def _fresh_policy():
    """Reset the dtype policy and op determinism, which a run sets for the process."""
    yield
    keras.config.set_dtype_policy("float32")
    tensorflow_config.disable_op_determinism()


@pytest.fixture(autouse=True)
def _no_progress(request, monkeypatch):
    """Report no progress, which depends on the speed of the machine, except in its own tests."""
    if request.module.__name__ not in ("test_progress_line", "test_downloads"):
        monkeypatch.setattr(progress_line, "PATIENCE", 1e6)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Return the directory of prepared data sets, shared by all tests."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def digits_arrays(tmp_path_factory) -> Path:
    """Return an archive of the digits as arrays: TensorFlow takes a second to start each input that decodes images."""
    with resources.files("resnet_tf.data.sources").joinpath("digits.npz").open("rb") as file:
        stored = np.load(file)
        images, labels = np.round(stored["images"][..., np.newaxis] * (255 / 16)).astype(np.uint8), stored["labels"]
    path, half = tmp_path_factory.mktemp("arrays") / "digits.npz", len(images) // 2
    np.savez(path, x_train=images[:half], y_train=labels[:half], x_test=images[half:], y_test=labels[half:])
    return path


@pytest.fixture(scope="session")
def tiny_config(data_dir, digits_arrays) -> Config:
    """Return the configuration of a run on the digits that takes seconds."""
    return load_config("digits", [f"data.source={digits_arrays}", f"data.data_dir={data_dir}", *TINY])


def override_groups(config: Config, **groups: dict[str, Any]) -> Config:
    """Return a configuration with other settings in some groups, as in `train={"epochs": 2}`."""
    return dataclasses.replace(
        config, **{group: dataclasses.replace(getattr(config, group), **keys) for group, keys in groups.items()}
    )


def make_first_checkpoint_best(workdir: Path) -> dict[str, float]:
    """Make the first checkpoint of a copy of `tiny_run` the best one, and return its metrics."""
    first = workdir / "checkpoints" / "00000007"
    metadata = json.loads((first / "metadata.json").read_text())
    metadata["metrics"]["top1"] = 1.0
    (first / "metadata.json").write_text(json.dumps(metadata))
    (first / "sha256.json").unlink()
    files.write_manifest(first, Path("sha256.json"))
    return metadata["metrics"]


def _free_ports() -> Iterator[int]:
    """Iterate over ports that the system does not choose for others: they are below 32768, and of this worker alone."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
    first = 20_000 + 1_000 * worker
    while True:
        yield from secrets.SystemRandom().sample(range(first, first + 1_000), 1_000)  # other sessions may run


_ports = _free_ports()


def free_addresses(count: int) -> list[str]:
    """Return addresses of 127.0.0.1 with free ports, for servers that need them before they listen."""
    addresses = []
    while len(addresses) < count:
        port = next(_ports)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            addresses.append(f"127.0.0.1:{port}")
    return addresses


def wait_until(condition: Callable[[], Any], *, seconds: float = 60) -> None:
    """Wait until a condition holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} seconds"
        time.sleep(0.05)


class KilledError(Exception):
    """Stands for the end of a process."""


class _Killer(keras.callbacks.Callback):
    def __init__(self, epochs: int):
        super().__init__()
        self._epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._epochs:
            raise KilledError


def train_and_kill(config: Config, workdir: Path, *, epochs: int, callbacks=()) -> int:
    """Train, and end when the first of the further epochs begins; return the step of the newest checkpoint."""
    from resnet_tf.training import checkpoint
    from resnet_tf.workflows.train import train_and_evaluate

    with pytest.raises(KilledError):
        train_and_evaluate(config, workdir, callbacks=[*callbacks, _Killer(epochs)])
    return checkpoint.steps(workdir / "checkpoints")[-1]


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory) -> Path:
    """Return the directory of a finished run of `tiny_config`. Tests must not write to it."""
    from resnet_tf.workflows.train import train_and_evaluate

    workdir = tmp_path_factory.mktemp("run")
    train_and_evaluate(tiny_config, workdir)
    return workdir


@pytest.fixture(scope="session")
def tiny_export(tiny_run, tmp_path_factory) -> Path:
    """Return the directory of a serving export of `tiny_run`. Tests must not write to it."""
    from resnet_tf.serving.export import export_model
    from resnet_tf.training.run import load_run

    return export_model(load_run(tiny_run), tmp_path_factory.mktemp("exports") / "digits")


@pytest.fixture(scope="session")
def tiny_images(tiny_config) -> list[bytes]:
    """Return 16 encoded images of the validation split of `tiny_config`."""
    from resnet_tf.data.sources import open_source

    validation = open_source(dataclasses.replace(tiny_config.data, source="digits")).validation
    return [image for image, _ in validation.examples(16).as_numpy_iterator()]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Return a folder train|test/blue|red/*: JPEG and PNG files of several sizes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for label, channel in (("blue", 2), ("red", 0)):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (40 + 3 * index, 50, 3), np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
    return tmp_path / "photos"


@contextlib.contextmanager
def processes(*commands: Sequence[str], **options: Any) -> Iterator[list[subprocess.Popen]]:
    """Start Python with arguments, wait until each process prints `ready`, and let them go on at the same moment."""
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        for arguments in commands
    ]
    try:
        for each in started:
            assert each.stdout.readline() == "ready\n", each.communicate()[1]
        for each in started:
            each.stdin.write("go\n")
            each.stdin.flush()
        yield started
    finally:
        for each in started:
            each.kill()
            each.communicate()


def write_listed(directory: Path, content: str) -> Path:
    """Write the files `needed` and `below/other` with a manifest of both."""
    (directory / "below").mkdir(parents=True)
    for name in ("needed", "below/other"):
        (directory / name).write_text(content)
    files.write_manifest(directory, Path("sha256.json"))
    return directory


def find_listed_corruption(directory: Path) -> str:
    """Return the result of `find_corruption` for a directory of `write_listed`."""
    return files.find_corruption(directory, Path("sha256.json"), needed=Path("needed"))


def is_staging(path: Path) -> bool:
    """Return True for a directory of unfinished writes, which a killed process may leave behind."""
    return path.name.startswith(files._STAGING_PREFIX)


def verify(export: Path, logits: np.ndarray, *, batch_size: int, device: str = "CPU") -> Verification:
    """Compare the logits of an export with those of the model in a new process, see `Verifier`."""
    with Verifier(ImagePreprocess) as verifier:
        verifier.begin(export, logits, batch_size=batch_size, device=device)
        return verifier.result()


def shallow(name: str, **settings: Any) -> keras.Model:
    """Return a network with one block per stage, which has every type of layer of the full network."""
    arch = dataclasses.replace(MODELS[name], depths=(1,) * len(MODELS[name].depths), dropout=0.1)
    return build(arch, name=name, **settings)


def untimed_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without timings, so that two runs can be compared."""
    timings = {"images_per_second", "train_seconds", "val_seconds"}
    return [
        {name: value for name, value in line.items() if name not in timings}
        for line in read_json_lines(workdir / "metrics.jsonl")
    ]


def _feature(value) -> tf.train.Feature:
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def write_idx(file: Path, array: np.ndarray) -> None:
    """Write a file in the format of http://yann.lecun.com/exdb/mnist, compressed if its name ends with `.gz`."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def write_imagenet_records(path, examples) -> list[int]:
    """Write TFRecords in ImageNet's layout and return the offset of each record, in bytes.

    Args:
        path: file to write.
        examples: (encoded image, label, other features of the class) of each record.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets, position = [], 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for encoded, label, class_features in examples:
            features = {"image/encoded": _feature(encoded), "image/class/label": _feature(label)}
            features |= {f"image/class/{name}": _feature(value) for name, value in class_features.items()}
            features["image/height"] = _feature(8)
            record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
            writer.write(record)
            offsets.append(position)
            position += len(record) + 16  # length and two checksums around each record
    return offsets


def extract_cifar(root: Path, keep: Callable[[str, int], bool] = lambda split, number: True) -> Path:
    """Write the images of CIFAR-10 to SPLIT/CLASS/NUMBER.jpg below `root`.

    Args:
        root: folder to write to.
        keep: function from the split, `train` or `test`, and the number of an image in its class to whether it is
            written. All are by default.
    """
    # `filter`, which Python 3.11.0 to 3.11.3 lack, is the default of Python 3.14, and warned of before without it.
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(CIFAR_ARCHIVE) as archive:
        for member in archive:
            path = Path(member.name)
            if member.isfile() and keep(path.parts[-3], int(path.stem)):
                archive.extract(member, root, **options)
    return root


def import_torch_zoo(name: str) -> ModuleType:
    """Import torchvision or timm; skip the test if it is not installed."""
    pytest.importorskip("torch", reason="live parity needs torch, torchvision and timm")
    with contextlib.suppress(ImportError):
        peers.import_torchvision()  # timm imports it as well
    return pytest.importorskip(name, reason="live parity needs torch, torchvision and timm")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return Chromium, driven by Playwright; skip the test without one of both."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser: Debian's package chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Return `run`: run("train", "--config=x") runs `python -m resnet_tf.train --config=x` in this process."""

    def run(module: str, *arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"resnet_tf.{module}", *arguments])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_module(f"resnet_tf.{module}", run_name="__main__", alter_sys=True)
        except SystemExit as exit_:
            code = exit_.code
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
