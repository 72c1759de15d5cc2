"""Waiting for other processes: named, bounded by a key, and ended by signals."""

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import free_addresses, wait_until

from resnet_tf.config import RuntimeConfig
from resnet_tf.core import signals, waiting
from resnet_tf.core.errors import UserError
from resnet_tf.data import service
from resnet_tf.training import rendezvous, runtime

TIMEOUT = 60  # seconds


def _meet(order, addresses, seconds=TIMEOUT, delay=0.0) -> list[str]:
    """Let workers meet, one thread each, and return the error of each, empty without one."""

    def run(index):
        try:
            rendezvous.meet(index, addresses, seconds=seconds)
            return ""
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(order)) as threads:
        futures = []
        for index in order:
            futures.append(threads.submit(run, index))
            time.sleep(delay)
        return [future.result(timeout=TIMEOUT) for future in futures]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 1), (2, 1, 0), tuple(range(8))])
def test_workers_meet_in_any_order(order):
    assert _meet(order, free_addresses(len(order)), delay=0.3 / len(order)) == [""] * len(order)


def test_a_single_worker_does_not_wait():
    rendezvous.meet(0, ["nowhere:1"], seconds=1)


@pytest.mark.parametrize(("present", "missing"), [((0,), (1, 2)), ((0, 2), (1,)), ((1, 2), (0,)), ((2,), (0,))])
def test_missing_workers_are_named(present, missing, caplog, monkeypatch):
    monkeypatch.setattr(waiting, "_PATIENCE", 0.0)
    caplog.set_level("INFO", "resnet_tf")
    addresses = free_addresses(3)
    named = ", ".join(f"worker {index} at {addresses[index]}" for index in missing)
    errors = _meet(present, addresses, seconds=0.5)
    for error in errors:  # those of several workers also name the one whose wait ended first
        assert re.fullmatch(rf".*{named}.* did not answer within 0.5 seconds \(runtime.wait_seconds\)", error), errors
    assert f"waiting for {named}, at most 0.5 seconds (runtime.wait_seconds)" in caplog.messages


def test_a_worker_that_dies_while_it_waits_is_missed_and_its_successor_is_welcome():
    addresses, result = free_addresses(3), []
    chief = threading.Thread(target=lambda: result.extend(_meet((0,), addresses)))
    chief.start()
    first = rendezvous._Worker(1, addresses)
    wait_until(lambda: "worker 2" in first.poll())
    first.close()
    assert _meet((2, 1), addresses, delay=0.5) == ["", ""]
    chief.join(timeout=TIMEOUT)
    assert result == [""]


STRANGERS = {
    "silent": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "binary": bytes(range(256)) * 10,
    "endless line": b"x" * 1_000_000,
    "index beyond": b"resnet_tf worker 7 0123456789abcdef\n",
    "the chief's index": b"resnet_tf worker 0 0123456789abcdef\n",
    "huge index": b"resnet_tf worker 99999999999999999999 0123456789abcdef\n",
}


def _connect(address: str) -> socket.socket:
    """Connect to a server as soon as it listens."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return socket.create_connection(rendezvous.parse_address(address), timeout=5)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_strangers_at_the_port_of_the_chief_are_ignored():
    addresses, result = free_addresses(2), []
    chief = threading.Thread(target=lambda: result.extend(_meet((0,), addresses)))
    chief.start()
    with contextlib.ExitStack() as stack:
        for content in STRANGERS.values():
            stranger = stack.enter_context(_connect(addresses[0]))
            with contextlib.suppress(OSError):  # closed by the chief meanwhile
                stranger.sendall(content)
        assert _meet((1,), addresses) == [""]
        chief.join(timeout=TIMEOUT)
    assert result == [""]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n", b"missing 1,99999\n", b"missing x\n", b"\0"])
def test_another_server_at_the_address_of_the_chief_is_waited_for_no_longer(answer):
    addresses = free_addresses(2)
    with socket.create_server(rendezvous.parse_address(addresses[0])) as server:
        threading.Thread(target=_answer, args=(server, answer), daemon=True).start()
        (error,) = _meet((1,), addresses, seconds=0.3)
    assert re.fullmatch(
        r"worker [01] at 127.0.0.1:\d+ did not answer within 0.3 seconds \(runtime.wait_seconds\)", error
    )


def test_workers_of_another_cluster_or_of_the_same_index_are_refused():
    addresses = free_addresses(3)
    result = []
    chief = threading.Thread(target=lambda: result.extend(_meet((0,), addresses)))
    chief.start()
    first = rendezvous._Worker(1, addresses)
    wait_until(lambda: "worker 2" in first.poll())
    second = "; workers need the same cluster and different indices"
    assert _meet((1,), addresses) == [f"worker 0 at {addresses[0]} already has a worker 1{second}"]
    other = [*addresses[:2], *free_addresses(1)]
    assert _meet((2,), other) == [f"worker 0 at {addresses[0]} has another cluster in its TF_CONFIG{second}"]
    first.close()
    assert _meet((1, 2), addresses) == ["", ""]
    chief.join(timeout=TIMEOUT)
    assert result == [""]


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_in_use_is_named(index):
    addresses = free_addresses(2)
    with socket.create_server(("", rendezvous.parse_address(addresses[index])[1])):
        (error,) = _meet((index,), addresses, seconds=1)
    assert (
        error == f"worker {index} cannot listen on the port of its address {addresses[index]}: Address already in use"
    )


# Also names that cannot be looked up: with an empty label, and with one of more than 63 characters.
@pytest.mark.parametrize(
    "address",
    [
        *("", "host", "host:", "host:x", ":22", "host:0", "host:70000", "host:-1"),
        *("[]:22", "a..b:22", ".a:22", f"{'a' * 64}.svc:22", "\udcff:22"),
    ],
)
def test_addresses_are_checked(address):
    with pytest.raises(UserError, match="is not an address host:port"):
        rendezvous.parse_address(address)
    if address:
        with pytest.raises(UserError, match="is not an address host:port"):
            rendezvous.wait_for_server("x", address, seconds=0)
    with pytest.raises(UserError, match="is not an address host:port"):
        rendezvous._Worker(1, [address, "127.0.0.1:22"]).poll()
    assert rendezvous.parse_address("[::1]:22") == ("::1", 22)


MEET = """
import sys
from resnet_tf.core.errors import Interrupted
from resnet_tf.training.rendezvous import meet
print("ready", flush=True)
try:
    meet(int(sys.argv[1]), sys.argv[2:], seconds=600)
except Interrupted as stop:
    print(stop, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("index", [0, 1])
def test_signals_end_the_wait(index, number):
    addresses = free_addresses(2)
    command = [sys.executable, "-c", MEET, str(index), *addresses]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.5)
            process.send_signal(number)
            output, _ = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    other = 1 - index
    assert output == f"{number.name}: stopped while waiting for worker {other} at {addresses[other]}\n"


SECOND = """
import os, signal, sys
from resnet_tf.core.signals import StopSignals, interrupted_by
with interrupted_by(StopSignals.WATCHED, "stopped"), StopSignals() as signals:
    os.kill(os.getpid(), signal.SIGTERM)
    print(signals.received, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_second_signal_ends_the_process_at_once():
    done = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "SIGTERM\n", "")


# Waits in native code that holds the interpreter lock, as TensorFlow does when it joins a cluster.
NATIVE = """
import ctypes, sys
from resnet_tf.core.waiting import killed_after
with killed_after(float(sys.argv[1]), "error: too late"):
    print("ready", flush=True)
    ctypes.PyDLL(None).sleep(int(sys.argv[2]))
print("done", flush=True)
"""


def _wait_for_handlers(parent):
    """Wait until the only child of a process has handlers for SIGTERM and SIGINT."""
    wanted = sum(1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT))
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ValueError):  # no child yet
            child = int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
            caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{child}/status").read_text(), re.MULTILINE)
            if int(caught[1], 16) & wanted == wanted:
                return
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.parametrize(
    ("seconds", "sleep", "stop", "expected"),
    [
        (0.5, 600, None, (-signal.SIGKILL, "ready\n", "error: too late\n")),
        (600, 600, signal.SIGINT, (-signal.SIGKILL, "ready\n", "SIGINT\n")),
        (600, 600, signal.SIGTERM, (-signal.SIGKILL, "ready\n", "SIGTERM\n")),
        (600, 0, None, (0, "ready\ndone\n", "")),
    ],
)
def test_a_wait_in_native_code_is_bounded(seconds, sleep, stop, expected):
    """Signals go to the group of the process, as from a terminal; Python alone would answer none."""
    command = [sys.executable, "-c", NATIVE, str(seconds), str(sleep)]
    ignored = (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)) if stop == signal.SIGTERM else None
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, preexec_fn=ignored, **pipes) as process:
        try:
            if stop:
                _wait_for_handlers(process.pid)
                os.killpg(process.pid, stop)
            found = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (process.returncode, *found) == expected


def test_handlers_of_native_code_are_replaced():
    received, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        libc.signal(signal.SIGTERM, 1)  # SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == []
        signals.restore_signal_handlers()
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


class _Resolver:
    def __init__(self, master):
        self._master = master

    def master(self):
        return self._master


def test_a_tpu_that_nobody_serves_is_named(monkeypatch):
    (address,) = free_addresses(1)
    name = f"grpc://{address}"
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", lambda tpu: _Resolver(tpu))
    message = (
        rf"runtime.tpu='{name}' \({address}: Connection refused\) did not answer within 0.5 seconds \(runtime.wait"
    )
    with pytest.raises(UserError, match=message):
        runtime._strategy(RuntimeConfig(strategy="tpu", tpu=name, wait_seconds=0.5))
    with pytest.raises(UserError, match=r"runtime.tpu='grpc://no.invalid:8470' \(no.invalid:8470: .*\) did not answer"):
        runtime._strategy(RuntimeConfig(strategy="tpu", tpu="grpc://no.invalid:8470", wait_seconds=0.5))


@pytest.mark.parametrize("error", [urllib.error.URLError("unknown"), ValueError("no TPU"), OSError("x")])
def test_a_tpu_name_that_resolves_nowhere_is_named(monkeypatch, error):
    def fail(tpu):
        raise error

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", fail)
    with pytest.raises(UserError, match=r"runtime.tpu='nowhere' cannot be reached: "):
        runtime._strategy(RuntimeConfig(strategy="tpu", tpu="nowhere"))


@pytest.mark.parametrize("server", ["dispatcher without workers", "silent", "HTTP"])
def test_a_data_service_that_sends_nothing_is_named(server):
    numbered = tf.data.Dataset.range(3).map(lambda step: (step, step))
    with contextlib.ExitStack() as stack:
        if server == "dispatcher without workers":
            dispatcher = tf.data.experimental.service.DispatchServer()
            address = dispatcher.target.replace("localhost", "127.0.0.1")
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            address = f"grpc://127.0.0.1:{listener.getsockname()[1]}"
            if server == "HTTP":
                threading.Thread(
                    target=_answer, args=(listener, b"HTTP/1.1 400 Bad Request\r\n\r\n"), daemon=True
                ).start()
        message = rf"a worker of data.service='{address}' did not answer within 1 seconds \(runtime.wait_seconds\)"
        with pytest.raises(UserError, match=message):
            service.distribute(numbered, address, start=0, end=3, seconds=1)


def _answer(listener, content):
    with contextlib.suppress(OSError):  # the end of the test
        while True:
            with listener.accept()[0] as connection:
                connection.sendall(content)
                connection.recv(1)  # the end of the connection


def test_batches_that_no_longer_come_end_the_wait():
    blocked = threading.Event()

    def remote():
        yield (1,)
        blocked.wait(timeout=TIMEOUT)

    received = service._receive(remote(), "grpc://host:1", 0.5)
    assert next(received) == (1,)
    with pytest.raises(UserError, match=r"the data service at grpc://host:1 sent no batch for 0.5 seconds \(runtime"):
        next(received)
    blocked.set()


def test_a_consumer_that_stops_ends_the_thread_that_receives():
    before, taken = set(threading.enumerate()), []  # among them maybe the receiver of another test, which ends

    def remote():
        for number in range(1000):
            taken.append(number)
            yield (number,)

    received = service._receive(remote(), "grpc://host:1", TIMEOUT)
    assert next(received) == (0,)
    received.close()
    wait_until(lambda: set(threading.enumerate()) <= before)
    assert len(taken) < 10
    with pytest.raises(ZeroDivisionError):
        list(service._receive((1 // 0 for _ in range(1)), "grpc://host:1", TIMEOUT))
    assert list(service._receive(iter([(1,), (2,)]), "grpc://host:1", TIMEOUT)) == [(1,), (2,)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "number"),
    [
        (1, signal.SIGTERM),
        (0, None),
        *(
            pytest.param(index, number, marks=pytest.mark.long)
            for index, number in [(0, signal.SIGTERM), (0, signal.SIGINT), (1, signal.SIGINT), (1, None)]
        ),
    ],
)
def test_one_of_two_workers(tmp_path, index, number):
    """The command names the other worker, answers signals, and ends after `runtime.wait_seconds`."""
    addresses = free_addresses(2)
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    command = [
        sys.executable,
        "-m",
        "resnet_tf.train",
        "--set=runtime.strategy=multiworker",
        f"--workdir={tmp_path}/run",
    ]
    command += [] if number else ["--set=runtime.wait_seconds=3"]
    environment = {**os.environ, "TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": "-1"}
    named = f"worker {1 - index} at {addresses[1 - index]}"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if line.startswith("waiting for"))
            assert line.startswith(f"waiting for {named}, at most ")
            if number:
                process.send_signal(number)
            _, errors = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    expected = f"error: {named} did not answer within 3 seconds (runtime.wait_seconds)"
    expected = f"{number.name}: stopped while waiting for {named}" if number else expected
    assert errors.splitlines()[-1] == expected
    assert process.returncode == (75 if number else 2)
    assert list(tmp_path.iterdir()) == []
