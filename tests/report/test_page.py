"""The page of a run: its numbers, self-contained and escaped text, and its layout in a browser."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image as image_reader
from sklearn.metrics import confusion_matrix

from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.report.page import Report, write_page

NAMES = ("<b>cat</b> & dog", "a" * 60, r"$\frac$", "ship\x1b[31m\udcff", "frog")
SHOWN = (*NAMES[:3], r"ship\x1b[31m\xff", "frog")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PLOTS = {
    "loss",
    "error",
    "learning_rate",
    "speed",
    "confusion",
    "calibration",
    "confidence",
    "recall",
    "train_counts",
}


def _report(*, wrong: bool = True, epochs: int = 4, channels: int = 3, size: int = 32) -> Report:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, len(NAMES), 200)
    logits = np.eye(len(NAMES))[labels] * 4 + generator.normal(size=(200, len(NAMES))) * (2 if wrong else 0.01)
    lines = [
        {
            "epoch": epoch,
            "loss": 2 / epoch,
            "val_loss": 3 / epoch,
            "top1": 1 - 1 / (epoch + 1),
            "val_top1": 1 - 1 / (epoch + 0.5),
            "learning_rate": 0.1 / epoch,
            "images_per_second": 900.0,
        }
        for epoch in range(1, epochs + 1)
    ]
    return Report(
        title="resnet20 on <i>photos</i>/$body",
        evaluation=SingleLabelEvaluation(labels, logits),
        class_names=NAMES,
        load_images=lambda indices: [generator.uniform(size=(size, size, channels)) for _ in indices],
        metrics=lines,
        train_counts=np.array([500, 400, 30, 20, 10]),
        facts={"parameters": "271,098"},
        config=json.dumps({"data": {"source": "<photos>"}}, indent=2),
        environment={"tensorflow": "2.21.0"},
    )


def test_the_numbers_are_those_of_scikit_learn(tmp_path):
    report = _report()
    labels, predictions = report.evaluation.targets, report.evaluation.logits.argmax(1)
    text = write_page(tmp_path / "report", report).read_text()
    counts = confusion_matrix(labels, predictions)
    assert f"<b>{100 * np.mean(labels == predictions):.2f} %</b>top-1" in text
    np.fill_diagonal(counts, 0)
    true, other = np.unravel_index(counts.argmax(), counts.shape)
    first = re.search(r"<h3>(.*?)</h3>", text)[1]
    assert html.unescape(first) == (
        f"{SHOWN[true]} predicted as {SHOWN[other]}: {counts.max()}\xa0of\xa0{np.sum(labels == true)}"
    )
    rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", text)]
    cells = {html.unescape(row[0]): row[1:5] for row in rows}
    for label, trained in enumerate(report.train_counts):
        recall = np.mean(predictions[labels == label] == label)
        precision = np.mean(labels[predictions == label] == label)
        expected = [trained, np.sum(labels == label), f"{recall:.4f}", f"{precision:.4f}"]
        assert cells[SHOWN[label]] == list(map(str, expected))


def test_the_page_needs_no_other_file_and_shows_text_as_text(tmp_path):
    path = write_page(tmp_path / "report", _report())
    text = path.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", text)
    assert "http" not in text
    assert "<i>" not in text
    assert "<b>cat" not in text
    assert "\x1b" not in text
    assert "&lt;photos&gt;" in text
    assert "<title>resnet20 on &lt;i&gt;photos&lt;/i&gt;/$body</title>" in text
    assert {file.name for file in path.parent.iterdir()} == {
        "index.html",
        "summary.png",
        *(f"{name}.png" for name in PLOTS),
    }
    for file in path.parent.glob("*.png"):
        assert image_reader.imread(file)[..., :3].std() > 0.05


def test_a_page_without_errors_or_training_metrics(tmp_path):
    path = write_page(tmp_path / "report", _report(wrong=False, epochs=0, channels=1))
    text = path.read_text()
    assert "No errors." in text
    assert "No class is predicted as another." in text
    assert not (path.parent / "loss.png").exists()
    assert ">trained on<" in text


def test_unknown_training_counts_have_no_column(tmp_path):
    text = write_page(tmp_path / "report", dataclasses.replace(_report(), train_counts=None)).read_text()
    assert ">evaluated on<" in text
    assert ">trained on<" not in text
    assert len(re.findall(r"<th", text)) - len(re.findall(r"<thead", text)) == 5


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write '.*report/index.html': "):
        write_page(tmp_path / "report", _report())


# Measures the page in a frame as wide as a phone or a desktop.
PROBE = """<body style="margin:0">
<iframe id="page" style="width:WIDTHpx;height:900px;border:0" srcdoc="PAGE"></iframe>
<script>onload = () => {
    const shown = page.contentDocument;
    const box = element => {
        const {left, right, top, width} = element.getBoundingClientRect();
        return {left, right, top, width};
    };
    const boxes = selector => [...shown.querySelectorAll(selector)].map(box);
    const images = [...shown.images];
    document.body.textContent = JSON.stringify({
        width: shown.documentElement.scrollWidth,
        loaded: images.map(image => image.complete && image.naturalWidth > 0),
        margins: images.map(image => image.parentElement.className == "plots" ?
            0 : image.parentElement.clientWidth - image.getBoundingClientRect().width),
        smooth: images.map(image => getComputedStyle(image).imageRendering != "pixelated"),
        section: box(shown.querySelector("section")),
        tiles: boxes(".tiles div"),
        plots: boxes(".plots img"),
        pairs: boxes(".pair"),
        pair: boxes(".pair:first-child figure"),
        pair_tops: [...shown.querySelectorAll(".pair")].map(pair => box(pair.querySelector("img")).top),
        errors: boxes("section > .images > figure"),
    });
}</script>"""


def _measure(page: str, width: int, directory: Path) -> dict[str, Any]:
    """Layout of a page in Chromium; the console must stay empty."""
    harness = directory / "harness.html"
    harness.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", html.escape(page)))
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    command = (CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *quiet, "--enable-logging=stderr")
    profile, size = f"--user-data-dir={directory / 'profile'}", f"--window-size={max(width, 600)},1000"
    done = subprocess.run(
        (*command, profile, size, "--dump-dom", f"file://{harness}"), capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr
    return json.loads(html.unescape(re.search(r"<body[^>]*>(.*?)</body>", done.stdout, re.DOTALL)[1]))


def _columns(boxes: list[dict[str, float]]) -> int:
    """Number of columns of a grid, whose rows but the last must be full and whose cells must be of one width."""
    rows: dict[float, list[float]] = {}
    for box in boxes:
        rows.setdefault(box["top"], []).append(round(box["left"]))
    first, *_ = rows.values()
    assert all(lefts == first[: len(lefts)] for lefts in rows.values())
    assert [len(lefts) for lefts in rows.values()][:-1] == [len(first)] * (len(rows) - 1)
    assert max(box["width"] for box in boxes) - min(box["width"] for box in boxes) < 1
    return len(first)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: Debian's package chromium")
@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (400, {"tiles": 2, "plots": 1, "pairs": 2, "errors": 3, "pair": 2}),
        (1280, {"tiles": 5, "plots": 3, "pairs": 4, "errors": 8, "pair": 2}),
    ],
)
@pytest.mark.parametrize("size", [32, 200])
def test_the_grids_align_at_every_width(tmp_path, width, columns, size):
    report = _report(size=size)
    found = _measure(write_page(tmp_path / "report", report).read_text(), width, tmp_path)
    assert found["width"] <= width, "no horizontal scrolling"
    assert {name: _columns(found[name]) for name in columns} == columns
    for name in columns.keys() - {"pair"}:
        assert max(box["right"] for box in found[name]) == pytest.approx(found["section"]["right"], abs=1), name
    assert all(found["loaded"])
    examples = sum(min(4, count) for *_, count in report.evaluation.confused_pairs(8))
    assert len(found["loaded"]) == len(PLOTS) + examples + len(found["errors"])
    assert max(map(abs, found["margins"])) < 1, "an image is as wide as its cell"
    assert len(set(found["pair_tops"])) == -(-len(found["pairs"]) // columns["pairs"]), "thumbnails are in the same row"
    assert found["smooth"][len(PLOTS) :] == [size >= 64] * (len(found["smooth"]) - len(PLOTS))
