"""Training and test data of both networks of the article: the embedded digits, in the same batches and order."""

from collections.abc import Iterator
from importlib import resources

import numpy as np


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images, training labels, test images and test labels.

    Images are float32 [N, 8, 8, 1] in [0, 1], labels int64 [N]. Each split has half of the digits.
    """
    with resources.files("resnet_tf.data.sources").joinpath("digits.npz").open("rb") as file:
        archive = np.load(file)
        images, labels = archive["images"][..., np.newaxis] / np.float32(16), archive["labels"].astype(np.int64)
    half = len(images) // 2
    return images[:half], labels[:half], images[half:], labels[half:]


def batches(steps: int, *, size: int = 64, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `steps` batches of `size` random training images and labels."""
    images, labels, _, _ = load()
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = generator.choice(len(images), size, replace=False)
        yield images[chosen], labels[chosen]
