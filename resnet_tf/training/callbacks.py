"""Callbacks that report progress: terminal, metrics.jsonl and TensorBoard; and the profiler."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.progress_line import format_seconds
from resnet_tf.core.streams import write_or_drop
from resnet_tf.training.run import MetricsLine

_MAX_IMAGES, _COLUMNS = 64, 8  # of the plot of the first batch


class ProgressLine(keras.callbacks.Callback):
    """One line per epoch on stderr; on a terminal, the line is updated during the epoch.

    Args:
        epochs: epochs of the run.
        steps_per_epoch: steps of an epoch.
        first_step: steps taken before.
        compile_seconds: returns the time that compilation took so far, which the rest of the run does not take again;
            None if it is unknown.
        stream: stderr by default.
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps_per_epoch: int,
        first_step: int,
        compile_seconds: Callable[[], float | None] = lambda: 0.0,
        stream: TextIO | None = None,
    ):
        super().__init__()
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._epoch = 0
        self._start: float | None = None
        self._started_at = first_step / steps_per_epoch
        self._compile_seconds = compile_seconds

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch, and the time of the first one."""
        self._epoch = epoch
        if self._start is None:
            self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Rewrite the line on a terminal."""
        if self._live and logs:
            done = (batch + 1) / self._steps_per_epoch
            text = f"{self._prefix()} {int(100 * done):3d}%  loss {logs['loss']:.4f}  {self._pace(logs, done)}"
            write_or_drop(self._stream, f"\r\x1b[K{text}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the line of the epoch."""
        logs = logs or {}
        text = f"{self._prefix()}  loss {logs['loss']:.4f}  top-1 {logs['top1']:.4f}  |  "
        if "val_loss" in logs:  # not every epoch has an evaluation
            quality = f"top-1 {logs['val_top1']:.4f}"
            if "val_mean_average_precision" in logs:  # of multi-label data
                quality = f"mAP {logs['val_mean_average_precision']:.4f}"
            text += f"val loss {logs['val_loss']:.4f}  {quality}  |  "
        text += self._pace(logs, 1.0)
        write_or_drop(self._stream, f"\r\x1b[K{text}\n" if self._live else f"{text}\n")

    def _pace(self, logs: dict[str, Any], done: float) -> str:
        """Return learning rate, speed and the time left for all epochs, at the fraction `done` of the current epoch.

        A run that was resumed in the evaluation at the end of an epoch has no steps to estimate the time from, nor has
        one after its first call, which compiles.
        """
        epochs = self._epoch + done
        taken = epochs - self._started_at
        pace = f"lr {logs['learning_rate']:.4g}  {logs['images_per_second']:,.0f} images/s"
        compilation = self._compile_seconds()
        if taken <= 0 or compilation is None or self._start is None:
            return pace
        left = max(time.monotonic() - self._start - compilation, 0.0) / taken * (self._epochs - epochs)
        return f"{pace}  {format_seconds(left)} left"

    def _prefix(self) -> str:
        return f"epoch {self._epoch + 1:{len(str(self._epochs))}d}/{self._epochs}"


class MetricsFile(keras.callbacks.Callback):
    """metrics.jsonl: one JSON object for each epoch, in a file that is replaced atomically.

    Lines of later steps, which a killed run leaves, are dropped, and so is that of a part of an epoch when the epoch
    ends in a run that `train.extend` continues.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the line of the epoch."""
        metrics = _metrics(logs)
        before = [line for line in self._read() if line["step"] < metrics["step"] and line["epoch"] <= epoch]
        self._write([*before, {"epoch": epoch + 1, **metrics}])

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add values to the line of the epoch that ended at a step; nothing without such a line."""
        lines = [line for line in self._read() if line["step"] <= step]
        if lines and lines[-1]["step"] == step:
            self._write([*lines[:-1], {**lines[-1], **values}])

    def _read(self) -> list[dict[str, Any]]:
        return files.read_json_lines(self._path, MetricsLine)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        with files.translate_write_errors(self._path):
            files.write_json_lines(self._path, lines)


class TensorBoard(keras.callbacks.Callback):
    """TensorBoard summaries: metrics by step, the configuration, the network as a graph, and plots.

    Args:
        directory: log directory of TensorBoard.
        config: configuration as text.
        inputs: returns plots of the first batch, uint8 [B, H, W, 1 or 3]; None for a run that continues.
    """

    def __init__(self, directory: Path, *, config: str, inputs: Callable[[], np.ndarray] | None = None):
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(directory))
        self._config, self._inputs = config, inputs

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Write configuration, network and first batch."""
        with self._writer.as_default(step=0):
            tf.summary.text("config", f"```\n{self._config}```")
            _write_graph(self.model)
            if self._inputs:
                tf.summary.image("inputs", _montage(self._inputs()[:_MAX_IMAGES])[np.newaxis])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the scalars of the epoch."""
        metrics = _metrics(logs)
        with self._writer.as_default(step=metrics.pop("step")):
            for name, value in metrics.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def show_evaluation(self, plot: np.ndarray, *, step: int) -> None:
        """Write the plot of the last evaluation, such as its confusion matrix, uint8 [H, W, 4]."""
        with self._writer.as_default(step=step):
            tf.summary.image("evaluation", plot[np.newaxis])
        self._writer.flush()


def _write_graph(model: keras.Model) -> None:
    """Write the layers for TensorBoard's graph plugin, which reads a Keras model as JSON."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "graph_keras_model"
    metadata.plugin_data.content = b"1"
    tf.summary.write("network", model.to_json(), metadata=metadata)


def _montage(images: np.ndarray) -> np.ndarray:
    """Arrange images [N, H, W, C] in rows of eight, [rows * H, 8 * W, C], padded with black."""
    rows = -(-len(images) // _COLUMNS)
    count, height, width, channels = images.shape
    padded = np.zeros((rows * _COLUMNS, height, width, channels), images.dtype)
    padded[:count] = images
    grid = padded.reshape(rows, _COLUMNS, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, _COLUMNS * width, channels)


class Profile:
    """TensorBoard's profiler for a range of steps. Call `close` at the end: a process has one profiler.

    Args:
        steps: range `first:last` of `runtime.profile`, without the last step; empty for no profile.
        directory: log directory of TensorBoard.
        is_chief: whether this worker writes the profile, as all other files.

    Raises:
        UserError: if `steps` is not a range.
    """

    def __init__(self, steps: str, directory: Path, *, is_chief: bool = True):
        self._directory, self._is_chief = str(directory), is_chief
        self._first, self._last, self._running = -1, -1, False
        if not steps:
            return
        first, _, last = steps.partition(":")
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise UserError(f"runtime.profile={steps!r} is not a range of steps, such as 100:110")
        self._first, self._last = int(first), int(last)

    def shorten(self, step: int, count: int) -> int:
        """Return the steps of a call from `step` on, at most `count`, so that the range starts and ends with a call."""
        return min([count, *(bound - step for bound in (self._first, self._last) if bound > step)])

    def begin(self, step: int) -> None:
        """Start the profiler if the range starts at `step`; call it before the steps from `step` on.

        It runs already after a return to a checkpoint before the range.
        """
        if step == self._first and self._is_chief and not self._running:
            tf.profiler.experimental.start(self._directory)
            self._running = True

    def end(self, step: int) -> None:
        """Stop the profiler if the range ends at `step`; call it after the steps before `step`."""
        if step >= self._last:
            self.close()

    def close(self) -> None:
        """Stop the profiler, which writes its profile, if the run ends within the range."""
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False


def _metrics(logs: dict[str, Any] | None) -> dict[str, Any]:
    """Return the logs with `step` first, as an integer: Keras's CallbackList converts every number to float."""
    metrics = dict(logs or {})
    return {"step": int(metrics.pop("step")), **metrics}
