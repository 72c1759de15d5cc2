"""Image folders: split/class/file, or class/file, each class of which is split by a hash of each file name.

A file may lie in subfolders of its class.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import canonical
from resnet_tf.core.errors import UserError
from resnet_tf.core.progress_line import tracked
from resnet_tf.core.text import from_file_name
from resnet_tf.data.sources import division, slices
from resnet_tf.data.sources.base import DataSet, Source, Split, hash_parts
from resnet_tf.data.sources.labels import UnlabeledError, source_of_names
from resnet_tf.inputs import ImagePreprocess, files

logger = logging.getLogger(__name__)

# Class name in Unicode's composed form -> paths of its files, both sorted.
Classes = dict[str, list[str]]


@dataclass(frozen=True)
class ClassFolder:
    """A folder of class/file.

    Attributes:
        path: path of the folder.
        classes: images of each class; classes without images are omitted.
        skipped: path -> description of each file that is no image or in no class.
    """

    path: str
    classes: Classes
    skipped: dict[str, str]

    @property
    def has_classes(self) -> bool:
        """True if a class has an image that is not in a subfolder."""
        return any("" in below for below in self._subfolders.values())

    def has_splits(self, named: Collection[str] = ()) -> bool:
        """Return True if folders without own images are splits, by their names, or as the only folder.

        Args:
            named: further names of splits.
        """
        nested = [name for name, below in self._subfolders.items() if "" not in below]
        return any(slices.use_of(name) or name in named for name in nested) or len(self.classes) == len(nested) == 1

    def unlabeled_splits(self) -> list[str]:
        """Return the folders named like splits whose images are in no class folder, where others are splits."""
        below = self._subfolders
        return [name for name, found in below.items() if found == {""} and slices.use_of(name) and self.has_splits()]

    def without(self, names: Collection[str]) -> "ClassFolder":
        """Return the folder without the images of some classes."""
        return dataclasses.replace(
            self, classes={name: paths for name, paths in self.classes.items() if name not in names}
        )

    def check_layout(self, named: Collection[str] = ()) -> None:
        """Refuse class/split/file, whose splits would be mixed, and folders that may be classes as well as splits.

        Args:
            named: further names of splits.

        Raises:
            UserError: if all images of several classes are in folders that are named like splits, or folders without
                own images have a subfolder in common, and none is named like a split.
        """
        below = self._subfolders
        if len(self.classes) > 1 and all(map(slices.use_of, set().union(*below.values()))):
            example = self.relative(next(iter(self.classes.values()))[0])
            raise UserError(f"{self.path!r} has class/split/file, such as {example}; expected split/class/file")
        nested = {} if self.has_splits(named) else {name: found for name, found in below.items() if "" not in found}
        owners: dict[str, str] = {}  # subfolder -> first folder that has it
        for other, found in nested.items():
            shared = next((name for name in sorted(found) if name in owners and not slices.use_of(name)), None)
            if shared is not None:
                one = owners[shared]
                raise UserError(
                    f"{one!r} and {other!r} of {self.path!r} both have a folder {shared!r}, so they may be classes or "
                    f"splits. If they are classes, rename it, as in {one}/{one}_{shared}; if they are splits, "
                    f"data.train_split={one} with data.eval_split={other} names them, and {one}+{other} both together"
                )
            owners |= dict.fromkeys(found, other)

    def relative(self, file: str) -> str:
        """Return class/file of the path of an image."""
        return file.removeprefix(os.path.join(self.path, "")).replace(os.sep, "/")

    def folder(self, name: str) -> Path:
        """Return the path of the folder of a class."""
        return Path(self.path, self.relative(self.classes[name][0]).split("/")[0])

    @functools.cached_property  # of a million files
    def _subfolders(self) -> dict[str, set[str]]:
        """First folders below each class; empty text stands for the class itself."""
        return {name: {self._subfolder(file) for file in paths} for name, paths in self.classes.items()}

    def _subfolder(self, file: str) -> str:
        """Return the first folder between a class and a file; empty if there is none."""
        _, first, *below = self.relative(file).split("/")
        return first if below else ""


def find_folder(root: Path, config: DataConfig, *, whole: bool) -> DataSet:
    """Return the data set of a folder, whose splits are folders, or by hash.

    Args:
        root: path of the folder.
        config: names of the splits, which may be folders of any name.
        whole: if the folder is class/file, the validation split is all of it, whatever its name.

    Raises:
        UserError: if the folder cannot be read.
    """
    return DataSet(tuple(list_splits(root, _plain_names(config))), lambda config: _open(root, config, whole=whole))


def list_splits(root: Path, named: Sequence[str] = ()) -> list[str]:
    """Return the folders of split/class/file; empty for class/file.

    Args:
        root: path of the folder.
        named: names of splits in the configuration.
    """
    folders = files.list_folders(str(root))
    if _has_split_folders(root, named):
        return folders
    if any(files.has_files(str(root / name), ImagePreprocess) for name in folders if not slices.use_of(name)):
        return []
    return folders if list_classes(root).has_splits() else []


def _open(root: Path, config: DataConfig, *, whole: bool) -> Source:
    """Open the splits that `config` names, or slices of them.

    Raises:
        UserError: for a folder without images, or a split that does not exist.
    """
    if _has_split_folders(root, _plain_names(config)):
        folders = _list_splits(root, config)
    else:
        if whole:
            config = dataclasses.replace(config, train_split=slices.ALL, eval_split=slices.ALL, test_split="")
        folders = _split_by_config(root, config)
    found, first = {name for each in folders.values() for name in each.classes}, next(iter(folders.values()))
    names = list(first.classes) if found <= set(first.classes) else sorted(found)
    splits = [_split(root, name, _select(folders, name), names) for name in config.splits]
    return source_of_names(str(root), splits, names)


def _plain_names(config: DataConfig) -> list[str]:
    """Return the names of splits in the configuration, without parts, each once."""
    return slices.plain_names(config.splits, [slices.ALL])


def _has_split_folders(root: Path, splits: Sequence[str]) -> bool:
    """Return True if folders are splits; a class may have the name of a split, such as trains in `train`."""
    present = [name for name in splits if (root / name).is_dir()]
    if not present and slices.ALL in splits:
        folder = list_classes(root)
        return folder.has_splits() and not folder.has_classes
    if not present or any(files.list_folders(str(root / name)) for name in present):
        return bool(present)
    return all(name in splits or slices.use_of(name) for name in files.list_folders(str(root)))


def _list_splits(root: Path, config: DataConfig) -> dict[str, ClassFolder]:
    """Return the complete splits of a folder of split/class/file that `config` names; `all` is all of them."""
    named = _plain_names(config)
    present = files.list_folders(str(root)) if slices.ALL in named and not (root / slices.ALL).is_dir() else []
    found = {name: _list_split(root, name, config) for name in slices.plain_names(named, present or [slices.ALL])}
    log_skipped(root, *found.values())
    if present:
        found[slices.ALL] = ClassFolder(str(root), _union(found[name].classes for name in present), {})
    return found


def _union(parts: Iterable[Classes]) -> Classes:
    """Return the images of all parts of a data set."""
    union: Classes = {}
    for part in parts:
        for name, paths in part.items():
            union[name] = union.get(name, []) + paths
    return union


def _select(folders: dict[str, ClassFolder], split: str) -> Classes:
    """Return the images of a split, of a part, or of a sum of them."""
    return _union(_select_part(folders[slices.plain_name(term)], term) for term in slices.terms(split))


def _select_part(folder: ClassFolder, split: str) -> Classes:
    """Return the images that a slice such as `test[:100]` selects, with all classes in proportion.

    The order is that of `division.stratified_order`. Without a slice, all images are returned.

    Args:
        folder: images of the complete split.
        split: name of the split, with or without a slice.
    """
    if slices.plain_name(split) == split:
        return folder.classes
    paths, labels = _flatten(folder)
    order = division.stratified_order(labels, [folder.relative(file) for file in paths])
    chosen = {paths[index] for index in order[slices.part(split, len(paths))]}
    selected = {name: [file for file in paths if file in chosen] for name, paths in folder.classes.items()}
    return {name: paths for name, paths in selected.items() if paths}


def _split_by_config(root: Path, config: DataConfig) -> dict[str, ClassFolder]:
    """Return the complete splits of a folder of class/file that `config` names: parts by hash, or all images."""
    folder = list_classes(root)
    everything = folder.classes
    folder.check_layout()
    if folder.has_splits() or not everything:
        raise UserError(_no_splits(root, slices.plain_name(config.train_split), config))
    slices.check_parts(config, f"a folder of {str(root)!r} with split/class/file; class/file")
    wanted = {name: slices.find_part(str(root), "a folder of class/file", name) for name in _plain_names(config)}
    train, validation = split_by_hash(folder, config.eval_fraction)
    if "test" in wanted.values() and not validation:
        raise UserError(
            f"data.eval_fraction={config.eval_fraction:g} leaves no image of {str(root)!r} for evaluation: a class "
            "with one image has it in training. Add images, or use split/class/file with folders that "
            "data.train_split and data.eval_split name"
        )
    log_skipped(root, folder)
    parts = {"train": train, "test": validation, slices.ALL: everything}
    return {name: dataclasses.replace(folder, classes=parts[part]) for name, part in wanted.items()}


def list_classes(folder: Path) -> ClassFolder:
    """Return the images of a folder of class/file, also those in subfolders of a class."""
    names = files.list_folders(str(folder))
    with files.indexing(str(folder)) as progress:
        listed = {
            name: files.list_files(os.path.join(folder, name), ImagePreprocess, progress=progress) for name in names
        }
        outside = files.list_files(str(folder), ImagePreprocess, recursive=False, progress=progress)
    skipped = outside.skipped | dict.fromkeys(outside.files, "outside of a class folder")
    for each in listed.values():
        skipped |= each.skipped
    return ClassFolder(str(folder), _merge(folder, {name: each.files for name, each in listed.items()}), skipped)


def _merge(folder: Path, listed: Classes) -> Classes:
    """Return the images of each class; folders whose names differ in their Unicode form only are one class.

    File systems and archives of macOS decompose characters: `é` has two forms.

    Args:
        folder: path that the class folders lie in.
        listed: name of each class folder, as in the file system -> paths of its images.
    """
    folders: dict[str, list[str]] = {}
    for name in sorted((name for name, paths in listed.items() if paths), key=canonical):
        folders.setdefault(canonical(from_file_name(name)), []).append(name)
    for names in folders.values():
        if len(set(map(canonical, names))) > 1:
            raise UserError(f"two class folders of {str(folder)!r} have the same name as text; rename one of them")
        if len(names) > 1:
            logger.warning("class folders %s of %r are one class", " and ".join(map(ascii, names)), str(folder))
    return {each: [file for name in names for file in listed[name]] for each, names in folders.items()}


def log_skipped(root: Path, *folders: ClassFolder) -> None:
    """Log the skipped files of folders below a root; see `inputs.files.log_skipped`."""
    skipped = {path: description for folder in folders for path, description in folder.skipped.items()}
    files.log_skipped(str(root), skipped, ImagePreprocess)


def _list_split(root: Path, split: str, config: DataConfig) -> ClassFolder:
    if not (root / split).is_dir():
        raise UserError(_no_splits(root, split, config))
    folder = list_classes(root / split)
    if not folder.classes:
        labeled = [name for name in files.list_folders(str(root)) if files.list_folders(str(root / name))]
        if labeled and files.has_files(str(root / split), ImagePreprocess):
            raise UnlabeledError(
                f"the images of {str(root / split)!r} are in no class folder, as those of a split without labels; "
                f"{slices.advise_labeled(config, split, labeled)}"
            )
        log_skipped(root, folder)
        suffixes = ", ".join(ImagePreprocess.file_suffixes)
        raise UserError(
            f"no images under {str(root / split)!r}: expected class/file with {suffixes}. If {split!r} is a class, "
            "rename its folder, or move all class folders into a folder that data.train_split names"
        )
    return folder


def _no_splits(root: Path, split: str, config: DataConfig) -> str:
    present = files.list_folders(str(root))
    is_inside = len(present) == 1 and not slices.use_of(present[0]) and present[0] not in _plain_names(config)
    if is_inside and files.list_folders(str(root / present[0])):
        return f"{str(root)!r} has no folder {split!r}; did you mean data.source={str(root / present[0])!r}?"
    return (
        f"{str(root)!r} has no folder {split!r}; it has {', '.join(present) or 'no folders'}; "
        f"{slices.advise(config, split, present)}. Images belong in split/class/file or in class/file"
    )


def split_by_hash(folder: ClassFolder, fraction: float) -> tuple[Classes, Classes]:
    """Split each class of a folder of class/file into a training and a validation split; see `division.divide`.

    The hash of an image is that of its path below the folder, so that its split does not depend on other images, and a
    copy of the folder is divided equally.

    Args:
        folder: all files.
        fraction: fraction of the validation split.

    Returns:
        The training split and the validation split, without classes that have no file there.
    """
    splits: tuple[Classes, Classes] = ({}, {})
    files, labels = _flatten(folder)
    names = list(folder.classes)
    chosen = division.divide(labels, [folder.relative(file) for file in files], fraction)
    for file, label, is_chosen in zip(files, labels, chosen, strict=True):
        splits[int(is_chosen)].setdefault(names[label], []).append(file)
    return splits


def _flatten(folder: ClassFolder) -> tuple[list[str], np.ndarray]:
    """Return the paths of all images, and the index of the class of each, int64 [N]."""
    files = [file for paths in folder.classes.values() for file in paths]
    return files, np.repeat(np.arange(len(folder.classes)), [len(paths) for paths in folder.classes.values()])


def _split(root: Path, name: str, classes: Classes, class_names: Sequence[str]) -> Split:
    files = [file for paths in classes.values() for file in paths]
    indices = {class_name: label for label, class_name in enumerate(class_names)}
    labels = np.repeat([indices[class_name] for class_name in classes], [len(paths) for paths in classes.values()])
    return split_of_files(root, name, files, labels)


def split_of_files(root: Path, name: str, files: list[str], labels: np.ndarray) -> Split:
    """Return a split of one file for each example.

    Args:
        root: folder that the files are in.
        name: name of the split.
        files: path of each example, in order.
        labels: see `Split`.
    """
    paths = tf.constant([os.fsencode(file) for file in files], tf.string)  # names need not be UTF-8
    return Split(
        name,
        labels,
        load=lambda index: tf.io.read_file(paths[index]),
        locate=lambda index: {"file": files[index]},
        fingerprint=lambda: hash_parts(_names_and_sizes(root, files)),
    )


def _names_and_sizes(root: Path, files: list[str]) -> Iterator[str]:
    """Yield the path below the root, and the size in bytes, of each file.

    Raises:
        UserError: if a file has disappeared.
    """
    for file in tracked(files, f"hashing the names and sizes of {str(root)!r}", noun="file", total=len(files)):
        try:
            size = os.stat(file).st_size
        except OSError as error:
            raise UserError(f"cannot read {file!r}: {error.strerror}") from error
        yield from (os.path.relpath(file, root), str(size))
