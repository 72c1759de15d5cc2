"""Version directories of an export and their metadata, written atomically."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from resnet_tf.core import files
from resnet_tf.core.class_names import label_line
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.export_metadata import EXTRA, LABELS, MANIFEST, METADATA
from resnet_tf.core.machine import versions
from resnet_tf.serving.card import model_card

CARD = "README.md"


def write_version(directory: Path, write: Callable[[Path], None]) -> Path:
    """Write a new version, `directory/NUMBER`, and return its path; see `files.write_version`.

    A manifest is added, and the complete version is renamed to its number, so that a server that watches `directory`
    never reads an incomplete version. Existing versions are not changed. A failure leaves no files.

    Args:
        directory: directory of the versions.
        write: function that writes the files to an empty directory.

    Raises:
        UserError: if `directory` is a file, contains files that are not exports, or cannot be written.
    """
    _check_directory(directory)
    existed = directory.exists()

    def write_with_manifest(staging: Path) -> None:
        (staging / EXTRA).mkdir()
        write(staging)
        files.write_manifest(staging, MANIFEST)

    try:
        return files.write_version(directory, write_with_manifest)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write to {str(directory)!r}: {plain_reason(error)}") from error
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                directory.rmdir()  # succeeds only on an empty directory, after a failure


def write_metadata(export: Path, metadata: dict[str, Any], *, signature: str) -> None:
    """Write the metadata of an export as JSON, its labels as text, see `label_line`, and its model card.

    Args:
        export: directory of the version.
        metadata: `ExportMetadata` without `versions`.
        signature: see `model_card`.
    """
    complete = {**metadata, "versions": versions()}
    (export / METADATA).write_text(files.to_json(complete, indent=2) + "\n", encoding="utf-8")
    (export / LABELS).write_text("".join(f"{label_line(label)}\n" for label in metadata["labels"]), encoding="utf-8")
    (export / CARD).write_text(model_card(complete, signature=signature), encoding="utf-8")


def _check_directory(directory: Path) -> None:
    if directory.is_file():
        raise UserError(f"{str(directory)!r} is a file; exports need a directory")
    present = (path for path in directory.glob("*") if not files.is_hidden(path.name))
    others = [path.name for path in present if not path.name.split(".")[0].isdecimal()]
    if others:
        raise UserError(
            f"{str(directory)!r} contains files that are not exports ({', '.join(others)}); "
            "exports need a separate directory"
        )
