"""Run directory: its files, and loading of a trained run."""

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

from resnet_tf.config import CONFIG_FILE, Config, load_config
from resnet_tf.core import files
from resnet_tf.core.calibration import Calibration
from resnet_tf.core.errors import UserError, prefix_errors
from resnet_tf.core.paths import user_path
from resnet_tf.core.robustness import Robustness
from resnet_tf.core.serving_benchmark import ServingBenchmark
from resnet_tf.core.targets import check_thresholds
from resnet_tf.inputs import Preprocess, input_type
from resnet_tf.model.create import create_model
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.weights.values import check_model, hash_weights
from resnet_tf.training import checkpoint as checkpoints
from resnet_tf.training import runtime
from resnet_tf.training.measurements import read_measurement
from resnet_tf.training.progress import RunState

logger = logging.getLogger(__name__)

_Value = TypeVar("_Value")

CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
TEST_METRICS = "test_metrics.json"
TENSORBOARD = "tensorboard"
REPORT = "report"
EXPORTS = "export"  # with a directory for each target
_WANDB = "wandb"  # written by Weights & Biases, which links to the files that a program saves


class MetricsLine(TypedDict):
    """Line of `metrics.jsonl`: the metrics of an epoch that every reader needs; lines hold further numbers.

    Attributes:
        epoch: number of the epoch, from 1 on.
        step: training steps at its end.
        loss: mean training loss.
        top1: training accuracy.
        learning_rate: learning rate of its last step.
        images_per_second: examples per second of training.
        train_seconds: duration of training.
        val_loss: loss on the validation split, in epochs with an evaluation.
        val_top1: accuracy on the validation split, in epochs with an evaluation.
        stopped_early: True if the run ended after the epoch, before the last one.
    """

    epoch: int
    step: int
    loss: float
    top1: float
    learning_rate: float
    images_per_second: float
    train_seconds: float
    val_loss: NotRequired[float]
    val_top1: NotRequired[float]
    stopped_early: NotRequired[bool]


@dataclass(frozen=True, repr=False)
class Run:
    """A trained run.

    Attributes:
        workdir: run directory.
        config: configuration of the training.
        step: number of training steps of the weights.
        model: network in float32 with the weights of the checkpoint, or their average if there is one.
        metrics: `examples`, `top1`, `top5`, `loss` and further metrics of the validation split at this step; empty for
            a checkpoint within an epoch.
        stopped_epoch: epoch after which `train.patience`, `train.minutes` or a callback ended the run; 0 if none did.
        weights_sha256: SHA-256 of the weights.
        data_classes: class names of the training data in the order of the logits, as which `labels` are loaded.
    """

    workdir: Path
    config: Config
    step: int
    model: ResidualNetwork
    metrics: dict[str, Any]
    stopped_epoch: int = 0
    weights_sha256: str = ""
    data_classes: tuple[str, ...] = ()

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of the model, `model.preprocess`.

        Raises:
            UserError: if it was set to None.
        """
        return _known("preprocess", self.model.preprocess)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits, `model.labels`.

        Raises:
            UserError: if they were set to None.
        """
        return _known("labels", self.model.labels)

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Probability from which on each class is selected, of multi-label targets, `model.thresholds`; else None."""
        return self.model.thresholds

    @property
    def calibration(self) -> Calibration:
        """Map from logits to probabilities, `model.calibration`; as loaded, fitted on the validation split."""
        return self.model.calibration

    @property
    def identity(self) -> dict[str, Any]:
        """Training step and hash, by which stored metrics belong to these weights: a new run reaches the same steps."""
        return {"step": self.step, "weights_sha256": self.weights_sha256}

    @property
    def robustness(self) -> Robustness | None:
        """Robustness of these weights to common corruptions, as `evaluate` stored it; None if it was not measured.

        Raises:
            UserError: if `robustness.json` of the run directory is corrupt.
        """
        return read_measurement(self.workdir, self.identity, Robustness)

    @property
    def serving(self) -> ServingBenchmark | None:
        """Speed, memory and accuracy of the exports of these weights, as `benchmark` stored it; None if not measured.

        Raises:
            UserError: if `serving.json` of the run directory is corrupt.
        """
        return read_measurement(self.workdir, self.identity, ServingBenchmark)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the weights as plain values, ready for JSON."""
        return {
            "workdir": str(self.workdir),
            "step": self.step,
            "model": self.model.name,
            "parameters": self.model.count_params(),
            "preprocess": self.preprocess.to_dict(),
            "labels": list(self.labels),
            "metrics": dict(self.metrics),
            "stopped_epoch": self.stopped_epoch,
            **({} if self.thresholds is None else {"thresholds": list(self.thresholds)}),
            **self.calibration.to_entry(),
            "config": self.config.to_dict(),
        }

    def __repr__(self) -> str:
        top1 = f", top1={self.metrics['top1']:.4f}" if "top1" in self.metrics else ""
        return f"Run({str(self.workdir)!r}, model={self.model.name!r}, step={self.step}{top1})"


def _known(name: str, value: _Value | None) -> _Value:
    if value is None:
        raise UserError(f"{name} of the model of the run is None; set model.{name}")
    return value


def load_run(workdir: str | Path, *, checkpoint: str = "") -> Run:
    """Load a run from its directory.

    Args:
        workdir: the run directory.
        checkpoint: `latest`, or `best` for the best `train.metric` on the validation split; empty: `export.checkpoint`
            of the run.

    Raises:
        UserError: if there is no run, no checkpoint, or a corrupt one.
    """
    workdir = user_path(workdir)
    if not (workdir / CONFIG_FILE).is_file():
        raise UserError(f"{str(workdir)!r} is not a run directory: it has no {CONFIG_FILE}")
    check_links(workdir)
    config = load_config(workdir / CONFIG_FILE)
    finders: dict[str, Callable[[Path], Path | None]] = {
        "latest": checkpoints.latest,
        "best": functools.partial(checkpoints.best, metric=config.train.metric),
    }
    which = checkpoint or config.export.checkpoint
    if which not in finders:
        raise UserError(f"checkpoint must be one of {', '.join(finders)}, got {which!r}")
    chosen = finders[which](workdir / CHECKPOINTS)
    if chosen is None:
        raise UserError(f"run {str(workdir)!r} has no checkpoint yet; the first evaluation of its training writes one")
    try:
        return _load_checkpoint(workdir, config, chosen)
    except UserError:
        if chosen.exists():
            raise
        return load_run(workdir, checkpoint=checkpoint)  # the run goes on, and removed it in the meantime


def check_links(workdir: Path) -> None:
    """Refuse a run directory with a symbolic link out of it, through which files elsewhere would be read or written.

    The directory itself may be a link.

    Raises:
        UserError: naming the link.
    """
    root = os.path.realpath(workdir)
    for parent, folders, names in os.walk(workdir):
        for path in (Path(parent, name) for name in (*folders, *names)):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise UserError(
                    f"{str(path)!r} is a symbolic link out of the run directory, which is not followed; remove the "
                    "link, move the whole run and link to its directory, or copy the run with `cp -rL`"
                )
        if Path(parent) == workdir / _WANDB:
            folders.clear()


def _load_checkpoint(workdir: Path, config: Config, chosen: Path) -> Run:
    metadata = checkpoints.read_metadata(chosen)
    labels, stored = tuple(metadata["data"]["class_names"]), metadata.get("thresholds")
    with checkpoints.naming_metadata(chosen):
        preprocess = Preprocess.from_dict(metadata["preprocess"])
        thresholds = None if stored is None else check_thresholds(stored, len(labels))
        calibration = Calibration.from_dict(metadata.get("calibration"), len(labels))
    with runtime.precision_policy("float32"):
        model = create_network(config, num_classes=len(labels))  # its weights come from the checkpoint
    # `weights` instead of `variables`: an average has no state of dropout's random generators.
    weights = {each.path: each.value for each in model.weights}
    checkpoints.restore(chosen, {"average" if config.train.ema else "model": weights}, partly=True)
    with checkpoints.naming_metadata(chosen):
        _check_fits(preprocess, model)
    with prefix_errors(f"checkpoint {str(chosen)!r}"):
        check_model(model)
    model.preprocess, model.labels, model.thresholds = preprocess, labels, thresholds
    model.calibration = calibration
    return Run(
        workdir=workdir,
        config=config,
        step=metadata["step"],
        model=model,
        metrics=metadata["metrics"] or {},
        stopped_epoch=_stopped_epoch(chosen, metadata),
        weights_sha256=hash_weights(model),
        data_classes=labels,
    )


def _stopped_epoch(chosen: Path, metadata: checkpoints.CheckpointMetadata) -> int:
    """Return `Run.stopped_epoch`, which the newest checkpoint states; the chosen one may be an earlier one."""
    if chosen != (newest := checkpoints.latest(chosen.parent)):
        chosen, metadata = newest or chosen, checkpoints.read_metadata(newest or chosen)
    with checkpoints.naming_metadata(chosen):
        state = RunState.from_dict(metadata["run"])
    return state.epochs if state.ended else 0


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl` of a run directory; corrupt lines are named in the log and left out.

    Raises:
        UserError: if the file cannot be read.
    """
    lines, corrupt = files.split_json_lines(workdir / METRICS, MetricsLine)
    for each in corrupt:
        logger.warning("%s; it is left out", each)
    return lines


def repair_metrics(workdir: Path) -> None:
    """Remove corrupt lines from `metrics.jsonl`, and keep the file as it was as `metrics.jsonl.corrupt`.

    Raises:
        UserError: if the file cannot be read or written.
    """
    path = workdir / METRICS
    lines, corrupt = files.split_json_lines(path, MetricsLine)
    if not corrupt:
        return
    kept = path.with_name(f"{METRICS}.corrupt")
    logger.warning("%s; corrupt lines are removed, and the file is kept as %r", "; ".join(corrupt[:3]), str(kept))
    with files.translate_write_errors(path):
        files.write_atomically(kept, path.read_bytes())
        files.write_json_lines(path, lines)


def create_network(
    config: Config, *, num_classes: int, weights: str | None = None, fixed_size: bool = False
) -> ResidualNetwork:
    """Create the network of a configuration.

    If the image size changes during training, the network accepts any size; with `fixed_size`, that of evaluation only.
    """
    model = config.model
    *sizes, channels = input_type(config.data).shape_from_config(config.data)
    any_size = not fixed_size and (config.train.start_size or config.train.end_size)
    shape = (*((None,) * len(sizes) if any_size else sizes), channels)
    knobs: dict[str, Any] = {"stem": model.stem, "stochastic_depth": model.stochastic_depth, "dropout": model.dropout}
    return create_model(
        model.name,
        num_classes=num_classes,
        input_shape=shape,
        weights=weights,
        new_head=model.new_head and weights is not None,
        **({} if weights is None else {"adapt_channels": model.adapt_channels}),
        **{name: value for name, value in knobs.items() if value},
    )


def _check_fits(preprocess: Preprocess, model: ResidualNetwork) -> None:
    taken, given = model.input_shape[1:], preprocess.input_shape
    if len(taken) != len(given) or any(size not in (None, other) for size, other in zip(taken, given, strict=True)):
        raise UserError(f"its preprocessing gives {given}, but the network takes {taken}")
