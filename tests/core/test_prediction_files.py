"""Files of predictions: both formats, and one line for any other content."""

import os
import re
import unicodedata

import numpy as np
import pytest

from resnet_tf.core.errors import UserError
from resnet_tf.core.prediction_files import read_predictions

JSON = '{"file": "a.png", "labels": ["cat", "dog"], "scores": [0.7, 0.3], "indices": [0, 1]}\n'
CSV = "file,label1,score1,label2,score2\na.png,cat,0.7,dog,0.3\n"


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", JSON), ("a.csv", CSV)])
def test_both_formats_of_predict(name, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    found = read_predictions(name)
    assert found.answers == {os.path.realpath("a.png"): ("cat", 0.7)}
    classes, scores = found.find([str(tmp_path / "a.png")], ["dog", "cat"])
    assert (classes.tolist(), scores.tolist()) == ([1], [0.7])
    with pytest.raises(UserError, match=r"has no prediction for 1 of 2 examples, such as 'b.png'"):
        found.find(["a.png", "b.png"], ["dog", "cat"])
    with pytest.raises(UserError, match="predicts 'cat', which is not one of the classes"):
        found.find(["a.png"], ["dog"])


def test_escaped_names_of_csv_are_found(tmp_path):
    (tmp_path / "a.csv").write_text("file,label1,score1\na.png,ship\\x1b,0.5\n")
    found = read_predictions(tmp_path / "a.csv").find(["a.png"], ["cat", "ship\x1b"])
    np.testing.assert_array_equal(found[0], [1])


@pytest.mark.parametrize(("stored", "known"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("text", [JSON, CSV], ids=["json", "csv"])
def test_class_names_of_the_same_look_are_the_same(text, stored, known, tmp_path):
    (tmp_path / "a").write_text(text.replace("cat", unicodedata.normalize(stored, "café")))
    found = read_predictions(tmp_path / "a").find(["a.png"], ["dog", unicodedata.normalize(known, "café")])
    np.testing.assert_array_equal(found[0], [1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the columns file, label1, score1 are missing"),
        ("hello", "the columns file, label1, score1 are missing"),
        ("{", "is not a file of predictions"),
        ('{"file": "a"}', "line 1: labels"),
        (JSON.replace("0.7", "7"), r"line 1: the score 7(\.0)? is not in \[0, 1\]"),
        (JSON.replace("0.7", "NaN"), "is not in"),
        (JSON.replace('["cat", "dog"]', "[]"), "line 1: no label"),
        (JSON + JSON.replace("cat", "dog"), "two predictions for 'a.png'"),
        (CSV.replace("0.7", "x"), "could not convert"),
        (CSV.replace("0.7", ""), "line 2: the score nan"),
        (CSV.replace("a.png", ""), "line 2: '' is no name of a file"),
        (CSV.replace("a.png", "a\0.png"), r"line 2: 'a\\x00.png' is no name of a file"),
        (JSON.replace("a.png", "a\\u0000.png"), r"line 1: 'a\\x00.png' is no name of a file"),
        ("score1,label1,file\n0.7,cat\n", "line 2: '' is no name of a file"),
        ("[" * 100_000, "the columns"),
        ('{"a": ' + "[" * 100_000, "is not a file of predictions"),
    ],
)
def test_other_content_is_one_line(text, message, tmp_path):
    (tmp_path / "a").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_predictions(tmp_path / "a")
    assert "\n" not in str(error.value)
    assert re.match("'|cannot read '", str(error.value))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read .*: no text"):
        read_predictions(tmp_path / "a")
