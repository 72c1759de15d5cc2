"""Start several workers of one training on this machine, such as one for each GPU.

    python examples/workers.py 4 --config=digits --set data.batch_size=64 --workdir=runs/four

The arguments after the number are those of `python -m resnet_tf.train`. The workers meet at free ports of 127.0.0.1.
With `--gpus`, worker N sees GPU N only. Their lines begin with their numbers. When one of them ends with an error, the
others end too, and so does this program, with the same exit code; SIGTERM, Ctrl-C and the end of the terminal stop all
of them after a checkpoint.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the workers, and return the first exit code that is not 0, or 0."""
    if not arguments or not arguments[0].isdecimal() or int(arguments[0]) < 1:
        print(f"error: the first argument is the number of workers\n\n{__doc__}", file=sys.stderr)
        return 2
    count, rest = int(arguments[0]), list(arguments[1:])
    one_gpu_each = "--gpus" in rest
    command = [sys.executable, "-m", "resnet_tf.train", *(each for each in rest if each != "--gpus")]
    command.append("--set=runtime.strategy=multiworker")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    workers: list[subprocess.Popen] = []
    stopped = threading.Event()

    def end(*_: object) -> None:
        stopped.set()
        stop(workers)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    for index in range(count):
        environment = os.environ | {"TF_CONFIG": describe(addresses, index)}
        environment |= {"CUDA_VISIBLE_DEVICES": str(index)} if one_gpu_each else {}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        # A terminal sends Ctrl-C to a whole session, and a second signal would end a worker without a checkpoint.
        workers.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))
        if stopped.is_set():  # possibly before the worker was in the list
            stop(workers[-1:])
            break
    printers = [threading.Thread(target=show, args=each) for each in enumerate(workers)]
    for each in printers:
        each.start()
    for each in printers:
        each.join()
    return next((code for code in (worker.wait() for worker in workers) if code), 0)


def describe(addresses: Sequence[str], index: int) -> str:
    """Return TF_CONFIG of a worker."""
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


def free_ports(count: int) -> list[int]:
    """Return different free ports; another process may take one before the workers do."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def stop(workers: Sequence[subprocess.Popen]) -> None:
    """Ask the workers to stop after a checkpoint."""
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()


def show(index: int, worker: subprocess.Popen) -> None:
    """Print the lines of a worker, each after its number, until it ends."""
    assert worker.stdout is not None
    for line in worker.stdout:
        print(f"[{index}] {line}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
