"""Run what the tables of results stand on, one run after another, and keep each one's figures under results/NAME.

    python benchmarks/results/run.py --root=DIR                 all that have no figures yet
    python benchmarks/results/run.py --root=DIR NAME ...        these, in this order

DIR holds `cifar/`, CIFAR-10 as train/CLASS/*.jpg and test/CLASS/*.jpg, and what is made of it once,

    python -m resnet_tf.prepare --from=cifar --to=data/cifar10

`data/fashion-mnist`, the four IDX files, and `data/resnet20-12fca82f.th` of akamaster/pytorch_resnet_cifar10. The
commands start in DIR; runs go to DIR/out/NAME and what they print to DIR/log/NAME.log. A run that was stopped
continues, except PyTorch's, which starts anew.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from plan import PYTORCH, Run, all_runs

from resnet_tf.core import machine

RESULTS = Path(__file__).parents[2] / "results"
PROJECT = RESULTS.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument(
        "--torch-python", default=sys.executable, help="an interpreter that has PyTorch and torchvision"
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    runs = {run.name: run for run in all_runs()}
    if unknown := set(arguments.names) - set(runs):
        parser.error(f"no run {', '.join(sorted(unknown))}; there are {', '.join(runs)}")
    for name in arguments.names or runs:
        if not (RESULTS / name / "metrics.jsonl").exists():
            _run(runs[name], arguments.root.absolute(), arguments.torch_python)


def _run(run: Run, root: Path, torch_python: str) -> None:
    workdir = root / "out" / run.name
    workdir.mkdir(parents=True, exist_ok=True)
    (root / "log").mkdir(exist_ok=True)
    with (root / "log" / f"{run.name}.log").open("a") as log:

        def call(*command: str) -> str:
            """What it prints to stdout, which the log gets as well."""
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
            done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            log.write(done.stdout)
            if done.returncode:
                raise SystemExit(f"{run.name} ended with {done.returncode}; see {log.name}")
            return done.stdout

        if run.hub_of and not (root / "out" / run.hub_of / "export" / "hub").exists():
            call(sys.executable, "-m", "resnet_tf.export", f"--workdir=out/{run.hub_of}", "--target=hub")
        if run.config == PYTORCH:
            program = str(PROJECT / "benchmarks" / f"{PYTORCH}.py")
            call(torch_python, program, *run.changes, f"--out={workdir}")
        else:
            command = (sys.executable, "-m", "resnet_tf.train", f"--config={run.config}", f"--workdir={workdir}")
            call(*command, *(f"--set={change}" for change in run.changes))
        tested = None
        if run.tested:
            evaluate = (sys.executable, "-m", "resnet_tf.evaluate", f"--workdir={workdir}", "--json", *run.tested)
            tested = json.loads(call(*evaluate).splitlines()[-1])
    _keep(run, workdir, tested, _torch_version(torch_python) if run.config == PYTORCH else _tensorflow_version())


def _keep(run: Run, workdir: Path, tested: dict[str, float] | None, framework: str) -> None:
    """The figures, what was run, and where: small files, metrics.jsonl last."""
    target = RESULTS / run.name
    target.mkdir(exist_ok=True)
    where = {
        "processor": machine.processor(),
        "cores": machine.cores(),
        "python": platform.python_version(),
        "framework": framework,
    }
    (target / "environment.json").write_text(json.dumps(where, indent=2) + "\n")
    if tested:
        (target / "evaluation.json").write_text(json.dumps(tested, indent=2) + "\n")
    for name in ("metrics.jsonl",) if run.config == PYTORCH else ("config.json", "metrics.jsonl"):
        shutil.copy(workdir / name, target / name)


def _tensorflow_version() -> str:
    return f"TensorFlow {version('tensorflow')}, Keras {version('keras')}"


def _torch_version(python: str) -> str:
    command = (python, "-c", "import torch; print('PyTorch', torch.__version__)")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
