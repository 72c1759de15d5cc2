"""Local page that classifies dropped files with an exported model."""

import contextlib
import dataclasses
import errno
import ipaddress
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import check_integer
from resnet_tf.core.text import counted
from resnet_tf.report.demo_page import Answer, Content, create_app
from resnet_tf.report.overlay import blend
from resnet_tf.serving.predictor import Predictor

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_PATIENCE = 1  # seconds for open connections at the end
_POLL = 0.2  # seconds
_TAKEN = (errno.EADDRINUSE, errno.EACCES)  # of a port that another program has, or that is for the system


class DemoServer:
    """A running page; it stops with `close`, or at the end of a `with` block.

    Attributes:
        address: URL of the page.
    """

    def __init__(self, server: Any, listener: socket.socket, resources: contextlib.ExitStack):
        host, port = listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._server, self._resources = server, resources
        self._thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Block until the page stops."""
        while self._thread.is_alive():  # a join without a limit would not let Python handle signals
            self._thread.join(_POLL)

    def close(self) -> None:
        """Stop the page and delete the uploaded files."""
        self._server.should_exit = True
        self.join()
        self._resources.close()

    def to_dict(self) -> dict[str, str]:
        """Return the address, ready for JSON."""
        return {"address": self.address}

    def __enter__(self) -> "DemoServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"DemoServer({self.address!r})"


def demo(model: Predictor | str | Path, *, host: str = "127.0.0.1", port: int = 7860) -> DemoServer:
    """Start a local page that classifies dropped images or signals, and return at once.

    The page shows the probabilities of the best classes and, where the export has them, Grad-CAM overlays. It loads
    nothing from other servers and sends nothing to them; uploaded files are deleted at its end.

        with resnet_tf.demo("runs/photos/export/serving") as page:
            print(page.address)
            page.join()

    Args:
        model: a predictor, or the directory of an export.
        host: address to listen at; any but the default lets other machines use the page.
        port: port to listen at; 0 takes a free one.

    Raises:
        UserError: for a missing export, an empty or unknown host, a port that is in use, or if the package gradio is
            not installed.
    """
    check_integer("port", port, minimum=0, maximum=2**16 - 1)
    if not host:  # every address, for the system
        raise UserError("host is empty; 127.0.0.1 is this machine, and 0.0.0.0 lets other machines use the page")
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    with contextlib.ExitStack() as resources:
        listener = resources.enter_context(_listen(host, port))
        uploads = resources.enter_context(tempfile.TemporaryDirectory(prefix="resnet_tf_demo_"))
        resources.enter_context(_environment("GRADIO_TEMP_DIR", uploads))  # Gradio reads it at every upload
        app = create_app(
            _content(predictor), lambda files, explain: _answers(predictor, files, explain), hosts=_hosts(host)
        )
        import uvicorn  # a requirement of Gradio

        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=_PATIENCE))
        return DemoServer(server, listener, resources.pop_all())


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable within the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]  # then the address once more
        remedy = "; --port=0 selects a free port" if getattr(error, "errno", None) in _TAKEN else ""
        raise UserError(f"cannot listen at {host}:{port}: {reason}{remedy}") from error


def _hosts(host: str) -> Sequence[str]:
    """Return the host names by which a page may be addressed: any, unless only this machine reaches it."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a host name
        local = False
    return (*_LOOPBACK, host) if local else ("*",)


def _content(predictor: Predictor) -> Content:
    known, preprocess = predictor.metadata, predictor.preprocess
    return Content(
        title=known["model"],
        description=f"{counted(len(predictor.labels), 'class')}, {preprocess.size_text}, "
        f"{known['target']} export in {known['precision']}",
        noun=preprocess.noun,
        plural=preprocess.plural,
        suffixes=preprocess.file_suffixes,
        explains=predictor.explains,
    )


def _answers(predictor: Predictor, files: Sequence[str], explain: bool) -> Iterator[Answer]:
    for file in files:
        name = Path(file).name
        try:
            yield _answer(predictor, file, name, explain and predictor.explains)
        except UserError as error:
            yield Answer(name, error=str(error).replace(repr(file), repr(name)))


def _answer(predictor: Predictor, file: str, name: str, explain: bool) -> Answer:
    prediction, preprocess = predictor(file), predictor.preprocess
    scores = tuple(zip(prediction.labels, prediction.scores, strict=True))
    selected = None if prediction.selected is None else tuple(prediction.selected)
    answer = Answer(name, scores=scores, selected=selected, unsure=bool(prediction.unsure))
    if explain:
        ((image, heatmap, _),) = predictor.explain([file])
        return dataclasses.replace(answer, image=image, overlay=blend(image, heatmap))
    (example,) = preprocess.decode_batch([Path(file).read_bytes()])
    return dataclasses.replace(answer, image=preprocess.plot(example) / 255)
