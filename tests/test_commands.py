"""Commands run as a user runs them: output, files, error messages and exit codes."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import matplotlib.figure
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from conftest import LONG, write_imagenet_records, writing_tensorboard
from PIL import Image

from resnet_tf.__main__ import list_commands
from resnet_tf.config import command_line, iterate_keys, load_config
from resnet_tf.core.files import read_json_lines
from resnet_tf.serving import runners
from resnet_tf.training import time_budget
from resnet_tf.workflows import preview
from resnet_tf.workflows import train as train_module
from resnet_tf.workflows.train import train_and_evaluate


@pytest.mark.parametrize("name", list_commands())
def test_help_does_not_import_tensorflow(name):
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']; runpy.run_module('resnet_tf.{name}', run_name='__main__');"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'tensorflow_datasets', 'numpy'} & set(sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert f"python -m resnet_tf.{name}" in child.stdout
    assert max(map(len, child.stdout.splitlines())) <= 120
    if name == "train":
        assert all(key in child.stdout for key, _ in iterate_keys())


def test_file_names_after_two_dashes_stay_as_they_are(monkeypatch):
    names, found = ["--my-photo.jpg", "--help", "--data.source=x.jpg"], []
    flag_values = flags.FlagValues()
    flags.DEFINE_string("some_flag", "", "a flag", flag_values=flag_values)
    flags.DEFINE_multi_string("set", [], "overrides", flag_values=flag_values)
    monkeypatch.setattr(sys, "argv", ["x", "--some-flag=a-b", "--data.source=y", "--", *names])
    command_line.run(found.extend, flag_values, doc="a command")
    assert (found, flag_values["some_flag"].value, flag_values["set"].value) == (names, "a-b", ["data.source=y"])


@pytest.mark.parametrize(
    ("arguments", "assignment"),
    [
        (["--train.eval-every=3"], "train.eval_every=3"),
        (["--train.eval-every", "3"], "train.eval_every=3"),
        (["--data.source", "my-photos/"], "data.source=my-photos/"),
        (["--model.weights="], "model.weights="),
        (["--optimizer.base_lr", "-1"], "optimizer.base_lr=-1"),
    ],
)
def test_keys_of_the_configuration_are_flags(monkeypatch, arguments, assignment):
    flag_values = flags.FlagValues()
    flags.DEFINE_multi_string("set", [], "overrides", flag_values=flag_values)
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    command_line.run(lambda positional: None, flag_values, doc="a command")
    assert flag_values["set"].value == [assignment]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config=digit"], "unknown config 'digit'; did you mean 'digits'"),
        (["train", "--set", "data.sorce=x"], "unknown key 'data.sorce'; did you mean 'data.source'"),
        (["train", "--data.sorce=x"], "unknown key 'data.sorce'; did you mean 'data.source'"),
        (["train", "--train.eval-evry=3"], "unknown key 'train.eval_evry'; did you mean 'train.eval_every'"),
        (["train", "--DATA.Source=x"], "unknown key 'DATA.Source'; did you mean 'data.source'"),
        (["train", "--data.source"], "--data.source has no value; write --data.source=VALUE"),
        (["train", "--data.source", "--config=digits"], "--data.source has no value; write --data.source=VALUE"),
        (["predict", "--batch-size"], "--batch-size has no value; write --batch-size=VALUE"),
        (["predict", "--batch-size=x"], "--batch-size=x: expected a positive whole number"),
        (["convert", "--num-classes=1.5"], "--num-classes=1.5: expected a non-negative whole number"),
        (["demo", "--port=70000"], "--port=70000: expected a whole number in the range [0, 65535]"),
        (["prepare", "--eval-fraction=half"], "--eval-fraction=half: expected a number in the range [0.0, 1.0]"),
        (["benchmark", "--seconds=0"], "--seconds=0: expected a number >= 0.1"),
        (["benchmark", "--what=speed"], "--what=speed: expected one of input, train, serving"),
        (["benchmark", "--json=maybe"], "--json=maybe: expected true or false"),
        (["benchmark", "--nojson=1"], "--nojson=1 does not take an argument"),
        (["train", "--wokdir=x"], "unknown flag 'wokdir'; did you mean 'workdir'?"),
        (["train", "--epochs=3"], "unknown flag 'epochs'; did you mean --train.epochs?"),
        (["train", "--batch-size=3"], "unknown flag 'batch-size'; did you mean --data.batch_size?"),
        (["train", "--lr=3"], "unknown flag 'lr'; did you mean --optimizer.base_lr or --optimizer.end_lr_fraction?"),
        (["train", "--model=resnet50"], "unknown flag 'model'; did you mean --model.name?"),
        (["prepare", "--image-folder=x"], "unknown flag 'image-folder'; did you mean --data.image_folder?"),
        (["prepare", "--epochs=3"], "unknown flag 'epochs'; did you mean 'from', 'to', 'eval-fraction', 'set'?"),
        (["audit", "--data.source=/nowhere"], "data.source='/nowhere': no such folder or file"),
        (["audit", "photos/", "--data.sorce=x"], "unknown key 'data.sorce'; did you mean 'data.source'"),
        (["evaluate", "--workdir=/nowhere", "--data.source=x"], "'/nowhere' is not a run directory"),
        (["compare", "--data.source=x"], "give two models, the one in use and its replacement"),
        (["evaluate", "digits"], "no exported model at 'digits'"),
        (["evaluate", "digits", "--workdir=x"], "give either --workdir=DIR or --model=EXPORTED"),
        (["export", "runs/x", "--workdir=runs/y"], "both 'runs/x' and --workdir=runs/y are given"),
        (["evaluate", "runs/x", "runs/y"], "unexpected argument 'runs/y'; flags start with --"),
        (["evaluate"], "give either --workdir=DIR or --model=EXPORTED"),
        (["evaluate", "--workdir=/nowhere"], "'/nowhere' is not a run directory: it has no config.json"),
        (["evaluate", "--model=/nowhere"], "no exported model at '/nowhere'"),
        (
            ["evaluate", "--model=/nowhere", "--flip"],
            "--flip needs --workdir=DIR; predictions of an exported model are fixed",
        ),
        (
            ["evaluate", "--model=/nowhere", "--checkpoint=best"],
            "--checkpoint needs --workdir=DIR; an exported model has the weights of one checkpoint",
        ),
        (
            ["compare", "runs/x", "runs/y", "--checkpoint=best"],
            "checkpoint=best needs a run directory; an export or a loaded run has one checkpoint",
        ),
        (["export"], "--workdir=DIR is missing"),
        (["weights", "resnet5"], "unknown model 'resnet5'; did you mean"),
        (["weights", "resnet5x*"], "no network matches 'resnet5x*'; did you mean"),
        (["weights", "resnet50", "resnet18"], "unexpected argument 'resnet18'; flags start with --"),
        (["predict"], "--model=EXPORTED is missing"),
        (["predict", "x.jpg"], "no images given"),
        (["predict", "--model=/nowhere"], "no images given"),
        (["predict", "--model=/nowhere", "x.jpg"], "no exported model at '/nowhere'"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(command, arguments, message):
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"error: {message}")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=resnett50", "unknown model 'resnett50'; did you mean 'resnet50'"),
        ("model.name=resnet50", "input of 8x8 pixels is too small for resnet50"),
        ("model.num_classes=7", "model.num_classes=7, but 'digits/1.0.0' has 10 classes"),
        ("model.weights=none.h5", "no weights file 'none.h5'"),
        ("data.source=fashion_mnits", "unknown data set 'fashion_mnits'; did you mean 'fashion_mnist'"),
        ("data.source=./photos", "data.source='./photos': no such folder"),
        ("data.eval_split=tset", "data set 'digits/1.0.0' has no split 'tset'; did you mean 'test'"),
    ],
)
def test_errors_after_the_start_leave_no_run_directory(command, data_dir, tmp_path, override, message):
    workdir = tmp_path / "run"
    arguments = ["--set", f"data.data_dir={data_dir}", "--set", override, f"--workdir={workdir}"]
    outcome = command("train", *arguments)
    assert outcome.code == 2
    assert f"error: {message}" in outcome.err
    assert "Traceback" not in outcome.err
    assert not workdir.exists()


def test_other_directories_are_refused_and_not_changed(command, tiny_run, data_dir, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    directory = command("train", f"--workdir={tmp_path}")
    assert (directory.code, directory.err.count("\n")) == (2, 1)
    assert "is not empty and holds no run" in directory.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    file = command("train", f"--workdir={tmp_path / 'thesis.txt'}")
    assert "is a file; give a directory" in file.err

    for dry_run in ((), ("--dry-run",)):
        other = command("train", f"--workdir={tiny_run}", *dry_run)
        assert other.code == 2
        assert "holds a run of another configuration" in other.err
        assert "train.epochs=2 there and" in other.err


def test_an_unwritable_workdir_is_refused(command, data_dir, tmp_path, monkeypatch):
    system = command(
        "train", "--workdir=/proc/run", "--set", f"data.data_dir={data_dir}"
    )  # not even root can write there
    assert system.code == 2
    assert "error: --workdir='/proc/run' cannot be written: " in system.err
    # Root may write anywhere, so the prediction of the system for other users is simulated.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"--workdir={str(tmp_path)!r} is not writable" in command("train", f"--workdir={tmp_path}").err
    below = command("train", f"--workdir={tmp_path / 'a' / 'b'}")
    assert f"cannot be created: {str(tmp_path)!r} is not writable" in below.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_incomplete_export(command, tiny_run, data_dir, tmp_path, monkeypatch):
    python, native = os.strerror(errno.ENOSPC), "{{node SaveV2}} part-00000; No space left on device [Op:SaveV2]"
    for error in (OSError(errno.ENOSPC, python), tf.errors.ResourceExhaustedError(None, None, native)):
        monkeypatch.setattr(tf.saved_model, "save", Mock(side_effect=error))
        outcome = command("export", f"--workdir={tiny_run}", f"--to={tmp_path / 'export'}")
        assert outcome.code == 2
        assert re.fullmatch(r"error: cannot write to .*: .*No space left on device\n", outcome.err)
        assert "{{" not in outcome.err
        assert not list((tmp_path / "export").glob("*"))
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", Mock(side_effect=OSError(errno.ENOSPC, python)))
    outcome = command("preview", "--config=digits", f"--data.data_dir={data_dir}", f"--out={tmp_path / 'grid.png'}")
    assert outcome.code == 2
    assert outcome.err.endswith("No space left on device; make room, and start the same command again\n")


def test_another_backend_is_refused(command, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    outcome = command("train")
    assert outcome.code == 2
    assert "KERAS_BACKEND=jax is set in the environment, but resnet_tf runs on tensorflow only" in outcome.err


def test_another_backend_in_the_file_of_keras_is_refused(command, monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    assert "KERAS_BACKEND=torch is set in" in command("train").err


def test_another_backend_is_refused_from_python():
    child = subprocess.run(
        [sys.executable, "-c", "import resnet_tf; resnet_tf.create_model('resnet20')"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode
    assert "KERAS_BACKEND=jax is set in the environment, but resnet_tf runs on tensorflow only" in child.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["start_run", "_finish"])
def test_a_signal_before_the_first_or_after_the_last_step_ends_with_75(command, monkeypatch, tmp_path, phase, number):
    """Regression: it ended with 143 or 130, which no scheduler takes for a run to be started again."""

    def stop(*arguments):
        os.kill(os.getpid(), number)

    replacements = {
        "start_run": lambda config, workdir: SimpleNamespace(config=config, strategy=None),
        "_exclusive": lambda *arguments: contextlib.nullcontext(tmp_path),
        "_fit": lambda *arguments: SimpleNamespace(source=None),
        "_ending_together": lambda started: contextlib.nullcontext(),
        phase: stop,
    }
    for name, replacement in replacements.items():
        monkeypatch.setattr(train_module, name, replacement)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    outcome = command("train", "--config=digits", f"--workdir={tmp_path}")
    message = f"{number.name}: stopped before the first step or after the last one; the same command resumes\n"
    assert (outcome.code, outcome.err) == (75, message)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_evaluate_export_and_predict(command, tiny_run, tmp_path):
    evaluated = command("evaluate", str(tiny_run), "--json")
    metrics = json.loads(evaluated.out)
    assert metrics["examples"] == 100
    assert 0 <= metrics["top1"] <= metrics["top5"] <= 1

    detailed = json.loads(command("evaluate", f"--workdir={tiny_run}", "--json", "--classes").out)
    assert len(detailed["recall"]) == len(detailed["confusion"]) == 10
    text = command("evaluate", f"--workdir={tiny_run}", "--flip", "--classes").out.splitlines()
    assert text[0].startswith("top-1 ")
    assert text[1].startswith("calibration  calibration error ")
    assert len(text) == 12

    exported = command("export", str(tiny_run), f"--to={tmp_path / 'models'}")
    assert exported.out.strip() == str(tmp_path / "models" / "1")

    again = command("evaluate", str(tmp_path / "models"), "--json")
    assert json.loads(again.out) == pytest.approx(metrics, abs=1e-5)

    image = tmp_path / "seven.png"
    Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(image)
    prediction = json.loads(command("predict", f"--model={tmp_path / 'models'}", "--json", str(image)).out)
    assert list(prediction) == ["file", "labels", "scores", "indices"]
    assert prediction["file"] == str(image)
    assert prediction["scores"] == sorted(prediction["scores"], reverse=True)
    assert prediction["labels"] == [str(index) for index in prediction["indices"]]

    table = command("predict", f"--model={tmp_path / 'models' / '1'}", str(image), str(image)).out.splitlines()
    assert len(table) == 2 * 6
    assert table[0] == str(image)
    assert table[1].split()[:2] == ["1", prediction["labels"][0]]

    (tmp_path / "note.jpg").write_text("not an image")
    refused = command("predict", f"--model={tmp_path / 'models'}", str(image), str(tmp_path / "note.jpg"))
    assert refused.code == 2
    assert refused.err.startswith(f"error: {str(tmp_path / 'note.jpg')!r} is not a readable image: not a JPEG")


def test_predict_takes_folders_and_prints_csv(command, photos, tiny_export):
    (photos / "train" / "notes.txt").write_text("not an image")
    outcome = command("predict", f"--model={tiny_export}", "--csv", "--batch-size=5", str(photos / "train"))
    lines = outcome.out.splitlines()
    assert outcome.code == 0
    assert lines[0] == "file,label1,score1,label2,score2,label3,score3,label4,score4,label5,score5"
    files = sorted(str(path) for path in (photos / "train").rglob("*") if path.suffix in (".jpg", ".png"))
    assert [line.split(",")[0] for line in lines[1:]] == files
    scores = np.array([line.split(",")[2::2] for line in lines[1:]], float)
    assert (np.diff(scores, axis=1) <= 0).all()
    empty = photos / "empty"
    empty.mkdir()
    assert (
        f"no images in {str(empty)!r}: none of its files ends in .jpg"
        in command("predict", f"--model={tiny_export}", str(empty)).err
    )
    assert "give --json or --csv, not both" in command("predict", "--model=x", "--json", "--csv", "a.jpg").err


def test_predict_prints_no_control_characters(command, photos, tiny_export):
    file = (photos / "train" / "red" / "0.jpg").rename(photos / "red\x1b[2J.jpg")
    outcome = command("predict", f"--model={tiny_export}", str(file))
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == str(photos / r"red\x1b[2J.jpg")


@pytest.mark.slow
def test_predict_reads_standard_input_and_writes_heatmaps(command, photos, tiny_export, tmp_path, monkeypatch):
    image = next((photos / "train").rglob("*.jpg"))
    monkeypatch.setattr(sys, "stdin", Mock(buffer=io.BytesIO(image.read_bytes())))
    maps = tmp_path / "maps"
    outcome = command("predict", f"--model={tiny_export}", "--json", f"--explain={maps}", "-", str(image))
    assert outcome.code == 0, outcome.err
    first, second = (json.loads(line) for line in outcome.out.splitlines())
    assert first["file"] == "-"
    assert first["labels"] == second["labels"]
    assert sorted(path.name for path in maps.iterdir()) == ["1_stdin.png", f"2_{image.stem}.png"]
    with Image.open(maps / "1_stdin.png") as overlay:
        assert overlay.size == (640, 350)


@pytest.mark.slow
@pytest.mark.long
def test_train_from_a_folder_with_flags_only(command, photos, tmp_path):
    workdir = tmp_path / "run"
    arguments = ["--data.source", str(photos), "--set", "model.name=resnet8_w32", "--set", "data.image_size=32"]
    arguments += ["--set", "train.epochs=2", "--set", "data.batch_size=4", "--set", "optimizer.warmup_epochs=0"]
    with writing_tensorboard():
        outcome = command("train", "--config=imagefolder", *arguments, f"--workdir={workdir}")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("epoch ") >= 2
    assert "verified in a new process: 6 of 6 validation examples have the same top-1 class" in outcome.out
    found = {path.name for path in workdir.iterdir()}
    files = {"config.json", "metrics.jsonl", "environment.jsonl", "hashes.jsonl"}
    assert found == files | {"checkpoints", "tensorboard", "report", "export"}
    prediction = command("predict", f"--model={workdir / 'export' / 'serving' / '1'}", str(photos / "test/red/0.jpg"))
    assert {line.split()[1] for line in prediction.out.splitlines()[1:]} == {"blue", "red"}


@pytest.mark.slow
def test_train_takes_the_data_as_an_argument(command, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(time_budget, "_MEASURE_SECONDS", 0.1)
    settings = ("--model.name=resnet8_w32", "--data.batch_size=4", "--dry-run")
    with contextlib.chdir(tmp_path):
        outcome = command("train", str(photos), *settings)
        assert outcome.code == 0, outcome.err
        assert f"{photos}: 12 training and 6 validation examples (splits 'train', 'test'), 2 classes" in outcome.out
        assert (tmp_path / "auto-dry-run.png").is_file()
        assert command("train", str(photos), "--config=digits", *settings).code == 0
        (tmp_path / "digits-dry-run.png").unlink()
        assert command("train", "digits", *settings).code == 0
        assert (tmp_path / "digits-dry-run.png").is_file()
    for arguments in (("data.batch_size=4",), (str(photos), str(photos)), (str(photos), "train.epochs=1")):
        outcome = command("train", *arguments, "--dry-run")
        assert outcome.code == 2
        assert f"unexpected argument {arguments[-1]!r}; flags start with --" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        ([], "digits"),
        (["--set=train.epochs=1"], "digits"),
        (["--set=data.source=digits"], "digits"),
        (["--set=data.source=photos"], "auto"),
        (["--set=data.source=digits", "--set=data.source=photos"], "auto"),
        (["--set=data.source=photos", "--config=digits"], "digits"),
        (["--set=data.source=photos", "--config=imagefolder"], "imagefolder"),
    ],
)
def test_the_default_recipe_is_for_the_digits_only(arguments, recipe):
    flag_values = flags.FlagValues()
    config, overrides = command_line.config_flags(flag_values)
    flag_values(["train", *arguments])
    assert command_line.chosen_config(config, overrides.value) == recipe


@pytest.mark.slow
def test_commands_without_a_recipe_take_auto_for_images(command, photos, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(time_budget, "_MEASURE_SECONDS", 0.1)
    titles: list[str] = []
    monkeypatch.setattr(preview, "plot_grid", lambda path, *, title, images: titles.append(title) or path)
    data = (f"--set=data.source={photos}", "--data.batch_size=4")
    with contextlib.chdir(tmp_path):
        for arguments in (("train", "--dry-run", *data), ("preview", *data), ("preview", str(photos), data[1])):
            outcome = command(*arguments, "--model.name=resnet8_w32")
            assert outcome.code == 0, outcome.err
            assert "train.minutes=10 chooses augment." in caplog.text, "the plot has the augmentation of the plan"
            caplog.clear()
    assert [title.partition(":")[0] for title in titles] == ["auto"] * 3
    outcome = command("benchmark", *data, "--seconds=0.1")
    assert outcome.code == 0, outcome.err
    title, *rows, _ = outcome.out.splitlines()
    assert title == "auto: images per second"
    (chosen,) = re.findall(r"model.name=(\w+)", caplog.text)
    assert rows[-1].split()[:2] == [chosen, "takes"]


@pytest.mark.parametrize("what", ["train", "serving"])
def test_a_network_that_follows_from_data_is_not_measured_without_them(command, what):
    outcome = command("benchmark", f"--what={what}", "--config=auto")
    assert outcome.code == 2
    reason = "train.minutes=10 chooses the network from the data, which are not read here; set model.name"
    assert outcome.err == f"error: {reason}\n"


def test_an_export_without_its_package_is_refused_before_the_run_is_read(command, monkeypatch):
    monkeypatch.setattr(runners, "MODULES", {"onnx": ("no_onnxruntime",)})
    outcome = command("export", "--workdir=/nowhere", "--target=onnx")
    assert (outcome.code, outcome.err) == (2, "error: target 'onnx' needs pip install 'resnet_tf[onnx]'\n")


@pytest.mark.slow
def test_predict_takes_the_model_as_an_argument(command, tiny_export, photos):
    image = str(photos / "test" / "red" / "0.jpg")
    short, long = (command("predict", *model, image) for model in ((str(tiny_export),), (f"--model={tiny_export}",)))
    assert short.code == 0, short.err
    assert short.out == long.out
    assert "no images given" in command("predict", str(tiny_export)).err


@pytest.mark.slow
@pytest.mark.long
def test_a_command_that_tolerates_too_few_unreadable_images_is_corrected(command, photos, tmp_path):
    """From another working directory as well: the run stores absolute paths."""
    (photos / "train" / "red" / "0.jpg").write_bytes(b"not an image")
    arguments = ["--config=imagefolder", "--data.source=photos", "--model.name=resnet8_w32", "--train.epochs=1"]
    arguments += ["--data.image_size=32", "--data.batch_size=4", f"--workdir={tmp_path / 'run'}"]
    with contextlib.chdir(tmp_path):
        outcome = command("train", *arguments, "--data.max_unreadable_fraction=0.01")
    assert outcome.code == 2
    assert "1 of 12 images of split 'train' are unreadable" in outcome.err.splitlines()[-1]
    assert "data.max_unreadable_fraction=0.01" in outcome.err.splitlines()[-1]
    with contextlib.chdir(tmp_path):
        outcome = command("train", *arguments, "--data.max_unreadable_fraction=0.2")
    assert outcome.code == 0, outcome.err
    assert [line["file"] for line in read_json_lines(tmp_path / "run" / "unreadable.jsonl")] == [
        str(photos / "train" / "red" / "0.jpg")
    ]
    assert command("evaluate", f"--workdir={tmp_path / 'run'}").code == 0


@pytest.mark.slow
@pytest.mark.long
def test_train_prints_the_metrics_of_a_test_split_and_shows_them_in_the_report(command, photos, tmp_path):
    (photos / "val").mkdir()
    for label in ("blue", "red"):
        shutil.copytree(photos / "test" / label, photos / "val" / label)
        (photos / "val" / label / "0.jpg").unlink()
    arguments = ["--config=imagefolder", f"--data.source={photos}", "--model.name=resnet8_w32", "--train.epochs=1"]
    arguments += ["--data.image_size=32", "--data.batch_size=4", "--data.eval_split=val", "--data.test_split=test"]
    outcomes = [command("train", *arguments, f"--workdir={tmp_path / 'run'}") for _ in range(2)]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    stored = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    line = f"test    top-1 {stored['test_top1']:.4f}  loss {stored['test_loss']:.4f}  on 6 examples"
    for outcome in outcomes:
        assert line in outcome.out.splitlines()
        assert "val     top-1 " in outcome.out
        assert "on 4 examples" in outcome.out
    command("evaluate", f"--workdir={tmp_path / 'run'}")
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert f"{100 * stored['test_top1']:.2f} %</b>test top-1" in page


@pytest.mark.slow
@pytest.mark.long
def test_evaluate_writes_the_report(command, tiny_run, tiny_export, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    page = workdir / "report" / "index.html"
    outcome = command("evaluate", f"--workdir={workdir}", "--json")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (0, f"report  {page}")
    top1 = json.loads(outcome.out)["top1"]
    assert f"<b>{100 * top1:.2f} %</b>top-1" in page.read_text()
    page.unlink()
    command("evaluate", f"--workdir={workdir}", "--set", "data.eval_split=test[:50]")
    assert not page.exists(), "the report of a run shows the data of its configuration only"

    shutil.rmtree(page.parent)
    page.parent.write_text("a file")
    outcome = command("evaluate", f"--workdir={workdir}")
    assert outcome.code == 0
    assert "no report: cannot write '" in outcome.err
    other = tmp_path / "page"
    outcome = command("evaluate", f"--model={tiny_export}", f"--report={other}")
    assert outcome.code == 0, outcome.err
    assert "<b>serving, float32</b>export" in (other / "index.html").read_text()
    refused = command("evaluate", f"--model={tiny_export}", f"--report={page.parent}")
    assert (refused.code, refused.err.count("error: cannot write '")) == (2, 1)


@pytest.mark.slow
@pytest.mark.long  # CI runs the default command itself
def test_the_default_command_trains_on_the_digits(command, tmp_path, data_dir, monkeypatch):
    """The default command in an empty directory, shortened to one epoch, with prepared data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    outcome = command("train", "--set", "train.epochs=1", "--set", f"data.data_dir={data_dir}")
    assert outcome.code == 0, outcome.err
    (workdir,) = Path("runs").iterdir()
    assert workdir.name.startswith("digits-")
    assert "899 of 899 validation examples have the same top-1 class" in outcome.out
    assert (workdir / "report" / "summary.png").stat().st_size > 10_000
    assert f"report  {workdir / 'report' / 'index.html'}" in outcome.out
    assert "resnet8_w32 on digits" in (workdir / "report" / "index.html").read_text()

    again = command("train", "--set", "train.epochs=1", "--set", f"data.data_dir={data_dir}", f"--workdir={workdir}")
    assert again.out == outcome.out, "a finished run is only evaluated, and its export verified, again"
    assert [path.name for path in (workdir / "export" / "serving").iterdir()] == ["1"]


def test_a_dry_run_prints_the_plan_and_plots_the_first_batch(command, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    arguments = ["--config=imagefolder", f"--data.source={photos}", "--data.batch_size=5", "--data.image_size=32"]
    outcome = command("train", *arguments, "--model.name=resnet20", "--train.epochs=3", "--dry-run")
    assert outcome.code == 0, outcome.err
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in outcome.out.splitlines())
    assert facts["data"] == f"{photos}: 12 training and 6 validation examples (splits 'train', 'test'), 2 classes"
    assert facts["classes"] == "blue 6, red 6"
    assert facts["steps"] == "9 of 5: 3 epochs of 3; the last of an epoch has 3 examples of the next pass"
    assert "0.0406 billion multiply-adds at 32 pixels" in facts["network"]
    assert re.fullmatch(r"(float32|mixed_bfloat16) \(auto: .*\)", facts["precision"])
    assert facts["runs on"] == "1 replica of 5 images (runtime.strategy=auto)"
    assert re.match(r"about \d+ MB on each replica", facts["memory"])
    assert facts["first batch"] == "imagefolder-dry-run.png"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "imagefolder-dry-run.png"}
    reduced = command("train", *arguments, "--dry-run", "--data.batch_size=50")
    assert "90 of 12: 90 epochs of 1; 0 examples of each epoch are unused" in reduced.out
    assert "0.004688 at its peak" in reduced.out


@pytest.mark.slow
def test_preview_plots_the_batch_of_a_step(command, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config=imagefolder", f"--data.source={photos}", "--data.batch_size=4", "--data.image_size=32"]
    outcome = command("preview", *arguments, "--out=grid.png", "--augment.policy=randaugment", "--step=200")
    assert (outcome.code, outcome.out) == (0, "grid.png\n"), outcome.err
    assert (tmp_path / "grid.png").stat().st_size > 5000
    for wrong, message in (
        (["--out=grid.jpg"], "--out='grid.jpg' must be a .png file in an existing directory"),
        (["--step=270"], "the run has steps 0 to 269; there is no step 270"),
    ):
        refused = command("preview", *arguments, *wrong)
        assert (refused.code, refused.err.splitlines()[-1]) == (2, f"error: {message}")


@pytest.mark.slow
def test_preview_titles_show_the_fractions_of_mixed_images(command, photos, tmp_path, monkeypatch):
    titles = []
    from matplotlib.axes import Axes

    original = Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **k: (titles.append(text), original(self, text, **k))[1])
    arguments = [f"--data.source={photos}", "--data.batch_size=8", "--data.image_size=32", "--augment.cutmix=1"]
    outcome = command("preview", "--config=imagefolder", *arguments, f"--out={tmp_path / 'grid.png'}")
    assert outcome.code == 0, outcome.err
    mixed = [re.findall(r"(\d+)% (blue|red)", title) for title in titles if "%" in title]
    assert mixed, "some images are mixed with images of the other class"
    for percentages in mixed:
        assert sum(int(percentage) for percentage, _ in percentages) == pytest.approx(100, abs=1)


@pytest.mark.slow
@pytest.mark.long
def test_benchmark_measures_the_input_and_the_model(command, photos):
    arguments = [f"--data.source={photos}", "--data.batch_size=4", "--data.image_size=32", "--model.name=resnet8_w32"]
    outcome = command("benchmark", "--config=imagefolder", *arguments, "--seconds=0.1")
    assert outcome.code == 0, outcome.err
    title, *rows, verdict = outcome.out.splitlines()
    assert title == "imagefolder: images per second"
    assert [re.split(r"\s{2,}", row.strip())[0] for row in rows] == [
        "reading alone",
        "+ decoding",
        "+ augmentation",
        "+ batches",
        "resnet8_w32 takes",
    ]
    assert verdict.startswith(("The input is the limit: ", "The model is the limit: "))

    small = [*arguments, "--seconds=0.1", "--augment.random_resized_crop=false", "--json"]
    lines = [json.loads(line) for line in command("benchmark", "--config=imagefolder", *small).out.splitlines()]
    assert [line["case"] for line in lines[-2:]] == ["batches, from memory", "resnet8_w32 takes"]
    assert all(line["images_per_second"] > 0 for line in lines)


@pytest.mark.slow
@pytest.mark.long
def test_benchmark_measures_a_step(command):
    small = ["--seconds=0.1", "--data.image_size=32", "--data.batch_size=4"]
    outcome = command("benchmark", "--what=train", "--model=resnet8_w32", *small)
    assert outcome.code == 0, outcome.err
    assert re.fullmatch(r"images per second\n +resnet8_w32, 32 pixels, 4 in a step +[\d,]+\n", outcome.out)
    unknown = command("benchmark", "--what=train", "--model=resnet51")
    assert (unknown.code, "unknown model 'resnet51'; did you mean" in unknown.err) == (2, True)


@pytest.mark.slow
@pytest.mark.long
def test_train_logs_the_classes_and_the_unreadable_images(command, photos, tmp_path, caplog):
    for index in range(3):
        (photos / "train" / "red" / f"9{index}.jpg").write_bytes(b"")
    settings = ["model.name=resnet8_w32", "data.image_size=32", "data.batch_size=4", "train.epochs=1"]
    settings += [f"data.source={photos}", "data.balance=uniform", "optimizer.warmup_epochs=0"]
    arguments = ["--config=imagefolder", *(f"--{setting}" for setting in settings)]
    refused = command("train", *arguments, f"--workdir={tmp_path / 'strict'}")
    assert refused.code == 2
    assert re.search(r"error: [123] of 15 images of split 'train' are unreadable", refused.err)
    outcome = command("train", *arguments, "--data.max_unreadable_fraction=0.3", f"--workdir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err
    assert "training examples (data.balance=uniform): blue 6, red 9" in caplog.text
    noted = [json.loads(line) for line in (tmp_path / "run" / "unreadable.jsonl").read_text().splitlines()]
    assert {Path(line["file"]).name for line in noted} <= {"90.jpg", "91.jpg", "92.jpg"}
    assert f"skipped {len(noted)} unreadable examples" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("source_type", ["npz", pytest.param("records", marks=LONG), "prepared"])
def test_train_from_other_sources(command, photos, tmp_path, source_type):
    if source_type == "npz":
        pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
        labels = np.arange(12) % 2
        np.savez(tmp_path / "data.npz", x_train=pixels, y_train=labels, x_test=pixels[:6], y_test=labels[:6])
        source = tmp_path / "data.npz"
    elif source_type == "prepared":
        source = tmp_path / "prepared"
        assert command("prepare", f"--from={photos}", f"--to={source}").code == 0
    else:
        source = tmp_path / "records"
        for split in ("train", "test"):
            files = sorted((photos / split).rglob("*.*"))
            examples = [(file.read_bytes(), 1 + (file.parent.name == "red"), {}) for file in files]
            write_imagenet_records(source / f"{split}-00000-of-00001", examples)
    settings = ["model.name=resnet8_w32", "data.image_size=32", "data.batch_size=4", "train.epochs=1"]
    config = load_config("imagefolder", [*settings, f"data.source={source}", "optimizer.warmup_epochs=0"])
    assert train_and_evaluate(config, tmp_path / "run")["examples"] == 6
