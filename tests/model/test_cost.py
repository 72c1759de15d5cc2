"""Cost of networks against published numbers and TensorFlow's profiler."""

import keras
import pytest
import tensorflow as tf

from resnet_tf.model.cost import count_multiply_adds, count_saved_activations
from resnet_tf.model.create import create_model

# Billions at 224 pixels, as torchvision's documentation gives them (`_ops` of its weights).
TORCHVISION = {
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "resnext50_32x4d": 4.23,
    "wide_resnet50_2": 11.398,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_multiply_adds_are_the_published_ones(name):
    assert count_multiply_adds(create_model(name)) / 1e9 == pytest.approx(TORCHVISION[name], abs=5e-4)


@pytest.mark.parametrize("name", ["resnet20", "resnet18_d", "resnet50_v2"])
def test_multiply_adds_are_half_of_what_the_profiler_counts(name):
    model = create_model(name, num_classes=10, input_shape=(64, 64, 3))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    inputs = [tf.zeros([1, *layer.input.shape[1:]]) for layer in convolutions]
    counted = 0
    for layer, image in zip(convolutions, inputs, strict=True):
        graph = tf.function(layer.__call__).get_concrete_function(image).graph
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        counted += tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
    biases = sum(layer.units if isinstance(layer, keras.layers.Dense) else 0 for layer in convolutions)
    biases += sum(
        layer.output.shape[1] * layer.output.shape[2] * layer.filters
        for layer in convolutions
        if isinstance(layer, keras.layers.Conv2D) and layer.use_bias
    )
    assert 2 * count_multiply_adds(model) == counted - biases


def test_kept_numbers_of_a_small_network_by_hand():
    """Convolution, normalization, activation, pooling and head on 4x4 pixels."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(8, 3, padding="same")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    assert count_saved_activations(model) == (48 + 128 + 128 + 8, 128)
    assert count_multiply_adds(model) == 16 * 27 * 8 + 80


def test_an_open_size_has_no_cost():
    with pytest.raises(ValueError, match=r"cost of layer stem_conv is unknown: variable size"):
        count_multiply_adds(create_model("resnet18", input_shape=(None, None, 3)))
