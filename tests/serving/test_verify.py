"""The process that verifies an export: its device, its failures, and its end with the caller."""

import io
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import verify as verify_export

from resnet_tf.config import override
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.serving import verify
from resnet_tf.serving.predictor import Predictor

PROGRAM = """
import json, os
input()
difference = 5e-4 if os.environ["CUDA_VISIBLE_DEVICES"] == "-1" else 1.0
print(json.dumps({"examples": 1, "same_top1": 1, "largest_difference": difference}))
"""


def test_the_process_that_verifies_sees_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(verify, "_PROGRAM", ("-c", PROGRAM))
    assert verify_export(tmp_path, np.zeros((1, 2)), batch_size=1, device="GPU").largest_difference == 5e-4
    with pytest.raises(UserError, match="differ from those of the model"):
        verify_export(tmp_path, np.zeros((1, 2)), batch_size=1)


def test_the_process_that_verifies_registers_the_input_type(monkeypatch, tmp_path):
    program = "import json, sys; input(); print(json.dumps({'error': sys.argv[1]}))"
    monkeypatch.setattr(verify, "_PROGRAM", ("-c", program))
    with pytest.raises(UserError, match=r"failed: resnet_tf\.inputs\.images$"):
        verify_export(tmp_path, np.zeros((1, 2)), batch_size=1)


@pytest.mark.parametrize("program", ["raise SystemExit('no export')", "input(); raise SystemExit('no export')"])
def test_a_process_that_fails_to_verify_is_reported(program, monkeypatch, tmp_path):
    """Before or after it has read what to verify."""
    monkeypatch.setattr(verify, "_PROGRAM", ("-c", program))
    with verify.Verifier(ImagePreprocess) as verifier:
        if "input" not in program:
            verifier._child.wait(timeout=60)
        verifier.begin(tmp_path, np.zeros((1, 2)), batch_size=1)
        with pytest.raises(UserError, match=r"verification of '.*' failed: no export$"):
            verifier.result()


def test_a_mistake_that_the_process_names_is_one_line(monkeypatch, tmp_path, capsys):
    missing = tmp_path / "missing"
    np.save(tmp_path / "logits.npy", np.zeros((1, 2)))
    request = json.dumps([str(missing), str(tmp_path / "logits.npy"), 1, {}])
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{request}\n"))
    verify._compare_requested()
    answer = capsys.readouterr().out.strip()
    assert json.loads(answer) == {"error": f"no exported model at {str(missing)!r}"}
    monkeypatch.setattr(verify, "_PROGRAM", ("-c", f"input(); print({answer!r})"))
    with pytest.raises(UserError, match=r"^verification of '.*' failed: no exported model at '.*missing'$"):
        verify_export(missing, np.zeros((1, 2)), batch_size=1)


def test_data_that_moved_since_the_export_are_read_where_they_are_now(
    tiny_config, tiny_export, tmp_path, monkeypatch, capsys
):
    moved = shutil.copy(tiny_config.data.source, tmp_path / "moved.npz")
    predictor = Predictor(tiny_export)
    logits = predictor.evaluate(open_source(predictor.config.data).validation, count=8).logits
    monkeypatch.setattr(verify, "_PROGRAM", ("-c", "print(input())"))
    with verify.Verifier(ImagePreprocess) as verifier:
        data = override(tiny_config, {"data.source": str(moved)}).data
        verifier.begin(tiny_export, logits, batch_size=8, data=data)
        request, _ = verifier._child.communicate(timeout=60)
        monkeypatch.setattr("sys.stdin", io.StringIO(request))
        opened = []
        monkeypatch.setattr(verify, "open_source", lambda data, **options: opened.append(data) or open_source(data))
        verify._compare_requested()
    assert [each.source for each in opened] == [str(moved)]
    assert json.loads(capsys.readouterr().out)["same_top1"] == 8


@pytest.mark.parametrize(
    ("program", "reason"), [("1 / 0", "ZeroDivisionError: .*"), ("import os; os._exit(3)", "its process .* code 3")]
)
def test_a_defect_of_the_process_is_one_line(program, reason, monkeypatch, tmp_path):
    monkeypatch.setattr(verify, "_PROGRAM", ("-c", program))
    with pytest.raises(UserError, match=rf"^verification of '.*' failed: {reason}$"):
        verify_export(tmp_path, np.zeros((1, 2)), batch_size=1)


def test_an_error_of_the_caller_ends_the_process_that_verifies(monkeypatch):
    monkeypatch.setattr(verify, "_PROGRAM", ("-c", "input()"))
    with pytest.raises(ZeroDivisionError), verify.Verifier(ImagePreprocess) as verifier:
        raise ZeroDivisionError
    assert verifier._child.returncode == -signal.SIGKILL
    assert not Path(verifier._scratch.name).exists()
