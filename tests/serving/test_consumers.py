"""Exports in other runtimes: TensorFlow's C library and saved_model_cli, OpenVINO, TF Hub, ONNX Runtime, LiteRT."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LONG
from tensorflow.core.protobuf import saved_model_pb2

from resnet_tf.config import DataConfig
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.model.create import create_model
from resnet_tf.serving import runners
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.run import load_run

CLIENT = Path(__file__).with_name("client.c")
TIMEOUT = 120  # seconds


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(5, 8, 8, 3)).astype("float32")


@pytest.mark.slow
@pytest.mark.long
def test_a_c_program_computes_the_same_logits(tiny_export, tmp_path):
    """The program is linked with the C library of the TensorFlow wheel, and reads a JPEG file."""
    library = Path(tf.sysconfig.get_lib())
    names = [f"-l:{file.name}" for file in library.glob("libtensorflow_*.so*")]
    command = ["gcc", str(CLIENT), "-o", str(tmp_path / "client"), f"-I{tf.sysconfig.get_include()}", f"-L{library}"]
    subprocess.run([*command, *names, f"-Wl,-rpath,{library}"], check=True, timeout=TIMEOUT)
    image = tmp_path / "image.jpg"
    image.write_bytes(tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).numpy())
    saved = saved_model_pb2.SavedModel.FromString((tiny_export / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    source, _ = signature.inputs["image_bytes"].name.split(":")
    result, index = signature.outputs["logits"].name.split(":")
    child = subprocess.run(
        [tmp_path / "client", tiny_export, source, result, index, image],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    found = np.array(child.stdout.split(), np.float32)
    expected = Predictor(tiny_export).predict_batch([image.read_bytes()])["logits"][0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=LONG)])
def test_openvino_reads_the_default_signature(run, images, tmp_path, precision):
    openvino = pytest.importorskip("openvino")
    path = export_model(run, tmp_path, precision=precision, default_signature="images")
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"} if precision == "float32" else {}
    compiled = core.compile_model(core.read_model(path), "CPU", exact)
    (logits,) = (output for output in compiled.outputs if "logits" in output.get_names())
    found = compiled({"images": images})[logits]
    expected = Predictor(path).logits(images)
    np.testing.assert_allclose(found, expected, atol=1e-4 if precision == "float32" else 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "signature",
    [
        "serving_default",
        *(pytest.param(each, marks=LONG) for each in ("images", "features", "classify", "explain")),
    ],
)
def test_saved_model_cli_shows_and_runs_each_signature(tiny_export, tmp_path, signature):
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    shown = subprocess.run(
        [*tool, "show", "--dir", str(tiny_export), "--tag_set", "serve", "--signature_def", signature],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    method = "classify" if signature == "classify" else "predict"
    assert f"Method name is: tensorflow/serving/{method}" in shown.stdout


@pytest.mark.slow
@pytest.mark.long
def test_saved_model_cli_runs_pixels(tiny_export, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run", "--dir", str(tiny_export)]
    options = ["--tag_set", "serve", "--signature_def", "images", "--inputs", f"images={tmp_path / 'images.npy'}"]
    subprocess.run(
        [*tool, *options, "--outdir", str(tmp_path)], check=True, capture_output=True, text=True, timeout=TIMEOUT
    )
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), Predictor(tiny_export).logits(images), atol=1e-5)


FINE_TUNE = """
import sys
import numpy as np, tensorflow as tf, tensorflow_hub as hub, tf_keras

generator = np.random.default_rng(0)
labels = np.arange(64) % 2
bright = 0.6 * labels[:, None, None, None]
images = (generator.uniform(0, 0.4, (64, 8, 8, 3)) + bright).astype("float32")
layer = hub.KerasLayer(sys.argv[1], trainable=True)
assert len(layer.trainable_weights) == int(sys.argv[2]), len(layer.trainable_weights)
assert len(layer.losses) == int(sys.argv[3]), len(layer.losses)
statistics = [weight for weight in layer.weights if "moving" in weight.name or "mean" in weight.name]
before = [np.array(weight) for weight in layer.weights]
model = tf_keras.Sequential([layer, tf_keras.layers.Dense(2)])
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(tf_keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
history = model.fit(images, labels, epochs=8, batch_size=16, verbose=0).history
changed = [not np.array_equal(old, new) for old, new in zip(before, layer.weights)]
print(history["accuracy"][-1], sum(changed), len(changed))
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["hub", pytest.param("hub_features", marks=LONG)])
def test_tf_hub_fine_tunes_the_network_in_a_new_process(run, tmp_path, target):
    pytest.importorskip("tensorflow_hub")
    path = export_model(run, tmp_path / "models", target=target)
    model = run.model
    weights = [each for each in model.trainable_variables if target == "hub" or not each.path.startswith("logits")]
    kernels = [each for each in weights if each.path.endswith("kernel")]
    child = subprocess.run(
        [sys.executable, "-c", FINE_TUNE, str(path), str(len(weights)), str(len(kernels))],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    accuracy, changed, total = child.stdout.split()[-3:]
    assert float(accuracy) > 0.9
    assert int(changed) >= int(total) - 1, (
        "all weights and BatchNorm statistics change, except the state of a seed generator"
    )


@pytest.mark.slow
@pytest.mark.long
def test_a_hub_module_is_called_on_pixels_of_any_size(run, images, tmp_path):
    path = export_model(run, tmp_path, target="hub")
    module = tf.saved_model.load(str(path))
    np.testing.assert_allclose(module(images), Predictor(path).logits(images), atol=1e-5)
    assert module(tf.zeros([2, 24, 16, 3])).shape == (2, 10)
    features = tf.saved_model.load(str(export_model(run, tmp_path / "features", target="hub_features")))
    assert features(images, training=False).shape == (5, 128)
    for other in (path, export_model(run, tmp_path / "serving")):
        layer = keras.layers.TFSMLayer(str(other), call_endpoint="images")
        np.testing.assert_allclose(layer(images)["logits"], module(images), atol=1e-4)


def test_onnxruntime_computes_the_same_logits(run, images, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = export_model(run, tmp_path, target="onnx")
    np.testing.assert_allclose(Predictor(path).logits(images), _expected(run, images), atol=1e-4)


def test_onnxruntime_computes_with_the_cores_of_the_process(tmp_path, monkeypatch):
    """By default, it has a thread for each core of the machine."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    inputs, outputs = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("images", [None, 2, 2, 3]), ("logits", [None, 12]))
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Flatten", ["images"], ["logits"])], "", [inputs], [outputs])
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "model.onnx")
    threads = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            threads.append(self.get_session_options().intra_op_num_threads)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(runners, "cores", lambda: 3)
    runner = runners.load_runner(tmp_path, "onnx", ImagePreprocess(size=(2, 2)), classes=12)
    images = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
    np.testing.assert_array_equal(runner.logits(images), images.reshape(2, 12))
    assert threads == [3]


@pytest.mark.parametrize(
    "precision",
    [
        "float32",
        *(pytest.param(each, marks=LONG) for each in ("float16", "dynamic", "int8")),
    ],
)
def test_the_litert_interpreter_computes_the_same_logits(run, tiny_images, images, tmp_path, precision):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    path = export_model(run, tmp_path, target="litert", precision=precision)
    runner = interpreter.Interpreter(str(path / "model.tflite")).get_signature_runner("serving_default")
    tolerance = {"float32": 1e-4, "float16": 1e-2}.get(precision, 0.3)
    np.testing.assert_allclose(runner(images=images)["logits"], _expected(run, images), atol=tolerance)
    predictor = Predictor(path)
    assert predictor.metadata["drift"]["examples"] == 100
    assert len(predictor(tiny_images)) == len(tiny_images)


@pytest.mark.slow
def test_a_process_that_has_used_openvino_handles_signals(run, tmp_path):
    """A core of OpenVINO restores the signal stack that it found, which is freed if another core set it."""
    pytest.importorskip("openvino")
    path = export_model(run, tmp_path, target="openvino")
    program = f"""
import gc, signal
import numpy as np
from resnet_tf import Predictor
first, second = Predictor({str(path)!r}), Predictor({str(path)!r})
for predictor in (first, second):
    predictor.logits(np.zeros((1, *predictor.preprocess.unnormalized_shape), np.float32))
del predictor, first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda number, frame: print("received"))
signal.raise_signal(signal.SIGTERM)
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT)
    assert (child.returncode, child.stdout) == (0, "received\n"), child.stderr


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", *(pytest.param(each, marks=LONG) for each in ("bfloat16", "int8"))])
def test_openvino_computes_the_same_logits(run, tiny_images, images, tmp_path, capsys, precision):
    openvino = pytest.importorskip("openvino")
    if precision == "int8":
        pytest.importorskip("nncf")
    path = export_model(run, tmp_path, target="openvino", precision=precision)
    assert not capsys.readouterr().out
    hints = {"float32": "f32", "bfloat16": "bf16"}
    settings = {"INFERENCE_PRECISION_HINT": hints[precision]} if precision in hints else {}
    compiled = openvino.compile_model(path / "model.xml", "CPU", settings)
    found, tolerance = compiled({"images": images})["logits"], 1e-4 if precision == "float32" else 0.3
    np.testing.assert_allclose(found, _expected(run, images), atol=tolerance)
    predictor = Predictor(path)
    np.testing.assert_allclose(predictor.logits(images), found, atol=1e-4)
    assert predictor.metadata["drift"]["examples"] == 100
    assert len(predictor(tiny_images)) == len(tiny_images)
    layers = (path / "model.xml").read_text().count('type="FakeQuantize"')
    assert (layers > 0) == (precision == "int8")


RUNTIMES = {"onnx": "tf2onnx", "litert": "ai_edge_litert", "openvino": "openvino"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precision"),
    [
        *(("serving", "float32"), ("serving", "bfloat16"), ("onnx", "float32"), ("litert", "float32")),
        *(("litert", "float16"), ("litert", "int8"), ("openvino", "float32")),
        pytest.param("openvino", "int8", marks=LONG),
    ],
)
def test_padding_with_the_edges_is_exported(tmp_path, target, precision):
    """A network whose activation has negative values: int8 has no -inf, nor values far from those of the images."""
    pytest.importorskip("nncf" if (target, precision) == ("openvino", "int8") else RUNTIMES.get(target, "tensorflow"))
    generator = np.random.default_rng(0)
    knobs = {"depths": (1, 1), "widths": (16, 16), "strides": (1, 2), "activation": "silu"}
    model = create_model("resnet18", num_classes=5, input_shape=(32, 32, 3), **knobs)
    model.get_layer("stem_conv_bn").beta.assign(np.full(64, -1.0))
    images = generator.integers(0, 256, (50, 32, 32, 3), np.uint8)
    labels = np.arange(50) % 5
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    preprocess = ImagePreprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    data = DataConfig(source=str(tmp_path / "data.npz"), image_size=32, channels=3)
    path = export_model(
        model,
        tmp_path / "models",
        target=target,
        precision=precision,
        preprocess=preprocess,
        labels=[*"abcde"],
        data=data if precision == "int8" else None,
    )
    floats = images[:5].astype("float32") / 255
    expected = model(preprocess.normalize(floats), training=False).numpy()
    tolerance = {"float32": 1e-5, "float16": 1e-2}.get(precision, 0.15)
    np.testing.assert_allclose(Predictor(path).logits(floats), expected, atol=tolerance * np.abs(expected).max())


def _expected(run, images) -> np.ndarray:
    return run.model(run.preprocess.normalize(images), training=False).numpy()
