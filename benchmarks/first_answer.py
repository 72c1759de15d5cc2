"""Measure the first prediction of frozen SavedModels in new processes: medians, by both loaders.

    python benchmarks/first_answer.py --rounds=5

ResNet-50 at 224 pixels, float32 and bfloat16. The seconds are those of `Predictor(path)` and of its first call, with
decoded pixels or a JPEG, in a process that has imported TensorFlow and this package. "standard" is
`Predictor(path, standard_loader=True)`, which loads with `tf.saved_model.load`. The processes alternate. Prints a
Markdown table; `--json` prints one object per line: `precision`, `input`, `loader`, `seconds`, `memory_mb` (the largest
of the process).
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

PRECISIONS, INPUTS, LOADERS = ("float32", "bfloat16"), ("pixels", "JPEG"), ("frozen", "standard")
SIZE = 224


def main() -> None:
    """Write the exports, and measure each case in each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_answer(*arguments.child)))
        return
    cases = list(itertools.product(PRECISIONS, INPUTS, LOADERS))
    found: dict[tuple[str, ...], list[dict[str, float]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as scratch:
        paths = {each: _export(each, Path(scratch)) for each in PRECISIONS}
        for _ in range(arguments.rounds):
            for precision, shown, loader in cases:
                command = [sys.executable, __file__, "--child", paths[precision], shown, loader]
                child = subprocess.run(command, capture_output=True, text=True, check=True)
                found[precision, shown, loader].append(json.loads(child.stdout.splitlines()[-1]))
    medians = {
        case: {name: round(median(each[name] for each in measured), 2) for name in measured[0]}
        for case, measured in found.items()
    }
    if arguments.json:
        for case, row in medians.items():
            print(json.dumps(dict(zip(("precision", "input", "loader"), case, strict=True)) | row))
        return
    print("| first prediction | frozen | memory (MB) | standard | memory (MB) |\n|---|---|---|---|---|")
    for precision, shown in itertools.product(PRECISIONS, INPUTS):
        rows = (medians[precision, shown, loader] for loader in LOADERS)
        cells = " | ".join(f"{row['seconds']:.2f} s | {row['memory_mb']:,.0f}" for row in rows)
        print(f"| {precision}, {shown} | {cells} |")


def _export(precision: str, folder: Path) -> str:
    import resnet_tf

    model = resnet_tf.create_model("resnet50", num_classes=1000)
    return str(resnet_tf.export_model(model, folder / precision, precision=precision))


def _answer(path: str, shown: str, loader: str) -> dict[str, float]:
    """Return the seconds until the first prediction, and the largest memory of this process."""
    import tensorflow as tf

    from resnet_tf import Predictor
    from resnet_tf.core.machine import resident_memory

    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    encoded = tf.io.encode_jpeg(pixels).numpy()
    start = time.perf_counter()
    predictor = Predictor(path, standard_loader=loader == "standard")
    if shown == "JPEG":
        predictor(encoded)
    else:
        predictor.logits(np.zeros((1, SIZE, SIZE, 3), np.float32))
    return {"seconds": time.perf_counter() - start, "memory_mb": resident_memory(peak=True) or 0.0}


if __name__ == "__main__":
    main()
