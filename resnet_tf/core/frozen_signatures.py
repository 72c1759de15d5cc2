"""Signatures of SavedModels without variables, called without TensorFlow's loader.

`tf.saved_model.load` rebuilds the graph of every function in Python, with a copy of the weights in each; for a frozen
ResNet-50 this takes as long as the first call. The runtime takes the functions as they are stored.
"""

import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context, execute  # no public module adds functions to the runtime

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_numbers = itertools.count()  # names of functions are global, and those of two exports may be the same


class _Functions:
    """Functions of a SavedModel in the runtime, which are removed with the last signature that calls them.

    Args:
        definitions: FunctionDefs, which are renamed.
    """

    def __init__(self, definitions: Iterable[Any]):
        self._prefix = f"frozen_{next(_numbers)}_"
        _rename(definitions, self._prefix)
        self._options = _call_options()
        names: list[str] = []
        weakref.finalize(self, _remove, names).atexit = False
        for definition in definitions:
            context.context().add_function_def(definition)
            names.append(definition.signature.name)

    def call(self, name: str, inputs: list[tf.Tensor], outputs: int) -> list[tf.Tensor]:
        """Call the function with a name, which has this number of outputs."""
        return execute.execute(self._prefix + name, outputs, inputs, attrs=self._options, ctx=context.context())


@dataclass(frozen=True)
class FrozenSignature:
    """A signature that calls one function.

    Attributes:
        functions: contains the function.
        name: name of the function.
        inputs: inputs of the function in order: names of arguments, and constant tensors.
        outputs: index of each output of the signature among those of the function.
        count: number of outputs of the function.
        structured_input_signature: as of a `ConcreteFunction`, (), and name -> type of each argument.
        structured_outputs: name -> type of each output.
    """

    functions: _Functions
    name: str
    inputs: tuple[str | tf.Tensor, ...]
    outputs: Mapping[str, int]
    count: int
    structured_input_signature: tuple[tuple[()], dict[str, tf.TensorSpec]]
    structured_outputs: dict[str, tf.TensorSpec]

    def __call__(self, **arguments: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the outputs by name."""
        inputs = [arguments[each] if isinstance(each, str) else each for each in self.inputs]
        values = self.functions.call(self.name, inputs, self.count)
        return {name: values[index] for name, index in self.outputs.items()}


@dataclass(frozen=True)
class FrozenModel:
    """A loaded SavedModel without variables.

    Attributes:
        signatures: signatures by name.
    """

    signatures: dict[str, FrozenSignature]


def load_frozen(directory: Path) -> FrozenModel | None:
    """Load a SavedModel whose signatures are functions of arguments and constants; return None for any other.

    Raises:
        google.protobuf.message.DecodeError, tf.errors.OpError: if it is corrupt.
        OSError: if it cannot be read.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = directory / "saved_model.pb"
    if not file.is_file():
        return None  # TensorFlow divides a SavedModel above 2 GB into several files
    graphs = SavedModel.FromString(file.read_bytes()).meta_graphs
    if len(graphs) != 1 or graphs[0].asset_file_def:
        return None
    nodes = {node.name: node for node in graphs[0].graph_def.node}
    # Other names are those of the initialization of the SavedModel.
    found = {name: each for name, each in graphs[0].signature_def.items() if not name.startswith("__")}
    calls = {name: _call(signature, nodes) for name, signature in found.items()}
    definitions = graphs[0].graph_def.library.function
    stored = {each.signature.name for each in definitions}
    if not all(call is not None and call.attr["f"].func.name in stored for call in calls.values()):
        return None
    functions = _Functions(definitions)
    return FrozenModel({name: _signature(found[name], call, nodes, functions) for name, call in calls.items()})


def _call(signature: Any, nodes: Mapping[str, Any]) -> Any:
    """Return the node that computes a SignatureDef from its arguments and constants alone; None if there is no such."""
    sources = {each.name.partition(":")[0] for each in signature.outputs.values()}
    call = nodes.get(sources.pop()) if len(sources) == 1 else None
    if call is None or call.op not in _CALLS:
        return None
    arguments = _arguments(signature)
    known = all(name in arguments or (name in nodes and nodes[name].op == "Const") for name in call.input)
    return call if known else None


def _arguments(signature: Any) -> dict[str, str]:
    """Return the name of each argument of a SignatureDef, by its node."""
    return {each.name.partition(":")[0]: name for name, each in signature.inputs.items()}


def _signature(signature: Any, call: Any, nodes: Mapping[str, Any], functions: _Functions) -> FrozenSignature:
    arguments = _arguments(signature)

    def source(name: str) -> str | tf.Tensor:
        if name in arguments:
            return arguments[name]
        return tf.constant(tf.make_ndarray(nodes[name].attr["value"].tensor))

    return FrozenSignature(
        functions,
        call.attr["f"].func.name,
        inputs=tuple(map(source, call.input)),
        outputs={name: int(each.name.partition(":")[2] or 0) for name, each in signature.outputs.items()},
        count=len(call.attr["Tout"].list.type),
        structured_input_signature=((), _types(signature.inputs)),
        structured_outputs=_types(signature.outputs),
    )


def _types(tensors: Mapping[str, Any]) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec(tf.TensorShape(each.tensor_shape), tf.dtypes.as_dtype(each.dtype), name)
        for name, each in tensors.items()
    }


def _rename(definitions: Iterable[Any], prefix: str) -> None:
    """Put a prefix before the names of functions, and before each reference to them."""
    names = {each.signature.name for each in definitions}
    for definition in definitions:
        definition.signature.name = prefix + definition.signature.name
        for node in definition.node_def:
            if node.op in names:
                node.op = prefix + node.op
            for called in _called(node):
                if called.name in names:
                    called.name = prefix + called.name


def _called(node: Any) -> Iterator[Any]:
    """Yield the references to functions among the attributes of a node."""
    for attribute in node.attr.values():
        yield from [attribute.func] if attribute.HasField("func") else attribute.list.func


def _call_options() -> tuple[str | bytes, ...]:
    """Return the attributes of a call, names and values in turn: those of any function, but for the optimization.

    TensorFlow optimizes a graph twice by default; the second pass finds nothing in a frozen network, and takes a third
    of the time of its first call.
    """
    from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

    options = context.context().function_call_options.as_attrs()
    config = config_pb2.ConfigProto.FromString(options["config_proto"])
    rewriting = config.graph_options.rewrite_options
    if rewriting.meta_optimizer_iterations == rewriter_config_pb2.RewriterConfig.DEFAULT_NUM_ITERS:
        rewriting.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    options["config_proto"] = config.SerializeToString()
    return tuple(itertools.chain(*options.items()))


def _remove(names: Iterable[str]) -> None:
    for name in names:
        context.context().remove_function(name)
