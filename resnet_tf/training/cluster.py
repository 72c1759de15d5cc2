"""Workers of a run: index of this process, chief, and communication between workers."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from resnet_tf.config import RuntimeConfig
from resnet_tf.core.errors import Interrupted, UserError, plain_reason

_TASK_TYPES = ("chief", "worker")  # in the order of their indices
# Errors of a worker itself, which a restart repeats: memory, data and files.
_LOCAL_ERRORS = (
    tf.errors.ResourceExhaustedError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.DataLossError,
)


@dataclass(frozen=True)
class Task:
    """Index of this process among the workers of a cluster; the defaults stand for a single process.

    Attributes:
        index: index of this worker, from 0.
        count: number of workers.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, cluster: Mapping[str, Sequence[str]], task_type: str, task_index: int) -> "Task":
        """Return the task of a member of a cluster specification, the chief first, then the workers."""
        sizes = {each: len(cluster.get(each, ())) for each in _TASK_TYPES}
        return cls(task_index + (sizes["chief"] if task_type == "worker" else 0), sum(sizes.values()))

    @property
    def is_chief(self) -> bool:
        """True for the process that writes files and makes decisions."""
        return self.index == 0


def is_chief(config: RuntimeConfig) -> bool:
    """Return True if this process writes the files of the run, before its strategy exists.

    Raises:
        UserError: if the strategy is `multiworker` and TF_CONFIG does not describe a cluster with this process in it.
    """
    return config.strategy != "multiworker" or read_tf_config().is_chief


class Cluster:
    """Communication between the workers of a run; only the strategy `multiworker` has more than one.

    Attributes:
        index: index of this worker, from 0.
        count: number of workers.
        is_chief: True for the worker that writes files and makes decisions.
        replicas: number of replicas of this worker.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        task, resolver = Task(), strategy.cluster_resolver
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and resolver.task_type:
            task = Task.of(resolver.cluster_spec().as_dict(), resolver.task_type, resolver.task_id)
        self.index, self.count, self.is_chief = task.index, task.count, task.is_chief
        self.replicas = strategy.num_replicas_in_sync // self.count
        self._add_up = tf.function(self._add_up_replicas, reduce_retracing=True, autograph=False)

    def from_chief(self, numbers: Sequence[float]) -> list[float]:
        """Return the chief's numbers on every worker. All workers must call it at the same point."""
        return self.sum(numbers if self.is_chief else [0.0] * len(numbers))

    def text_from_chief(self, text: str) -> str:
        """Return the chief's text on every worker. All workers must call it at the same point."""
        own = list(text.encode())
        (length,) = self.from_chief([len(own)])
        if not length:
            return ""
        return bytes(map(int, self.from_chief(own if self.is_chief else [0] * int(length)))).decode()

    def where(self, condition: bool) -> list[int]:
        """Return the indices of the workers where a condition is true. All workers must call it at the same point."""
        flags = [float(condition and index == self.index) for index in range(self.count)]
        return [index for index, flag in enumerate(self.sum(flags)) if flag]

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Return sums over the workers, float64, on every worker. All workers must call it at the same point."""
        if self.count == 1:
            return list(numbers)
        return self._add_up(tf.constant(numbers, tf.float64)).numpy().tolist()

    def concatenate(self, numbers: Sequence[float]) -> list[float]:
        """Return the numbers of all workers, float64, on every worker. All workers must call it at the same point."""
        own = [float(len(numbers)) if index == self.index else 0.0 for index in range(self.count)]
        counts = [int(each) for each in self.sum(own)]
        before, after = sum(counts[: self.index]), sum(counts[self.index + 1 :])
        return self.sum([0.0] * before + list(numbers) + [0.0] * after) if any(counts) else []

    def broadcast_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Assign the chief's values on every worker. All workers must call it at the same point."""
        if self.count == 1:
            return
        for variable in variables:
            wide = tf.float32 if variable.dtype.is_floating else tf.int64
            # As vectors, of which one trace of the sum takes any length.
            value = tf.reshape(tf.cast(tf.identity(variable), wide), [-1])
            total = self._add_up(value if self.is_chief else -tf.zeros_like(value))
            variable.assign(tf.reshape(tf.cast(total, variable.dtype), variable.shape))

    def _add_up_replicas(self, value: tf.Tensor) -> tf.Tensor:
        """Return the sum of a vector over the workers: one replica of each contributes."""

        def contribute(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % self.replicas == 0
            # -0 leaves every number as it is; the sum of 0 and -0 is 0.
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, value, -tf.zeros_like(value)))

        return self._strategy.experimental_local_results(self._strategy.run(contribute, args=(value,)))[0]


def describe_workers(indices: Sequence[int]) -> str:
    """Return the name of one worker, or of several, by their indices.

    >>> describe_workers([1]), describe_workers([1, 3])
    ('worker 1', 'workers 1, 3')
    """
    return f"worker{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"


@contextlib.contextmanager
def translate_lost_workers(
    cluster: Cluster, moment: Callable[[], str] = lambda: "before the first step"
) -> Iterator[None]:
    """Raise the failure of a collective operation among several workers as `Interrupted`: all can be restarted.

    Args:
        cluster: the workers.
        moment: function that returns the moment of the failure, for the message.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if cluster.count == 1 or isinstance(error, _LOCAL_ERRORS):
            raise
        raise Interrupted(
            f"worker {cluster.index} lost another one {moment()} ({plain_reason(error)}); restart all workers to "
            "resume from the newest checkpoint"
        ) from error


def read_addresses() -> list[str]:
    """Return `host:port` of the workers in TF_CONFIG, in the order of their indices; see `read_tf_config`."""
    cluster = json.loads(os.environ["TF_CONFIG"])["cluster"]
    return [str(address) for task_type in _TASK_TYPES for address in cluster.get(task_type, ())]


def read_tf_config() -> Task:
    """Return the task of this process in the cluster that TF_CONFIG describes.

    Raises:
        UserError: if TF_CONFIG is not set, is malformed, or does not list this process as a chief or a worker.
    """
    example = 'for example {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        described: dict[str, Any] = json.loads(os.environ["TF_CONFIG"])
        cluster, task = described["cluster"], described["task"]
        task_type, index = task["type"], int(task["index"])
        for each, addresses in cluster.items():
            if not (isinstance(addresses, list) and all(isinstance(one, str) and ":" in one for one in addresses)):
                raise ValueError(f"{each!r} is {addresses!r}; it must be a list of HOST:PORT")
        cluster[task_type][index]
        if task_type not in _TASK_TYPES or index < 0:
            raise ValueError(f"the task is {task_type} {index}; it must be a chief or a worker")
        return Task.of(cluster, task_type, index)
    except KeyError as error:
        missing = error.args[0]
        where = "is not set" if missing == "TF_CONFIG" else f"has no {missing!r}"
        raise UserError(f"runtime.strategy=multiworker reads TF_CONFIG, which {where}; {example}") from error
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(f"TF_CONFIG describes no cluster that contains this worker ({error}); {example}") from error
