"""Findings of an audit: lists of examples with a score, from groups of duplicates, scans and labels."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from resnet_tf.core.targets import targets_of
from resnet_tf.data.audit.duplicates import EXACT, Group
from resnet_tf.data.audit.label_errors import LabelError
from resnet_tf.data.audit.measures import Issue
from resnet_tf.data.audit.outliers import Scored
from resnet_tf.data.audit.scan import ARRAY, FORMATS, UPRIGHT, Scan
from resnet_tf.data.sources import Split
from resnet_tf.data.sources.tables import MISSING

# Names of the lists of an audit, in the order of its page.
LISTS = (
    "unreadable",
    "exact_duplicates",
    "near_duplicates",
    "leaks",
    "label_conflicts",
    "label_errors",
    "outliers",
    "quality",
)
GROUP = "group"  # leak of a group, such as a patient, beside the ways in which duplicates match

_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "GIF": (".gif",), "BMP": (".bmp",), "WebP": (".webp",)}


@dataclass(frozen=True, eq=False)
class Examples:
    """All examples of a data set, one split after the other.

    Attributes:
        split: their labels and content.
        names: names of the splits.
        owners: index of the split of each example, int64 [N].
        class_names: names of the classes.
        uses: use of each split by the configuration, `train`, `validation` or `test`; empty if it selects no splits.
    """

    split: Split
    names: tuple[str, ...]
    owners: np.ndarray
    class_names: tuple[str, ...]
    uses: tuple[str, ...] = ()

    @classmethod
    def join(cls, splits: Mapping[str, Split], class_names: Sequence[str], uses: Sequence[str] = ()) -> "Examples":
        """Return the examples of several splits with the same classes."""
        owners = np.repeat(np.arange(len(splits)), [each.num_examples for each in splits.values()])
        return cls(Split.join("all", list(splits.values())), tuple(splits), owners, tuple(class_names), tuple(uses))

    def path(self, index: int) -> str:
        """Return the path of a file, followed by the position of the example if the file holds several."""
        return path_of(self.split.locate(index))

    def classes(self, index: int) -> list[str]:
        """Return the names of the classes of an example."""
        return targets_of(self.split.labels).names(self.split.labels[index], self.class_names)

    def splits_of(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Return the names of the splits that have some of the examples."""
        return [self.names[owner] for owner in np.unique(self.owners[indices])]

    def to_dict(self, index: int) -> dict[str, Any]:
        """Return path, split, index in it, and classes of an example, ready for JSON."""
        owner = int(self.owners[index])
        first = int(np.searchsorted(self.owners, owner))
        position = {"split": self.names[owner], "index": index - first}
        return {"path": self.path(index), **position, "classes": self.classes(index)}


@dataclass(frozen=True)
class Finding:
    """A finding about one example, or about several that belong together.

    Attributes:
        indices: indices of the examples; empty for a lost part of a file.
        score: certainty or severity in [0, 1].
        reason: description of the finding.
        details: further values, ready for JSON.
        paths: paths of a lost part of a file, which is no example.
    """

    indices: tuple[int, ...]
    score: float
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()

    def to_dict(self, examples: Examples) -> dict[str, Any]:
        """Return paths, score, reason, the examples and the details, ready for JSON."""
        found = [examples.to_dict(index) for index in self.indices]
        paths = [*self.paths, *(each["path"] for each in found)]
        score = {"score": round(self.score, 4), "reason": self.reason}
        return {"paths": paths, **score, "examples": found, **self.details}


def path_of(location: Mapping[str, Any]) -> str:
    """Return the location of an example, see `Split.locate`, as text."""
    return ":".join(map(str, location.values()))


def list_unreadable(examples: Examples, scan: Scan) -> list[Finding]:
    """Return the examples that cannot be read, lost parts of files, and files with the suffix of another format."""
    lost = [
        Finding((), 1.0, each.reason, {"lost_examples": each.examples}, (f"{each.file}:{each.offset}",))
        for each in examples.split.corruption
    ]
    unreadable = [Finding((index,), 1.0, reason) for index, reason in scan.reasons.items()]
    return [*lost, *unreadable, *_list_wrong_suffixes(examples, scan)]


def _list_wrong_suffixes(examples: Examples, scan: Scan) -> Iterator[Finding]:
    for index in np.flatnonzero(scan.readable & (scan.formats != ARRAY)).tolist():
        location = examples.split.locate(index)
        suffix = os.path.splitext(str(location.get("file", "")))[1].lower()
        name = FORMATS[scan.formats[index]]
        if set(location) == {"file"} and suffix and suffix not in _SUFFIXES.get(name, (suffix,)):
            details = {"format": name, "suffix": suffix}
            yield Finding((index,), 0.5, f"the content is {name}, the suffix is {suffix}; it can be read", details)


def list_duplicates(groups: Sequence[Group]) -> list[Finding]:
    """Return groups of duplicates as findings."""
    return [_from_group(each) for each in groups]


def list_leaks(examples: Examples, groups: Sequence[Group]) -> list[Finding]:
    """Return the groups of duplicates with examples in several splits."""
    found = []
    for each in groups:
        splits = examples.splits_of(each.indices)
        if len(splits) > 1:
            found.append(_from_group(each, f" in {' and '.join(splits)}", splits=splits))
    return found


def list_group_leaks(examples: Examples, column: str, values: Sequence[str]) -> list[Finding]:
    """Return the groups, such as patients, that have examples in several splits.

    Args:
        examples: all examples.
        column: name of the column of groups.
        values: group of each example, [N].
    """
    members: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        members.setdefault(value, []).append(index)
    found = []
    for value, indices in members.items():
        splits = examples.splits_of(indices)
        if value != MISSING and len(splits) > 1:
            reason = f"group {value} of column {column} in {' and '.join(splits)}"
            found.append(Finding(tuple(indices), 1.0, reason, {"match": GROUP, "group": value, "splits": splits}))
    return found


def list_label_conflicts(examples: Examples, groups: Sequence[Group]) -> list[Finding]:
    """Return the groups of duplicates whose examples have different labels."""
    found = []
    for each in groups:
        if len(np.unique(examples.split.labels[each.indices], axis=0)) > 1:
            names = list(dict.fromkeys(", ".join(examples.classes(index)) or "no class" for index in each.indices))
            found.append(_from_group(each, f", labeled {' and '.join(names)}", labels=names))
    return found


def list_label_errors(examples: Examples, errors: Sequence[LabelError]) -> list[Finding]:
    """Return likely label errors as findings."""
    found = []
    for each in errors:
        given, suggested = (
            [examples.class_names[label] for label in labels] for labels in (each.given, each.suggested)
        )
        reason = f"labeled {', '.join(given) or 'no class'}, looks like {', '.join(suggested) or 'no class'}"
        found.append(Finding((each.index,), each.score, reason, {"given": given, "suggested": suggested}))
    return found


def list_outliers(far: Scored, unexplained: Scored) -> list[Finding]:
    """Return the outliers by features and by pixels as findings, an example once, with its higher score.

    A score is 1 minus the ratio of the usual distance to that of the example.
    """
    found: dict[int, Finding] = {}
    for (indices, scores), distance in (
        (far, "distance to its nearest neighbors"),
        (unexplained, "difference from the patterns of the other images"),
    ):
        for index, score in zip(indices.tolist(), scores.tolist(), strict=True):
            if index not in found or score > found[index].score:
                reason = f"{1 / max(1 - score, 1e-9):.1f} times the usual {distance}"
                found[index] = Finding((index,), score, reason)
    return list(found.values())


def list_quality(issues: Sequence[Issue], scan: Scan) -> list[Finding]:
    """Return issues of quality, and images that are stored rotated, as findings."""
    found = [
        Finding(
            (index,), score, f"{each.name}: {each.unit} {value:.3g}", {"issue": each.name, "value": round(value, 4)}
        )
        for each in issues
        for index, score, value in zip(each.indices.tolist(), each.scores.tolist(), each.values.tolist(), strict=True)
    ]
    for index in np.flatnonzero(scan.orientations != UPRIGHT).tolist():
        value = int(scan.orientations[index])
        reason = f"rotated: EXIF orientation {value}, which only data.exif_orientation=true applies"
        found.append(Finding((index,), 0.5, reason, {"issue": "rotated", "value": value}))
    return found


def _from_group(group: Group, addition: str = "", **details: Any) -> Finding:
    """Return a group of duplicates as a finding, with an addition to its reason."""
    reason = _describe(group) + addition
    return Finding(tuple(group.indices.tolist()), group.score, reason, {"match": group.match, **details})


def _describe(group: Group) -> str:
    number = len(group.indices)
    if group.match == EXACT:
        return f"{number} images of equal pixels"
    mirrored = ", mirrored" if group.match != "near" else ""
    return f"{number} images that look alike{mirrored} (correlation {group.score:.3f})"
