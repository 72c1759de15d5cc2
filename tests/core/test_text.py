"""Text that comes with data, on a terminal and in a file."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import resnet_tf
from resnet_tf.core.text import counted, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tench, Tinca tinca", None),
        ("\N{CJK UNIFIED IDEOGRAPH-732B}\N{NO-BREAK SPACE}\N{CAT FACE}", None),
        ("\x1b[2Jcat", r"\x1b[2Jcat"),
        ("two\nlines\r\u2028end", r"two\x0alines\x0d\u2028end"),
        ("\udcff\x9b\x00", r"\xff\x9b\x00"),
        ("rtl\u202eevil", r"rtl\u202eevil"),
    ],
)
def test_printable_text_controls_no_terminal_and_encodes(text, shown):
    assert printable(text) == (text if shown is None else shown)
    printable(text).encode()


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (1, "epoch", "1 epoch"),
        (0, "epoch", "0 epochs"),
        (2, "replica", "2 replicas"),
        (1, "class", "1 class"),
        (1000, "class", "1,000 classes"),
        (1, "unreadable example", "1 unreadable example"),
        (2, "directory", "2 directories"),
        (2, "key", "2 keys"),
        (3, "batch", "3 batches"),
        (np.int64(1), "image", "1 image"),
    ],
)
def test_nouns_follow_their_number(number, noun, expected):
    assert counted(number, noun) == expected


def test_no_message_leaves_the_number_open():
    package = Path(resnet_tf.__file__).parent
    found = [
        f"{path.relative_to(package)}: {node.value}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[a-z]\(e?s\)", node.value)
    ]
    assert found == []
