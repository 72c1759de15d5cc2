"""Proof that an export answers as the model does: a fresh process loads it and compares every logit.

The parent calls `verify`; the fresh process runs this file.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnet_tf.core.errors import UserError

# Both sides compute in float32, but the graph of an export is folded, compiled and batched on its own.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Verification:
    """How an export's answers compare with the model's.

    Attributes:
        examples: how many were compared.
        same_top1: how many of them have the same best class.
        largest_difference: of any logit, relative to the largest logit.
    """

    examples: int
    same_top1: int
    largest_difference: float

    def __str__(self) -> str:
        return (
            f"reloaded in a fresh process: {self.same_top1} of {self.examples} test examples answered alike, "
            f"logits within {self.largest_difference:.1e}"
        )


def verify(export: Path, logits: np.ndarray, *, batch_size: int) -> Verification:
    """Compare the export, loaded in a fresh process, with logits [N, C] of the first N images of its test split.

    Raises:
        UserError: if any logit differs by more than `TOLERANCE` of the largest.
    """
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch) / "logits.npy"
        np.save(reference, logits)
        command = [sys.executable, "-m", "resnet_tf.serving.verify", str(export), str(reference), str(batch_size)]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise UserError(f"a fresh process could not check {str(export)!r}: {child.stderr.strip()[-500:]}")
    result = Verification(**json.loads(child.stdout.splitlines()[-1]))
    if not result.largest_difference <= TOLERANCE:
        raise UserError(f"{str(export)!r} does not answer as the model does: {result}")
    return result


def _compare(export: Path, reference: Path, batch_size: int) -> Verification:
    from resnet_tf.data.sources import open_source
    from resnet_tf.serving.predictor import Predictor

    expected = np.load(reference)
    predictor = Predictor(export)
    split = open_source(predictor.config.data).validation
    found = predictor.evaluate(split, batch_size=batch_size, count=len(expected)).logits
    return Verification(
        examples=len(found),
        same_top1=int(np.sum(found.argmax(axis=1) == expected.argmax(axis=1))),
        largest_difference=float(np.abs(found - expected).max() / np.abs(expected).max()),
    )


if __name__ == "__main__":
    print(json.dumps(vars(_compare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))))
