"""`Pretrained`: a published weights file."""

from dataclasses import dataclass
from pathlib import Path

from resnet_tf.inputs import ImagePreprocess


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

    def preprocess_at(self, height: int | None, width: int | None) -> ImagePreprocess:
        """Return the preprocessing for an input size; None selects the published size."""
        if height is None or width is None:
            return self.inputs[0]
        named = next((each for each in self.inputs if each.size == (height, width)), self.inputs[0])
        return named.with_size((height, width))
