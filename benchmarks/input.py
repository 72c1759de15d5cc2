"""Images per second of the input pipeline: ours, bare TensorFlow, torchvision's DataLoader; interleaved, medians.

    pip install '.[bench]' && python benchmarks/input.py --photos=DIR

`photos` are random-resized crops to 224 pixels with flips, uint8 out, from the JPEGs in DIR, repeated. "Bare" is the
least that TensorFlow can do: read, `extract_jpeg_shape`, `decode_and_crop_jpeg`, resize, flip, batch, with crops drawn
beforehand by the same rules; "bare, TF's crops" draws smaller ones with TensorFlow's own operation. The DataLoader has
2 workers. `small` are 32-pixel pictures in memory, padded, cropped and flipped, and the same under RandAugment. Each
turn is a process of its own, one at a time. `--json` prints one object a line: `case`, `images_per_second`, `ratio_to`,
`ratio`.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

BATCH = 64
SIZE = 224
RATIOS = [
    ("photos: ours", "photos: bare"),
    ("photos: ours", "photos: bare, TF's crops"),
    ("photos: ours", "photos: torchvision"),
    ("photos: bare", "photos: torchvision"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs; without it, only the small pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one turn")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has torch and torchvision")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        print(_rate(TURNS[arguments.turn](arguments.photos), arguments.seconds))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = _repeated(arguments.photos, Path(scratch)) if arguments.photos else None
        _report(_measure(folder, arguments), arguments.json)


def _repeated(photos: Path, root: Path) -> Path:
    """A folder of split/class/file with 2,000 links to the photos, one class for each of them."""
    files = sorted(photos.rglob("*.JPEG")) + sorted(photos.rglob("*.jpg"))
    for split in ("train", "test"):
        for index in range(2000):
            file = files[index % len(files)]
            link = root / split / file.stem / f"{index}.jpg"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())
    return root


def _measure(folder: Path | None, arguments: argparse.Namespace) -> dict[str, list[float]]:
    turns = [name for name in TURNS if folder or name.startswith("small")]
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(arguments.rounds):
        for name in turns:
            python = arguments.torch_python if "torchvision" in name else sys.executable
            command = [python, __file__, "--seconds", str(arguments.seconds), "--turn", name, "--photos", str(folder)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            rates[name].append(float(output.stdout.splitlines()[-1]))
            print(f"{name}: {rates[name][-1]:.0f} images/s", file=sys.stderr)
    return rates


def _report(rates: dict[str, list[float]], as_json: bool) -> None:
    for name, values in rates.items():
        row = {"case": name, "images_per_second": round(median(values), 1)}
        print(json.dumps(row) if as_json else f"{name}: {row['images_per_second']} images/s")
    for ours, theirs in RATIOS:
        if ours in rates:
            ratios = [a / b for a, b in zip(rates[ours], rates[theirs], strict=True)]
            row = {"case": ours, "ratio_to": theirs, "ratio": round(median(ratios), 3)}
            spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
            print(json.dumps(row) if as_json else f"{ours} against {theirs}: {row['ratio']:.2f} {spread}")


def _rate(batches: Iterator[int], seconds: float) -> float:
    """Images per second after a start of two seconds; `batches` gives the number of images in each."""
    start = time.perf_counter()
    while time.perf_counter() - start < 2:
        next(batches)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images += next(batches)
    return images / (time.perf_counter() - start)


def _ours(folder: Path) -> Iterator[int]:
    from resnet_tf.config import AugmentConfig, DataConfig

    data = DataConfig(source=str(folder), image_size=SIZE, batch_size=BATCH)
    return _batches(data, AugmentConfig(random_resized_crop=True, flip=True))


def _small(policy: str) -> Iterator[int]:
    from resnet_tf.config import AugmentConfig, DataConfig

    data = DataConfig(source="digits", image_size=32, batch_size=128)
    return _batches(data, AugmentConfig(pad_crop=4, flip=True, policy=policy))


def _batches(data, augment) -> Iterator[int]:
    import dataclasses

    from resnet_tf.config import Config, TrainConfig
    from resnet_tf.data import pipeline
    from resnet_tf.data.sources import open_source
    from resnet_tf.inputs import create_preprocess

    config = Config(data=data, augment=augment, train=TrainConfig(epochs=1_000_000))
    source = open_source(dataclasses.replace(data, data_dir=tempfile.gettempdir() if data.source == "digits" else ""))
    length = pipeline.TrainingLength.of(config, source)
    batches = pipeline.train_batches(config, source, create_preprocess(data), length, start=0)
    return (len(images) for images, *_ in batches)


def _bare(folder: Path, own_crops: bool = False) -> Iterator[int]:
    import tensorflow as tf

    paths = [str(path) for path in sorted((folder / "train").rglob("*.jpg"))]
    files = tf.data.Dataset.from_tensor_slices(
        (paths, tf.zeros([len(paths), 4], tf.int32) if own_crops else _crops(paths))
    )

    def load(path, window):
        encoded = tf.io.read_file(path)
        shape = tf.image.extract_jpeg_shape(encoded)
        if own_crops:
            begin, size, _ = tf.image.sample_distorted_bounding_box(
                shape,
                tf.zeros([1, 0, 4]),
                area_range=(0.08, 1.0),
                aspect_ratio_range=(3 / 4, 4 / 3),
                min_object_covered=0.0,
                use_image_if_no_bounding_boxes=True,
            )
            window = tf.concat([begin[:2], size[:2]], 0)
        window += tf.minimum(shape[2] - 1, 0)  # so that the header is read
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, [SIZE, SIZE]))
        return tf.cast(tf.round(image), tf.uint8)

    batches = files.shuffle(2000).repeat().map(load, tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True).prefetch(2)
    return (len(images) for images in batches)


def _crops(paths: list[str]) -> list[list[int]]:
    """A window for each file, as torchvision's RandomResizedCrop draws it."""
    import random

    import tensorflow as tf

    generator, windows = random.Random(0), []
    for path in paths:
        height, width, _ = tf.image.extract_jpeg_shape(tf.io.read_file(path)).numpy().tolist()
        while True:
            area = height * width * generator.uniform(0.08, 1.0)
            ratio = math.exp(generator.uniform(-1, 1) * math.log(4 / 3))
            rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if rows <= height and columns <= width:
                break
        windows.append([generator.randint(0, height - rows), generator.randint(0, width - columns), rows, columns])
    return windows


def _torchvision(folder: Path) -> Iterator[int]:
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    images = datasets.ImageFolder(str(folder / "train"), transforms.Compose(steps))
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
    while True:
        for batch, _ in loader:
            yield len(batch)


TURNS: dict[str, Callable[[Path], Iterator[int]]] = {
    "photos: ours": _ours,
    "photos: bare": _bare,
    "photos: bare, TF's crops": lambda folder: _bare(folder, own_crops=True),
    "photos: torchvision": _torchvision,
    "small: pad, crop, flip": lambda folder: _small("none"),
    "small: RandAugment": lambda folder: _small("randaugment"),
}

if __name__ == "__main__":
    main()
