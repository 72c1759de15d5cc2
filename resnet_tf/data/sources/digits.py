"""Embedded data set, as a TFDS builder: 1,797 handwritten digits of 8x8 pixels."""

from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """UCI handwritten digits (Alpaydin and Kaynak 1998), split as in the documented example of scikit-learn.

    In the original order, the first 898 images are the split `train`, the other 899 the split `test`. Images are uint8
    [8, 8, 1]; the 17 gray levels of the source are scaled to 0 to 255.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS's own attribute)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Handwritten digits of 8x8 pixels.",
            homepage="https://doi.org/10.24432/C50P49",
            license="CC BY 4.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        with resources.files("resnet_tf.data.sources").joinpath("digits.npz").open("rb") as file:
            archive = np.load(file)
            images, labels = archive["images"], archive["labels"]
        half = len(images) // 2
        return {
            "train": self._generate_examples(images[:half], labels[:half]),
            "test": self._generate_examples(images[half:], labels[half:]),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            pixels = np.round(image[..., np.newaxis] * (255 / 16)).astype(np.uint8)
            yield index, {"image": pixels, "label": int(label)}
