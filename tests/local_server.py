"""HTTP server of files on 127.0.0.1 that sends parts of files, breaks connections and changes files on request."""

import contextlib
import dataclasses
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Behavior:
    """Behavior of a server, settable between two requests.

    Attributes:
        files: path of the URL -> content.
        cut_after: bytes after which each connection is broken; None for none.
        ranges: send parts of files.
        chunked: send the content as one chunk, without its length in the head.
        validator: send an `ETag`, the MD5 of the content.
        checks_validator: compare `If-Range` with the `ETag`, as servers must.
        redirects: path of the URL -> (URL, headers of the redirect).
    """

    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    cut_after: int | None = None
    ranges: bool = True
    chunked: bool = False
    validator: bool = True
    checks_validator: bool = True
    redirects: dict[str, tuple[str, dict[str, str]]] = dataclasses.field(default_factory=dict)


class FileServer(http.server.ThreadingHTTPServer):
    """Server that records (path, Range) of each request, with its `Behavior`."""

    def __init__(self) -> None:
        self.behavior = Behavior()
        self.asked: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 20

    def do_GET(self) -> None:
        behavior, asked = self.server.behavior, self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        if self.path in behavior.redirects:
            target, headers = behavior.redirects[self.path]
            self._head(302, {"Location": target, "Content-Length": "0", **headers})
            return
        content = behavior.files.get(self.path)
        if content is None:
            self._head(404, {"Content-Length": "0"})
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"' if behavior.validator else ""
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and behavior.ranges else 0
        if behavior.checks_validator and self.headers.get("If-Range") != tag:
            first = 0
        if first >= len(content) > 0:
            self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
            return
        headers = {"ETag": tag} if tag else {}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        rest = content[first:]
        length = {"Transfer-Encoding": "chunked"} if behavior.chunked else {"Content-Length": str(len(rest))}
        self._head(206 if first else 200, {**headers, **length})
        before, after = (b"%x\r\n" % len(rest), b"\r\n0\r\n\r\n") if behavior.chunked else (b"", b"")
        is_cut = behavior.cut_after is not None and behavior.cut_after < len(rest)
        self.wfile.write(before + rest[: behavior.cut_after] + (b"" if is_cut else after))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    """Run a server within the block."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
