"""`Pretrained`: a published weights file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from resnet_tf.inputs import ImagePreprocess, Preprocess
from resnet_tf.model.metadata import Metadata

AnyPreprocess = TypeVar("AnyPreprocess", bound=Preprocess)


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Published weights file.

    Attributes:
        url: URL of the file.
        digest: algorithm and hash of the file, `md5:...` or `sha256:...`, as far as published; PyTorch puts the first
            eight digits into the file name. Empty for a file whose SHA-256 the server states with each download.
        top1: published top-1 accuracy in percent, with the first of `inputs`; None if the classes are not ImageNet's.
        citation: page of the accuracy.
        license: SPDX identifier of the license under which the weights are published.
        inputs: the preprocessing at each published input size.
        labels: names of the classes; empty if unknown.
        num_classes: number of classes.
    """

    url: str
    digest: str
    top1: float | None
    citation: str
    license: str
    inputs: tuple[ImagePreprocess, ...]
    labels: tuple[str, ...]
    num_classes: int = 1000

    @property
    def file_name(self) -> str:
        """File name in the cache: that of the URL; for a repository of the Hugging Face Hub, with the repository's."""
        repository, is_hub, _ = self.url.partition("/resolve/")
        name = self.url.rsplit("/", 1)[1]
        return "--".join(repository.split("/")[-2:]) + Path(name).suffix if is_hub else name

    def preprocess_at(self, sizes: tuple[int | None, ...]) -> ImagePreprocess:
        """Return the preprocessing for an input size, see `preprocess_at`."""
        return preprocess_at(self.inputs, sizes)

    def metadata_at(self, sizes: tuple[int | None, ...]) -> Metadata:
        """Return the preprocessing for an input size, see `preprocess_at`, and the names of the classes."""
        return Metadata(preprocess=self.preprocess_at(sizes), labels=self.labels or None)


def preprocess_at(preprocesses: Sequence[AnyPreprocess], sizes: tuple[int | None, ...]) -> AnyPreprocess:
    """Return the preprocessing of weights for an input size: that of this size, or else the first one, resized.

    Args:
        preprocesses: those of the weights, the preferred one first.
        sizes: (height, width), or (length,); None selects the preferred one.
    """
    if None in sizes:
        return preprocesses[0]
    named = next((each for each in preprocesses if each.spatial_shape == sizes), preprocesses[0])
    return named.with_size(tuple(size for size in sizes if size is not None))
