"""Versions of an export: their directories and descriptions, written atomically."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from resnet_tf.core import files
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.export_metadata import EXTRA, LABELS, MANIFEST, METADATA, list_versions, read_export
from resnet_tf.core.machine import versions
from resnet_tf.serving.card import model_card

CARD = "README.md"


@contextlib.contextmanager
def new_version(directory: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a directory to write the files of a version to, and the `directory/NUMBER` that it becomes at the end.

    The directory is written atomically, with a manifest of its files, so that a server which watches `directory` never
    sees a part of it. Versions that are there stay as they are. Where the block fails, nothing stays behind.

    Raises:
        UserError: if `directory` holds something else, or cannot be written.
    """
    _check_directory(directory)
    final = directory / str((list_versions(directory) or [0])[-1] + 1)
    try:
        with files.atomic_directory(final) as staging:
            (staging / EXTRA).mkdir()
            yield staging, final
            files.write_manifest(staging, MANIFEST)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write to {str(directory)!r}: {plain_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            directory.rmdir()  # only if it is empty: then there was nothing before


def write_metadata(export: Path, metadata: dict[str, Any], *, signature: str) -> None:
    """Write the metadata of an export, its labels as one a line, and its model card, see `model_card`."""
    known = {**metadata, "versions": versions()}
    (export / METADATA).write_text(json.dumps(known, indent=2) + "\n")
    (export / LABELS).write_text("".join(f"{label}\n" for label in metadata["labels"]), encoding="utf-8")
    (export / CARD).write_text(model_card(known, signature=signature), encoding="utf-8")


def find_export_of_step(directory: Path, step: int) -> Path | None:
    """Return the newest version under `directory` if it was exported at this step of its run, otherwise None."""
    if not list_versions(directory):
        return None
    newest = read_export(directory)
    return newest.directory if newest.metadata.get("step") == step else None


def _check_directory(directory: Path) -> None:
    present = (path for path in directory.glob("*") if not files.is_staging(path))
    strangers = [path.name for path in present if not path.name.split(".")[0].isdecimal()]
    if strangers or directory.is_file():
        raise UserError(
            f"{str(directory)!r} holds something else ({', '.join(strangers) or 'it is a file'}); "
            "exports need a directory of their own"
        )
