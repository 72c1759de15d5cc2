"""oneDNN in TensorFlow, on the processors on which TensorFlow leaves it off by default, too."""

import logging
import os
import platform
import subprocess
import sys

import pytest

from resnet_tf.config import RuntimeConfig
from resnet_tf.core import machine, onednn
from resnet_tf.training import runtime

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
AVX2 = {"avx2", "fma"}
SHOWN = "from tensorflow.python.util import _pywrap_util_port; print(int(_pywrap_util_port.IsMklEnabled()))"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is turned on for x86 processors")


def _runs_with_onednn(code: str, **variables: str) -> bool:
    """Return what TensorFlow reports in a new process that runs `code` first."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    child = subprocess.run(
        [sys.executable, "-c", f"{code}; {SHOWN}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return child.stdout.splitlines()[-1] == "1"


@pytest.fixture
def after_tensorflow(monkeypatch):
    """Return a function that does what an import of the package does after that of TensorFlow, on a processor."""
    monkeypatch.setitem(os.environ, VARIABLE, "")  # restored after the test
    monkeypatch.setattr(onednn, "_state", {"advice": ""})

    def turn_on(flags: set[str], variable: str | None = None) -> str:
        monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
        del os.environ[VARIABLE]
        if variable:
            os.environ[VARIABLE] = variable
        onednn.turn_on()
        return onednn.advice()

    return turn_on


def test_turned_on_by_an_import_of_the_package():
    assert _runs_with_onednn("import resnet_tf")


@pytest.mark.slow
def test_the_variable_of_the_user_is_kept():
    assert not _runs_with_onednn("import resnet_tf", **{VARIABLE: "0"})


@pytest.mark.slow
def test_the_flags_are_those_at_which_tensorflow_turns_it_on():
    assert _runs_with_onednn("pass") == bool(machine.cpu_flags() & onednn._FLAGS_OF_DEFAULT)


def test_a_child_of_a_process_that_computes_without_it_does_so_too(after_tensorflow):
    """`prove` compares bits with those of a new process."""
    assert "import resnet_tf before keras and tensorflow" in after_tensorflow(AVX2)
    assert os.environ[VARIABLE] == "0"


@pytest.mark.parametrize(
    ("flags", "variable"), [(AVX2, "1"), (AVX2, "0"), (AVX2 | {"avx512f", "avx512_vnni"}, None), (AVX2, None)]
)
def test_training_advises_to_import_the_package_first(flags, variable, after_tensorflow, caplog):
    is_advised = bool(after_tensorflow(flags, variable))
    assert is_advised == (flags == AVX2 and not variable)
    with caplog.at_level(logging.WARNING):
        runtime.start(RuntimeConfig())
    assert (VARIABLE in caplog.text) == is_advised


def test_other_processors_are_left_alone(after_tensorflow, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert after_tensorflow({"asimd"}) == ""
    assert VARIABLE not in os.environ
