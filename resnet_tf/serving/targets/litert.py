"""LiteRT (TensorFlow Lite) models for phones and small machines."""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from resnet_tf.inputs import Preprocess
from resnet_tf.serving.freeze import freeze_from_arrays


def write_litert(
    model: keras.Model, preprocess: Preprocess, file: Path, *, precision: str, pictures: Iterable[np.ndarray] = ()
) -> None:
    """Write a model with the signature `serving_default`: `images`, float32 [B, H, W, 3] RGB in [0, 1], to `logits`.

    Of a network of signals: `signals`, float32 [B, L, C], to `logits`.

    Args:
        model: of `create_model`.
        preprocess: how examples become its input; normalization is put in front.
        file: where to.
        precision: `float32`; `float16`, kept in half the space and computed in float32; `dynamic`: kernels in 8 bits,
            activations as they come; `int8`: all in 8 bits, float32 in and out (Jacob et al. 2017).
        pictures: for `int8`, what ranges of activations are taken from, each float32 [1, H, W, 3], or a signal.
    """
    logits = freeze_from_arrays(model, preprocess)
    # From variables, the 8-bit converter can write a model without them.
    holder = tf.Module()
    holder.logits = logits
    converter = tf.lite.TFLiteConverter.from_concrete_functions([logits.get_concrete_function()], holder)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([picture] for picture in pictures)
    file.write_bytes(converter.convert())
