"""Verification of an export: a new process loads it and compares its logits with those of the model.

The training process calls `verify`; the new process runs this module as a program.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnet_tf.core.devices import cpu_environment
from resnet_tf.core.errors import UserError
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.text import counted

# Largest difference of a logit, relative to the largest logit, by the device of the model; the export computes on the
# CPU. Both compute in float32, but the export has folded BatchNorm, another graph optimization and another batch size,
# and the convolutions of a GPU sum in another order, or by Winograd's method.
TOLERANCES = {"CPU": 1e-4, "GPU": 1e-3}


@dataclass(frozen=True)
class Verification:
    """Comparison of the logits of an export and of the model.

    Attributes:
        examples: number of examples compared.
        same_top1: number of examples with the same top-1 class.
        largest_difference: largest absolute difference of a logit, relative to the largest absolute logit.
    """

    examples: int
    same_top1: int
    largest_difference: float

    def __str__(self) -> str:
        return (
            f"verified in a new process: {self.same_top1} of {counted(self.examples, 'validation example')} have the "
            f"same top-1 class, logits within {self.largest_difference:.1e}"
        )


def verify(export: Path, logits: np.ndarray, *, batch_size: int, device: str = "CPU") -> Verification:
    """Load an export in a new process on the CPU, and compare its logits with those of the model.

    Args:
        export: directory of the version.
        logits: logits of the model for the first N examples of its validation split, float32 [N, C].
        batch_size: examples per batch in the new process.
        device: type of the device that computed `logits`, a key of `TOLERANCES`.

    Raises:
        UserError: if `Verification.largest_difference` exceeds the tolerance of `device`, or the new process fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch) / "logits.npy"
        np.save(reference, logits)
        command = [sys.executable, "-m", "resnet_tf.serving.verify", str(export), str(reference), str(batch_size)]
        # On the CPU: this process holds the memory of GPUs and TPUs.
        with Progress("verifying the export in a new process"):
            child = subprocess.run(command, env=cpu_environment(), capture_output=True, text=True, check=False)
    if child.returncode:
        raise UserError(f"verification of {str(export)!r} failed: {child.stderr.strip()[-500:]}")
    result = Verification(**json.loads(child.stdout.splitlines()[-1]))
    if not result.largest_difference <= TOLERANCES[device]:
        raise UserError(f"the logits of {str(export)!r} differ from those of the model: {result}")
    return result


def _compare(export: Path, reference: Path, batch_size: int) -> Verification:
    from resnet_tf.data.sources import open_source
    from resnet_tf.serving.predictor import Predictor

    expected = np.load(reference)
    predictor = Predictor(export)
    split = open_source(predictor.config.data, for_training=False).validation
    found = predictor.evaluate(split, batch_size=batch_size, count=len(expected)).logits
    return Verification(
        examples=len(found),
        same_top1=int(np.sum(found.argmax(axis=1) == expected.argmax(axis=1))),
        largest_difference=float(np.abs(found - expected).max() / np.abs(expected).max()),
    )


if __name__ == "__main__":
    print(json.dumps(vars(_compare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))))
