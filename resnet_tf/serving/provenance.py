"""Preprocessing and class names of a Keras model to export: those of its network, or given by the user."""

import dataclasses
import logging
from collections.abc import Sequence

import keras
import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.multi_label_metrics import DEFAULT_THRESHOLD
from resnet_tf.core.text import counted
from resnet_tf.inputs import Preprocess, default_preprocess
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.serving.canonical import ends_in_sigmoid, graph_of, last_operation

logger = logging.getLogger(__name__)


def complete_metadata(
    model: keras.Model, preprocess: Preprocess | None, labels: Sequence[str] | None, *, needs_labels: bool
) -> Metadata:
    """Return the metadata of a model with the preprocessing and labels given by the user, or those of its network.

    Only an untrained network without them has default preprocessing, and indices for labels.

    Args:
        model: the model to export.
        preprocess: preprocessing given by the user.
        labels: class names given by the user.
        needs_labels: False for a model whose features are exported.

    Raises:
        UserError: if preprocessing or labels are unknown.
    """
    stored = stored_metadata(model)
    thresholds = stored.thresholds
    if thresholds is None and needs_labels and ends_in_sigmoid(model):
        thresholds = (DEFAULT_THRESHOLD,) * graph_of(model).output_shape[-1]
    found = dataclasses.replace(
        stored,
        preprocess=preprocess or stored.preprocess,
        labels=tuple(labels) if labels is not None else stored.labels,
        thresholds=thresholds,
    )
    if isinstance(model, ResidualNetwork) and model.arch and not (found.preprocess and found.labels):
        found = _with_defaults(found, model)
    if found.preprocess is None:
        raise UserError(
            f"the preprocessing of {model.name} is unknown; pass preprocess=ImagePreprocess(...) or "
            "SignalPreprocess(...) with the values of its training"
        )
    if needs_labels and found.labels is None:
        count = graph_of(model).output_shape[-1]
        raise UserError(
            f"the class names of {model.name} are unknown; pass labels=[...], {counted(count, 'name')} in the order of "
            "its outputs"
        )
    return found


def _with_defaults(found: Metadata, model: ResidualNetwork) -> Metadata:
    """Return metadata with default values for a network with initial weights, which cannot have lost any."""
    if not _is_untrained(model):
        return found
    default = default_preprocess(model.input_shape[1:])
    if found.preprocess is None:
        if default is None:
            raise UserError(
                f"{model.name} takes {model.input_shape[1:]}, which has no default preprocessing; "
                "pass preprocess=ImagePreprocess(...) or SignalPreprocess(...)"
            )
        logger.warning("%s is untrained and has no preprocessing; the export gets %s", model.name, default)
        found = dataclasses.replace(found, preprocess=default)
    if found.labels is None and isinstance(model.output_shape, tuple):
        found = dataclasses.replace(found, labels=tuple(map(str, range(model.output_shape[-1]))))
    return found


def _is_untrained(model: keras.Model) -> bool:
    """Return True if the scales, offsets and statistics of all normalization layers are those of the initialization."""
    initial = {"gamma": (0.0, 1.0), "beta": (0.0,), "moving_mean": (0.0,), "moving_variance": (1.0,)}
    return all(np.isin(each.numpy(), initial[each.name]).all() for each in model.variables if each.name in initial)


def stored_metadata(model: keras.Model) -> Metadata:
    """Return the metadata of a network, or what those inside of a model leave of it: no architecture."""
    if isinstance(model, ResidualNetwork):
        return model.metadata
    graph = graph_of(model)
    if isinstance(graph, ResidualNetwork):
        return stored_metadata(graph)
    nodes = [node for level in graph._nodes_by_depth.values() for node in level]
    first = [node.operation for node in nodes if any(each is graph.input for each in node.input_tensors)]
    if not first or not all(isinstance(each, keras.Model) for each in first):
        return Metadata()  # another layer, such as Rescaling, changes the input before the network
    inner = [stored_metadata(each) for each in first]
    preprocess, *others = (each.preprocess for each in inner)
    found = Metadata()
    if last_operation(graph) is first[0]:
        found = Metadata(labels=inner[0].labels, thresholds=inner[0].thresholds, calibration=inner[0].calibration)
    same = all(each == preprocess for each in others)
    return dataclasses.replace(found, preprocess=preprocess if same else None)
