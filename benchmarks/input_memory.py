"""Does the input's memory stay flat, and how soon does a large folder's first batch come?

    python benchmarks/input_memory.py --photos=DIR

Random-resized crops to 224 pixels of the JPEGs in DIR, repeated: from a folder of 60,000 files, which are links to
them, and from the sharded records that `resnet_tf.prepare` makes of 2,000. Resident memory of the process is read after
5,000 training images and after 100,000. The first batch's time is that from opening the source, TensorFlow being
imported and the files' names being in the system's cache. Each turn is a process of its own. `--json` prints one object
a line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import megabytes

BATCH = 64
EARLY = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=60_000, help="of the large folder")
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

    large = _repeated(photos, scratch / "large", files)
    prepare_folder(_repeated(photos, scratch / "small", 2000), scratch / "records", eval_fraction=0.1)
    return {f"folder of {files:,} files": str(large), "records": str(scratch / "records")}


def _repeated(photos: Path, root: Path, count: int) -> Path:
    """A folder of class/file with `count` links to the photos, one class for each of them."""
    files = sorted(photos.rglob("*.JPEG")) + sorted(photos.rglob("*.jpg"))
    for index in range(count):
        file = files[index % len(files)]
        link = root / file.stem / f"{index}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.absolute())
    return root


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
