"""`ResidualNetwork`: the Keras model of this package, with its architecture, preprocessing and labels."""

import dataclasses
import json
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from resnet_tf.core.bounded import parse_json
from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.class_names import to_names
from resnet_tf.core.errors import UserError
from resnet_tf.core.ranges import shorten
from resnet_tf.core.targets import check_thresholds
from resnet_tf.core.text import counted
from resnet_tf.inputs import Preprocess
from resnet_tf.model.arch import Arch, listed
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.recursion import deep_graph
from resnet_tf.model.weights import readers

CONFIG_KEY = "resnet_tf"  # key of the metadata in the configuration of a saved model


@keras.saving.register_keras_serializable("resnet_tf")
class ResidualNetwork(keras.Model):
    """Functional `keras.Model` that keeps its architecture, preprocessing and labels.

    `keras.models.clone_model`, `copy.deepcopy`, `pickle` and the files of `save` and `save_weights` preserve them.
    `load_weights` adopts the preprocessing and labels of a file, and raises a `ValueError` for weights of another
    architecture with the same names and shapes. `import resnet_tf` registers the class for `keras.saving.load_model`.

    A `keras.Model` made from the tensors of a network has none of them. A clone with another input or other outputs
    keeps the attributes that match; set them again after a `clone_function` that changes anything else.

    Args:
        inputs: input tensors, as for `keras.Model`.
        outputs: output tensors, as for `keras.Model`.
        name: name of the model.
        metadata: architecture, preprocessing and labels.
        **kwargs: further arguments of `keras.Model`.
    """

    # Keras treats a subclass as Functional if its first parameters are `inputs, outputs, name`.
    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, *, metadata: Metadata | None = None, **kwargs: Any
    ):
        with deep_graph():
            super().__init__(inputs, outputs, name=name, **kwargs)
        self._metadata = metadata or self._fitting(_carried_by(outputs))
        self._saved_metadata = _SavedMetadata(self)

    @property
    def metadata(self) -> Metadata:
        """Architecture, preprocessing and labels as one object, for files."""
        return self._metadata

    @property
    def zoo_name(self) -> str | None:
        """Name in the zoo, one of `list_models()`; it stays if the model is renamed."""
        return self._metadata.zoo_name

    @property
    def arch(self) -> Arch | None:
        """Architecture that the network was built from; None for a network made from other tensors."""
        return self._metadata.arch

    @property
    def preprocess(self) -> Preprocess | None:
        """Preprocessing that the weights need; None if unknown. Settable."""
        return self._metadata.preprocess

    @preprocess.setter
    def preprocess(self, preprocess: Preprocess | None) -> None:
        if not isinstance(preprocess, Preprocess | None):
            raise UserError(f"preprocess takes an ImagePreprocess or another Preprocess, got {shorten(preprocess)}")
        self._metadata = dataclasses.replace(self._metadata, preprocess=preprocess)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in the order of the logits; None if unknown. Settable."""
        return self._metadata.labels

    @labels.setter
    def labels(self, labels: Iterable[str | int] | None) -> None:
        labels = None if labels is None else to_names(labels)
        if labels is not None and len(labels) != self._num_outputs():
            raise UserError(f"{counted(len(labels), 'label')} for {self.name}, whose outputs are {self.output_shape}")
        self._metadata = dataclasses.replace(self._metadata, labels=labels)

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Probability from which on each class is selected, for a sigmoid for each class; None for a softmax. Settable.

        Exports take it from here.
        """
        return self._metadata.thresholds

    @thresholds.setter
    def thresholds(self, thresholds: Sequence[float] | None) -> None:
        count = self._num_outputs()
        checked = None if thresholds is None else check_thresholds(thresholds, count or len(thresholds))
        self._metadata = dataclasses.replace(self._metadata, thresholds=checked)

    @property
    def calibration(self) -> Calibration:
        """Map from logits to probabilities, of temperature 1 unless set. Settable.

        Exports take it from here. It belongs to the weights: loading others removes it, further training requires
        another one.
        """
        return self._metadata.calibration

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        if not isinstance(calibration, Calibration):
            raise UserError(f"calibration takes a Calibration, got {shorten(calibration)}")
        count = self._num_outputs()
        checked = calibration if count is None else calibration.check_classes(count)
        self._metadata = dataclasses.replace(self._metadata, calibration=checked)

    def adopt(self, metadata: Metadata) -> None:
        """Adopt the metadata of loaded weights but the architecture, as far as it fits the input and outputs.

        Raises:
            UserError: if the weights are of another architecture, which has the same names and shapes.
        """
        self.check_architecture(metadata)
        found = self._fitting(metadata)
        self._metadata = dataclasses.replace(
            self._metadata,
            preprocess=found.preprocess or self.preprocess,
            labels=found.labels or self.labels,
            thresholds=found.thresholds if found.labels or found.thresholds else self.thresholds,
            calibration=found.calibration,
        )

    def load_weights(self, filepath: str | Path, *args: Any, **kwargs: Any) -> None:
        """Load weights as `keras.Model.load_weights`, and check and adopt the metadata of a whole model in `.h5`.

        Files of other suffixes contain the metadata beside the variables, so that Keras restores both.

        Raises:
            UserError: for a whole model in `.h5` of another architecture with the same names and shapes.
        """
        path = Path(filepath)
        whole = path.suffix == ".h5" and not path.name.endswith(".weights.h5") and path.is_file()
        metadata = Metadata.from_dict(readers.read_metadata(path)) if whole else Metadata()
        self.check_architecture(metadata)
        before = self._metadata
        super().load_weights(filepath, *args, **kwargs)
        if self._metadata is before:  # otherwise, Keras has restored that of the file
            self.adopt(metadata)

    def check_architecture(self, metadata: Metadata) -> None:
        """Compare the architecture with that of weights, which may have the same names and shapes.

        Raises:
            UserError: if a field differs that changes the outputs.
        """
        theirs, ours = metadata.arch, self.arch
        if not (theirs and ours):
            return
        differences = ours.differences(theirs)
        if theirs.norm_epsilon != ours.norm_epsilon:  # only `create_model(weights=...)` adapts the variances
            differences["norm_epsilon"] = theirs.norm_epsilon
        if differences:
            raise UserError(
                f"the weights were written for {metadata.zoo_name}, a network with {listed(differences)}; {self.name} "
                f"has {listed({field: getattr(ours, field) for field in differences})}"
            )

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the graph and the metadata as JSON values."""
        return super().get_config() | {CONFIG_KEY: self._metadata.to_dict()}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> "ResidualNetwork":
        """Create a network with new weights from the configuration that `get_config` returned."""
        graph = dict(config)
        metadata = Metadata.from_dict(graph.pop(CONFIG_KEY))
        network = super().from_config(graph, custom_objects)
        network._metadata = metadata
        return network

    def _fitting(self, metadata: Metadata) -> Metadata:
        """Return the part of `metadata` that fits the input and outputs of this network."""
        preprocess, labels = metadata.preprocess, metadata.labels
        if preprocess:
            *sizes, channels = self.input_shape[1:]
            if len(sizes) != len(preprocess.spatial_shape) or channels != preprocess.channels:
                preprocess = None
            elif None not in sizes:
                preprocess = preprocess.with_size(tuple(sizes))
        thresholds, calibration = metadata.thresholds, metadata.calibration
        # One temperature fits any number of classes.
        lengths = {len(each) for each in (labels, thresholds) if each} | ({len(calibration.temperatures)} - {1})
        if lengths - {self._num_outputs()}:
            labels, thresholds, calibration = None, None, UNCALIBRATED
        return dataclasses.replace(
            metadata, preprocess=preprocess, labels=labels, thresholds=thresholds, calibration=calibration
        )

    def _num_outputs(self) -> int | None:
        """Return the number of logits or pooled features; None for a dict of feature maps."""
        return self.output_shape[-1] if isinstance(self.output_shape, tuple) else None

    def _run_through_graph(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # `clone_model` passes the outputs of this method, and nothing else from the original, to the constructor.
        outputs = super()._run_through_graph(inputs, *args, **kwargs)
        for tensor in keras.tree.flatten(outputs):
            if isinstance(tensor, keras.KerasTensor):
                tensor._resnet_tf_metadata = self._metadata
        return outputs


def layer_prefix(model: keras.Model) -> str:
    """Return the prefix of all layer names: `NAME_` after `create_model(model_name=NAME)`, otherwise empty."""
    prefix = f"{model.name}_"
    return prefix if all(layer.name.startswith(prefix) for layer in model.layers) else ""


def layers_by_name(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers by their names without the `layer_prefix`."""
    prefix = layer_prefix(model)
    return {layer.name.removeprefix(prefix): layer for layer in model.layers}


# Keras's older `.h5` format writes the name of a model's class without its package.
keras.saving.get_custom_objects()[ResidualNetwork.__name__] = ResidualNetwork


class _SavedMetadata(keras.Operation):
    """Metadata of a network that Keras stores beside the variables in weights files.

    Keras saves the attributes of a model that are operations or layers; it does not list an operation as a layer.
    """

    _KEY = "json"

    def __init__(self, network: ResidualNetwork):
        super().__init__(name="metadata")
        # Weak, because Keras would follow a reference back to the network in an endless recursion.
        self._network: Any = weakref.ref(network)

    def save_own_variables(self, store: Any) -> None:
        """Write the metadata as bytes of JSON."""
        store[self._KEY] = np.frombuffer(json.dumps(self._network().metadata.to_dict()).encode(), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """Adopt the metadata of a weights file, if it has any."""
        if self._KEY in store:
            self._network().adopt(Metadata.from_dict(parse_json(bytes(store[self._KEY]))))


def _carried_by(outputs: Any) -> Metadata:
    """Return the metadata of the network that is being cloned; empty for other `outputs`."""
    for tensor in keras.tree.flatten(outputs):
        if hasattr(tensor, "_resnet_tf_metadata"):
            return tensor._resnet_tf_metadata
    return Metadata()
