"""The demo page: answers of the predictor, escaped names, no other origin, and an orderly end."""

import base64
import contextlib
import dataclasses
import functools
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import resnet_tf
from resnet_tf.core.errors import UserError
from resnet_tf.report.demo_page import Answer, _refuse_other_sites, answers_html
from resnet_tf.serving.predictor import Predictor
from resnet_tf.workflows.demo import _answers, _hosts, demo

HOSTILE = ("<b>cat</b>", "<img src=x onerror=alert(1)>", "${alert(1)} {{x}}", "ship\x1b[31m\u202e", "**bold** $x$")


@pytest.fixture(scope="module")
def predictor(tiny_export):
    loaded = Predictor(tiny_export)
    loaded.labels = (*HOSTILE, *loaded.labels[len(HOSTILE) :])
    return loaded


@pytest.fixture
def files(tmp_path, tiny_images) -> list[str]:
    """Return two images, one that is cut short, and a text."""
    contents = {"a.png": tiny_images[0], "b&b.png": tiny_images[1], "cut.png": tiny_images[2][:60], "text.jpg": b"text"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in contents]


@pytest.mark.slow
def test_answers_are_those_of_the_predictor(predictor, files):
    first, second, *unreadable = _answers(predictor, files, True)
    for answer, file in ((first, files[0]), (second, files[1])):
        prediction = predictor(file)
        assert answer.file == Path(file).name
        assert answer.scores == tuple(zip(prediction.labels, prediction.scores, strict=True))
        ((image, heatmap, _),) = predictor.explain([file])
        np.testing.assert_array_equal(answer.image, image)
        assert answer.overlay.shape == (*heatmap.shape, 3)
        assert np.abs(answer.overlay - image)[heatmap > 0.5].max() > 0.1
    assert [each.file for each in unreadable] == ["cut.png", "text.jpg"]
    for each in unreadable:
        assert re.match(rf"'{each.file}' is not a readable image: \w", each.error)
    assert all(each.overlay is None for each in _answers(predictor, files, False))


def test_names_and_messages_are_text():
    scores = tuple((name, 1 / len(HOSTILE)) for name in HOSTILE)
    text = answers_html(
        [Answer("<i>.png", scores=scores, image=np.zeros((8, 8, 1))), Answer("x", error="<u>wrong</u>")]
    )
    expected = "div article h3 figure img figcaption ol li span i p"
    assert set(re.findall(r"<(\w+)", text)) == set(expected.split())
    assert text.count("<i ") == len(HOSTILE)
    assert "<i>" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "&lt;u&gt;wrong&lt;/u&gt;" in text


def test_classes_above_their_thresholds_are_named(predictor, files, monkeypatch):
    prediction = dataclasses.replace(predictor(files[0]), selected={"<b>cat</b>": 0.7, "frog": 0.4})
    monkeypatch.setattr(Predictor, "__call__", lambda self, file: prediction)
    (answer,) = _answers(predictor, files[:1], False)
    assert "Above the thresholds: &lt;b&gt;cat&lt;/b&gt;, frog</p>" in answers_html([answer])
    assert "Above the thresholds: no class</p>" in answers_html([dataclasses.replace(answer, selected=())])
    assert "thresholds" not in answers_html([dataclasses.replace(answer, selected=None)])


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("gpu7", False)]
)
def test_pages_of_this_machine_have_its_names_only(host, local):
    assert ("*" in _hosts(host)) is not local


def test_a_missing_package_is_named(predictor, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"needs the package gradio: pip install 'resnet_tf\[demo\]'$"):
        demo(predictor)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one exported model, as in --model=DIR/export/serving/1"),
        (["--model=x", "y"], "give one exported model"),
        (["x", "y"], "unexpected argument 'y'"),
        (["nowhere"], "no exported model at 'nowhere'"),
        (["--model=nowhere"], "no exported model at 'nowhere'"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    outcome = command("demo", *arguments)
    assert outcome.code == 2
    assert re.fullmatch(rf"error: {re.escape(message)}.*\n", outcome.err)


def test_a_port_in_use_is_named(predictor):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen at 127.0.0.1:{port}: .*in use; --port=0 selects a free"):
            demo(predictor, port=port)
    with pytest.raises(UserError, match=r"^port "):
        demo(predictor, port=2**16)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64, "192.0.2.1"])  # RFC 5737: an address of no machine
def test_a_host_that_is_none_of_this_machine_is_named(predictor, host):
    with pytest.raises(UserError, match=rf"^cannot listen at {host}:7860: \w.*$") as caught:
        demo(predictor, host=host)
    assert "--port" not in str(caught.value), "another port does not help"


def test_an_empty_host_is_refused(predictor):
    """For the system, it is every address."""
    with pytest.raises(UserError, match=r"^host is empty; 127.0.0.1 is this machine, and 0.0.0.0 lets other machines"):
        demo(predictor, host="", port=0)


@contextlib.contextmanager
def _server(name: str, *arguments: str, directory: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run a command that serves, in a process without a home; yield its process and address."""
    command = [sys.executable, "-m", f"resnet_tf.{name}", "--port=0", *arguments]
    environment = {"PATH": "", "TMPDIR": str(directory), "HOME": str(directory)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # The tests may run in the background of a shell, which lets its processes ignore Ctrl-C.
    pipes["preexec_fn"] = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            line = process.stdout.readline().strip()
            assert re.search(r"(http|grpc)://\w", line), process.communicate()[1]
            yield process, line
        finally:
            process.kill()


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    """Return an export with hostile class names."""
    model = resnet_tf.create_model("resnet20_w8", num_classes=len(HOSTILE), input_shape=(32, 32, 3))
    return resnet_tf.export_model(model, tmp_path_factory.mktemp("exports"), labels=HOSTILE)


@pytest.fixture(scope="module")
def address(export, tmp_path_factory) -> Iterator[str]:
    pytest.importorskip("gradio")
    with _server("demo", str(export), directory=tmp_path_factory.mktemp("demo")) as (_, address):
        yield address


@pytest.mark.slow
def test_the_server_answers_by_its_own_name_only(address):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
    with urllib.request.urlopen(address, timeout=30) as response:
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'self' data: blob:")
        assert "http" not in policy
        assert "fonts.googleapis" not in response.read().decode()
    foreign = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(foreign, timeout=30)
    refused.value.close()


@pytest.mark.slow
@pytest.mark.parametrize(("origin", "status"), [("http://elsewhere.example", 403), ("{address}", 200), (None, 200)])
def test_the_server_takes_files_of_its_own_page_only(address, origin, status):
    file = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    headers |= {"Origin": origin.format(address=address)} if origin else {}
    request = urllib.request.Request(f"{address}/gradio_api/upload", file, headers)
    with contextlib.closing(_answer(request)) as answer:
        assert answer.status == status
        assert answer.headers["content-security-policy"]


def _answer(request: urllib.request.Request) -> urllib.response.addinfourl:
    try:
        return urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        return error


# Headers of a request that changes something -> the page itself, or a program, which states no origin.
OWN = [
    {"host": "127.0.0.1:7860"},
    {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"},
    {"host": "[::1]:7860", "origin": "http://[::1]:7860"},
    {"host": "demo.example", "origin": "https://demo.example", "sec-fetch-site": "same-origin"},
    {"host": "demo.example:443", "origin": "https://Demo.example"},
    {"host": "demo.example", "origin": "http://demo.example:80"},
]
FOREIGN = [
    {"host": "127.0.0.1:7860", "origin": "http://elsewhere.example"},
    {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:8888", "sec-fetch-site": "same-site"},
    {"host": "127.0.0.1:7860", "origin": "http://localhost:7860"},
    {"host": "127.0.0.1:7860", "origin": "null"},
    {"host": "127.0.0.1:7860", "origin": ""},
    {"host": "127.0.0.1:7860", "origin": "http://[::1"},
    {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:x"},
    {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860", "sec-fetch-site": "cross-site"},
    {"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site"},
    {"host": "demo.example", "origin": "http://demo.example:443"},
    {"origin": "null"},
    {"origin": "http://"},
]


@pytest.mark.parametrize(("headers", "own"), [*((each, True) for each in OWN), *((each, False) for each in FOREIGN)])
def test_requests_of_other_pages_are_refused(headers, own):
    pytest.importorskip("starlette")
    assert [_status(method, headers) for method in ("POST", "PUT", "DELETE")] == [200 if own else 403] * 3
    assert [_status(method, headers) for method in ("GET", "HEAD", "OPTIONS")] == [200] * 3


def _status(method: str, headers: dict[str, str]) -> int:
    """Return the status of the answer to a request of an application that answers 200 itself."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/gradio_api/upload", "headers": encoded}
    with pytest.raises(StopIteration):  # not `asyncio.run`, which the event loop of a browser's tests would refuse
        _refuse_other_sites(app)(scope, None, send).send(None)
    return sent[0]["status"]


# Drops files as a user does: an event with a list of files, each [name, content in base64].
DROP = """([area, files]) => {
    const dropped = new DataTransfer();
    for (const [name, content] of files)
        dropped.items.add(new File([Uint8Array.from(atob(content), each => each.charCodeAt(0))], name));
    area.dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true}));
}"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_files_are_dropped_in_a_browser(address, export, browser, files, width):
    view = browser.new_page(viewport={"width": width, "height": 900})
    requests, problems = [], []
    view.on("request", lambda request: requests.append(request.url))
    view.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.on("dialog", lambda dialog: problems.append(dialog.message))
    view.goto(address)
    view.get_by_text("Drop File Here").wait_for()
    contents = [[Path(file).name, base64.b64encode(Path(file).read_bytes()).decode()] for file in files]
    view.evaluate(DROP, [view.locator("button:has(input[type=file])").element_handle(), contents])
    view.locator(".answer").nth(len(files) - 1).wait_for()

    cards = view.locator(".answer")
    assert cards.count() == len(files)
    prediction = Predictor(export)(files[0])
    first = cards.nth(0).inner_text()
    shown = dict(zip(cards.nth(0).locator("li > span:first-child").all_inner_texts(), prediction.scores, strict=True))
    assert next(iter(shown)) == prediction.label.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert all(f"{100 * score:.1f} %" in first for score in shown.values())
    assert cards.nth(0).locator("img").count() == 2
    assert view.evaluate("[...document.querySelectorAll('.answer img')].every(each => each.naturalWidth > 0)")
    assert "'text.jpg' is not a readable image" in cards.nth(3).inner_text()
    view.get_by_label("Grad-CAM").uncheck()
    view.wait_for_function("document.querySelectorAll('.answer img').length == 2")

    assert view.evaluate("document.documentElement.scrollWidth") <= width, "no horizontal scrolling"
    columns = {round(box["x"]) for box in (cards.nth(index).bounding_box() for index in range(len(files)))}
    assert len(columns) == (1 if width == 400 else 3)
    assert not problems
    foreign = [url for url in requests if not url.startswith((address, "data:", "blob:"))]
    assert not foreign
    assert len(requests) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, -signal.SIGTERM, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", ["demo", "data_service"])
def test_servers_end_by_signals(name, number, code, export, tmp_path):
    if name == "demo":
        pytest.importorskip("gradio")
    arguments = [f"--model={export}"] if name == "demo" else ["--host=127.0.0.1"]
    with _server(name, *arguments, directory=tmp_path) as (process, _):
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert errors.strip() == ("interrupted" if number == signal.SIGINT else "")
    assert not list(tmp_path.glob("resnet_tf_demo_*"))
