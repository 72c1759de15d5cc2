"""The page of a run: what it says, that it needs nothing beside it, and that a browser shows all of it."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib import image as image_reader
from sklearn.metrics import confusion_matrix

from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import Evaluation
from resnet_tf.report.page import Report, write_page

NAMES = ("<b>cat</b> & dog", "a" * 60, "lorry", "ship", "frog")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def _report(*, wrong: bool = True, metrics: int = 4, channels: int = 3, side: int = 32) -> Report:
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
        for epoch in range(1, metrics + 1)
    ]
    return Report(
        title="resnet20 on <i>photos</i>/$body",
        evaluation=Evaluation(labels, logits),
        class_names=NAMES,
        load_pictures=lambda places: [generator.uniform(size=(side, side, channels)) for _ in places],
        metrics=lines,
        train_counts=np.array([500, 400, 30, 20, 10]),
        facts={"parameters": "271,098"},
        config=json.dumps({"data": {"source": "<photos>"}}, indent=2),
        environment={"tensorflow": "2.21.0"},
    )


def test_the_page_says_what_scikit_learn_says(tmp_path):
    report = _report()
    labels, taken = report.evaluation.targets, report.evaluation.logits.argmax(1)
    text = write_page(tmp_path / "report", report).read_text()
    counts = confusion_matrix(labels, taken)
    assert f"<b>{100 * np.mean(labels == taken):.2f} %</b>top-1" in text
    np.fill_diagonal(counts, 0)
    true, other = np.unravel_index(counts.argmax(), counts.shape)
    first = re.search(r"<h3>(.*?)</h3>", text)[1]
    assert html.unescape(first) == (
        f"{NAMES[true]} taken for {NAMES[other]}: {counts.max()} of {np.sum(labels == true)}"
    )
    rows = [html.unescape(row) for row in re.findall(r"<tr><td>.*?</tr>", text)]
    for label, trained in enumerate(report.train_counts):
        found = np.mean(taken[labels == label] == label)
        cells = [
            "",
            trained,
            np.sum(labels == label),
            f"{found:.4f}",
            f"{np.mean(labels[taken == label] == label):.4f}",
        ]
        expected = f"<tr><td>{NAMES[label]}" + "</td><td>".join(map(str, cells))
        assert any(row.startswith(expected) for row in rows)


def test_the_page_stands_alone_and_shows_text_as_text(tmp_path):
    path = write_page(tmp_path / "report", _report())
    text = path.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", text)
    assert "http" not in text
    assert "<i>" not in text
    assert "<b>cat" not in text
    assert "&lt;photos&gt;" in text
    assert "<title>resnet20 on &lt;i&gt;photos&lt;/i&gt;/$body</title>" in text
    names = {"loss", "error", "learning_rate", "speed", "confusion", "calibration", "balance", "summary"}
    assert {file.name for file in path.parent.iterdir()} == {"index.html", *(f"{name}.png" for name in names)}
    for name in names:
        assert image_reader.imread(path.parent / f"{name}.png")[..., :3].std() > 0.05


def test_a_page_without_mistakes_or_training(tmp_path):
    path = write_page(tmp_path / "report", _report(wrong=False, metrics=0, channels=1))
    text = path.read_text()
    assert "There are none." in text
    assert "No class was taken for another." in text
    assert not (path.parent / "loss.png").exists()


def test_small_pictures_are_enlarged_by_whole_pixels(tmp_path):
    from resnet_tf.report.page import _png

    file = tmp_path / "picture.png"
    file.write_bytes(_png(np.array([[[0.0], [1.0]], [[1.0], [0.0]]])))
    pixels = image_reader.imread(file)[..., :3]
    assert pixels.shape == (64, 64, 3)
    np.testing.assert_array_equal(pixels[:32, :32], 0)
    np.testing.assert_array_equal(pixels[:32, 32:], 1)


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write the report to .*report"):
        write_page(tmp_path / "report", _report())


@pytest.mark.skipif(CHROMIUM is None, reason="takes a browser: Debian's package chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_all_of_it(tmp_path, width):
    """In a frame as wide as a phone or a desk: nothing is wider, every picture loads, the console stays empty."""
    page = write_page(tmp_path / "report", _report(side=200)).read_text()
    probe = """<body style="margin:0">
        <iframe id="page" style="width:WIDTHpx;height:900px;border:0" srcdoc="PAGE"></iframe>
        <script>onload = () => {
            const shown = page.contentDocument;
            const found = {width: shown.documentElement.scrollWidth,
                           pictures: [...shown.images].map(image => image.complete && image.naturalWidth > 0)};
            document.body.textContent = JSON.stringify(found);
        }</script>"""
    harness = tmp_path / "harness.html"
    harness.write_text(probe.replace("WIDTH", str(width)).replace("PAGE", html.escape(page)))
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    command = (CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *quiet, "--enable-logging=stderr")
    profile, size = f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={max(width, 600)},1000"
    done = subprocess.run(
        (*command, profile, size, "--dump-dom", f"file://{harness}"), capture_output=True, text=True, timeout=120
    )
    found = json.loads(html.unescape(re.search(r"<body[^>]*>(.*?)</body>", done.stdout, re.DOTALL)[1]))
    assert found["width"] <= width
    assert len(found["pictures"]) >= 7 + 24
    assert all(found["pictures"])
    assert "CONSOLE" not in done.stderr
