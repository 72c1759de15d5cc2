"""Audit of a data set before training: duplicates, leaks, label errors, outliers and image quality."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from resnet_tf.config import Config, DataConfig, override, parse_assignments
from resnet_tf.config.effects import check_data_keys, check_effects
from resnet_tf.core.errors import UserError
from resnet_tf.core.machine import describe
from resnet_tf.core.paths import source_text, user_path
from resnet_tf.core.progress_line import tracked
from resnet_tf.core.targets import targets_of
from resnet_tf.core.text import counted, printable
from resnet_tf.data.audit import tables
from resnet_tf.data.audit.checks import Checked, check, describe_splits
from resnet_tf.data.audit.findings import LISTS, Examples, Finding
from resnet_tf.data.audit.label_errors import import_cleanlab
from resnet_tf.data.audit.scan import allocate
from resnet_tf.data.audit.tables import WrittenTable
from resnet_tf.data.sources import Source, open_source, open_splits, slices
from resnet_tf.inputs import ImagePreprocess, input_type
from resnet_tf.report import audit_page
from resnet_tf.report.audit_page import Card, Distribution, Panel
from resnet_tf.serving.predictor import Predictor

_SPLIT_KEYS = ("data.train_split", "data.eval_split", "data.test_split")
_SHOWN_SIZE = 128  # pixels of the longer edge of an image on the page, at most
_BATCH = 64

# List -> title and description on the page.
_PANELS = {
    "unreadable": ("Unreadable files", "A training run replaces an unreadable image by another one."),
    "exact_duplicates": ("Exact duplicates", "Images with equal pixels, whatever their encoding."),
    "near_duplicates": ("Near duplicates", "Images with about equal low frequencies, as they are or mirrored."),
    "leaks": ("Leaks between splits", "Duplicates in several splits: metrics on them are too good for new data."),
    "label_conflicts": ("Label conflicts", "Duplicates with different labels."),
    "label_errors": ("Likely label errors", "A linear probe that was fitted without the image predicts another class."),
    "outliers": ("Outliers", "Images far from all others by their features, or by their pixels."),
    "quality": ("Quality", "Dark, light, blurred, gray and rotated images, and images of unusual size."),
}


@dataclass(frozen=True, repr=False)
class AuditResult:
    """Outcome of `audit`.

    Attributes:
        name: name or path of the data set.
        examples: all examples, one split after the other.
        checked: the findings.
        config: settings of the data set.
        preprocess: decodes the images.
        table: the table that was written, or None.
    """

    name: str
    examples: Examples
    checked: Checked
    config: DataConfig
    preprocess: ImagePreprocess
    table: WrittenTable | None = None

    @property
    def findings(self) -> Mapping[str, Sequence[Finding]]:
        """Lists of findings by name, each with the most certain or severe finding first."""
        return self.checked.findings

    def to_dict(self) -> dict[str, Any]:
        """Return the splits, the lists of findings and the notes, ready for JSON."""
        lists = {name: [each.to_dict(self.examples) for each in found] for name, found in self.findings.items()}
        splits = describe_splits(self.examples, self.checked.scan)
        return {"source": self.name, "splits": splits, **lists, "notes": list(self.checked.notes)}

    def write_report(self, directory: str | Path) -> Path:
        """Write a page with the findings and their images, `index.html`, to `directory`, and return its path.

        Raises:
            UserError: if `directory` cannot be written.
        """
        return audit_page.write_audit(
            user_path(directory),
            name=self.name,
            class_names=self.examples.class_names,
            distributions=[self._distribution(owner) for owner in range(len(self.examples.names))],
            panels=[self._panel(name) for name in LISTS],
            notes=self.checked.notes,
            load_image=self._load,
            environment=describe(),
        )

    def write_table(self, path: str | Path, *, leave_out: Sequence[str] = tables.BAD) -> WrittenTable:
        """Write a table of the examples that `data.source` accepts, without those of some lists of findings.

        Of exact and near duplicates one stays, and of leaks those in the test split, or in the validation split. No
        file is moved or deleted.

        Args:
            path: CSV file to write.
            leave_out: names of lists; by default all but `near_duplicates`, `outliers` and `quality`.

        Raises:
            UserError: if the examples are in no files of their own, or the table cannot be written.
        """
        tables.check_request(user_path(path), leave_out)
        left_out = tables.choose_left_out(self.examples, self.findings, leave_out)
        return tables.write_table(user_path(path), self.examples, left_out, self.config)

    def _distribution(self, owner: int) -> Distribution:
        own, scan = self.examples.owners == owner, self.checked.scan
        labels = self.examples.split.labels[own]
        counts = targets_of(labels).class_counts(labels, len(self.examples.class_names))
        return Distribution(self.examples.names[owner], counts, scan.sizes[own & scan.readable])

    def _panel(self, name: str) -> Panel:
        found = self.findings[name]
        cards = [
            Card(each.reason, each.score, {index: self._caption(index) for index in each.indices[:100]}, each.paths)
            for each in found[: audit_page.MAX_CARDS]
        ]
        return Panel(*_PANELS[name], len(found), cards)

    def _caption(self, index: int) -> list[str]:
        """Return path, split and classes of an example."""
        names = ", ".join(self.examples.classes(index)) or "no class"
        return [self.examples.path(index), f"{self.examples.names[self.examples.owners[index]]}: {names}"]

    def _load(self, index: int) -> np.ndarray | None:
        """Return an image in a size for the page, float32 [h, w, 3] in [0, 1]; None if it cannot be read."""
        if not self.checked.scan.readable[index]:
            return None
        image = self.preprocess.decode(self.examples.split.load(tf.constant(index, tf.int64)))
        if max(image.shape[:2]) > _SHOWN_SIZE:
            image = tf.image.resize(image, [_SHOWN_SIZE] * 2, preserve_aspect_ratio=True, antialias=True)
        return np.clip(image.numpy() / 255.0, 0, 1)

    def __str__(self) -> str:
        counts = [f"{_PANELS[name][0].lower():<22}{len(found):>8,}" for name, found in self.findings.items()]
        splits = ", ".join(
            f"{each['name']} {each['examples']:,}" for each in describe_splits(self.examples, self.checked.scan)
        )
        return "\n".join([printable(f"{self.name}: {splits}"), *counts])

    def __repr__(self) -> str:
        found = sum(map(len, self.findings.values()))
        return (
            f"AuditResult({self.name!r}, {counted(len(self.examples.owners), 'example')}, {counted(found, 'finding')})"
        )


def audit(
    data: str | Path = "",
    *,
    model: Predictor | str | Path = "",
    overrides: Sequence[str] = (),
    fix: str | Path = "",
    leave_out: Sequence[str] = tables.BAD,
) -> AuditResult:
    """Search a data set for files, labels and images that would spoil training or its metrics.

        result = resnet_tf.audit("photos/")
        print(result, result.findings["leaks"], result.write_report("audit/"))
        print(result.write_table("list.csv").settings)

    Args:
        data: data set of images, as in `data.source`; a `Path` of a file or folder is never the name of a data set.
        model: an exported network, or its directory; its features are used for label errors and outliers. By default,
            features are computed without a network.
        overrides: further settings of the `data` group. By default, all splits are examined, otherwise those that
            `data.train_split`, `data.eval_split` and `data.test_split` name.
        fix: CSV file to write, see `AuditResult.write_table`; empty for none.
        leave_out: lists of findings whose examples are not in it.

    Raises:
        UserError: if cleanlab is not installed, the data or the model cannot be opened, the examples are no images, or
            the table cannot be written.
    """
    import_cleanlab()
    if fix:
        tables.check_request(user_path(fix), leave_out)
    changes = parse_assignments([*overrides, *([f"data.source={source_text(data)}"] if data else [])])
    check_data_keys(changes, "audit")
    config = override(Config(), {"data.exif_orientation": True} | changes)
    check_effects(config, changes)
    if not input_type(config.data).supports_audit:
        raise UserError(f"`audit` examines images; {input_type(config.data).plural} have no such checks")
    predictor = Predictor(model) if isinstance(model, str | Path) and str(model) else model
    name, examples, notes = _open(config.data, changes)
    if fix:
        tables.check_files(examples, name)
    preprocess = ImagePreprocess(
        size=(_SHOWN_SIZE, _SHOWN_SIZE), exif_orientation=True, max_pixels=config.data.max_pixels
    )
    checked = check(
        examples,
        preprocess,
        embed=functools.partial(_embed, predictor, examples) if isinstance(predictor, Predictor) else None,
        column=config.data.group_column,
    )
    checked.notes[:0] = notes
    result = AuditResult(name, examples, checked, config.data, preprocess)
    return dataclasses.replace(result, table=result.write_table(fix, leave_out=leave_out)) if fix else result


def _open(config: DataConfig, changes: Mapping[str, Any]) -> tuple[str, Examples, list[str]]:
    """Return the name of a data set, its examples, and notes: the splits that are set, otherwise all."""
    notes: list[str] = []
    uses: tuple[str, ...] = ()
    if changes.keys() & set(_SPLIT_KEYS):
        source = open_source(config, for_training=False, given=changes)
        splits = {split.name: split for split in source.splits.values()}
        uses = tuple({split.name: slices.use_of(use) for use, split in source.splits.items()}.values())
    else:
        try:
            source, splits = open_splits(config)
        except UserError as error:
            source, notes = _open_undivided(config, error), [f"the data are examined as one split: {error}"]
            splits = {slices.ALL: source.train}
    return source.name, Examples.join(splits, source.class_names, uses), notes


def _open_undivided(config: DataConfig, reason: UserError) -> Source:
    """Return data that cannot be divided, such as those of one image for each class, as one split.

    Raises:
        UserError: the reason, if they cannot be opened, either.
    """
    config = dataclasses.replace(config, train_split=slices.ALL, eval_split=slices.ALL, test_split="")
    try:
        return open_source(config, for_training=False)
    except UserError:
        raise reason from None


def _embed(predictor: Predictor, examples: Examples, indices: np.ndarray, directory: Path) -> np.ndarray:
    """Return features of some examples by an exported network, float32 [n, D]."""
    batches = tracked(
        predictor.features(examples.split, indices, batch_size=_BATCH),
        "computing features",
        noun="batch",
        total=-(-len(indices) // _BATCH),
    )
    first = next(batches)
    features = allocate(directory, "features", (len(indices), first.shape[1]), np.float32)
    features[: len(first)] = first
    position = len(first)
    for batch in batches:
        features[position : position + len(batch)] = batch
        position += len(batch)
    return features
