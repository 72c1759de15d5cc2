"""Estimate of the memory of a training step."""

from dataclasses import dataclass

import keras

from resnet_tf.config import Config
from resnet_tf.model.cost import count_saved_activations

# At the end of a block: gradients of a feature map and of its input, and their sum.
_GRADIENTS = 3
# Graph, kernels and scratch memory, measured by `benchmarks/memory.py` on a CPU.
_BYTES_PER_LAYER = 1_300_000


@dataclass(frozen=True)
class StepMemory:
    """Estimate for one replica, in bytes; `benchmarks/memory.py` compares it with measurements.

    Attributes:
        maps: feature maps that the backward pass needs, with the largest gradients.
        weights: weights, gradients and state of the optimizer.
        workspace: graph, kernels and scratch memory.
    """

    maps: int
    weights: int
    workspace: int

    @property
    def total(self) -> int:
        """Return the sum in bytes."""
        return self.maps + self.weights + self.workspace

    def __str__(self) -> str:
        maps, weights, work = map(megabytes, (self.maps, self.weights, self.workspace))
        tensors = f"{maps} of feature maps, {weights} of weights, gradients and optimizer"
        return f"about {megabytes(self.total)} on each replica: {tensors}, {work} of workspace"


def estimate_memory(config: Config, sized: keras.Model, *, trainable: int, slots: int, replicas: int) -> StepMemory:
    """Estimate the memory of a training step under the current dtype policy.

    Args:
        config: uses `data.batch_size` and `train.accumulate`.
        sized: the network, with a fixed input size.
        trainable: number of elements of the trainable variables.
        slots: number of elements of the optimizer's variables.
        replicas: number of replicas among which a batch is divided.
    """
    half = keras.config.dtype_policy().compute_dtype != "float32"
    count = config.train.accumulate
    gradients = trainable * (2 if count > 1 else 1)  # of a micro-batch, and their sum
    images = config.data.batch_size // replicas // count
    every_map, largest = count_saved_activations(sized)
    return StepMemory(
        maps=(2 if half else 4) * (every_map + _GRADIENTS * largest) * images,
        weights=4 * (sized.count_params() + gradients + slots),  # float32 under every policy
        workspace=_BYTES_PER_LAYER * len(sized.layers),
    )


def megabytes(count: float) -> str:
    """Return a number of bytes as text in megabytes."""
    return f"{count / 2**20:,.0f} MB"
