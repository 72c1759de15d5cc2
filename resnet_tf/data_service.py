"""A tf.data service, for input that outgrows one host: data.service=grpc://HOST:PORT then prepares batches there.

python -m resnet_tf.data_service --port=5050                                     dispatcher and worker in one
python -m resnet_tf.data_service --dispatcher=grpc://HOST:5050 --host=MY_NAME    one more worker, on another host

Workers must find the data's files at the same paths as the training process. They need no resnet_tf, only the same
TensorFlow: its own DispatchServer and WorkerServer do as well. Stop it with Ctrl-C or SIGTERM.
"""

from absl import flags

from resnet_tf.config import command_line
from resnet_tf.core.errors import UserError

FLAGS = flags.FlagValues()
PORT = flags.DEFINE_integer(
    "port", 5050, "port of the dispatcher; 0 takes a free one", lower_bound=0, upper_bound=65535, flag_values=FLAGS
)
DISPATCHER = flags.DEFINE_string(
    "dispatcher", "", "grpc://HOST:PORT of a dispatcher elsewhere, to be one more worker of it", flag_values=FLAGS
)
HOST = flags.DEFINE_string("host", "localhost", "name under which trainers reach this worker", flag_values=FLAGS)
WORKER_PORT = flags.DEFINE_integer(
    "worker_port", 0, "port of the worker; 0 takes a free one", lower_bound=0, upper_bound=65535, flag_values=FLAGS
)


def main(arguments: list[str]) -> None:
    command_line.no_arguments(arguments)

    import tensorflow as tf

    service = tf.data.experimental.service
    try:
        target = DISPATCHER.value
        if not target:
            dispatcher = service.DispatchServer(service.DispatcherConfig(port=PORT.value))  # stops when it is collected
            target = dispatcher.target
        if not target.startswith("grpc://"):
            raise UserError(f"--dispatcher={target!r} is no address of a dispatcher; give grpc://HOST:PORT")
        worker = service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=target.removeprefix("grpc://"),
                worker_address=f"{HOST.value}:{WORKER_PORT.value or '%port%'}",
                port=WORKER_PORT.value,
                dispatcher_timeout_ms=10_000,
            )
        )
    except tf.errors.OpError as error:
        raise UserError(f"the service cannot start: {error.message.splitlines()[0]}") from error
    print(f"data.service={target}", flush=True)
    worker.join()


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
