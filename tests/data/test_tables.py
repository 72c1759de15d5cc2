"""Tables of images and labels, written by pandas and pyarrow."""

import contextlib
import io
import itertools
import json
import logging
import os
import re
import resource

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.preprocessing import MultiLabelBinarizer

from resnet_tf import evaluate, load_config, prepare, train_and_evaluate
from resnet_tf.config import DataConfig
from resnet_tf.core import bounded
from resnet_tf.core.errors import UserError
from resnet_tf.core.targets import MULTI_LABEL
from resnet_tf.data.sources import list_splits, open_source, open_splits
from resnet_tf.data.sources.overlaps import describe_overlaps
from resnet_tf.data.sources.tables import files, images, pages
from resnet_tf.data.sources.tables.labels import find_separator


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Return a folder of 20 images, `images/0.png` to `images/19.png`."""
    (tmp_path / "images").mkdir()
    for number in range(20):
        (tmp_path / "images" / f"{number}.png").write_bytes(_png(number))
    return tmp_path


def _frame(**columns) -> pd.DataFrame:
    """Return a table of the 20 images with a column `image`, unless it has other columns of paths."""
    return pd.DataFrame({"image": [f"images/{number}.png" for number in range(20)]} | columns)


def _open(path, **settings):
    return open_source(DataConfig(source=str(path), **settings), for_training=False)


def _content(source, split: str = "train") -> dict[bytes, str]:
    """Return the class name of each image."""
    return {image: source.class_names[label] for image, label in getattr(source, split).examples().as_numpy_iterator()}


LABELS = ["cat" if number % 3 else "dog" for number in range(20)]
SPLITS = ["train" if number % 4 else "val" for number in range(20)]


def _write(frame: pd.DataFrame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep={".tsv": "\t", ".CSV": ";"}.get(path.suffix, ","))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV", ".parquet"])
def test_a_table_of_paths_in_every_format(photos, suffix):
    path = _write(_frame(label=LABELS, split=SPLITS), photos / f"labels{suffix}")
    source = _open(path)
    assert list_splits(DataConfig(source=str(path))) == ("val", "train")
    assert [split.name for split in source.splits.values()] == ["train", "val"]
    for split, name in (("train", "train"), ("validation", "val")):
        expected = {_png(number): LABELS[number] for number in range(20) if SPLITS[number] == name}
        assert _content(source, split) == expected
    location = source.train.locate(0)
    assert location == {"file": str(photos / "images" / "1.png")}


# Names of the columns of images and labels, in the table of published data sets or of our own.
COLUMNS = [
    ("id_code", "diagnosis"),
    ("image_id", "label"),
    ("Image Name", "Class"),
    ("file_name", "target"),
    ("filepath", "category"),
    ("Filename", "species"),
    ("id", "breed"),
    ("img", "anything"),
    ("anything", "label"),
]


@pytest.mark.parametrize(("image", "label"), COLUMNS)
def test_columns_are_found_by_their_usual_names(photos, caplog, image, label):
    caplog.set_level(logging.INFO)
    frame = _frame(label=LABELS).rename(columns={"image": image, "label": label})
    source = _open(_write(frame, photos / "labels.csv"))
    assert _content(source) | _content(source, "validation") == {_png(n): LABELS[n] for n in range(20)}
    (line,) = [record.getMessage() for record in caplog.records if "images: column" in record.getMessage()]
    assert f"20 rows; images: column {image!r}; labels: column {label!r} (2 classes: cat, dog)" in line
    sizes = f"(train {source.train.num_examples}, test {source.validation.num_examples})"
    assert f"splits: none, divided by hash with data.eval_fraction=0.1 {sizes}" in line


def test_columns_are_named_by_keys(photos, caplog):
    caplog.set_level(logging.INFO)
    frame = _frame(
        label=range(20), real=LABELS, fold=SPLITS, other=SPLITS[::-1], patient_id=[n // 2 for n in range(20)]
    )
    path = _write(frame.rename(columns={"image": "x"}), photos / "labels.csv")
    settings = {"image_column": "x", "label_column": "real", "split_column": "other", "group_column": "patient_id"}
    source = _open(path, **settings)
    assert source.class_names == ("cat", "dog")
    assert source.train.num_examples == SPLITS.count("train")
    assert (
        "splits: column 'other' (train 15, val 5); groups: column 'patient_id' (10 groups); ignored: label, fold"
        in (caplog.text)
    )
    for key in settings:
        with pytest.raises(UserError, match=rf"data.{key}='patent_id': .* did you mean 'patient_id'"):
            _open(path, **settings | {key: "patent_id"})


# Cells of the labels -> class names, and the index of each row; 20 rows repeat the cells.
LABEL_CELLS = {
    "names": (["b", "a", " c "], ("a", "b", "c"), [1, 0, 2]),
    "whole numbers": ([10, 2, 0], ("0", "2", "10"), [2, 1, 0]),
    "whole numbers as real ones": ([1.0, 2.0, 0.0], ("0", "1", "2"), [1, 2, 0]),
    "codes with zeros": (["001", "01", "1"], ("001", "01", "1"), [0, 1, 2]),
    "large numbers": ([5, 10**7, 3], ("10000000", "3", "5"), [2, 0, 1]),
    "true and false": ([True, False, True], ("False", "True"), [1, 0, 1]),
    "both Unicode forms": (["\u00e9", "e\u0301", "x"], ("x", "\u00e9"), [1, 1, 0]),
    "names with blanks": (["golden retriever", "labrador retriever", "golden eagle"], None, [1, 2, 0]),
    "None and NA": (["None", "NA", "a"], ("NA", "None", "a"), [1, 0, 2]),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("name", LABEL_CELLS)
def test_labels(photos, name, suffix):
    cells, class_names, indices = LABEL_CELLS[name]
    column = pd.Series([cells[number % 3] for number in range(20)])
    path = _write(_frame(label=column, split=["train"] * 19 + ["val"]), photos / f"labels{suffix}")
    source = _open(path, eval_split="all")
    assert source.class_names == (class_names or tuple(sorted(cells)))
    order = [int(source.validation.locate(index)["file"].rpartition("/")[2][:-4]) for index in range(20)]
    assert source.validation.labels.tolist() == [indices[number % 3] for number in order]


# Change of the table -> message.
REFUSED = {
    "no label": ({"label": [None, *LABELS[1:]]}, r"1 row of .* have no label in column 'label': row 2"),
    "NaN as label": (
        {"label": [np.nan] * 3 + [1.0] * 17},
        r"3 rows of .* have no label in column 'label': rows 2, 3, 4",
    ),
    "real numbers": (
        {"label": np.linspace(0, 1, 20)},
        r"holds real numbers, such as 0.05.*: labels are names or whole",
    ),
    "negative": ({"label": [1] * 18 + [-1] * 2}, r"2 rows of .* have a negative label, such as -1, .*: rows 20, 21"),
    "no path": ({"image": ["images/0.png"] * 19 + [""]}, r"1 row of .* have no image: row 21"),
    "no split": (
        {"split": ["train"] * 10 + ["val"] * 9 + [None]},
        r"1 row of .* have no split in column 'split': row 21",
    ),
    "missing": (
        {"image": ["images/0.png", "images/x.png", *(f"images/y{n}.png" for n in range(18))]},
        r"19 of 20 images of .* are not in '.*': 'images/x.png' \(row 3\), 'images/y0.png' \(row 4\), .*, \.\.\.; "
        r"data.image_folder names their folder",
    ),
    "a folder above": (
        {"image": ["../outside.png"] + [f"images/{n}.png" for n in range(19)]},
        r"1 of 20 images of .* are not in '.*': '../outside.png' \(row 2\)",
    ),
    "an absolute path": ({"image": ["/etc/passwd"] * 20}, r"20 of 20 images .*: '/etc/passwd' \(row 2\)"),
    "control characters": (
        {"image": ["images/\x1b[2J.png"] + [f"images/{n}.png" for n in range(19)]},
        r"has control characters in the path 'images/\\x1b\[2J.png', row 2$",
    ),
    "a class for each row": (
        {"label": [f"x{n}" for n in range(20)]},
        r"another value in each of 20 rows, such as 'x0'",
    ),
    "two labels for a file": (
        {"image": ["images/0.png"] * 20},
        r"different labels of '.*images/0.png': 'dog' in row 2, and 'cat' in row 3; several labels",
    ),
    "a long cell": ({"label": ["x" * 5000] * 20}, r"has a cell of 5,000 characters; the limit is 4,096"),
    "unknown columns": (
        {"label": LABELS, "one": range(20), "two": range(20)},
        r"none is known to hold labels; data.label_column names it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_are_wrong_are_named(photos, name):
    changes, message = REFUSED[name]
    (photos.parent / "outside.png").write_bytes(_png(1))
    frame = pd.DataFrame(_frame(label=LABELS).to_dict("list") | changes)
    if name == "unknown columns":
        frame = frame.rename(columns={"label": "three"})
    with pytest.raises(UserError, match=message):
        _open(_write(frame, photos / "labels.csv"))


TEXTS = {
    "no rows": (b"image,label\n", r"has no rows"),
    "empty": (b"", r"'.*labels.csv'"),
    "a row too long": (b"image,label\na.png,b,c\n", r"cannot read .*Expected 2 columns, got 3"),
    "no header": (b"images/0.png,cat\nimages/1.png,dog\n", r"begins with data.*the first line must name the columns"),
    "another encoding": ("image,label\nimages/0.png,\u00e9\n".encode("latin-1"), r"labels.csv': not text in UTF-8$"),
    "another encoding of the header": ("image,\u00e9\na.png,b\n".encode("latin-1"), r"labels.csv': not text in UTF-8$"),
    "UTF-16": ("image,label\nimages/0.png,cat\n".encode("utf-16"), r"labels.csv': not text in UTF-8$"),
    "bytes": (bytes(range(256)) * 4, r"labels.csv'"),
    "two columns of one name": (b"image,label,label\nimages/0.png,1,2\n", r"has two columns 'label'; rename one"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_no_tables_are_refused(photos, name):
    content, message = TEXTS[name]
    (photos / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        _open(photos / "labels.csv")


@pytest.mark.parametrize("limit", ["_MAX_BYTES", "_MAX_ROWS", "_MAX_COLUMNS"])
def test_tables_are_limited(photos, monkeypatch, limit):
    path = _write(_frame(label=LABELS), photos / "labels.csv")
    monkeypatch.setattr(files, limit, 1)
    with pytest.raises(UserError, match=r"limit is 1$|larger than 1 bytes"):
        _open(path)


def test_the_number_of_files_is_limited_before_one_is_opened(photos, monkeypatch):
    (photos / "tables").mkdir()
    for name in ("train", "val"):
        (photos / "tables" / f"{name}.parquet").write_bytes(b"not opened")
    monkeypatch.setattr(files, "_MAX_FILES", 1)
    with pytest.raises(UserError, match=r"tables' has 2 files; the limit is 1$"):
        _open(photos / "tables")


def test_many_files_are_not_open_at_once(photos):
    (photos / "tables").mkdir()
    for number in range(60):
        row = pa.table({"image": [f"images/{number % 20}.png"], "label": [LABELS[number % 20]]})
        pq.write_table(row, photos / "tables" / f"{number:03}.parquet")
    expected = _open(photos / "tables", image_folder=str(photos))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        found = _open(photos / "tables", image_folder=str(photos))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert _content(found) == _content(expected)


def test_devices_are_no_tables(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UserError, match=r"no \.npz file and no table"):
        _open(tmp_path / "labels.csv")
    with pytest.raises(UserError, match=r"no such folder or file"):
        _open(tmp_path / "none.csv")


def test_repeated_rows_count_once(photos, caplog):
    frame = pd.concat([_frame(label=LABELS)] * 2, ignore_index=True)
    source = _open(_write(frame, photos / "labels.csv"), eval_split="all")
    assert source.validation.num_examples == 20
    assert "20 rows of" in caplog.text
    assert "repeat earlier ones and are left out: rows 22, 23, 24, 25, 26, ..." in caplog.text


# Cells of the image column -> number of the image; with and without suffix, with the separator of Windows.
PATHS = {
    "images/0.png": 0,
    "images/1": 1,
    "./images/2.png": 2,
    "images\\3.png": 3,
    "images/../images/4.png": 4,
    "images/5.PNG": 5,
    "images/big.dots.6": 6,
}


def test_paths_in_several_spellings(photos):
    (photos / "images" / "5.png").rename(photos / "images" / "5.png.old")
    (photos / "images" / "5.Png").write_bytes(_png(5))
    (photos / "images" / "big.dots.6.png").write_bytes(_png(6))
    frame = pd.DataFrame({"image": list(PATHS), "label": ["a", "b"] * 3 + ["a"]})
    source = _open(_write(frame, photos / "labels.csv"), eval_split="all")
    found = [image for image, _ in source.validation.examples().as_numpy_iterator()]
    assert found == [_png(number) for number in PATHS.values()]
    (photos / "images" / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"'images/1' could be 1.jpg or 1.png in '.*images'"):
        _open(photos / "labels.csv")


def test_the_folder_of_the_images(photos, caplog):
    """Kaggle has identifiers in a table, and a folder of images beside it."""
    caplog.set_level(logging.INFO)
    frame = _frame(label=LABELS).assign(image=range(20))
    path = _write(frame, photos / "labels.csv")
    expected = {_png(number): LABELS[number] for number in range(20)}
    assert _content(_open(path, train_split="all")) == expected
    assert f"images: column 'image' in '{photos / 'images'}'" in caplog.text
    (photos / "tables").mkdir()
    moved = path.rename(photos / "tables" / "labels.csv")
    with pytest.raises(UserError, match=r"20 of 20 images .*; data.image_folder names their folder"):
        _open(moved)
    for folder in (str(photos / "images"), "../images"):
        assert _content(_open(moved, image_folder=folder, train_split="all")) == expected
    with pytest.raises(UserError, match=r"data.image_folder='none': no such folder"):
        _open(moved, image_folder="none")


@pytest.mark.parametrize("target", ["loop.png", "missing.png"])
def test_a_link_that_leads_nowhere_hides_no_image_beside_it(photos, target):
    path = _write(_frame(label=LABELS), photos / "labels.csv")
    expected = _content(_open(path, train_split="all"))
    (photos / "images" / "loop.png").symlink_to(target)
    assert _content(_open(path, train_split="all")) == expected
    with pytest.raises(UserError, match=r"1 of 20 images of .*: 'images/loop.png' \(row 2\); data.image_folder"):
        _open(_write(_frame(label=LABELS).replace("images/0.png", "images/loop.png"), path))


def test_links_below_the_folder_of_a_table_are_followed(photos):
    """Images often lie on another disk."""
    (photos / "tables").mkdir()
    (photos / "tables" / "images").symlink_to(photos / "images")
    source = _open(_write(_frame(label=LABELS), photos / "tables" / "labels.csv"), train_split="all")
    assert _content(source) == {_png(number): LABELS[number] for number in range(20)}


def test_two_folders_that_could_be_meant_are_not_guessed(photos):
    (photos / "copy").symlink_to(photos / "images")
    path = _write(_frame(label=LABELS).assign(image=range(20)), photos / "labels.csv")
    with pytest.raises(UserError, match=r"20 of 20 images"):
        _open(path)


def test_columns_of_0_and_1_with_one_label_in_each_row(photos):
    """One column for each class, as in ISIC and Plant Pathology."""
    one_hot = pd.get_dummies(pd.Series(LABELS), dtype=float)
    frame = pd.concat([_frame(), one_hot], axis=1)
    source = _open(_write(frame, photos / "labels.csv"), eval_split="all")
    assert _content(source, "validation") == {_png(n): LABELS[n] for n in range(20)}
    for names in ("cat,dog", "cat:dog"):
        assert _open(photos / "labels.csv", label_column=names).class_names == ("cat", "dog")
    frame["cat"] = frame["cat"].where(frame.index != 3, 2)
    with pytest.raises(UserError, match=r"column 'cat' of .* holds other values than 0 and 1"):
        _open(_write(frame, photos / "labels.csv"), label_column="cat,dog")
    message = r"none is known to hold labels; data.label_column names it, or several of 0 and 1, .*=dog,bird"
    with pytest.raises(UserError, match=message):
        _open(_write(frame.assign(bird=0), photos / "labels.csv"))


def test_a_table_is_divided_as_a_folder_of_the_same_files(tmp_path):
    rows = []
    for label, size in (("a", 40), ("b", 7), ("c", 2), ("d", 1)):
        (tmp_path / label).mkdir()
        for number in range(size):
            (tmp_path / label / f"{number}.png").write_bytes(_png(len(rows)))
            rows.append((f"{label}/{number}.png", label))
    table = tmp_path / "table.csv"
    folder = _open(tmp_path, eval_fraction=0.2)
    pd.DataFrame(rows, columns=["image", "label"]).sample(frac=1, random_state=0).to_csv(table, index=False)
    source = _open(table, eval_fraction=0.2)
    for split in ("train", "validation"):
        assert _content(source, split) == _content(folder, split)


def test_slices_and_names_of_a_divided_table(photos):
    path = _write(_frame(label=LABELS), photos / "labels.csv")
    whole = _open(path, train_split="all", eval_fraction=0.4)
    found = _open(path, train_split="train", eval_split="val[:50%]", test_split="val[50%:]", eval_fraction=0.4)
    parts = [_content(found, split) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 20
    assert parts[0] | parts[1] | parts[2] == _content(whole)
    assert describe_overlaps(found) == []
    with pytest.raises(UserError, match=r"no split 'held_out' in .*, a table without splits"):
        _open(path, eval_split="held_out")
    with pytest.raises(UserError, match=r"divided into a training and a validation split only"):
        _open(path, test_split="test")


@pytest.mark.parametrize("grouped", [False, True])
def test_slices_of_all_splits_are_in_proportion_and_keep_groups_whole(photos, grouped):
    """Classes, groups and splits are in the order of the rows, in which a slice would have some of them only."""
    groups = [number // 3 for number in range(20)]
    frame = _frame(label=["a"] * 10 + ["b"] * 10, patient=groups, split=["train"] * 14 + ["val"] * 6)
    frame = pd.concat([frame, frame[10:11].assign(split="val")])  # an image of both splits, which counts once
    path = _write(frame, photos / "labels.csv")
    settings = {"group_column": "patient"} if grouped else {}
    found = _open(path, train_split="all[:60%]", eval_split="all[60%:]", test_split="all", **settings)
    files = [[split.locate(index)["file"] for index in range(split.num_examples)] for split in found.splits.values()]
    assert sorted(files[0] + files[1]) == sorted(files[2]) == sorted(str(photos / each) for each in _frame()["image"])
    if grouped:
        owners = [{groups[int(file.rpartition("/")[2][:-4])] for file in each} for each in files]
        assert not owners[0] & owners[1]
    else:
        assert [np.bincount(split.labels).tolist() for split in found.splits.values()] == [[6, 6], [4, 4], [10, 10]]


def test_slices_of_several_labels_are_in_proportion(tmp_path):
    """Regression: of sets of classes that occur once, a slice had those without the first classes."""
    labels = np.random.default_rng(0).random((400, 12)) < 0.3
    columns = {f"class{number:02}": column.astype(int) for number, column in enumerate(labels.T)}
    frame = pd.DataFrame({"image": [_png(number) for number in range(400)]} | columns)
    path = _write(frame, tmp_path / "labels.parquet")
    found = _open(path, train_split="all[:50%]", eval_split="all[50%:]", label_column="class00:class11")
    for split in found.splits.values():
        assert split.num_examples == 200
        # Four standard deviations of the frequency in 200 of 400 examples.
        np.testing.assert_allclose(split.labels.mean(0), labels.mean(0), atol=4 * np.sqrt(0.3 * 0.7 / 200 / 2))


def test_all_of_several_splits_has_the_identity_of_their_sum(photos):
    """Runs on `all` continue after a change of how its slices are found."""
    path = _write(_frame(label=["a"] * 10 + ["b"] * 10, split=["train"] * 14 + ["val"] * 6), photos / "labels.csv")
    found, expected = (_open(path, train_split=split, eval_split="val") for split in ("all", "train+val"))
    assert found.identity["splits"]["all"] == expected.identity["splits"]["train+val"]


def test_slices_keep_groups_whole(photos):
    groups = [number // 3 for number in range(20)]
    path = _write(_frame(label=LABELS, patient=groups, split="train"), photos / "labels.csv")
    found = _open(path, train_split="all[:50%]", eval_split="all[50%:]", group_column="patient")
    halves = [
        {groups[int(split.locate(index)["file"].rpartition("/")[2][:-4])] for index in range(split.num_examples)}
        for split in found.splits.values()
    ]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == set(groups)
    assert 7 <= found.train.num_examples <= 13


def _hugging_face(table: pd.DataFrame, path, names=("dog", "cat"), label_type=None, **options):
    """Write a shard as `datasets` does: structs of bytes and path, indices of class names, and their metadata."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("label", label_type or pa.int64())],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": image, "path": None} for image in table["image"]]
    pq.write_table(pa.table({"image": rows, "label": table["label"].tolist()}, schema=schema), path, **options)
    return path


HUGGING_FACE = {
    "shards in data": (
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/validation-00000-of-00001.parquet",
    ),
    "names with a hash": (
        "train-00000-of-00002-0123456789abcdef.parquet",
        "train-00001-of-00002-0123456789abcdef.parquet",
        "validation-00000-of-00001-0123456789abcdef.parquet",
    ),
    "folders": ("train/0000.parquet", "train/0001.parquet", "validation/0000.parquet"),
    "one file for each split": ("train.parquet", "", "validation.parquet"),
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_shards_of_hugging_face(tmp_path, monkeypatch, name, in_memory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if not in_memory:
        monkeypatch.setattr(images, "_IN_MEMORY", 0)
    table = pd.DataFrame({"image": map(_png, range(30)), "label": np.arange(30) % 2})
    ranges = ((0, 10), (10, 20), (20, 30))
    for file, (start, end) in zip(HUGGING_FACE[name], ranges, strict=True):
        if file:
            _hugging_face(table[start:end], tmp_path / "hf" / file, row_group_size=4)
    source = _open(tmp_path / "hf")
    assert source.class_names == ("dog", "cat")
    assert [split.name for split in source.splits.values()] == ["train", "validation"]
    count = source.train.num_examples
    assert count == (20 if HUGGING_FACE[name][1] else 10)
    assert [image for image, _ in source.train.examples().as_numpy_iterator()] == list(map(_png, range(count)))
    assert source.validation.labels.tolist() == [0, 1] * 5
    indices = [7, 2, count - 1]
    assert [source.train.load(index).numpy() for index in indices] == [_png(index) for index in indices]
    last = source.train.locate(count - 1)
    assert (last["file"].endswith(HUGGING_FACE[name][1] or "train.parquet"), last["row"]) == (True, 10)
    again = _open(tmp_path / "hf")  # from the cache, if there is one
    assert source.identity == again.identity
    assert (tmp_path / "cache").exists() == (not in_memory)
    assert describe_overlaps(source) == []


def test_the_content_of_shards_identifies_them(tmp_path, monkeypatch):
    """Two tables of equal sizes and labels differ, in memory and from records, by the same hash."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = []
    for number in (0, 1):
        table = pd.DataFrame({"image": map(_png, range(number, number + 10)), "label": np.arange(10) % 2})
        path = _hugging_face(table, tmp_path / str(number) / "data.parquet")
        found.append(_open(path).train.fingerprint())
        monkeypatch.setattr(images, "_IN_MEMORY", 0)
        assert _open(path).train.fingerprint() == found[-1]
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert found[0] != found[1]


def test_a_single_split_of_shards_is_divided(tmp_path):
    table = pd.DataFrame({"image": map(_png, range(30)), "label": np.arange(30) % 2})
    _hugging_face(table, tmp_path / "data" / "train-00000-of-00001.parquet")
    source = _open(tmp_path)
    assert source.train.num_examples + source.validation.num_examples == 30
    assert np.bincount(source.validation.labels).min() >= 1


# Type of a `ClassLabel` with the names 3, 1, 0 -> its cells in four rows, and the labels that they are.
NUMERIC_NAMES = {
    "indices": (pa.int64(), [0, 1, 2, 1], [0, 1, 2, 1]),
    "indices of one byte": (pa.uint8(), [0, 1, 2, 1], [0, 1, 2, 1]),
    "indices as real numbers": (pa.float64(), [0.0, 1.0, 2.0, 1.0], [0, 1, 2, 1]),
    "names": (pa.string(), ["0", "1", "3", "1"], [2, 1, 0, 1]),
    "names in a dictionary": (pa.dictionary(pa.int32(), pa.string()), ["0", "1", "3", "1"], [2, 1, 0, 1]),
    "lists of indices": (pa.list_(pa.int64()), [[0], [1], [2], [2, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]]),
    "lists of names": (pa.list_(pa.string()), [["0"], ["1"], ["3"], []], [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]),
}


@pytest.mark.parametrize("name", NUMERIC_NAMES)
def test_an_index_is_not_taken_for_a_class_name_that_is_a_number(tmp_path, name):
    label_type, cells, labels = NUMERIC_NAMES[name]
    table = pd.DataFrame({"image": map(_png, range(4)), "label": pd.Series(cells, dtype=object)})
    path = _hugging_face(table, tmp_path / "data.parquet", names=("3", "1", "0"), label_type=label_type)
    source = _open(path, eval_split="all")
    assert source.class_names == ("3", "1", "0")
    assert source.validation.labels.tolist() == labels


def test_a_number_in_a_column_of_class_names_is_no_index(tmp_path):
    table = pd.DataFrame({"image": map(_png, range(4)), "label": ["1", "2", "0", "1"]})
    path = _hugging_face(table, tmp_path / "data.parquet", names=("1", "2"), label_type=pa.string())
    with pytest.raises(UserError, match=r"1 row of .* without one of the 2 class names, such as 0: row 3"):
        _open(path)


def test_shards_have_the_same_class_names(tmp_path):
    table = pd.DataFrame({"image": map(_png, range(4)), "label": [0, 1, 0, 1]})
    _hugging_face(table, tmp_path / "train.parquet")
    _hugging_face(table, tmp_path / "validation.parquet", names=("cat", "dog"))
    with pytest.raises(UserError, match=r"validation.parquet' has other class names of column 'label' than '.*train"):
        _open(tmp_path)


def test_binary_columns_and_columns_of_categories(tmp_path):
    frame = pd.DataFrame({"img": map(_png, range(10)), "species": pd.Categorical(["b", "a"] * 5)})
    source = _open(_write(frame, tmp_path / "animals.parquet"), eval_split="all")
    assert _content(source, "validation") == {_png(n): "ba"[n % 2] for n in range(10)}


def test_categories_of_no_row_are_no_classes(tmp_path):
    frame = pd.DataFrame({"image": map(_png, range(30)), "label": pd.Categorical(["b", "a", "c"] * 10)})
    frame["split"] = pd.Categorical(["train", "val", "unused"] * 10)
    selected = frame[frame["label"] != "c"]
    source = _open(_write(selected, tmp_path / "animals.parquet"), eval_split="val")
    assert source.class_names == tuple(selected["label"].cat.remove_unused_categories().cat.categories) == ("a", "b")
    assert (source.train.num_examples, source.validation.num_examples) == (10, 10)


PARQUET_REFUSED = {
    "a label without a name": (
        {"label": [0, 2, 5, -1]},
        r"3 rows of .* without one of the 2 class names, such as 2: rows 2, 3, 4",
    ),
    "a row without an image": ({"image": [_png(0), None, _png(2), _png(3)]}, r"has no image in row 2"),
}


@pytest.mark.parametrize("name", PARQUET_REFUSED)
def test_rows_of_shards_that_are_wrong_are_named(tmp_path, name):
    changes, message = PARQUET_REFUSED[name]
    table = pd.DataFrame({"image": list(map(_png, range(4))), "label": [0, 1, 0, 1]} | changes)
    with pytest.raises(UserError, match=message):
        _open(_hugging_face(table, tmp_path / "data.parquet"))


def test_a_corrupt_shard_is_refused(tmp_path):
    table = pd.DataFrame({"image": map(_png, range(40)), "label": np.arange(40) % 2})
    path = _hugging_face(table, tmp_path / "data.parquet")
    content = path.read_bytes()
    assert _open(path).train.num_examples > 0
    rng = np.random.default_rng(0)
    for number in range(30):
        changed = bytearray(content)
        if number % 3 == 0:
            changed = changed[: rng.integers(len(changed))]
        for position in rng.integers(0, len(changed), 1 + number % 4) if len(changed) else ():
            changed[position] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        with contextlib.suppress(UserError):
            assert 0 < _open(path).train.num_examples <= 40
    path.write_bytes(content[:-8] + (2**31 - 1).to_bytes(4, "little") + content[-4:])
    with pytest.raises(UserError, match="cannot read"):
        _open(path)


def test_metadata_of_hugging_face_are_checked(tmp_path):
    for text, message in (
        ('{"info": {"features": {"label": {"names": [1, 2]}}}}', r"class names of column 'label' that are not text"),
        ('{"info": {"features": {"label": {"names": "ab"}}}}', r"class names of column 'label' that are not text"),
        ('{"info": []}', r"corrupt metadata of Hugging Face"),
        ("[" * 5000, r"corrupt metadata of Hugging Face"),
        ('{"info": {"features": {"label": {"names": ["a", "a"]}}}}', r"have the same name, 'a'"),
    ):
        schema = pa.schema([("image", pa.binary()), ("label", pa.int64())], {"huggingface": text})
        table = pa.table({"image": list(map(_png, range(4))), "label": [0, 1, 0, 1]}, schema=schema)
        pq.write_table(table, tmp_path / "data.parquet")
        with pytest.raises(UserError, match=message):
            _open(tmp_path / "data.parquet")


# Labels of 10 images of each of the splits train, validation and test -> those of the hidden test split.
HIDDEN = {
    "negative": ([0, 1] * 5, [-1] * 10),
    "missing": (["a", "b"] * 5, [None] * 10),
    "lists": ([[0], [1, 0]] * 5, [[-1]] * 10),
    "names": (["cat", "dog"] * 5, ["unknown"] * 10),
    "indices of names": ([0, 1] * 5, [-1] * 10),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_labels_of_a_split_that_is_not_used_may_be_hidden(tmp_path, caplog, name):
    caplog.set_level(logging.INFO)
    labels, hidden = HIDDEN[name]
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}} if "names" in name else {}
    for number, split in enumerate(("train", "validation", "test")):
        rows = {"image": list(map(_png, range(10 * number, 10 * number + 10))), "label": labels}
        table = pa.table(rows | ({"label": hidden} if split == "test" else {}))
        table = table.cast(table.schema.set(1, pa.field("label", pa.array(labels).type)))
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{split}-00000-of-00001.parquet")
    source = _open(tmp_path, eval_split="validation")
    assert len(source.class_names) == 2
    assert [split.num_examples for split in source.splits.values()] == [10, 10]
    assert source.train.labels.tolist() == source.validation.labels.tolist()
    assert "without a label, in splits that are not used: 10 rows" in caplog.text
    assert _open(tmp_path, train_split="train", eval_split="train").class_names == source.class_names
    advice = r"split 'test' has no labels; did you mean 'validation'\? data.eval_split names the split"
    message = (
        rf"10 rows of '{tmp_path}' have .*: rows 1, 2, 3, 4, 5, \.\.\. of '.*/test-00000-of-00001.parquet'; {advice}"
    )
    for settings in ({}, {"test_split": "validation"}):
        with pytest.raises(UserError, match=message):
            _open(tmp_path, **settings)
    with pytest.raises(UserError, match=r"split 'test' has no labels; data\.train_split names the split"):
        _open(tmp_path, train_split="all", eval_split="validation")


def test_classes_are_those_of_all_labeled_splits(photos):
    """A run and the evaluation of another split agree on the classes."""
    splits = ["train"] * 8 + ["val"] * 6 + ["test"] * 6
    path = _write(_frame(label=["a", "b"] * 7 + ["c"] * 5 + [None], split=splits), photos / "labels.csv")
    for split in ("train", "val"):
        assert _open(path, train_split=split, eval_split=split).class_names == ("a", "b", "c")
    with pytest.raises(UserError, match=r"1 row of '.*labels.csv' have no label in column 'label': row 21$"):
        _open(path, eval_split="test")


def test_hidden_labels_in_columns_of_0_and_1(photos):
    frame = _frame(split=["train"] * 8 + ["val"] * 6 + ["test"] * 6)
    frame["cat"] = [1.0, 0.0] * 7 + [np.nan] * 6
    path = _write(frame.assign(dog=1 - frame["cat"]), photos / "labels.csv")
    source = _open(path, eval_split="val", label_column="cat,dog")
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1] * 4
    with pytest.raises(UserError, match=r"6 rows of .* have neither 0 nor 1 in column 'cat': rows 16, 17, .*; split"):
        _open(path, label_column="cat,dog")


def test_hidden_labels_of_several_classes(photos, caplog):
    """A split of empty cells is unlabeled, and an empty cell among labels is an image of no class, as is a row of 0."""
    caplog.set_level(logging.INFO)
    splits = ["train"] * 8 + ["val"] * 6 + ["test"] * 6
    cells = ["a", "b", "a|b", ""] * 3 + ["a", "b"] + [""] * 6
    path = _write(_frame(label=cells, split=splits), photos / "labels.csv")
    source = _open(path, eval_split="val")
    assert source.validation.labels.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]]
    assert (
        "without a label, in splits that are not used: 6 rows; empty cells, none of the classes: 3 rows" in caplog.text
    )
    message = (
        r"6 rows of '.*labels.csv' have no label: rows 16, 17, 18, 19, 20, \.\.\.; split 'test' has no labels; did"
    )
    with pytest.raises(UserError, match=rf"{message} you mean 'val'\? data.eval_split names the split"):
        _open(path)
    with pytest.raises(UserError, match=rf"{message[:-4]} data.test_split= leaves it out"):
        _open(path, eval_split="val", test_split="test[:3]")
    assert list(open_splits(DataConfig(source=str(path)))[1]) == ["train", "val"]
    lists = [cell.split("|") if cell else [] for cell in cells]
    path = _write(_frame(label=lists, split=splits), photos / "labels.parquet")
    with pytest.raises(
        UserError, match=r"6 rows of '.*labels.parquet' have no label: rows 15, 16, .*; split 'test' has"
    ):
        _open(path)
    columns = {name: [int(name in cell.split("|")) for cell in cells] for name in "ab"}
    path = _write(_frame(**columns, split=splits), photos / "columns.csv")
    assert not _open(path).validation.labels.any()


@pytest.mark.parametrize("hidden", [-1, None])
def test_a_table_with_a_hidden_test_split_is_prepared(photos, caplog, hidden):
    frame = _frame(label=[0, 1] * 7 + [hidden] * 6, split=["train"] * 8 + ["val"] * 6 + ["test"] * 6)
    result = prepare(_write(frame, photos / "labels.csv"), photos / "out")
    assert {name: split.examples for name, split in result.splits.items()} == {"train": 8, "val": 6}
    assert f"'{photos / 'labels.csv'}': a split without labels is left out: test" in caplog.text


# Sets of labels of the 20 images; some have none.
SETS = [[name for bit, name in enumerate(("boat", "cat", "dog")) if number >> bit & 1] for number in range(20)]


def _indicators() -> pd.DataFrame:
    binarizer = MultiLabelBinarizer().fit(SETS)
    return pd.DataFrame(binarizer.transform(SETS), columns=binarizer.classes_)


# Form -> the columns of labels.
FORMS = {
    "separator": lambda: {"label": ["|".join(names) for names in SETS]},
    "separator and blanks": lambda: {"label": ["; ".join(names) for names in SETS]},
    "commas": lambda: {"label": [",".join(names) for names in SETS]},
    "blanks": lambda: {"label": [" ".join(names) for names in SETS]},
    "text of lists": lambda: {"label": [str(names) for names in SETS]},
    "columns": lambda: _indicators().to_dict("list"),
    "columns of true and false": lambda: _indicators().astype(bool).to_dict("list"),
    "lists": lambda: {"label": SETS},
}


def test_columns_of_0_and_1_with_a_missing_cell_are_found(photos):
    columns = _indicators().astype(object)
    columns.loc[5, "dog"] = None
    frame = _frame(**columns.to_dict("list"))
    with pytest.raises(UserError, match=r"1 row of .* have neither 0 nor 1 in column 'dog': row 7"):
        _open(_write(frame, photos / "labels.csv"))
    with pytest.raises(UserError, match=r"such as data.label_column=boat,cat,dog$"):
        _open(_write(frame.assign(weight=0.5, empty=None), photos / "labels.csv"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_several_labels_as_scikit_learn_and_pandas_read_them(photos, caplog, form, suffix):
    if form == "lists" and suffix == ".csv":
        form = "text of lists"
    caplog.set_level(logging.INFO)
    settings = {"label_separator": "space"} if form == "blanks" else {}
    path = _write(_frame(**FORMS[form]()), photos / f"labels{suffix}")
    source = _open(path, eval_split="all", eval_fraction=0.3, **settings)
    assert source.class_names == ("boat", "cat", "dog")
    assert source.targets is MULTI_LABEL
    assert (source.validation.labels == _indicators().to_numpy()).all()
    dummies = pd.Series(map("|".join, SETS)).str.get_dummies()
    assert (source.validation.labels == dummies[["boat", "cat", "dog"]].to_numpy()).all()
    assert "1.4 for each image" in caplog.text
    files = {split.locate(index)["file"] for split in (source.train,) for index in range(split.num_examples)}
    assert 0 < len(files) < 20


def test_class_names_of_lists_of_hugging_face(tmp_path):
    label = {"names": ["z", "y", "x"], "_type": "ClassLabel"}
    for feature in ({"feature": label, "_type": "Sequence"}, {"feature": label, "_type": "List"}, [label]):
        text = json.dumps({"info": {"features": {"labels": feature}}})
        schema = pa.schema([("image", pa.binary()), ("labels", pa.list_(pa.int64()))], {"huggingface": text})
        rows = {"image": list(map(_png, range(4))), "labels": [[2, 0], None, [1], []]}
        pq.write_table(pa.table(rows, schema=schema), tmp_path / "data.parquet")
        source = _open(tmp_path / "data.parquet", eval_split="all")
        assert source.class_names == ("z", "y", "x")
        assert source.validation.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    pq.write_table(pa.table(rows | {"labels": [[2], [3], [1], []]}, schema=schema), tmp_path / "data.parquet")
    with pytest.raises(UserError, match=r"1 row of .* without one of the 3 class names, such as 3: row 2"):
        _open(tmp_path / "data.parquet")


# Cells of the labels of four rows -> message.
SETS_REFUSED = {
    "negative": ([[1], [0, -1], [], [-2, -2]], r"2 rows of .* have a negative label, such as -1, in .*: rows 2, 4$"),
    "negative beside a large number": ([[10**7], [-1], [], [1]], r"1 row of .* such as -1, in column 'label': row 2$"),
    "empty": ([["a", "b"], ["a", None, ""], [], ["b"]], r"1 row of .* have an empty label in column 'label': row 2$"),
    "only negative": ([[-1], [-1], [], []], r"column 'label' of .* has no label in any row"),
}


@pytest.mark.parametrize("name", SETS_REFUSED)
def test_rows_of_several_labels_that_are_wrong_are_named(tmp_path, name):
    cells, message = SETS_REFUSED[name]
    rows = {"image": list(map(_png, range(4))), "label": cells}
    pq.write_table(pa.table(rows), tmp_path / "data.parquet")
    with pytest.raises(UserError, match=message):
        _open(tmp_path / "data.parquet", eval_split="all")


def test_negative_labels_in_text_are_refused(photos):
    path = _write(_frame(label=["0|1", "0|-1"] * 10), photos / "labels.csv")
    with pytest.raises(UserError, match=r"10 rows of .* have a negative label, such as -1, .*: rows 3, 5, 7, 9, 11, "):
        _open(path)


def test_rows_of_lists_without_a_class_name_count_once(tmp_path):
    text = json.dumps({"info": {"features": {"labels": {"feature": {"names": ["a", "b", "c"]}, "_type": "List"}}}})
    schema = pa.schema([("image", pa.binary()), ("labels", pa.list_(pa.int64()))], {"huggingface": text})
    rows = {"image": list(map(_png, range(4))), "labels": [[0, 1, 2], [0, 1], None, [7, 2, 7]]}
    pq.write_table(pa.table(rows, schema=schema), tmp_path / "data.parquet")
    with pytest.raises(UserError, match=r"1 row of .* without one of the 3 class names, such as 7: row 4$"):
        _open(tmp_path / "data.parquet")


def test_a_separator_is_set_or_switched_off(photos):
    path = _write(_frame(label=["a-b", "b"] * 10), photos / "labels.csv")
    assert _open(path).class_names == ("a-b", "b")
    assert _open(path, label_separator="-").class_names == ("a", "b")
    path = _write(_frame(label=["a|b", "b"] * 10), photos / "labels.csv")
    assert _open(path).class_names == ("a", "b")
    assert _open(path, label_separator="none").class_names == ("a|b", "b")
    path = _write(_frame(label=["10|9", "9", "11", ""] * 5), photos / "labels.csv")
    assert _open(path).class_names == ("9", "10", "11")
    path = _write(_frame(label=["|"] * 20), photos / "labels.csv")
    with pytest.raises(UserError, match=r"column 'label' of .* has no label in any row"):
        _open(path, label_separator="|")


@pytest.mark.parametrize(
    ("values", "separator"),
    [
        (["cat", "cat|dog", "dog"], "|"),
        (["a;b", "c"], ";"),
        (["a,b", "a", "b", "a,b,c", "c"], ","),
        (["['a', 'b']", "[]"], ","),
        (["haze primary", "clear primary water", "clear water", "haze", "water", "clear", "primary"], ""),
        ([f"{one} {two}".strip() for one in ("", *"abc") for two in ("", *"def")], " "),
        (["Paris, France", "Rome, Italy", "Nice, France", "Bari, Italy", "Lille, France"], ""),
        (["golden retriever", "golden eagle", "eagle"], ""),
        (["a", "b"], ""),
        ([], ""),
    ],
)
def test_separators(values, separator):
    assert find_separator(values) == separator


@pytest.mark.slow
def test_a_run_on_a_table_of_several_labels(photos, tmp_path):
    path = _write(_frame(label=["|".join(names) for names in SETS], split=SPLITS), photos / "labels.csv")
    settings = [
        "model.name=resnet8_w32",
        "data.batch_size=4",
        "data.image_size=4",
        "train.epochs=1",
        "runtime.xla=false",
    ]
    metrics = train_and_evaluate(load_config("digits", [f"data.source={path}", *settings]), tmp_path / "run")
    assert metrics["examples"] == 5
    assert "mean_average_precision" in metrics


@pytest.mark.slow
def test_a_run_on_a_table_is_evaluated_on_another_one(photos, tmp_path):
    path = _write(_frame(label=LABELS, split=SPLITS), photos / "labels.csv")
    settings = [
        "model.name=resnet8_w32",
        "data.batch_size=4",
        "data.image_size=4",
        "train.epochs=1",
        "runtime.xla=false",
    ]
    config = load_config("digits", [f"data.source={path}", f"data.image_folder={photos / 'images'}", *settings])
    metrics = train_and_evaluate(config, tmp_path / "run")
    assert metrics["examples"] == 5
    assert load_config(tmp_path / "run" / "config.json").data.eval_split == "val"
    assert evaluate(tmp_path / "run").evaluation.to_dict()["examples"] == 5
    (photos / "other").mkdir()
    for number in range(6):
        (photos / "other" / f"{number}.png").write_bytes(_png(number))
    frame = _frame(label=LABELS)[:6].assign(image=[f"{number}.png" for number in range(6)])
    other = _write(frame, photos / "other" / "labels.csv")
    found = evaluate(tmp_path / "run", data=str(other))
    assert found.to_dict()["examples"] == 6
    assert found.source.validation.locate(0)["file"] == str(photos / "other" / "0.png")


def test_a_folder_with_a_table_points_to_it(photos, caplog):
    caplog.set_level(logging.INFO)
    path = _write(_frame(label=LABELS), photos / "labels.csv")
    with pytest.raises(UserError, match="has one class, 'images'"):
        open_source(DataConfig(source=str(photos)))
    assert caplog.text.count(f"'{photos}' has a table: data.source={path} takes labels from it") == 1


def test_groups_in_several_splits_are_warned_of(photos, caplog):
    frame = _frame(label=LABELS, split=["train"] * 10 + ["val"] * 10)
    for size, expected in ((5, ""), (6, "1 group of")):
        path = _write(frame.assign(patient=[number // size for number in range(20)]), photos / "labels.csv")
        caplog.clear()
        _open(path, group_column="patient")
        assert ("have images in several of the splits train, val" in caplog.text) == bool(expected)
        assert expected in caplog.text


def test_the_log_names_a_column_of_groups(photos, caplog):
    caplog.set_level(logging.INFO)
    path = _write(_frame(label=LABELS, patient_id=range(20)), photos / "labels.csv")
    _open(path)
    assert "ignored: patient_id; data.group_column=patient_id would keep its images in one split" in caplog.text


def test_a_slice_that_groups_leave_empty_is_refused(photos):
    path = _write(_frame(label=LABELS, patient=[number // 4 for number in range(20)]), photos / "labels.csv")
    names = {"train_split": "all[:80%]", "eval_split": "all[80%:90%]", "test_split": "all[90%:]"}
    message = (
        "split 'all[90%:]' of 20 examples is empty: slices keep the 5 groups of data.group_column=patient whole; take "
        "a larger slice"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        _open(path, **names, group_column="patient")
    assert _open(path, **names).test.num_examples == 2


@pytest.mark.parametrize("form", ["names of files", "column"])
def test_an_image_of_two_splits_stays_in_both(photos, caplog, form):
    frame = _frame(label=LABELS)
    if form == "column":
        both = pd.concat([frame[:12].assign(split="train"), frame[8:].assign(split="val")])
        path = _write(both, photos / "labels.csv")
    else:
        path = photos / "tables"
        path.mkdir()
        _write(frame[:12], path / "train.parquet"), _write(frame[8:], path / "val.parquet")
    source = _open(path, eval_split="val", image_folder=str(photos))
    assert (source.train.num_examples, source.validation.num_examples) == (12, 12)
    assert "repeat earlier ones" not in caplog.text
    assert "4 of 12 examples of split 'val' are" in " ".join(describe_overlaps(source))


def test_rows_that_files_of_one_split_repeat_count_once(photos, caplog):
    for name, rows in (("train-00000-of-00002", slice(12)), ("train-00001-of-00002", slice(8, 16)), ("val", slice(20))):
        _write(_frame(label=LABELS)[rows], photos / f"{name}.parquet")
    source = _open(photos, eval_split="val")
    assert (source.train.num_examples, source.validation.num_examples) == (16, 20)
    assert "4 rows of" in caplog.text


def test_parquet_files_that_decompress_to_much_more_are_refused(photos, monkeypatch):
    """The free allowance holds for all groups of rows, and for all files, together."""
    monkeypatch.setattr(bounded, "_FREE_BYTES", 300_000)
    monkeypatch.setattr(bounded, "_MAX_EXPANSION", 10)
    rows = pa.table({"image": [f"images/{number}.png" for number in range(20)], "label": LABELS})
    (photos / "files").mkdir()
    for path, count in (("groups.parquet", 20), ("files/0.parquet", 5), ("files/1.parquet", 5)):
        part = rows.slice(0, count).append_column("note", [["z" * 40_000] * count])
        pq.write_table(part, photos / path, row_group_size=1, compression="zstd", use_dictionary=False)
    for path in ("groups.parquet", "files"):
        with pytest.raises(UserError, match=rf"cannot read '.*{path}': it claims \d{{3}},\d{{3}} bytes of"):
            _open(photos / path)


@pytest.mark.parametrize("form", ["text", "struct", "list"])
def test_repeated_text_of_parquet_takes_its_size_once(photos, form):
    labels = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), pa.array(["x" * 2**20]))
    path = photos / "labels.parquet"
    if form == "list":
        labels = pa.ListArray.from_arrays(np.arange(20_001, dtype=np.int32), labels)
    columns = {"image": ["images/1.png"] * 20_000, "label": labels}
    if form == "struct":
        columns["label"] = pa.StructArray.from_arrays([labels], ["name"])
    pq.write_table(pa.table(columns), path, store_schema=False, row_group_size=5_000)
    before = pa.total_allocated_bytes()
    column = files.read_table(path).read("label.name" if form == "struct" else "label")
    assert pa.total_allocated_bytes() - before < 2**24
    if form != "text":
        return
    assert len(column) == 20_000
    with pytest.raises(UserError, match=r"column 'label' of .* has a cell of 1,048,576 characters; the limit is 4,096"):
        _open(path)


def test_repeated_images_of_parquet_are_bounded(tmp_path, monkeypatch):
    rows = pa.table({"image": [_png(1)] * 500, "label": ["a", "b"] * 250})
    pq.write_table(rows, tmp_path / "data.parquet")
    table = files.read_table(tmp_path / "data.parquet")
    monkeypatch.setattr(images, "_IN_MEMORY", 20_000)
    assert images._size(table, "image") < 20_000, "the metadata counts a repeated image once"
    assert images._read_small(table, "image") is None
    monkeypatch.setattr(bounded, "_FREE_BYTES", 20_000)
    monkeypatch.setattr(bounded, "_MAX_EXPANSION", 10)
    with pytest.raises(UserError, match=r"cannot read .*data\.parquet': it claims [\d,]+ bytes of content in"):
        list(images._read(str(tmp_path / "data.parquet"), "image"))


def _understate(path) -> None:
    """Write a size of 1 to the footer of a Parquet file instead of each large size."""

    def encode(value, length=0):  # as a number of Thrift
        value, digits = 2 * value, []
        while value or not digits or len(digits) < length:
            digits.append(value & 127 | 128)
            value >>= 7
        return bytes([*digits[:-1], digits[-1] & 127])

    metadata, content = pq.read_metadata(path), path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[start:]
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for size in (group.total_byte_size, *(group.column(index).total_uncompressed_size for index in range(2))):
            footer = footer.replace(encode(size), encode(1, len(encode(size)))) if size > 10_000 else footer
    path.write_bytes(content[:start] + footer)
    assert max(files._read_footer(str(path)).sizes) == 1


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_parquet_files_that_decompress_to_more_than_their_footer_claims_are_refused(tmp_path, monkeypatch, version):
    monkeypatch.setattr(bounded, "_FREE_BYTES", 2**20)
    path, columns = tmp_path / "data.parquet", {"label": ["a" * 2**19, "b" * 2**19, "c" * 2**19], "image": [b"i"] * 3}
    pq.write_table(
        pa.table(columns), path, compression="zstd", row_group_size=1, use_dictionary=False, write_statistics=False,
        data_page_version=version,
    )  # fmt: skip
    _understate(path)
    table = files.read_table(path)
    assert table.column("image").values == ("i",)
    with pytest.raises(UserError, match=r"cannot read column 'label' of '.*data.parquet': it claims 1,57\d,\d{3} b"):
        table.column("label")
    with pytest.raises(UserError, match=r"cannot read column 'label' of '.*data.parquet': it claims 1,57\d,\d{3} b"):
        list(images._read(str(path), "label"))


def test_numbers_and_bytes_of_one_size_are_bounded_by_their_count(tmp_path):
    values = pa.array([bytes(2**20)] * 300, pa.binary(2**20))
    pq.write_table(pa.table({"label": values, "image": [str(row) for row in range(300)]}), tmp_path / "data.parquet")
    with pytest.raises(UserError, match=r"cannot read column 'label' of .*: it claims 31\d,\d{3},\d{3} bytes of con"):
        files.read_table(tmp_path / "data.parquet").column("label")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_pages_are_those_of_the_footer(tmp_path, version, dictionary):
    """Without compression, a column consists of its pages and their headers of less than 200 bytes."""
    names = [[f"name {row}"] * (row % 3) if row % 7 else None for row in range(20_000)]
    columns = {"lists": names, "numbers": np.arange(20_000) % 100, "text": [str(each) for each in names]}
    pq.write_table(
        pa.table(columns), tmp_path / "data.parquet", compression="none", use_dictionary=dictionary,
        data_page_size=10_000, row_group_size=10_000, data_page_version=version, write_page_checksum=True,
    )  # fmt: skip
    metadata, content = pq.read_metadata(tmp_path / "data.parquet"), (tmp_path / "data.parquet").read_bytes()
    for group, column in itertools.product(range(2), range(3)):
        chunk = metadata.row_group(group).column(column)
        found = pages._read_pages(content, chunk)
        assert len(found) > 1
        assert 0 < chunk.total_uncompressed_size - sum(page.size for page in found) < 200 * len(found)
        assert sum(page.num_values for page in found[int(dictionary) :]) == chunk.num_values
        assert found[-1].end == chunk.data_page_offset + chunk.total_compressed_size - (
            chunk.data_page_offset - chunk.dictionary_page_offset if dictionary else 0
        )


@pytest.mark.parametrize("position", [4, 5, 6, 7, 20])
def test_a_corrupt_page_header_is_named(tmp_path, position):
    pq.write_table(pa.table({"label": ["a", "b"], "image": ["c", "d"]}), tmp_path / "data.parquet")
    content = bytearray((tmp_path / "data.parquet").read_bytes())
    content[position] = 0xFF
    (tmp_path / "data.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"^cannot read column 'label' of '.*data.parquet': [^\n]+$"):
        files.read_table(tmp_path / "data.parquet").column("label")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_delta_encodings_are_read_unless_they_repeat_values(tmp_path, version):
    """DELTA_BYTE_ARRAY stores a text as its difference from the one before, so that a small page may hold any size."""
    lists, texts = [["a", "b"], ["c"]], ["a/0.jpg", "a/1.jpg"]
    rows = pa.table({"image": texts, "label": lists, "struct": [{"path": text} for text in texts]})
    for encoding in ("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"):
        encodings = dict.fromkeys(("image", "label.list.element", "struct.path"), encoding)
        path = tmp_path / f"{encoding}.parquet"
        pq.write_table(rows, path, use_dictionary=False, column_encoding=encodings, data_page_version=version)
        for name, expected in (("image", texts), ("label", lists), ("struct.path", texts)):
            if encoding == "DELTA_LENGTH_BYTE_ARRAY":
                assert files._read_column([str(path)], name).to_pylist() == expected
                continue
            with pytest.raises(UserError, match=rf"cannot read column '{name}' of .* encoding DELTA_BYTE_ARRAY, which"):
                files._read_column([str(path)], name)


def test_text_and_lists_of_several_groups_of_rows(photos):
    rows = {"image": [f"images/{number}.png" for number in range(20)], "label": SETS}
    for values in (LABELS, SETS):
        pq.write_table(pa.table(rows | {"label": values}), photos / "labels.parquet", row_group_size=3)
        table = files.read_table(photos / "labels.parquet")
        found = table.column("label").rows() if values is LABELS else table.lists("label")[0].rows()
        assert found == (LABELS if values is LABELS else [name for names in SETS for name in names])
        assert table.column("image").rows() == rows["image"]
