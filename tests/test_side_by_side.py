"""Statements of docs/pytorch_and_tensorflow.md, and the article's network in PyTorch and Keras."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from resnet_tf.model.create import create_model
from resnet_tf.model.metadata import Metadata
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.model.weights import mapping
from resnet_tf.model.zoo import get_arch

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import article_digits  # noqa: E402
import article_keras  # noqa: E402
import article_pytorch  # noqa: E402

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(0).normal(size=(4, 9, 8, 3)).astype("float32")


def _nchw(images: np.ndarray):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _nhwc(tensor) -> np.ndarray:
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


@pytest.fixture
def pair(tmp_path):
    """Return the article's network in PyTorch and Keras with equal weights and trained statistics."""
    torch.manual_seed(0)
    theirs = article_pytorch.ArticleNet()
    article_pytorch.train(theirs, steps=3)
    save_file({name: each.numpy() for name, each in theirs.state_dict().items()}, tmp_path / "article.safetensors")
    ours = article_keras.article_net()
    metadata = Metadata("resnet_article", get_arch("resnet_article"))
    mapping.load_weights(ResidualNetwork(ours.input, ours.output, metadata=metadata), tmp_path / "article.safetensors")
    return theirs, ours


def test_weights_convert_in_both_directions_with_equal_logits(pair, tmp_path):
    theirs, ours = pair
    images = article_digits.load()[2][:100]
    expected = theirs.eval()(_nchw(images)).detach().numpy()
    np.testing.assert_allclose(ours(images, training=False), expected, rtol=1e-5, atol=1e-5)

    ours.get_layer("logits").bias.assign_add(np.arange(10.0))
    save_file(mapping.to_torchvision(ours), tmp_path / "back.safetensors")
    state = {name: torch.from_numpy(array) for name, array in load_file(tmp_path / "back.safetensors").items()}
    theirs.load_state_dict(state, strict=False)
    returned = theirs.eval()(_nchw(images)).detach().numpy()
    np.testing.assert_allclose(returned, expected + np.arange(10), rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_losses_agree_at_each_step(pair):
    theirs, ours = pair
    expected = article_pytorch.train(theirs, steps=50, learning_rate=0.001)
    found = article_keras.train(ours, steps=50, learning_rate=0.001)
    assert expected[-1] < 0.9 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.long
def test_both_train():
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    networks = ((article_pytorch, article_pytorch.ArticleNet()), (article_keras, article_keras.article_net()))
    for module, model in networks:
        losses = module.train(model, steps=100)
        assert losses[-1] < 0.2 * losses[0]
        assert module.evaluate(model) > 0.9


def test_the_keras_network_is_resnet_article(tmp_path):
    example = article_keras.article_net()
    example.save_weights(tmp_path / "article.weights.h5")
    built = create_model(
        "resnet_article", num_classes=10, input_shape=(8, 8, 1), weights=tmp_path / "article.weights.h5"
    )
    images = article_digits.load()[2][:10]
    np.testing.assert_allclose(built(images), example(images), rtol=1e-5, atol=1e-6)


def test_convolution_kernels_are_transposed():
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)  # out, in, height, width -> height, width, in, out
    outputs = tf.nn.conv2d(IMAGES, kernel, 1, "SAME")
    np.testing.assert_allclose(outputs, _nhwc(layer(_nchw(IMAGES))), rtol=1e-4, atol=1e-5)


def test_linear_kernels_are_transposed():
    layer = torch.nn.Linear(8, 2)
    inputs = IMAGES[:, 0].reshape(4, -1)[:, :8]
    outputs = inputs @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(outputs, layer(torch.from_numpy(inputs)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_same_padding_with_a_stride_differs_from_pytorch():
    layer = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False)
    kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
    images = IMAGES[:, :8]
    expected = _nhwc(layer(_nchw(images)))
    assert np.abs(tf.nn.conv2d(images, kernel, 2, "SAME") - expected).max() > 0.1
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_allclose(tf.nn.conv2d(padded, kernel, 2, "VALID"), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_defaults_momentum_and_moving_variance():
    theirs, ours = torch.nn.BatchNorm2d(3), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    assert (theirs.eps, theirs.momentum) == (1e-5, 0.1)
    assert (keras.layers.BatchNormalization().epsilon, keras.layers.BatchNormalization().momentum) == (1e-3, 0.99)
    expected, found = _nhwc(theirs.train()(_nchw(IMAGES))), ours(IMAGES, training=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, theirs.running_mean, rtol=1e-4, atol=1e-6)
    # PyTorch averages the unbiased variance, Keras the biased one: the batch variances differ by N / (N - 1).
    count = IMAGES[..., 0].size
    biased = (theirs.running_var.numpy() - 0.9) * (count - 1) / count
    np.testing.assert_allclose(ours.moving_variance.numpy() - 0.9, biased, rtol=1e-3, atol=1e-6)


def test_flatten_orders_differ_and_global_pooling_does_not():
    flat_theirs = torch.flatten(_nchw(IMAGES), 1).numpy()
    flat_ours = keras.layers.Flatten()(IMAGES).numpy()
    assert not np.array_equal(flat_theirs, flat_ours)
    np.testing.assert_array_equal(flat_theirs, IMAGES.transpose(0, 3, 1, 2).reshape(4, -1))
    pooled = keras.layers.GlobalAveragePooling2D()(IMAGES)
    np.testing.assert_allclose(pooled, _nchw(IMAGES).mean((2, 3)), rtol=1e-4, atol=1e-6)


def test_default_initialization_differs():
    """PyTorch: uniform in +-1/sqrt(fan-in). Keras: Glorot's uniform in +-sqrt(6 / (fan-in + fan-out)), zero biases."""
    theirs, ours = torch.nn.Linear(400, 100), keras.layers.Dense(100)
    ours.build((None, 400))
    assert theirs.weight.abs().max().item() == pytest.approx(1 / 20, rel=0.01)
    assert np.abs(ours.kernel).max() == pytest.approx(np.sqrt(6 / 500), rel=0.01)
    assert theirs.bias.abs().max() > 0
    assert not np.any(ours.bias)
    convolution = create_model("resnet18", input_shape=(32, 32, 3)).get_layer("stage1_block1_conv1").kernel
    assert np.std(convolution) == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.05), "this package: He's, by fan-out"


def test_the_code_of_the_article_fails():
    assert not hasattr(keras.layers, "BatchNormalizing")
    feature_map = torch.zeros(1, 256, 32, 32)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.nn.Linear(256, 10)(torch.flatten(feature_map, 1))
