"""Train the runs of the tables of results, one after another, and store their metrics in results/NAME.

    python benchmarks/results/run.py --root=DIR                 all runs without metrics
    python benchmarks/results/run.py --root=DIR NAME ...        the named runs, in this order

DIR contains:

- `cifar/`: CIFAR-10 as train/CLASS/*.jpg and test/CLASS/*.jpg;
- `data/cifar10/`: its records, made by `python -m resnet_tf.prepare --from=cifar --to=data/cifar10`;
- `data/fashion-mnist/`: the four IDX files of Fashion-MNIST;
- `data/resnet20-12fca82f.th`: weights of akamaster/pytorch_resnet_cifar10.

The commands run in DIR. Run directories are DIR/out/NAME, logs are DIR/log/NAME.log. An interrupted run is resumed; an
interrupted run of PyTorch starts again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from plan import PYTORCH, Run, all_runs

from resnet_tf.core import machine
from resnet_tf.core.files import write_atomically

RESULTS = Path(__file__).parents[2] / "results"
PROJECT = RESULTS.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="directory of data, run directories and logs")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="Python interpreter with PyTorch and torchvision"
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    runs = {run.name: run for run in all_runs()}
    if unknown := set(arguments.names) - set(runs):
        parser.error(f"unknown runs: {', '.join(sorted(unknown))}; the runs are {', '.join(runs)}")
    for name in arguments.names or runs:
        if not (RESULTS / name / "metrics.jsonl").exists():
            _run(runs[name], arguments.root.absolute(), arguments.torch_python)


def _run(run: Run, root: Path, torch_python: str) -> None:
    workdir = root / "out" / run.name
    workdir.mkdir(parents=True, exist_ok=True)
    (root / "log").mkdir(exist_ok=True)
    with (root / "log" / f"{run.name}.log").open("a") as log:

        def call(*command: str) -> str:
            """Run a command, append its output to the log, and return its stdout."""
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
            done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            log.write(done.stdout)
            if done.returncode:
                raise SystemExit(f"{run.name} ended with exit code {done.returncode}; see {log.name}")
            return done.stdout

        if run.hub_of and not (root / "out" / run.hub_of / "export" / "hub").exists():
            call(sys.executable, "-m", "resnet_tf.export", f"--workdir=out/{run.hub_of}", "--target=hub")
        if run.config == PYTORCH:
            program = str(PROJECT / "benchmarks" / f"{PYTORCH}.py")
            call(torch_python, program, *run.overrides, f"--out={workdir}")
        else:
            command = (sys.executable, "-m", "resnet_tf.train", f"--config={run.config}", f"--workdir={workdir}")
            call(*command, *(f"--set={each}" for each in run.overrides))
        evaluation = None
        if run.evaluate:
            evaluate = (sys.executable, "-m", "resnet_tf.evaluate", f"--workdir={workdir}", "--json", *run.evaluate)
            evaluation = json.loads(call(*evaluate).splitlines()[-1])
    _keep(
        run, root, workdir, evaluation, _torch_version(torch_python) if run.config == PYTORCH else _tensorflow_version()
    )


def _keep(run: Run, root: Path, workdir: Path, evaluation: dict[str, float] | None, framework: str) -> None:
    """Store metrics, configuration and environment; metrics.jsonl, which marks a finished run, is written last."""
    target = RESULTS / run.name
    environment = {
        "processor": machine.processor(),
        "cores": machine.cores(),
        "python": platform.python_version(),
        "framework": framework,
    }
    write_atomically(target / "environment.json", json.dumps(environment, indent=2) + "\n")
    if evaluation:
        write_atomically(target / "evaluation.json", json.dumps(evaluation, indent=2) + "\n")
    if run.config != PYTORCH:
        # A run stores the absolute path of its data; the commands of the tables run in the root.
        config = (workdir / "config.json").read_text().replace(f'"{root}/', '"')
        write_atomically(target / "config.json", config)
    write_atomically(target / "metrics.jsonl", (workdir / "metrics.jsonl").read_bytes())


def _tensorflow_version() -> str:
    return f"TensorFlow {version('tensorflow')}, Keras {version('keras')}"


def _torch_version(python: str) -> str:
    command = (python, "-c", "import torch; print('PyTorch', torch.__version__)")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
