"""Runners of exports: one interface to SavedModel, LiteRT, Keras, ONNX and OpenVINO files."""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.core.export_metadata import SAVED_MODELS
from resnet_tf.core.machine import cores
from resnet_tf.core.saved_models import check_signature, load_saved_model, load_signatures
from resnet_tf.core.targets import SINGLE_LABEL, Targets
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.signatures import DEFAULT_SIGNATURE, EXPLAIN_SIGNATURE, FEATURES_SIGNATURE

# File names of the targets that are not SavedModels.
KERAS_FILE, LITERT_FILE, ONNX_FILE, OPENVINO_FILE = "model.keras", "model.tflite", "model.onnx", "model.xml"
# Modules that the other targets need, the first of which runs the export; the extra of setup.py has the target's name.
MODULES = {
    "litert": ("ai_edge_litert.interpreter",),
    "onnx": ("onnxruntime", "tf2onnx"),
    "openvino": ("openvino",),
}
# Path of the precision in the run-time information of an OpenVINO model.
OPENVINO_PRECISION = ["resnet_tf", "precision"]
# Precision -> OpenVINO's property INFERENCE_PRECISION_HINT. Without one, OpenVINO computes float32 models in bfloat16
# where the processor has it, as it does for the layers of an 8-bit model that are not quantized.
OPENVINO_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_openvino_lock = threading.Lock()
# `logits` and `probabilities`, float32 [B, C], and `energy`, float32 [B].
Outputs = dict[str, np.ndarray]


def is_installed(target: str) -> bool:
    """Return True if the packages that write and run the exports of a target are installed."""
    return all(find_spec(module.partition(".")[0]) is not None for module in MODULES.get(target, ()))


class Runner(Protocol):
    """A loaded export; both methods are thread-safe."""

    def predict(self, encoded: Sequence[bytes]) -> Outputs:
        """Return `logits` and `probabilities`, float32 [B, C], and `energy`, float32 [B], for encoded examples.

        Raises:
            UnreadableError: for an example that cannot be read, if it is decoded outside of the export.
            tf.errors.InvalidArgumentError: for an example that cannot be read, if the graph of the export decodes it.
        """

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return logits, float32 [B, classes], for images [B, H, W, 3] in [0, 1] or signals [B, L, C], float32."""


def load_runner(
    export: Path,
    target: str,
    preprocess: Preprocess,
    *,
    classes: int | None = None,
    targets: Targets = SINGLE_LABEL,
    calibration: Calibration = UNCALIBRATED,
    standard_loader: bool = False,
) -> Runner:
    """Load the export in a directory.

    Args:
        export: directory of the version.
        target: see `export_model`.
        preprocess: preprocessing of an example.
        classes: number of logits; None for any.
        targets: form of the targets, which decides what the probabilities are.
        calibration: map from logits to probabilities, which the graph of a SavedModel contains.
        standard_loader: load a SavedModel with `tf.saved_model.load`, as other programs do.

    Raises:
        UserError: if the target is unknown, the export cannot be loaded, has other inputs or another number of logits,
            or if a package that it needs is not installed.
    """
    if target in SAVED_MODELS:
        model = (load_saved_model if standard_loader else load_signatures)(export)
        return SavedModelRunner(model, export, preprocess, classes=classes, targets=targets)
    loaders = {"litert": _load_litert, "keras": _load_keras, "onnx": _load_onnx, "openvino": _load_openvino}
    if target not in loaders:
        raise UserError(f"{str(export)!r} has target {target!r}, which this version of resnet_tf cannot load")
    return ArraysRunner(loaders[target](export, preprocess, classes), preprocess, targets, calibration)


class SavedModelRunner:
    """A SavedModel, called by its signatures.

    Args:
        model: what `load_signatures` returns.
        export: directory that it was loaded from, for messages.
        preprocess: preprocessing of an example.
        classes: number of logits; None for any.
        targets: form of the targets.

    Attributes:
        explains: whether it has the signature `explain`, which returns Grad-CAM heatmaps.
        has_features: whether it has the signature `features`.
    """

    def __init__(
        self,
        model: Any,
        export: Path,
        preprocess: Preprocess,
        *,
        classes: int | None = None,
        targets: Targets = SINGLE_LABEL,
    ):
        self._model = model  # owns the variables of the signatures
        self._targets = targets
        self._signatures, self._preprocess = self._model.signatures, preprocess
        first, *_ = preprocess.serving_inputs()
        self._encoded, self._unnormalized = first.name, preprocess.unnormalized_input.name
        explain = self._signatures.get(EXPLAIN_SIGNATURE)
        self.explains = explain is not None and "heatmaps" in (explain.structured_outputs or ())
        features = self._signatures.get(FEATURES_SIGNATURE)
        self.has_features = features is not None and "features" in (features.structured_outputs or ())
        for each in (first, preprocess.unnormalized_input):
            check_signature(
                self._model,
                self._signature_name(each.name),
                export,
                argument=each.tensor_type,
                outputs=("logits", "probabilities"),
                classes=classes,
            )

    def predict(self, encoded: Sequence[bytes]) -> Outputs:
        """Return the outputs for encoded examples, see `Runner`; the graph decodes images."""
        outputs = self._call(self._encoded, self._preprocess.to_request(encoded))
        if "energy" not in outputs:  # exports of earlier versions, which have no calibration
            outputs = {**outputs, "energy": self._targets.energy(outputs["logits"])}
        return {name: value.numpy() for name, value in outputs.items()}

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return logits for unnormalized inputs, see `Runner`."""
        return self._call(self._unnormalized, tf.constant(inputs, tf.float32))["logits"].numpy()

    def features(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Return the pooled features before the head, float32 [B, F], see `build_signatures`."""
        request = {self._encoded: self._preprocess.to_request(encoded)}
        return self._signatures[FEATURES_SIGNATURE](**request)["features"].numpy()

    def heatmaps(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Return Grad-CAM heatmaps, float32 [B, h, w] in [0, 1], see `build_signatures`."""
        request = {self._encoded: self._preprocess.to_request(encoded)}
        return self._signatures[EXPLAIN_SIGNATURE](**request)["heatmaps"].numpy()

    def _call(self, argument: str, values: tf.Tensor) -> dict[str, tf.Tensor]:
        """Call the signature with the name of the argument, or else `serving_default`."""
        return self._signatures[self._signature_name(argument)](**{argument: values})

    def _signature_name(self, argument: str) -> str:
        return argument if argument in self._signatures else DEFAULT_SIGNATURE


class ArraysRunner:
    """A model whose input is unnormalized arrays; `predict` decodes examples before it."""

    def __init__(
        self,
        logits: Callable[[np.ndarray], np.ndarray],
        preprocess: Preprocess,
        targets: Targets,
        calibration: Calibration,
    ):
        self._logits, self._preprocess, self._targets = logits, preprocess, targets
        self._calibration = calibration

    def predict(self, encoded: Sequence[bytes]) -> Outputs:
        """Return the outputs for encoded examples, see `Runner`."""
        logits = self.logits(self._preprocess.decode_batch(encoded))
        return {
            "logits": logits,
            "probabilities": self._targets.probabilities(logits, self._calibration).numpy(),
            "energy": self._targets.energy(logits, self._calibration).numpy(),
        }

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return logits for unnormalized inputs, see `Runner`."""
        return self._logits(np.asarray(inputs, np.float32))


def _load_litert(export: Path, preprocess: Preprocess, classes: int | None) -> Callable[[np.ndarray], np.ndarray]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError("LiteRT models need the package ai-edge-litert: pip install 'resnet_tf[litert]'") from error
    run = _load(export, lambda file: Interpreter(file, num_threads=cores()).get_signature_runner(), LITERT_FILE)
    lock = threading.Lock()  # an interpreter has a single set of buffers
    name = preprocess.unnormalized_input.name
    taken, given = (
        {key: each["shape_signature"].tolist() for key, each in details.items()}
        for details in (run.get_input_details(), run.get_output_details())
    )
    _check_shapes(export / LITERT_FILE, taken, {name: preprocess.unnormalized_shape})
    _check_shapes(export / LITERT_FILE, given, {"logits": (classes,)})

    def logits(inputs: np.ndarray) -> np.ndarray:
        with lock:
            return run(**{name: inputs})["logits"].copy()

    return logits


def _load_keras(export: Path, preprocess: Preprocess, classes: int | None) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    # In safe mode, Keras creates only objects of its own classes and of those that this process has registered.
    load = functools.partial(keras.saving.load_model, compile=False, safe_mode=True)
    model = _load(export, load, KERAS_FILE)
    _check_shapes(
        export / KERAS_FILE, {"input": getattr(model, "input_shape", None)}, {"input": preprocess.input_shape}
    )
    _check_shapes(export / KERAS_FILE, {"logits": getattr(model, "output_shape", None)}, {"logits": (classes,)})
    return keras_logits(model, preprocess)


def keras_logits(model: Any, preprocess: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from unnormalized inputs to the logits of a Keras model at inference.

    The inputs are images, float32 [B, H, W, 3], RGB in [0, 1], or signals, float32 [B, L, C].
    """
    network = tf.function(
        lambda inputs: model(preprocess.normalize(inputs), training=False),
        input_signature=[preprocess.unnormalized_input.tensor_type],  # one trace for batches of any size
        autograph=False,
    )
    return lambda inputs: network(tf.constant(inputs)).numpy()


def _load_onnx(export: Path, preprocess: Preprocess, classes: int | None) -> Callable[[np.ndarray], np.ndarray]:
    try:
        from onnxruntime import InferenceSession, SessionOptions
    except ImportError as error:
        raise UserError("ONNX models need the package onnxruntime: pip install 'resnet_tf[onnx]'") from error
    options = SessionOptions()
    options.intra_op_num_threads = cores()  # by default, as many as the machine has
    load = functools.partial(InferenceSession, sess_options=options, providers=["CPUExecutionProvider"])
    session = _load(export, load, ONNX_FILE)
    name = preprocess.unnormalized_input.name
    taken, given = (
        {each.name: each.shape for each in listed} for listed in (session.get_inputs(), session.get_outputs())
    )
    _check_shapes(export / ONNX_FILE, taken, {name: preprocess.unnormalized_shape})
    _check_shapes(export / ONNX_FILE, given, {"logits": (classes,)})
    return lambda inputs: session.run(["logits"], {name: inputs})[0]


@functools.cache
def _openvino_core() -> Any:
    """Return the only OpenVINO core of the process, which is never freed.

    A core replaces the alternate signal stack of its thread (sigaltstack) and restores the previous one when it is
    freed. Of two cores, the one freed last would restore the freed stack of the other, and the next signal would be a
    segmentation fault.
    """
    try:
        from openvino import Core
    except ImportError as error:
        raise UserError("OpenVINO models need the package openvino: pip install 'resnet_tf[openvino]'") from error
    return Core()


def _load_openvino(export: Path, preprocess: Preprocess, classes: int | None) -> Callable[[np.ndarray], np.ndarray]:
    with _openvino_lock:  # a cache computes twice for two threads that call it first
        core = _openvino_core()
    model = _load(export, core.read_model, OPENVINO_FILE)
    name = preprocess.unnormalized_input.name
    taken, given = (
        {
            label: [size.get_length() if size.is_static else None for size in port.partial_shape]
            for port in ports
            for label in port.names
        }
        for ports in (model.inputs, model.outputs)
    )
    _check_shapes(export / OPENVINO_FILE, taken, {name: preprocess.unnormalized_shape})
    _check_shapes(export / OPENVINO_FILE, given, {"logits": (classes,)})
    known = model.has_rt_info(OPENVINO_PRECISION)
    hint = OPENVINO_HINTS.get(model.get_rt_info(OPENVINO_PRECISION).astype(str)) if known else None
    settings = {"INFERENCE_PRECISION_HINT": hint} if hint else {}
    compiled = _load(export, lambda file: core.compile_model(model, "CPU", settings), OPENVINO_FILE)
    lock = threading.Lock()  # a compiled model has a single request for calls

    def logits(inputs: np.ndarray) -> np.ndarray:
        with lock:
            return compiled({name: inputs})["logits"]

    return logits


def _load(export: Path, load: Callable[[str], Any], file: str) -> Any:
    try:
        return load(str(export / file))
    except Exception as error:  # the packages have no common base class for errors
        raise UserError(f"{str(export / file)!r} cannot be loaded: {plain_reason(error)}") from error


def _check_shapes(file: Path, found: Mapping[str, Any], expected: Mapping[str, tuple[int | None, ...]]) -> None:
    """Check the shapes of tensors by name; sizes of other types than positive integers are variable.

    Args:
        file: file of the model, for messages.
        found: shapes of the model, with the batch.
        expected: shapes without the batch; None is any size.

    Raises:
        UserError: if a tensor is missing or has another shape.
    """
    for name, shape in expected.items():
        given = found.get(name)
        sizes = tuple(given[1:]) if isinstance(given, list | tuple) else None
        if sizes is None or len(sizes) != len(shape) or any(map(_differ, sizes, shape)):
            raise UserError(
                f"{str(file)!r} has {name} {given}, which does not fit [batch, {', '.join(map(str, shape))}]"
            )


def _differ(found: Any, expected: int | None) -> bool:
    return isinstance(found, int) and found > 0 and expected is not None and found != expected
