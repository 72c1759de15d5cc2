"""Measure accuracy, size and speed of two CIFAR-10 networks in each precision, and write results/cost.json.

    python benchmarks/results/cost.py --root=DIR

DIR is the directory of benchmarks/results/run.py, which trains both networks. Accuracy is that of all test images;
images/s are medians of interleaved rounds, float32 pixels to logits, on all cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from plan import HALF, RESNET20

from resnet_tf.core.files import write_atomically

PROJECT = Path(__file__).parents[2]
RUNS = {"ResNet-20": RESNET20[-1], "half as wide": HALF}
EXPORTS = (("serving", "float32"), ("serving", "bfloat16"), ("litert", "int8"))
BATCHES = (1, 32)
ROUNDS, SECONDS = 7, 1.0

Predict = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="directory of benchmarks/results/run.py")
    root = parser.parse_args().root.absolute()
    rows = [_export(root, title, target, precision) for title in RUNS for target, precision in EXPORTS]
    models = [_load(Path(row["path"])) for row in rows]
    rates: dict[tuple[int, int], list[float]] = {}
    for number in range(ROUNDS + 1):
        for batch in BATCHES:
            for index, predict in enumerate(models):
                rate = _images_per_second(predict, batch)
                if number:  # the first round is a warmup
                    rates.setdefault((index, batch), []).append(rate)
    for index, row in enumerate(rows):
        del row["path"]
        row["images_per_second"] = {str(batch): statistics.median(rates[index, batch]) for batch in BATCHES}
    write_atomically(PROJECT / "results" / "cost.json", json.dumps(rows, indent=2) + "\n")


def _export(root: Path, title: str, target: str, precision: str) -> dict:
    """Export and evaluate a network with the commands of the package; return a row, with the `path` of the export."""
    workdir = root / "out" / RUNS[title].name
    directory = workdir / "export" / f"{target}_{precision}"
    flags = [f"--workdir={workdir}", f"--target={target}", f"--precision={precision}", f"--to={directory}"]
    path = Path(_command(root, "export", *flags).splitlines()[-1])
    metrics = json.loads(_command(root, "evaluate", f"--model={root / path}", "--json").splitlines()[-1])
    megabytes = sum(file.stat().st_size for file in (root / path).rglob("*") if file.is_file()) / 1e6
    return {
        "network": title,
        "precision": precision,
        "top1": metrics["top1"],
        "megabytes": megabytes,
        "path": str(root / path),
    }


def _command(root: Path, name: str, *arguments: str) -> str:
    command = (sys.executable, "-m", f"resnet_tf.{name}", *arguments)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _load(path: Path) -> Predict:
    if (path / "model.tflite").is_file():
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path / "model.tflite"), num_threads=os.cpu_count()).get_signature_runner()
        return lambda images: runner(images=images)["logits"]
    import tensorflow as tf

    model = tf.saved_model.load(str(path))
    signature = model.signatures["images"]
    # The tuple keeps a reference to the model, which owns the variables of the signature.
    return lambda images: (model, signature(images=tf.constant(images))["logits"].numpy())[1]


def _images_per_second(predict: Predict, batch: int) -> float:
    images = np.random.default_rng(0).uniform(size=(batch, 32, 32, 3)).astype("float32")
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        predict(images)
        times.append(time.perf_counter() - start)
    return batch / statistics.median(times)


if __name__ == "__main__":
    main()
