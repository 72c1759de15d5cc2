"""Robustness of a run to common corruptions, stored in its directory for reports and exports."""

from pathlib import Path

from resnet_tf.core import files
from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.robustness import Robustness

ROBUSTNESS = "robustness.json"


def write_robustness(workdir: Path, step: int, robustness: Robustness) -> None:
    """Store the robustness of the weights after a training step.

    Raises:
        UserError: if `robustness.json` of the run directory cannot be written.
    """
    text = files.to_json({"step": step, **robustness.to_dict()}, indent=2) + "\n"
    with files.translate_write_errors(workdir / ROBUSTNESS):
        files.write_atomically(workdir / ROBUSTNESS, text)


def read_robustness(workdir: Path, step: int) -> Robustness | None:
    """Return the stored robustness of the weights after a training step; None if none is stored for it.

    Raises:
        UserError: if `robustness.json` of the run directory is corrupt.
    """
    path = workdir / ROBUSTNESS
    if not path.is_file():
        return None
    stored = files.read_json(path)
    with prefix_errors(f"{str(path)!r} is invalid; delete it to measure again"):
        if not isinstance(stored.get("step"), int):
            raise UserError("it has no step")
        robustness = Robustness.from_dict(stored)
    return robustness if stored["step"] == step else None
