"""LiteRT (TensorFlow Lite) models for mobile and embedded devices."""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.targets import SINGLE_LABEL, Targets
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.freeze import freeze_from_arrays


def write_litert(
    model: keras.Model,
    preprocess: Preprocess,
    file: Path,
    *,
    precision: str,
    targets: Targets = SINGLE_LABEL,
    calibration: Calibration = UNCALIBRATED,
    calibration_examples: Iterable[np.ndarray] = (),
) -> None:
    """Write a LiteRT model with the signature `serving_default`, from unnormalized inputs to named outputs.

    The input is `images`, float32 [B, H, W, 3], RGB in [0, 1], or `signals`, float32 [B, L, C]. The outputs are
    `logits`, `probabilities` and `energy`. An `int8` model has `logits` only: 8 bits are too few for probabilities.

    Args:
        model: a network of `create_model`.
        preprocess: preprocessing, whose normalization the file includes.
        file: path of the file to write.
        precision: `float32`; `float16`, weights in float16 and computation in float32; `dynamic`, weights in int8 and
            activations quantized at run time; `int8`, weights and activations in int8, inputs and outputs in float32
            (Jacob et al. 2017).
        targets: see `freeze_from_arrays`.
        calibration: see `freeze_from_arrays`.
        calibration_examples: for `int8`, inputs that determine the ranges of activations, each float32 [1, H, W, 3] or
            [1, L, C].
    """
    answers = freeze_from_arrays(
        model, preprocess, targets=targets, calibration=calibration, only_logits=precision == "int8"
    )
    # The weights are constants: from variables, the 8-bit converter can write a model without weights.
    holder = tf.Module()
    holder.answers = answers
    converter = tf.lite.TFLiteConverter.from_concrete_functions([answers.get_concrete_function()], holder)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([example] for example in calibration_examples)
    file.write_bytes(converter.convert())
