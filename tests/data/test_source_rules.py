"""Labels, classes and splits of every data source, compared with scikit-learn and NumPy."""

import gzip
import hashlib
import io
import logging
import struct
import unicodedata

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import write_imagenet_records
from PIL import Image
from sklearn.preprocessing import LabelEncoder

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import find_duplicate, to_names
from resnet_tf.core.errors import UserError
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.data.sources import Source, Split, match_classes, open_source
from resnet_tf.data.sources.base import find_difference


def _png(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), number % 256).save(buffer, "PNG")
    return buffer.getvalue()


def _write_npz(folder, splits, names):
    arrays = {f"x_{split}": np.full((len(labels), 4, 4), 7, np.uint8) for split, labels in splits.items()}
    arrays |= {f"y_{split}": np.array(labels) for split, labels in splits.items()}
    np.savez(folder / "data.npz", **arrays, **({"class_names": names} if names else {}))
    return folder / "data.npz"


def _write_idx(folder, splits, names):
    del names  # the format has none
    for split, labels in splits.items():
        prefix = {"test": "t10k"}.get(split, split)
        for content, array in (
            ("images-idx3", np.full((len(labels), 4, 4), 7, np.uint8)),
            ("labels-idx1", np.array(labels, np.uint8)),
        ):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{prefix}-{content}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def _write_records(folder, splits, names):
    for split, labels in splits.items():
        examples = [(_png(), label, {"text": names[label].encode()} if names else {}) for label in labels]
        write_imagenet_records(folder / f"{split}-00000-of-00001", examples)
    return folder


def _write_tfds(folder, splits, names):
    """Write a data set whose classes are all labels up to the largest."""
    count = 1 + max(max(labels) for labels in splits.values())
    feature = tfds.features.ClassLabel(names=names[:count]) if names else tfds.features.ClassLabel(num_classes=count)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="written",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 1)), "label": feature}),
        split_datasets={
            split: [(str(index), {"image": io.BytesIO(_png()), "label": label}) for index, label in enumerate(labels)]
            for split, labels in splits.items()
        },
        data_dir=folder,
        disable_shuffling=True,
    )
    return folder / "written"


def _write_folder(folder, splits, names):
    for split, labels in splits.items():
        for index, label in enumerate(labels):
            path = folder / split / (names[label] if names else str(label)) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png())
    return folder


WRITERS = {
    "npz": _write_npz,
    "idx": _write_idx,
    "records": _write_records,
    "tfds": _write_tfds,
    "folder": _write_folder,
}
UNNAMED = ["npz", "idx", "records"]  # sources whose labels may have no names


def _open(kind, folder, splits, names=None, **settings) -> Source:
    path = WRITERS[kind](folder, splits, names)
    settings = {"channels": 1, "mean": (0.0,), "std": (1.0,)} | settings
    return open_source(DataConfig(source=str(path), **settings))


@pytest.mark.parametrize("kind", UNNAMED)
@pytest.mark.parametrize(
    ("train", "test", "gap"),
    [
        ([0, 1, 2, 1], [2, 0], ""),
        ([1, 2, 3, 3], [3, 1], ""),
        ([0, 100, 200], [200, 100], "no label between 0 and 100"),
        ([2, 3, 7], [7, 2], "no label between 3 and 7"),
        ([255, 1], [1], "no label between 1 and 255"),
    ],
)
def test_classes_without_names_are_the_labels_that_occur(tmp_path, caplog, kind, train, test, gap):
    """scikit-learn's encoder is the reference."""
    source = _open(kind, tmp_path, {"train": train, "test": test})
    encoder = LabelEncoder().fit(train)
    assert source.class_names == tuple(map(str, encoder.classes_))
    assert source.train.labels.tolist() == encoder.transform(train).tolist()
    assert source.validation.labels.tolist() == encoder.transform(test).tolist()
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert [gap in each for each in warnings] == ([True] if gap else [])


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("kind", "label"),
    [(kind, label) for kind in ("npz", "records") for label in (-1, -7, -(2**40))] + [("tfds", -1)],
)
def test_negative_labels_are_refused_with_file_and_position(tmp_path, kind, named, label):
    names = dict(enumerate("abc")) | {label: "d"} if kind == "records" else list("abc")
    splits = {"train": [0, 1, 2, 1], "test": [0, 2, label, label]}
    with pytest.raises(UserError) as caught:
        _open(kind, tmp_path, splits, names if named else None)
    message = str(caught.value)
    assert f"has label {label}, expected non-negative integers" in message
    assert ("; -1 is usual for examples without a label" in message) == (label == -1)
    assert message.endswith("(2 such labels)")
    assert "split 'test': '" in message
    assert ", index 2" in message if kind == "npz" else ", byte " in message
    assert str(tmp_path) in message


@pytest.mark.parametrize("kind", ["npz", "tfds"])
def test_labels_without_a_name_are_refused(tmp_path, kind):
    if kind == "tfds":
        path = _write_tfds(tmp_path, {"train": [0, 1, 2], "test": [1, 2]}, list("abc"))
        version = path / "1.0.0"
        text = (version / "features.json").read_text()
        (version / "features.json").write_text(text.replace('"numClasses": "3"', '"numClasses": "2"'))
        (version / "label.labels.txt").write_text("a\nb\n")
    else:
        path = _write_npz(tmp_path, {"train": [0, 1, 2], "test": [1, 2]}, list("ab"))
    with pytest.raises(UserError, match=r"split 'train': .*, (index|byte) \d+, has label 2, but the number of classes"):
        open_source(DataConfig(source=str(path)))


def test_labels_of_names_count_from_0(tmp_path):
    with pytest.raises(UserError, match=r"has label 3, but the number of classes is 3; .* but the lowest is 1"):
        _open("npz", tmp_path, {"train": [1, 2, 3], "test": [1]}, list("abc"))


# The same classes in all sources: `train`, `test`, and a pattern of the message, or None where the data is accepted.
CLASSES = {
    "one class": ([0, 0, 0], [0], r"split 'train' has one class, '(0|a)'; training needs two or more"),
    "one image": ([0], [0], r"split 'train' has one class, '(0|a)'; training needs two or more"),
    "a class of the test split": ([0, 1], [0, 2], r"class '(2|c)' is in 'test' but not in 'train'"),
    "two classes of the test split": ([0, 1], [3, 2], r"class '.' \(and 1 more\) is in 'test' but not in 'train'"),
    "a class of the training split": ([0, 1, 2], [0, 2], None),
    "one image of each class": ([0, 1], [1], None),
}


@pytest.mark.parametrize("kind", [*WRITERS, "prepare"])
@pytest.mark.parametrize("name", CLASSES)
def test_every_evaluated_class_is_trained(tmp_path, kind, name):
    train, test, message = CLASSES[name]
    names = None if kind in UNNAMED else list("abcd")

    def open_it():
        if kind != "prepare":
            return _open(kind, tmp_path, {"train": train, "test": test}, names)
        _write_folder(tmp_path / "photos", {"train": train, "test": test}, names)
        prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.1)
        return open_source(DataConfig(source=str(tmp_path / "out")))

    if message:
        with pytest.raises(UserError, match=message):
            open_it()
    else:
        source = open_it()
        assert (source.train.num_examples, source.validation.num_examples) == (len(train), len(test))


@pytest.mark.parametrize("kind", ["npz", "idx", "tfds"])
def test_a_slice_that_lacks_a_class_is_warned_of(tmp_path, caplog, kind):
    names = None if kind == "idx" else list("abc")
    source = _open(kind, tmp_path, {"train": [0, 1, 0, 2], "test": [2, 1]}, names, train_split="train[:3]")
    assert source.train.num_examples == 3
    assert "is in 'test' but not in 'train[:3]'" in caplog.text
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"split 'train\[:2\]' has one class"):
        _open(kind, tmp_path / "other", {"train": [1, 1, 0, 2], "test": [1]}, names, train_split="train[:2]")


def test_data_for_evaluation_need_not_be_fit_for_training(tmp_path):
    path = _write_npz(tmp_path, {"train": [1, 1], "test": [0, 2]}, list("abc"))
    with pytest.raises(UserError, match=r"has one class, 'b'"):
        open_source(DataConfig(source=str(path)))
    assert open_source(DataConfig(source=str(path)), for_training=False).validation.labels.tolist() == [0, 2]


@pytest.mark.parametrize("kind", ["npz", "records"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["red", "blue", "red"], r"classes 0 and 2 have the same name, 'red'"),
        (["e\u0301", "x", "\u00e9"], r"classes 0 and 2 have names of the same look, 'e\\u0301' and '\\xe9'"),
    ],
)
def test_two_classes_of_one_name_are_refused(tmp_path, kind, names, message):
    with pytest.raises(UserError, match=message):
        _open(kind, tmp_path, {"train": [0, 1, 2], "test": [0]}, names)


def test_files_with_different_names_for_a_label_are_refused(tmp_path):
    _write_records(tmp_path, {"train": [0, 1]}, ["a", "b"])
    _write_records(tmp_path, {"test": [0, 1]}, ["a", "c"])
    with pytest.raises(UserError, match=r"label 1 is 'b' in '.*train-0.*', but 'c' in '.*test-0.*'"):
        open_source(DataConfig(source=str(tmp_path)))


def test_names_of_bytes_are_text(tmp_path):
    names = np.array([b"red", "\u00e9".encode(), b"\xe9"])
    assert to_names(names) == to_names(list(names)) == ("red", "\u00e9", r"\xe9")
    path = _write_npz(tmp_path, {"train": [0, 1, 2], "test": [0]}, list(names))
    assert open_source(DataConfig(source=str(path))).class_names == ("red", "\u00e9", r"\xe9")
    for name, folder in ((b"\xe9", "a"), (b"\xe8", "b")):
        write_imagenet_records(tmp_path / folder / "train-0-of-1", [(_png(), 0, {"text": name}), (_png(), 1, {})])
        write_imagenet_records(tmp_path / folder / "test-0-of-1", [(_png(), 1, {})])
    found = [open_source(DataConfig(source=str(tmp_path / folder))).class_names for folder in "ab"]
    assert found == [(r"\xe9", "1"), (r"\xe8", "1")]


@pytest.mark.parametrize("seed", range(3))
def test_duplicates_are_found_as_numpy_finds_them(seed):
    generator = np.random.default_rng(seed)
    for _ in range(50):
        names = generator.integers(0, 30, generator.integers(1, 12)).astype(str).tolist()
        assert bool(find_duplicate(names)) == (len(np.unique(names)) < len(names))


# Numbers of images of each class of a folder of class/file.
SIZES = {
    "three classes of 20": [20, 20, 20],
    "few images": [1, 2, 3, 4, 5],
    "one image and many": [1, 300],
    "many small classes": [3] * 60,
    "unequal": [2, 17, 150, 1, 40],
}


def _class_folder(root, sizes):
    for number, size in enumerate(sizes):
        (root / f"class{number}").mkdir(parents=True)
        for index in range(size):
            (root / f"class{number}" / f"{index}.png").write_bytes(b"x")
    return root


def _files(split: Split) -> set[str]:
    return {"/".join(split.locate(index)["file"].split("/")[-2:]) for index in range(split.num_examples)}


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", SIZES)
def test_each_class_is_divided(tmp_path, name, fraction):
    """Bounds of the counts, and a calculation of the hash division with NumPy from the file names."""
    source = open_source(DataConfig(source=str(_class_folder(tmp_path, SIZES[name])), eval_fraction=fraction))
    train, test = _files(source.train), _files(source.validation)
    assert not train & test
    assert len(train | test) == sum(SIZES[name])
    for number, size in enumerate(SIZES[name]):
        files = np.array([f"class{number}/{index}.png" for index in range(size)])
        hashes = np.array([int.from_bytes(hashlib.blake2b(each.encode(), digest_size=8).digest()) for each in files])
        found = np.array([each in test for each in files])
        assert found[np.argsort(hashes)].tolist() == sorted(found, reverse=True), "the smallest hashes are tested"
        if size == 1:
            assert not found.any()
            continue
        assert 1 <= found.sum() <= size - 1
        assert size * fraction / 2 <= found.sum() <= np.ceil(2 * size * fraction)
        by_hash = hashes < fraction * 2.0**64
        if size * fraction / 2 <= by_hash.sum() <= min(2 * size * fraction, size * (1 + fraction) / 2):
            assert found.tolist() == by_hash.tolist(), "a file's split depends on no other file"


def test_a_folder_and_its_prepared_form_have_the_same_division(tmp_path):
    _class_folder(tmp_path / "photos", [1, 2, 20])
    for path in (tmp_path / "photos").rglob("*.png"):
        path.write_bytes(_png(len(str(path))))
    prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.3)
    before = open_source(DataConfig(source=str(tmp_path / "photos"), eval_fraction=0.3))
    after = open_source(DataConfig(source=str(tmp_path / "out")))
    for one, other in zip(before.splits.values(), after.splits.values(), strict=True):
        assert sorted(one.labels) == sorted(other.labels)


def test_a_folder_of_single_images_names_the_way_out(tmp_path):
    with pytest.raises(UserError, match=r"leaves no image of .*data.train_split and data.eval_split name"):
        open_source(DataConfig(source=str(_class_folder(tmp_path, [1, 1, 1]))))


# Files of a folder -> its classes, or a pattern of the message.
SPLIT_NAMES = {
    "a class with a folder train": (["a/1", "a/train/2", "a/3", "b/1", "b/2"], ("a", "b")),
    "two classes with a folder train": (["a/1", "a/train/2", "b/test/1", "b/train/2", "c/1", "c/2"], ("a", "b", "c")),
    "a class of folders train and test": (["a/1", "a/2", "b/train/1", "b/test/2"], ("a", "b")),
    "a class train": (["bus/1", "bus/2", "car/1", "car/2", "train/1", "train/2"], ("bus", "car", "train")),
    "a class test": (["exam/1", "exam/2", "test/1", "test/2"], ("exam", "test")),
    "class/split/file": (["a/train/1", "a/test/2", "b/train/1"], r"has class/split/file, such as a/test/2.png"),
    "splits without classes": (["train/1", "train/2", "test/1"], r"no images under '.*train'"),
}


@pytest.mark.parametrize("name", SPLIT_NAMES)
def test_folders_with_names_of_splits(tmp_path, name):
    files, expected = SPLIT_NAMES[name]
    for each in files:
        (tmp_path / "photos" / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / f"{each}.png").write_bytes(_png())
    if isinstance(expected, tuple):
        source = open_source(DataConfig(source=str(tmp_path / "photos"), eval_fraction=0.5))
        assert source.class_names == expected
        assert source.train.num_examples + source.validation.num_examples == len(files)
        info = prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.5)
        assert info.features["label"].names == list(expected)
    else:
        with pytest.raises(UserError, match=expected):
            open_source(DataConfig(source=str(tmp_path / "photos")))


FORMS = ("\u00e9t\u00e9", "e\u0301te\u0301")  # composed, as on Linux and Windows, and decomposed, as on macOS


@pytest.mark.parametrize("forms", [FORMS, FORMS[::-1], FORMS[:1] * 2, FORMS[1:] * 2])
def test_unicode_forms_of_a_name_are_one_class(tmp_path, forms):
    for split, form in zip(("train", "test"), forms, strict=True):
        for name in (form, "bar"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            (tmp_path / "photos" / split / name / "1.png").write_bytes(_png())
    source = open_source(DataConfig(source=str(tmp_path / "photos")))
    assert source.class_names == ("bar", FORMS[0])
    assert source.train.labels.tolist() == source.validation.labels.tolist() == [0, 1]
    info = prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.1)
    assert info.features["label"].names == ["bar", FORMS[0]]
    for form in FORMS:
        assert match_classes(("bar", form), source).validation.labels.tolist() == [0, 1]
        assert not find_difference({**source.identity, "class_names": ["bar", form]}, source.identity)


def test_unicode_forms_beside_each_other_are_one_class(tmp_path, caplog):
    for name in (*FORMS, "bar"):
        (tmp_path / name).mkdir()
        for index in range(20):
            (tmp_path / name / f"{name}{index}.png").write_bytes(b"x")
    source = open_source(DataConfig(source=str(tmp_path), eval_fraction=0.5))
    assert source.class_names == ("bar", FORMS[0])
    assert np.bincount(np.concatenate([source.train.labels, source.validation.labels])).tolist() == [20, 40]
    assert r"class folders 'e\u0301te\u0301' and '\xe9t\xe9' of " in caplog.text


def test_the_division_is_the_same_for_both_unicode_forms(tmp_path):
    divisions = []
    for form in FORMS:
        for name in (form, "bar"):
            (tmp_path / ascii(form) / name).mkdir(parents=True)
            for index in range(30):
                (tmp_path / ascii(form) / name / f"{form}{index}.png").write_bytes(b"x")
        source = open_source(DataConfig(source=str(tmp_path / ascii(form)), eval_fraction=0.5))
        divisions.append({unicodedata.normalize("NFC", each) for each in _files(source.validation)})
    assert divisions[0] == divisions[1]


def _source(names, labels) -> Source:
    split = Split("test", np.array(labels), load=None, locate=None)
    return Source("data", names, split, split)


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (("a", "b", "c"), [2, 0, 1], [2, 0, 1]),
        (("a", "c"), [0, 1, 1], [0, 2, 2]),
        (("b",), [0, 0], [1, 1]),
        (("d",), [0], None),
        (("a", "b", "d"), [0], None),
        (("b", "a", "c"), [0], None),
        (("c", "a"), [0], None),
    ],
)
def test_data_may_lack_classes_of_a_model_but_not_have_others(names, labels, expected):
    if expected is None:
        with pytest.raises(UserError, match=r"the model has the classes a, b, c, but 'data' has "):
            match_classes(("a", "b", "c"), _source(names, labels))
        return
    matched = match_classes(("a", "b", "c"), _source(names, labels))
    assert matched.class_names == ("a", "b", "c")
    assert matched.validation.labels.tolist() == expected


def test_numbering_from_0_is_not_taken_for_numbering_from_1(tmp_path):
    for folder, first in (("one", 1), ("zero", 0)):
        (tmp_path / folder).mkdir()
        labels = [first, first + 1, first + 2]
        _write_records(tmp_path / folder, {"train": labels, "test": labels}, None)
    model = open_source(DataConfig(source=str(tmp_path / "one"))).class_names
    with pytest.raises(UserError, match=r"the model has the classes 1, 2, 3, but .* has 0, 1, 2"):
        match_classes(model, open_source(DataConfig(source=str(tmp_path / "zero"))))
