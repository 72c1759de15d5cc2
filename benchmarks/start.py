"""How long from a command to its first step, how long a checkpoint holds training up, how soon a signal ends a run.

    python benchmarks/start.py --photos=DIR

ResNet-50 on the JPEGs in DIR, one class for each, 224 pixels, in the precision of the machine, batch 32:
"first step" from the start of Python to the end of the first step, which traces and compiles; "checkpoint" the time
within training that one takes, weights and momentum, written, synced to the disk and read back; "SIGTERM" from the
signal, sent while steps are taken, to the end of the process, the last checkpoint included. `--json` prints one object
a round.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

STEPS = 5  # within the first epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEGs")
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
        folder = Path(scratch) / "photos"
        for file in sorted(photos.rglob("*.jp*g")) + sorted(photos.rglob("*.JPEG")):
            for split in ("train", "test"):
                link = folder / split / file.stem / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.absolute())
        start = time.monotonic()
        command = [sys.executable, __file__, "--photos=-", f"--turn={scratch}"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert child.stdout
        row: dict[str, float] = {}
        for line in child.stdout:
            name, seconds = line.rsplit(" ", 1)
            if name == "step":
                row.setdefault("first step", time.monotonic() - start)
            else:
                row.setdefault(name, float(seconds))
            if name == "step" and int(seconds) == STEPS:
                start = time.monotonic()
                child.send_signal(signal.SIGTERM)
        assert child.wait() == 75, "the run was stopped and can be tried again"
        row["SIGTERM"] = time.monotonic() - start
    return {name: round(value, 2) for name, value in row.items()}


def _train(scratch: Path) -> None:
    """As the command does, telling of each step and checkpoint on stdout."""
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
    tell = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: print("step", int(logs["step"]), flush=True)
    )
    settings = [f"data.source={scratch / 'photos'}", "data.image_size=224", "data.batch_size=32", "model.name=resnet50"]
    settings += ["train.checkpoint_steps=2", "runtime.steps_per_loop=1"]
    try:
        resnet_tf.train_and_evaluate(load_config("imagefolder", settings), scratch / "run", callbacks=[tell])
    except Interrupted:
        sys.exit(75)


if __name__ == "__main__":
    main()
