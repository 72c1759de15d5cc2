"""Keras models in the form that exports need: one graph without nested models, from the input to logits.

An export returns logits, their softmax or sigmoid, pooled features, and heatmaps. In the model that `canonical_model`
returns, the layer `logits` is the last one and linear, and the output of the layer `pool` is the pooled features. The
graph decides, not the names of layers.
"""

import itertools
from collections.abc import Callable
from typing import Any

import keras

from resnet_tf.core.errors import UserError
from resnet_tf.model.builder import LOGITS_LAYER, POOL_LAYER
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork, layer_prefix
from resnet_tf.serving.layers import is_inactive, is_of_keras, merged_config, merged_weights, set_weights

_POOLING = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
)
_AVERAGE = (keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D)
_PROBABILITIES = ("softmax", "sigmoid")
# A function from a layer to its replacement in another graph.
_Copy = Callable[[Any], Any]


def canonical_model(model: keras.Model, *, needs_head: bool = True) -> keras.Model:
    """Return a model with the same logits whose layers `pool` and `logits` are what their names promise.

    Nested models are dissolved, and a softmax or sigmoid at the end is removed. The two layers compute in float32. A
    network of `create_model` is returned itself.

    Args:
        model: a Functional or Sequential model with one input and one output.
        needs_head: False accepts a model of pooled features, whose output is that of `pool`.

    Raises:
        UserError: for another type of model, or one whose outputs are neither logits nor their softmax or sigmoid.
    """
    if _is_canonical(model, needs_head=needs_head):
        return model
    flat = _flatten(model)
    has_head = needs_head or isinstance(last_operation(flat), keras.layers.Dense)
    outputs = _find_logits(flat, model.name) if has_head else flat.output
    head = _operation(outputs) if has_head else None
    pool = _find_pool(_inputs(outputs)[0] if has_head else outputs)
    if not isinstance(pool, keras.Layer):
        raise UserError(f"the features of {model.name} come from {pool.name!r}, which is no layer; use a pooling layer")
    names = {id(pool): POOL_LAYER} | ({id(head): LOGITS_LAYER} if has_head else {})
    taken = {*names.values(), flat.input.name}

    def copy(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):
            return layer
        config = merged_config(layer) | {"name": names.get(id(layer)) or _unused(layer.name, "", taken)}
        # As in a network of `create_model`. A layer of the user's need not take the argument.
        exact = {"dtype": "float32"} if id(layer) in names and layer.compute_dtype != "float32" else {}
        return type(layer).from_config(config | exact | ({"activation": "linear"} if layer is head else {}))

    return _copied(ResidualNetwork(flat.input, outputs, metadata=Metadata()), copy, name=model.name)


def has_linear_head(model: keras.Model) -> bool:
    """Return True if the logits of a canonical model are linear in the averages of the last feature maps."""
    if type(_operation(model.output)) is not keras.layers.Dense:
        return False
    pool = _operation(_skip_inactive(_inputs(model.output)[0]))
    return type(pool) in _AVERAGE and pool.name == POOL_LAYER and pool.data_format == "channels_last"


def _is_canonical(model: keras.Model, *, needs_head: bool) -> bool:
    if not _is_graph(model) or any(isinstance(layer, keras.Model) for layer in model.layers):
        return False
    if len(model.inputs) != 1 or not isinstance(model.output, keras.KerasTensor):
        return False
    last = _operation(model.output)
    if last.name == POOL_LAYER:
        return not needs_head and _is_pool(last)
    linear = isinstance(last, keras.layers.Dense) and _activation(last) == "linear" and last.compute_dtype == "float32"
    if not linear or last.name != LOGITS_LAYER or model.layers[-1] is not last:
        return False
    return _is_pool(_operation(_skip_inactive(_inputs(model.output)[0])))


def _is_pool(operation: Any) -> bool:
    return isinstance(operation, _POOLING) and operation.name == POOL_LAYER and operation.compute_dtype == "float32"


def _is_graph(model: Any) -> bool:
    """Return True for a Functional model that computes its graph, and nothing else in a method of its own."""
    return hasattr(model, "_run_through_graph") and type(model).call.__module__.startswith("keras.")


def graph_of(model: keras.Model) -> Any:
    """Return the Functional model of a Functional or Sequential model.

    Raises:
        UserError: for a model with a method `call` of its own.
    """
    functional = getattr(model, "_functional", None) or model
    if isinstance(functional, keras.Sequential):  # Keras makes a graph of two layers or more
        if len(model.layers) == 1 and isinstance(model.layers[0], keras.Model):
            return graph_of(model.layers[0])
        raise UserError(f"{model.name} has no input shape; call it on a batch before the export")
    if not _is_graph(functional) or not type(model).call.__module__.startswith("keras."):
        raise UserError(
            f"{model.name} is a {type(model).__name__} with a method `call`; an export needs a Functional model, such "
            "as keras.Model(inputs, outputs)"
        )
    return functional


def _flatten(model: keras.Model) -> keras.Model:
    """Return a Functional model with the same outputs, without nested models, whose layers are copies."""
    graph = graph_of(model)
    if len(graph.inputs) != 1 or not isinstance(graph.output, keras.KerasTensor):
        raise UserError(f"an export needs a model with one input and one output, which {model.name} is not")
    taken = {graph.input.name}
    prefix = layer_prefix(graph)

    def copy(layer: Any, scope: str = "") -> Any:
        if not isinstance(layer, keras.Layer):
            return layer
        name = _unused(layer.name.removeprefix(prefix), scope, taken)
        return type(layer).from_config(merged_config(layer) | {"name": name})

    return _copied(graph, copy, name=model.name)


def _copied(graph: Any, copy: Callable[..., Any], *, name: str) -> keras.Model:
    """Return a model of copies of the layers of a graph, which have the same weights."""
    copies: dict[int, tuple[Any, Any]] = {}

    def operation(scope: str) -> _Copy:
        def of(layer: Any) -> Any:
            if isinstance(layer, keras.Model):
                below = operation(f"{scope}{layer.name}_")
                # Without the arguments of the call: a `training` there has no effect, since Keras replaces it by the
                # mode of the outermost call.
                return lambda tensor, **_: graph_of(layer)._run_through_graph(tensor, below)
            if id(layer) not in copies:
                copies[id(layer)] = layer, _tried(copy, layer, scope)
            return copies[id(layer)][1]

        return of

    source = graph.input
    inputs = keras.Input(batch_shape=source.shape, dtype="float32", name=source.name)
    outputs = graph._run_through_graph([inputs], operation(""))
    model = ResidualNetwork(inputs, outputs, name, metadata=Metadata())
    for original, copied in copies.values():
        if isinstance(original, keras.Layer):
            set_weights(copied, merged_weights(original))
    return model


def _tried(copy: Callable[..., Any], layer: Any, scope: str) -> Any:
    try:
        return copy(layer, scope) if scope else copy(layer)
    except Exception as error:  # the constructor of a layer of the user, or a Lambda layer, may raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"layer {layer.name!r}, {type(layer).__name__}, cannot be copied: {reason}") from error


def _unused(name: str, scope: str, taken: set[str]) -> str:
    """Return the name of a layer, or another one if it is taken, and take it."""
    numbered = (f"{scope}{name}_{number}" for number in itertools.count(2))
    found = next(each for each in itertools.chain((name, f"{scope}{name}"), numbered) if each not in taken)
    taken.add(found)
    return found


def _find_logits(flat: keras.Model, name: str) -> keras.KerasTensor:
    """Return the output of the last Dense layer, whose own activation may be the softmax or sigmoid.

    Raises:
        UserError: if the outputs are neither logits nor their softmax or sigmoid.
    """
    tensor = _skip_inactive(flat.output)
    outer = _probabilities(_operation(tensor))
    if outer:
        tensor = _skip_inactive(_inputs(tensor)[0])
    last = _operation(tensor)
    if isinstance(last, _POOLING):
        raise UserError(f"{name} has no head: create it with num_classes > 0, or export it with target='hub_features'")
    if len(flat.output.shape) != 2 or not isinstance(last, keras.layers.Dense):
        raise UserError(
            f"{name} has no head: its output {flat.output.shape} comes from {last.name!r}, {type(last).__name__}. An "
            "export needs a Dense layer of logits at the end, or target='hub_features'"
        )
    activation = _activation(last)
    if activation not in ("linear", *_PROBABILITIES) or (outer and activation != "linear"):
        twice = "two softmaxes" if outer == activation == "softmax" else f"{activation} and {outer}"
        what = f"{twice} in succession" if outer else f"the activation {activation!r}"
        raise UserError(
            f"{name} has {what} at the end, in {last.name!r}; an export needs logits, one softmax or one sigmoid, "
            "because it returns logits and their probabilities"
        )
    return tensor


def last_operation(graph: Any) -> Any:
    """Return the last operation of a Functional model without the function that returns probabilities.

    Layers that do nothing at inference are left out as well.
    """
    tensor = _skip_inactive(graph.output)
    return _operation(_skip_inactive(_inputs(tensor)[0]) if _probabilities(_operation(tensor)) else tensor)


def ends_in_sigmoid(model: keras.Model) -> bool:
    """Return True if the outputs of a model are sigmoids, as those of multi-label models."""
    graph = graph_of(model)
    is_nested = any(isinstance(layer, keras.Model) for layer in graph.layers)
    flat = _flatten(model) if is_nested else graph
    last, head = _operation(_skip_inactive(flat.output)), last_operation(flat)
    return "sigmoid" in (_probabilities(last), isinstance(head, keras.layers.Dense) and _activation(head))


def _find_pool(features: keras.KerasTensor) -> Any:
    """Return the operation of the pooled features: the last global pooling before the head, or else its input."""
    tensor = first = _skip_inactive(features)
    while len(_inputs(tensor)) == 1:
        if isinstance(_operation(tensor), _POOLING):
            return _operation(tensor)
        (tensor,) = _inputs(tensor)
    return _operation(first)


def _skip_inactive(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Return the tensor before layers that do nothing at inference."""
    operation = _operation(tensor)
    is_activation = isinstance(operation, keras.layers.Activation) and is_of_keras(operation)
    if is_inactive(operation) or (is_activation and _activation(operation) == "linear"):
        return _skip_inactive(_inputs(tensor)[0])
    return tensor


def _operation(tensor: keras.KerasTensor) -> Any:
    """Return the layer or operation with this output."""
    return tensor._keras_history.operation


def _inputs(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Return the inputs of the call with this output."""
    operation, index, _ = tensor._keras_history
    return list(operation._inbound_nodes[index].input_tensors)


def _probabilities(operation: Any) -> str:
    """Return `softmax` or `sigmoid` if an operation computes it from the output of another; empty if not."""
    if not is_of_keras(operation):
        return ""
    if isinstance(operation, keras.layers.Activation):
        return _activation(operation) if _activation(operation) in _PROBABILITIES else ""
    name = type(operation).__name__.lower()
    return name if name == "sigmoid" or (name == "softmax" and operation.axis in (-1, 1)) else ""


def _activation(layer: Any) -> str:
    return getattr(layer.activation, "__name__", type(layer.activation).__name__)
