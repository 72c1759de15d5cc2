"""Compile a file of benchmarks/tpu_write.py with the compiler of TPUs, without a TPU, and print what the program takes.

    python benchmarks/tpu_compile.py v5e:2x2 1 step.hlo
    python benchmarks/tpu_compile.py faults step.hlo another.hlo

Needs JAX and a libtpu of the same time, such as jax 0.10.2 with libtpu 0.0.42.1. Prints one JSON object: bytes of
memory, floating-point operations, bytes accessed, and the error of a program that the compiler refuses; or the parts of
each program that a step for TPUs must not have.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

# The compiler must not look for a TPU, or for a server that describes one.
os.environ.update(JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_ACCELERATOR_TYPE="v5litepod-4")
os.environ.update(TPU_WORKER_HOSTNAMES="localhost", TPU_WORKER_ID="0", ALLOW_MULTIPLE_LIBTPU_LOAD="1")

import jax
import numpy as np
from gpu_program import to_mlir
from jax._src.lib import xla_client
from jax.experimental import topologies

# Parts of HLO that a training step for TPUs must not have, with what they stand for.
REFUSED = {
    r"\bf64\[": "float64, which TPUs emulate",
    r"\[[^\]]*<=": "a dynamic dimension",
    r"custom-call": "a call of the host or of a library",
    r"\b(infeed|outfeed|send|recv)\(": "a transfer from or to the host",
}


def faults(path: Path) -> list[str]:
    """Return what a program has that a step for TPUs must not have."""
    text = xla_client.XlaComputation(path.read_bytes()).as_hlo_text()
    return [meaning for pattern, meaning in REFUSED.items() if re.search(pattern, text)]


def compile_for(path: Path, topology: str, chips: int = 1) -> dict[str, Any]:
    """Compile a program and return what it takes, or the `error` of the compiler."""
    facts = json.loads(path.with_suffix(".json").read_text())
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[:chips]
    module = to_mlir(xla_client.XlaComputation(path.read_bytes()), donated=facts["variables"])
    options = xla_client.CompileOptions()
    options.num_replicas = chips
    build = options.executable_build_options
    build.num_replicas = chips
    build.device_assignment = xla_client.DeviceAssignment.create(np.array([[each.id] for each in devices]))
    result = {"file": path.name, "topology": topology, "chip": devices[0].device_kind, "chips": chips, **facts}
    start = time.perf_counter()
    try:
        executable = devices[0].client.compile(module, xla_client.DeviceList(tuple(devices)), options)
    except jax.errors.JaxRuntimeError as error:
        return result | {"error": str(error)}
    memory, cost = executable.get_compiled_memory_stats(), executable.cost_analysis()
    cost = cost if isinstance(cost, dict) else cost[0]
    text = "\n".join(each.to_string() for each in executable.hlo_modules())
    return result | {
        "seconds": time.perf_counter() - start,
        "temporaries": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "flops": cost.get("flops", 0.0),
        "bytes_accessed": cost.get("bytes accessed", 0.0),
        "all_reduces": len(re.findall(r"\ball-reduce(?:-start)?\(", text)),
        "versions": {"jax": jax.__version__},
    }


def main(arguments: list[str]) -> None:
    """Print the faults of programs, or what a program takes on a chip."""
    if arguments[0] == "faults":
        print(json.dumps({path: faults(Path(path)) for path in arguments[1:]}))
    else:
        topology, chips, path = arguments
        print(json.dumps(compile_for(Path(path), topology, int(chips))))


if __name__ == "__main__":
    main(sys.argv[1:])
