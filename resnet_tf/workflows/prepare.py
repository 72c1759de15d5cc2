"""Conversion of image folders to TFDS directories."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import Range, check_number
from resnet_tf.core.signals import clean_up_on_sigterm
from resnet_tf.data.prepare import prepare_folder


@dataclass(frozen=True)
class PreparedSplit:
    """A split that `prepare` wrote.

    Attributes:
        examples: number of its images.
        files: number of its TFRecord files.
    """

    examples: int
    files: int


@dataclass(frozen=True)
class PrepareResult:
    """Outcome of `prepare`.

    Attributes:
        directory: for `data.source`.
        splits: by name.
    """

    directory: Path
    splits: dict[str, PreparedSplit]

    def to_dict(self) -> dict[str, Any]:
        """Return the directory and the splits as plain values, ready for JSON."""
        return {"directory": str(self.directory), "splits": {name: asdict(each) for name, each in self.splits.items()}}


def prepare(source: str | Path, target: str | Path, *, eval_fraction: float = 0.1) -> PrepareResult:
    """Write the images of a folder as sharded TFRecord files that TFDS reads, byte for byte.

    The splits are the folders of split/class/file, or `train` and `test` of class/file. A failure
    leaves nothing behind; neither does SIGTERM.

    Args:
        source: folder of images.
        target: directory to write; it must be empty or not exist.
        eval_fraction: fraction of a folder of class/file that becomes the split `test`, in (0, 1).

    Raises:
        UserError: if there are no images, one cannot be read, or `target` is in use or cannot be written.
        Interrupted: after SIGTERM.
    """
    check_number("eval_fraction", eval_fraction, Range(above=0, below=1))
    source, target = user_path(source), user_path(target)
    with clean_up_on_sigterm("stopped, and nothing is written; the same command starts again") as check:
        written = prepare_folder(source, target, eval_fraction=eval_fraction, check=check).splits
    splits = {name: PreparedSplit(each.num_examples, each.num_shards) for name, each in written.items()}
    return PrepareResult(target, splits)
