"""Groups of examples: by class, by the size in the headers of files, by a column."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from resnet_tf.core.errors import UserError
from resnet_tf.data.groups import all_groups, check_column_names, group_by_class, group_by_column, group_by_size
from resnet_tf.data.sources import Split
from resnet_tf.inputs import ImagePreprocess, SignalPreprocess

PREPROCESS = ImagePreprocess(size=(8, 8))


def _encoded_split(sizes) -> Split:
    contents = []
    for index, (width, height) in enumerate(sizes):
        file = io.BytesIO()
        Image.new("RGB", (width, height)).save(file, ("jpeg", "png", "webp", "gif", "bmp")[index % 5])
        contents.append(file.getvalue())
    encoded = tf.constant(contents)
    return Split("test", np.zeros(len(sizes), np.int64), lambda index: encoded[index], lambda index: {"file": ""})


def _array_split(array) -> Split:
    examples = tf.constant(array)
    return Split("test", np.zeros(len(array), np.int64), lambda index: examples[index], lambda index: {"file": ""})


def test_sizes_are_the_shorter_edges_in_four_groups():
    generator = np.random.default_rng(0)
    sizes = generator.integers(10, 60, (40, 2)).tolist()
    edges = np.array([min(size) for size in sizes])
    groups = group_by_size(_encoded_split(sizes), PREPROCESS)
    assert sorted(np.concatenate(list(groups.values())).tolist()) == list(range(40))
    assert len(groups) == 4
    assert all(6 <= len(indices) <= 14 for indices in groups.values())
    for name, indices in groups.items():
        assert name == f"{edges[indices].min()} to {edges[indices].max()}"
    highest = [edges[indices].max() for indices in groups.values()]
    assert highest == sorted(highest)


def test_examples_of_one_size_are_no_groups():
    assert not group_by_size(_encoded_split([(20, 30)] * 5), PREPROCESS)
    assert not group_by_size(_array_split(np.zeros((3, 8, 9, 1), np.uint8)), PREPROCESS)
    assert list(group_by_size(_encoded_split([(20, 30)] * 5 + [(8, 1200)] * 2), PREPROCESS)) == ["8", "20"]
    signals = _array_split(np.zeros((3, 8, 1), np.float32))
    assert list(all_groups(signals, SignalPreprocess(length=8, channels=1), ["a"], {})) == ["class"]


def test_classes_and_columns():
    assert {name: each.tolist() for name, each in group_by_class(np.array([2, 0, 2]), ["a", "b", "c"]).items()} == {
        "a": [1],
        "c": [0, 2],
    }
    assert {name: each.tolist() for name, each in group_by_column("camera", [7, "x", 7], 3).items()} == {
        "7": [0, 2],
        "x": [1],
    }
    for taken in ("class", PREPROCESS.size_name):
        with pytest.raises(UserError, match=f"column '{taken}' has the name of the slices by {taken}"):
            check_column_names(["camera", taken], PREPROCESS)
    check_column_names([PREPROCESS.size_name, ""], SignalPreprocess(length=8, channels=1))
    with pytest.raises(UserError, match="column 'camera' has 2 values for 3 examples"):
        group_by_column("camera", ["a", "b"], 3)
    with pytest.raises(UserError, match="1,001 different values"):
        group_by_column("camera", list(map(str, range(1001))), 1001)
