"""All checks of an audit, from the examples of a data set to its findings."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnet_tf.core.targets import targets_of
from resnet_tf.core.text import counted
from resnet_tf.data.audit import findings
from resnet_tf.data.audit.duplicates import Group, find_exact, find_near
from resnet_tf.data.audit.features import patch_features
from resnet_tf.data.audit.findings import LISTS, Examples, Finding
from resnet_tf.data.audit.label_errors import LabelError, find_label_errors, frequent_classes
from resnet_tf.data.audit.measures import find_issues
from resnet_tf.data.audit.outliers import Scored, find_outliers, find_unexplained
from resnet_tf.data.audit.probe import FOLDS, cross_validate
from resnet_tf.data.audit.scan import Scan, scan
from resnet_tf.inputs import ImagePreprocess

# (indices of examples, directory of temporary files) -> features of the examples, [n, D].
Embed = Callable[[np.ndarray, Path], np.ndarray]


@dataclass(frozen=True)
class Checked:
    """Outcome of the checks.

    Attributes:
        scan: properties of the examples, without thumbnails.
        findings: the lists of `LISTS`, each with the most certain or severe finding first.
        notes: checks that were left out, and properties of the data set as a whole.
    """

    scan: Scan
    findings: dict[str, list[Finding]]
    notes: list[str]


def check(
    examples: Examples,
    preprocess: ImagePreprocess,
    *,
    embed: Embed | None = None,
    column: str = "",
) -> Checked:
    """Return the findings about all examples.

    Args:
        examples: all examples of a data set.
        preprocess: decodes them.
        embed: computes features with a trained network; by default, they are those of `patch_features`.
        column: column of the groups that must not be divided between splits, of a table; empty for none.
    """
    with tempfile.TemporaryDirectory(prefix="resnet_tf-audit-") as temporary:
        directory = Path(temporary)
        scanned = scan(examples.split, preprocess, directory)
        exact = find_exact(scanned.hashes, scanned.sizes, scanned.readable)
        distinct = _distinct(scanned, exact)
        near = _with_copies(find_near(scanned.thumbnails, distinct), exact)
        issues = find_issues(scanned.measures, scanned.sizes)
        notes = [_describe_prevalence(each.name, each.prevalence) for each in issues if each.prevalence > 0.5]
        errors, far = _check_features(examples, scanned, distinct, embed, directory, notes)
        unexplained = find_unexplained(scanned.thumbnails, distinct)
    groups = [*exact, *near]
    leaks = findings.list_leaks(examples, groups)
    if column:
        leaks += findings.list_group_leaks(examples, column, examples.split.column(column))
    found = {
        "unreadable": findings.list_unreadable(examples, scanned),
        "exact_duplicates": findings.list_duplicates(exact),
        "near_duplicates": findings.list_duplicates(near),
        "leaks": leaks,
        "label_conflicts": findings.list_label_conflicts(examples, groups),
        "label_errors": findings.list_label_errors(examples, errors),
        "outliers": findings.list_outliers(far, unexplained),
        "quality": findings.list_quality(issues, scanned),
    }
    ordered = {name: sorted(found[name], key=lambda finding: -finding.score) for name in LISTS}
    scanned = dataclasses.replace(scanned, thumbnails=scanned.thumbnails[:0].copy())  # of a temporary file
    return Checked(scanned, ordered, notes)


def _distinct(scanned: Scan, exact: Sequence[Group]) -> np.ndarray:
    """Return the readable examples without all but the first of each group of copies, int64 [n]."""
    kept = scanned.readable.copy()
    for each in exact:
        kept[each.indices[1:]] = False
    return np.flatnonzero(kept)


def _with_copies(groups: Sequence[Group], exact: Sequence[Group]) -> list[Group]:
    """Return groups of distinct examples with the copies of each."""
    copies = {int(each.indices[0]): each.indices for each in exact}
    return [
        dataclasses.replace(
            group, indices=np.sort(np.concatenate([copies.get(index, np.array([index])) for index in group.indices]))
        )
        for group in groups
    ]


def _check_features(
    examples: Examples, scanned: Scan, distinct: np.ndarray, embed: Embed | None, directory: Path, notes: list[str]
) -> tuple[list[LabelError], Scored]:
    """Return the likely label errors, and outliers by features with scores; append the checks that are left out."""
    readable = np.flatnonzero(scanned.readable)
    if not len(readable):
        return [], (np.zeros(0, np.int64), np.zeros(0))
    embed = embed or functools.partial(patch_features, scanned.thumbnails)
    features = embed(readable, directory)
    errors = _check_labels(examples, features, readable, directory, notes)
    found, scores = find_outliers(features, np.searchsorted(readable, distinct), directory)
    return errors, (readable[found], scores)


def _check_labels(
    examples: Examples, features: np.ndarray, readable: np.ndarray, directory: Path, notes: list[str]
) -> list[LabelError]:
    labels, count = examples.split.labels[readable], len(examples.class_names)
    classes = frequent_classes(labels, count)
    if len(classes) < count:
        rare = f"{count - len(classes):,} of {counted(count, 'class')}"
        notes.append(f"label errors: {rare} have fewer than {FOLDS} images and are left out")
    if len(classes) < 2:
        notes.append("label errors: left out, since fewer than two classes have enough images")
        return []
    if labels.ndim > 1:
        rows, known = np.arange(len(labels)), labels[:, classes]
    else:
        rows = np.flatnonzero(np.isin(labels, classes))
        known = np.searchsorted(classes, labels[rows])
    chosen = features if len(rows) == len(features) else features[rows]
    probabilities = cross_validate(chosen, known, len(classes), directory)
    if labels.ndim == 1:
        accuracy = (probabilities.argmax(axis=1) == known).mean()
        notes.append(f"label errors: the linear probe agrees with {accuracy:.1%} of the labels")
    return [
        LabelError(
            int(readable[rows[each.index]]),
            each.score,
            _original(each.given, classes),
            _original(each.suggested, classes),
        )
        for each in find_label_errors(known, probabilities)
    ]


def _original(labels: Sequence[int], classes: np.ndarray) -> tuple[int, ...]:
    return tuple(classes[list(labels)].tolist())


def _describe_prevalence(name: str, prevalence: float) -> str:
    return f"quality: {prevalence:.0%} of the images are conspicuous by {name!r}, and none of them is listed"


def describe_splits(examples: Examples, scanned: Scan) -> list[dict[str, object]]:
    """Return number, class counts and sizes of the examples of each split, ready for JSON."""
    described: list[dict[str, object]] = []
    for owner, name in enumerate(examples.names):
        own = examples.owners == owner
        labels = examples.split.labels[own]
        counts = targets_of(labels).class_counts(labels, len(examples.class_names)).tolist()
        sizes = scanned.sizes[own & scanned.readable]
        described.append(
            {
                "name": name,
                "examples": int(own.sum()),
                "classes": dict(zip(examples.class_names, counts, strict=True)),
                **{
                    edge: dict(zip(("smallest", "median", "largest"), _three(sizes[:, axis]), strict=True))
                    for axis, edge in enumerate(("height", "width"))
                    if len(sizes)
                },
            }
        )
    return described


def _three(values: np.ndarray) -> list[int]:
    return np.quantile(values, [0, 0.5, 1]).astype(int).tolist()
