"""The default job over several seeds: accuracy, spread, wall time and peak memory, as the README states them.

    python benchmarks/digits_seeds.py --seeds=5

Each seed is a whole `python -m resnet_tf.train` in a process of its own: import, training, testing, picture, export,
check of the export in a further process. Prints a Markdown table.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to SEEDS - 1")
    seeds = range(parser.parse_args().seeds)
    print("| seed | test accuracy | right of 899 | wall time (s) | peak memory (MB) |")
    print("|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            rows.append(_run(seed, Path(scratch) / str(seed)))
            accuracy, seconds, megabytes = rows[-1]
            print(
                f"| {seed} | {accuracy:.4f} | {round(accuracy * 899)} | {seconds:.0f} | {megabytes:.0f} |", flush=True
            )
    accuracies, times, memory = zip(*rows, strict=True)
    spread = f" ± {stdev(accuracies):.4f}" if len(rows) > 1 else ""
    print(f"| mean | **{mean(accuracies):.4f}**{spread} | | {mean(times):.0f} | {max(memory):.0f} (largest) |")


def _run(seed: int, workdir: Path) -> tuple[float, float, float]:
    """Test accuracy, seconds and megabytes of one run; the figures of the kernel for the finished process."""
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
