"""benchmarks/tpu.py: steps are translated and compiled for TPUs, without a TPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_tf.config import list_configs

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import tpu  # noqa: E402
import tpu_cases  # noqa: E402
import tpu_search  # noqa: E402
import tpu_table  # noqa: E402
from tpu_environments import Environments  # noqa: E402

SEARCH = {"case": tpu_cases.MEASURED[0].name, "topology": next(iter(tpu_cases.CHIPS))}


def test_every_recipe_is_translated():
    assert {case.recipe for case in tpu_cases.RECIPES} == set(list_configs())


def test_names_of_cases_differ():
    cases = [*tpu_cases.TRANSLATED, *tpu_cases.QUICK]
    assert len({case.name for case in cases}) == len(set(cases))


def test_cases_are_read_as_they_were_written(tmp_path):
    tpu_cases.dump(tpu_cases.TRANSLATED, tmp_path / "cases.json")
    assert tpu_cases.Case.load(tmp_path / "cases.json") == tpu_cases.TRANSLATED


@pytest.mark.parametrize("guess", [1, 64, 512, 8192])
@pytest.mark.parametrize("most", [1, 63, 64, 500, 512, 1500])
def test_the_largest_batch_fits_and_twice_as_many_images_do_not(most, guess):
    rows = []
    while batch := tpu_search.next_batch(rows, guess):
        assert batch not in {row["batch"] for row in rows}
        rows.append(SEARCH | {"batch": batch} | ({} if batch <= most else {"error": "too large"}))
    best = tpu_search.largest(rows)["batch"]
    assert best <= most < 2 * best
    assert tpu_table.found(rows)[0]["batch"] == best
    assert not tpu_table.found(rows[:1])  # an incomplete search


def test_a_step_of_which_no_image_fits_has_no_row():
    rows = [SEARCH | {"batch": batch, "error": "too large"} for batch in (2, 1)]
    assert tpu_search.next_batch(rows, 2) is None
    assert not tpu_table.found(rows)


@pytest.fixture(scope="module")
def environments() -> Environments:
    """Environments of benchmarks/tpu.py; the tests are skipped where the packages cannot be installed."""
    found = Environments(tpu.CACHE)
    try:
        found.install()
    except SystemExit as error:
        pytest.skip(str(error))
    return found


@pytest.mark.slow
def test_some_steps_of_each_part_are_computed_by_tpus(environments):
    tpu.check(environments, tpu_cases.QUICK)


@pytest.mark.slow
@pytest.mark.long
def test_every_step_is_computed_by_tpus(environments):
    tpu.check(environments, tpu_cases.TRANSLATED)


def test_the_model_of_a_slice():
    """ResNet-50 with 25 million weights on a chip that takes 100 ms to compute 128 images."""
    row = {"case": tpu_table.SCALED, "chip": "TPU v5 lite", "batch": 128, "weights": 25_000_000}
    row |= {"flops": 19.7e12, "bytes_accessed": 1e9}
    *_, one, four, eight, _, most = tpu_table.render_scaling([row]).splitlines()
    assert one == "| v5e | 1 | 128 | 100.0 | 0 | 0.00 | 100.0 % | 1,280 | 1,280 |"
    assert four.startswith("| v5e | 4 | 512 | 100.0 | 150 | 0.75 | 99.3 % |")
    assert [float(cell) for cell in eight.split("|")[5:7]] == [175, 0.88]
    assert float(most.split("|")[6]) == pytest.approx(1000 * 2 * 255 / 256 * 1e8 / 200e9, abs=0.01)


# Programs of JAX for its CPU, as HLO, each with a part that TPUs do not compute or emulate.
FAULTY = """
import sys, jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
def callback(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
functions = {"float64": lambda x: x.astype(jnp.float64) + 1, "callback": callback, "sound": lambda x: x + 1}
for name, function in functions.items():
    hlo = jax.jit(function).lower(np.ones(4, np.float32)).compiler_ir("hlo")
    open(f"{sys.argv[1]}/{name}.hlo", "wb").write(hlo.as_serialized_hlo_module_proto())
"""


@pytest.mark.slow
def test_parts_that_tpus_do_not_compute_are_found(environments, tmp_path):
    python = environments._python("compiler")
    subprocess.run([python, "-c", FAULTY, tmp_path], check=True, capture_output=True, timeout=120)
    paths = [tmp_path / f"{name}.hlo" for name in ("float64", "callback", "sound")]
    found = json.loads(environments.run("compiler", "tpu_compile.py", "faults", *paths, timeout=120).splitlines()[-1])
    assert {Path(path).stem: len(faults) for path, faults in found.items()} == {
        "float64": 1,
        "callback": 1,
        "sound": 0,
    }


def test_the_tables_are_up_to_date():
    tpu_table.update(ROOT, check_only=True)
