"""ONNX models, written by tf2onnx."""

from pathlib import Path

import keras
import tensorflow as tf

from resnet_tf.data import preprocess
from resnet_tf.errors import UserError
from resnet_tf.serving.fold import fold
from resnet_tf.serving.freeze import freeze
from resnet_tf.spec import Preprocess

_OPSET = 18


def write_onnx(model: keras.Model, spec: Preprocess, file: Path) -> None:
    """Write a model from `images`, float32 [B, H, W, 3] RGB in [0, 1], to `logits`, float32 [B, C].

    Raises:
        UserError: if tf2onnx is not installed.
    """
    try:
        import tf2onnx
    except ImportError as error:
        raise UserError("target onnx needs the package tf2onnx: pip install 'resnet_tf[onnx]'") from error
    network = freeze(fold(model))
    images = tf.TensorSpec([None, *spec.size, 3], tf.float32, name="images")
    function = tf.function(lambda images: {"logits": network(preprocess.normalize(images, spec))[0]}, [images])
    tf2onnx.convert.from_function(function, [images], opset=_OPSET, output_path=str(file))
