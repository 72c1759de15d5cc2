"""Class names of any text: kept from the data set to the export, or refused by name."""

import ast
import contextlib
import dataclasses
import io
import re
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import processes
from PIL import Image

from resnet_tf.config import DataConfig
from resnet_tf.core.class_names import check_tfds_names, label_line, to_names
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import LABELS, read_export
from resnet_tf.data import prepare
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.data.sources import open_source
from resnet_tf.model.create import create_model
from resnet_tf.serving.export import TARGETS, export_model
from resnet_tf.serving.predictor import Predictor

# All characters at which `str.splitlines` splits, by Python's documentation.
LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
LOST_BY_TFDS = [
    " cat", "cat ", "\tcat", "cat\n", " ", "  ", "\t", "\u00a0cat", "cat\u3000", "\u2003",
    *(f"dog{each}bird" for each in (*LINE_BREAKS, "\r\n")),
]  # fmt: skip
KEPT_BY_TFDS = [
    "cat", "#x", "# y", "two words", "two  blanks", "a,b", 'quote"\'', "a\tb", "back\\slash", r"\n", r"\x20",
    "<img src=x onerror=1>", "$x^$", "%s {0}", "CAT", "\u00e9t\u00e9", "u\u0308ber", "\u732b", "\x1b[31m",
    "0", "01", "-1", "nan", "NUL", "L" * 200, "\ufeffmark", "zero\u200bwidth", "\U0001f408", "rtl\u202e",
]  # fmt: skip
ALL = [*KEPT_BY_TFDS, *LOST_BY_TFDS]


def _folder(root, names, count=3):
    for color, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(np.full((4, 4, 3), [color, index, 0], np.uint8)).save(root / name / f"{index}.png")
    return root


def _content(source) -> dict[bytes, str]:
    splits = (source.train, source.validation)
    return {
        image: source.class_names[label] for split in splits for image, label in split.examples().as_numpy_iterator()
    }


@pytest.mark.parametrize("name", ALL, ids=ascii)
def test_names_that_tfds_would_change_are_refused(tmp_path, name):
    """TFDS itself, which writes and reads the file of names, is the reference."""
    tfds.features.ClassLabel(names=["other", name]).save_metadata(tmp_path, "label")
    read = tfds.features.ClassLabel(num_classes=2)
    with contextlib.suppress(ValueError):  # more or fewer names than classes
        read.load_metadata(tmp_path, "label")
    if name in KEPT_BY_TFDS:
        assert read.names == ["other", name]
        check_tfds_names(["other", name])
        return
    # TFDS keeps rare line breaks within a name, at which other readers of the file split.
    assert read.names != ["other", name] or set(name) & set(LINE_BREAKS) - set("\n\r")
    with pytest.raises(UserError, match=re.escape(f"class name {name!r} ") + r".*which TFDS cannot store; rename the"):
        check_tfds_names(["other", name])


def test_prepare_keeps_or_refuses_every_class_name(tmp_path):
    kept = _folder(tmp_path / "kept", KEPT_BY_TFDS, count=20)
    prepare_folder(kept, tmp_path / "out", eval_fraction=0.2)
    before = open_source(DataConfig(source=str(kept), eval_fraction=0.2))
    after = open_source(DataConfig(source=str(tmp_path / "out")))
    composed = (unicodedata.normalize("NFC", name) for name in KEPT_BY_TFDS)
    assert after.class_names == before.class_names == tuple(sorted(composed))
    assert _content(after) == _content(before)
    lost = _folder(tmp_path / "lost", ["cat", " cat", "  ", "dog\nbird", "#x"], count=20)
    with pytest.raises(UserError, match=r"class name '  ' consists of blanks, which TFDS cannot store"):
        prepare_folder(lost, tmp_path / "none", eval_fraction=0.2)
    assert not (tmp_path / "none").exists()
    source = open_source(DataConfig(source=str(lost), eval_fraction=0.4))  # the folder itself is read as it is
    assert source.class_names == ("  ", " cat", "#x", "cat", "dog\nbird")


@pytest.mark.parametrize("fault", ["names", "missing name", "examples"])
def test_what_prepare_wrote_is_compared_before_it_gets_its_name(tmp_path, monkeypatch, fault):
    """Class names and examples that TFDS changes for a reason that no check foresees."""
    folder, write = _folder(tmp_path / "photos", ["cat", "dog"]), prepare._write

    def write_other(staging, content, check):
        if fault == "examples":
            content = dataclasses.replace(content, parts=dict.fromkeys(content.parts, content.parts["train"]))
        write(staging, content, check)
        if fault != "examples":
            (staging / "1.0.0" / "label.labels.txt").write_text("cat\ncow\n" if fault == "names" else "cat\n")

    monkeypatch.setattr(prepare, "_write", write_other)
    with pytest.raises(UserError, match=r"TFDS reads ") as caught:
        prepare_folder(folder, tmp_path / "out", eval_fraction=0.3)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


PREPARE = """
import sys
from pathlib import Path
from resnet_tf.core.errors import UserError
from resnet_tf.data.prepare import prepare_folder
print("ready", flush=True)
input()
try:
    prepare_folder(Path(sys.argv[1]), Path(sys.argv[2]), eval_fraction=0.3)
    print("done")
except UserError as error:
    print(error)
"""


def test_a_second_prepare_into_a_directory_is_refused_from_the_first_to_the_last_moment(tmp_path, monkeypatch):
    first, second = (_folder(tmp_path / name, ["cat", name]) for name in ("first", "second"))
    write, refused = prepare._write, []

    def write_between(staging, content, check):
        for _ in range(2):
            with pytest.raises(UserError, match=r"--to='.*out' is being written by another process; give another"):
                prepare_folder(second, tmp_path / "out", eval_fraction=0.3)
            refused.append(second)
        write(staging, content, check)

    monkeypatch.setattr(prepare, "_write", write_between)
    prepare_folder(first, tmp_path / "out", eval_fraction=0.3)
    assert len(refused) == 2
    with pytest.raises(UserError, match=r"--to='.*out' is not empty; expected a new or an empty directory"):
        prepare_folder(second, tmp_path / "out", eval_fraction=0.3)
    assert open_source(DataConfig(source=str(tmp_path / "out"))).class_names == ("cat", "first")


@pytest.mark.slow
def test_of_two_that_prepare_into_one_directory_one_is_refused(tmp_path):
    folders = [_folder(tmp_path / name, ["cat", name]) for name in ("one", "two")]
    commands = (["-c", PREPARE, str(folder), str(tmp_path / "out")] for folder in folders)
    with processes(*commands) as started:
        outputs = [each.communicate(timeout=120)[0] for each in started]
    done = outputs.index("done\n")
    assert re.fullmatch(r"--to='.*out' (is being written by another process|is not empty); .*\n", outputs[1 - done])
    assert open_source(DataConfig(source=str(tmp_path / "out"))).class_names == ("cat", folders[done].name)


@pytest.mark.parametrize("name", [*ALL, "\ufeff", "\udce9t\udce9", "x\x00y", "\\"], ids=ascii)
def test_a_line_of_a_label_file_stands_for_one_name(name):
    line = label_line(name)
    assert line.splitlines() == [line] == [line.strip()]
    assert line.isprintable() or set(line) & {"\u202e", "\u200b"}
    assert line.encode().decode("utf-8-sig") == line
    # Python's parser of strings is the reference for the escapes.
    assert ast.literal_eval('"' + line.replace('"', r"\"") + '"') == name
    if name.isprintable() and name == name.strip() and "\\" not in name:
        assert line == name


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", ""], r"class name '', number 1 of 2, is empty"),
        (["a\ud800", "b"], r"class name 'a\\ud800', number 0 of 2, cannot be encoded in UTF-8"),
        (["cat", None], r"label None is of type NoneType"),
    ],
)
def test_names_that_no_file_can_hold_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        to_names(names)


def _archive(path, class_names):
    images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels, class_names=class_names)
    return DataConfig(source=str(path))


def test_archives_with_names_of_any_dtype(tmp_path):
    names = np.array(ALL)
    assert open_source(_archive(tmp_path / "text.npz", names)).class_names == tuple(ALL)
    encoded = np.array(["\u00e9t\u00e9".encode(), b"\xe9", b"\xe8"])
    assert open_source(_archive(tmp_path / "bytes.npz", encoded)).class_names == ("\u00e9t\u00e9", r"\xe9", r"\xe8")
    for empty in (np.array(["cat", ""]), np.array([b"cat", b""])):
        with pytest.raises(UserError, match=r"data.source='.*none.npz': class name '', number 1 of 2, is empty"):
            open_source(_archive(tmp_path / "none.npz", empty))


def test_folders_whose_names_become_the_same_text_are_refused(tmp_path):
    folder = _folder(tmp_path / "photos", ["other", r"\xe9"])
    (folder / "\udce9").mkdir()
    (folder / r"\xe9" / "0.png").rename(folder / "\udce9" / "0.png")
    with pytest.raises(UserError, match=r"two class folders of '.*photos' have the same name as text; rename one"):
        open_source(DataConfig(source=str(folder)))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("target", [target for target in TARGETS if target != "hub_features"])
def test_exports_keep_every_class_name(tmp_path, target):
    if target == "onnx":
        pytest.importorskip("onnx")
    model = create_model("resnet8_w32", num_classes=len(ALL), input_shape=(8, 8, 3))
    path = export_model(model, tmp_path / "models", target=target, labels=ALL)
    assert read_export(path).metadata["labels"] == ALL
    lines = (path / LABELS).read_text(encoding="utf-8").splitlines()
    assert lines == [label_line(name) for name in ALL]
    predictor = Predictor(path)
    assert predictor.labels == tuple(ALL)
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
    (prediction,) = predictor([file.getvalue()])
    assert [ALL[index] for index in prediction.indices] == list(prediction.labels)
    if target in ("serving", "hub"):
        outputs = tf.saved_model.load(str(path)).signatures["serving_default"](tf.constant([file.getvalue()]))
        expected = [ALL[index].encode() for index in outputs["top_classes"][0].numpy()]
        assert outputs["top_labels"][0].numpy().tolist() == expected
