"""Text that comes with data, on a terminal and in a file."""

import pytest

from resnet_tf.core.text import printable


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
