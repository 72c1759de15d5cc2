"""Networks by name: published sizes, shapes, refusals."""

import dataclasses

import keras
import numpy as np
import pytest
from conftest import LONG, shallow

from resnet_tf.core.errors import UserError
from resnet_tf.model.builder import build
from resnet_tf.model.create import create_model
from resnet_tf.model.initializers import FanOutNormal
from resnet_tf.model.layers import EdgePadding
from resnet_tf.model.options import squeezed_width
from resnet_tf.model.size import count_parameters
from resnet_tf.model.zoo import MODELS, list_models

# Trainable parameters with the head of the source: 1,000 classes for ImageNet, 10 for CIFAR and the small ones.
PUBLISHED_PARAMETER_COUNTS = {
    # torchvision 0.28, "num_params" of each weights entry
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    # The position of the stride changes no parameters; keras.applications has 26,560, 52,544 and 75,712 more: biases of
    # convolutions before a normalization, which have no effect.
    "resnet50_v1": 25_557_032,
    "resnet101_v1": 44_549_160,
    "resnet152_v1": 60_192_808,
    # keras.applications, trainable part of count_params()
    "resnet50_v2": 25_568_360,
    "resnet101_v2": 44_577_896,
    "resnet152_v2": 60_236_904,
    # timm 1.0.31: ResNetV2(layers=[3, 24, 36, 3]) with plain convolutions and BatchNorm
    "resnet200_v2": 64_666_152,
    # timm 1.0.31: resnet18d ... resnet200d, seresnet50, seresnext50_32x4d, resnetrs50 ... 420, resnetv2_*_bit
    "resnet18_d": 11_708_744,
    "resnet34_d": 21_816_904,
    "resnet50_d": 25_576_264,
    "resnet101_d": 44_568_392,
    "resnet152_d": 60_212_040,
    "resnet200_d": 64_693_064,
    "seresnet50": 28_088_024,
    "seresnext50_32x4d": 27_559_896,
    "resnet_rs50": 35_691_912,
    "resnet_rs101": 63_618_696,
    "resnet_rs152": 86_621_576,
    "resnet_rs200": 93_209_992,
    "resnet_rs270": 129_861_448,
    "resnet_rs350": 163_956_168,
    "resnet_rs420": 191_891_656,
    "bit_r50x1": 25_549_352,
    "bit_r101x1": 44_541_480,
    "bit_r50x3": 217_319_080,
    "bit_r152x2": 236_335_208,
    # github akamaster/pytorch_resnet_cifar10 (0.27M, 0.46M, 0.66M, 0.85M, 1.7M, 19.4M), option A
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet1202": 19_421_274,
    # He et al. 2016, table 4: 1.7M and 10.2M (by hand in test_hand_counts)
    "resnet164_v2": 1_703_258,
    "resnet1001_v2": 10_327_706,
    # Zagoruyko and Komodakis 2016, tables 4 and 5: 2.75M, 11.0M, 36.5M, 8.9M
    "wrn_16_4": 2_748_890,
    "wrn_16_8": 10_961_370,
    "wrn_28_10": 36_479_194,
    "wrn_40_4": 8_949_210,
    # As their residual namesakes, less the three projections where those have them (He et al. 2015, sec. 4.1)
    "plain18": 11_689_512 - (64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)),
    "plain34": 21_797_672 - (64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)),
    "plain20": 269_722,
    "plain32": 464_154,
    "plain44": 658_586,
    "plain56": 853_018,
    # Counted by hand in test_hand_counts, of three channels
    "resnet18_1d": 4_357_800,
    "resnet34_1d": 7_732_136,
    # Counted by hand in test_hand_counts
    "resnet20_w8": 68_050,
    "resnet8_w32": 308_650,
    "resnet8_w64": 1_210_410,
    "resnet8_pool": 1_160_970,
    "resnet8_pool_wide": 1_972_490,
    "resnet_article": 600_586,
}

# One network for each stem, block and shortcut, and some of other depths. The others take minutes, and are built in the
# slow tier, by hand.
BUILT = {
    *("resnet18", "resnet50", "resnet101", "resnext50_32x4d", "wide_resnet50_2", "resnet50_v1", "resnet50_v2"),
    *("resnet18_d", "resnet50_d", "seresnet50", "seresnext50_32x4d", "resnet_rs50", "bit_r50x1", "resnet20"),
    *("resnet164_v2", "wrn_16_4", "plain18", "plain20", "resnet18_1d", "resnet20_w8", "resnet8_w32", "resnet8_w64"),
    *("resnet8_pool", "resnet_article"),
}


def _trainable(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_every_model_has_a_published_count():
    assert set(MODELS) == set(PUBLISHED_PARAMETER_COUNTS)


def _classes(name: str) -> int:
    return 1000 if MODELS[name].stem in ("conv7", "deep") else 10


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count(name):
    """Without building the network; `tests/model/test_size.py` compares that number with built networks."""
    assert count_parameters(MODELS[name], num_classes=_classes(name))[0] == PUBLISHED_PARAMETER_COUNTS[name]


@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG * (name not in BUILT)) for name in MODELS])
def test_parameter_count_of_a_built_network(name, monkeypatch):
    monkeypatch.setattr(FanOutNormal, "__call__", lambda self, shape, dtype=None: keras.ops.zeros(shape, dtype))
    classes = _classes(name)
    shape = (224, 3) if MODELS[name].dimensions == 1 else (224, 224, 3)
    assert _trainable(create_model(name, num_classes=classes, input_shape=shape)) == PUBLISHED_PARAMETER_COUNTS[name]


def test_hand_counts():
    def conv(kernel, inputs, outputs):
        return kernel * kernel * inputs * outputs + 2 * outputs  # without bias, with gamma and beta

    half = conv(3, 3, 8) + 6 * conv(3, 8, 8)
    half += conv(3, 8, 16) + 5 * conv(3, 16, 16) + conv(3, 16, 32) + 5 * conv(3, 32, 32) + 32 * 10 + 10
    assert half == PUBLISHED_PARAMETER_COUNTS["resnet20_w8"]

    digits = conv(3, 3, 32) + 2 * conv(3, 32, 32)
    digits += conv(3, 32, 64) + conv(3, 64, 64) + conv(1, 32, 64)
    digits += conv(3, 64, 128) + conv(3, 128, 128) + conv(1, 64, 128) + 128 * 10 + 10
    assert digits == PUBLISHED_PARAMETER_COUNTS["resnet8_w32"]

    fast = conv(3, 3, 32) + 256 * 10 + 10
    fast += sum(conv(3, i, o) + conv(3, o, o) + conv(1, i, o) for i, o in ((32, 64), (64, 128), (128, 256)))
    assert fast == PUBLISHED_PARAMETER_COUNTS["resnet8_w64"]

    for name, middle in (("resnet8_pool", 128), ("resnet8_pool_wide", 256)):
        widths = ((24, 64), (64, middle), (middle, 256))
        pooled = sum(conv(3, i, o) + conv(3, o, o) for i, o in widths) + 256 * 10 + 10
        assert pooled == PUBLISHED_PARAMETER_COUNTS[name]

    for depths, name in (((2, 2, 2, 2), "resnet18_1d"), ((3, 4, 6, 3), "resnet34_1d")):
        total, inputs = 7 * 3 * 64 + 2 * 64, 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            for _ in range(depth):
                total += 3 * inputs * width + 3 * width * width + 4 * width
                total += (inputs * width + 2 * width) * (inputs != width)  # the projection
                inputs = width
        assert total + 512 * 1000 + 1000 == PUBLISHED_PARAMETER_COUNTS[name]

    for blocks, name in ((18, "resnet164_v2"), (111, "resnet1001_v2")):
        total, inputs = 3 * 3 * 3 * 16, 16
        for width in (16, 32, 64):
            total += inputs * 4 * width  # the projection
            for _ in range(blocks):
                total += 2 * inputs + inputs * width + 2 * width + 9 * width * width + 2 * width + width * 4 * width
                inputs = 4 * width
        assert total + 2 * 256 + 256 * 10 + 10 == PUBLISHED_PARAMETER_COUNTS[name]

    article = conv(3, 3, 64) + conv(3, 64, 64) + conv(3, 64, 128) + conv(3, 128, 128) + conv(3, 128, 256)
    article += conv(1, 3, 64) + conv(1, 64, 128) + conv(1, 128, 256) + 256 * 10 + 10
    assert article == PUBLISHED_PARAMETER_COUNTS["resnet_article"]


@pytest.mark.parametrize(
    "name", ["resnet50_v2", *(pytest.param(name, marks=LONG) for name in ("resnet101_v2", "resnet152_v2"))]
)
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


@pytest.mark.parametrize(
    "name",
    ["resnet20", "resnet50_v1", "resnet50_v2", "resnet_article", "resnet18_d", "bit_r50x1", "resnet_rs50", "wrn_16_4"],
)
def test_models_are_functional_keras_models_that_fit(name):
    size = 8 if name == "resnet_article" else 32
    model = shallow(name, num_classes=3, input_shape=(size, size, 1))
    assert isinstance(model, type(keras.Model(inputs=model.inputs, outputs=model.outputs)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    images = np.random.default_rng(0).normal(size=(8, size, size, 1)).astype("float32")
    history = model.fit(images, np.arange(8) % 3, epochs=1, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.fixture
def _channels_first():
    """The format that `"image_data_format": "channels_first"` in ~/.keras/keras.json sets."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def _small(name: str) -> keras.Model:
    """Return a narrow network with one block per stage, which has every type of layer of the full network."""
    arch, stages = MODELS[name], len(MODELS[name].depths)
    arch = dataclasses.replace(arch, depths=(1,) * stages, widths=(32,) * stages)
    if arch.shortcut == "average":
        arch = dataclasses.replace(arch, output_stride=16)  # pads before pooling
    return build(arch, input_shape=(*(64,) * arch.dimensions, 3), num_classes=5, name=name)


# One network for each combination of the settings that select types of layers.
_SELECTORS = (
    *("block", "stem", "stem_pool", "shortcut", "transition", "stride_conv", "stride_block", "preactivation"),
    *("standardize", "activation", "norm", "dimensions"),
)
VARIANTS = {(*(getattr(arch, field) for field in _SELECTORS), arch.se_ratio > 0): name for name, arch in MODELS.items()}


@pytest.mark.usefixtures("_channels_first")
@pytest.mark.parametrize("name", VARIANTS.values())
def test_no_layer_takes_the_global_data_format(name):
    formats = {layer.name: layer.data_format for layer in _small(name).layers if hasattr(layer, "data_format")}
    assert set(formats.values()) == {"channels_last"}, formats


@pytest.mark.parametrize("name", ["resnet18_d", "resnet18_1d"])
def test_networks_are_the_same_under_any_global_data_format(name, request):
    keras.utils.set_random_seed(0)
    expected = _small(name)
    request.getfixturevalue("_channels_first")
    keras.utils.set_random_seed(0)
    model = _small(name)
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    assert model.get_config() == expected.get_config()
    for ours, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(model(images), expected(images))


def test_pooled_features_and_open_sizes():
    model = create_model("resnet18", num_classes=0, input_shape=(None, None, 3))
    for size in (32, 50):
        assert model(np.zeros((2, size, size, 3), "float32")).shape == (2, 512)


def test_feature_maps_of_a_pyramid():
    model = create_model("resnet50", input_shape=(64, 96, 3), features=("stem", "stage2", "stage4"))
    assert {name: each.shape[1:] for name, each in model.output.items()} == {
        "stem": (16, 24, 64),
        "stage2": (8, 12, 512),
        "stage4": (2, 3, 2048),
    }
    with pytest.raises(UserError, match=r"unknown feature 'stage5'; did you mean 'stage4'"):
        create_model("resnet50", input_shape=(64, 64, 3), features=("stage5",))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_d", "resnet50_v2", "bit_r50x1", "resnet20"])
def test_output_stride_keeps_the_weights_and_enlarges_the_map(name):
    natural = MODELS[name].total_stride
    plain = create_model(name, num_classes=3, input_shape=(64, 64, 3))
    for stride in {natural, natural // 2, natural // 4}:
        dilated = create_model(name, num_classes=3, input_shape=(64, 64, 3), output_stride=stride)
        assert dilated.get_layer("pool").input.shape[1:3] == (64 // stride, 64 // stride)
        assert [tuple(each.shape) for each in dilated.weights] == [tuple(each.shape) for each in plain.weights]


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("resnet18", {}),
        ("resnet50_v1", {}),
        ("resnet18", {"block": "single", "depths": (1, 2, 2, 1)}),
        pytest.param("resnet164_v2", {}, marks=LONG),
    ],
)
def test_dilation_sees_what_the_stride_saw(name, knobs):
    """Every second output of a dilated network equals the strided network's, away from borders."""
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    settings = {"input_shape": (64, 64, 3), "features": ("stage3",), "zero_gamma": False, **knobs}
    stride = MODELS[name].total_stride // (2 if name == "resnet164_v2" else 4)
    strided, dilated = create_model(name, **settings), create_model(name, output_stride=stride, **settings)
    dilated.set_weights(strided.get_weights())
    coarse, fine = (model(images, training=False)["stage3"].numpy() for model in (strided, dilated))
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("activation", "padding"),
    [("silu", EdgePadding), ("leaky_relu", EdgePadding), ("relu", keras.layers.ZeroPadding2D)],
)
def test_padding_of_the_stem_is_no_maximum(activation, padding):
    """Compare with the maximum over a 3x3 window padded with -inf, as in PyTorch; all values are negative here."""
    model = create_model("resnet18", input_shape=(38, 34, 3), num_classes=0, activation=activation, depths=(1, 1, 1, 1))
    model.get_layer("stem_conv_bn").beta.assign(np.full(64, -5.0))
    activated, pooled = (model.get_layer(name).output for name in (f"stem_conv_{activation}", "stem_pool"))
    images = np.random.default_rng(0).normal(size=(2, 38, 34, 3)).astype("float32")
    before, after = keras.Model(model.input, [activated, pooled])(images, training=False)
    padded = np.pad(before, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(after, windows.max(axis=(-2, -1)))
    assert type(model.get_layer("stem_pool_pad")) is padding


def test_stems_of_networks_with_preactivation_pool_with_zeros():
    """As in keras.applications, and in BiT."""
    model = create_model("resnet50_v2", input_shape=(64, 64, 3), activation="silu", depths=(1, 1, 1, 1))
    assert type(model.get_layer("stem_pool_pad")) is keras.layers.ZeroPadding2D


def test_squeezed_channels_are_a_multiple_of_8():
    """timm's `make_divisible(channels * ratio, 8, round_limit=0.0)`, also where the nearest multiple is 0 or a tie."""
    cases = {(64, 1 / 16): 8, (80, 0.25): 24, (256, 1 / 16): 16, (176, 1 / 16): 8, (192, 1 / 16): 16, (2048, 0.25): 512}
    assert {case: squeezed_width(*case) for case in cases} == cases
    model = create_model("resnet18", input_shape=(32, 32, 3), num_classes=3, se_ratio=1 / 16)
    widths = [model.get_layer(f"stage{stage}_block1_se_reduce").filters for stage in (1, 2, 3, 4)]
    assert widths == [8, 8, 16, 32]


def test_stochastic_depth_leaves_out_more_of_the_later_blocks():
    model = create_model("resnet20", num_classes=3, input_shape=(32, 32, 3), stochastic_depth=0.9, dropout=0.5)
    rates = [layer.rate for layer in model.layers if layer.name.endswith("_drop")]
    np.testing.assert_allclose(rates, [0.1 * block for block in range(1, 10)])
    assert model.get_layer("dropout").rate == 0.5
    images = np.ones((64, 32, 32, 3), "float32")
    last = keras.Model(model.input, model.get_layer("stage3_block3_drop").output)
    dropped = np.mean(np.all(last(images, training=True).numpy() == 0, axis=(1, 2, 3)))
    assert 0.7 < dropped < 1.0


def test_activation_knob():
    model = create_model("resnet20", num_classes=3, input_shape=(32, 32, 3), activation="silu")
    assert model.get_layer("stage1_block1_silu").activation is keras.activations.silu


def test_plain_networks_have_no_residual_connection():
    for name in list_models("plain*"):
        model = create_model(name, num_classes=3, input_shape=(32, 32, 3))
        assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]


def test_stem_knob_keeps_small_images_large():
    model = create_model("resnet18", num_classes=10, input_shape=(32, 32, 3), stem="small")
    assert model.get_layer("pool").input.shape == (None, 4, 4, 512)


def test_list_models_takes_a_pattern():
    assert list_models("resnet1*_v2") == ["resnet101_v2", "resnet152_v2", "resnet164_v2", "resnet1001_v2"]


def test_refusals():
    with pytest.raises(UserError, match=r"unknown model 'resnet5'; did you mean .*'resnet50'"):
        create_model("resnet5")
    with pytest.raises(UserError, match=r"unknown knob 'stems'; did you mean 'stem'"):
        create_model("resnet18", stems="small")
    with pytest.raises(UserError, match=r"input of 16x16 pixels is too small for resnet18"):
        create_model("resnet18", input_shape=(16, 16, 3))
    with pytest.raises(UserError, match=r"input_shape=\(32, 32\) is not \(height, width, channels\)"):
        create_model("resnet20", input_shape=(32, 32))
    with pytest.raises(UserError, match=r"output_stride=8 is impossible here; it can be \[4, 16, 32, 64\]"):
        create_model("resnet50", strides=(1, 4, 2, 2), output_stride=8)
    with pytest.raises(UserError, match=r"output_stride=12 is impossible here; it can be \[4, 8, 16, 32\]"):
        create_model("resnet50", output_stride=12)
    with pytest.raises(UserError, match=r"stem='tiny'; it takes 'conv7', 'deep', 'small', 'whitening', 'none'"):
        create_model("resnet50", stem="tiny")
