"""Run exports of every target: encoded examples or arrays in, arrays out."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import SAVED_MODELS
from resnet_tf.core.machine import cores
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.signatures import DEFAULT_SIGNATURE, EXPLAIN_SIGNATURE

# The file of each kind that is no SavedModel.
KERAS_FILE, LITERT_FILE, ONNX_FILE = "model.keras", "model.tflite", "model.onnx"
Answer = dict[str, np.ndarray]


class Runner(Protocol):
    """A loaded export. Both methods may be called by several threads at a time."""

    def answer(self, encoded: Sequence[bytes]) -> Answer:
        """Return `logits` and `probabilities`, float32 [B, C], for the contents of files.

        Raises:
            UnreadableError: or tf.errors.InvalidArgumentError, for one that cannot be read.
        """

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [B, C] for unnormalized examples, float32 [B, H, W, 3] in [0, 1] or signals [B, L, C]."""


def load_runner(export: Path, target: str, preprocess: Preprocess) -> Runner:
    """Load the export in a directory.

    Raises:
        UserError: if the target is unknown, the export cannot be loaded, or a package that it needs is not installed.
    """
    if target in SAVED_MODELS:
        return SavedModelRunner(export, preprocess)
    loaders = {"litert": _load_litert, "keras": _load_keras, "onnx": _load_onnx}
    if target not in loaders:
        raise UserError(f"{str(export)!r} is for target {target!r}, which this version of resnet_tf cannot load")
    return ArraysRunner(loaders[target](export, preprocess), preprocess)


class SavedModelRunner:
    """A SavedModel, asked by its signatures.

    Attributes:
        explains: it gives heatmaps.
    """

    def __init__(self, export: Path, preprocess: Preprocess):
        try:
            self._model = tf.saved_model.load(str(export))  # kept: it owns what its signatures use
        except (OSError, ValueError, KeyError, IndexError, tf.errors.OpError) as error:
            raise UserError(f"{str(export)!r} cannot be loaded: {error}") from error
        self._signatures, self._preprocess = self._model.signatures, preprocess
        first, *_ = preprocess.serving_inputs()
        self._encoded, self._unnormalized = first.name, preprocess.unnormalized_input.name
        self.explains = EXPLAIN_SIGNATURE in self._signatures

    def answer(self, encoded: Sequence[bytes]) -> Answer:
        answer = self._call(self._encoded, self._preprocess.to_request(encoded))
        return {name: value.numpy() for name, value in answer.items()}

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self._call(self._unnormalized, tf.constant(images, tf.float32))["logits"].numpy()

    def heatmaps(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Return float32 [B, h, w], see `signatures`."""
        request = {self._encoded: self._preprocess.to_request(encoded)}
        return self._signatures[EXPLAIN_SIGNATURE](**request)["heatmaps"].numpy()

    def _call(self, argument: str, values: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ask the signature that takes an argument: of its name, or `serving_default`."""
        name = argument if argument in self._signatures else DEFAULT_SIGNATURE
        return self._signatures[name](**{argument: values})


class ArraysRunner:
    """A model that takes unnormalized arrays: examples are decoded here, images by the graph of a SavedModel."""

    def __init__(self, logits: Callable[[np.ndarray], np.ndarray], preprocess: Preprocess):
        self._logits, self._preprocess = logits, preprocess

    def answer(self, encoded: Sequence[bytes]) -> Answer:
        logits = self.logits(self._preprocess.decode_batch(encoded))
        return {"logits": logits, "probabilities": tf.nn.softmax(logits).numpy()}

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self._logits(np.asarray(images, np.float32))


def _load_litert(export: Path, preprocess: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError("LiteRT models need the package ai-edge-litert: pip install 'resnet_tf[litert]'") from error
    run = _loaded(export, lambda file: Interpreter(file, num_threads=cores()), LITERT_FILE).get_signature_runner()
    lock = threading.Lock()  # an interpreter has one set of buffers

    name = preprocess.unnormalized_input.name

    def logits(images: np.ndarray) -> np.ndarray:
        with lock:
            return run(**{name: images})["logits"].copy()

    return logits


def _load_keras(export: Path, preprocess: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    return keras_logits(_loaded(export, keras.saving.load_model, KERAS_FILE), preprocess)


def keras_logits(model: Any, preprocess: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    """What a Keras model answers to pictures, float32 [B, H, W, 3] RGB in [0, 1], or to signals, [B, L, C]."""
    network = tf.function(lambda images: model(preprocess.normalize(images), training=False))
    return lambda images: network(tf.constant(images)).numpy()


def _load_onnx(export: Path, preprocess: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    try:
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise UserError("ONNX models need the package onnxruntime: pip install 'resnet_tf[onnx]'") from error
    session = _loaded(export, lambda file: InferenceSession(file, providers=["CPUExecutionProvider"]), ONNX_FILE)
    return lambda images: session.run(["logits"], {preprocess.unnormalized_input.name: images})[0]


def _loaded(export: Path, load: Callable[[str], Any], file: str) -> Any:
    try:
        return load(str(export / file))
    except Exception as error:  # each of the packages has its own
        raise UserError(f"{str(export / file)!r} cannot be loaded: {error}") from error
