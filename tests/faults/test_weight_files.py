"""Weight files of other writers: older Keras and TF-Keras, wrapping dicts, prefixes, other heads, nested models."""

import functools
import io
import itertools
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import resnet_tf
from resnet_tf.core.errors import UserError
from resnet_tf.model.create import convert_file, create_model
from resnet_tf.model.network import layer_prefix
from resnet_tf.model.weights import keras_files, mapping, readers, selection

SHAPE = (32, 32, 3)
PREPROCESS = resnet_tf.ImagePreprocess(size=(32, 32), mean=(0.1, 0.2, 0.3))


def _create(weights=None, *, name="resnet20", num_classes=10, **settings) -> keras.Model:
    return create_model(name, num_classes=num_classes, input_shape=SHAPE, weights=weights, **settings)


def _small(weights=None, **settings) -> keras.Model:
    """Create a network with one block per stage."""
    return _create(weights, depths=(1, 1, 1), **settings)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    network = _small()
    generator = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return network


@pytest.fixture(scope="module")
def state(network) -> dict[str, np.ndarray]:
    return mapping.to_torchvision(network)


@pytest.fixture(scope="module")
def body(state) -> dict[str, np.ndarray]:
    return {name: array for name, array in state.items() if not name.startswith("fc.")}


def _assert_same_weights(found: keras.Model, expected: keras.Model, *, head: bool = True) -> None:
    theirs = {each.path: each for each in expected.weights}
    compared = [each for each in found.weights if head or not each.path.startswith("logits")]
    assert compared
    for variable in compared:
        np.testing.assert_array_equal(variable, theirs[variable.path])


def _write(arrays, path: Path) -> Path:
    readers.write_safetensors(path, arrays, {})
    return path


def _torch(content, path: Path) -> Path:
    torch = pytest.importorskip("torch")

    def tensors(value):
        if isinstance(value, dict):
            return {name: tensors(each) for name, each in value.items()}
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    torch.save(tensors(content), path)
    return path


PREFIXES = (
    *("module.", "model.", "backbone.", "encoder.", "_orig_mod.", "module._orig_mod.", "net.", "backbone.body."),
    *("student.backbone.", "anything.at.all."),
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_common_prefix_is_stripped(prefix, network, state, tmp_path):
    path = _write({f"{prefix}{name}": array for name, array in state.items()}, tmp_path / "prefixed.safetensors")
    _assert_same_weights(_small(path), network)


OPTIMIZER = {"state": {0: {"momentum_buffer": np.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
WRAPPINGS = {
    "state_dict": lambda state: {"state_dict": state, "optimizer": OPTIMIZER, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": OPTIMIZER, "scaler": {"scale": 1.0}},
    "model_state": lambda state: {"model_state": state, "optim_state": OPTIMIZER},
    "ema": lambda state: {"ema": {"module": state}, "updates": 7},
    "nested": lambda state: {"checkpoint": {"state_dict": {f"module.{name}": each for name, each in state.items()}}},
    "raw before averaged": lambda state: {
        "state_dict_ema": {name: each + 1 for name, each in state.items()},
        "state_dict": state,
    },
    "unknown name": lambda state: {"resnet": state, "epoch": 3},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_dicts_of_training_programs_are_unwrapped(wrapping, network, state, tmp_path):
    path = _torch(WRAPPINGS[wrapping](state), tmp_path / "checkpoint.pth")
    _assert_same_weights(_small(path), network)


@pytest.mark.parametrize("wrapping", ["bare", "state_dict", "beside names"])
def test_arrays_under_numbers_are_refused(wrapping, state, tmp_path):
    numbered = dict(enumerate(state.values()))
    content = {"bare": numbered, "state_dict": {"state_dict": numbered}, "beside names": state | numbered}[wrapping]
    path = _torch(content, tmp_path / "numbers.pth")
    with pytest.raises(UserError, match=r"numbers.pth' (contains an array under 0|does not hold)") as caught:
        _small(path)
    assert "\n" not in str(caught.value)


def test_several_networks_in_a_file_are_named(state, tmp_path):
    path = _torch({"first": state, "second": state}, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"two.pth' contains several state dicts, 'first', 'second'; save the one to"):
        _small(path)
    both = {f"{name}.{key}": each for name in ("encoder_q", "encoder_k") for key, each in state.items()}
    with pytest.raises(UserError, match=r"several networks, with the prefixes 'encoder_k.' and 'encoder_q.'; save the"):
        _small(_write(both, tmp_path / "both.safetensors"))


NO_HEADS = {
    "new_head": {"new_head": True},
    "num_classes=0": {"num_classes": 0},
    "features": {"features": ("stage1", "stage3")},
    "first features": {"features": ("stage1",)},
    "stem": {"features": ("stem",)},
}
HEADS = {
    "none": {},
    "another number of classes": {"fc.weight": np.zeros((7, 64), "float32"), "fc.bias": np.zeros(7, "float32")},
    "hidden layer": {"fc.0.weight": np.zeros((4, 64), "float32"), "fc.2.weight": np.zeros((7, 4), "float32")},
    "another name": {"classifier.1.weight": np.zeros((7, 64), "float32"), "queue": np.zeros((3, 3), "float32")},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("settings", NO_HEADS)
def test_a_network_without_head_takes_any_file(settings, head, network, body, tmp_path):
    path = _write(body | HEADS[head], tmp_path / "body.safetensors")
    _assert_same_weights(_small(path, **NO_HEADS[settings]), network, head=False)


@pytest.mark.parametrize("settings", NO_HEADS)
def test_the_body_of_another_network_is_refused_without_head_too(settings, tmp_path):
    deeper = mapping.to_torchvision(_create(name="resnet32"))
    path = _write(deeper, tmp_path / "deeper.safetensors")
    with pytest.raises(UserError, match=r"does not hold the weights of resnet20; unexpected .*looks like resnet32"):
        _create(path, **NO_HEADS[settings])


def test_feature_maps_of_several_networks_take_its_file(tmp_path):
    """Networks with a normalization after the last block, a deep stem and numbered stages."""
    for name in ("wrn_16_4", "resnet18_d"):
        whole = create_model(name, num_classes=3, input_shape=(64, 64, 3))
        whole.save_weights(tmp_path / "whole.weights.h5")
        maps = create_model(name, input_shape=(64, 64, 3), features=("stage2",), weights=tmp_path / "whole.weights.h5")
        for layer in maps.layers:
            for ours, theirs in zip(layer.weights, whole.get_layer(layer.name).weights, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["resnet18_d", "resnet50_d", "resnet_rs50"])
def test_a_deep_stem_has_no_blocks(name, tmp_path):
    """Its convolutions are named conv1.0 to conv1.6 by timm."""
    create = functools.partial(create_model, name, input_shape=(64, 64, 3), depths=(1, 1, 1, 1))
    whole = create(num_classes=3)
    path = _write(mapping.to_torchvision(whole), tmp_path / "whole.safetensors")
    maps = create(features=("stage2", "stage3"), weights=path)
    _assert_same_weights(maps, whole)
    assert selection.depths(readers.read(path).arrays) == whole.arch.depths


def test_the_head_of_a_cifar_checkpoint_determines_its_preprocessing(state, tmp_path):
    renamed = {f"module.{name}".replace("module.fc.", "module.linear."): array for name, array in state.items()}
    path = _write(renamed, tmp_path / "cifar.safetensors")
    with_head, without = _small(path), _small(path, new_head=True)
    assert with_head.preprocess == without.preprocess
    assert with_head.preprocess.crop_fraction == 1.0


def _nested(network: keras.Model, form: str) -> keras.Model:
    inputs = keras.Input(SHAPE)
    head = keras.layers.Dense(4)
    if form == "sequential":
        return keras.Sequential([network, head])
    return keras.Model(inputs, head(network(keras.layers.RandomFlip()(inputs), training=False)))


@pytest.mark.parametrize("form", ["sequential", "functional"])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_network_inside_of_a_model_is_found_with_its_metadata(form, suffix, tmp_path):
    backbone = _create(num_classes=0)
    backbone.preprocess = PREPROCESS
    model, path = _nested(backbone, form), tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    found = _create(path, num_classes=0)
    _assert_same_weights(found, backbone)
    assert found.preprocess == PREPROCESS
    with pytest.raises(UserError, match=r"were written for resnet20, .* Use resnet20$"):
        _create(path, name="plain20", num_classes=0)
    with pytest.raises(UserError, match=r"missing logits/kernel, logits/bias; unexpected dense"):
        _create(path)


def _rewrite(source: Path, target: Path, change) -> Path:
    """Copy a weights file or a `.keras` archive, with a change of its HDF5 file."""
    if source.suffix == ".h5":
        target.write_bytes(source.read_bytes())
        with h5py.File(target, "a") as file:
            change(file)
        return target
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "model.weights.h5":
                memory = io.BytesIO(content)
                with h5py.File(memory, "a") as file:
                    change(file)
                content = memory.getvalue()
            changed.writestr(name, content)
    return target


def _drop_names(file: h5py.File) -> None:
    """Make the layout of Keras 3.0 to 3.5, which wrote no names."""

    def drop(_, group) -> None:
        if "name" in group.attrs:
            del group.attrs["name"]

    file.visititems(drop)
    if "_saved_metadata" in file:
        del file["_saved_metadata"]


def _as_tf_keras(file: h5py.File) -> None:
    """Make the layout of TF-Keras 2.12 and 2.13: another name of the container of layers."""
    _drop_names(file)
    paths = []
    file.visit(lambda path: paths.append(path) if path.split("/")[-1] == "layers" else None)
    for path in sorted(paths, key=len, reverse=True):
        file.move(path, f"{path.removesuffix('layers')}_layer_checkpoint_dependencies")


def _as_windows(file: h5py.File) -> None:
    """Make the layout of TF-Keras 2.12 on Windows: paths joined by backslashes in place of groups."""
    _as_tf_keras(file)
    groups = []
    file.visititems(lambda path, each: groups.append(path) if path.endswith("/vars") else None)
    for path in groups:
        layer = path.removesuffix("/vars")
        file.copy(file[path], file.create_group(layer.replace("/", "\\")), name="vars")
    del file["_layer_checkpoint_dependencies"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> keras.Model:
    """Return a model with the names of keras.applications, also inside of another model."""
    theirs = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=SHAPE)
    return keras.Sequential([theirs, keras.layers.Dropout(0.1), keras.layers.Dense(4, name="head")], name="tuned")


@pytest.mark.slow
@pytest.mark.parametrize("change", [_drop_names, _as_tf_keras, _as_windows])
@pytest.mark.parametrize("nested", [False, True])
def test_archives_of_older_keras_are_read_by_their_configuration(change, nested, foreign, tmp_path):
    model = foreign if nested else foreign.layers[0]
    model.save(tmp_path / "now.keras")
    old = _rewrite(tmp_path / "now.keras", tmp_path / "old.keras", change)
    expected, found = (keras_files.read_archive(tmp_path / name) for name in ("now.keras", "old.keras"))
    assert set(found) == set(expected)
    assert ("resnet50/conv1_conv/kernel" if nested else "conv1_conv/kernel") in found
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    if change is _drop_names:
        ours = create_model("resnet50_v1", num_classes=0, input_shape=SHAPE, weights=old)
        images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
        theirs = foreign.layers[0](images, training=False)
        np.testing.assert_allclose(ours(images, training=False), theirs, rtol=1e-3, atol=1e-4)
        with pytest.raises(UserError, match=r"come from keras.applications.* Use resnet50_v1$"):
            create_model("resnet50", num_classes=0, input_shape=SHAPE, weights=old)


@pytest.mark.parametrize("change", [_drop_names, _as_tf_keras, _as_windows])
def test_weights_without_names_name_their_writer(change, network, tmp_path):
    network.save_weights(tmp_path / "now.weights.h5")
    old = _rewrite(tmp_path / "now.weights.h5", tmp_path / "old.weights.h5", change)
    with pytest.raises(UserError, match=r"written by Keras 3.0 to 3.5 or TF-Keras, .* save the whole model as .keras"):
        _small(old)


def _chunk(attributes, name: str, chunks: int) -> None:
    parts = np.array_split(np.asarray(attributes[name]), chunks)
    del attributes[name]
    for number, part in enumerate(parts):
        attributes[f"{name}{number}"] = part


@pytest.mark.parametrize("chunks", [2, 12])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_lists_of_names_in_parts_are_read(chunks, network, tmp_path):
    """Keras divides lists of more than 64 KB, as those of the layers of `resnet1001_v2`."""
    network.save(tmp_path / "whole.h5")
    with h5py.File(tmp_path / "whole.h5", "a") as file:
        weights = file["model_weights"]
        for layer in weights.attrs["layer_names"]:
            if len(weights[layer].attrs["weight_names"]) > 1:
                _chunk(weights[layer].attrs, "weight_names", 2)
        _chunk(weights.attrs, "layer_names", chunks)
    _assert_same_weights(_small(tmp_path / "whole.h5"), network)


TF_KERAS = """
import sys, tf_keras
model = tf_keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
model = tf_keras.Sequential([model, tf_keras.layers.Dense(4)])
model.compile("sgd", "mse")
model.fit(tf_keras.backend.zeros((2, 32, 32, 3)), tf_keras.backend.zeros((2, 4)), verbose=0)
inner = model.layers[0]
for name, each in (("nested", model), ("bare", inner)):
    each.save(f"{name}.keras")
    each.save(f"{name}.h5")
    each.save_weights(f"{name}.weights.h5")
    each.save_weights(f"{name}.ckpt")
import numpy as np
np.save("features.npy", inner(np.load("images.npy"), training=False))
"""


@pytest.mark.slow
@pytest.mark.long
def test_files_of_tf_keras_are_read(tmp_path):
    pytest.importorskip("tf_keras")
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run([sys.executable, "-c", TF_KERAS], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    for model, suffix in itertools.product(("nested", "bare"), (".keras", ".h5", ".ckpt")):
        ours = create_model("resnet50_v1", num_classes=0, input_shape=SHAPE, weights=tmp_path / f"{model}{suffix}")
        expected = np.load(tmp_path / "features.npy")
        np.testing.assert_allclose(ours(images, training=False), expected, rtol=1e-3, atol=1e-4, err_msg=suffix)
    with pytest.raises(UserError, match=r"bare.weights.h5' was written by Keras 3.0 to 3.5 or TF-Keras"):
        create_model("resnet50_v1", num_classes=0, weights=tmp_path / "bare.weights.h5")
    with pytest.raises(UserError, match=r"come from keras.applications.* Use resnet50_v1$"):
        convert_file(tmp_path / "bare.ckpt", "resnet50", tmp_path / "never.keras", num_classes=0)
    assert not (tmp_path / "never.keras").exists()


def test_groups_that_contain_themselves_are_refused(network, tmp_path):
    def cycle(file: h5py.File) -> None:
        file["layers/conv2d/again"] = file["layers"]

    network.save_weights(tmp_path / "good.weights.h5")
    with pytest.raises(UserError, match=r"bad.weights.h5' is corrupt or not a .h5 file"):
        _small(_rewrite(tmp_path / "good.weights.h5", tmp_path / "bad.weights.h5", cycle))


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"config": {"layers": [7]}},
        {"config": {"layers": [{"config": {"name": 7}, "class_name": "Dense"}]}},
        {"config": {"layers": [{"config": {"name": "x"}, "class_name": 7}]}},
        {"config": {"layers": [{"config": {"name": "x"}}]}},
    ],
)
def test_strange_configurations_are_refused_in_one_line(config, network, tmp_path):
    network.save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as archive, zipfile.ZipFile(tmp_path / "bad.keras", "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, json.dumps(config) if name == "config.json" else archive.read(name))
    if config:
        with pytest.raises(UserError, match=r"bad.keras' is corrupt") as caught:
            _small(tmp_path / "bad.keras")
        assert "\n" not in str(caught.value)
    else:
        _small(tmp_path / "bad.keras")


@pytest.mark.slow
@pytest.mark.parametrize(
    "suffix", [".weights.h5", *(pytest.param(each, marks=pytest.mark.slow) for each in (".keras", ".h5"))]
)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_an_ordinary_model_of_the_same_layers_is_compared_by_them(suffix, tmp_path):
    """`keras.Model(network.input, network.output)` has no metadata, but its layers show the architecture."""
    for name, other in (("resnet20", "plain20"), ("plain20", "resnet20"), ("resnet50_v1", "resnet50")):
        network = _create(name=name)
        model, path = keras.Model(network.input, network.output, name="mine"), tmp_path / f"model{suffix}"
        model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
        _assert_same_weights(_create(path, name=name), network)
        with pytest.raises(UserError, match=rf"with the same names and shapes but other results. Use {name}$"):
            _create(path, name=other)
    wider = _create(name="resnet50", output_stride=16)
    keras.Model(wider.input, wider.output).save(tmp_path / "dilated.keras")
    _create(tmp_path / "dilated.keras", name="resnet50")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_keras_own_reader_of_whole_models_compares_the_architecture(tmp_path):
    network = _create(name="plain20")
    network.preprocess = PREPROCESS
    network.save(tmp_path / "plain.h5")
    with pytest.raises(UserError, match=r"were written for plain20, a network with shortcut='none'; resnet20 has"):
        _create().load_weights(tmp_path / "plain.h5")
    again = _create(name="plain20")
    again.load_weights(tmp_path / "plain.h5")
    assert again.preprocess == PREPROCESS


def test_the_epsilon_of_a_file_is_adapted(tmp_path):
    theirs = _small(norm_epsilon=1e-2)
    for variable in theirs.variables:
        if variable.name == "moving_variance":
            variable.assign(np.random.default_rng(0).uniform(0.02, 0.1, variable.shape))
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours, images = _small(tmp_path / "theirs.weights.h5"), np.random.default_rng(0).normal(size=(2, *SHAPE))
    np.testing.assert_allclose(ours(images, training=False), theirs(images, training=False), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"a network with norm_epsilon=0.01; resnet20 has norm_epsilon=1e-05"):
        _small().load_weights(tmp_path / "theirs.weights.h5")
    grouped = create_model("bit_r50x1", num_classes=2, input_shape=(64, 64, 3))
    grouped.save_weights(tmp_path / "grouped.weights.h5")
    with pytest.raises(UserError, match=r"a network with norm_epsilon=1e-05; bit_r50x1 has norm_epsilon=0.001"):
        create_model(
            "bit_r50x1", num_classes=2, input_shape=(64, 64, 3), weights=tmp_path / "grouped.weights.h5",
            norm_epsilon=1e-3,
        )  # fmt: skip


def test_two_networks_in_one_model(network, tmp_path):
    network.save_weights(tmp_path / "plain.weights.h5")
    left, right = (_small(tmp_path / "plain.weights.h5", model_name=name) for name in ("left", "right"))
    assert (left.name, left.zoo_name, layer_prefix(left)) == ("left", "resnet20", "left_")
    outputs = keras.layers.Add()([left.output, right.output])
    both = keras.Model([left.input, right.input], outputs)
    both.save(tmp_path / "both.keras")
    loaded = keras.models.load_model(tmp_path / "both.keras")
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    expected = 2 * network(images, training=False)
    np.testing.assert_allclose(loaded([images, images], training=False), expected, rtol=1e-5)
    left.save_weights(tmp_path / "left.weights.h5")
    left.save(tmp_path / "left.keras")
    for file in ("left.weights.h5", "left.keras"):
        np.testing.assert_array_equal(_small(tmp_path / file)(images, training=False), network(images, training=False))
    assert set(mapping.to_torchvision(left)) == set(mapping.to_torchvision(network))
    with pytest.raises(UserError, match=r"contains several networks, with the prefixes 'left_' and 'right_'"):
        _small(tmp_path / "both.keras")
    for name in ("", "a/b", "_x", "a b", 7):
        with pytest.raises(UserError, match=r"model_name=.* is not a letter or digit"):
            _small(model_name=name)
