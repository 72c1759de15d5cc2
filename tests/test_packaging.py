"""Packaging: files and metadata of the wheel, a run of the wheel, and the files for the repository host."""

import importlib.resources
import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import resnet_tf
from resnet_tf.config import list_configs

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"


def test_the_installed_package_is_typed():
    assert importlib.resources.files("resnet_tf").joinpath("py.typed").is_file()  # CI runs this on the wheel


def test_ci_tests_every_supported_python():
    job = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())["jobs"]["check"]
    classifiers = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "setup.py").read_text())
    assert job["strategy"]["matrix"]["python"] == classifiers
    assert {"run": ".ci/run"} in job["steps"]


@pytest.mark.slow
def test_the_command_of_the_bug_report_prints_versions():
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "bug_report.yml").read_text())
    (versions,) = (field["attributes"] for field in form["body"] if field.get("id") == "versions")
    (arguments,) = re.findall(r"`python (.+)`", versions["description"])
    done = subprocess.run([sys.executable, *arguments.split()], check=True, capture_output=True, text=True, timeout=120)
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines["resnet_tf"] == resnet_tf.__version__
    assert lines["python"] == platform.python_version()
    assert lines.keys() >= {"tensorflow", "keras", "numpy", "system", "GPUs"}


def test_setup_reads_the_current_version():
    command = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1] == resnet_tf.__version__


def test_the_citation_has_the_current_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == resnet_tf.__version__
    assert citation["license"] in (ROOT / "setup.py").read_text()


@pytest.mark.slow
@pytest.mark.long  # CI installs and tests the wheel
def test_the_wheel_runs_outside_the_checkout(tmp_path):
    """Unpack the wheel in a new directory, so that neither the checkout nor an installed copy is imported."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {f"resnet_tf/configs/{name}.py" for name in list_configs()} <= names
    data_files = (
        "py.typed",
        "core/imagenet_classes.txt",
        "data/sources/digits.npz",
        "data/sources/digits.LICENSE.txt",
        "report/page.html",
    )
    assert {f"resnet_tf/{file}" for file in data_files} <= names
    assert not [name for name in names if name.startswith(("tests/", "configs/", "benchmarks/"))]

    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "TFDS_DATA_DIR": str(tmp_path / "tfds")}
    del environment["TF_CPP_MIN_LOG_LEVEL"]  # set by conftest; the package itself suppresses native logs
    child = subprocess.run(
        [sys.executable, "-m", "resnet_tf.train", "--config=digits", "--workdir=run", "--set", "train.epochs=1"],
        cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert "899 of 899 validation examples have the same top-1 class" in child.stdout
    assert "WARNING" not in child.stderr
    assert "oneDNN" not in child.stderr
