"""Groups of the examples of a split, by which metrics are compared: classes, original sizes, values of a column."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.core.progress_line import tracked
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.sources import Split
from resnet_tf.inputs import Preprocess

Groups = dict[str, np.ndarray]  # name of a group -> indices of its examples, int64

_CLASS = "class"  # name of the groups by class
_SIZE_GROUPS = 4
_MAX_VALUES = 1000  # of a column


def group_by_class(labels: np.ndarray, class_names: Sequence[str]) -> Groups:
    """Return the examples of each class that has any; `labels` are int64 [N]."""
    found = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    return {class_names[label]: indices for label, indices in found.items()}


def group_by_size(split: Split, preprocess: Preprocess) -> Groups:
    """Return four groups of about equal numbers of examples by their original size; empty if all have one size.

    Sizes are those of `Preprocess.original_size`, read from the headers of images.
    """
    sizes = _original_sizes(split, preprocess)
    edges = np.unique(np.quantile(sizes, np.linspace(0, 1, _SIZE_GROUPS + 1)[1:], method="inverted_cdf"))
    groups, lowest = {}, sizes.min()
    for edge in edges.tolist():
        indices = np.flatnonzero((sizes >= lowest) & (sizes <= edge))
        first = int(sizes[indices].min())
        groups[f"{first:,}" if first == edge else f"{first:,} to {edge:,}"] = indices
        lowest = edge + 1
    return groups if len(groups) > 1 else {}


def group_by_column(name: str, values: Sequence[str], num_examples: int) -> Groups:
    """Return the examples of each value of a column.

    Args:
        name: of the column, for messages.
        values: one for each example.
        num_examples: number of examples N.

    Raises:
        UserError: for another number of values, or more than 1,000 different ones.
    """
    if len(values) != num_examples:
        raise UserError(f"column {name!r} has {len(values):,} values for {num_examples:,} examples")
    texts = np.array(list(map(str, values)))
    different = np.unique(texts)
    if len(different) > _MAX_VALUES:
        raise UserError(f"column {name!r} has {len(different):,} different values; at most {_MAX_VALUES:,} are slices")
    return {str(each): np.flatnonzero(texts == each) for each in different}


def check_column_names(names: Collection[str], preprocess: Preprocess) -> None:
    """Refuse columns with the name of the groups by class or by size, which they would replace.

    Raises:
        UserError: naming the column.
    """
    for name in names:
        if name in {_CLASS, preprocess.size_name} - {""}:
            raise UserError(f"column {name!r} has the name of the slices by {name}; give it another one")


def all_groups(
    split: Split, preprocess: Preprocess, class_names: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> dict[str, Groups]:
    """Return the groups by class, by original size if that differs, and by each column: property -> groups.

    Multi-label data have no groups by class. Columns have other names, see
    `check_column_names`.
    """
    groups = {_CLASS: group_by_class(split.labels, class_names)} if split.labels.ndim == 1 else {}
    if preprocess.size_name:
        groups[preprocess.size_name] = group_by_size(split, preprocess)
    groups |= {name: group_by_column(name, values, split.num_examples) for name, values in columns.items()}
    return {name: each for name, each in groups.items() if each}


def _original_sizes(split: Split, preprocess: Preprocess) -> np.ndarray:
    indices = tf.range(split.num_examples, dtype=tf.int64)
    sizes = split.map(indices, lambda position, example: preprocess.original_size(example))
    counted = tracked(
        without_autotune(sizes).as_numpy_iterator(),
        f"reading the sizes of split {split.name!r}",
        noun="example",
        total=split.num_examples,
    )
    return np.fromiter(counted, np.int64, split.num_examples)
