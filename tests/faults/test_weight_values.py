"""Weights whose values no network computes with, in every file format, and the precision that exports state."""

import hashlib
import itertools
import zipfile

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import read_export
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.model.create import create_model
from resnet_tf.model.weights.mapping import to_torchvision
from resnet_tf.model.weights.values import hash_arrays, hash_weights
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor

NETWORK = {"num_classes": 3, "input_shape": (32, 32, 3)}
PREPROCESS = ImagePreprocess(size=(32, 32))


@pytest.fixture(scope="module")
def network():
    return create_model("resnet8_w32", **NETWORK)


def _with_first(value):
    """Return a change of an array: its first number becomes `value`."""

    def change(array):
        changed = array.copy()
        changed.flat[0] = value
        return changed

    return change


def test_the_hash_of_weights_changes_with_any_bit(network):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b"a/b float32 (2, 3)\n" + array.tobytes()).hexdigest()
    assert hash_arrays([("a/b", array)]) == hash_arrays([("a/b", np.asfortranarray(array))]) == expected
    before, kernel = hash_weights(network), network.weights[-1]
    values = kernel.numpy()
    kernel.assign(_with_first(np.nextafter(values.flat[0], np.float32(1)))(values))
    assert hash_weights(network) != before
    kernel.assign(values)
    copied = create_model("resnet8_w32", **NETWORK)
    copied.set_weights(network.get_weights())
    assert hash_weights(network) == hash_weights(copied) == before


# Fault -> (variable, change of its array, message).
FAULTS = {
    "nan": ("kernel", _with_first(np.nan), "values that are not finite"),
    "inf": ("kernel", _with_first(np.inf), "values that are not finite"),
    "nan_float16": ("kernel", lambda a: _with_first(np.nan)(a.astype(np.float16)), "values that are not finite"),
    "inf_float64": ("kernel", lambda a: _with_first(-np.inf)(a.astype(np.float64)), "values that are not finite"),
    "beyond_float32": ("kernel", lambda a: _with_first(1e300)(a.astype(np.float64)), "values that are not finite"),
    "nan_bfloat16": ("kernel", lambda a: _with_first(np.nan)(a.astype(ml_dtypes.bfloat16)), "values that are not"),
    "negative_variance": ("moving_variance", _with_first(-0.5), "holds a negative variance, -0.5"),
    "nan_variance": ("moving_variance", _with_first(np.nan), "values that are not finite"),
    "int8": ("kernel", lambda a: np.ones(a.shape, np.int8), "holds int8 values in"),
    "int64": ("kernel", lambda a: np.ones(a.shape, np.int64), "holds int64 values in"),
    "bool": ("moving_variance", lambda a: a > 0, "holds bool values in"),
    "complex64": ("kernel", lambda a: a.astype(np.complex64), "holds complex64 values in"),
}
# Types that are converted to float32.
CONVERTED = {
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


def _torch_arrays(network, variable, change):
    arrays = to_torchvision(network)
    suffix = {"kernel": "conv1.weight", "moving_variance": "running_var"}[variable]
    name = next(each for each in arrays if each.endswith(suffix))
    return arrays | {name: change(arrays[name])}


def _write_safetensors(network, path, variable, change):
    save_file(_torch_arrays(network, variable, change), path)


def _write_npz(network, path, variable, change):
    np.savez(path, **_torch_arrays(network, variable, change))


def _write_torch(network, path, variable, change):
    torch = pytest.importorskip("torch")

    def tensor(array):
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
        return torch.from_numpy(np.ascontiguousarray(array))

    torch.save({name: tensor(array) for name, array in _torch_arrays(network, variable, change).items()}, path)


def _change_h5(file, variable, change):
    """Change the first variable of this name in the layout of Keras 3."""
    for group in file["layers"].values():
        variables = group.get("vars", {})
        is_norm = len(variables) == 4
        index = {"kernel": "0", "moving_variance": "3"}[variable]
        if len(variables) and is_norm == (variable == "moving_variance"):
            array = change(np.asarray(variables[index]))
            del variables[index]
            variables[index] = array
            return


def _write_h5(network, path, variable, change):
    network.save_weights(path)
    with h5py.File(path, "r+") as file:
        _change_h5(file, variable, change)


def _write_keras(network, path, variable, change):
    network.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = path.with_suffix(".h5")
    weights.write_bytes(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        _change_h5(file, variable, change)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"model.weights.h5": weights.read_bytes()}).items():
            archive.writestr(name, content)


FORMATS = {
    "a.safetensors": _write_safetensors,
    "a.npz": _write_npz,
    "a.pth": _write_torch,
    "a.weights.h5": _write_h5,
    "a.keras": _write_keras,
}
# Types that a format cannot hold: NumPy and HDF5 write bfloat16 as bytes without a type.
UNTYPED = {("a.npz", "bfloat16"), ("a.weights.h5", "bfloat16"), ("a.keras", "bfloat16")}
NOT_WRITABLE = {("a.safetensors", "complex64")}


@pytest.mark.parametrize(
    ("name", "fault"), [pair for pair in itertools.product(FORMATS, FAULTS) if pair not in NOT_WRITABLE]
)
def test_files_with_wrong_values_are_refused(network, tmp_path, name, fault):
    variable, change, message = FAULTS[fault]
    FORMATS[name](network, tmp_path / name, variable, change)
    untyped = (name, fault.removeprefix("nan_")) in UNTYPED
    with pytest.raises(UserError, match="floating-point" if untyped else message) as caught:
        create_model("resnet8_w32", weights=tmp_path / name, **NETWORK)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "dtype"), [pair for pair in itertools.product(FORMATS, CONVERTED) if pair not in UNTYPED]
)
def test_other_floating_point_types_are_converted(network, tmp_path, name, dtype):
    FORMATS[name](network, tmp_path / name, "kernel", lambda array: array.astype(CONVERTED[dtype]))
    loaded = create_model("resnet8_w32", weights=tmp_path / name, **NETWORK)
    pairs = list(zip(loaded.get_weights(), network.get_weights(), strict=True))
    rounded = [(found, expected) for found, expected in pairs if not np.array_equal(found, expected)]
    assert len(rounded) == (0 if dtype == "float64" else 1)
    for found, expected in rounded:
        np.testing.assert_array_equal(found, expected.astype(CONVERTED[dtype]).astype(np.float32))


@pytest.mark.parametrize("target", ["serving", "hub", "keras"])
@pytest.mark.parametrize("fault", ["nan", "inf", "negative_variance"])
def test_networks_with_wrong_values_are_not_exported(tmp_path, target, fault):
    model = create_model("resnet8_w32", **NETWORK)
    variable, change, message = FAULTS[fault]
    chosen = next(each for each in model.weights if each.name == variable)
    chosen.assign(change(chosen.numpy()))
    with pytest.raises(UserError, match=message):
        export_model(model, tmp_path / "export", target=target, preprocess=PREPROCESS, labels=["a", "b", "c"])
    assert not (tmp_path / "export" / "1").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        "mixed_bfloat16",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("float32", "mixed_float16", "float16")),
    ],
)
@pytest.mark.parametrize("target", ["hub", "keras"])
def test_metadata_state_the_precision_that_computes(tmp_path, policy, target):
    keras.config.set_dtype_policy(policy)
    model = create_model("resnet8_w32", **NETWORK)
    keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    path = export_model(model, tmp_path / "export", target=target, preprocess=PREPROCESS)
    metadata = read_export(path).metadata
    assert metadata["precision"] == policy
    assert ("drift" in metadata) == (policy != "float32")
    exact = model(PREPROCESS.normalize(images), training=False).numpy()
    np.testing.assert_allclose(Predictor(path).logits(images), exact, rtol=1e-2, atol=1e-2)
    if policy != "float32":
        with pytest.raises(UserError, match=f"computes in {policy}, and target '{target}' keeps the layers"):
            export_model(model, tmp_path / "other", target=target, precision="float32")


def test_quantized_networks_are_not_exported(tmp_path):
    model = create_model("resnet8_w32", **NETWORK)
    model.get_layer("logits").quantize("int8")
    with pytest.raises(UserError, match="holds int8 values in "):
        export_model(model, tmp_path / "export")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("target", None), ("target", 3), ("target", ["serving"]), ("precision", None), ("precision", 16)),
        *(("precision", "float64"), ("preprocess", "imagenet"), ("data", "digits"), ("default_signature", 3)),
    ],
)
def test_arguments_of_an_export(network, tmp_path, argument, value):
    with pytest.raises(UserError, match=argument.replace("_", " ")):
        export_model(network, tmp_path / "export", **{argument: value})


def test_the_preprocessing_of_a_network_is_one():
    with pytest.raises(UserError, match="preprocess takes an ImagePreprocess"):
        create_model("resnet8_w32", **NETWORK).preprocess = "imagenet"
