"""benchmarks/gpu.py: the HLO runs with JAX, without TensorFlow, and its results agree with those of PyTorch."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import import_torch_zoo

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import gpu_cases  # noqa: E402
import gpu_table  # noqa: E402

CASE = dataclasses.replace(gpu_cases.CASES["resnet18_float32"], batch=8)
VARIABLES = (
    gpu_cases.Variable("conv/kernel", "weight", (3, 3, 4, 4)),
    gpu_cases.Variable("bn/gamma", "weight", (4,)),
    gpu_cases.Variable("bn/moving_mean", "statistic", (4,)),
)
# Program that runs benchmarks/gpu.py with a smaller case, without TensorFlow, Keras and this package.
WITHOUT_TENSORFLOW = f"""
import dataclasses, runpy, sys
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "resnet_tf")))
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import gpu_cases
gpu_cases.CASES[{CASE.name!r}] = dataclasses.replace(gpu_cases.CASES[{CASE.name!r}], batch={CASE.batch})
runpy.run_path({str(ROOT / "benchmarks" / "gpu.py")!r}, run_name="__main__")
"""


def test_the_tables_are_up_to_date():
    gpu_table.update(ROOT, check_only=True)


def test_a_row_of_each_table():
    difference = {"absolute": 1.0, "relative": 0.002, "median": 0.0003}
    row = {
        "case": "resnet50 224 pixels batch 128 bfloat16 ours",
        "ratio_to": "resnet50 224 pixels batch 128 bfloat16 PyTorch eager",
        "images_per_second": 1234.5,
        "peer_images_per_second": 1000.0,
        "ratio": 1.2345,
        "least": 1.2,
        "most": 1.3,
        "device": "GPU name",
        "versions": {"jax": "1.2", "torch": "3.4"},
        "checks": {
            "resnet18_float32": {"differences": dict.fromkeys(("losses", *gpu_cases.QUANTITIES), difference)},
        },
    }
    *_, line, _, versions = gpu_table.speed([row, row]).splitlines()
    assert versions == "Versions: jax 1.2, torch 3.4."
    assert line == (
        "| GPU name | resnet50, 224 pixels, batch 128 | 1,234 | PyTorch, eager | 1,000 | **1.23** (1.20 to 1.30) |"
    )
    cells = gpu_table.check([row, row]).splitlines()[2:]
    assert len(cells) == 1
    assert cells[0].startswith("| GPU name | resnet18, 32 pixels, batch 16, 3 step(s) | float32 | 2.0e-03 of 1e-05, ")


@pytest.fixture
def expected() -> dict[str, np.ndarray]:
    first, second, third = gpu_cases.initial_values(VARIABLES)
    tensors = [first, second]
    return gpu_cases.Results(np.array([2.0]), tensors, tensors, tensors, [third]).sampled()


@pytest.mark.parametrize("quantity", gpu_cases.QUANTITIES)
def test_a_wrong_tensor_is_found(expected, quantity):
    found = expected | {quantity: expected[quantity].copy()}
    found[quantity][-4:] *= 1.5  # the last tensor
    differences = gpu_cases.differences(found, expected, VARIABLES)
    assert differences[quantity]["relative"] == pytest.approx(0.5)
    others = [each for name, each in differences.items() if name != quantity]
    assert all(each == {"absolute": 0, "relative": 0, "median": 0} for each in others)


def test_nonfinite_values_differ(expected):
    found = expected | {"gradients": np.full_like(expected["gradients"], np.nan)}
    assert gpu_cases.differences(found, expected, VARIABLES)["gradients"]["relative"] == np.inf


def test_a_missing_case_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"resnet18_float32.json does not exist; write it with"):
        gpu_cases.load_variables(CASE, tmp_path)


@pytest.fixture(scope="module")
def gpu_write():
    import_torch_zoo("torchvision")
    import gpu_write

    return gpu_write


@pytest.fixture(scope="module")
def written(gpu_write, tmp_path_factory) -> Path:
    """Return a directory with the files of a float32 case. Tests must not write to it."""
    directory = tmp_path_factory.mktemp("steps")
    gpu_write.write(CASE, directory)
    return directory


@pytest.mark.slow
def test_the_step_agrees_with_the_optimizer(gpu_write):
    """The pure function and the optimizer, which assigns to its variables, compute equal updates."""
    step, images_and_labels = gpu_write.TrainingStep(CASE), gpu_cases.batch(CASE)
    values = gpu_cases.initial_values(step.variables)
    *found, loss = tf.function(step)(*map(tf.constant, (*values, *images_and_labels)))

    fresh = gpu_write.TrainingStep(CASE)
    for name in ("_get_variable_index", "assign", "assign_add", "assign_sub"):
        delattr(fresh.optimizer, name)
    model, optimizer = fresh.model, fresh.optimizer
    optimizer.learning_rate = gpu_cases.LEARNING_RATE
    variables = [*model.trainable_variables, *optimizer.momentums, *model.non_trainable_variables]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    images, labels = images_and_labels
    with tf.GradientTape() as tape:
        expected = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True), True)
        )
    optimizer.apply(tape.gradient(expected, [each.value for each in model.trainable_variables]))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for description, after, variable in zip(step.variables, found, variables, strict=True):
        np.testing.assert_allclose(after, variable, rtol=1e-4, atol=1e-7, err_msg=description.name)


@pytest.mark.slow
def test_tensorflow_agrees_with_pytorch(gpu_write, written):
    step = gpu_write.TrainingStep(CASE)
    expected = gpu_cases.load_expected(CASE, written)
    differences = gpu_cases.differences(step.on_cpu().sampled(), expected, step.variables)
    for quantity, (largest, median) in gpu_cases.TOLERANCES["float32"].items():
        assert differences[quantity]["relative"] <= largest, quantity
        assert differences[quantity]["median"] <= median, quantity


@pytest.mark.slow
def test_jax_agrees_with_pytorch_without_tensorflow(written, tmp_path):
    pytest.importorskip("jax", reason="needs JAX to run the HLO")
    done = _run(written)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("passed") == 1 + len(gpu_cases.QUANTITIES)

    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    expected = gpu_cases.load_expected(CASE, tmp_path)
    expected["gradients"] = expected["gradients"] * 1.01
    np.savez(tmp_path / f"{CASE.name}.npz", **expected)
    done = _run(tmp_path)
    assert done.returncode == 1
    assert "gradients" in [line.split(", ")[1].split(":")[0] for line in done.stderr.splitlines() if "FAILED" in line]
    assert done.stderr.splitlines()[-1] == f"differs from the reference by more than the tolerance: {CASE.name}"


def _run(directory: Path) -> subprocess.CompletedProcess:
    arguments = ["run", str(directory), "--case", CASE.name, "--check-only"]
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.long
def test_steps_are_timed_against_pytorch(gpu_write, tmp_path):
    pytest.importorskip("jax", reason="needs JAX to run the HLO")
    import gpu_run

    case = dataclasses.replace(gpu_cases.CASES["resnet18_bfloat16"], batch=2)
    gpu_write.write(case, tmp_path)
    step = gpu_run.load(case, tmp_path)
    rates = gpu_run.time_against(step, ["eager"], rounds=2, seconds=0.1)
    assert {name: len(values) for name, values in rates.items()} == {"ours": 2, "PyTorch eager": 2}
    (row,) = gpu_run.report(step, {case.name: gpu_run.check(step)}, rates)
    assert row["case"] == "resnet18 32 pixels batch 2 bfloat16 ours"
    assert row["ratio_to"] == "resnet18 32 pixels batch 2 bfloat16 PyTorch eager"
    assert row["ratio"] == pytest.approx(np.median(np.divide(rates["ours"], rates["PyTorch eager"])))
    assert row["images_per_second"] == pytest.approx(np.median(rates["ours"]))
    assert json.loads(json.dumps(row)) == row
    assert row["checks"][case.name]["passed"]
