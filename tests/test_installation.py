"""Installation: a single TensorFlow, requirements for TPUs, and the core tests on tensorflow-tpu."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from packaging.requirements import Requirement

import resnet_tf
from resnet_tf.core.errors import UserError

ROOT = Path(__file__).parents[1]
TPU_REQUIREMENTS = ROOT / "requirements-tpu.txt"

# Tests of the core of the package, without optional libraries and subprocesses. The TPU wheel has no XLA for the host
# CPU ("could not find registered transfer manager for platform Host"), which Keras needs for grouped convolutions, and
# some tests for compiling the training step.
WITHOUT_HOST_XLA = ("-k", "not resnext and not compile")
CORE = (
    *("tests/model/test_layers.py", "tests/model/test_zoo.py", "tests/inputs/test_headers.py"),
    *("tests/inputs/test_images.py", "tests/training/test_step.py", "tests/training/test_checkpoint.py"),
    *("tests/training/test_optimizers.py", "tests/training/test_finetune.py"),
    *("tests/serving/test_fold.py", "tests/serving/test_artifact.py"),
)


@pytest.mark.parametrize("other", ["tensorflow-tpu", "tensorflow-cpu", "tf-nightly"])
def test_two_installed_tensorflows_are_an_error(other, tmp_path, monkeypatch, command):
    """The metadata of pip is enough to find both; importing both would fail with an undefined symbol."""
    information = tmp_path / f"{other.replace('-', '_')}-2.20.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {other}\nVersion: 2.20.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    resnet_tf._check_once.cache_clear()
    message = rf"tensorflow \S+ and {other} 2.20.0 are installed over each other; make a new environment"
    with pytest.raises(UserError, match=message):
        resnet_tf.create_model  # noqa: B018 (looked up on first use)
    outcome = command("train", "--dry-run")
    assert outcome.code == 2
    assert re.fullmatch(rf"error: {message}.*\n", outcome.err)


def test_the_installation_is_checked_once(monkeypatch):
    """Regression: each access to a public name took 14 ms."""
    versions = Mock(side_effect=importlib.metadata.version)
    monkeypatch.setattr(importlib.metadata, "version", versions)
    resnet_tf._check_once.cache_clear()
    first = resnet_tf.create_model
    checked = versions.call_count
    assert checked
    assert resnet_tf.create_model is first
    assert resnet_tf.load_run
    assert versions.call_count == checked


def _requirements(text: str) -> dict[str, str]:
    """Return the version specifiers of each distribution."""
    return dict(re.findall(r"^([\w-]+)((?:[<>=~]=?[\d.]+,?)+)", text, re.MULTILINE))


def test_requirements_for_tpus_agree_with_setup():
    setup = (ROOT / "setup.py").read_text()
    listed = setup[setup.index("install_requires=[") : setup.index("extras_require")]
    own = _requirements("\n".join(re.findall(r'"([\w-]+[<>=~][^"]+)"', listed)))
    tpu = _requirements(TPU_REQUIREMENTS.read_text())
    assert own, "setup.py lists requirements"
    assert {name: tpu.get(name) for name in own} == own
    assert set(tpu) - set(own) == {"tensorflow-tpu", "libtpu"}
    assert "tensorflow-tpu" not in setup, "an extra would install a second TensorFlow"
    (floor,) = re.findall(r'TENSORFLOW = "([\d.]+)"', setup)
    assert tpu["tensorflow-tpu"].startswith(f"=={floor}")


def test_locked_versions_agree_with_setup():
    """Also with its extras: the tests of .ci/run see the locked versions."""
    setup, lock = (ROOT / "setup.py").read_text(), (ROOT / "requirements.lock").read_text()
    blocks = re.findall(r"^([\w-]+)==(\S+).* \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", lock, re.MULTILINE)
    assert len(blocks) == len(re.findall(r"^\w", lock, re.MULTILINE)), "each version has hashes"
    assert "://" not in lock
    locked = {name: version for name, version, _ in blocks}
    listed = setup[setup.index("install_requires=[") : setup.index("extras_require")]
    assert locked.keys() >= set(re.findall(r'^ +f?"([\w-]+)[<>=~]', listed, re.MULTILINE))
    for each in map(Requirement, re.findall(r'"([\w-]+[<>=~][\w.,<>=~]+)"', setup)):
        assert each.name not in locked or each.specifier.contains(locked[each.name]), str(each)


@pytest.mark.slow
@pytest.mark.long
def test_the_core_passes_on_tensorflow_tpu(tmp_path):
    """Install in a new environment as documented, run a forward pass and the core tests; takes minutes."""
    python = tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    environment |= {"TPU_SKIP_MDS_QUERY": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONSAFEPATH": "1"}

    def run(*arguments: str | Path) -> str:
        child = subprocess.run(
            arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert child.returncode == 0, (child.stdout + child.stderr)[-4000:]
        return child.stdout

    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "-r", TPU_REQUIREMENTS)
    run(python, "-m", "pip", "install", "--no-deps", ROOT)
    forward = "import tensorflow as tf, resnet_tf; model = resnet_tf.create_model('resnet18', input_shape=(64, 64, 3));"
    forward += "print(tf.__version__, model(tf.zeros((1, 64, 64, 3))).shape)"
    assert run(python, "-c", forward).splitlines()[-1] == "2.20.0 (1, 1000)"
    run(python, "-m", "pip", "install", "pytest", "pytest-xdist", "pillow", "scikit-learn", "pyyaml")
    print(run(python, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", *WITHOUT_HOST_XLA, *CORE))
