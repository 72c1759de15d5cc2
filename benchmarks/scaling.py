"""Measure what a step of several workers on this machine costs in addition to the same step in one process.

    python benchmarks/scaling.py measure            # add a round to results/scaling/workers.jsonl, in minutes
    python benchmarks/scaling.py table              # write the results into docs/accelerators.md

Each round trains the same network on the same batches of random images in one process and with 1, 2 and 4 workers, one
after the other. All workers use the same cores, so that the time that they lose is that of the exchange of
gradients and of waiting for one another. The first epoch, which compiles, does not count.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gpu_table import rewrite

from resnet_tf.core import machine
from resnet_tf.core.files import append_json_lines, read_json_lines

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "scaling" / "workers.jsonl"
WORKERS = (0, 1, 2, 4)  # 0 is a process without a cluster
MODEL, BATCH, STEPS, EPOCHS = "resnet20", 128, 20, 3
SECONDS = 600  # of a run


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("measure", "table"))
    parser.add_argument("--check", action="store_true", help="with `table`: write nothing, fail if the page is old")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        append_json_lines(RESULTS, measure())
    else:
        table = render(read_json_lines(RESULTS))
        command = "python benchmarks/scaling.py table"
        rewrite(ROOT, {"scaling": table}, command=command, check_only=arguments.check)


def measure(model: str = MODEL, batch: int = BATCH, steps: int = STEPS) -> list[dict[str, Any]]:
    """Return a row for each number of workers."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "random.npz"
        write_images(data, batch * steps)
        facts = {"model": model, "batch": batch} | machine.describe()
        return [
            {"workers": count, "seconds": train(count, data, Path(directory) / str(count), model, batch)} | facts
            for count in WORKERS
        ]


def write_images(path: Path, count: int) -> None:
    """Write random images of CIFAR's size, with ten classes."""
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10
    np.savez(path, x_train=images, y_train=labels, x_test=images[:100], y_test=labels[:100])


def train(workers: int, data: Path, workdir: Path, model: str, batch: int) -> float:
    """Return the median time of a step in the epochs after the first one, in seconds."""
    program = [str(ROOT / "examples" / "workers.py"), str(workers)] if workers else ["-m", "resnet_tf.train"]
    settings = {"data.source": data, "model.name": model, "data.batch_size": batch, "train.epochs": EPOCHS}
    settings |= {"optimizer.decay_epochs": "", "export.verify_examples": 16}
    command = [sys.executable, *program, "--config=cifar10_resnet20", f"--workdir={workdir}"]
    command += [f"--set={key}={value}" for key, value in settings.items()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, timeout=SECONDS, capture_output=True)
    lines = read_json_lines(workdir / "metrics.jsonl")[1:]
    return statistics.median(batch / line["images_per_second"] for line in lines)


def render(rows: list[dict[str, Any]]) -> str:
    """Return the table of the time of a step, followed by a line on the machine."""
    lines = ["| workers | images of each | ms a step | images/s | more than one process, ms a step |", "|" + "---|" * 5]
    rounds = {count: [1000 * row["seconds"] for row in rows if row["workers"] == count] for count in WORKERS}
    for count, times in rounds.items():
        batch, median = rows[0]["batch"], statistics.median(times)
        more = [time - alone for time, alone in zip(times, rounds[0], strict=True)]
        cells = (
            str(count) if count else "one process, no cluster",
            f"{batch // max(count, 1)}",
            f"{median:.0f} ({min(times):.0f} to {max(times):.0f})",
            f"{1000 * batch / median:,.0f}",
            f"{statistics.median(more):.0f} ({min(more):.0f} to {max(more):.0f})" if count else "",
        )
        lines.append("| " + " | ".join(cells) + " |")
    first = rows[0]
    where = f"{first['model']}, batch {first['batch']}, on {first['cores']} cores of {first['processor']}"
    return "\n".join(lines) + f"\n\n{where}; medians of {len(rounds[0])} rounds (least to most).\n"


if __name__ == "__main__":
    main()
