"""Logits and feature maps against installed torchvision and timm networks, in one process."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import LONG, import_torch_zoo
from safetensors.numpy import load_file, save_file

from resnet_tf.model.create import create_model

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import formula

pytestmark = pytest.mark.slow

# Every family that has a reference; the golden fixtures hold other members of most.
NETWORKS = {
    "resnet34": ("torchvision", "resnet34"),
    "resnet50": ("torchvision", "resnet50"),
    "resnet101": ("torchvision", "resnet101"),
    "resnext50_32x4d": ("torchvision", "resnext50_32x4d"),
    "resnext101_32x8d": ("torchvision", "resnext101_32x8d"),
    "wide_resnet50_2": ("torchvision", "wide_resnet50_2"),
    "resnet34_d": ("timm", "resnet34d"),
    "resnet101_d": ("timm", "resnet101d"),
    "seresnet50": ("timm", "seresnet50"),
    "seresnext50_32x4d": ("timm", "seresnext50_32x4d"),
    "resnet_rs50": ("timm", "resnetrs50"),  # deeper ones are chaotic under the formula, in PyTorch, too
    "bit_r50x1": ("timm", "resnetv2_50x1_bit"),
}


def _create(library, network, **settings):
    zoo = import_torch_zoo(library)
    create = zoo.models.get_model if library == "torchvision" else zoo.create_model
    return create(network, **settings).eval()


def _theirs(library, network, **settings):
    """Return the PyTorch network with weights from the formula."""
    import torch

    model = _create(library, network, **settings)
    state = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    filled = {name: torch.from_numpy(formula.weight(name, tuple(tensor.shape))) for name, tensor in state.items()}
    model.load_state_dict(filled, strict=False)
    return model


def _save(theirs, tmp_path) -> Path:
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def _assert_equal_outputs(ours, theirs, images):
    import torch

    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    found = ours(images, training=False).numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", [pytest.param(each, marks=LONG if "101" in each else ()) for each in NETWORKS])
def test_logits_are_alike(name, tmp_path):
    theirs = _theirs(*NETWORKS[name])
    ours = create_model(name, input_shape=(64, 64, 3), weights=_save(theirs, tmp_path))
    _assert_equal_outputs(ours, theirs, formula.images(2, 64))


@pytest.mark.parametrize(
    ("name", "network", "settings", "stride"),
    [
        ("resnet50", ("torchvision", "resnet50"), {"replace_stride_with_dilation": [False, False, True]}, 16),
        ("resnet50", ("torchvision", "resnet50"), {"replace_stride_with_dilation": [False, True, True]}, 8),
        ("resnet18", ("timm", "resnet18"), {"output_stride": 8}, 8),
        ("resnet50_d", ("timm", "resnet50d"), {"output_stride": 16}, 16),
        ("resnet18_d", ("timm", "resnet18d"), {"output_stride": 8}, 8),
        ("seresnext50_32x4d", ("timm", "seresnext50_32x4d"), {"output_stride": 8}, 8),
        ("resnet_rs50", ("timm", "resnetrs50"), {"output_stride": 16}, 16),
        ("bit_r50x1", ("timm", "resnetv2_50x1_bit"), {"output_stride": 8}, 8),
    ],
)
def test_dilated_networks_are_alike(name, network, settings, stride, tmp_path):
    theirs = _theirs(*network, **settings)
    path = _save(theirs, tmp_path)
    ours = create_model(name, input_shape=(96, 96, 3), weights=path, output_stride=stride)
    _assert_equal_outputs(ours, theirs, formula.images(2, 96))


@pytest.mark.parametrize(
    ("name", "network", "theirs", "ours"),
    [
        ("resnet50", "resnet50", {"act_layer": "silu"}, {"activation": "silu"}),
        ("resnet18", "seresnet18", {}, {"se_ratio": 1 / 16}),
    ],
)
def test_networks_with_options_are_alike(name, network, theirs, ours, tmp_path):
    reference = _theirs("timm", network, **theirs)
    model = create_model(name, input_shape=(64, 64, 3), weights=_save(reference, tmp_path), **ours)
    _assert_equal_outputs(model, reference, formula.images(2, 64))


@pytest.mark.parametrize(("name", "network"), [("resnet50", "resnet50"), ("resnet18_d", "resnet18d")])
def test_feature_pyramids_are_alike(name, network, tmp_path):
    torch = pytest.importorskip("torch")
    path = _save(_theirs("timm", network), tmp_path)
    theirs = _create("timm", network, features_only=True)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in load_file(path).items()}, strict=False)
    stages = ("stage1", "stage2", "stage3", "stage4")
    ours = create_model(name, input_shape=(64, 64, 3), weights=path, features=stages)
    images = formula.images(2, 64)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    found = ours(images, training=False)
    for stage, map_ in zip(stages, expected[1:], strict=True):
        reference = map_.permute(0, 2, 3, 1).numpy()
        assert np.abs(found[stage] - reference).max() < 1e-4 * np.abs(reference).max()
