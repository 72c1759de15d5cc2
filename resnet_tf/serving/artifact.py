"""Version directories of an export and their metadata, written atomically."""

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
    """Yield a staging directory for the files of a new version, and its final path `directory/NUMBER`.

    At the end of the block, a manifest is added and the staging directory is renamed, so that a server that watches
    `directory` never reads an incomplete version. Existing versions are not changed. A failed block leaves no files.

    Raises:
        UserError: if `directory` is a file, contains files that are not exports, or cannot be written.
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
            directory.rmdir()  # succeeds only on an empty directory, which this function created


def write_metadata(export: Path, metadata: dict[str, Any], *, signature: str) -> None:
    """Write the metadata of an export as JSON, its labels as text, one per line, and its model card.

    Args:
        export: directory of the version.
        metadata: `ExportMetadata` without `versions`.
        signature: see `model_card`.
    """
    complete = {**metadata, "versions": versions()}
    (export / METADATA).write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")
    (export / LABELS).write_text("".join(f"{label}\n" for label in metadata["labels"]), encoding="utf-8")
    (export / CARD).write_text(model_card(complete, signature=signature), encoding="utf-8")


def find_export_of_step(directory: Path, step: int) -> Path | None:
    """Return the newest version under `directory` if it was exported at training step `step`, otherwise None."""
    if not list_versions(directory):
        return None
    newest = read_export(directory)
    return newest.directory if newest.metadata.get("step") == step else None


def _check_directory(directory: Path) -> None:
    if directory.is_file():
        raise UserError(f"{str(directory)!r} is a file; exports need a directory")
    present = (path for path in directory.glob("*") if not files.is_foreign(path))
    others = [path.name for path in present if not path.name.split(".")[0].isdecimal()]
    if others:
        raise UserError(
            f"{str(directory)!r} contains files that are not exports ({', '.join(others)}); "
            "exports need a separate directory"
        )
