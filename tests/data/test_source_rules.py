"""Labels, classes and splits of every data source, compared with scikit-learn and NumPy."""

import hashlib
import io
import logging
import shutil
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import write_idx, write_imagenet_records
from PIL import Image
from sklearn.preprocessing import LabelEncoder

from resnet_tf import prepare
from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import find_duplicate, to_names
from resnet_tf.core.errors import UserError
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.data.sources import Source, Split, match_classes, open_source, open_splits
from resnet_tf.data.sources.base import find_difference
from resnet_tf.inputs import ImagePreprocess


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
            write_idx(folder / f"{prefix}-{content}-ubyte.gz", array)
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


def _open(source_type, folder, splits, names=None, **settings) -> Source:
    path = WRITERS[source_type](folder, splits, names)
    settings = {"channels": 1, "mean": (0.0,), "std": (1.0,)} | settings
    return open_source(DataConfig(source=str(path), **settings))


@pytest.mark.parametrize("source_type", UNNAMED)
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
def test_classes_without_names_are_the_labels_that_occur(tmp_path, caplog, source_type, train, test, gap):
    """scikit-learn's encoder is the reference."""
    source = _open(source_type, tmp_path, {"train": train, "test": test})
    encoder = LabelEncoder().fit(train)
    assert source.class_names == tuple(map(str, encoder.classes_))
    assert source.train.labels.tolist() == encoder.transform(train).tolist()
    assert source.validation.labels.tolist() == encoder.transform(test).tolist()
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert [gap in each for each in warnings] == ([True] if gap else [])


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("source_type", "label"),
    [(source_type, label) for source_type in ("npz", "records") for label in (-1, -7, -(2**40))] + [("tfds", -1)],
)
def test_negative_labels_are_refused_with_file_and_position(tmp_path, source_type, named, label):
    names = dict(enumerate("abc")) | {label: "d"} if source_type == "records" else list("abc")
    splits = {"train": [0, 1, 2, 1], "test": [0, 2, label, label]}
    with pytest.raises(UserError) as caught:
        _open(source_type, tmp_path, splits, names if named else None)
    message = str(caught.value)
    assert f"has label {label}, expected non-negative integers" in message
    assert ("; -1 is usual for examples without a label" in message) == (label == -1)
    assert message.endswith("(2 such labels)")
    assert "split 'test': '" in message
    assert ", index 2" in message if source_type == "npz" else ", byte " in message
    assert str(tmp_path) in message


@pytest.mark.parametrize("source_type", ["npz", "tfds"])
def test_labels_without_a_name_are_refused(tmp_path, source_type):
    if source_type == "tfds":
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


@pytest.mark.parametrize("source_type", [*WRITERS, "prepare"])
@pytest.mark.parametrize("name", CLASSES)
def test_every_evaluated_class_is_trained(tmp_path, source_type, name):
    train, test, message = CLASSES[name]
    names = None if source_type in UNNAMED else list("abcd")

    def open_it():
        if source_type != "prepare":
            return _open(source_type, tmp_path, {"train": train, "test": test}, names)
        _write_folder(tmp_path / "photos", {"train": train, "test": test}, names)
        prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.1)
        return open_source(DataConfig(source=str(tmp_path / "out")))

    if message:
        with pytest.raises(UserError, match=message):
            open_it()
    else:
        source = open_it()
        assert (source.train.num_examples, source.validation.num_examples) == (len(train), len(test))


@pytest.mark.parametrize("source_type", ["npz", "idx", "tfds"])
def test_a_slice_that_lacks_a_class_is_warned_of(tmp_path, caplog, source_type):
    names = None if source_type == "idx" else list("abc")
    source = _open(source_type, tmp_path, {"train": [0, 1, 0, 2], "test": [2, 1]}, names, train_split="train[:3]")
    assert source.train.num_examples == 3
    assert "is in 'test' but not in 'train[:3]'" in caplog.text
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"split 'train\[:2\]' has one class"):
        _open(source_type, tmp_path / "other", {"train": [1, 1, 0, 2], "test": [1]}, names, train_split="train[:2]")


def test_data_for_evaluation_need_not_be_fit_for_training(tmp_path):
    path = _write_npz(tmp_path, {"train": [1, 1], "test": [0, 2]}, list("abc"))
    with pytest.raises(UserError, match=r"has one class, 'b'"):
        open_source(DataConfig(source=str(path)))
    assert open_source(DataConfig(source=str(path)), for_training=False).validation.labels.tolist() == [0, 2]


@pytest.mark.parametrize("source_type", ["npz", "records"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["red", "blue", "red"], r"classes 0 and 2 have the same name, 'red'"),
        (["e\u0301", "x", "\u00e9"], r"classes 0 and 2 have names of the same look, 'e\\u0301' and '\\xe9'"),
    ],
)
def test_two_classes_of_one_name_are_refused(tmp_path, source_type, names, message):
    with pytest.raises(UserError, match=message):
        _open(source_type, tmp_path, {"train": [0, 1, 2], "test": [0]}, names)


def test_files_with_different_names_for_a_label_are_refused(tmp_path):
    _write_records(tmp_path, {"train": [0, 1]}, ["a", "b"])
    _write_records(tmp_path, {"test": [0, 1]}, ["a", "c"])
    with pytest.raises(UserError, match=r"label 1 is 'b' in '.*train-0.*', but 'c' in '.*test-0.*'"):
        open_source(DataConfig(source=str(tmp_path)))


@pytest.mark.parametrize("order", [("train", "test"), ("test", "train")])
def test_identifiers_of_wordnet_are_preferred_to_other_names(tmp_path, order):
    for split, names in zip(order, (["n01440764", "b"], ["tench, Tinca tinca", "b"]), strict=True):
        _write_records(tmp_path, {split: [0, 1]}, names)
    assert open_source(DataConfig(source=str(tmp_path))).class_names == ("tench", "b")


def test_names_of_bytes_are_text(tmp_path):
    names = np.array([b"red", "\u00e9".encode(), b"\xe9"])
    assert to_names(names) == ("red", "\u00e9", r"\xe9")
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


# Splits of the data, changed settings, and the advice.
MISSING_SPLITS = [
    (["train", "val", "dev"], {}, r"; did you mean 'val'\? data.eval_split names the split"),
    (["training", "trn", "test"], {}, r"; did you mean 'training'\? data.train_split names the split"),
    (["train", "test"], {"eval_split": "val"}, r"; did you mean 'test'\? data.eval_split names the split"),
    (["train", "val"], {"eval_split": "val", "test_split": "test"}, r"'val'\? data.test_split names the split"),
    (["test"], {}, r"[^?]; data.train_split names the split"),
    (["train"], {}, r"; data.train_split=train\[:90%\] with data.eval_split=train\[90%:\] divides 'train'"),
    (["training"], {"train_split": "training", "eval_split": "testing"}, r"; data.train_split=training\[:90%\] with"),
    (["train"], {"train_split": "test"}, r"; data.eval_split names the split"),  # as in an evaluation of other data
    (["train", "held_out"], {"eval_split": "held_ot"}, r"; did you mean 'held_out'\? data.eval_split names the split"),
]


@pytest.mark.parametrize("source_type", WRITERS)
@pytest.mark.parametrize(("present", "settings", "advice"), MISSING_SPLITS)
def test_a_missing_split_names_the_key_that_helps(tmp_path, source_type, present, settings, advice):
    with pytest.raises(UserError, match=advice):
        _open(source_type, tmp_path, {split: [0, 1] for split in present}, ["a", "b"], **settings)


def test_a_folder_one_level_above_its_splits_names_the_source(tmp_path):
    _write_folder(tmp_path / "photos", {"train": [0, 1], "test": [0]}, ["a", "b"])
    with pytest.raises(UserError, match=r"has no folder 'train'; did you mean data.source='.*photos'\?"):
        open_source(DataConfig(source=str(tmp_path)))


def test_a_folder_one_level_above_its_classes_names_the_source(tmp_path):
    _write_folder(tmp_path, {"photos": [0, 1]}, ["a", "b"])
    with pytest.raises(UserError, match=r"has no folder 'train'; did you mean data.source='.*photos'\?"):
        open_source(DataConfig(source=str(tmp_path)))
    with pytest.raises(UserError, match=r"has no folder 'test'; it has photos; data.eval_split names the split"):
        open_source(DataConfig(source=str(tmp_path), train_split="photos"))


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
    "classes with a folder of one name": (["a/x/1", "a/y/2", "b/x/1"], r"'a' and 'b' of .* both have a folder 'x', so"),
    "a class beside them": (["a/x/1", "b/x/1", "c/1"], r"If they are classes, rename it, as in a/a_x; if they are spl"),
    "classes with folders of other names": (["a/x/1", "a/y/2", "b/z/1", "b/z/2"], ("a", "b")),
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
        if name != "splits without classes":  # for `prepare`, they are classes
            with pytest.raises(UserError, match=expected):
                prepare_folder(tmp_path / "photos", tmp_path / "out", eval_fraction=0.5)
            with pytest.raises(UserError, match=expected):
                open_splits(DataConfig(source=str(tmp_path / "photos")))


def test_settings_name_the_splits_of_a_folder(tmp_path):
    _write_folder(tmp_path / "photos", {"fold0": [0, 1], "fold1": [1, 0, 1]}, ["a", "b"])
    source = open_source(DataConfig(source=str(tmp_path / "photos"), train_split="fold0", eval_split="fold1"))
    assert source.class_names == ("a", "b")
    prepared = prepare(tmp_path / "photos", tmp_path / "out", overrides=["data.train_split=fold0"])
    assert {name: split.examples for name, split in prepared.splits.items()} == {"fold0": 2, "fold1": 3}


# Splits without class folders beside those with class folders -> the message.
UNLABELED = [
    ({"train": [0, 1]}, {}, r"of '.*/test' are in no class folder, .*; data.train_split=train\[:90%\] with"),
    ({"train": [0, 1], "val": [0, 1]}, {}, r"of '.*/test' are in .*; did you mean 'val'\? data.eval_split names"),
    ({"train": [0, 1], "val": [0]}, {"eval_split": "val", "test_split": "test"}, r"; data.test_split= leaves it out"),
]


@pytest.mark.parametrize(("splits", "settings", "message"), UNLABELED)
def test_a_folder_without_class_folders_is_an_unlabeled_split(tmp_path, caplog, splits, settings, message):
    photos = _write_folder(tmp_path / "photos", splits, ["a", "b"])
    (photos / "test").mkdir()
    (photos / "test" / "1.png").write_bytes(_png())
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=str(photos), **settings))
    for read in (
        lambda: list(open_splits(DataConfig(source=str(photos)))[1]),
        lambda: list(prepare(photos, tmp_path / "out").splits),
    ):
        caplog.clear()
        assert sorted(read()) == list(splits)
        assert f"'{photos}': a split without labels is left out: test" in caplog.text
    whole = open_source(DataConfig(source=str(photos), train_split="train[:1]+train[1:]", eval_split="train"))
    assert whole.train.num_examples == 2


def test_splits_without_labels_are_left_out_where_all_splits_are_read(tmp_path, caplog):
    path = _write_npz(tmp_path, {"test": [-1, -1], "train": [0, 1, 2], "val": [2, 1]}, list("abc"))
    source, splits = open_splits(DataConfig(source=str(path), channels=1))
    assert {name: split.labels.tolist() for name, split in splits.items()} == {"train": [0, 1, 2], "val": [2, 1]}
    assert source.train.num_examples == 5
    assert f"'{path}': a split without labels is left out: test" in caplog.text
    path = _write_npz(tmp_path, {"test": [-1, -1], "train": [0, -1, 2]}, list("abc"))
    with pytest.raises(UserError, match=r"split 'train': .*, index 1, has label -1"):
        open_splits(DataConfig(source=str(path), channels=1))
    path = _write_npz(tmp_path, {"test": [-1, -1], "train": [-1]}, list("abc"))
    with pytest.raises(UserError, match=r"split 'test': .*, index 0, has label -1"):
        open_splits(DataConfig(source=str(path), channels=1))


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


@pytest.mark.parametrize(("brightest", "warns"), [(0, False), (1, True), (2, False), (255, False)])
@pytest.mark.parametrize("source_type", ["npz", "idx"])
def test_arrays_of_0_and_1_are_warned_of(tmp_path, caplog, source_type, brightest, warns):
    images = np.zeros((4, 3, 3), np.uint8)
    images[1] = brightest
    labels = np.array([0, 1, 0, 1], np.uint8)
    if source_type == "npz":
        np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    else:
        for prefix in ("train", "t10k"):
            write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
            write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    path = tmp_path / "data.npz" if source_type == "npz" else tmp_path
    open_source(DataConfig(source=str(path)))
    warnings = [each.getMessage() for each in caplog.records if "are 0 or 1" in each.getMessage()]
    assert [each.startswith(f"all pixels of '{path}' are 0 or 1, which is almost black") for each in warnings] == (
        [True] * warns
    )


def _encode(image: Image.Image, file_format: str, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **settings)
    return buffer.getvalue()


def _palette(*colors) -> Image.Image:
    """Return an image whose pixel n has color n."""
    image = Image.fromarray(np.arange(len(colors), dtype=np.uint8)[None], "P")
    image.putpalette(np.array(colors).ravel().tolist())
    return image


def test_pixels_are_those_that_the_documentation_states():
    """16-bit PNG, transparent GIF and PNG, and images of 1 bit (docs/data.md, Unreadable images)."""
    deep = np.array([[0, 200, 256, 40_000, 65_535]], np.uint16)
    colors = [(255, 0, 0), (10, 200, 30)]
    one_bit = Image.fromarray(np.array([[0, 255, 255, 0, 0, 255, 0, 0]], np.uint8)).convert("1")
    expected = {
        _encode(Image.fromarray(deep), "PNG"): np.repeat(deep[..., None] >> 8, 3, axis=-1),
        tf.io.encode_png(np.repeat(deep[..., None], 3, axis=-1)).numpy(): np.repeat(deep[..., None] >> 8, 3, axis=-1),
        _encode(_palette(*colors), "GIF", transparency=1): [colors],
        _encode(_palette(*colors), "PNG", transparency=1): [colors],
        _encode(one_bit, "BMP"): np.asarray(one_bit.convert("RGB")),
        _encode(one_bit, "PNG"): np.asarray(one_bit.convert("RGB")),
        _encode(one_bit, "GIF"): np.asarray(one_bit.convert("RGB")),
    }
    for encoded, pixels in expected.items():
        decoded = ImagePreprocess(size=np.shape(pixels)[:2]).decode(tf.constant(encoded))
        np.testing.assert_array_equal(decoded, pixels)


class Shades(tfds.core.GeneratorBasedBuilder):
    """Data set with configurations and versions; the label of an image is its brightness."""

    VERSION = tfds.core.Version("3.0.2")
    SUPPORTED_VERSIONS = [tfds.core.Version("3.0.0")]  # noqa: RUF012 (TFDS's own attribute)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=name, description="") for name in ("320px-v2", "full-size")
    ]

    def _info(self):
        features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {name: self._generate_examples() for name in ("train", "test")}

    def _generate_examples(self):
        for index in range(4):
            yield index, {"image": np.full((4, 4, 1), index, np.uint8), "label": index % 2}


TFDS_NAMES = {
    "shades": "shades/320px-v2/3.0.2",
    "shades:3.0.2": "shades/320px-v2/3.0.2",
    "shades:3.*.*": "shades/320px-v2/3.0.2",
    "shades/full-size": "shades/full-size/3.0.2",
    "shades/full-size:3.0.2": "shades/full-size/3.0.2",
    "shades/full-size:*.*.*": "shades/full-size/3.0.2",
}


@pytest.mark.parametrize("name", TFDS_NAMES)
def test_names_of_tfds_with_configurations_and_versions(data_dir, name):
    source = open_source(DataConfig(source=name, data_dir=str(data_dir)))
    assert source.name == TFDS_NAMES[name] == tfds.builder(name, data_dir=data_dir).info.full_name
    assert source.train.num_examples == 4


def test_a_prepared_version_that_tfds_does_not_define_is_read(data_dir, tmp_path):
    """Versions of earlier releases of TFDS, and data sets without a builder class, by the same names."""
    open_source(DataConfig(source="shades/full-size:3.0.2", data_dir=str(data_dir)))
    for target in ("shades/full-size/2.0.0", "shades/full-size/3.0.0", "unregistered/1.0.0", "unregistered/2.0.0"):
        shutil.copytree(data_dir / "shades" / "full-size" / "3.0.2", tmp_path / target)
        text = (tmp_path / target / "dataset_info.json").read_text()
        (tmp_path / target / "dataset_info.json").write_text(text.replace("3.0.2", target.split("/")[-1]))
    for name in ("shades/full-size:2.0.0", "shades/full-size:3.0.0", "unregistered:1.0.0", "unregistered"):
        assert open_source(DataConfig(source=name, data_dir=str(tmp_path))).validation.num_examples == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "shades:3.0.0",
            r"'shades/320px-v2/3.0.0' could not be prepared in .* too old .*Copy a prepared directory there",
        ),
        ("shades:1.0.0", r"data set 'shades' has no version '1.0.0'; TFDS defines 3.0.2, 3.0.0, and "),
        ("shades:4.*.*", r"data set 'shades' has no version '4.\*.\*'"),
        ("shades:3", r"data.source='shades:3' has no complete version; .* such as shades:1.0.0"),
        ("shades:", r"data.source='shades:' has no complete version"),
        ("shades/320px", r"has no configuration '320px'; did you mean '320px-v2'"),
        ("digits/small", r"data set 'digits' has no configuration 'small'; it has none"),
        ("huggingface:mnist", r"names a community data set, whose code would be downloaded and run"),
        ("kaggle:a/b:1.0.0", r"names a community data set"),
        ("shaeds:3.0.2", r"unknown data set 'shaeds:3.0.2'; did you mean 'shades'"),
        ("photos/train", r"data.source='photos/train': no such folder or file, and no data set 'photos'"),
        ("./photos", r"no such folder or file"),
        ("a/b/c", r"no such folder or file"),
        ("data.npy", r"no such folder or file"),
    ],
)
def test_unknown_names_of_tfds_are_refused(data_dir, name, message):
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=name, data_dir=str(data_dir)))


def _source(names, labels) -> Source:
    split = Split("test", np.array(labels), load=None, locate=None)
    return Source("data", names, split, split)


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (("a", "b", "c"), [2, 0, 1], [2, 0, 1]),
        (("a", "c"), [0, 1, 1], [0, 2, 2]),
        (("b",), [0, 0], [1, 1]),
        (("b", "a", "c"), [0, 1, 2], [1, 0, 2]),
        (("c", "a"), [0, 1, 1], [2, 0, 0]),
        (("d",), [0], None),
        (("a", "b", "d"), [0], None),
        (("a", "a"), [0, 1], None),
    ],
)
def test_data_may_lack_classes_of_a_model_but_not_have_others(names, labels, expected, caplog):
    if expected is None:
        with pytest.raises(UserError, match=r"the model has the classes a, b, c, but 'data' has "):
            match_classes(("a", "b", "c"), _source(names, labels))
        return
    matched = match_classes(("a", "b", "c"), _source(names, labels))
    assert matched.class_names == ("a", "b", "c")
    assert matched.validation.labels.tolist() == expected
    assert ("classes of the model are not in 'data'" in caplog.text) == (len(names) < 3)
    columns = np.eye(len(names), dtype=bool)[labels]
    assert match_classes(("a", "b", "c"), _source(names, columns)).validation.labels.nonzero()[1].tolist() == expected


def test_numbering_from_0_is_not_taken_for_numbering_from_1(tmp_path):
    for folder, first in (("one", 1), ("zero", 0)):
        (tmp_path / folder).mkdir()
        labels = [first, first + 1, first + 2]
        _write_records(tmp_path / folder, {"train": labels, "test": labels}, None)
    model = open_source(DataConfig(source=str(tmp_path / "one"))).class_names
    with pytest.raises(UserError, match=r"the model has the classes 1, 2, 3, but .* has 0, 1, 2"):
        match_classes(model, open_source(DataConfig(source=str(tmp_path / "zero"))))
