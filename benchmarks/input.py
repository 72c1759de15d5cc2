"""Measure input pipelines: ours, bare TensorFlow, torchvision's DataLoader; interleaved rounds, medians.

    pip install '.[bench]' && python benchmarks/input.py --photos=DIR

"photos": random-resized crops to 224 pixels with flips, uint8 output, from the JPEG files in DIR, repeated. "bare" is a
minimal TensorFlow pipeline: read, `extract_jpeg_shape`, `decode_and_crop_jpeg`, resize, flip, batch, with crops sampled
in advance from the same distribution; "bare, TF's crops" samples smaller crops with TensorFlow's own operation;
"upright" rotates by the EXIF orientation, as the recipes for own images do. The DataLoader has 2 workers.
"coefficients" decodes the crops of "bare" at an eighth of their scale and drops them: hardly more than reading the
coefficients of a JPEG, so that no pipeline with this JPEG library is faster. "mixed": the same as "photos" from 60,000
files, the photos with longer edges of 320 to 4,032 pixels. "small": 32-pixel images in memory, padded, cropped and
flipped, without and with RandAugment. Each case runs in its own process, one at a time. `--json` prints one object per
line: `case`, `images_per_second`, `ratio_to`, `ratio`.
"""

import argparse
import functools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from peers import import_torchvision
from photos import link_photos, write_mixed_sizes
from rounds import measure, report

BATCH = 64
SIZE = 224
RATIOS = [
    ("photos: ours", "photos: bare"),
    ("photos: ours", "photos: bare, TF's crops"),
    ("photos: ours", "photos: torchvision"),
    ("photos: ours, upright", "photos: ours"),
    ("photos: bare", "photos: torchvision"),
    ("photos: coefficients", "photos: torchvision"),
    ("mixed: ours", "mixed: bare"),
    ("mixed: ours", "mixed: torchvision"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEG files; without it, only small images are measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds per case and round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--torch-python", default=sys.executable, help="Python interpreter with torch and torchvision")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        print(_rate(TURNS[arguments.turn](arguments.photos / arguments.turn.split(":")[0]), arguments.seconds))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if arguments.photos else None
        if folder:
            mixed = write_mixed_sizes(arguments.photos, folder / "resized")
            for photos, name, count in ((arguments.photos, "photos", 2000), (mixed, "mixed", 60_000)):
                link_photos(photos, folder / name / "train", count)
                link_photos(photos, folder / name / "test")
        report(measure(_commands(folder, arguments), arguments.rounds), RATIOS, as_json=arguments.json)


def _commands(folder: Path | None, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case that can be measured: without photos, the small images only."""
    flags = ["--seconds", str(arguments.seconds), "--photos", str(folder)]
    return {
        name: [arguments.torch_python if "torchvision" in name else sys.executable, __file__, *flags, "--turn", name]
        for name in TURNS
        if folder or name.startswith("small")
    }


def _rate(batches: Iterator[int], seconds: float) -> float:
    """Return images per second after a warmup of two seconds; `batches` yields the number of images per batch."""
    start = time.perf_counter()
    while time.perf_counter() - start < 2:
        next(batches)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images += next(batches)
    return images / (time.perf_counter() - start)


def _ours(folder: Path, *, upright: bool = False) -> Iterator[int]:
    from resnet_tf.config import AugmentConfig, DataConfig

    data = DataConfig(source=str(folder), image_size=SIZE, batch_size=BATCH, exif_orientation=upright)
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


def _bare(folder: Path, tf_crops: bool = False) -> Iterator[int]:
    import tensorflow as tf

    def load(path, window):
        encoded = tf.io.read_file(path)
        shape = tf.image.extract_jpeg_shape(encoded)
        if tf_crops:
            begin, size, _ = tf.image.sample_distorted_bounding_box(
                shape,
                tf.zeros([1, 0, 4]),
                area_range=(0.08, 1.0),
                aspect_ratio_range=(3 / 4, 4 / 3),
                min_object_covered=0.0,
                use_image_if_no_bounding_boxes=True,
            )
            window = tf.concat([begin[:2], size[:2]], 0)
        # Adds 0, but depends on the shape: TensorFlow would skip the unused `extract_jpeg_shape`.
        window += tf.minimum(shape[2] - 1, 0)
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, [SIZE, SIZE]))
        return tf.cast(tf.round(image), tf.uint8)

    return _loaded_batches(folder, load, with_crops=not tf_crops)


def _coefficients(folder: Path) -> Iterator[int]:
    import tensorflow as tf

    def load(path, window):
        image = tf.raw_ops.DecodeAndCropJpeg(
            contents=tf.io.read_file(path), crop_window=window // 8, channels=3, ratio=8, dct_method="INTEGER_ACCURATE"
        )
        return tf.shape(image)

    return _loaded_batches(folder, load)


def _loaded_batches(folder: Path, load: Callable, *, with_crops: bool = True) -> Iterator[int]:
    """Yield the sizes of batches of `load(path, window)`; windows are zeros unless `with_crops`."""
    import tensorflow as tf

    paths = [str(path) for path in sorted((folder / "train").rglob("*.jpg"))]
    windows = _crops(paths) if with_crops else tf.zeros([len(paths), 4], tf.int32)
    files = tf.data.Dataset.from_tensor_slices((paths, windows)).shuffle(2000).repeat()
    batches = files.map(load, tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True).prefetch(2)
    return (len(batch) for batch in batches)


def _crops(paths: list[str]) -> list[list[int]]:
    """Sample a window [top, left, height, width] for each file, like torchvision's RandomResizedCrop."""
    import random

    import tensorflow as tf

    @functools.cache
    def size(file: str) -> list[int]:
        return tf.image.extract_jpeg_shape(tf.io.read_file(file)).numpy().tolist()[:2]

    generator, windows = random.Random(0), []
    for path in paths:
        height, width = size(os.path.realpath(path))
        while True:
            area = height * width * generator.uniform(0.08, 1.0)
            ratio = math.exp(generator.uniform(-1, 1) * math.log(4 / 3))
            crop_height, crop_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if crop_height <= height and crop_width <= width:
                break
        top, left = generator.randint(0, height - crop_height), generator.randint(0, width - crop_width)
        windows.append([top, left, crop_height, crop_width])
    return windows


def _torchvision(folder: Path) -> Iterator[int]:
    from torch.utils.data import DataLoader

    torchvision = import_torchvision()
    datasets, transforms = torchvision.datasets, torchvision.transforms
    transform = transforms.Compose(
        [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    images = datasets.ImageFolder(str(folder / "train"), transform)
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
    while True:
        for batch, _ in loader:
            yield len(batch)


TURNS: dict[str, Callable[[Path], Iterator[int]]] = {
    "photos: ours": _ours,
    "photos: ours, upright": functools.partial(_ours, upright=True),
    "photos: bare": _bare,
    "photos: bare, TF's crops": lambda folder: _bare(folder, tf_crops=True),
    "photos: coefficients": _coefficients,
    "photos: torchvision": _torchvision,
    "mixed: ours": _ours,
    "mixed: bare": _bare,
    "mixed: torchvision": _torchvision,
    "small: pad, crop, flip": lambda folder: _small("none"),
    "small: RandAugment": lambda folder: _small("randaugment"),
}

if __name__ == "__main__":
    main()
