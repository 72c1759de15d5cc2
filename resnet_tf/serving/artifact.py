"""The exported directory: its versions, its files, how they are written and how they are checked."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from resnet_tf.core import files
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.machine import versions
from resnet_tf.serving.card import model_card

_EXTRA = Path("assets.extra")
METADATA = _EXTRA / "resnet_tf.json"
LABELS = _EXTRA / "labels.txt"
MANIFEST = _EXTRA / "sha256.json"
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
            (staging / _EXTRA).mkdir()
            yield staging, final
            files.write_manifest(staging, MANIFEST)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write to {str(directory)!r}: {plain_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            directory.rmdir()  # only if it is empty: then there was nothing before


def write_metadata(export: Path, metadata: dict[str, Any], *, signature: str) -> None:
    """What is known of an export, its labels, a line each, and its model card, see `model_card`."""
    known = {**metadata, "versions": versions()}
    (export / METADATA).write_text(json.dumps(known, indent=2) + "\n")
    (export / LABELS).write_text("".join(f"{label}\n" for label in metadata["labels"]))
    (export / CARD).write_text(model_card(known, signature=signature))


def find_export(path: str | Path) -> Path:
    """The export at `path`, or the newest version under it.

    Raises:
        UserError: if there is none, one that this package did not write, or one whose files are not as they were
            written.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"no exported model at {str(path)!r}")
    versions = list_versions(path)
    found = path / str(versions[-1]) if versions else path
    if not (found / METADATA).is_file() and not (found / MANIFEST).is_file():
        raise UserError(f"{str(found)!r} is not a model exported by resnet_tf: {str(METADATA)!r} is missing")
    if corruption := files.find_corruption(found, MANIFEST, needed=METADATA):
        raise UserError(f"exported model {str(found)!r} is corrupt: {corruption}; export it again")
    return found


def find_export_of_step(directory: Path, step: int) -> Path | None:
    """The newest version under `directory`, if it was exported at this step of its run."""
    if not list_versions(directory):
        return None
    newest = find_export(directory)
    return newest if read_metadata(newest).get("step") == step else None


def list_versions(directory: Path) -> list[int]:
    """Version numbers under a directory, in order."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit() and path.is_dir())


def read_metadata(export: Path) -> dict[str, Any]:
    """What `write_metadata` wrote."""
    try:
        return json.loads((export / METADATA).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{str(export / METADATA)!r} is damaged: {error}") from error


def _check_directory(directory: Path) -> None:
    present = (path for path in directory.glob("*") if not files.is_staging(path))
    strangers = [path.name for path in present if not path.name.split(".")[0].isdigit()]
    if strangers or directory.is_file():
        raise UserError(
            f"{str(directory)!r} holds something else ({', '.join(strangers) or 'it is a file'}); "
            "exports need a directory of their own"
        )
