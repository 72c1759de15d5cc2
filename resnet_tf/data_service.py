"""Prepare training batches on other hosts, with the tf.data service.

Training with data.service=grpc://HOST:PORT takes its batches from there.

python -m resnet_tf.data_service --port=5050                                     dispatcher and worker
python -m resnet_tf.data_service --dispatcher=grpc://HOST:5050 --host=MY_NAME    one more worker, on another host

Workers read the data files under the same paths as the training process. They need the same TensorFlow but not
resnet_tf: TensorFlow's DispatchServer and WorkerServer serve as well. Stop it with Ctrl-C or SIGTERM.
"""

from absl import flags

import resnet_tf
from resnet_tf.config import command_line

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
PORT = flags.DEFINE_integer(
    "port", 5050, "port of the dispatcher; 0 selects a free port", lower_bound=0, upper_bound=65535, flag_values=FLAGS
)
DISPATCHER = flags.DEFINE_string(
    "dispatcher", "", "grpc://HOST:PORT of a running dispatcher that gets this worker", flag_values=FLAGS
)
HOST = flags.DEFINE_string("host", "localhost", "host name of this worker for training processes", flag_values=FLAGS)
WORKER_PORT = flags.DEFINE_integer(
    "worker_port", 0, "port of the worker; 0 selects a free port", lower_bound=0, upper_bound=65535, flag_values=FLAGS
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    command_line.no_arguments(arguments)
    service = resnet_tf.serve_data(
        port=PORT.value, dispatcher=DISPATCHER.value, host=HOST.value, worker_port=WORKER_PORT.value
    )
    print(f"data.service={service.address}", flush=True)
    service.join()


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
