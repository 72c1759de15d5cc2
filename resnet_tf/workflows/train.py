"""Training runs: train, evaluate, report, export and verify."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from resnet_tf.config import Config
from resnet_tf.report.plots import plot_confusion
from resnet_tf.report.waveform import draw_signal
from resnet_tf.training import loop


def train_and_evaluate(
    config: Config, workdir: str | Path, *, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> dict[str, Any]:
    """Train what `config` describes; evaluate and save after every epoch (or every few: `train.eval_every`).

    Started again with the same `workdir` and configuration, it continues from the newest checkpoint. SIGTERM and SIGINT
    end it after one more checkpoint.

    Args:
        config: see `load_config`.
        workdir: the run directory, created if necessary.
        callbacks: further Keras callbacks, such as `keras.callbacks.EarlyStopping()`. Their logs hold `step`, `loss`,
            `top1`, `gradient_norm`, `learning_rate`, `images_per_second` and `train_seconds` of the epoch; `val_loss`,
            `val_top1`, `val_top5` and further metrics of the validation split; and `val_seconds`, the duration of the
            evaluation. With `train.ema`, `val_*` belong to the averaged weights and `val_raw_*` to the raw weights,
            which `model` holds. `model.stop_training` ends the run, and `model.optimizer.learning_rate` can be
            assigned.

    Returns:
        `examples`, `top1`, `top5`, `loss` and further metrics of the validation split, and `step`.

    Raises:
        UserError: for a configuration, data set or directory that does not fit, or losses that are not finite.
        Interrupted: after a signal.
    """
    fitted = _fit(config, workdir, callbacks)
    return fitted.evaluation.to_dict() | {"step": fitted.step}


def _fit(config: Config, workdir: str | Path, callbacks: Sequence[keras.callbacks.Callback]) -> loop.Fitted:
    """Train with the plots that TensorBoard shows: `training` does not draw."""
    return loop.fit(config, workdir, callbacks=callbacks, draw_signal=draw_signal, draw_confusion=plot_confusion)
