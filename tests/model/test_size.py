"""Parameter counts against built networks and torchvision's."""

import dataclasses

import pytest
from conftest import LONG, import_torch_zoo

from resnet_tf.model.create import create_model
from resnet_tf.model.size import count_parameters
from resnet_tf.model.weights.published import PRETRAINED
from resnet_tf.model.zoo import MODELS

# One network for each stem, block and shortcut; the first ones are small.
SMALL = ("resnet20", "resnet18_1d", "wrn_16_4", "resnet_article", "plain20", "resnet8_pool")
FAMILIES = ("resnet18_d", "resnet50_v2", "resnext50_32x4d", "seresnet50", "resnet_rs50", "bit_r50x1", "resnet50_v1")
LARGE = [name for name in MODELS if name not in (*SMALL, *FAMILIES)]


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(each, marks=LONG) for each in LARGE)])
def test_counts_are_those_of_built_networks(name):
    size = (None,) * MODELS[name].dimensions
    model = create_model(name, num_classes=7, input_shape=(*size, 4))
    parameters, statistics = count_parameters(MODELS[name], num_classes=7, channels=4)
    assert parameters + statistics == model.count_params()
    assert parameters == sum(each.value.shape.num_elements() for each in model.trainable_weights)


@pytest.mark.parametrize(
    "changes",
    [{"se_ratio": 1 / 16}, {"widths": (64, 64, 64, 64), "output_stride": 8}],
    ids=["narrow gates", "dilation in place of a projection"],
)
def test_counts_with_options_are_those_of_built_networks(changes):
    arch = dataclasses.replace(MODELS["resnet18"], **changes)
    model = create_model("resnet18", num_classes=7, input_shape=(None, None, 3), **changes)
    assert sum(count_parameters(arch, num_classes=7)) == model.count_params()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_counts_of_families_are_those_of_built_networks(name):
    test_counts_are_those_of_built_networks(name)


@pytest.mark.slow
def test_counts_are_those_of_torchvision():
    models = import_torch_zoo("torchvision").models
    for name in (name for name, rows in PRETRAINED.items() if any(each.startswith("torchvision") for each in rows)):
        published = models.get_model_weights(name).IMAGENET1K_V1.meta["num_params"]
        assert count_parameters(MODELS[name], num_classes=1000)[0] == published
