"""The networks by name: published sizes, shapes, refusals."""

import keras
import numpy as np
import pytest

from resnet_tf.errors import UserError
from resnet_tf.model.zoo import MODELS, create_model, list_models

# Trainable parameters with the head of the source: 1,000 classes for ImageNet, 10 for CIFAR and the small ones.
PUBLISHED_PARAMETER_COUNTS = {
    # torchvision, "num_params" of each weights entry
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    # The stride's place takes no parameters; keras.applications has 26,560, 52,544 and 75,712 more (convolution biases
    # before a normalisation, which they cannot outlive).
    "resnet50_v1": 25_557_032,
    "resnet101_v1": 44_549_160,
    "resnet152_v1": 60_192_808,
    # keras.applications, trainable part of count_params()
    "resnet50_v2": 25_568_360,
    "resnet101_v2": 44_577_896,
    "resnet152_v2": 60_236_904,
    # github akamaster/pytorch_resnet_cifar10 (0.27M, 0.46M, 0.66M, 0.85M, 1.7M), option A
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    # Counted by hand in test_hand_counts
    "resnet8_w32": 308_650,
    "resnet_article": 600_586,
}


def _trainable(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_every_model_has_a_published_count():
    assert set(MODELS) == set(PUBLISHED_PARAMETER_COUNTS)


@pytest.mark.parametrize("name", list_models())
def test_parameter_count(name):
    classes = 1000 if MODELS[name].stem == "conv7" else 10
    assert _trainable(create_model(name, num_classes=classes)) == PUBLISHED_PARAMETER_COUNTS[name]


def test_hand_counts():
    def conv(kernel, inputs, outputs):
        return kernel * kernel * inputs * outputs + 2 * outputs  # without bias, with gamma and beta

    digits = conv(3, 3, 32) + 2 * conv(3, 32, 32)
    digits += conv(3, 32, 64) + conv(3, 64, 64) + conv(1, 32, 64)
    digits += conv(3, 64, 128) + conv(3, 128, 128) + conv(1, 64, 128) + 128 * 10 + 10
    assert digits == PUBLISHED_PARAMETER_COUNTS["resnet8_w32"]

    article = conv(3, 3, 64) + conv(3, 64, 64) + conv(3, 64, 128) + conv(3, 128, 128) + conv(3, 128, 256)
    article += conv(1, 3, 64) + conv(1, 64, 128) + conv(1, 128, 256) + 256 * 10 + 10
    assert article == PUBLISHED_PARAMETER_COUNTS["resnet_article"]


@pytest.mark.parametrize("name", ["resnet50_v2", "resnet101_v2", "resnet152_v2"])
def test_v2_equals_keras_applications(name):
    application = {"resnet50_v2": "ResNet50V2", "resnet101_v2": "ResNet101V2", "resnet152_v2": "ResNet152V2"}[name]
    theirs = getattr(keras.applications, application)(weights=None)
    ours = create_model(name)
    assert ours.count_params() == theirs.count_params()
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (ours, theirs)]
    assert sorted(shapes[0]) == sorted(shapes[1])


def test_the_article_network_is_what_its_text_promises():
    model = create_model("resnet_article", num_classes=10, input_shape=(64, 48, 3))
    convolutions = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and "shortcut" not in layer.name
    ]
    assert [layer.filters for layer in convolutions] == [64, 64, 128, 128, 256]
    assert all(layer.kernel_size == (3, 3) for layer in convolutions)
    adds = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert len(adds) == 5, "one residual connection around each convolution"
    projections = [layer.name for layer in model.layers if layer.name.endswith("shortcut_conv")]
    assert projections == ["stage1_block1_shortcut_conv", "stage2_block1_shortcut_conv", "stage3_block1_shortcut_conv"]
    assert model.get_layer("pool").input.shape == (None, 64, 48, 256)
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50_v1", "resnet50_v2", "resnet_article"])
def test_models_are_plain_keras_models_that_fit(name, tmp_path):
    size = 8 if name == "resnet_article" else 32
    model = create_model(name, num_classes=3, input_shape=(size, size, 1))
    assert type(model) is type(keras.Model(inputs=model.inputs, outputs=model.outputs))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    images = np.random.default_rng(0).normal(size=(8, size, size, 1)).astype("float32")
    history = model.fit(images, np.arange(8) % 3, epochs=1, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = create_model(name, num_classes=3, input_shape=(size, size, 1), weights=str(tmp_path / "model.weights.h5"))
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


def test_pooled_features_and_open_sizes():
    model = create_model("resnet18", num_classes=0, input_shape=(None, None, 3))
    for size in (32, 50):
        assert model(np.zeros((2, size, size, 3), "float32")).shape == (2, 512)


def test_stem_knob_keeps_small_images_large():
    model = create_model("resnet18", num_classes=10, input_shape=(32, 32, 3), stem="small")
    assert model.get_layer("pool").input.shape == (None, 4, 4, 512)


def test_list_models_takes_a_pattern():
    assert list_models("resnet*_v2") == ["resnet50_v2", "resnet101_v2", "resnet152_v2"]


def test_refusals():
    with pytest.raises(UserError, match=r"unknown model 'resnet5'; did you mean .*'resnet50'"):
        create_model("resnet5")
    with pytest.raises(UserError, match=r"unknown knob 'stems'; did you mean 'stem'"):
        create_model("resnet18", stems="small")
    with pytest.raises(UserError, match=r"an input of 16x16 pixels is too small for resnet18"):
        create_model("resnet18", input_shape=(16, 16, 3))


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    create_model("resnet32", num_classes=10, input_shape=(32, 32, 3)).save_weights(path)
    with pytest.raises(UserError, match=r"other.weights.h5' does not hold weights of resnet20"):
        create_model("resnet20", num_classes=10, input_shape=(32, 32, 3), weights=path)
