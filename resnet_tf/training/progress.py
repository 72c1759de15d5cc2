"""What a run tells while it goes: a line on the terminal, metrics.jsonl and TensorBoard, each a Keras callback."""

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import keras
import tensorflow as tf


class ProgressLine(keras.callbacks.Callback):
    """One line an epoch on stderr; on a terminal it moves while the epoch runs."""

    def __init__(self, *, epochs: int, steps_per_epoch: int, stream: TextIO | None = None):
        super().__init__()
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._epoch = 0
        self._start = time.monotonic()
        self._first_epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        if self._first_epoch is None:
            self._first_epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._live and logs:
            share = int(100 * (batch + 1) / self._steps_per_epoch)
            text = f"{self._prefix()} {share:3d}%  loss {logs['loss']:.4f}  {logs['images_per_second']:,.0f} images/s"
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        done = epoch + 1 - (self._first_epoch or 0)
        left = (time.monotonic() - self._start) / done * (self._epochs - epoch - 1)
        text = (
            f"{self._prefix()}  loss {logs['loss']:.4f}  top-1 {logs['top1']:.4f}  |  "
            f"test loss {logs['test_loss']:.4f}  top-1 {logs['test_top1']:.4f}  |  "
            f"lr {logs['learning_rate']:.4g}  {logs['images_per_second']:,.0f} images/s  {_clock(left)} left"
        )
        self._stream.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
        self._stream.flush()

    def _prefix(self) -> str:
        return f"epoch {self._epoch + 1:{len(str(self._epochs))}d}/{self._epochs}"


class MetricsFile(keras.callbacks.Callback):
    """metrics.jsonl: one JSON object an epoch. Lines after the step that a run continues from are dropped."""

    def __init__(self, path: Path, *, start_step: int):
        super().__init__()
        self._path = path
        kept = [line for line in read_metrics(path) if line["step"] <= start_step]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"epoch": epoch + 1, **_figures(logs)}) + "\n")


class TensorBoardScalars(keras.callbacks.Callback):
    """The same figures as TensorBoard scalars, by step."""

    def __init__(self, directory: Path):
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(directory))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = _figures(logs)
        with self._writer.as_default(step=figures.pop("step")):
            for name, value in figures.items():
                tf.summary.scalar(name, value)
        self._writer.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none where there is no file. A last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _figures(logs: dict[str, Any] | None) -> dict[str, Any]:
    """The step first and whole again: Keras's CallbackList makes every number a float."""
    figures = dict(logs or {})
    return {"step": int(figures.pop("step")), **figures}


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
