"""Import and export of weights, against torchvision, timm and keras.applications; refusals."""

import dataclasses
import itertools
import json
import re
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import LONG, shallow
from safetensors.numpy import load_file, save_file

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import presets
from resnet_tf.model import create
from resnet_tf.model.arch import Arch
from resnet_tf.model.create import create_model
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.weights import hub_upload, mapping, readers
from resnet_tf.model.zoo import MODELS
from resnet_tf.serving.export import export_model
from resnet_tf.serving.layers import merged_weights

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import formula  # noqa: E402 (lies beside the fixture that it made)

PARITY = np.load(GOLDEN / "parity.npz")
NETWORKS = sorted({name.split("/")[0] for name in PARITY})


def _state_dict(name: str) -> dict[str, np.ndarray]:
    shapes = json.loads(bytes(PARITY[f"{name}/shapes"]))
    return {key: formula.weight(key, tuple(shape)) for key, shape in shapes.items()}


def _save(tmp_path, arrays) -> Path:
    save_file(arrays, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def _difference(found, expected) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_equal_the_original_librarys_and_weights_go_back_as_they_came(name, tmp_path):
    expected, state = PARITY[f"{name}/logits"], _state_dict(name)
    assert _difference(expected[0], expected[1]) > 0.05, "the fixture distinguishes images"
    model = create_model(name, input_shape=(64, 64, 3), weights=_save(tmp_path, state))
    assert _difference(model(formula.images(2, 64), training=False).numpy(), expected) < 1e-4
    back = mapping.to_torchvision(model)
    assert set(back) == set(state)
    for key, array in back.items():
        np.testing.assert_array_equal(array, state[key])


@pytest.mark.parametrize("name", ["resnet18", "resnet8_w32"])
def test_lora_is_stored_as_a_part_of_the_kernels(name, tmp_path):
    """Hu et al., LoRA, 2021: W + alpha / r A B, for networks with and without names in PyTorch."""
    model = create_model(name, num_classes=3, input_shape=(32, 32, 3))
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            layer.enable_lora(2, lora_alpha=6)
            layer.lora_kernel_b.assign(generator.normal(0.0, 0.1, layer.lora_kernel_b.shape))
    head = model.get_layer("logits")
    expected = head._kernel.numpy() + 3 * head.lora_kernel_a.numpy() @ head.lora_kernel_b.numpy()
    np.testing.assert_allclose(mapping.named_values(model)["logits", "kernel"], expected, rtol=1e-5, atol=1e-6)
    hub_upload.write_repository(model, tmp_path)
    loaded = create_model(name, num_classes=3, input_shape=(32, 32, 3), weights=tmp_path / "model.safetensors")
    images = formula.images(2, 32)
    np.testing.assert_allclose(loaded(images, training=False), model(images, training=False), rtol=1e-5, atol=1e-5)


def test_lora_is_merged_in_float32():
    """Regression: the attribute `kernel` of Keras's layers is rounded to the dtype of the computation."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = create_model("resnet8_w32", num_classes=3, input_shape=(8, 8, 1))
    layer = model.get_layer("stem_conv")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.random.default_rng(0).normal(0.0, 0.1, layer.lora_kernel_b.shape))
    expected = layer._kernel.numpy() + layer.lora_kernel_a.numpy() @ layer.lora_kernel_b.numpy()
    np.testing.assert_allclose(mapping.named_values(model)["stem_conv", "kernel"], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(merged_weights(layer)[0], expected, rtol=1e-6, atol=1e-7)


def _application(name: str) -> keras.Model:
    applications = {
        "resnet50_v1": "ResNet50",
        "resnet101_v1": "ResNet101",
        "resnet50_v2": "ResNet50V2",
        "resnet101_v2": "ResNet101V2",
    }
    model = getattr(keras.applications, applications[name])(
        weights=None, input_shape=(64, 64, 3), classifier_activation=None
    )
    for layer in model.layers:
        layer.set_weights([formula.weight(f"{layer.name}/{each.name}", tuple(each.shape)) for each in layer.weights])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["keras 3", "keras 2"])
@pytest.mark.parametrize(
    "name",
    [
        *("resnet50_v1", "resnet50_v2"),
        *(pytest.param(name, marks=LONG) for name in ("resnet101_v1", "resnet101_v2")),
    ],
)
def test_logits_equal_keras_applications(name, layout, tmp_path):
    """With biases before BatchNorm and another epsilon, which are absorbed exactly."""
    theirs = _application(name)
    path = tmp_path / "theirs.weights.h5"
    if layout == "keras 3":
        theirs.save_weights(path)
    else:
        _save_keras_2(theirs, path)
    ours = create_model(name, input_shape=(64, 64, 3), weights=path)
    images = formula.images(2, 64)
    assert _difference(ours(images, training=False).numpy(), theirs(images, training=False).numpy()) < 1e-4


def _save_keras_2(model: keras.Model, path: Path) -> None:
    """The layout of the files that keras.applications downloads: a group a layer, names with `:0`, a head `probs`."""
    names = {layer.name: layer.name.replace("predictions", "probs") for layer in model.layers}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names.values()]
        for layer in model.layers:
            name = names[layer.name]
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{each.name}:0".encode() for each in layer.weights]
            for each in layer.weights:
                group[f"{name}/{each.name}:0"] = each.numpy()


FAMILIES = (
    *("resnet8_pool", "resnet18", "resnet50", "resnet50_v1", "resnet50_v2", "resnet200_v2", "resnet18_d", "resnet50_d"),
    *("seresnet50", "seresnext50_32x4d", "resnext50_32x4d", "wide_resnet50_2", "resnet_rs50", "bit_r50x1"),
    *("resnet20", "resnet164_v2", "wrn_16_4", "plain18", "plain20", "resnet8_w32", "resnet_article"),
)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_our_own_files_come_back(name, suffix, tmp_path):
    first, second = (shallow(name, num_classes=3, input_shape=(32, 32, 1)) for _ in range(2))
    for variable in first.weights:
        variable.assign(formula.weight(variable.path, tuple(variable.shape)))
    path = tmp_path / f"ours{suffix}"
    first.save(path) if suffix == ".keras" else first.save_weights(path)
    mapping.load_weights(second, path)
    for ours, theirs in zip(second.weights, first.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    if suffix == ".keras":
        images = formula.images(2, 32)[..., :1]
        loaded = keras.models.load_model(path)
        np.testing.assert_array_equal(loaded(images, training=False), first(images, training=False))


BODIES = {
    "new_head": {"num_classes": 5},
    "num_classes=0": {"num_classes": 0},
    "features": {"num_classes": 3, "features": ("stage2",)},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_bodies_of_our_own_files_come_back(name, tmp_path):
    """With a new head, without a head, and as feature maps."""
    whole, path = shallow(name, num_classes=3, input_shape=(32, 32, 1)), tmp_path / "whole.weights.h5"
    for variable in whole.weights:
        variable.assign(formula.weight(variable.path, tuple(variable.shape)))
    whole.save_weights(path)
    for case, settings in BODIES.items():
        body = shallow(name, input_shape=(32, 32, 1), **settings)
        mapping.load_weights(body, path, new_head=case == "new_head")
        for layer in body.layers:
            if layer.name != "logits":
                for ours, theirs in zip(layer.weights, whole.get_layer(layer.name).weights, strict=True):
                    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("target", ["hub_features", pytest.param("hub", marks=LONG)])
def test_a_network_with_poolings_is_initialized_from_its_exports(target, tmp_path):
    model = create_model("resnet8_pool", num_classes=3, input_shape=(16, 16, 3))
    path = export_model(model, tmp_path, target=target)
    found = create_model("resnet8_pool", num_classes=5, input_shape=(16, 16, 3), weights=path, new_head=True)
    for ours, theirs in zip(found.layers[:-1], model.layers[:-1], strict=True):
        for variable, expected in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(variable, expected)


@pytest.mark.parametrize("name", dict.fromkeys(["resnet8_pool", *MODELS]))
def test_every_weight_has_a_name_or_is_refused(name):
    """Names depend on the types of layers, not on their number: one block per stage is enough."""
    arch = MODELS[name]
    model = shallow(name, input_shape=(64,) * arch.dimensions + (3,), num_classes=2)
    if arch.transition == "pool" or (arch.preactivation and arch.norm == "batch"):
        with pytest.raises(UserError, match=r"has layers that neither torchvision nor timm has"):
            mapping.to_torchvision(model)
    else:
        assert len(mapping.to_torchvision(model)) == len(model.weights)


def test_a_class_head_is_dropped_or_replaced_on_request(tmp_path):
    state = _state_dict("resnet18")
    path = _save(tmp_path, state)
    features = create_model("resnet18", num_classes=0, input_shape=(64, 64, 3), weights=path)
    with pytest.raises(UserError, match=r"fc.weight \(512, 1000\) for \(512, 10\).*new_head=True keeps the head"):
        create_model("resnet18", num_classes=10, input_shape=(64, 64, 3), weights=path)
    tuned = create_model("resnet18", num_classes=10, input_shape=(64, 64, 3), weights=path, new_head=True)
    images = formula.images(2, 64)
    pooled = keras.Model(tuned.input, tuned.get_layer("pool").output)(images, training=False)
    np.testing.assert_array_equal(pooled, features(images, training=False))
    logits = features(images, training=False).numpy() @ state["fc.weight"].T + state["fc.bias"]
    assert _difference(logits, PARITY["resnet18/logits"]) < 1e-4


def test_names_of_data_parallel_cifar_checkpoints(tmp_path):
    """akamaster's files: `module.` before every name, and option A, which has no weights."""
    model = create_model("resnet20", num_classes=10, input_shape=(32, 32, 3))
    state = mapping.to_torchvision(model)
    assert "layer1.0.conv1.weight" in state
    renamed = {f"module.{key}".replace("module.fc.", "module.linear."): array for key, array in state.items()}
    renamed["module.bn1.num_batches_tracked"] = np.array(3)
    again = create_model("resnet20", num_classes=10, input_shape=(32, 32, 3), weights=_save(tmp_path, renamed))
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_wrong_files_are_named_and_nothing_is_half_loaded(tmp_path):
    model = create_model("resnet18", input_shape=(64, 64, 3))
    before = [each.copy() for each in model.get_weights()]

    def refused(message, arrays=None, path=None):
        path = path or _save(tmp_path, arrays)
        with pytest.raises(UserError, match=message):
            mapping.load_weights(model, path)

    state = _state_dict("resnet18")
    refused(
        r"not hold the weights of resnet18; unexpected layer1.0.bn3.bias, .* and 161 more; it looks like resnet50 or",
        _state_dict("resnet50"),
    )
    refused(r"missing layer2.1.bn2.running_mean$", {k: v for k, v in state.items() if k != "layer2.1.bn2.running_mean"})
    refused(r"unexpected extra$", state | {"extra": np.zeros(3, "float32")})
    refused(
        r"shapes layer1.0.conv1.weight \(3, 3, 64, 32\) for",
        state | {"layer1.0.conv1.weight": np.zeros((32, 64, 3, 3), "float32")},
    )
    poisoned = state["layer3.0.conv2.weight"].copy()
    poisoned[3, 3] = np.nan
    refused(r"not finite, in 'layer3.0.conv2.weight'", state | {"layer3.0.conv2.weight": poisoned})
    whole = _save(tmp_path, state).read_bytes()
    for suffix in (".safetensors", ".h5", ".npz", ".keras"):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(whole[:1000])
        refused(rf"cut{suffix}' is corrupt or not a {suffix} file", path=cut)
    refused(r"no weights file 'nowhere.h5'", path=Path("nowhere.h5"))
    (tmp_path / "notes.txt").write_text("")
    refused(
        r"cannot read weights from 'notes.txt'; supported suffixes: .safetensors, .npz, .pth",
        path=tmp_path / "notes.txt",
    )
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_pickles_give_arrays_and_run_nothing(tmp_path):
    torch = pytest.importorskip("torch")
    model = create_model("resnet18", input_shape=(64, 64, 3))
    before = [each.copy() for each in model.get_weights()]
    state = {key: torch.from_numpy(array) for key, array in _state_dict("resnet18").items()}
    harmful, cut, listed = (tmp_path / f"{name}.pth" for name in ("harmful", "cut", "listed"))
    torch.save({"state_dict": state, "extra": _Harmful(tmp_path / "harm")}, harmful)
    torch.save(state, cut)
    cut.write_bytes(cut.read_bytes()[:-1000])
    torch.save(list(state.values()), listed)
    for path, message in (
        (
            harmful,
            "'.*harmful.pth' contains objects other than arrays, which are not loaded because they could run code",
        ),
        (cut, "'.*cut.pth' is corrupt or not a .pth file"),
        (listed, "'.*listed.pth' contains list, not a state dict"),
    ):
        with pytest.raises(UserError, match=message):
            mapping.load_weights(model, path)
    assert not (tmp_path / "harm").exists()
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    torch.save({"model": state}, tmp_path / "good.pth")
    mapping.load_weights(model, tmp_path / "good.pth")
    np.testing.assert_array_equal(model.get_layer("logits").bias, state["fc.bias"])


class _Harmful:
    """An object that writes a file when it is unpickled without restrictions."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_network_with_another_first_convolution_is_refused(tmp_path):
    path = _save(tmp_path, _state_dict("resnet18"))
    for channels in (3, 1):  # a kernel of the same size is adapted to other channels, see test_channels.py
        with pytest.raises(UserError, match=rf"shapes conv1.weight \(7, 7, 3, 64\) for \(3, 3, {channels}, 64\)$"):
            create_model("resnet18", input_shape=(64, 64, channels), weights=path, stem="small")


def test_a_network_of_another_depth_is_recognised(tmp_path):
    for name, likeness in (("resnet34", "resnet34 or"), ("resnet50_v2", "resnet50")):
        other = create_model(name, num_classes=10, input_shape=(64, 64, 3))
        other.save_weights(tmp_path / "other.weights.h5")
        with pytest.raises(UserError, match=rf"it looks like {likeness}"):
            create_model("resnet18", num_classes=10, input_shape=(64, 64, 3), weights=tmp_path / "other.weights.h5")


def test_convert_there_and_back(command, tmp_path):
    path = _save(tmp_path, _state_dict("resnet18"))
    keras_file, back = tmp_path / "resnet18.weights.h5", tmp_path / "back.safetensors"
    there = command("convert", f"--from={path}", "--model=resnet18", f"--to={keras_file}")
    assert there.out == f"{keras_file}: resnet18, read as torchvision\n", there.err
    assert command("convert", f"--from={keras_file}", "--model=resnet18", f"--to={back}").code == 0
    original, returned = load_file(path), load_file(back)
    assert set(original) == set(returned)
    for name, array in original.items():
        np.testing.assert_array_equal(returned[name], array)
    assert {each.name for each in tmp_path.iterdir()} == {path.name, keras_file.name, back.name}


def test_convert_refuses(command, tmp_path):
    path = _save(tmp_path, _state_dict("resnet18"))
    for arguments, message in (
        ([f"--from={path}", "--model=resnet18"], "--to is missing"),
        ([f"--from={path}", "--model=resnet18", "--to=x.pth"], "'x.pth' must end in .weights.h5, .keras, .safetensors"),
        ([f"--from={path}", "--model=resnet18", "--to=none/x.keras"], "there is no directory"),
        ([f"--from={path}", "--model=resnet1", f"--to={tmp_path}/x.keras"], "unknown model 'resnet1'"),
        ([f"--from={path}", "--model=resnet34", f"--to={tmp_path}/x.keras"], f"'{path}' does not hold the weights of"),
    ):
        outcome = command("convert", *arguments)
        assert outcome.code == 2
        assert outcome.err.startswith(f"error: {message}")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_convert_warns_of_other_outputs_in_pytorch(tmp_path, caplog):
    """plain20 has the names of resnet20, but no shortcuts; resnet50_v1 those of resnet50, with strides elsewhere."""
    create_model("plain20", num_classes=3, input_shape=(32, 32, 3)).save_weights(tmp_path / "from.weights.h5")
    create.convert_file(tmp_path / "from.weights.h5", "plain20", tmp_path / "to.safetensors", num_classes=3)
    (warning,) = caplog.messages
    assert warning.startswith(
        "plain20 has shortcut='none'; the network of torchvision with the same names has shortcut="
    )
    networks = {name: shallow(name, num_classes=3, input_shape=(32, 32, 3)) for name in ("resnet50", "resnet50_v1")}
    assert not create._describe_difference_to_torch(networks["resnet50"])
    networks["resnet50_v1"].preprocess = presets.KERAS_V1
    assert create._describe_difference_to_torch(networks["resnet50_v1"]) == (
        "resnet50_v1 has stride_conv=1, channel_order='bgr'; the network of torchvision with the same names has "
        "stride_conv=2, channel_order='rgb', and computes other outputs with these weights"
    )


def _signature(name: str) -> tuple:
    """Return depths, and names and shapes in the weights file of a network with one block per stage."""
    model = shallow(name, input_shape=(64,) * MODELS[name].dimensions + (3,), num_classes=2)
    variables = mapping.named_variables(model)
    return MODELS[name].depths, tuple(sorted((names, tuple(each.shape)) for names, each in variables.items()))


def _look_alikes() -> list[tuple[str, str]]:
    """Return ordered pairs of networks with equal names and shapes in their files."""
    alike: dict[tuple, list[str]] = {}
    for name in MODELS:
        alike.setdefault(_signature(name), []).append(name)
    return [pair for names in alike.values() for pair in itertools.permutations(names, 2)]


def _of(model: keras.Model, arch: Arch) -> ResidualNetwork:
    """Return a network of the same layers with the metadata of another architecture."""
    return ResidualNetwork(model.input, model.output, model.name, metadata=Metadata(model.name, arch))


def _dialect_file(dialect: mapping.Dialect, name: str, path: Path, metadata=None) -> Path:
    """Write the weights of a network with one block per stage in a dialect."""
    model = shallow(name, input_shape=(64,) * MODELS[name].dimensions + (3,), num_classes=2)
    arrays = {}
    for names, variable in mapping.named_variables(model).items():
        array = variable.numpy()
        arrays[dialect.key(*names)] = mapping._to_torch(array, dialect, names) if dialect.torch_layout else array
    readers.write_safetensors(path, arrays, metadata or {})
    return path


@pytest.mark.slow
def test_look_alikes_are_the_known_ones():
    found = {tuple(sorted(pair)) for pair in _look_alikes()}
    versions = {(f"resnet{depth}", f"resnet{depth}_v1") for depth in (50, 101, 152)}
    assert found == versions | {(f"plain{depth}", f"resnet{depth}") for depth in (20, 32, 44, 56)}
    for pair in found:  # a file of another library fits at most one of them, one of this package names its architecture
        for dialect in mapping.DIALECTS:
            fitting = [name for name in pair if not MODELS[name].conflicts(dialect.implies)]
            assert len(fitting) < 2 or dialect.name == "resnet_tf", (dialect.name, pair)
        assert all(MODELS[ours].differences(MODELS[theirs]) for ours, theirs in (pair, pair[::-1]))


@pytest.mark.slow
@pytest.mark.long
def test_weights_of_a_look_alike_are_refused_and_the_network_that_fits_is_named(tmp_path):
    """Every dialect that implies one of the two, and files of this package, which store the name."""
    refused = set()
    for theirs, ours in _look_alikes():
        if not theirs.startswith(("resnet50", "resnet20", "plain20")):
            continue  # with one block a stage, deeper ones are the same
        model = shallow(ours, input_shape=(64, 64, 3), num_classes=2)
        before = model.get_weights()
        for dialect in mapping.DIALECTS:
            possible = [
                all(getattr(MODELS[name], key) in values for key, values in dialect.implies.items())
                for name in (theirs, ours)
            ]
            if not all(dialect.key(*names) for names in mapping.named_variables(model)):
                continue
            implied = [{}] if possible == [True, False] else []
            for metadata in (
                *implied,
                {"model": theirs},
                {"model": theirs, "arch": dataclasses.asdict(MODELS[theirs])},
            ):
                path = _dialect_file(dialect, theirs, tmp_path / "theirs.safetensors", metadata)
                with pytest.raises(UserError, match=rf"{ours} has .* but other results. Use {theirs}$"):
                    mapping.load_weights(_of(model, MODELS[ours]), path)
                refused.add((dialect.name, theirs, ours, bool(metadata)))
        for now, then in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)
    for case in (
        ("keras.applications", "resnet50_v1", "resnet50", False),
        ("torchvision", "resnet50", "resnet50_v1", False),
        ("akamaster CIFAR", "resnet20", "plain20", False),
        ("torchvision", "resnet20", "plain20", False),
        ("torchvision", "plain20", "resnet20", True),
        ("resnet_tf", "resnet50", "resnet50_v1", True),
    ):
        assert case in refused


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("layout", ["keras 3", "keras 2", "whole model"])
def test_keras_applications_resnet50_is_not_torchvisions(layout, tmp_path):
    theirs = _application("resnet50_v1")
    path = tmp_path / ("theirs.keras" if layout == "whole model" else "theirs.weights.h5")
    if layout == "keras 2":
        _save_keras_2(theirs, path)
    else:
        theirs.save(path) if layout == "whole model" else theirs.save_weights(path)
    message = (
        r"come from keras.applications, a network with stride_conv=1; resnet50 has stride_conv=2.* Use resnet50_v1$"
    )
    with pytest.raises(UserError, match=message):
        create_model("resnet50", input_shape=(64, 64, 3), weights=path)
    create_model("resnet50", input_shape=(64, 64, 3), weights=path, stride_conv=1)


@pytest.mark.parametrize(
    ("dialect", "name", "knobs", "fits"),
    [
        ("torchvision", "resnet50", {"shortcut": "average"}, "resnet50"),
        ("torchvision", "resnext50_32x4d", {"stride_conv": 1}, "resnext50_32x4d"),
        ("timm", "resnet50_d", {"shortcut": "projection"}, "resnet50_d"),
        ("timm", "resnet_rs50", {"stride_block": "last"}, "resnet_rs50"),
        ("keras.applications V2", "resnet50_v2", {"stride_block": "first"}, "resnet50_v2"),
        ("keras.applications V2", "resnet50_v2", {"stride_conv": 1}, "resnet50_v2"),
        ("timm BiT", "bit_r50x1", {"standardize": False}, "bit_r50x1"),
        ("akamaster CIFAR", "resnet20", {"shortcut": "none"}, "resnet20"),
    ],
)
def test_knobs_that_no_name_or_shape_shows(dialect, name, knobs, fits, tmp_path):
    (row, *_) = (each for each in mapping.DIALECTS if each.name == dialect)
    model = shallow(name, input_shape=(64, 64, 3), num_classes=2)
    path = _dialect_file(row, name, tmp_path / "weights.safetensors")
    mapping.load_weights(_of(model, MODELS[name]), path)
    with pytest.raises(UserError, match=rf"Use {fits}$"):
        mapping.load_weights(_of(model, dataclasses.replace(MODELS[name], **knobs)), path)


def test_knobs_that_files_do_not_store_are_free(tmp_path):
    """Dilation, another activation and regularization are chosen wherever weights are used."""
    path = _save(tmp_path, _state_dict("resnet50"))
    knobs = {"output_stride": 8, "activation": "silu", "stochastic_depth": 0.1, "zero_gamma": False}
    create_model("resnet50", input_shape=(64, 64, 3), weights=path, **knobs)


def test_files_that_keras_saved_store_the_name(tmp_path):
    ours, other = (
        _of(shallow(name, input_shape=(64, 64, 3), num_classes=2), MODELS[name]) for name in ("resnet50_v1", "resnet50")
    )
    ours.save(tmp_path / "ours.keras")
    with pytest.raises(UserError, match=r"were written for resnet50_v1, .* Use resnet50_v1$"):
        mapping.load_weights(other, tmp_path / "ours.keras")


@pytest.mark.parametrize(
    "text", ["[]", "7", '"x"', "{", "[" * 100_000, '{"model": [1], "arch": [2]}', '{"arch": {"x": 1}}']
)
def test_strange_metadata_is_refused_or_ignored_in_one_line(text, tmp_path):
    path = _save(tmp_path, _state_dict("resnet18"))
    save_file(load_file(path), path, {"resnet_tf": text})
    model = create_model("resnet18", input_shape=(64, 64, 3))
    if text.endswith("}"):
        mapping.load_weights(model, path)
    else:
        with pytest.raises(UserError, match=r"the metadata of the weights in .* is corrupt"):
            mapping.load_weights(model, path)


@pytest.mark.slow
@pytest.mark.long
def test_convert_keeps_the_architecture(command, tmp_path):
    """A file of resnet50_v1 under torchvision's names comes back as resnet50_v1 alone."""
    theirs = _application("resnet50_v1")
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    torch_names = tmp_path / "v1.safetensors"
    there = command("convert", f"--from={tmp_path}/theirs.weights.h5", "--model=resnet50_v1", f"--to={torch_names}")
    assert there.code == 0, there.err
    refused = command("convert", f"--from={torch_names}", "--model=resnet50", f"--to={tmp_path}/x.keras")
    assert refused.code == 2
    assert re.search(r"were written for resnet50_v1, a network with stride_conv=1; .* Use resnet50_v1$", refused.err)
    assert command("convert", f"--from={torch_names}", "--model=resnet50_v1", f"--to={tmp_path}/x.keras").code == 0
