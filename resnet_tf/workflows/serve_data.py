"""Servers of the tf.data service."""

import threading
from typing import Any

import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import check_integer

_POLL = 0.2  # seconds


class DataService:
    """A running worker of the tf.data service, with the dispatcher unless that runs elsewhere.

    Both servers stop when the object is deleted.

    Attributes:
        address: `grpc://HOST:PORT` of the dispatcher, for `data.service`.
    """

    def __init__(self, address: str, worker: Any, dispatcher: Any = None):
        self.address = address
        self._worker, self._dispatcher = worker, dispatcher

    def join(self) -> None:
        """Block until the worker stops."""
        waiting = threading.Thread(target=self._worker.join, daemon=True)
        waiting.start()
        while waiting.is_alive():  # in native code, which would not let Python handle signals
            waiting.join(_POLL)

    def to_dict(self) -> dict[str, str]:
        """Return the address, ready for JSON."""
        return {"address": self.address}

    def __repr__(self) -> str:
        return f"DataService({self.address!r})"


def serve_data(*, port: int = 5050, dispatcher: str = "", host: str = "localhost", worker_port: int = 0) -> DataService:
    """Start a worker of the tf.data service, and a dispatcher unless one is given.

    It returns at once. Training with `data.service` set to the address of the dispatcher takes its batches from there.
    Workers read the files of the data set at the same paths as the training process.

    Args:
        port: of the dispatcher; 0 takes a free one.
        dispatcher: `grpc://HOST:PORT` of a dispatcher elsewhere, which gets one more worker.
        host: name under which training processes reach this worker.
        worker_port: of the worker; 0 takes a free one.

    Raises:
        UserError: for an invalid address, or a port that is in use.
    """
    for name, number in (("port", port), ("worker_port", worker_port)):
        check_integer(name, number, minimum=0, maximum=2**16 - 1)
    service = tf.data.experimental.service
    try:
        server = None if dispatcher else service.DispatchServer(service.DispatcherConfig(port=port))
        target = server.target if server else dispatcher
        if not target.startswith("grpc://"):
            raise UserError(f"--dispatcher={target!r} is not the address of a dispatcher; expected grpc://HOST:PORT")
        worker = service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=target.removeprefix("grpc://"),
                worker_address=f"{host}:{worker_port or '%port%'}",
                port=worker_port,
                dispatcher_timeout_ms=10_000,
            )
        )
    except tf.errors.OpError as error:
        raise UserError(f"the service cannot start: {error.message.splitlines()[0]}") from error
    return DataService(target, worker, server)
