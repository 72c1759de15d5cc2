"""New Python processes find the modules of the process that starts them."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import resnet_tf
from resnet_tf.core.devices import cpu_environment
from resnet_tf.core.processes import environment


def test_files_of_the_working_directory_replace_no_module(tmp_path):
    (tmp_path / "random.py").write_text("raise SystemExit('the file of the user')")
    (tmp_path / "resnet_tf").mkdir()  # such as a clone, in the directory above it
    child = subprocess.run(
        [sys.executable, "-m", "resnet_tf.serving.verify"],  # imports the package, and ends without a request
        cwd=tmp_path,
        env=cpu_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr


def test_directories_of_this_process_come_first_and_in_order(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # an interactive session
    code = "import json, sys; print(json.dumps(sys.path))"
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    ).stdout
    found = [Path(each).resolve() for each in json.loads(output)]
    assert found[:2] == [Path.cwd(), tmp_path.resolve()]
    expected = [Path(each).resolve() for each in sys.path]
    assert [each for each in found if each in expected][: len(set(expected))] == list(dict.fromkeys(expected))


def test_every_new_process_of_the_package_has_such_an_environment():
    calls = 0
    for file in Path(resnet_tf.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.run", "subprocess.Popen"):
                calls += 1
                isolated = '"-I"' in ast.unparse(node).replace("'", '"')  # imports nothing of the user
                assert isolated or "env" in {each.arg for each in node.keywords}, f"{file}: {ast.unparse(node)}"
    assert calls >= 4
