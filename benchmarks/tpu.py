"""Compile training and evaluation steps for TPUs, without a TPU, and list what they take.

    python benchmarks/tpu.py --quick                  # check some steps of every part, in minutes
    python benchmarks/tpu.py check                    # check every recipe, family and setting
    python benchmarks/tpu.py measure                  # add what results/tpu/memory.jsonl lacks, in hours
    python benchmarks/tpu.py measure --chip=v5e:2x2   # for one chip, as a compilation keeps one core busy
    python benchmarks/tpu.py table                    # write the results into docs/accelerators.md

A step is translated to HLO by tensorflow-tpu, which has the kernels of TPUs, and compiled by libtpu for a named chip.
The two are installed in environments of their own, in `--environments` or $RESNET_TF_TPU_ENVIRONMENTS. `check` fails
with exit code 1 if an operation has no kernel, or if a program holds float64, a dynamic dimension or a call of the
host.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import tpu_cases
from tpu_cases import Case
from tpu_environments import Environments
from tpu_search import next_batch, used

from resnet_tf.core.files import append_json_lines, read_json_lines

RESULTS = Path(__file__).parents[1] / "results" / "tpu" / "memory.jsonl"
CACHE = Path(os.environ.get("RESNET_TF_TPU_ENVIRONMENTS", Path.home() / ".cache" / "resnet_tf" / "tpu"))


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="check", choices=("check", "measure", "table"))
    parser.add_argument("--quick", action="store_true", help="few steps: with `check`, one of each part")
    parser.add_argument("--environments", type=Path, default=CACHE, help="directory of the two environments")
    parser.add_argument("--chip", choices=tpu_cases.CHIPS, action="append", help="with `measure`; default: all")
    arguments = parser.parse_args()
    environments = Environments(arguments.environments)
    match arguments.command:
        case "check":
            environments.install()
            check(environments, tpu_cases.QUICK if arguments.quick else tpu_cases.TRANSLATED)
        case "measure":
            environments.install()
            cases = tpu_cases.MEASURED[:1] if arguments.quick else tpu_cases.MEASURED
            measure(environments, cases, arguments.chip or list(tpu_cases.CHIPS))
        case "table":
            from tpu_table import update

            update(Path(__file__).parents[1], check_only=arguments.quick)


def check(environments: Environments, cases: list[Case]) -> None:
    """Translate steps, and compile those of `tpu_cases.COMPILED` among them.

    Raises:
        SystemExit: with the errors of the steps that TPUs refuse.
    """
    with tempfile.TemporaryDirectory() as directory:
        problems = translate(environments, cases, Path(directory))
        for case in cases:
            if case in tpu_cases.COMPILED and not problems[case.name]:
                row = compile_step(environments, case, Path(directory), "v5e:2x2")
                print(f"{case.name}: {describe(row)}")
                problems[case.name] = row.get("error", "")
                if case.chips > 1 and not row.get("all_reduces"):
                    problems[case.name] = "no all-reduce"
    refused = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    print(f"{len(cases) - len(refused)} of {len(cases)} steps are computed by TPUs")
    if refused:
        raise SystemExit("\n".join(refused))


def translate(environments: Environments, cases: list[Case], directory: Path) -> dict[str, str]:
    """Write the HLO of steps; return the problem of each, or an empty text."""
    tpu_cases.dump(cases, directory / "cases.json")
    errors = environments.run("tensorflow", "tpu_write.py", directory / "cases.json", directory)
    problems = json.loads(errors.splitlines()[-1])
    written = [directory / f"{name}.hlo" for name, problem in problems.items() if not problem]
    found = json.loads(environments.run("compiler", "tpu_compile.py", "faults", *written).splitlines()[-1])
    return problems | {Path(path).stem: "; ".join(faults) for path, faults in found.items()}


def compile_step(environments: Environments, case: Case, directory: Path, topology: str) -> dict[str, Any]:
    """Compile a translated step; return what it takes, see `tpu_compile.compile_for`."""
    path = directory / f"{case.name}.hlo"
    return json.loads(environments.run("compiler", "tpu_compile.py", topology, case.chips, path).splitlines()[-1])


def describe(row: dict[str, Any]) -> str:
    """Return a line on what a step takes."""
    if "error" in row:
        return row["error"].splitlines()[0]
    memory = used(row) / 2**30
    return (
        f"{row['chip']}, {row['chips']} of it: {memory:.2f} GiB, {row['flops'] / 1e9:.1f} GFLOP, "
        f"{row['all_reduces']} all-reduce(s), compiled in {row['seconds']:.0f} s"
    )


def measure(environments: Environments, cases: list[Case], topologies: list[str]) -> None:
    """Compile steps until the largest batch of each on the chips is known; add every compilation to the results."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = read_json_lines(RESULTS) if RESULTS.is_file() else []
    for case in cases:
        for topology in topologies:
            own = [row for row in rows if (row["case"], row["topology"]) == (case.name, topology)]
            # Twice the largest batch of the step before on this chip, else of ResNet-50: the search comes from above,
            # because a refusal takes two minutes, and a batch that fits a quarter of an hour.
            before = [row["batch"] for row in rows if row["topology"] == topology and "error" not in row]
            memory = tpu_cases.CHIPS[topology]
            guess = 2 * before[-1] if before else 2 ** int(math.log2(memory / 15e6))
            while batch := next_batch(own, guess):
                row = _compile(environments, case.of_batch(batch), topology)
                own.append(row | {"case": case.name, "batch": batch, "memory": memory})
                rows.append(own[-1])
                append_json_lines(RESULTS, own[-1:])


def _compile(environments: Environments, case: Case, topology: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        if problem := translate(environments, [case], Path(directory))[case.name]:
            raise SystemExit(f"{case.name}: {problem}")
        row = compile_step(environments, case, Path(directory), topology)
    print(f"{case.name} on {topology}: {describe(row)}", file=sys.stderr, flush=True)
    return row | ({"error": row["error"].splitlines()[0][:200]} if "error" in row else {})


if __name__ == "__main__":
    main()
