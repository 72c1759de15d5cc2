"""The workers of a run: which of them this is, and what they must agree on."""

import json
import os
from collections.abc import Sequence

import tensorflow as tf

from resnet_tf.core.errors import UserError


class Cluster:
    """This process among those that train together; alone under every strategy but `multiworker`.

    Attributes:
        index: of this worker, from 0 on.
        count: of workers.
        replicas: of this worker.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.index, self.count = 0, 1
        resolver = strategy.cluster_resolver
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and resolver.task_type:
            members = resolver.cluster_spec().as_dict()
            chiefs = len(members.get("chief", []))
            self.count = chiefs + len(members.get("worker", []))
            self.index = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
        self.replicas = strategy.num_replicas_in_sync // self.count

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes."""
        return self.index == 0

    def from_chief(self, numbers: Sequence[float]) -> list[float]:
        """The chief's numbers, on every worker."""
        return self.add_up(numbers if self.is_chief else [0.0] * len(numbers))

    def add_up(self, numbers: Sequence[float]) -> list[float]:
        """The sums over the workers, float64, on every worker. All must call it at the same point."""
        if self.count == 1:
            return list(numbers)
        return self._sum(tf.constant(numbers, tf.float64)).numpy().tolist()

    def share_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Every worker takes the chief's values. All must call it at the same point."""
        if self.count == 1:
            return
        for variable in variables:
            wide = tf.float32 if variable.dtype.is_floating else tf.int64
            value = tf.cast(tf.identity(variable), wide)
            variable.assign(tf.cast(self._sum(value if self.is_chief else tf.zeros_like(value)), variable.dtype))

    def _sum(self, value: tf.Tensor) -> tf.Tensor:
        @tf.function
        def total(value: tf.Tensor) -> tf.Tensor:
            def contribute(value: tf.Tensor) -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                first = context.replica_id_in_sync_group % self.replicas == 0
                return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, value, tf.zeros_like(value)))

            return self._strategy.experimental_local_results(self._strategy.run(contribute, args=(value,)))[0]

        return total(value)


def check_tf_config() -> None:
    """Raise a `UserError` unless TF_CONFIG describes a cluster with this process in it, as TensorFlow documents it."""
    looks = 'it looks like {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        described = json.loads(os.environ["TF_CONFIG"])
        task = described["task"]
        members = described["cluster"][task["type"]]
        members[int(task["index"])]
    except KeyError as error:
        missing = error.args[0]
        where = "is not set" if missing == "TF_CONFIG" else f"has no {missing!r}"
        raise UserError(f"runtime.strategy=multiworker reads TF_CONFIG, which {where}; {looks}") from error
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(f"TF_CONFIG describes no cluster with this worker in it ({error}); {looks}") from error
