"""The first values of convolutions."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np


@keras.saving.register_keras_serializable("resnet_tf")
class FanOutNormal(keras.initializers.HeNormal):
    """Normal numbers of variance 2 / fan-out, as torchvision and the authors of ResNet start their convolutions.

    They follow from the seed alone, whatever the device and the number of cores. NumPy draws them on all cores in half
    of TensorFlow's time, which is what creating a deep network mostly waits for.

    Reference: He et al., Delving Deep into Rectifiers, 2015, sec. 2.2.
    """

    CHUNK = 2**18  # numbers drawn from one stream

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        values = np.empty(shape, np.float32)
        deviation = np.float32(math.sqrt(2.0 / math.prod((*shape[:-2], shape[-1]))))
        flat = values.reshape(-1)
        starts = range(0, flat.size, self.CHUNK)

        def draw(start: int) -> None:
            part = flat[start : start + self.CHUNK]
            np.random.Generator(np.random.SFC64([self.seed, start])).standard_normal(out=part, dtype=np.float32)
            part *= deviation

        if len(starts) == 1:
            draw(0)
        else:
            with ThreadPoolExecutor() as pool:
                list(pool.map(draw, starts))
        return keras.ops.convert_to_tensor(values, dtype)
