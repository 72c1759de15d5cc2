"""Files that a table names: relative to its folder or to `data.image_folder`, with or without a suffix."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import user_path
from resnet_tf.core.progress_line import tracked
from resnet_tf.core.text import counted, shortened
from resnet_tf.data.sources.tables.files import Column, Table
from resnet_tf.inputs import ImagePreprocess, files

_MAX_FOLDERS = 50  # folders beside a table in which its images are looked for
_SHOWN = 60  # characters of a path in messages
_NAMED = 3  # missing files in a message


def find_files(table: Table, column: Column, config: DataConfig) -> tuple[list[str], Path]:
    """Return the path of the image of each row, and the folder that they are relative to.

    Without `data.image_folder`, they are relative to the folder of the table, or to the only folder in it that has all
    of them.

    Raises:
        UserError: for rows without a path, paths that lead out of the folders or hold control characters, and missing
            files, which are all counted.
    """
    if len(column.missing):
        raise UserError(
            f"{counted(len(column.missing), 'row')} of {str(table.path)!r} have no image: "
            f"{table.describe_rows(column.missing)}"
        )
    home = table.path if table.path.is_dir() else table.path.parent
    root = _image_folder(config, home)
    names = [_check(table, column, code, value or "") for code, value in enumerate(column.values)]
    found = _Finder(root, home).find_all(names)
    if not config.image_folder and not any(found):
        beside = [home / each for each in files.list_folders(str(home))[:_MAX_FOLDERS]]
        complete = [
            (each, _Finder(each, each).find_all(names)) for each in beside if _Finder(each, each).find(names[0])
        ]
        complete = [(each, paths) for each, paths in complete if all(_used(paths, column))]
        if len(complete) == 1:
            root, found = complete[0]
    missing = np.flatnonzero(~np.array([bool(path) for path in found])[column.codes])
    if len(missing):
        raise UserError(_describe_missing(table, column, missing, root, bool(config.image_folder)))
    return [found[code] for code in column.codes], root


def _used(paths: list[str], column: Column) -> list[str]:
    return [path for path, value in zip(paths, column.values, strict=True) if value is not None]


def _image_folder(config: DataConfig, home: Path) -> Path:
    """Return `data.image_folder`, a path from the working directory or from the folder of the table."""
    if not config.image_folder:
        return home
    given = user_path(config.image_folder)
    found = next((each for each in (given, home / given) if each.is_dir()), None)
    if found is None:
        raise UserError(f"data.image_folder={config.image_folder!r}: no such folder")
    return found


def _check(table: Table, column: Column, code: int, value: str) -> str:
    """Return a path with slashes, and refuse control characters."""
    if any(ord(each) < 32 or ord(each) == 127 for each in value):
        rows = np.flatnonzero(column.codes == code)
        raise UserError(
            f"{str(table.path)!r} has control characters in the path '{shortened(value, _SHOWN)}', "
            f"{table.describe_rows(rows)}"
        )
    return value.replace("\\", "/")


def _describe_missing(table: Table, column: Column, missing: np.ndarray, root: Path, is_set: bool) -> str:
    named = ", ".join(
        f"'{shortened(column.row(int(row)) or '', _SHOWN)}' ({table.describe_rows([row])})" for row in missing[:_NAMED]
    )
    more = ", ..." if len(missing) > _NAMED else ""
    advice = "" if is_set else "; data.image_folder names their folder"
    return (
        f"{len(missing):,} of {counted(len(column.codes), 'image')} of {str(table.path)!r} are not in {str(root)!r}: "
        f"{named}{more}{advice}"
    )


class _Finder:
    """Search of image files by their names in a table; each folder is listed once."""

    def __init__(self, root: Path, home: Path):
        self._roots = list(dict.fromkeys(os.path.abspath(each) for each in (root, home)))
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find_all(self, names: list[str]) -> list[str]:
        """Return the path of each name, empty for a missing file."""
        task = f"finding the images in {self._roots[0]!r}"
        return [self.find(name) for name in tracked(names, task, noun="file", total=len(names))]

    def find(self, name: str) -> str:
        """Return the path of a file below one of the folders, empty if it is missing.

        Raises:
            UserError: if several files match a name without a suffix.
        """
        if not name:
            return ""
        for path in self._candidates(name):
            directory, last = os.path.split(path)
            listed = self._list(directory)
            stem, suffix = os.path.splitext(last)
            if suffix.lower() not in ImagePreprocess.file_suffixes:
                stem, suffix = last, ""
            matches = [each for each in listed.get(stem, []) if each == last] or [
                each
                for each in listed.get(stem, [])
                if not suffix or os.path.splitext(each)[1].lower() == suffix.lower()
            ]
            if len(matches) > 1:
                raise UserError(f"'{shortened(name, _SHOWN)}' could be {' or '.join(matches[:3])} in {directory!r}")
            if matches:
                return os.path.join(directory, matches[0])
        return ""

    def _candidates(self, name: str) -> Iterator[str]:
        """Yield the paths that a name may stand for, below the folders only."""
        for root in self._roots:
            path = os.path.normpath(os.path.join(root, name))
            if any(path.startswith(os.path.join(each, "")) for each in self._roots):
                yield path

    def _list(self, directory: str) -> dict[str, list[str]]:
        """Return the images in a directory, and files without a suffix, by their names without suffix."""
        if directory not in self._folders:
            try:
                with os.scandir(directory) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError:  # missing: its files are reported
                listed = []
            found: dict[str, list[str]] = {}
            for entry in filter(_is_file, listed):
                stem, suffix = os.path.splitext(entry.name)
                key = stem if suffix.lower() in ImagePreprocess.file_suffixes else entry.name
                found.setdefault(key, []).append(entry.name)
            self._folders[directory] = found
        return self._folders[directory]


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return True for a file; False for a link that leads to itself, where `is_file` raises an error."""
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()
