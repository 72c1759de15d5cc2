"""The two Python environments in which benchmarks/tpu.py works: TensorFlow for TPUs, and the compiler of TPUs.

Neither can be the environment of the caller: tensorflow-tpu replaces the files of tensorflow, and the libtpu that its
TensorFlow needs is older than that of a JAX whose compiler needs no TPU.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPILER = ("jax==0.10.2", "libtpu==0.0.42.1")  # releases of the same weeks
# Without a TPU, libtpu waits minutes for the server that describes one.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


class Environments:
    """Python interpreters, installed on first use.

    Args:
        directory: directory of the environments; existing ones are used.
    """

    def __init__(self, directory: Path):
        self._directory = directory.resolve()

    def install(self) -> None:
        """Install both environments, if they are not there.

        Raises:
            SystemExit: if a package cannot be installed.
        """
        requirements = ROOT / "requirements-tpu.txt"
        self._install("tensorflow", "-r", str(requirements))
        self._install("compiler", *COMPILER)

    def run(self, name: str, program: str, *arguments: str | Path, timeout: float | None = None) -> str:
        """Run a program of this directory in an environment, and return its output.

        Raises:
            SystemExit: if it fails; the message is the end of its errors.
        """
        command = [self._python(name), str(ROOT / "benchmarks" / program), *map(str, arguments)]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
        settings = kept | _NO_TPU | quiet | {"PYTHONPATH": str(ROOT)}  # this checkout, not an earlier installation
        child = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=timeout, check=False)
        if child.returncode:
            raise SystemExit(f"{program} failed: {child.stderr[-3000:]}")
        return child.stdout

    def _python(self, name: str) -> str:
        return str(self._directory / name / "bin" / "python")

    def _install(self, name: str, *packages: str) -> None:
        done = self._directory / name / "installed"
        if done.exists():
            return
        subprocess.run([sys.executable, "-m", "venv", self._directory / name], check=True)
        command = [self._python(name), "-m", "pip", "install", "--quiet", *packages]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode:
            raise SystemExit(f"{' '.join(packages)} cannot be installed: {child.stderr[-1000:]}")
        done.touch()
