"""Warmup requests, which TensorFlow Serving runs when it loads a model, so that the first client does not wait.

https://www.tensorflow.org/tfx/serving/saved_model_warmup: PredictionLog records in `assets.extra`. The protocol buffers
are only in the package tensorflow-serving-api, which is not a dependency, so their fields are encoded here:
PredictionLog.predict_log = 6, PredictLog.request = 1, PredictRequest.model_spec = 1 and .inputs = 2 (a map entry has
its key in 1 and its value in 2), ModelSpec.name = 1 and .signature_name = 3.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from resnet_tf.core.export_metadata import EXTRA
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.signatures import signature_names

WARMUP = EXTRA / "tf_serving_warmup_requests"
_BATCH_SIZES = (1, 8)


def write_warmup(export: Path, preprocess: Preprocess, *, default: str) -> None:
    """Write requests with random inputs, for each signature that returns logits and each batch size.

    Args:
        export: directory of the SavedModel.
        preprocess: preprocessing of an example.
        default: see `build_signatures`.
    """
    generator = np.random.default_rng(0)
    (export / WARMUP).parent.mkdir(parents=True, exist_ok=True)
    signatures = signature_names(preprocess, default)
    with tf.io.TFRecordWriter(str(export / WARMUP)) as writer:
        for batch_size in _BATCH_SIZES:
            requests = preprocess.random_requests(batch_size, generator)
            for serving_input in preprocess.serving_inputs():
                name = serving_input.name
                values = tf.make_tensor_proto(requests[name], serving_input.dtype)
                for signature in signatures[name]:
                    writer.write(_request(signature, name, values))


def _request(signature: str, name: str, value: tensor_pb2.TensorProto) -> bytes:
    """Return a serialized PredictionLog with one Predict request."""
    entry = _field(1, name.encode()) + _field(2, value.SerializeToString())
    model = _field(1, b"resnet_tf") + _field(3, signature.encode())
    return _field(6, _field(1, _field(1, model) + _field(2, entry)))


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field in the wire format of protocol buffers."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return an integer as a variable-length integer, 7 bits per byte, least significant first."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
