"""Batches prepared by a tf.data service, on other hosts, in the order that they would have here.

The service hands each step to one of its workers (dynamic sharding) and gives batches back as they come. They carry
their step, and wait here until it is their turn: a run sees the same whatever the number of workers.
"""

import contextlib
import re
import socket
from collections.abc import Iterator

import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.data.autotune import without_autotune
from resnet_tf.data.errors import translate_errors

_TIMEOUT = 10.0  # seconds for the dispatcher to answer
# A worker that starts late holds back the others' batches; one that died would hold them back for ever.
_MOST_WAITING = 256


def distribute(numbered: tf.data.Dataset, address: str, *, start: int, end: int) -> tf.data.Dataset:
    """What `numbered` gives, prepared by the workers of a service.

    Args:
        numbered: a dataset of (step: int64, *parts) for the steps `start` to `end` - 1.
        address: `grpc://host:port` of the dispatcher. Its workers must find the data's files at the same paths.
        start: the first step.
        end: the step after the last.

    Returns:
        A dataset of parts, in the order of the steps. Read it within `translate_service_errors`.

    Raises:
        UserError: if nobody listens at the address.
    """
    _check_address(address)
    remote = numbered.apply(
        tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.DYNAMIC, service=address, max_outstanding_requests=8
        )
    )

    def in_order() -> Iterator[tuple[tf.Tensor, ...]]:
        waiting: dict[int, tuple[tf.Tensor, ...]] = {}
        step = start
        for number, *parts in remote:
            waiting[int(number)] = tuple(parts)
            while step in waiting:
                yield waiting.pop(step)
                step += 1
            if len(waiting) > _MOST_WAITING:
                break
        if step < end:
            raise UserError(f"the data service at {address} lost step {step}: has one of its workers died?")

    _, *signature = numbered.element_spec
    return without_autotune(tf.data.Dataset.from_generator(in_order, output_signature=tuple(signature)))


def translate_service_errors() -> contextlib.AbstractContextManager[None]:
    """Raise the `UserError` of `distribute` as itself, where the block that reads its batches fails."""

    def explain(error: tf.errors.OpError) -> str:
        match = re.search(r"UserError: (.*)", error.message)
        return match[1] if match else ""

    return translate_errors(explain)


def _check_address(address: str) -> None:
    match = re.fullmatch(r"grpc://([^:/]+):(\d+)", address)
    if not match:
        raise UserError(f"data.service={address!r} is no address of a dispatcher; give grpc://HOST:PORT")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"data.service={address!r} does not answer ({error}); `python -m resnet_tf.data_service --port={match[2]}` "
            "starts one there"
        ) from error
