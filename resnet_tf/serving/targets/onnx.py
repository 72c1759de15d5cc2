"""ONNX models, converted by tf2onnx."""

from pathlib import Path

import keras

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.targets import SINGLE_LABEL, Targets
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.freeze import freeze_from_arrays

_OPSET = 18
_OUTPUTS = ("logits", "probabilities", "energy")  # logits first, for clients that read one output


def write_onnx(
    model: keras.Model,
    preprocess: Preprocess,
    file: Path,
    *,
    targets: Targets = SINGLE_LABEL,
    calibration: Calibration = UNCALIBRATED,
) -> None:
    """Write an ONNX model from unnormalized inputs to `logits`, `probabilities` and `energy`, in this order.

    The input is `images`, float32 [B, H, W, 3], RGB in [0, 1], or `signals`, float32 [B, L, C].

    Args:
        model: a network of `create_model`.
        preprocess: preprocessing, whose normalization the file includes.
        file: path of the file to write.
        targets: see `freeze_from_arrays`.
        calibration: see `freeze_from_arrays`.
    """
    import tf2onnx

    function = freeze_from_arrays(model, preprocess, targets=targets, calibration=calibration)
    converted, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_OPSET)
    outputs = {each.name: each for each in converted.graph.output}  # in alphabetical order
    del converted.graph.output[:]
    converted.graph.output.extend(outputs[name] for name in _OUTPUTS)
    file.write_bytes(converted.SerializeToString())
