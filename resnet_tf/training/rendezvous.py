"""Meeting of the workers of a cluster, before TensorFlow joins it.

TensorFlow waits for missing workers in native code: without a message, without an end, and deaf to signals. The workers
therefore meet first: the chief listens on its port of TF_CONFIG, the others connect to it and send a line with their
index, and when all are there, the chief answers `go` and leaves its port to TensorFlow.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Sequence

from resnet_tf.core import waiting
from resnet_tf.core.errors import UserError

_MAX_LINE = 1000  # bytes
_CONNECT_SECONDS = 2.0
_HELLO = re.compile(rb"resnet_tf worker (\d{1,6}) ([0-9a-f]{16})")


def meet(index: int, addresses: Sequence[str], *, seconds: float) -> None:
    """Return when all workers of a cluster have called this function.

    Args:
        index: index of this worker.
        addresses: `host:port` of each worker, that of the chief first.
        seconds: limit of the wait.

    Raises:
        UserError: if a worker is missing at the end, the port of this one is in use, or two workers have different
            clusters or the same index.
        Interrupted: after SIGTERM or SIGINT.
    """
    if len(addresses) == 1:
        return
    with _listen(index, addresses[index]) as server:
        if index == 0:
            with contextlib.closing(_Chief(server, addresses)) as chief:
                waiting.wait(chief.poll, seconds=seconds)
                chief.send(b"go")
            return
    # The port is free, which TensorFlow needs.
    with contextlib.closing(_Worker(index, addresses)) as worker:
        waiting.wait(worker.poll, seconds=seconds)


class _Lines:
    """Lines of a connection, in both directions."""

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        self.connection, self._buffer, self.is_open = connection, b"", True

    def read(self) -> list[bytes]:
        """Return the complete lines that have arrived, and note the end of the connection."""
        while self.is_open:
            try:
                received = self.connection.recv(_MAX_LINE)
            except BlockingIOError:
                break
            except OSError:
                received = b""
            self._buffer += received
            if not received or len(self._buffer) > 100 * _MAX_LINE:
                self.close()
        *lines, self._buffer = self._buffer.split(b"\n")
        return lines

    def send(self, line: bytes) -> None:
        try:
            self.connection.sendall(line + b"\n")
        except OSError:
            self.close()

    def close(self) -> None:
        self.is_open = False
        self.connection.close()


class _Chief:
    def __init__(self, server: socket.socket, addresses: Sequence[str]):
        server.setblocking(False)
        self._server, self._addresses = server, addresses
        self._unknown: list[_Lines] = []
        self._workers: dict[int, _Lines] = {}

    def poll(self) -> str:
        """Accept workers, and describe the missing ones."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._unknown.append(_Lines(self._server.accept()[0]))
        for each in self._workers.values():
            each.read()
        self._workers = {index: each for index, each in self._workers.items() if each.is_open}
        waiting_for_line = []
        for each in self._unknown:
            if lines := each.read():
                self._welcome(each, lines[0])
            elif each.is_open:
                waiting_for_line.append(each)
        self._unknown = waiting_for_line
        missing = [index for index in range(1, len(self._addresses)) if index not in self._workers]
        self.send(b"missing " + ",".join(map(str, missing)).encode())
        return _describe(missing, self._addresses)

    def _welcome(self, lines: _Lines, hello: bytes) -> None:
        match = _HELLO.fullmatch(hello)
        index = int(match[1]) if match else 0
        if not match:  # not a worker
            lines.close()
        elif match[2] != _digest(self._addresses) or not 0 < index < len(self._addresses):
            self._refuse(lines, "has another cluster in its TF_CONFIG")
        elif index in self._workers:
            self._refuse(lines, f"already has a worker {index}")
        else:
            self._workers[index] = lines

    def _refuse(self, lines: _Lines, reason: str) -> None:
        lines.send(b"refused " + reason.encode())
        lines.close()

    def send(self, line: bytes) -> None:
        """Send a line to all workers that have come."""
        for each in self._workers.values():
            each.send(line)

    def close(self) -> None:
        for each in (*self._workers.values(), *self._unknown):
            each.close()


class _Worker:
    def __init__(self, index: int, addresses: Sequence[str]):
        self._index, self._addresses = index, addresses
        self._lines: _Lines | None = None
        self._missing = [0]

    def poll(self) -> str:
        """Connect to the chief, and describe the missing workers; empty after its `go`."""
        if self._lines is None or not self._lines.is_open:
            self._missing, self._lines = [0], self._connect()
        if self._lines is None:
            return _describe(self._missing, self._addresses)
        for line in self._lines.read():
            word, _, rest = line.partition(b" ")
            if word == b"go":
                return ""
            if word == b"refused":
                reason = rest.decode(errors="replace")[:100]
                raise UserError(
                    f"worker 0 at {self._addresses[0]} {reason}; workers need the same cluster and different indices"
                )
            if word == b"missing" and re.fullmatch(rb"(\d{1,6}(,\d{1,6})*)?", rest):
                self._missing = [int(index) for index in rest.split(b",") if index]
        known = [each for each in self._missing if each < len(self._addresses)]
        return _describe(known or [0], self._addresses)  # whose `go` is missing

    def _connect(self) -> _Lines | None:
        try:
            connection = socket.create_connection(parse_address(self._addresses[0]), timeout=_CONNECT_SECONDS)
        except OSError:
            return None
        lines = _Lines(connection)
        lines.send(f"resnet_tf worker {self._index} ".encode() + _digest(self._addresses))
        return lines

    def close(self) -> None:
        if self._lines:
            self._lines.close()


def wait_for_server(name: str, address: str, *, seconds: float) -> None:
    """Return when a server accepts connections.

    Args:
        name: of the server, for messages.
        address: `host:port`; empty for none.
        seconds: limit of the wait.

    Raises:
        UserError: if there is no server at the end.
        Interrupted: after SIGTERM or SIGINT.
    """

    def attempt() -> str:
        try:
            socket.create_connection(parse_address(address), timeout=_CONNECT_SECONDS).close()
            return ""
        except OSError as error:
            return f"{name} ({address}: {error.strerror or error})"

    if address:
        waiting.wait(attempt, seconds=seconds)


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`.

    Raises:
        UserError: for anything else.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not _is_host(host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise UserError(f"{address!r} is not an address host:port")
    return host, int(port)


def _is_host(name: str) -> bool:
    """Return True unless a name is empty, or has a label that is empty or longer than 63 characters (RFC 1035)."""
    try:
        return bool(name.encode("idna"))  # as Python encodes it to look it up
    except UnicodeError:
        return False


@contextlib.contextmanager
def _listen(index: int, address: str) -> Iterator[socket.socket]:
    _, port = parse_address(address)
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"worker {index} cannot listen on the port of its address {address}: {reason}") from error
    with server:
        yield server


def _digest(addresses: Sequence[str]) -> bytes:
    return hashlib.sha256(json.dumps(list(addresses)).encode()).hexdigest()[:16].encode()


def _describe(missing: Sequence[int], addresses: Sequence[str]) -> str:
    return ", ".join(f"worker {index} at {addresses[index]}" for index in missing)
