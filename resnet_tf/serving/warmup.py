"""Requests that TensorFlow Serving answers before it takes any, so that the first one is not slow.

https://www.tensorflow.org/tfx/serving/saved_model_warmup: records of PredictionLog in `assets.extra`. Its protocol
buffers are in no package that is needed otherwise, so the few fields are written as they lie in the wire format:
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
_BATCHES = (1, 8)


def write_warmup(export: Path, preprocess: Preprocess, *, default: str) -> None:
    """Write requests with noise, for each form in which the export takes its input."""
    generator = np.random.default_rng(0)
    (export / WARMUP).parent.mkdir(parents=True, exist_ok=True)
    signatures = signature_names(preprocess, default)
    with tf.io.TFRecordWriter(str(export / WARMUP)) as writer:
        for batch in _BATCHES:
            requests = preprocess.random_requests(batch, generator)
            for taken in preprocess.serving_inputs():
                name = taken.name
                values = tf.make_tensor_proto(requests[name], taken.dtype)
                writer.write(_request(signatures[name][-1], name, values))


def _request(signature: str, name: str, value: tensor_pb2.TensorProto) -> bytes:
    """One PredictionLog."""
    entry = _field(1, name.encode()) + _field(2, value.SerializeToString())
    model = _field(1, b"resnet_tf") + _field(3, signature.encode())
    return _field(6, _field(1, _field(1, model) + _field(2, entry)))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
