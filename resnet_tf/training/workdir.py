"""Run directory of a training: its checks, its exclusive use, and its configuration file."""

import contextlib
import datetime
import itertools
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from resnet_tf.config import CONFIG_FILE, Config, load_config
from resnet_tf.core import files, locks
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import METADATA
from resnet_tf.core.paths import check_writable_by_tensorflow
from resnet_tf.training import checkpoint as checkpoints
from resnet_tf.training.run import CHECKPOINTS, check_links

logger = logging.getLogger(__name__)

_LOCK = ".lock"
# Output of commands, such as log.txt, nohup.out or slurm-17.err; other files keep a run out of their directory.
_LOG = re.compile(r"(.*[._-])?(logs?|std(out|err)|output|out|err)([._-]?\d+)?(\.txt)?", re.IGNORECASE)
_DEFAULT_PARENT = Path("runs")
# Settings of a run that may change when it continues: how and where it computes, what it reports, keeps and exports.
# That moved data are the same is checked by their identity. Other devices round in another order.
_CHANGEABLE = frozenset(
    (
        *(
            "data.source",
            "data.image_folder",
            "data.data_dir",
            "data.service",
            "data.memory_limit_mb",
            "data.max_unreadable_fraction",
        ),
        *("train.eval_every", "train.keep_checkpoints", "train.checkpoint_steps", "train.max_nonfinite_steps"),
        "train.patience",
        *("runtime.strategy", "runtime.tpu", "runtime.wait_seconds", "runtime.logical_devices", "runtime.xla"),
        *("runtime.deterministic", "runtime.steps_per_loop", "runtime.profile", "runtime.tracker"),
    )
)
_CHANGEABLE_GROUP = "export."
# Files that may move: initial weights are not read again after the first checkpoint.
_MOVABLE = ("model.weights", "loss.teacher")


@contextlib.contextmanager
def exclusive_workdir(workdir: Path | None, config: Config, *, name: str) -> Iterator[Path]:
    """Create a run directory if it is missing, and keep other trainings out of it within the block.

    The kernel ends the lock when the process dies. At the end of the block, directories that were created for a
    training that never began are removed.

    Args:
        workdir: the run directory; None creates `runs/NAME-TIME`, with a number if another run has this name.
        config: its configuration, with the settings that follow from the data.
        name: of a new directory.

    Yields:
        The run directory.

    Raises:
        UserError: if another training uses the directory, or as `check_workdir`.
    """
    if workdir:
        check_workdir(workdir, config)
    created: list[Path] = []
    try:
        workdir = _create(workdir or _DEFAULT_PARENT / default_name(name), created, unique=workdir is None)
        with _lock(workdir):
            check_workdir(workdir, config)  # again: another training may have created it just before
            yield workdir
    finally:
        for directory in created:
            with contextlib.suppress(OSError):  # it holds a run
                directory.rmdir()


def check_startable(workdir: Path, config: Config) -> None:
    """Refuse a directory in which `exclusive_workdir` would not start a run now, without changing it.

    Raises:
        UserError: if another training uses the directory, or as `check_workdir`.
    """
    check_workdir(workdir, config)
    with _naming(workdir), _naming_holder(workdir):
        locks.check_free(workdir / _LOCK)


def default_name(name: str) -> str:
    """Return the name of a run directory, NAME-TIME."""
    return f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def check_workdir(workdir: Path, config: Config | None = None) -> None:
    """Refuse a directory that does not belong to this run, without changing it.

    Args:
        workdir: the run directory.
        config: its configuration; None before the settings that follow from the data are known.

    Raises:
        UserError: if `workdir` is a file, cannot be written, holds something else, a run of another configuration, or
            a link out of it.
    """
    check_writable_by_tensorflow(workdir)
    if not workdir.exists():
        parent = next(folder for folder in workdir.absolute().parents if folder.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"--workdir={str(workdir)!r} cannot be created: {str(parent)!r} is not writable")
        return
    if not workdir.is_dir():
        raise UserError(f"--workdir={str(workdir)!r} is a file; give a directory")
    if not os.access(workdir, os.W_OK | os.X_OK):
        raise UserError(f"--workdir={str(workdir)!r} is not writable")
    if (workdir / CONFIG_FILE).is_file():
        check_links(workdir)
        if not _is_unusable_before_start(workdir) and config:
            _check_same_config(workdir, config)
    elif not all(files.is_hidden(entry.name) or _is_log(entry) for entry in workdir.iterdir()):
        raise UserError(f"--workdir={str(workdir)!r} is not empty and holds no run; give an empty or a new directory")


def _is_log(path: Path) -> bool:
    """Return True for a file that a shell or a scheduler writes the output of a command to."""
    return bool(_LOG.fullmatch(path.name)) and path.is_file()


def stored_config(workdir: Path) -> Config | None:
    """Return the configuration of the run in a directory; None if there is none yet.

    Raises:
        UserError: if its file is corrupt, and there are checkpoints.
    """
    path = workdir / CONFIG_FILE
    return load_config(path) if path.is_file() and not _is_unusable_before_start(workdir) else None


def write_config(workdir: Path, config: Config) -> list[str]:
    """Create the configuration file of a run directory, or replace it if settings changed that may change.

    A corrupt configuration file, such as an empty one after a loss of power, is replaced if there are no checkpoints.

    Returns:
        Keys of an existing run that changed.

    Raises:
        UserError: if it cannot be written, or another training created it since `check_workdir`.
    """
    path = workdir / CONFIG_FILE
    exists, changes = path.is_file(), dict[str, str]()
    if exists and not _is_unusable_before_start(workdir):
        changes = _check_same_config(workdir, config)
        if not changes:
            return []
        logger.info("the run continues with %s", "; ".join(changes.values()))
    try:
        files.write_atomically(path, config.to_json(), new=not exists)
    except FileExistsError:
        raise UserError(f"--workdir={str(workdir)!r} is used by another training; give another directory") from None
    except OSError as error:
        raise UserError(f"--workdir={str(workdir)!r} cannot be written: {error.strerror}") from error
    return list(changes)


def _is_unusable_before_start(workdir: Path) -> bool:
    """Return True if the configuration file is corrupt and there are no checkpoints.

    Raises:
        UserError: if it is corrupt and there are checkpoints.
    """
    try:
        files.read_json(workdir / CONFIG_FILE)
    except UserError as error:
        if checkpoints.steps(workdir / CHECKPOINTS):
            raise UserError(
                f"{error}; the checkpoints beside it need it: restore it from a copy, such as `config` in "
                f"{str(METADATA)!r} of an export, or give another directory"
            ) from error
        return True
    return False


def _create(path: Path, created: list[Path], *, unique: bool) -> Path:
    """Create a directory and its missing parents, and add these to `created`, the deepest first.

    Args:
        path: the directory.
        created: list that gets the new directories.
        unique: add a number to the name if the directory exists.
    """
    created += [parent for parent in path.parents if not parent.exists()]
    with _naming(path):
        files.make_directory(path.parent)
        for number in itertools.count(1):
            chosen = path if number == 1 else path.with_name(f"{path.name}-{number}")
            try:
                chosen.mkdir()
            except FileExistsError:
                if unique:
                    continue
                return chosen
            created.insert(0, chosen)
            files.sync(chosen.parent)
            return chosen
    raise AssertionError  # the loop has no end


@contextlib.contextmanager
def _lock(workdir: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with _naming(workdir), _naming_holder(workdir):
            locked = stack.enter_context(locks.hold(workdir / _LOCK))
        if not locked:
            logger.warning(
                "the file system of %r has no locks: a second training in this directory would not be noticed",
                str(workdir),
            )
        yield


@contextlib.contextmanager
def _naming_holder(workdir: Path) -> Iterator[None]:
    try:
        yield
    except locks.Locked as holder:
        raise UserError(
            f"--workdir={str(workdir)!r} is used by another training, {holder}; wait until it ends, or give another "
            "directory"
        ) from None


@contextlib.contextmanager
def _naming(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--workdir={str(workdir)!r} cannot be written: {error.strerror}") from error


def _check_same_config(workdir: Path, config: Config) -> dict[str, str]:
    """Return a description of each changed setting, by key, all of which may change.

    Raises:
        UserError: if a setting changed that must not.
    """
    before, now = load_config(workdir / CONFIG_FILE).values, config.values
    longer = now["train.epochs"] > before["train.epochs"]
    allowed = _CHANGEABLE | ({"train.epochs", "train.extend"} if now["train.extend"] and longer else set())
    allowed |= {key for key in _MOVABLE if _is_moved(before[key], now[key])}
    changed = [key for key in now if before[key] != now[key]]
    refused = [key for key in changed if key not in allowed and not key.startswith(_CHANGEABLE_GROUP)]
    described = {key: f"{key}={before[key]!r} there and {now[key]!r} now" for key in changed}
    if refused:
        extend = "; train.extend=true continues with more epochs" if refused == ["train.epochs"] and longer else ""
        raise UserError(
            f"--workdir={str(workdir)!r} holds a run of another configuration "
            f"({'; '.join(described[key] for key in refused)}); "
            f"give another directory, or the same configuration to continue{extend}"
        )
    return described


def _is_moved(before: str, now: str) -> bool:
    """Return True for a file or directory that has the same name elsewhere, and is gone from where it was."""
    old, new = Path(before), Path(now)
    return old.is_absolute() and new.is_absolute() and old.name == new.name and not old.exists()
