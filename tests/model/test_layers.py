"""Custom layers against Keras's own and NumPy written from the paper."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.model import blocks
from resnet_tf.model.layers import BatchNormalization, EdgePadding, PadShortcut, StandardizedConv2D
from resnet_tf.model.zoo import MODELS

IMAGES = np.random.default_rng(0).normal(1.0, 2.0, (4, 5, 6, 7)).astype("float32")


def _pair(**kwargs) -> tuple[BatchNormalization, keras.layers.BatchNormalization]:
    """Ours and Keras's, with the same uneven parameters."""
    generator = np.random.default_rng(1)
    layers = (BatchNormalization(**kwargs), keras.layers.BatchNormalization(**kwargs))
    for layer in layers:
        layer.build(IMAGES.shape)
    values = [generator.uniform(0.5, 2.0, weight.shape) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(values)
    return layers


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "kwargs", [{}, {"scale": False}, {"center": False, "epsilon": 1e-5, "momentum": 0.9}, {"synchronized": True}]
)
def test_batch_normalization_equals_keras(training, kwargs):
    results = []
    for layer in _pair(**kwargs):
        images = tf.constant(IMAGES)
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=training)
            loss = tf.reduce_sum(
                outputs * tf.sin(tf.range(IMAGES.size, dtype=tf.float32)).numpy().reshape(IMAGES.shape)
            )
        sources = [images, *(variable.value for variable in layer.trainable_variables)]
        results.append([outputs, *tape.gradient(loss, sources), *layer.non_trainable_variables])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_synchronized_statistics_are_local_outside_of_a_replica():
    """Regression: `strategy.scope()` is no replica, and has no context to reduce the statistics in."""
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        ours, theirs = _pair(synchronized=True)
        np.testing.assert_allclose(ours(IMAGES, training=True), theirs(IMAGES, training=True), rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=2e-5)


def test_batch_normalization_uses_the_fused_kernel():
    layer = BatchNormalization()
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(tf.TensorSpec(IMAGES.shape)).graph
    assert [node.type for node in graph.get_operations() if "Norm" in node.type] == ["FusedBatchNormV3"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_batch_normalization_keeps_float32_statistics(policy):
    layer = BatchNormalization(dtype=policy, momentum=0.0)
    outputs = layer(IMAGES, training=True)
    assert outputs.dtype == layer.compute_dtype
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    rounded = tf.cast(tf.cast(IMAGES, layer.compute_dtype), tf.float64).numpy()
    np.testing.assert_allclose(layer.moving_mean, rounded.mean((0, 1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, rounded.var((0, 1, 2)), rtol=1e-5)


def test_batch_normalization_falls_back_to_keras():
    flat = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    for kwargs, images in (({}, flat), ({"axis": 1}, IMAGES)):
        ours, theirs = BatchNormalization(**kwargs), keras.layers.BatchNormalization(**kwargs)
        np.testing.assert_allclose(ours(images, training=True), theirs(images, training=True), rtol=1e-6)
        np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-6)


@pytest.mark.parametrize("ours_first", [True, False])
def test_weights_files_of_batch_normalization_are_interchangeable_with_keras(ours_first, tmp_path):
    def network(layer):
        inputs = keras.Input(IMAGES.shape[1:])
        return keras.Model(inputs, layer(inputs))

    pair = [network(layer) for layer in _pair(epsilon=1e-5)]
    source, target = pair if ours_first else pair[::-1]
    source.save_weights(tmp_path / "bn.weights.h5")
    target.set_weights([np.zeros_like(each) for each in target.get_weights()])
    target.load_weights(tmp_path / "bn.weights.h5")
    np.testing.assert_allclose(target(IMAGES), source(IMAGES), rtol=1e-5, atol=1e-5)


def test_batch_normalization_serializes():
    layer = BatchNormalization(momentum=0.8, epsilon=1e-4, scale=False, name="norm")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is BatchNormalization
    assert again.get_config() == layer.get_config()


def test_frozen_batch_normalization_keeps_its_statistics():
    layer = BatchNormalization()
    layer.trainable = False
    layer(IMAGES, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(7))


def test_pad_shortcut_subsamples_and_pads():
    outputs = PadShortcut(11, stride=2)(IMAGES)
    expected = np.zeros((4, 3, 3, 11), "float32")
    expected[..., 2:9] = IMAGES[:, ::2, ::2]
    np.testing.assert_array_equal(outputs, expected)
    assert PadShortcut(11, stride=2).compute_output_shape((None, 5, None, 7)) == (None, 3, None, 11)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_edge_padding_before_max_pooling_is_padding_with_minus_infinity(dtype):
    values = tf.cast(IMAGES - 100.0, dtype)
    with tf.GradientTape() as tape:
        tape.watch(values)
        pooled = tf.nn.max_pool2d(EdgePadding(dtype=dtype)(values), 3, 2, "VALID")
    padded = np.pad(values.numpy().astype("float32"), [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(pooled.numpy().astype("float32"), windows.max(axis=(-2, -1)))
    gradient = tf.cast(tape.gradient(pooled, values), tf.float32)
    assert float(tf.reduce_sum(gradient)) == pooled.numpy().size


def test_edge_padding_repeats_the_border():
    for values, widths in ((IMAGES, [(0, 0), (1, 1), (1, 1), (0, 0)]), (IMAGES[:, 0], [(0, 0), (1, 1), (0, 0)])):
        padded = EdgePadding()(values)
        np.testing.assert_array_equal(padded, np.pad(values, widths, mode="edge"))
        assert EdgePadding().compute_output_shape(values.shape) == padded.shape
    assert EdgePadding().compute_output_shape((None, None, 6, 7)) == (None, None, 8, 7)


@pytest.mark.parametrize("size", [6, 7])
def test_strided_convolution_pads_equally(size):
    """Compare with the sum over a 3x3 window with one pixel of padding, as in PyTorch."""
    images = np.random.default_rng(0).normal(size=(1, size, size, 1)).astype("float32")
    inputs = keras.Input((size, size, 1))
    model = keras.Model(inputs, blocks.conv(inputs, MODELS["resnet18"], 1, 3, stride=2, name="conv"))
    model.set_weights([np.ones((3, 3, 1, 1))])
    padded = np.pad(images[0, :, :, 0], 1)
    positions = range(0, size, 2)
    expected = [[padded[row : row + 3, column : column + 3].sum() for column in positions] for row in positions]
    np.testing.assert_allclose(model(images)[0, :, :, 0], expected, rtol=1e-5, atol=1e-5)


def test_standardized_convolution_by_hand():
    layer = StandardizedConv2D(4, 3, groups=1, use_bias=False)
    layer.build(IMAGES.shape)
    kernel = layer.kernel.numpy()
    standard = (kernel - kernel.mean((0, 1, 2))) / np.sqrt(kernel.var((0, 1, 2)) + 1e-8)
    np.testing.assert_allclose(layer(IMAGES), tf.nn.conv2d(IMAGES, standard, 1, "VALID"), rtol=1e-4, atol=1e-4)
