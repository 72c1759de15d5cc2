"""One way to ask every kind of export: encoded pictures or pixels in, answers as arrays out."""

import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.core.machine import cores
from resnet_tf.data import preprocess
from resnet_tf.inputs.spec import Preprocess
from resnet_tf.serving.signatures import (
    BYTES_SIGNATURE,
    EXPLAIN_SIGNATURE,
    IMAGES_SIGNATURE,
    MOVED_BYTES_SIGNATURE,
    SIGNALS_SIGNATURE,
    array_taken,
)

# The file of each kind that is no SavedModel.
KERAS_FILE, LITERT_FILE, ONNX_FILE = "model.keras", "model.tflite", "model.onnx"

Answer = dict[str, np.ndarray]


class Runner(Protocol):
    """A loaded export. Both may be called by several threads at a time."""

    def answer(self, encoded: Sequence[bytes]) -> Answer:
        """`logits` and `probabilities`, float32 [B, C], for encoded pictures; see `signatures` for errors.

        A signal is encoded as NumPy's `.npy`; see `decode_signal`.
        """

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float32 [B, C] for float32 [B, H, W, 3], RGB in [0, 1], or signals [B, L, C]."""


def load_runner(export: Path, metadata: dict[str, Any]) -> Runner:
    """The export in a directory, by the target that its metadata name.

    Raises:
        UserError: if it cannot be loaded, or a package that it needs is not installed.
    """
    spec = Preprocess.from_dict(metadata["preprocess"])
    target = metadata["target"]
    if target in ("serving", "hub"):
        model = SavedModelRunner(export, spec)
        return ArraysRunner(model.logits, spec) if spec.is_of_signals else model
    load = {"litert": _load_litert, "keras": _load_keras, "onnx": _load_onnx}[target]
    return ArraysRunner(load(export, spec), spec)


class SavedModelRunner:
    """A SavedModel: it decodes pictures by itself."""

    def __init__(self, export: Path, spec: Preprocess):
        try:
            self._model = tf.saved_model.load(str(export))  # kept: it owns what its signatures use
        except (OSError, ValueError, KeyError, IndexError, tf.errors.OpError) as error:
            raise UserError(f"{str(export)!r} cannot be loaded: {error}") from error
        self._doors = self._model.signatures
        moved = MOVED_BYTES_SIGNATURE in self._doors
        self._by_bytes = self._doors[MOVED_BYTES_SIGNATURE if moved else BYTES_SIGNATURE]
        self._by_arrays = self._doors[SIGNALS_SIGNATURE if spec.is_of_signals else IMAGES_SIGNATURE]
        self._taken = array_taken(spec).name

    def answer(self, encoded: Sequence[bytes]) -> Answer:
        return _arrays(self._by_bytes(image_bytes=tf.constant(list(encoded), tf.string)))

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self._by_arrays(**{self._taken: tf.constant(images, tf.float32)})["logits"].numpy()

    def heatmaps(self, encoded: Sequence[bytes]) -> np.ndarray:
        """float32 [B, h, w], see `signatures`."""
        return self._doors[EXPLAIN_SIGNATURE](image_bytes=tf.constant(list(encoded), tf.string))["heatmaps"].numpy()


class ArraysRunner:
    """A model that takes pixels or samples: decoding is done here, for pictures by the graph of a SavedModel."""

    def __init__(self, logits: Callable[[np.ndarray], np.ndarray], spec: Preprocess):
        self._logits, self._spec = logits, spec
        strings = tf.TensorSpec([None], tf.string)
        self._crops = tf.function(lambda encoded: preprocess.crops(encoded, spec), input_signature=[strings])

    def answer(self, encoded: Sequence[bytes]) -> Answer:
        if self._spec.is_of_signals:
            arrays = np.stack([decode_signal(signal, self._spec) for signal in encoded])
        else:
            arrays = self._crops(tf.constant(list(encoded), tf.string)).numpy()
        logits = self.logits(arrays)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits).numpy()}

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self._logits(np.asarray(images, np.float32))


class SignalError(ValueError):
    """What is wrong with an encoded signal."""


def decode_signal(encoded: bytes, spec: Preprocess) -> np.ndarray:
    """A signal, [L] or [L, C], from the bytes of an `.npy` file: float32 [L, C].

    Raises:
        SignalError: saying what is wrong with it.
    """
    try:
        signal = np.lib.format.read_array(io.BytesIO(encoded), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise SignalError(f"it is no .npy file of numbers ({error})") from error
    signal = signal[:, np.newaxis] if signal.ndim == 1 else signal
    if signal.dtype.kind != "f" or signal.shape != spec.shape_before:
        raise SignalError(f"it is {signal.dtype} {list(signal.shape)}, not floating-point {list(spec.shape_before)}")
    if not np.isfinite(signal).all():
        raise SignalError("it holds numbers that are not finite")
    return signal.astype(np.float32)


def _load_litert(export: Path, spec: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError("LiteRT models need the package ai-edge-litert: pip install 'resnet_tf[litert]'") from error
    run = _loaded(export, lambda file: Interpreter(file, num_threads=cores()), LITERT_FILE).get_signature_runner()
    lock = threading.Lock()  # an interpreter has one set of buffers

    name = array_taken(spec).name

    def logits(images: np.ndarray) -> np.ndarray:
        with lock:
            return run(**{name: images})["logits"].copy()

    return logits


def _load_keras(export: Path, spec: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    import resnet_tf.model  # noqa: F401 (registers the layers)

    return keras_logits(_loaded(export, keras.saving.load_model, KERAS_FILE), spec)


def keras_logits(model: Any, spec: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    """What a Keras model answers to pictures, float32 [B, H, W, 3] RGB in [0, 1], or to signals, [B, L, C]."""
    network = tf.function(lambda images: model(preprocess.normalize(images, spec), training=False))
    return lambda images: network(tf.constant(images)).numpy()


def _load_onnx(export: Path, spec: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    try:
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise UserError("ONNX models need the package onnxruntime: pip install 'resnet_tf[onnx]'") from error
    session = _loaded(export, lambda file: InferenceSession(file, providers=["CPUExecutionProvider"]), ONNX_FILE)
    return lambda images: session.run(["logits"], {array_taken(spec).name: images})[0]


def _loaded(export: Path, load: Callable[[str], Any], file: str) -> Any:
    try:
        return load(str(export / file))
    except Exception as error:  # each of the packages has its own
        raise UserError(f"{str(export / file)!r} cannot be loaded: {error}") from error


def _arrays(answer: dict[str, tf.Tensor]) -> Answer:
    return {name: value.numpy() for name, value in answer.items()}
