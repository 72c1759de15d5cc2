"""Proof of a run: it is trained again in a new process, and compared bit by bit.

`prove` starts the new process, which runs this module as a program.
"""

import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from resnet_tf.config import CONFIG_FILE, Config, load_config
from resnet_tf.core import processes
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import user_path
from resnet_tf.core.ranges import check_integer
from resnet_tf.core.signals import clean_up_on_sigterm
from resnet_tf.core.text import counted
from resnet_tf.data.sources import Source
from resnet_tf.data.sources.base import find_difference
from resnet_tf.inputs import find_origin, import_origin, input_type
from resnet_tf.report.plots import plot_evaluation
from resnet_tf.training import checkpoint, loop, proof
from resnet_tf.training.run import CHECKPOINTS, check_links, read_metrics
from resnet_tf.workflows.train import start_run

# Values of metrics.jsonl that differ between runs: timings, and `stopped_early`, as the second run ends at a step.
_IGNORED = {"images_per_second", "train_seconds", "val_seconds", "stopped_early"}
_MAX_STEP = 2**53
# Neither a tracker nor a test split changes a weight. What `train.minutes` chose is in the file; the steps end the run.
# Longer calls would pass over the step of a checkpoint that a signal or `train.minutes` caused within an epoch.
_CHANGES = ("runtime.tracker=", "data.test_split=", "train.minutes=0", "runtime.steps_per_loop=1")


@dataclass(frozen=True)
class ProveResult:
    """Outcome of `prove`; true in a condition if nothing differs.

    Attributes:
        workdir: the run directory.
        step: training step up to which both trainings were compared.
        compared: steps at which all variables were compared.
        metrics: number of epochs whose metrics were compared.
        difference: the first difference of the results; empty if there is none.
        causes: what may explain a difference: other versions, hardware or settings than those of the run.
    """

    workdir: str
    step: int
    compared: tuple[int, ...]
    metrics: int
    difference: str
    causes: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.difference

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `same`, ready for JSON."""
        return {"same": bool(self)} | asdict(self)

    def __str__(self) -> str:
        causes = "".join(f"\n  {cause}" for cause in self.causes)
        if self.difference:
            return f"different: {self.difference}" + (f"; what differs from the run:{causes}" if causes else "")
        variables = f"all variables after {counted(len(self.compared), 'checkpoint')}"
        metrics = f"the metrics of {counted(self.metrics, 'epoch')}"
        text = f"the same, bit by bit, up to step {self.step}: {variables} and {metrics}"
        return text + (f", although there are differences:{causes}" if causes else "")


def prove(workdir: str | Path, *, steps: int = 0) -> ProveResult:
    """Train a run again in a new process, and compare variables and metrics bit by bit.

    The settings are those of its `config.json`.

    Args:
        workdir: the run directory; nothing in it is changed.
        steps: train up to the first checkpoint at or after this step; 0 trains the whole run.

    Raises:
        UserError: if there is no run, it was trained by a version that stored no hashes, its data are others now, or it
            cannot be trained again.
        Interrupted: after SIGTERM, which also ends the new process.
    """
    check_integer("steps", steps, minimum=0, maximum=_MAX_STEP)
    workdir = user_path(workdir)
    if not (workdir / CONFIG_FILE).is_file():
        raise UserError(f"{str(workdir)!r} is not a run directory: it has no {CONFIG_FILE}")
    check_links(workdir)
    config, hashes = load_config(workdir / CONFIG_FILE), proof.read_hashes(workdir)
    if not hashes:
        raise UserError(
            f"{str(workdir)!r} has no {proof.HASHES}: an earlier version trained it, or it has no checkpoint"
        )
    end = next((line["step"] for line in hashes if 0 < steps <= line["step"]), hashes[-1]["step"])
    stopped = "stopped, and the run is unchanged; the same command starts again"
    with clean_up_on_sigterm(stopped), tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch) / "run"
        _train(workdir, again, end, find_origin(input_type(config.data)))
        return _compare(workdir, again, end, tuple(_describe_causes(config, proof.read_environment(workdir))))


def _train(workdir: Path, again: Path, end: int, origin: str) -> None:
    """Train in a new process, as the results of a process can depend on what it computed before."""
    command = [sys.executable, "-m", "resnet_tf.workflows.prove", str(workdir), str(again), str(end), origin]
    child = subprocess.run(
        command,
        env=processes.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if child.returncode:
        lines = child.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"the run cannot be trained again: {lines[-1].removeprefix('error: ')}")


def _compare(workdir: Path, again: Path, end: int, causes: tuple[str, ...]) -> ProveResult:
    before, after = ({line["step"]: line["sha256"] for line in proof.read_hashes(each)} for each in (workdir, again))
    steps = tuple(step for step in sorted(before.keys() & after.keys()) if step <= end)
    earlier, now = (_untimed(each, end) for each in (workdir, again))
    epochs = sorted(earlier.keys() & now.keys())  # a corrupt line may have been removed
    difference = ""
    if wrong := next((step for step in steps if before[step] != after[step]), None):
        difference = f"the variables at step {wrong}"
    for epoch in epochs:
        one, other = earlier[epoch], now[epoch]
        # A run that ends after an epoch evaluates then, also where the other run did not.
        is_comparable = ("val_loss" in one) == ("val_loss" in other)
        names = one.keys() | other.keys() if is_comparable else one.keys() & other.keys()
        if changed := [name for name in names if one.get(name) != other.get(name)]:
            values = (f"{each.get(min(changed))}" for each in (one, other))
            found = f"{min(changed)} of epoch {epoch} was {' and is '.join(values)}"
            difference = difference or found
    if not steps:
        difference = difference or "no checkpoint is at a step of the run"
    elif max(after) < end:
        difference = difference or f"training ends at step {max(after)} now, before step {end}"
    return ProveResult(str(workdir), max(steps, default=end), steps, len(epochs), difference, causes)


def _untimed(workdir: Path, end: int) -> dict[int, dict[str, str]]:
    """Return the metrics of each epoch up to a step to compare; NaN, which differs from itself, as text."""
    return {
        line["epoch"]: {name: str(value) for name, value in line.items() if name not in _IGNORED}
        for line in read_metrics(workdir)
        if line["step"] <= end
    }


def _describe_causes(config: Config, starts: list[proof.Start]) -> list[str]:
    """Describe what may change the bits of a result, as far as it is known."""
    found, now = [], proof.describe_environment()
    if not config.runtime.deterministic:
        found.append("runtime.deterministic=false: operations of the run may have added numbers in any order")
    if len(starts) > 1:
        found.append(f"the run was started {len(starts)} times")
    for start in starts:
        then = start["environment"]
        for name in sorted(then.keys() | now.keys()):
            if then.get(name) != now.get(name):
                values = f"{then.get(name, 'not set')!r} then, {now.get(name, 'not set')!r} now"
                found.append(f"{name}: {values}")
    return list(dict.fromkeys(found))


class _StopAt(keras.callbacks.Callback):
    """Ends the training after a step."""

    def __init__(self, step: int):
        super().__init__()
        self._step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if int(self.model.optimizer.iterations) >= self._step:
            self.model.stop_training = True


def _check_data(workdir: Path, source: Source) -> None:
    """Refuse other data than those of the newest checkpoint of a run, as when the run continues.

    Raises:
        UserError: naming the first difference.
    """
    directory = workdir / CHECKPOINTS
    if not (steps := checkpoint.steps(directory)):  # the user deleted them, and only hashes are left
        return
    before = checkpoint.read_metadata(checkpoint.path_of(directory, steps[-1]))["data"]
    before["splits"].pop(load_config(workdir / CONFIG_FILE).data.test_split, None)
    if difference := find_difference(before, source.identity):
        raise UserError(f"{source.name!r} holds other data than those of the run: {difference}")


def main(arguments: list[str]) -> None:
    """Train a run again in a new directory, up to a step."""
    workdir, again = map(Path, arguments[:2])
    started = start_run(load_config(workdir / CONFIG_FILE, _CHANGES), again)
    _check_data(workdir, started.source)
    again.mkdir()
    loop.fit(started, again, callbacks=[_StopAt(int(arguments[2]))], plot_evaluation=plot_evaluation)


if __name__ == "__main__":
    import_origin(sys.argv.pop())
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
