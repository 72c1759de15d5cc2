"""Downloads over HTTP: continued after an interruption, with progress on stderr."""

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import IO, Any, TypedDict

from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.validation import find_mismatch

_CHUNK_BYTES = 2**18
# Header by which the Hugging Face Hub states the SHA-256 of a file, with its redirect to the storage of the file.
STATED_DIGEST = "X-Linked-ETag"
_MAX_DIGITS = 15  # of a number of bytes in a header


class _State(TypedDict):
    """Origin of an interrupted download: its URL, version, SHA-256 as far as stated, and size, 0 if unknown."""

    url: str
    validator: str
    stated: str
    size: int


class Incomplete(ConnectionError):  # noqa: N818 (named like the other errors of connections)
    """The connection ended before the file did."""


def download(url: str, part: Path, *, name: str, timeout: float) -> str:
    """Download a file, and continue where an earlier download of the same URL was interrupted.

    The server must state the same validator (`ETag` or `Last-Modified`) as in the first request; otherwise, or if it
    does not send parts of files, the download starts again. A connection that breaks is opened again as long as each
    one brings new bytes.

    Args:
        url: `http` or `https` URL of the file.
        part: file to write. An interrupted download leaves it, and `PART.json` beside it.
        name: name of the file in the progress report.
        timeout: of the connection and of each read, in seconds.

    Returns:
        The SHA-256 of the file, if the server states it (see `STATED_DIGEST`); otherwise an empty text.

    Raises:
        OSError: if the server cannot be reached, answers with an error, or ends the connection too early.
        http.client.HTTPException: if its answer is no HTTP.
        UserError: for a URL of another scheme.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url!r} is not an http or https URL")
    while True:
        before = _size(part)
        try:
            stated = _connect(url, part, name, timeout)
        except (ConnectionError, TimeoutError, http.client.HTTPException):
            if _size(part) <= before:
                raise
        else:
            state_of(part).unlink(missing_ok=True)
            return stated


def state_of(part: Path) -> Path:
    """Return the path of the file that describes an interrupted download."""
    return part.with_name(f"{part.name}.json")


def _connect(url: str, part: Path, name: str, timeout: float) -> str:
    """Request a file, or the rest of it, and write it; return its SHA-256 as far as stated."""
    offset, state = _resumable(url, part)
    if offset and offset == state["size"]:
        return str(state["stated"])
    request = urllib.request.Request(url, headers={"User-Agent": "resnet_tf"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", state["validator"])
    redirects = _Redirects()
    try:
        with urllib.request.build_opener(redirects).open(request, timeout=timeout) as response:
            stated = _digest(redirects.stated or response.headers.get(STATED_DIGEST))
            is_part = response.status == http.HTTPStatus.PARTIAL_CONTENT
            if not is_part or _continues(response, offset, state):
                _write(response, part, offset if is_part else 0, {"url": url, "stated": stated}, name)
                return stated
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not offset:
            raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, OSError):
            raise error.reason from error
        raise
    if not offset:
        raise Incomplete("the server sent a part of the file, which was not asked for")
    state_of(part).unlink()  # another file is there now: start again
    return _connect(url, part, name, timeout)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects that keep the SHA-256 that the first server states, and never lead from https to http."""

    def __init__(self) -> None:
        self.stated: str | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request that follows a redirect."""
        schemes = [urllib.parse.urlsplit(each).scheme for each in (req.full_url, newurl)]
        if schemes[1] not in ("http", "https") or schemes == ["https", "http"]:
            raise urllib.error.URLError(f"redirected from {req.full_url} to {newurl}, which is not protected")
        self.stated = self.stated or headers.get(STATED_DIGEST)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _digest(stated: str | None) -> str:
    """Return a stated SHA-256; empty for anything else, such as a hash of Git."""
    digits = (stated or "").strip('"').lower()
    return digits if len(digits) == 64 and set(digits) <= set("0123456789abcdef") else ""


def _resumable(url: str, part: Path) -> tuple[int, Mapping[str, Any]]:
    """Return the number of bytes that are there, and the description of their origin; 0 to start again."""
    try:
        state = files.read_json(state_of(part))
    except UserError:  # missing or corrupt
        return 0, {}
    if find_mismatch(state, _State, "") or state["url"] != url or not _is_header(state["validator"]):
        return 0, {}
    return (0, {}) if _size(part) > state["size"] > 0 else (_size(part), state)


def _is_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and 0 < len(text) < 500


def _continues(response: Any, offset: int, state: Mapping[str, Any]) -> bool:
    """Return True if a part of a file is the rest of the version whose beginning is there."""
    is_rest = offset > 0 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    return is_rest and _validator(response.headers) in ("", state["validator"])


def _validator(headers: Message) -> str:
    """Return what identifies a version of a file: a strong `ETag`, or `Last-Modified`; empty without either."""
    tag = headers.get("ETag", "")
    found = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    return found if _is_header(found) else ""


def _write(response: Any, part: Path, offset: int, state: dict[str, Any], name: str) -> None:
    length = response.headers.get("Content-Length", "")
    total = offset + int(length) if length.isdecimal() and len(length) <= _MAX_DIGITS else 0
    if not offset:
        part.write_bytes(b"")
        state_of(part).unlink(missing_ok=True)
        if validator := _validator(response.headers):
            files.write_atomically(state_of(part), files.to_json(state | {"validator": validator, "size": total}))
    with part.open("ab") as file, _progress(name, total, offset) as progress:
        for chunk in _chunks(response):
            file.write(chunk)
            offset += len(chunk)
            progress.done = offset
    if offset < total:
        raise Incomplete(f"the connection ended after {offset:,} of {total:,} bytes")


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(_CHUNK_BYTES)
        except http.client.IncompleteRead as error:  # of a response in chunks, whose length is not stated
            raise Incomplete("the connection ended before the file did") from error
        if not chunk:
            return
        yield chunk


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _progress(name: str, total: int, first: int, **options: Any) -> Progress:
    """Return the progress of a download of `total` bytes, 0 if unknown, of which `first` are there."""

    def describe(done: int, seconds: float) -> str:
        of = f" of {_megabytes(total)} ({done / total:.0%})" if total else ""
        return f"{_megabytes(done)}{of}, {_megabytes((done - first) / max(seconds, 1e-6))}/s"

    return Progress(name, done=first, describe=describe, always=True, **options)


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
