"""Batches from a tf.data service on other hosts, in the order of a local pipeline.

The service assigns each step to one of its workers (dynamic sharding) and returns batches in order of completion. Each
batch carries its step and is buffered until its turn, so that a run does not depend on the number of workers.
"""

import contextlib
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from resnet_tf.core import waiting
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.errors import translate_errors

_TIMEOUT = 10.0  # seconds, for a connection to the dispatcher
# Batches that are buffered while a step is missing, because its worker starts late or died.
_MAX_BUFFERED = 256
_LATE = 20.0  # seconds to wait for that step once the buffer is full, in which a batch is taken every `waiting.POLL`
_QUEUED = 2  # batches between the thread that receives them and the pipeline


def distribute(numbered: tf.data.Dataset, address: str, *, start: int, end: int, seconds: float) -> tf.data.Dataset:
    """Compute a dataset on the workers of a tf.data service.

    Args:
        numbered: dataset of (step: int64 scalar, *parts) for the steps `start` to `end` - 1.
        address: `grpc://host:port` of the dispatcher. Its workers must find the data files under the same paths.
        start: first step.
        end: step after the last one.
        seconds: longest wait for a batch, `runtime.wait_seconds`.

    Returns:
        A dataset of parts, in the order of the steps. Iterate within `translate_service_errors`.

    Raises:
        UserError: if the address is invalid or does not answer, or the service has no worker.
        Interrupted: after SIGTERM or SIGINT.
    """
    _check_address(address)
    _wait_for_worker(address, seconds)
    remote = numbered.apply(_service(address))

    def in_order() -> Iterator[tuple[tf.Tensor, ...]]:
        buffered: dict[int, tuple[tf.Tensor, ...]] = {}
        step = start
        full_since: float | None = None
        for number, *parts in _receive(remote, address, seconds):
            buffered[int(number)] = tuple(parts)
            while step in buffered:
                yield buffered.pop(step)
                step, full_since = step + 1, None
            if len(buffered) > _MAX_BUFFERED:
                full_since = full_since or time.monotonic()
                if time.monotonic() - full_since > _LATE:
                    break
                time.sleep(waiting.POLL)
        if step < end:
            raise UserError(f"the data service at {address} lost step {step}: has one of its workers died?")

    _, *signature = numbered.element_spec
    return without_autotune(tf.data.Dataset.from_generator(in_order, output_signature=tuple(signature)))


def translate_service_errors() -> contextlib.AbstractContextManager[None]:
    """Raise a `UserError` of `distribute` as such where the block, which iterates over its batches, fails."""

    def explain(error: tf.errors.OpError) -> str:
        match = re.search(r"UserError: (.*)", error.message)
        return match[1] if match else ""

    return translate_errors(explain)


def _service(address: str) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    return tf.data.experimental.service.distribute(
        tf.data.experimental.service.ShardingPolicy.DYNAMIC, service=address, max_outstanding_requests=8
    )


def _wait_for_worker(address: str, seconds: float) -> None:
    """Wait until the service answers a small request, which a dispatcher without workers never does."""
    failures: list[Exception] = []

    def request() -> None:
        try:
            list(tf.data.Dataset.range(1).apply(_service(address)))
        except tf.errors.OpError as error:
            failures.append(error)

    thread = threading.Thread(target=request, daemon=True)
    thread.start()

    def attempt() -> str:
        thread.join(timeout=waiting.POLL)
        if failures:
            raise UserError(f"data.service={address!r} is not a tf.data service: {plain_reason(failures[0])}")
        return f"a worker of data.service={address!r}" if thread.is_alive() else ""

    waiting.wait(attempt, seconds=seconds)


def _receive(remote: tf.data.Dataset, address: str, seconds: float) -> Iterator[tuple[tf.Tensor, ...]]:
    """Iterate over a dataset in a thread, because a service whose workers are gone blocks it without end."""
    received: queue.Queue[tuple[tf.Tensor, ...] | Exception | None] = queue.Queue(_QUEUED)
    stopped = threading.Event()

    def put(item: tuple[tf.Tensor, ...] | Exception | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                received.put(item, timeout=waiting.POLL)
                return

    def fill() -> None:
        try:
            for item in remote:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except Exception as error:  # of any type: it is raised by the consumer
            put(error)

    threading.Thread(target=fill, daemon=True).start()
    try:
        while (item := received.get(timeout=seconds)) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    except queue.Empty:
        raise UserError(
            f"the data service at {address} sent no batch for {seconds:g} seconds (runtime.wait_seconds): "
            "have its workers died?"
        ) from None
    finally:
        stopped.set()


def _check_address(address: str) -> None:
    match = re.fullmatch(r"grpc://([^:/]+):(\d+)", address)
    invalid = f"data.service={address!r} is not the address of a dispatcher; expected grpc://HOST:PORT"
    if not match:
        raise UserError(invalid)
    try:
        socket.create_connection((match[1], int(match[2])), timeout=_TIMEOUT).close()
    except ValueError as error:  # an empty label of the name, or one above 63 characters; a port of 5,000 digits
        raise UserError(invalid) from error
    except (OSError, OverflowError) as error:
        raise UserError(
            f"data.service={address!r} does not answer ({error}); `python -m resnet_tf.data_service --port={match[2]}` "
            "starts one there"
        ) from error
