"""ONNX models, converted by tf2onnx."""

from pathlib import Path

import keras

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.freeze import freeze_from_arrays

_OPSET = 18


def write_onnx(model: keras.Model, preprocess: Preprocess, file: Path) -> None:
    """Write an ONNX model from unnormalized inputs to `logits`, float32 [B, C].

    The input is `images`, float32 [B, H, W, 3], RGB in [0, 1], or `signals`, float32 [B, L, C].

    Args:
        model: a network of `create_model`.
        preprocess: preprocessing, whose normalization the file includes.
        file: path of the file to write.

    Raises:
        UserError: if tf2onnx is not installed.
    """
    try:
        import tf2onnx
    except ImportError as error:
        raise UserError("target onnx needs the package tf2onnx: pip install 'resnet_tf[onnx]'") from error
    function = freeze_from_arrays(model, preprocess)
    tf2onnx.convert.from_function(function, function.input_signature, opset=_OPSET, output_path=str(file))
