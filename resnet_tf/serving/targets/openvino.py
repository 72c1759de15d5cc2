"""OpenVINO models, for Intel processors."""

import contextlib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.freeze import freeze_from_arrays
from resnet_tf.serving.runners import OPENVINO_PRECISION


def write_openvino(
    model: keras.Model,
    preprocess: Preprocess,
    file: Path,
    *,
    precision: str,
    calibration_examples: Iterable[np.ndarray] = (),
) -> None:
    """Write an OpenVINO model from unnormalized inputs to `logits`, float32 [B, C]: `file` and a `.bin` beside it.

    The input is `images`, float32 [B, H, W, 3], RGB in [0, 1], or `signals`, float32 [B, L, C].

    Args:
        model: a network of `create_model`.
        preprocess: preprocessing, whose normalization the file includes.
        file: path of the `.xml` file to write.
        precision: `float32`; `bfloat16`, weights in float32 and computation in bfloat16; `int8`, weights and
            activations in int8 by the post-training quantization of NNCF, inputs and outputs in float32.
        calibration_examples: for `int8`, inputs that determine the ranges of activations, each float32 [1, H, W, 3] or
            [1, L, C].

    Raises:
        UserError: if nncf is not installed for `int8`.
    """
    import openvino

    logits = freeze_from_arrays(model, preprocess, only_logits=True)
    converted = openvino.convert_model(logits.get_concrete_function())
    for port, name in ((converted.input(), preprocess.unnormalized_input.name), (converted.output(), "logits")):
        port.get_tensor().set_names({name})
    if precision == "int8":
        converted = _quantize(converted, list(calibration_examples))
    converted.set_rt_info(precision, OPENVINO_PRECISION)
    openvino.save_model(converted, file, compress_to_fp16=False)


def _quantize(model: Any, examples: list[np.ndarray]) -> Any:
    """Return the model in 8 bits, calibrated on all examples.

    The preset `mixed` quantizes activations asymmetrically, and the slower bias correction measures the error of each
    layer in the quantized network instead of the original one: ResNet-20 and ResNet-32 lose at most 0.13 points of
    accuracy on CIFAR-10, up to 0.91 with the defaults of NNCF, at the same speed.
    """
    try:
        import nncf
    except ImportError as error:
        raise UserError("precision int8 needs the package nncf: pip install 'resnet_tf[openvino]'") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):  # its progress; stdout is for the result of a command
        return nncf.quantize(
            model,
            nncf.Dataset(examples),
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=False,
            subset_size=len(examples),
        )
