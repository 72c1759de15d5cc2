"""Check the training step of this package on a GPU against a reference, and time it against PyTorch.

    pip install '.[bench]' && python benchmarks/gpu.py write steps/
    python benchmarks/gpu.py run steps/ --json > results/gpu/NAME.jsonl
    python benchmarks/gpu.py table

`write` needs no GPU. For each case, it writes the step as HLO for GPU (forward, backward, BatchNorm statistics, SGD
with momentum and weight decay), and the loss and gradients that PyTorch computes on the CPU for the same weights and
images. `run` needs JAX and PyTorch, and neither TensorFlow, Keras nor this package. It compiles the HLO with the XLA
inside JAX, compares the results with the reference, and times the bfloat16 steps against PyTorch (channels_last,
bfloat16 autocast), interleaved in one process; the exit code is 1 if a difference exceeds the case's tolerance. `table`
writes the results into docs/accelerators.md.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from gpu_cases import CASES

PEERS = ("eager", "torch.compile", "reduce-overhead")

HERE = Path(__file__).parent


def main() -> None:
    arguments = _parser().parse_args()
    commands = {"write": _write, "run": _run, "table": _table}
    commands[arguments.command](arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write HLO and reference values; needs TensorFlow and PyTorch, no GPU")
    run = commands.add_parser("run", help="check and time the steps; needs JAX and PyTorch, no TensorFlow")
    for command in (write, run):
        command.add_argument("directory", type=Path)
        command.add_argument("--case", action="append", choices=CASES, help="repeatable; all by default")
    run.add_argument("--peer", action="append", choices=PEERS, help="PyTorch modes to time; repeatable, all by default")
    run.add_argument("--rounds", type=int, default=5)
    run.add_argument("--seconds", type=float, default=1.5, help="seconds per program and round")
    run.add_argument("--check-only", action="store_true", help="compare with the reference, without timing")
    run.add_argument("--json", action="store_true")
    table = commands.add_parser("table", help="rewrite the table of docs/accelerators.md from results/gpu/*.jsonl")
    table.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is out of date")
    return parser


def _write(arguments: argparse.Namespace) -> None:
    from gpu_write import write

    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name in arguments.case or CASES:
        write(CASES[name], arguments.directory)


def _run(arguments: argparse.Namespace) -> None:
    # By default, JAX reserves most of the GPU memory, which PyTorch needs in the same process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from gpu_run import check, load, report, time_against

    checks = {}
    for name in arguments.case or CASES:
        step = load(CASES[name], arguments.directory)
        checks[name] = check(step)
        if arguments.check_only or not step.case.timed:
            continue
        rates = time_against(step, arguments.peer or PEERS, arguments.rounds, arguments.seconds)
        for row in report(step, checks, rates):
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                print(
                    f"{row['case']}: {row['images_per_second']:,.0f} images/s, "
                    f"{row['ratio']:.2f} times {row['ratio_to']}",
                    flush=True,
                )
    if failed := [name for name, compared in checks.items() if not compared["passed"]]:
        sys.exit(f"differs from the reference by more than the tolerance: {', '.join(failed)}")


def _table(arguments: argparse.Namespace) -> None:
    from gpu_table import update

    update(HERE.parent, check_only=arguments.check)


if __name__ == "__main__":
    main()
