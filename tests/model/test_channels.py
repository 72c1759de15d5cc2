"""Weights for three channels in networks with another number: against timm, and by what the methods promise."""

import functools

import numpy as np
import pytest
from conftest import SHARED_DATA, import_torch_zoo

from resnet_tf.config import load_config
from resnet_tf.core.errors import UserError
from resnet_tf.inputs import ImagePreprocess, SignalPreprocess, create_preprocess
from resnet_tf.model.create import convert_file, create_model
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.channels import METHODS, adapt_channels
from resnet_tf.model.weights.mapping import find_torch_dialect, to_torchvision
from resnet_tf.training.run import create_network

REAL = SHARED_DATA / "cifar_resnet" / "resnet20-12fca82f.th"
NETWORKS = {  # name -> timm's, for stems of one and of three convolutions, and with standardized kernels
    "resnet18": "resnet18",
    "resnet18_d": "resnet18d",
    "bit_r50x1": "resnetv2_50x1_bit",
}


def _kernel(channels=3):
    return np.random.default_rng(0).normal(size=(3, 3, channels, 8)).astype(np.float32)


def _images(channels, size=32):
    return np.random.default_rng(1).normal(size=(2, size, size, channels)).astype(np.float32)


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """Return a network for RGB, and the path of its weights."""
    path = tmp_path_factory.mktemp("weights") / "rgb.safetensors"
    model = create_model("resnet20", num_classes=10, input_shape=(32, 32, 3))
    model.preprocess = ImagePreprocess(size=(32, 32), mean=(0.1, 0.2, 0.6), std=(0.1, 0.2, 0.3))
    readers.write_safetensors(path, to_torchvision(model), model.metadata.to_dict())
    return model, path


def _adapted(path, channels, **options):
    return create_model("resnet20", num_classes=10, input_shape=(32, 32, channels), weights=path, **options)


def _reference(kernel, channels):
    """Return timm's adaptation of a kernel [h, w, in, out]."""
    torch = pytest.importorskip("torch")
    import_torch_zoo("timm")
    from timm.models import adapt_input_conv

    adapted = adapt_input_conv(channels, torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
    return adapted.numpy().transpose(2, 3, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7, 13])
@pytest.mark.skipif(not REAL.is_file(), reason="the CIFAR weights are not beside the checkout")
def test_repeated_kernels_equal_timms_on_real_weights(channels):
    plain = create_model("resnet20", num_classes=10, input_shape=(32, 32, 3), weights=REAL)
    adapted = _adapted(REAL, channels)
    expected = _reference(plain.get_layer("stem_conv").kernel.numpy(), channels)
    np.testing.assert_allclose(adapted.get_layer("stem_conv").kernel.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_answer_as_timms_with_another_number_of_channels(name, channels, tmp_path):
    timm, torch = import_torch_zoo("timm"), pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path / "rgb.safetensors"
    save_file(timm.create_model(NETWORKS[name]).state_dict(), path)
    overlay = {"file": str(path), "custom_load": False, "num_classes": 1000}
    theirs = timm.create_model(NETWORKS[name], pretrained=True, in_chans=channels, pretrained_cfg_overlay=overlay)
    ours = create_model(name, input_shape=(64, 64, channels), weights=path)
    images = _images(channels, 64)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours(images, training=False), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_repeated_kernels_follow_the_definition(channels):
    kernel = _kernel()
    expected = np.stack([kernel[:, :, channel % 3] for channel in range(channels)], 2) * 3 / channels
    expected = kernel.sum(axis=2, keepdims=True) if channels == 1 else expected
    np.testing.assert_allclose(adapt_channels(kernel, channels, method="repeat"), expected, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 3, 4, 12])
def test_equal_channels_give_the_response_of_a_gray_image(method, channels):
    """The sum over the channels is the response to an image whose channels are equal."""
    if method == "zero" and channels < 3:
        with pytest.raises(UserError, match="adapt_channels='zero' adds channels: the weights have 3 input"):
            adapt_channels(_kernel(), channels, method=method)
        return
    if method == "repeat" and channels % 3 and channels > 1:
        return  # the first channels have more weight
    found = adapt_channels(_kernel(), channels, method=method)
    np.testing.assert_allclose(found.sum(axis=2), _kernel().sum(axis=2), rtol=1e-5, atol=1e-5)


def test_a_gray_network_answers_as_one_for_color(rgb):
    model, path = rgb
    gray = _adapted(path, 1)
    images = _images(1)
    color = np.repeat(images, 3, axis=-1)
    np.testing.assert_allclose(gray(images, training=False), model(color, training=False), rtol=1e-3, atol=1e-4)
    assert (gray.preprocess.channels, gray.preprocess.input_shape) == (1, (32, 32, 1))
    np.testing.assert_allclose([gray.preprocess.mean, gray.preprocess.std], [[0.3], [0.2]])
    assert gray.labels == model.labels


def test_further_channels_with_zeros_change_nothing(rgb):
    model, path = rgb
    images = _images(4)
    wide = _adapted(path, 4, adapt_channels="zero")
    expected = model(images[..., :3], training=False)
    np.testing.assert_allclose(wide(images, training=False), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_thirteen_bands_take_the_weights_of_all_layers_but_the_first(rgb, method):
    model, path = rgb
    bands = _adapted(path, 13, adapt_channels=method, new_head=True)
    for theirs, ours in zip(model.layers, bands.layers, strict=True):
        if theirs.name not in ("stem_conv", "logits"):
            assert all(np.array_equal(a, b) for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True))
    expected = adapt_channels(model.get_layer("stem_conv").kernel.numpy(), 13, method=method)
    np.testing.assert_array_equal(bands.get_layer("stem_conv").kernel, expected)


def test_only_the_channels_of_the_first_convolution_may_differ(rgb):
    _, path = rgb
    with pytest.raises(UserError, match="does not fit resnet20; shapes"):
        create_model("resnet20", num_classes=10, input_shape=(32, 32, 4), weights=path, stem="conv7")
    with pytest.raises(UserError, match="adapt_channels='zero' has no effect without weights"):
        create_model("resnet20", adapt_channels="zero")


def test_the_adaptation_is_logged(rgb, caplog):
    _, path = rgb
    with caplog.at_level("INFO"):
        _adapted(path, 4)
        _adapted(path, 3)
    assert [each.message for each in caplog.records if "convolution" in each.message] == [
        "the first convolution takes 4 input channels instead of 3: repeat"
    ]


NOT_RGB = {  # case -> network, preprocessing, shape of the input
    "gray": ("resnet20", ImagePreprocess(size=(32, 32), channels=1, mean=(0.4,), std=(0.2,)), (32, 32, 1)),
    "RGBA": ("resnet20", None, (32, 32, 4)),
    "13 bands": ("wrn_16_4", None, (32, 32, 13)),
    "12 leads": ("resnet18_1d", SignalPreprocess(length=64, channels=12, mean=(0.5,) * 12, std=(2.0,) * 12), (64, 12)),
    "without stem": ("resnet_article", None, (16, 16, 2)),
}


@pytest.mark.parametrize("case", NOT_RGB)
def test_convert_keeps_the_number_of_channels(case, tmp_path):
    name, preprocess, shape = NOT_RGB[case]
    create = functools.partial(create_model, name, num_classes=3, input_shape=shape)
    model = create()
    model.preprocess = preprocess
    model.save_weights(tmp_path / "source.weights.h5")
    path = tmp_path / ("there.safetensors" if find_torch_dialect(model) else "there.keras")
    convert_file(tmp_path / "source.weights.h5", name, path, num_classes=3)
    convert_file(path, name, tmp_path / "back.weights.h5", num_classes=3)
    found = create(weights=tmp_path / "back.weights.h5")
    assert found.preprocess == preprocess
    inputs = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_array_equal(found(inputs, training=False), model(inputs, training=False))


@pytest.mark.parametrize("method", ["repeat", "average"])
def test_gray_data_take_weights_and_statistics_of_color(rgb, method):
    model, path = rgb
    settings = ["data.channels=1", f"model.weights={path}", f"model.adapt_channels={method}", "data.image_size=32"]
    config = load_config("imagefolder", [*settings, "model.name=resnet20"])
    gray = create_network(config, num_classes=10, weights=config.model.weights)
    expected = adapt_channels(model.get_layer("stem_conv").kernel.numpy(), 1, method=method)
    np.testing.assert_array_equal(gray.get_layer("stem_conv").kernel, expected)
    preprocess = create_preprocess(config.data, gray.preprocess)
    assert (preprocess.mean, preprocess.std) == (gray.preprocess.mean, gray.preprocess.std)
    assert create_network(config, num_classes=10).input_shape == (None, 32, 32, 1)
