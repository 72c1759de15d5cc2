"""The memory that `train --dry-run` expects, beside what training steps take.

    python benchmarks/memory.py

Each case is a process of its own: its peak after some steps, less what it held with TensorFlow loaded and one
convolution computed. Pictures are random. Prints a Markdown table.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# Network, pixels, batch, and what is different from a plain step.
CASES = (
    ("resnet20", 32, 128, ""),
    ("resnet110", 32, 128, ""),
    ("resnet18", 224, 32, ""),
    ("resnet50", 224, 32, ""),
    ("resnet50", 224, 32, "train.accumulate=4"),
    ("resnet50_v2", 224, 32, ""),
    ("seresnet50", 224, 16, ""),
)
PRECISIONS = ("float32", "mixed_bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=sorted({case[0] for case in CASES}), help="repeatable")
    parser.add_argument("--turn", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        kind, *settings = arguments.turn
        print({"expected": _expected, "taken": _taken}[kind](settings))
        return
    print("| network | precision | expected (MB) | taken (MB) | taken / expected |\n|---|---|---|---|---|")
    for network, size, batch, change in CASES:
        if network not in (arguments.case or network):
            continue
        for precision in PRECISIONS:
            expected, taken = _measure(network, size, batch, change, precision)
            title = f"`{network}`, {batch} of {size} pixels" + (f", {change}" if change else "")
            print(f"| {title} | {precision} | {expected:,} | {taken:,} | {taken / expected:.2f} |", flush=True)


def _measure(network: str, size: int, batch: int, change: str, precision: str) -> tuple[int, int]:
    """Megabytes."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "random.npz"
        pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
        labels = np.arange(batch) % 10
        np.savez(archive, x_train=pixels, y_train=labels, x_test=pixels[:1], y_test=labels[:1])
        settings = [f"data.source={archive}", f"model.name={network}", f"data.image_size={size}"]
        settings += [f"data.batch_size={batch}", f"runtime.precision={precision}", *([change] if change else [])]
        answers = []
        for kind in ("expected", "taken"):
            command = [sys.executable, __file__, "--turn", kind, *settings]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            answers.append(int(output.stdout.splitlines()[-1]))
    return answers[0], answers[1]


def _config(settings: list[str]):
    from resnet_tf.config import Config, override, parse_assignments

    return override(Config(), parse_assignments(settings))


def _expected(settings: list[str]) -> int:
    from resnet_tf.workflows.plan import make_plan

    (megabytes,) = re.findall(r"about ([\d,]+) MB", make_plan(_config(settings))["memory"])
    return int(megabytes.replace(",", ""))


def _taken(settings: list[str]) -> int:
    import tensorflow as tf

    from resnet_tf.training.throughput import measure_training

    tf.nn.conv2d(tf.zeros([1, 8, 8, 3]), tf.zeros([3, 3, 3, 8]), 1, "SAME")
    before = megabytes("VmRSS")
    measure_training(_config(settings), seconds=1)
    return round(megabytes("VmHWM") - before)


def megabytes(name: str) -> float:
    """What Linux says of this process's memory: VmRSS is what it holds, VmHWM the most that it held."""
    (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


if __name__ == "__main__":
    main()
