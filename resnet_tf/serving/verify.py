"""Verification of an export: a new process loads it and compares its logits with those of the model.

The training process has a `Verifier`; the new process runs this module as a program. It loads a SavedModel as any other
program does, with `tf.saved_model.load`.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from resnet_tf.config import DataConfig, flatten, override
from resnet_tf.core.devices import cpu_environment
from resnet_tf.core.errors import UserError
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.text import counted
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import Preprocess, find_origin, import_origin
from resnet_tf.serving.predictor import Predictor

# Largest difference of a logit, relative to the largest logit, by the device of the model; the export computes on the
# CPU. Both compute in float32, but the export has folded BatchNorm, another graph optimization and another batch size,
# and the convolutions of a GPU sum in another order, or by Winograd's method.
TOLERANCES = {"CPU": 1e-4, "GPU": 1e-3}

_MAX_REASON = 300  # characters of the message of a process that failed
_PROGRAM = ("-m", "resnet_tf.serving.verify")


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


class Verifier:
    """New process on the CPU that compares the logits of an export with those of the model, as a context.

        with Verifier(type(run.preprocess)) as verifier:
            verifier.begin(export_model(run, directory), logits, batch_size=64, data=run.config.data)
            write_report()
            print(verifier.result())

    The process starts with the context, since most of its time goes into imports; nothing waits for it before `result`.

    Args:
        input_type: input type of the export, which the process registers.

    Raises:
        UserError: if no other process can import the input type.
    """

    def __init__(self, input_type: type[Preprocess]):
        self._origin = find_origin(input_type)

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory()
        command, pipe = [sys.executable, *_PROGRAM, self._origin], subprocess.PIPE
        environment = cpu_environment()  # this process holds the memory of GPUs and TPUs
        self._child = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        return self

    def __exit__(self, *error: object) -> None:
        with self._scratch, self._child:
            self._child.kill()  # has no effect after `result`

    def begin(
        self,
        export: Path,
        logits: np.ndarray,
        *,
        batch_size: int,
        data: DataConfig | None = None,
        device: str = "CPU",
    ) -> None:
        """Let the process load an export and compute its logits.

        Args:
            export: directory of the version.
            logits: logits of the model for the first N examples of its validation split, float32 [N, C].
            batch_size: examples per batch in the new process.
            data: settings of these data, which may have moved since the export; by default those of the export.
            device: type of the device that computed `logits`, a key of `TOLERANCES`.
        """
        self._export, self._device = export, device
        reference = Path(self._scratch.name) / "logits.npy"
        np.save(reference, logits)
        assert self._child.stdin
        with contextlib.suppress(BrokenPipeError):  # of a process that has failed; `result` reports it
            settings = flatten({"data": asdict(data)}) if data else {}
            self._child.stdin.write(json.dumps([str(export), str(reference), batch_size, settings]) + "\n")
            self._child.stdin.flush()

    def result(self) -> Verification:
        """Wait for the comparison and return it.

        Raises:
            UserError: if `Verification.largest_difference` exceeds the tolerance of the device, or the process fails.
        """
        with Progress("verifying the export in a new process"):
            output, errors = self._child.communicate()
        if self._child.returncode:
            reason = (errors.strip().splitlines() or [f"its process ended with exit code {self._child.returncode}"])[-1]
            raise UserError(f"verification of {str(self._export)!r} failed: {reason[-_MAX_REASON:]}")
        answer = json.loads(output.splitlines()[-1])
        if "error" in answer:
            raise UserError(f"verification of {str(self._export)!r} failed: {answer['error']}")
        result = Verification(**answer)
        if not result.largest_difference <= TOLERANCES[self._device]:
            raise UserError(f"the logits of {str(self._export)!r} differ from those of the model: {result}")
        return result


def _compare_requested() -> None:
    """Compare what a line of standard input names; nothing if the input ends first, as the starting process does."""
    if not (line := sys.stdin.readline()):
        return
    export, reference, batch_size, settings = json.loads(line)
    expected = np.load(reference)
    try:
        predictor = Predictor(export, standard_loader=True)
        split = open_source(override(predictor.config, settings).data, for_training=False).validation
        found = predictor.evaluate(split, batch_size=batch_size, count=len(expected)).logits
    except UserError as error:
        print(json.dumps({"error": str(error)}))
        return
    result = Verification(
        examples=len(found),
        same_top1=int(np.sum(found.argmax(axis=1) == expected.argmax(axis=1))),
        largest_difference=float(np.abs(found - expected).max() / np.abs(expected).max()),
    )
    print(json.dumps(vars(result)))


if __name__ == "__main__":
    for origin in sys.argv[1:]:
        import_origin(origin)
    _compare_requested()
