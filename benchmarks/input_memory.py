"""Measure the memory of the input pipeline over time, and the time to its first batch.

    python benchmarks/input_memory.py --photos=DIR

Random-resized crops to 224 pixels of the JPEG files in DIR, repeated: from a folder of 60,000 links to them, and from
sharded records of 2,000 images, written by `resnet_tf.prepare`. Reports the resident memory of the process after 5,000
and after 100,000 training images. The time to the first batch includes opening the source, but not importing
TensorFlow; the operating system has the file names in its cache. Each case runs in its own process. `--json` prints one
object per line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import megabytes
from photos import link_photos

BATCH = 64
EARLY = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=100_000, help="number of images to load")
    parser.add_argument("--files", type=int, default=60_000, help="number of files in the large folder")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        print(json.dumps(_measure(arguments.turn, arguments.images)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, source in _sources(arguments.photos, Path(scratch), arguments.files).items():
            command = [sys.executable, __file__, "--photos", "-", "--images", str(arguments.images), "--turn", source]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            row = {"case": name, **json.loads(output.stdout.splitlines()[-1])}
            print(json.dumps(row) if arguments.json else _sentence(row, arguments.images), flush=True)


def _sentence(row: dict, images: int) -> str:
    early, late = row["early_mb"], row["late_mb"]
    memory = f"{early:.0f} MB after {EARLY:,} images, {late:.0f} MB after {images:,} ({late / early - 1:+.1%})"
    return f"{row['case']}: first batch after {row['first_batch_s']:.2f} s; {memory}"


def _sources(photos: Path, scratch: Path, files: int) -> dict[str, str]:
    from resnet_tf.data.prepare import prepare_folder

    large = link_photos(photos, scratch / "large", files)
    prepare_folder(link_photos(photos, scratch / "small", 2000), scratch / "records", eval_fraction=0.1)
    return {f"folder of {files:,} files": str(large), "records": str(scratch / "records")}


def _measure(folder: str, images: int) -> dict[str, float]:
    from resnet_tf.config import AugmentConfig, Config, DataConfig, TrainConfig
    from resnet_tf.data import pipeline
    from resnet_tf.data.sources import open_source
    from resnet_tf.inputs import create_preprocess

    data = DataConfig(source=folder, image_size=224, batch_size=BATCH)
    config = Config(
        data=data, augment=AugmentConfig(random_resized_crop=True, flip=True), train=TrainConfig(epochs=1000)
    )
    start = time.perf_counter()
    source = open_source(data)
    length = pipeline.TrainingLength.of(config, source)
    batches = iter(pipeline.train_batches(config, source, create_preprocess(data), length, start=0))
    next(batches)
    row = {"first_batch_s": round(time.perf_counter() - start, 2)}
    for name, limit, done in (("early_mb", EARLY, BATCH), ("late_mb", images, EARLY)):
        for _ in range(done // BATCH, limit // BATCH):
            next(batches)
        row[name] = round(megabytes("VmRSS"), 1)
    return row


if __name__ == "__main__":
    main()
