"""Measure the time from a command to its first step, the time of a checkpoint, and the time from SIGTERM to exit.

    python benchmarks/start.py --photos=DIR

ResNet-50 on the JPEG files in DIR, one class each, 224 pixels, batch 32, in the default precision of the machine:
"first step" is the time from the start of Python to the end of the first step, including tracing and compilation;
"checkpoint" is the time for which a checkpoint (weights and momentum, written, synchronized to disk and read back)
interrupts training; "SIGTERM" is the time from the signal, sent during a step, to the exit of the process, including
the last checkpoint. `--json` prints one object per round.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from photos import link_photos

STEPS = 5  # before SIGTERM, within the first epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        _train(Path(arguments.turn))
        return
    rows = [_round(arguments.photos) for _ in range(arguments.rounds)]
    for row in rows if arguments.json else []:
        print(json.dumps(row))
    for name in rows[0] if not arguments.json else []:
        values = [row[name] for row in rows]
        print(f"{name}: {median(values):.1f} s ({min(values):.1f} to {max(values):.1f})")


def _round(photos: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        for split in ("train", "test"):
            link_photos(photos, Path(scratch) / "photos" / split)
        start = time.monotonic()
        command = [sys.executable, __file__, "--photos=-", f"--turn={scratch}"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert child.stdout
        row: dict[str, float] = {}
        for line in child.stdout:
            name, value = line.rsplit(" ", 1)  # a number of steps, or the seconds of a checkpoint
            if name == "step":
                row.setdefault("first step", time.monotonic() - start)
            else:
                row.setdefault(name, float(value))
            if name == "step" and int(value) == STEPS:
                start = time.monotonic()
                child.send_signal(signal.SIGTERM)
        if (code := child.wait()) != os.EX_TEMPFAIL:
            raise SystemExit(f"the run ended with exit code {code}, not {os.EX_TEMPFAIL}")
        row["SIGTERM"] = time.monotonic() - start
    return {name: round(value, 2) for name, value in row.items()}


def _train(scratch: Path) -> None:
    """Train like `resnet_tf.train`, and print each step and the seconds of each checkpoint to stdout."""
    import keras

    import resnet_tf
    from resnet_tf.config import load_config
    from resnet_tf.core.errors import Interrupted
    from resnet_tf.training import checkpoint

    save = checkpoint.save

    def timed(*arguments, **options):
        start = time.monotonic()
        save(*arguments, **options)
        print("checkpoint", time.monotonic() - start, flush=True)

    checkpoint.save = timed
    print_steps = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: print("step", int(logs["step"]), flush=True)
    )
    settings = [f"data.source={scratch / 'photos'}", "data.image_size=224", "data.batch_size=32", "model.name=resnet50"]
    settings += ["train.checkpoint_steps=2", "runtime.steps_per_loop=1"]
    try:
        resnet_tf.train_and_evaluate(load_config("imagefolder", settings), scratch / "run", callbacks=[print_steps])
    except Interrupted:
        sys.exit(os.EX_TEMPFAIL)


if __name__ == "__main__":
    main()
