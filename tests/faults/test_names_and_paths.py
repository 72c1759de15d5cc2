"""Names, texts and paths that users and strangers choose: shown literally, written as UTF-8, found again."""

import errno
import json
import os
import pty
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from conftest import LONG, writing_tensorboard
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

import resnet_tf
from resnet_tf.config import DataConfig, command_line
from resnet_tf.core.class_names import to_names
from resnet_tf.core.errors import UserError
from resnet_tf.core.installation import require_tensorflow_backend
from resnet_tf.core.paths import literal_path, user_directory, user_path
from resnet_tf.core.text import from_file_name, markdown, printable, shortened
from resnet_tf.data.sources import open_source, records
from resnet_tf.model.weights import download
from resnet_tf.model.weights.published_table import PRETRAINED
from resnet_tf.report import fonts
from resnet_tf.serving.export import export_model
from resnet_tf.training import checkpoint
from resnet_tf.training.cluster import read_tf_config
from resnet_tf.workflows import train as train_workflow
from resnet_tf.workflows.prepare import PreparedSplit, PrepareResult

NAMES = (
    '<img src=x onerror="document.title=1">',
    "</script><b>",
    "quote\"'&amp;",
    "ansi\x1b[31mred",
    "bell\x07 backspace\x08 delete\x7f",
    "rtl\u202eevil",
    "L" * 300,
    "$x^$",
    "under_$5_and_$10",
    r"\frac{",
    "%s {0} %(name)s",
    "a|b [link](x) # h",
    "`code` *bold* ~gone~",
    "k\u00e4se",
    "\u732b",
    "\u0643\u0644\u0628",
)
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Parts of paths that a shell, a glob, a URL or a format string would interpret.
DIRECTORIES = [
    "try [lr=0.1]",
    "a*b",
    "what?",
    "[!a]",
    "{x,y}",
    "back\\slash",
    "comma, space",
    "~",
    "a:b",
    "100%",
    "$HOME",
    "#1",
    "k\u00e4se \u732b",
    "-dash",
    "new\nline",
]


@pytest.fixture(scope="module")
def network() -> resnet_tf.ResidualNetwork:
    """Return a small network whose classes have the names above."""
    network = resnet_tf.create_model("resnet8_w32", num_classes=len(NAMES), input_shape=(8, 8, 3))
    network.labels = NAMES
    return network


@pytest.fixture(scope="module")
def export(network, tmp_path_factory) -> Path:
    return export_model(network, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "cat.png"
    Image.new("RGB", (8, 8)).save(path)
    return path


def _python(*arguments: str, timeout: int = 120, **settings) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], timeout=timeout, **settings)


# Names


@pytest.mark.parametrize("name", NAMES)
def test_printable_text_has_no_control_characters(name):
    assert not CONTROL.search(printable(name))
    assert len(shortened(name, 20)) <= 20
    assert not re.search(r"<(?!\w+;)", markdown(name))


@pytest.mark.slow
def test_answers_show_names_literally_and_in_short_lines(command, export, image):
    outcome = command("predict", f"--model={export}", str(image))
    assert outcome.code == 0, outcome.err
    assert not CONTROL.search(outcome.out)
    assert all(len(line) < 80 or "LLL" in line for line in outcome.out.splitlines()[1:])
    table = command("predict", f"--model={export}", "--csv", str(image)).out
    assert not CONTROL.search(table)
    answer = json.loads(command("predict", f"--model={export}", "--json", str(image)).out)
    assert set(answer["labels"]) <= set(NAMES)


def test_a_model_card_contains_names_as_text(export):
    card = (export / "README.md").read_text(encoding="utf-8")
    assert not CONTROL.search(card)
    assert "<" not in card.split("## Usage")[0]
    assert r"a\|b \[link\](x)" in card
    assert max(map(len, card.split(", "))) < 400


@pytest.mark.slow
def test_names_of_a_run_reach_no_terminal_raw(tmp_path):
    """An error, a warning and a progress line of a real terminal."""
    script = (
        "from resnet_tf.config import command_line\n"
        "from absl import flags\n"
        "import logging\n"
        "def main(arguments):\n"
        "    logging.getLogger('resnet_tf.x').warning('class %s', 'a\\x1b[31m\\udce9')\n"
        "    print('k\\u00e4se \\udce9')\n"
        "    raise command_line.UserError('no class \\x1b[2J\\x07')\n"
        "command_line.run(main, flags.FlagValues(), doc='')\n"
    )
    master, slave = pty.openpty()
    done = _python("-c", script, stdout=slave, stderr=slave)
    os.close(slave)
    shown = os.read(master, 2**16).decode()
    os.close(master)
    assert done.returncode == 2
    assert r"class a\x1b[31m\xe9" in shown
    assert r"error: no class \x1b[2J\x07" in shown
    assert "k\u00e4se \\udce9" in shown
    assert not CONTROL.search(shown.replace("\r\n", "\n"))


def test_plans_and_prepared_splits_have_no_control_characters(command, tmp_path, monkeypatch):
    plan = resnet_tf.Plan({"network": "resnet18", "steps": "1", "data": "red\x1b[31m: 1 training"})
    assert str(plan).splitlines()[-1] == r"data           red\x1b[31m: 1 training"
    result = PrepareResult(tmp_path, {"bell\x07": PreparedSplit(1, 1)})
    monkeypatch.setattr(resnet_tf, "prepare", lambda *arguments, **settings: result)
    outcome = command("prepare", "--from=x", "--to=y")
    assert outcome.out == "bell\\x07: 1 image in 1 file\ndata.source=y\n"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(["a", "b"]), ("a", "b")),
        (np.array(["a", "b"], object), ("a", "b")),
        (np.arange(2), ("0", "1")),
        ([1, 2], ("1", "2")),
        (("a", "b"), ("a", "b")),
        ((name for name in "ab"), ("a", "b")),
    ],
)
def test_labels_of_other_types_become_text(labels, names):
    found = to_names(labels)
    assert found == names
    assert all(type(name) is str for name in found)


@pytest.mark.parametrize("labels", ["ab", b"ab", [b"a", b"b"], [None, "b"], [1.5, 2.5], [True, False], [["a"], ["b"]]])
def test_labels_that_are_no_names_are_refused(labels):
    with pytest.raises(UserError, match=r"class names"):
        to_names(labels)
    network = resnet_tf.create_model("resnet8_w32", num_classes=2, input_shape=(8, 8, 3))
    with pytest.raises(UserError, match=r"class names"):
        network.labels = labels


def test_no_examples_have_no_predictions(export):
    predictor = resnet_tf.Predictor(export)
    for nothing in ([], (), iter([]), np.zeros((0, 8, 8, 3), np.uint8)):
        assert predictor(nothing) == []


# Plots


@pytest.fixture
def rare_font(tmp_path, monkeypatch) -> str:
    """Install a font with a glyph for U+F8FF alone, and return its family."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((500, 0)), pen.lineTo((250, 700)), pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "rare"])
    builder.setupCharacterMap({0xF8FF: "rare"})
    builder.setupGlyf({".notdef": pen.glyph(), "rare": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "rare": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Rare", "styleName": "Regular"})
    builder.setupOS2(), builder.setupPost()
    builder.save(tmp_path / "rare.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(tmp_path / "rare.ttf")
    fonts._fallbacks.cache_clear()
    yield "Rare"
    fonts._fallbacks.cache_clear()


def test_characters_come_from_an_installed_font(rare_font):
    assert fonts.literal("cat")["fontfamily"] == ["sans-serif"]
    assert fonts.literal("cat \uf8ff")["fontfamily"] == ["sans-serif", rare_font]
    assert fonts.literal("\U0010fffd")["fontfamily"] == ["sans-serif"]  # in no font


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("faulty", ["plot_evaluation", pytest.param("write_run_report", marks=LONG)])
def test_an_error_of_plotting_costs_no_export(tiny_config, tmp_path, monkeypatch, caplog, faulty):
    def fail(*arguments, **settings):
        raise RuntimeError("a font is missing")

    monkeypatch.setattr(train_workflow, faulty, fail)
    config = resnet_tf.load_config("digits", [f"data.data_dir={tiny_config.data.data_dir}", "train.epochs=1"])
    config = resnet_tf.load_config("digits", [*_tiny(config), "model.name=resnet8_w32"])
    if faulty == "plot_evaluation":
        with writing_tensorboard():
            assert resnet_tf.train(config, tmp_path / "run").report.is_file()
        assert "no plot of the evaluation in TensorBoard: RuntimeError: a font is missing" in caplog.text
    else:
        with pytest.raises(RuntimeError, match="a font is missing"):
            resnet_tf.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "export" / "serving" / "1" / "saved_model.pb").is_file()


def _tiny(config: resnet_tf.Config) -> list[str]:
    return [
        f"data.data_dir={config.data.data_dir}",
        "train.epochs=1",
        "data.train_split=train[:64]",
        "data.eval_split=test[:32]",
        "data.batch_size=32",
        "optimizer.warmup_epochs=0",
        "export.verify_examples=8",
    ]


# Paths


@pytest.mark.parametrize("name", DIRECTORIES)
def test_checkpoints_under_any_path_are_read(tmp_path, name):
    parts = {"model": {"a/b": tf.Variable([1.0, 2.0])}}
    metadata = {"step": 1, "run": {}, "preprocess": {}, "data": {}, "metrics": None}
    saved = checkpoint.save(tmp_path / name / "checkpoints", parts, metadata, keep=2)
    parts["model"]["a/b"].assign([0.0, 0.0])
    assert checkpoint.latest(tmp_path / name / "checkpoints") == saved
    checkpoint.restore(saved, parts)
    np.testing.assert_array_equal(parts["model"]["a/b"], [1.0, 2.0])


@pytest.fixture(scope="module")
def hub_export(network, tmp_path_factory) -> Path:
    return export_model(network, tmp_path_factory.mktemp("hub"), target="hub")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [*DIRECTORIES[:1], *(pytest.param(name, marks=LONG) for name in DIRECTORIES[1:])],
)
def test_exports_under_any_path_are_read(hub_export, tmp_path, image, name):
    export = Path(shutil.copytree(hub_export, tmp_path / name / "hub" / "1"))
    assert resnet_tf.Predictor(export)(image).labels == resnet_tf.Predictor(hub_export)(image).labels
    weights = resnet_tf.create_model("resnet8_w32", num_classes=len(NAMES), input_shape=(8, 8, 3), weights=export)
    for found, expected in zip(weights.get_weights(), _weights_of(hub_export), strict=True):
        np.testing.assert_array_equal(found, expected)


def _weights_of(export: Path) -> list[np.ndarray]:
    shape = (8, 8, 3)
    return resnet_tf.create_model(
        "resnet8_w32", num_classes=len(NAMES), input_shape=shape, weights=export
    ).get_weights()


def test_a_temporary_directory_that_is_a_pattern_is_named(tmp_path, monkeypatch):
    (tmp_path / "[tmp]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "[tmp]"))
    with pytest.raises(UserError, match="set TMPDIR"), literal_path(tmp_path / "a*"):
        pass


@pytest.mark.parametrize("name", DIRECTORIES)
@pytest.mark.parametrize("layout", ["folder", "npz"])
def test_data_under_any_path_is_read(tmp_path, name, layout):
    pixels = np.arange(4 * 192, dtype=np.uint8).reshape(4, 8, 8, 3)
    if layout == "npz":
        source = tmp_path / name / "data.npz"
        source.parent.mkdir()
        np.savez(source, x_train=pixels, y_train=[0, 1, 0, 1], x_test=pixels, y_test=[0, 1, 0, 1])
    else:
        source = tmp_path / name
        for index, each in enumerate(pixels):
            file = source / ("train" if index < 2 else "test") / f"{name} {index % 2}" / "0.png"
            file.parent.mkdir(parents=True)
            Image.fromarray(each).save(file)
    opened = open_source(DataConfig(source=str(source), train_split="train", eval_split="test"))
    assert len(list(opened.train.examples())) == opened.train.num_examples


# Flags of paths: command, arguments with {home}, and the message about the path below the home directory.
HOME_FLAGS = [
    ("train", ["--config=~/x.json"], "{home}/x.json"),
    ("train", ["--set=data.source=~/x/", "--workdir=~/run"], "~/x/"),
    ("train", ["--workdir=~/file"], "{home}/file"),
    ("evaluate", ["--workdir=~/x"], "{home}/x"),
    ("evaluate", ["--model=~/x"], "{home}/x"),
    ("export", ["--workdir=~/x"], "{home}/x"),
    ("predict", ["--model=~/x", "a.jpg"], "{home}/x"),
    ("convert", ["--from=~/x.npz", "--model=resnet20", "--to=~/y/z.keras"], "{home}/y"),
    ("convert", ["--from=~/x.npz", "--model=resnet20", "--to=~/z.keras"], "{home}/x.npz"),
    ("prepare", ["--from=~/x", "--to=~/y"], "{home}/x"),
    ("prepare", ["--from=~", "--to=~/file"], "{home}/file"),
    ("preview", ["--out=~/x/y.png"], "{home}/x/y.png"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), HOME_FLAGS)
def test_path_flags_expand_the_home_directory(command, tmp_path, monkeypatch, name, arguments, message):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    outcome = command(name, *arguments)
    assert outcome.code == 2
    assert message.format(home=tmp_path) in outcome.err
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("train", ["--data.source={path}", "--workdir=run"]),
        ("train", ["--config={path}.json", "--workdir=run"]),
        ("train", ["--workdir={path}"]),
        ("prepare", ["--from={path}", "--to=out"]),
        ("prepare", ["--from={photos}", "--to={path}"]),
        ("evaluate", ["--workdir={path}"]),
        ("predict", ["--model={path}", "a.jpg"]),
        ("preview", ["--data.source={path}", "--out=x.png"]),
    ],
)
def test_paths_that_are_too_long_are_named(command, tmp_path, monkeypatch, photos, name, arguments):
    monkeypatch.chdir(tmp_path)
    outcome = command(name, *(each.format(path="a" * 300, photos=photos) for each in arguments))
    assert outcome.code == 2
    assert re.fullmatch(r"error: .*a{255}.*File name too long.*\n|error: .*File name too long.*a{255}.*\n", outcome.err)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENAMETOOLONG])
def test_a_path_that_the_system_refuses_ends_a_command_in_one_line(monkeypatch, capsys, code):
    def main(arguments):
        raise OSError(code, os.strerror(code), "runs/1")

    monkeypatch.setattr(sys, "argv", ["resnet_tf.train"])
    with pytest.raises(SystemExit, match="2"):
        command_line.run(main, flags.FlagValues(), doc="")
    assert capsys.readouterr().err == f"error: 'runs/1': {os.strerror(code)}\n"


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "of no path"), OSError(errno.EIO, "a fault", "x"), KeyError()])
def test_other_errors_are_not_those_of_a_path(monkeypatch, error):
    def main(arguments):
        raise error

    monkeypatch.setattr(sys, "argv", ["resnet_tf.train"])
    with pytest.raises(type(error)):
        command_line.run(main, flags.FlagValues(), doc="")


def test_a_home_directory_of_nobody_is_a_name():
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert user_path("a/~") == Path("a/~")


def test_file_names_need_not_be_utf_8(tmp_path, image, command, export):
    """A Latin-1 name in a folder of images, of a class and of files."""
    for split in ("train", "test"):
        for number, name in enumerate((b"k\xe4se", "k\u00e4se 2".encode())):
            folder = os.path.join(os.fsencode(tmp_path), split.encode(), name)
            os.makedirs(folder)
            shutil.copy(image, os.path.join(folder, b"\xe9t\xe9 %d.png" % number))
    source = open_source(DataConfig(source=str(tmp_path), train_split="train", eval_split="test"))
    assert source.class_names == ("k\u00e4se 2", r"k\xe4se")
    assert [label for _, label in source.train.examples().as_numpy_iterator()] == [0, 1]
    outcome = command("predict", f"--model={export}", str(tmp_path / "train"))
    assert outcome.code == 0
    assert r"k\xe4se/\xe9t\xe9 0.png" in outcome.out


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("train", ["--workdir=stra\udcdfe"]),
        ("prepare", ["--from={photos}", "--to=stra\udcdfe"]),
        ("export", ["--workdir={run}", "--to=stra\udcdfe"]),
        ("export", ["--workdir={run}", "--to=stra\udcdfe", "--target=hub_features"]),
    ],
)
def test_paths_that_tensorflow_cannot_write_to_are_refused(
    command, tmp_path, monkeypatch, tiny_run, photos, name, arguments
):
    """Bytes that are not UTF-8, as Python decodes them."""
    monkeypatch.chdir(tmp_path)
    outcome = command(name, *(each.format(photos=photos, run=tiny_run) for each in arguments))
    assert outcome.code == 2
    assert outcome.err == (
        r"error: TensorFlow cannot write to 'stra\udcdfe', whose name is not UTF-8; take another one" + "\n"
    )
    assert not os.path.exists("stra\udcdfe")


def test_exports_are_read_from_paths_that_are_not_utf_8(tmp_path, command, export, image):
    moved = shutil.copytree(export, tmp_path / "stra\udcdfe")
    assert command("predict", f"--model={moved}", str(image)).code == 0
    assert resnet_tf.Predictor(moved, standard_loader=True)(image).labels == resnet_tf.Predictor(export)(image).labels


def test_names_are_the_same_in_every_locale():
    assert from_file_name("k\udcc3\udca4se") == "k\u00e4se"  # as Python decodes it in an ASCII locale
    ascii_locale = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    script = "from resnet_tf.core.streams import standard_streams\nwith standard_streams(): print('k\\u00e4se \\u732b')"
    done = _python("-c", script, env=ascii_locale, capture_output=True)
    assert done.stdout == b"k\\xe4se \\u732b\n", done.stderr


@pytest.mark.slow
def test_an_ascii_locale_shows_escapes(export, image, tmp_path):
    file = shutil.copy(image, tmp_path / "k\u00e4se.png")
    ascii_locale = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = ("-m", "resnet_tf.predict", f"--model={export}", file)
    done = _python(*arguments, env=ascii_locale, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert rb"k\xc3\xa4se.png" in done.stdout
    assert rb"k\xe4se" in done.stdout or rb"\u" in done.stdout  # labels


def test_files_are_opened_with_an_encoding():
    """Text that is read or written in the encoding of the locale differs between machines."""
    package = Path(resnet_tf.__file__).parent
    calls = re.compile(r"(?:\.read_text|\.write_text|(?<![\w.])open)\((?:[^()]|\([^()]*\))*\)")
    found = [
        f"{path.relative_to(package)}: {call}"
        for path in package.rglob("*.py")
        for call in calls.findall(path.read_text(encoding="utf-8"))
        if not re.search(r"encoding=|[\"'][rwa]\+?b|/proc/|descriptor", call) and '"""' not in call
    ]
    assert found == []


# Streams and limits


@pytest.mark.parametrize("command_line", ["-m resnet_tf.train --help", "-m resnet_tf", "-m resnet_tf.predict --help"])
def test_output_into_a_pipe_that_ends(command_line):
    shell = f"{sys.executable} {command_line} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() in ("141", "0")  # 0 if the output was written before `true` ended
    assert done.stderr == ""


def test_a_reader_that_goes_away_ends_a_command_quietly():
    script = (
        "import os, sys\n"
        "from resnet_tf.core.streams import standard_streams\n"
        "with standard_streams():\n"
        "    print('one', flush=True)\n"
        "    sys.stdin.read()\n"
        "    print('two' * 99999)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child.stderr:
        child.stdout.readline()
        child.stdout.close()
        child.stdin.close()
        assert child.wait(60) == 141
        assert child.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [  # an unknown flag is refused before TensorFlow starts
        ("--nonsense", "<&-"),
        ("--nonsense", ">&-"),
        ("--nonsense", "2>/dev/full"),
        ("--nonsense", "2>&-"),
        ("--from=x --model=y --to=z.npz", "<&- >&- 2>&-"),
    ],
)
def test_closed_streams(arguments, closed):
    script = f"{sys.executable} -m resnet_tf.convert {arguments} {closed}; echo $? >&3"
    done = subprocess.run(["bash", "-c", f"exec 3>&1; {script}"], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "2", done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_the_largest_file_size_is_named(tmp_path, tiny_config):
    settings = " ".join(f"--set {each}" for each in _tiny(tiny_config))
    command = (
        f"ulimit -f 100; {sys.executable} -m resnet_tf.train {settings} --set model.name=resnet8_w32 --workdir=run"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert re.search("error: .*File too large.*ulimit -f", done.stderr)


@pytest.mark.parametrize("target", ["file/maps", "file"])
def test_heatmaps_that_cannot_be_written(command, export, image, tmp_path, target):
    (tmp_path / "file").write_text("")
    outcome = command("predict", f"--model={export}", f"--explain={tmp_path / target}", str(image))
    assert outcome.code == 2
    assert "Not a directory" in outcome.err or "File exists" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"cluster": {"worker": "localhost:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [1, 2]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["nowhere"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": "b:2"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "zero"}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": ["worker"], "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": null}',
        '{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}',
        "[" * 100_000,
    ],
)
def test_a_malformed_cluster_is_refused_in_one_line(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match=r"TF_CONFIG") as caught:
        read_tf_config()
    assert "\n" not in str(caught.value)


def _keras_directory() -> Path:
    """Return the directory that Keras itself chooses when it is imported."""
    source = (Path(keras.__file__).parent / "src" / "backend" / "config.py").read_text(encoding="utf-8")
    names: dict[str, str] = {}
    pattern = r'^if "KERAS_HOME" in .*?^    _KERAS_DIR = os.path.join\(.*?$'
    exec(re.search(pattern, source, re.DOTALL | re.MULTILINE)[0], {"os": os}, names)
    return Path(os.path.expanduser(names["_KERAS_DIR"]))


@pytest.mark.parametrize(
    ("home", "keras_home", "expected"),
    [
        ("{}/own", None, "{}/own/.keras"),
        ("{}/own", "{}/other", "{}/other"),
        ("{}/own", "~/other", "{}/own/other"),
        ("{}/missing", None, "/tmp/.keras"),
        (None, None, "/tmp/.keras"),
    ],
)
def test_the_directory_of_keras_is_the_one_that_keras_takes(tmp_path, monkeypatch, home, keras_home, expected):
    """Regression: without a home directory, every command ended with a traceback."""
    (tmp_path / "own").mkdir()
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # no entry of the user
    for name, value in (("HOME", home), ("KERAS_HOME", keras_home)):
        monkeypatch.setenv(name, value.format(tmp_path)) if value else monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    require_tensorflow_backend()
    cached = download.cached_path(PRETRAINED["resnet50"]["torchvision/IMAGENET1K_V1"])
    assert cached.parents[1] == _keras_directory() == Path(expected.format(tmp_path))
    cache = tmp_path / "own" if home == "{}/own" else Path("/tmp")
    assert records.cache_directory("records") == cache / ".cache" / "resnet_tf" / "records"


def test_files_in_a_home_that_cannot_be_written_are_found(tmp_path, monkeypatch):
    """Such as weights that were downloaded on another machine of a cluster, whose nodes only read the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert user_directory(".keras") == Path("/tmp/.keras")
    (tmp_path / ".keras").mkdir()
    assert user_directory(".keras") == tmp_path / ".keras"
    with pytest.raises(UserError, match=r"/models', which cannot be written \(Permission denied\); set KERAS_HOME to"):
        download._make_cache(tmp_path / ".keras" / "models")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"/file/models', which cannot be written \(Not a directory\); set KERAS_"):
        download._make_cache(tmp_path / "file" / "models")


@pytest.mark.slow
def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    settings = {**os.environ, "HOME": str(tmp_path / "file"), "MPLCONFIGDIR": str(tmp_path)}
    for name in ("TFDS_DATA_DIR", "KERAS_HOME", "XDG_CACHE_HOME"):
        settings.pop(name, None)
    done = _python("-m", "resnet_tf.train", "--workdir=run", env=settings, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "data.data_dir" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_a_run_with_hostile_names_ends_with_report_and_export(tmp_path):
    """Names as above, and a path that looks like a pattern, through the whole command, and again."""
    labels = np.arange(4 * len(NAMES)) % len(NAMES)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels, "class_names": np.array(NAMES)}
    np.savez(tmp_path / "names.npz", **arrays)
    settings = ["data.image_size=8", "model.name=resnet8_w32", "train.epochs=1", "data.batch_size=32"]
    settings += [f"data.source={tmp_path}/names.npz", "optimizer.warmup_epochs=0"]
    workdir = tmp_path / "try [lr=0.1], *"
    for _ in range(2):
        arguments = ["-m", "resnet_tf.train", f"--workdir={workdir}", *(f"--set={each}" for each in settings)]
        done = _python(*arguments, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert not CONTROL.search(done.stdout + done.stderr)
    page = (workdir / "report" / "index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert resnet_tf.load_run(workdir).labels == NAMES
    keras.backend.clear_session()
