"""Run the default command with several seeds: accuracy, standard deviation, wall time and peak memory.

    python benchmarks/digits_seeds.py --seeds=5

Each seed is one run of `python -m resnet_tf.train`: training, evaluation, report, export, and verification of the
export in another process. Prints the Markdown table of docs/benchmarks.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

EXAMPLES = 899  # of the validation split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to SEEDS - 1")
    seeds = range(parser.parse_args().seeds)
    print(f"| seed | accuracy | correct of {EXAMPLES} | wall time (s) | peak memory (MB) |")
    print("|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            rows.append(_run(seed, Path(scratch) / str(seed)))
            accuracy, seconds, megabytes = rows[-1]
            correct = round(accuracy * EXAMPLES)
            print(f"| {seed} | {accuracy:.4f} | {correct} | {seconds:.0f} | {megabytes:.0f} |", flush=True)
    accuracies, times, memory = zip(*rows, strict=True)
    spread = f" ± {stdev(accuracies):.4f}" if len(rows) > 1 else ""
    print(f"| mean | **{mean(accuracies):.4f}**{spread} | | {mean(times):.0f} | {max(memory):.0f} (largest) |")


def _run(seed: int, workdir: Path) -> tuple[float, float, float]:
    """Return the accuracy in [0, 1], the wall time in seconds and the peak memory in MB of one run.

    The memory is the resident set size of the largest process, as the kernel reports it to wait4.
    """
    command = [sys.executable, "-m", "resnet_tf.train", "--set", f"runtime.seed={seed}", f"--workdir={workdir}"]
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise SystemExit(f"seed {seed} failed: {' '.join(command)}")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["val_top1"], seconds, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
