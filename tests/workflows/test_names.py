"""Names of commands and of their Python functions."""

import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import resnet_tf
from resnet_tf.__main__ import list_commands

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(path.stem for path in (ROOT / "resnet_tf").glob("*.py") if not path.stem.startswith("__"))
# Functions of commands that have another name.
FUNCTIONS = {"data_service": "serve_data", "push": "push_to_hub", "weights": "list_weights"}
OTHER_FUNCTIONS = {"plan"}  # without a command of their own: `train --dry-run`
MODULES = {"push_to_hub": "push"}  # of `workflows`, where their name is not that of the function
WORKFLOWS = {path.stem for path in (ROOT / "resnet_tf" / "workflows").glob("*.py")} - {
    "__init__",
    "reporting",
    "serving_benchmark",
}


def test_every_command_has_a_function_in_the_api():
    """In one module of `workflows` each, and listed in docs/api.md under Commands; `list_weights` is of `model`."""
    assert list_commands() == COMMANDS
    functions = {*(FUNCTIONS.get(name, name) for name in COMMANDS), *OTHER_FUNCTIONS} - {"list_weights"}
    assert {MODULES.get(name, name) for name in functions} == WORKFLOWS
    groups = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["GROUPS"]
    assert functions == {name for name in groups["Commands"] if name.islower()}
    for name in functions:
        assert getattr(resnet_tf, name).__module__ == f"resnet_tf.workflows.{MODULES.get(name, name)}"
        assert callable(getattr(resnet_tf, name))


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_call_the_public_function(name):
    text = (ROOT / "resnet_tf" / f"{name}.py").read_text()
    assert f"resnet_tf.{FUNCTIONS.get(name, name)}(" in text
    assert not re.findall(r"resnet_tf\.(data|model|training|serving|report|workflows)\b", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "from resnet_tf import train",
        "import resnet_tf.workflows.train",
        "from resnet_tf.workflows.train import train",
        "import resnet_tf; resnet_tf.train",
        "import runpy, sys; sys.argv = ['x', '--help']; runpy.run_module('resnet_tf.train', run_name='__main__')",
        "import runpy, sys; sys.argv = ['x', 'train', '--help']; runpy.run_module('resnet_tf', run_name='__main__')",
        "import importlib\ntry: importlib.import_module('resnet_tf.train')\nexcept ImportError: pass",
        "try: from resnet_tf.train import main\nexcept ImportError: pass",
        "import resnet_tf.config, resnet_tf.__main__",
    ],
)
def test_train_is_the_function_after_any_import(imports):
    """The import system would set the attribute `train` of the package to the module, if it could be imported."""
    code = f"{imports}\nimport resnet_tf; from resnet_tf import train; assert train is resnet_tf.train; print(train)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines()[-1].startswith("<function train at ")


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_cannot_be_imported(name):
    with pytest.raises(ImportError, match=f"resnet_tf.{name} is a command: run `python -m resnet_tf.{name}`"):
        importlib.import_module(f"resnet_tf.{name}")
    if name not in FUNCTIONS:
        assert getattr(resnet_tf, name).__name__ == name


def test_the_package_lists_its_commands_without_heavy_imports():
    code = (
        "import runpy, sys; sys.argv = ['x']; runpy.run_module('resnet_tf', run_name='__main__');"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'tensorflow_datasets', 'numpy', 'absl'} & set(sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    usage, blank, *lines = child.stdout.splitlines()
    assert usage.startswith("usage: resnet-tf COMMAND")
    assert not blank
    assert [line.split()[0] for line in lines] == COMMANDS
    assert all(line.endswith(".") and len(line) <= 120 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("program", [["-m", "resnet_tf"], ["-c", "from resnet_tf.__main__ import main; main()"]])
def test_one_program_runs_every_command(program):
    """The second one is what the console script `resnet-tf` does."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, *program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert "python -m resnet_tf.train --config=NAME" in run("train", "--help").stdout
    mistake = run("train", "--config=digit")
    assert (mistake.returncode, mistake.stdout) == (2, "")
    assert mistake.stderr.splitlines()[-1].startswith("error: unknown config 'digit'; did you mean 'digits'")
    unknown = run("trian", "--config=digits")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "error: unknown command 'trian'; did you mean 'train'?\n"


def test_the_console_script_is_that_program():
    (scripts,) = re.findall(r'"console_scripts": (\[.*\])', (ROOT / "setup.py").read_text())
    assert json.loads(scripts) == ["resnet-tf = resnet_tf.__main__:main"]
