"""Conversion of data sources to TFDS directories."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resnet_tf.config import Config, override, parse_assignments
from resnet_tf.config.effects import check_data_keys, check_effects
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import check_writable_by_tensorflow, source_text, user_path
from resnet_tf.core.ranges import Range, check_number
from resnet_tf.core.signals import clean_up_on_sigterm
from resnet_tf.data.prepare import prepare_source
from resnet_tf.data.sources.tfds_builders import parse_name


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


def prepare(
    source: str | Path, target: str | Path, *, eval_fraction: float = 0.1, overrides: Sequence[str] = ()
) -> PrepareResult:
    """Write all splits of a data source as sharded TFRecord files that TFDS reads.

    Encoded images are copied byte for byte. A folder of class/file, or a table without splits, becomes `train` and
    `test`. A failure leaves nothing behind; neither does SIGTERM.

    Args:
        source: data source, as in `data.source`; a `Path` of a file or folder is never the name of a data set.
        target: directory to write; it must be empty or not exist.
        eval_fraction: fraction of data without splits that becomes the split `test`, in (0, 1).
        overrides: further settings of the `data` group, such as `data.label_column=breed`.

    Raises:
        UserError: if there are no images, one cannot be read, or `target` is in use or cannot be written.
        Interrupted: after SIGTERM.
    """
    check_number("eval_fraction", eval_fraction, Range(above=0, below=1))
    target, source = user_path(target), source_text(source)
    check_writable_by_tensorflow(target)
    if not os.path.exists(source) and not parse_name(source):
        raise UserError(f"--from={source!r}: no such folder or file")
    changes = parse_assignments([*overrides, f"data.source={source}"])
    check_data_keys(changes, "prepare")
    config = override(Config(), {"data.eval_fraction": eval_fraction} | changes)
    check_effects(config, changes)
    with clean_up_on_sigterm("stopped, and nothing is written; the same command starts again") as check:
        written = prepare_source(config.data, target, check=check).splits
    splits = {name: PreparedSplit(each.num_examples, each.num_shards) for name, each in written.items()}
    return PrepareResult(target, splits)
