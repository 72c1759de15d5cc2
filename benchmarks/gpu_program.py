"""Compile and run the HLO of benchmarks/gpu_write.py with the XLA inside JAX, without TensorFlow."""

import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax._src import xla_bridge
from jax._src.interpreters import mlir
from jax._src.lib import xla_client
from jaxlib.mlir import ir


class Program:
    """A compiled training step on JAX's first device: (values, images, labels) -> (values, loss).

    Values are updated in place: the arguments are donated, and their memory holds the new values.

    Args:
        path: serialized HLO that returns the new values, in the order of its arguments, and the loss.
        variables: number of values.

    Attributes:
        device: JAX's name of the device.
        seconds: compilation time.
    """

    def __init__(self, path: Path, variables: int):
        backend = xla_bridge.get_backend()
        self._device = backend.devices()[0]
        self.device = self._device.device_kind
        module = to_mlir(xla_client.XlaComputation(path.read_bytes()), donated=variables)
        start = time.perf_counter()
        devices = xla_client.DeviceList((self._device,))
        self._executable = backend.compile_and_load(module, devices, xla_client.CompileOptions())
        self.seconds = time.perf_counter() - start

    def put(self, arrays: Sequence[np.ndarray]) -> list[jax.Array]:
        """Copy the arrays to the device."""
        return [jax.device_put(array, self._device, may_alias=False) for array in arrays]

    def __call__(
        self, values: Sequence[jax.Array], images: jax.Array, labels: jax.Array
    ) -> tuple[list[jax.Array], jax.Array]:
        results = self._executable.execute_sharded([*values, images, labels])
        *values, loss = (shards[0] for shards in results.disassemble_into_single_device_arrays())
        return values, loss

    def optimized_hlo(self) -> str:
        """Return the HLO after the compiler's optimizations."""
        return "\n".join(module.to_string() for module in self._executable.hlo_modules())


def to_mlir(computation: xla_client.XlaComputation, *, donated: int) -> ir.Module:
    """Convert the computation to MLIR, the input of JAX's compiler, and donate its first arguments to its results."""
    text = xla_client._xla.mlir.xla_computation_to_mlir_module(computation)
    with mlir.make_ir_context() as context:
        module = ir.Module.parse(text)
        (main,) = (each for each in module.body.operations if each.name.value == "main")
        number = ir.IntegerType.get_signless(32, context)
        aliases = [{"tf.aliasing_output": ir.IntegerAttr.get(number, index)} for index in range(donated)]
        not_donated = [{} for _ in main.arguments[donated:]]
        main.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(each) for each in aliases + not_donated])
    return module
