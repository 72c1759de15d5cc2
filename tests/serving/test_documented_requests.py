"""Requests of docs/serving.md, sent unchanged to a fake TensorFlow Serving that runs a real export.

The fake server implements https://www.tensorflow.org/tfx/serving/api_rest, and the gRPC service of the package
tensorflow-serving-api.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
TIMEOUT = 60  # seconds


def _block(language: str, word: str) -> str:
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if word in block]
    return found


@pytest.fixture(scope="module")
def model(tiny_export):
    return tf.saved_model.load(str(tiny_export))


@pytest.fixture
def signatures(model):
    return model.signatures  # the fixture `model` owns their variables


@pytest.fixture
def folder(tiny_images, tmp_path) -> Path:
    (tmp_path / "cat.jpg").write_bytes(tiny_images[0])
    return tmp_path


@pytest.fixture
def rest(signatures):
    """Yield the port of a REST server, which is stopped after the test."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/v1/models/photos/labels/stable:predict":
                images = [base64.b64decode(each["b64"]) for each in body["instances"]]
                answer = signatures["serving_default"](image_bytes=tf.constant(images))
                self._send({"predictions": [{name: _plain(value[0]) for name, value in answer.items()}]})
            elif self.path == "/v1/models/photos/versions/2:classify":
                examples = [_example(each).SerializeToString() for each in body["examples"]]
                answer = signatures[body["signature_name"]](inputs=tf.constant(examples))
                pairs = zip(_plain(answer["classes"][0]), _plain(answer["scores"][0]), strict=True)
                self._send({"results": [[list(pair) for pair in pairs]]})
            else:
                self.send_error(404)

        def do_GET(self):
            if self.path != "/v1/models/photos/metadata":
                self.send_error(404)
                return
            self._send({"metadata": {"signature_def": list(signatures)}})

        def _send(self, content):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode() + b"\n")

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join(TIMEOUT)
    server.server_close()


def _plain(value: tf.Tensor):
    array = value.numpy()
    return [text.decode() for text in array] if array.dtype == object else array.tolist()


def _example(features: dict) -> tf.train.Example:
    values = {name: base64.b64decode(value["b64"]) for name, value in features.items()}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_documented_rest_requests(rest, signatures, folder, tiny_images):
    lines = _block("sh", "curl").replace("127.0.0.1:8501", f"127.0.0.1:{rest}").replace("curl", "curl -sS --fail")
    done = subprocess.run(["bash", "-e", "-c", lines], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    predicted, classified, known = map(json.loads, done.stdout.splitlines())
    expected = signatures["serving_default"](image_bytes=tf.constant(tiny_images[:1]))
    (answer,) = predicted["predictions"]
    np.testing.assert_allclose(answer["logits"], expected["logits"][0], rtol=1e-5)
    assert answer["top_labels"] == _plain(expected["top_labels"][0])
    ((names, scores),) = (zip(*result, strict=True) for result in classified["results"])
    assert list(names) == [str(digit) for digit in range(10)]
    np.testing.assert_allclose(scores, expected["probabilities"][0], rtol=1e-5)
    assert "classify" in known["metadata"]["signature_def"]


@pytest.mark.slow
def test_documented_grpc_request(signatures, folder, tiny_images):
    grpc = pytest.importorskip("grpc", reason="requires tensorflow-serving-api")
    service = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
    predict = pytest.importorskip("tensorflow_serving.apis.predict_pb2")

    class Servicer(service.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802 (the service's name)
            assert (request.model_spec.name, request.model_spec.version_label) == ("photos", "stable")
            taken = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            answer = predict.PredictResponse()
            for name, value in signatures["serving_default"](**taken).items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return answer

    server = grpc.server(futures.ThreadPoolExecutor(1))
    service.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        program = (
            _block("python", "grpc").replace("127.0.0.1:8500", f"127.0.0.1:{port}").replace("timeout=5", "timeout=50")
        )
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=2 * TIMEOUT)
    finally:
        server.stop(None)
    assert done.returncode == 0, done.stderr
    expected = signatures["serving_default"](image_bytes=tf.constant(tiny_images[:1]))["top_labels"][0].numpy()
    assert done.stdout.strip() == str(expected[np.newaxis])
