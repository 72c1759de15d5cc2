"""Initializers of convolution kernels."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np


@keras.saving.register_keras_serializable("resnet_tf")
class FanOutNormal(keras.initializers.HeNormal):
    """Normal distribution of variance 2 / fan-out, the initialization of torchvision and of the ResNet papers.

    Values depend on the seed alone, not on the device or the number of cores. NumPy generates them on all cores in half
    of TensorFlow's time, which dominates the creation of a deep network.

    Reference: He et al., Delving Deep into Rectifiers, 2015, sec. 2.2.
    """

    CHUNK = 2**18  # numbers from one random stream

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Return a tensor of random values; `shape` ends in (input channels, output channels)."""
        values = np.empty(shape, np.float32)
        deviation = np.float32(math.sqrt(2.0 / math.prod((*shape[:-2], shape[-1]))))
        flat = values.reshape(-1)
        starts = range(0, flat.size, self.CHUNK)

        def fill(start: int) -> None:
            part = flat[start : start + self.CHUNK]
            np.random.Generator(np.random.SFC64([self.seed, start])).standard_normal(out=part, dtype=np.float32)
            part *= deviation

        if len(starts) == 1:
            fill(0)
        else:
            with ThreadPoolExecutor() as pool:
                list(pool.map(fill, starts))
        return keras.ops.convert_to_tensor(values, dtype)
