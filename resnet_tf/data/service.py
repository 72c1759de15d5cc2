"""Batches from a tf.data service on other hosts, in the order of a local pipeline.

The service assigns each step to one of its workers (dynamic sharding) and returns batches in order of completion. Each
batch carries its step and is buffered until its turn, so that a run does not depend on the number of workers.
"""

import contextlib
import re
import socket
from collections.abc import Iterator

import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.errors import translate_errors

_TIMEOUT = 10.0  # seconds, for a connection to the dispatcher
# Batches that are buffered for a missing step: a worker that starts late delays them, one that died would block them.
_MAX_BUFFERED = 256


def distribute(numbered: tf.data.Dataset, address: str, *, start: int, end: int) -> tf.data.Dataset:
    """Compute a dataset on the workers of a tf.data service.

    Args:
        numbered: dataset of (step: int64 scalar, *parts) for the steps `start` to `end` - 1.
        address: `grpc://host:port` of the dispatcher. Its workers must find the data files under the same paths.
        start: first step.
        end: step after the last one.

    Returns:
        A dataset of parts, in the order of the steps. Iterate within `translate_service_errors`.

    Raises:
        UserError: if the address is invalid or does not answer.
    """
    _check_address(address)
    remote = numbered.apply(
        tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.DYNAMIC, service=address, max_outstanding_requests=8
        )
    )

    def in_order() -> Iterator[tuple[tf.Tensor, ...]]:
        buffered: dict[int, tuple[tf.Tensor, ...]] = {}
        step = start
        for number, *parts in remote:
            buffered[int(number)] = tuple(parts)
            while step in buffered:
                yield buffered.pop(step)
                step += 1
            if len(buffered) > _MAX_BUFFERED:
                break
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


def _check_address(address: str) -> None:
    match = re.fullmatch(r"grpc://([^:/]+):(\d+)", address)
    if not match:
        raise UserError(f"data.service={address!r} is not the address of a dispatcher; expected grpc://HOST:PORT")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"data.service={address!r} does not answer ({error}); `python -m resnet_tf.data_service --port={match[2]}` "
            "starts one there"
        ) from error
