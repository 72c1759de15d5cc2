"""The page of a comparison: text as text, and its layout in a browser."""

import re

import numpy as np
import pytest

from resnet_tf.core.comparison import Answers, Comparison, check_gates
from resnet_tf.report.comparison_page import write_comparison

NAMES = ("<b>cat</b> & dog", "a" * 60, r"$\frac$", "ship\x1b[31m\udcff", "frog")


def _write(directory, *, examples=400):
    generator = np.random.default_rng(0)
    targets = generator.integers(0, len(NAMES), examples)

    def answers(name: str, accuracy: float, milliseconds: float, **preprocess: object) -> Answers:
        wrong = generator.random(examples) > accuracy
        predictions = np.where(wrong, (targets + 1) % len(NAMES), targets)
        confidence = generator.uniform(0.3, 1.0, examples)
        latencies = {1: milliseconds, 16: 9 * milliseconds}
        return Answers(
            name,
            "resnet18",
            predictions,
            confidence,
            loss=0.5,
            preprocess=preprocess,
            milliseconds=latencies,
            parameters=271_098,
            bytes=10**6,
        )

    comparison = Comparison(
        data="<i>photos</i>, split 'test'",
        old=answers("runs/<u>old</u>/export/serving/1", 0.9, 3.0, size=[224, 224]),
        new=answers("runs/new/export/serving/1", 0.8, 4.0, size=[192, 192], mean=0.5),
        targets=targets,
        class_names=NAMES,
        groups={
            "class": {name: np.flatnonzero(targets == index) for index, name in enumerate(NAMES)},
            "<s>camera": {"left": np.arange(0, examples, 2), "right": np.arange(1, examples, 2)},
        },
    )
    gates = check_gates(comparison, max_accuracy_drop=0.01, max_latency_ratio=2.0, min_class_recall=0.9)

    def load(indices):
        return [generator.uniform(size=(96, 96, 3)) for _ in indices]

    path = write_comparison(directory, comparison, gates, load, environment={"tensorflow": "2.21.0"})
    return path, comparison


def test_the_page_needs_no_other_file_and_shows_text_as_text(tmp_path):
    path, comparison = _write(tmp_path / "page")
    text = path.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", text)
    assert "http" not in text
    assert not re.findall(r"<(i|u|s|b)>(cat|photos|old|camera)", text)
    assert "\x1b" not in text
    assert f"<b>{comparison.paired.negative}</b>negative flips" in text
    assert text.count("<figure>") == 24
    assert text.count('class="name failed">FAILED') == 2
    assert "<td>size</td><td>[224, 224]</td><td>[192, 192]</td>" in text
    assert "<td>mean</td><td>None</td><td>0.5</td>" in text
    assert {file.name for file in path.parent.iterdir()} == {
        "index.html",
        "calibration.png",
        "change_1.png",
        "change_2.png",
    }


@pytest.mark.parametrize("width", [400, 1280])
def test_the_layout_in_a_browser(width, browser, tmp_path):
    path, _ = _write(tmp_path / "page")
    view, problems = browser.new_page(viewport={"width": width, "height": 900}), []
    view.on("console", lambda message: problems.append(message.text))
    view.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    view.goto(path.as_uri())
    assert view.evaluate("document.documentElement.scrollWidth") <= width, "no horizontal scrolling"
    assert view.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    boxes = "[...document.querySelectorAll('figure')].map(each => each.getBoundingClientRect())"
    assert len(set(view.evaluate(f"{boxes}.map(each => Math.round(each.left))"))) == (3 if width == 400 else 8)
    assert not problems
