"""SavedModels: for serving, and for fine-tuning with TensorFlow Hub."""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.inputs import Preprocess
from resnet_tf.model.builder import LOGITS_LAYER, POOL_LAYER
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.serving.canonical import has_linear_head
from resnet_tf.serving.fold import fold
from resnet_tf.serving.freeze import freeze, is_freezable
from resnet_tf.serving.signatures import CLASSIFY_SIGNATURE, DEFAULT_SIGNATURE, Network, build_signatures
from resnet_tf.serving.targets import hub
from resnet_tf.serving.warmup import write_warmup


def write_serving(
    model: keras.Model,
    preprocess: Preprocess,
    labels: Sequence[str],
    export: Path,
    *,
    precision: str,
    top_k: int,
    thresholds: Sequence[float] | None = None,
    calibration: Calibration = UNCALIBRATED,
    default: str = DEFAULT_SIGNATURE,
) -> None:
    """Write a SavedModel of the folded and frozen network, with its signatures and warmup requests.

    Args:
        model: a network of `create_model`, with its head.
        preprocess: preprocessing of an example.
        labels: class names in the order of the logits.
        export: directory of the SavedModel.
        precision: `float32` or `bfloat16`; stored in the graph, so that a server needs no option.
        top_k: number of best classes that signatures return.
        thresholds: see `build_signatures`.
        calibration: see `build_signatures`.
        default: see `build_signatures`.
    """
    folded = fold(model, precision)
    holder = tf.train.Checkpoint()  # tf.Module does not track variables of Keras 3
    if not is_freezable(folded):
        holder.variables = [variable.value for variable in folded.variables]
    network = freeze(folded, _network(folded))
    explains = has_linear_head(folded)
    signatures = build_signatures(
        network,
        preprocess,
        labels,
        top_k=top_k,
        thresholds=thresholds,
        calibration=calibration,
        default=default,
        explains=explains,
    )
    tf.saved_model.save(holder, str(export), signatures=signatures)
    _mark_classify(export)
    write_warmup(export, preprocess, default=default)


def write_hub(
    model: keras.Model,
    preprocess: Preprocess,
    labels: Sequence[str],
    export: Path,
    *,
    weight_decay: float,
    top_k: int,
    thresholds: Sequence[float] | None = None,
    calibration: Calibration = UNCALIBRATED,
) -> None:
    """Write a SavedModel that can be called and trained, with the signatures of `write_serving`."""
    holder, open_model = hub.reusable_model(model, preprocess, weight_decay=weight_decay)
    explains = has_linear_head(open_model)
    signatures = build_signatures(
        _network(open_model),
        preprocess,
        labels,
        top_k=top_k,
        thresholds=thresholds,
        calibration=calibration,
        explains=explains,
    )
    tf.saved_model.save(holder, str(export), signatures=signatures)
    _mark_classify(export)


def write_hub_features(model: keras.Model, preprocess: Preprocess, export: Path, *, weight_decay: float) -> None:
    """Write a SavedModel of the network up to its pooled features that can be called and trained."""
    features = ResidualNetwork(model.input, model.get_layer(POOL_LAYER).output, model.name)
    holder, _ = hub.reusable_model(features, preprocess, weight_decay=weight_decay)
    tf.saved_model.save(holder, str(export))


def _network(model: keras.Model) -> Network:
    """Return the function that `build_signatures` takes, for a canonical model with a head."""
    pool, head = model.get_layer(POOL_LAYER), model.get_layer(LOGITS_LAYER)
    maps = pool.input if has_linear_head(model) else pool.output  # read for heatmaps only
    inner = ResidualNetwork(model.input, [maps, pool.output, head.output], model.name)
    return lambda inputs: [*inner(inputs, training=False), tf.convert_to_tensor(head.kernel)]


def _mark_classify(export: Path) -> None:
    """Set the method name that TensorFlow Serving's Classify requires; TensorFlow writes Predict's for all."""
    file = export / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in (each for each in saved.meta_graphs if CLASSIFY_SIGNATURE in each.signature_def):
        graph.signature_def[CLASSIFY_SIGNATURE].method_name = tf.compat.v1.saved_model.CLASSIFY_METHOD_NAME
    file.write_bytes(saved.SerializeToString())
