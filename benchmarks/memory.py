"""Compare the memory estimate of `train --dry-run` with the memory that training steps use.

    python benchmarks/memory.py

Each case runs in its own process. Its memory is the peak after some steps, minus the memory after importing TensorFlow
and computing one convolution. Images are random. Prints a Markdown table.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# Network, image size, batch size, and one setting that differs from the defaults.
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
        quantity, *settings = arguments.turn
        print({"estimated": _estimated, "measured": _measured}[quantity](settings))
        return
    print("| network | precision | estimated (MB) | measured (MB) | measured / estimated |\n|---|---|---|---|---|")
    for network, size, batch, setting in CASES:
        if network not in (arguments.case or network):
            continue
        for precision in PRECISIONS:
            estimated, measured = _measure(network, size, batch, setting, precision)
            title = f"`{network}`, batch {batch}, {size} pixels" + (f", {setting}" if setting else "")
            print(f"| {title} | {precision} | {estimated:,} | {measured:,} | {measured / estimated:.2f} |", flush=True)


def _measure(network: str, size: int, batch: int, setting: str, precision: str) -> tuple[int, int]:
    """Return the estimated and the measured memory, in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "random.npz"
        pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
        labels = np.arange(batch) % 10
        np.savez(archive, x_train=pixels, y_train=labels, x_test=pixels[:1], y_test=labels[:1])
        settings = [f"data.source={archive}", f"model.name={network}", f"data.image_size={size}"]
        settings += [f"data.batch_size={batch}", f"runtime.precision={precision}", *([setting] if setting else [])]
        results = []
        for quantity in ("estimated", "measured"):
            command = [sys.executable, __file__, "--turn", quantity, *settings]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            results.append(int(output.stdout.splitlines()[-1]))
    return results[0], results[1]


def _config(settings: list[str]):
    from resnet_tf.config import Config, override, parse_assignments

    return override(Config(), parse_assignments(settings))


def _estimated(settings: list[str]) -> int:
    from resnet_tf.workflows.plan import plan

    (megabytes,) = re.findall(r"about ([\d,]+) MB", plan(_config(settings)).facts["memory"])
    return int(megabytes.replace(",", ""))


def _measured(settings: list[str]) -> int:
    import tensorflow as tf

    from resnet_tf.training.throughput import measure_training

    tf.nn.conv2d(tf.zeros([1, 8, 8, 3]), tf.zeros([3, 3, 3, 8]), 1, "SAME")
    before = megabytes("VmRSS")
    measure_training(_config(settings), seconds=1)
    return round(megabytes("VmHWM") - before)


def megabytes(name: str) -> float:
    """Return memory of this process from Linux, in MB: VmRSS is the current resident set size, VmHWM its peak."""
    (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


if __name__ == "__main__":
    main()
