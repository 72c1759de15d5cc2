"""`ResidualNetwork`: a Functional Keras model whose metadata come along wherever its weights go."""

import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import LONG, shallow
from golden import formula

from resnet_tf.config import load_config
from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import ImagePreprocess, SignalPreprocess
from resnet_tf.model.arch import Arch
from resnet_tf.model.builder import build
from resnet_tf.model.create import convert_file, create_model
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.recursion import deep_graph
from resnet_tf.model.zoo import MODELS
from resnet_tf.serving.export import export_model
from resnet_tf.training import runtime
from resnet_tf.training.trainer import Trainer

IMAGES = ImagePreprocess(size=(32, 32), crop_fraction=0.9, mean=(0.1, 0.2, 0.3), channel_order="bgr")
SIGNALS = SignalPreprocess(length=64, channels=2, mean=(0.5, 0.25), std=(2.0, 4.0))
LABELS = ("cat", "dog", "<b>hamster</b>")
THRESHOLDS = (0.25, 0.5, 0.75)
CALIBRATION = Calibration(temperatures=(1.5, 2.0, 0.5), biases=(0.1, 0.0, -0.1))


def _clone(network: keras.Model, directory: Path) -> keras.Model:
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    return clone


def _saved(name: str) -> Callable[[keras.Model, Path], keras.Model]:
    def there_and_back(network: keras.Model, directory: Path) -> keras.Model:
        network.save(directory / name)
        return keras.models.load_model(directory / name)

    return there_and_back


def _through_json(network: keras.Model, directory: Path) -> keras.Model:
    copied = keras.models.model_from_json(network.to_json())
    copied.set_weights(network.get_weights())
    return copied


COPIES = {
    "clone": _clone,
    "deepcopy": lambda network, _: copy.deepcopy(network),
    "pickle": lambda network, _: pickle.loads(pickle.dumps(network)),
    "keras": _saved("network.keras"),
    "h5": _saved("network.h5"),
    "json": _through_json,
}
CASES = {
    **{
        name: {"num_classes": 3}
        for name in (
            *("resnet18", "resnet50_v1", "resnet50_v2", "resnet200_v2", "resnet50_d", "seresnext50_32x4d"),
            *("resnet_rs50", "bit_r50x1", "wrn_16_4", "resnet20", "plain20", "resnet_article", "resnet18_1d"),
        )
    },
    "resnet34": {"num_classes": 0},
    "resnet101": {"num_classes": 3, "features": ("stem", "stage2")},
    "resnet34_1d": {"num_classes": 3, "features": ("stage1",)},
}
# Each takes several seconds to copy in every way; CI copies one of each other family.
LARGE = {"resnet200_v2", "resnet50_d", "seresnext50_32x4d", "resnet_rs50", "resnet101"}


def _network(name: str, **settings) -> ResidualNetwork:
    """A network with one block a stage, none of its weights and metadata as they start."""
    shape = (64, 2) if MODELS[name].dimensions == 1 else (32, 32, 3)
    network = shallow(name, input_shape=shape, **settings)
    for variable in network.weights:
        if variable.dtype == "float32":
            variable.assign(formula.weight(variable.path, tuple(variable.shape)))
    network.preprocess = SIGNALS if MODELS[name].dimensions == 1 else IMAGES
    if settings["num_classes"] and "features" not in settings:
        network.labels = LABELS
    return network


def _assert_alike(copied: keras.Model, network: ResidualNetwork) -> None:
    assert type(copied) is ResidualNetwork
    assert copied is not network
    assert (copied.name, copied.metadata) == (network.name, network.metadata)
    for ours, theirs in zip(copied.weights, network.weights, strict=True):
        assert ours is not theirs
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG * (name in LARGE)) for name in CASES])
# Keras advises against its older format, and still reads and writes it.
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_metadata_come_along_with_every_copy_and_its_copies(name, tmp_path):
    network = _network(name, **CASES[name])
    assert network.metadata.preprocess
    assert network.metadata.zoo_name == name
    assert network.arch == dataclasses.replace(MODELS[name], depths=(1,) * len(MODELS[name].depths), dropout=0.1)
    inputs = np.random.default_rng(0).normal(size=(2, *network.input_shape[1:])).astype("float32")
    expected = keras.tree.flatten(network(inputs, training=False))
    copied = network
    for way in COPIES:
        copied = COPIES[way](copied, tmp_path)
        _assert_alike(copied, network)
        for ours, theirs in zip(keras.tree.flatten(copied(inputs, training=False)), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=way)


def test_a_copy_keeps_what_was_compiled():
    network = _network("resnet20", num_classes=3)
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    for copied in (keras.models.clone_model(network), copy.deepcopy(network)):
        images = np.zeros((4, 32, 32, 3), "float32")
        assert np.isfinite(copied.fit(images, np.arange(4) % 3, verbose=0).history["loss"]).all()
        assert copied.metadata == network.metadata


def test_a_clone_keeps_what_fits_its_input_and_its_outputs():
    network = _network("resnet20", num_classes=3)

    def clone(*shape, units=3):
        return keras.models.clone_model(
            network,
            input_tensors=keras.Input(shape),
            clone_function=lambda layer: type(layer).from_config(
                layer.get_config() | ({"units": units} if layer.name == "logits" else {})
            ),
        )

    assert clone(48, 64, 3).preprocess == dataclasses.replace(IMAGES, size=(48, 64))
    assert clone(None, None, 3).preprocess == IMAGES
    assert clone(32, 32, 1).preprocess is None
    assert clone(32, 32, 1).labels == LABELS
    assert clone(32, 32, 3, units=5).labels is None


def test_a_model_of_its_tensors_is_an_ordinary_one():
    network = _network("resnet20", num_classes=3)
    for inside in (network, keras.models.clone_model(network)):
        pooled = keras.Model(inside.input, inside.get_layer("pool").output)
        assert type(pooled) is type(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])._functional)
        assert not hasattr(pooled, "preprocess")
        assert not hasattr(keras.Model(inside.input, inside.output), "preprocess")
    assert ResidualNetwork(network.input, network.get_layer("pool").output).metadata == Metadata()


def test_networks_within_a_model_keep_theirs(tmp_path):
    image = keras.Input((32, 32, 3))
    first, second = _network("resnet20", num_classes=3), _network("plain20", num_classes=3)
    second.labels = None
    both = keras.Model(image, keras.layers.Add()([first(image), second(image)]))
    both.save(tmp_path / "both.keras")
    both.save_weights(tmp_path / "both.weights.h5")
    copies = [keras.models.load_model(tmp_path / "both.keras"), keras.models.clone_model(both)]
    copies[1].load_weights(tmp_path / "both.weights.h5")
    for copied in copies:
        _assert_alike(copied.get_layer("resnet20"), first)
        _assert_alike(copied.get_layer("plain20"), second)


def test_labels_are_as_many_as_the_outputs():
    network = _network("resnet20", num_classes=3)
    with pytest.raises(UserError, match=r"2 labels for resnet20, whose outputs are \(None, 3\)"):
        network.labels = ["cat", "dog"]
    assert network.labels == LABELS
    with pytest.raises(UserError, match=r"3 labels for resnet101"):
        _network("resnet101", **CASES["resnet101"]).labels = LABELS
    network.labels = network.preprocess = None
    assert network.metadata == Metadata(zoo_name="resnet20", arch=network.arch)


CREATE = {"num_classes": 3, "input_shape": (32, 32, 3)}


def _write(network: keras.Model, path: Path) -> Path:
    network.save(path) if path.suffix == ".keras" else network.save_weights(path)
    return path


@pytest.mark.parametrize("file", ["whole.keras", "only.weights.h5"])
def test_files_that_keras_writes_bring_their_metadata(file, tmp_path):
    network = create_model("resnet20", **CREATE)
    network.preprocess, network.labels = IMAGES, LABELS
    path = _write(network, tmp_path / file)
    read = create_model("resnet20", weights=path, **CREATE)
    _assert_alike(read, network)
    larger = create_model("resnet20", weights=path, num_classes=3, input_shape=(64, 48, 3))
    assert larger.preprocess == dataclasses.replace(IMAGES, size=(64, 48))
    fresh = create_model("resnet20", weights=path, new_head=True, **CREATE)
    assert (fresh.preprocess, fresh.labels) == (IMAGES, None)
    loaded = create_model("resnet20", **CREATE)
    loaded.load_weights(path)
    _assert_alike(loaded, network)
    ordinary = keras.Model(loaded.input, loaded.output)
    ordinary.load_weights(path)


@pytest.mark.parametrize("file", ["whole.keras", "only.weights.h5"])
def test_weights_of_a_look_alike_are_refused(file, tmp_path):
    path = _write(create_model("plain20", **CREATE), tmp_path / file)
    with pytest.raises(UserError, match=r"were written for plain20, .*shortcut='none'; resnet20 has .* Use plain20$"):
        create_model("resnet20", weights=path, **CREATE)
    with pytest.raises(ValueError, match=r"were written for plain20, a network with shortcut='none'; resnet20 has sh"):
        create_model("resnet20", **CREATE).load_weights(path)
    create_model("plain20", **CREATE).load_weights(path)
    create_model("plain20", norm_momentum=0.5, **CREATE).load_weights(path)  # a field that leaves the outputs alone


def test_weights_in_shards_have_it(tmp_path):
    network = create_model("resnet20", **CREATE)
    network.preprocess, network.labels = IMAGES, LABELS
    network.save_weights(tmp_path / "shards.weights.json", max_shard_size=0.0003)
    assert len(list(tmp_path.glob("*.h5"))) > 1
    read = create_model("resnet20", **CREATE)
    read.load_weights(tmp_path / "shards.weights.json")
    _assert_alike(read, network)


def _without_metadata(path: Path, metadata: dict | None) -> None:
    """Rewrite a file as it was before Keras wrote the metadata: without, or where `convert_file` had added them."""
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            del file["_saved_metadata"]
            if metadata:
                file["resnet_tf"] = json.dumps(metadata)
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    del config["config"]["resnet_tf"]
    config |= {"module": "keras.src.models.functional", "class_name": "Functional", "registered_name": "Functional"}
    members["config.json"] = json.dumps(config).encode()
    if metadata:
        members["resnet_tf.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("file", ["whole.keras", "only.weights.h5"])
@pytest.mark.parametrize("added", [True, False], ids=["converted", "of Keras"])
def test_files_from_before_are_read(file, added, tmp_path):
    network = create_model("resnet20", **CREATE)
    path = _write(network, tmp_path / file)
    _without_metadata(path, Metadata("resnet20", MODELS["resnet20"], IMAGES, LABELS).to_dict() if added else None)
    read = create_model("resnet20", weights=path, **CREATE)
    assert (read.preprocess, read.labels) == ((IMAGES, LABELS) if added else (None, None))
    network.preprocess, network.labels = IMAGES, LABELS
    network.load_weights(path)
    assert (network.preprocess, network.labels) == (IMAGES, LABELS)
    if added:
        with pytest.raises(UserError, match=r"were written for resnet20"):
            create_model("plain20", weights=path, **CREATE)


@pytest.mark.parametrize(
    ("file", "labels"),
    [
        *((file, LABELS) for file in ("whole.keras", "whole.h5", "only.weights.h5", "torch.safetensors")),
        ("only.weights.h5", None),
    ],
)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_thresholds_and_calibration_come_with_the_head(file, labels, tmp_path):
    network = create_model("resnet20", **CREATE)
    network.preprocess, network.labels, network.thresholds = IMAGES, labels, THRESHOLDS
    network.calibration = CALIBRATION
    path = tmp_path / file
    if file == "torch.safetensors":
        convert_file(_write(network, tmp_path / "source.keras"), "resnet20", path, num_classes=3)
    elif file == "whole.h5":
        network.save(path)
    else:
        _write(network, path)
    read = create_model("resnet20", weights=path, **CREATE)
    assert (read.thresholds, read.calibration, read.labels) == (THRESHOLDS, CALIBRATION, labels)
    if file == "only.weights.h5":
        read = create_model("resnet20", **CREATE)
        read.load_weights(path)  # Keras's own reader
        assert (read.thresholds, read.calibration) == (THRESHOLDS, CALIBRATION)
    other = create_model("resnet20", weights=path, new_head=True, **CREATE)
    assert (other.preprocess, other.thresholds, other.calibration) == (IMAGES, None, UNCALIBRATED)


def test_weights_without_metadata_have_no_calibration(tmp_path):
    network = create_model("resnet20", **CREATE)
    path = _write(network, tmp_path / "only.weights.h5")
    network.labels, network.thresholds, network.calibration = LABELS, THRESHOLDS, CALIBRATION
    _without_metadata(path, None)
    network.load_weights(path)
    assert (network.labels, network.thresholds, network.calibration) == (LABELS, THRESHOLDS, UNCALIBRATED)


def test_training_does_not_inherit_thresholds_and_calibration(digits_arrays, tmp_path):
    network = create_model("resnet8_w32", num_classes=10, input_shape=(8, 8, 1))
    network.thresholds, network.calibration = (0.5,) * 10, Calibration((2.0,), (0.0,))
    path = _write(network, tmp_path / "start.weights.h5")
    settings = [f"data.source={digits_arrays}", "model.name=resnet8_w32", f"model.weights={path}"]
    config = load_config("digits", settings)
    trained = Trainer(config, open_source(config.data), runtime.start(config.runtime))
    assert (trained.model.thresholds, trained.model.calibration) == (None, UNCALIBRATED)


def test_a_clone_with_other_outputs_has_no_thresholds_and_calibration():
    network = create_model("resnet20", **CREATE)
    network.thresholds, network.calibration = THRESHOLDS, CALIBRATION

    def with_another_head(layer):
        return keras.layers.Dense(7, name="logits") if layer.name == "logits" else layer.from_config(layer.get_config())

    clone = keras.models.clone_model(network, clone_function=with_another_head)
    assert (clone.thresholds, clone.calibration) == (None, UNCALIBRATED)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], "metadata is list, not an object"),
        ({"model": 7}, "model is int, not a string"),
        ({"labels": "abc"}, "labels is not a list of strings"),
        ({"labels": [1]}, "labels is not a list of strings"),
        ({"arch": {"depths": [1], "nonsense": 1}}, "not the fields of an Arch: .*nonsense"),
        ({"arch": [1]}, "an Arch is an object of named fields"),
        ({"arch": {"depths": [1], "block": {}}}, "block={}; it takes 'basic'"),
        ({"preprocess": {"nonsense": 1}}, "nonsense"),
    ],
)
def test_corrupt_metadata_are_refused(fields, reason):
    with pytest.raises(UserError, match=reason):
        Metadata.from_dict(fields)


def test_metadata_are_values_of_json():
    metadata = Metadata("resnet50", Arch(depths=(1, 2, 1, 1), dropout=0.25), SIGNALS, LABELS)
    fields = metadata.to_dict()
    assert json.loads(json.dumps(fields)) == fields
    assert Metadata.from_dict(fields) == metadata


ORDERS = [
    "import keras, resnet_tf; load = keras.saving.load_model",
    "import resnet_tf.model.layers, keras; load = keras.saving.load_model",
    "import resnet_tf, importlib.util; importlib.util.find_spec('keras'); import tensorflow; load = "
    "tensorflow.keras.models.load_model",
]


@pytest.mark.slow
@pytest.mark.parametrize("imports", ORDERS, ids=["Keras first", "package first", "TensorFlow's Keras"])
def test_keras_knows_the_classes_after_the_import(imports, tmp_path):
    network = _network("bit_r50x1", num_classes=3)  # its convolutions are this package's
    network.save(tmp_path / "there.keras")
    code = f"{imports}; network = load({str(tmp_path / 'there.keras')!r}); print(network.zoo_name, network.labels)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == f"bit_r50x1 {LABELS}", done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_the_import_is_light_and_changes_no_limit():
    code = (
        "import sys; before = sys.getrecursionlimit()\n"
        "import resnet_tf.config, resnet_tf.model.zoo\n"
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules], sys.getrecursionlimit() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split("\n")[0] == "[] True", done.stderr


@pytest.fixture
def shallow_stack():
    """A recursion limit of 300 frames more than are in use, of which Keras takes one for each layer of a chain."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 300)
    yield sys.getrecursionlimit()
    sys.setrecursionlimit(before)


def _deep_chain(size: int) -> ResidualNetwork:
    """364 layers without shortcuts."""
    arch = dataclasses.replace(MODELS["plain20"], depths=(20, 20, 20), widths=(4, 4, 4), stem_width=4)
    return build(arch, name="plain20", num_classes=3, input_shape=(size, size, 3))


@pytest.mark.slow
def test_deep_networks_need_no_higher_limit(shallow_stack, tmp_path):
    network = _deep_chain(8)
    network.labels = LABELS
    for way in ("clone", "pickle"):  # the second saves and loads
        _assert_alike(COPIES[way](network, tmp_path), network)
    with pytest.raises(RecursionError):
        keras.Model(network.input, network.get_layer("pool").output)
    with deep_graph():
        keras.Model(network.input, network.get_layer("pool").output)
    assert sys.getrecursionlimit() == shallow_stack


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["serving", *(pytest.param(each, marks=pytest.mark.long) for each in ("hub", "hub_features", "keras"))]
)
def test_exports_of_deep_networks_need_no_higher_limit(target, shallow_stack, tmp_path):
    network = _deep_chain(32)
    export_model(network, tmp_path / "export", target=target)
    assert sys.getrecursionlimit() == shallow_stack


@pytest.mark.slow
@pytest.mark.long
def test_the_deepest_network_is_copied(tmp_path):
    before = sys.getrecursionlimit()
    network = create_model("resnet1202", num_classes=3, input_shape=(8, 8, 1))
    network.labels = LABELS
    for way in ("clone", "pickle"):
        _assert_alike(COPIES[way](network, tmp_path), network)
    assert sys.getrecursionlimit() == before
