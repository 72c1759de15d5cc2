"""Exports of models by their graph: heads, nested models, two networks, and preprocessing and labels of all of them."""

import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LONG

import resnet_tf
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import read_export
from resnet_tf.model.create import create_model
from resnet_tf.serving.canonical import canonical_model, has_linear_head
from resnet_tf.serving.export import export_model
from resnet_tf.serving.fold import fold
from resnet_tf.serving.predictor import Predictor
from resnet_tf.serving.targets import hub

SHAPE = (16, 16, 3)
LABELS = ("a", "b", "c")
PREPROCESS = resnet_tf.ImagePreprocess(size=(16, 16), crop_fraction=1.0, mean=(0.1, 0.2, 0.3))
layers = keras.layers


@keras.saving.register_keras_serializable("test")
class _CenteredConv(layers.Conv2D):
    """A convolution whose kernel is centered in each call."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, 3.0 * (kernel - keras.ops.mean(kernel, axis=(0, 1, 2))))


@keras.saving.register_keras_serializable("test")
class _ShiftedNorm(layers.BatchNormalization):
    """A BatchNorm that adds a constant."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask) + 0.7


@keras.saving.register_keras_serializable("test")
class _ActiveDropout(layers.Dropout):
    """A dropout that changes its inputs at inference, though not at random."""

    def call(self, inputs, training=False):
        return 0.5 * inputs


@keras.saving.register_keras_serializable("test")
class _MonteCarloDropout(layers.Dropout):
    """Dropout at inference (Gal and Ghahramani 2016)."""

    def call(self, inputs, training=False):
        return super().call(inputs, training=True)


def _network(*, num_classes=3, **settings) -> keras.Model:
    """Return a network with one block per stage and random statistics, which has preprocessing but no labels."""
    network = create_model("resnet8_w32", num_classes=num_classes, input_shape=SHAPE, **settings)
    generator = np.random.default_rng(len(settings))
    for variable in network.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.0, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(generator.normal(0.0, 0.1, variable.shape))
    network.preprocess = PREPROCESS
    return network


def _images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(count, *SHAPE)).astype("float32")


def _pooled(network: keras.Model) -> keras.KerasTensor:
    return network.get_layer("pool").output


def _maps(network: keras.Model) -> keras.KerasTensor:
    return network.get_layer("pool").input


def _functional(build: Callable) -> Callable:
    """Return a form of a model that calls a backbone as a layer."""

    def model() -> keras.Model:
        inputs, backbone = keras.Input(SHAPE), _network(num_classes=0)
        return keras.Model(inputs, build(inputs, backbone))

    return model


def _reheaded(build: Callable) -> Callable:
    """Return a form of a model that is made from the tensors of a network."""

    def model() -> keras.Model:
        network = _network()
        return keras.Model(network.input, build(network))

    return model


def _sequential(*build: Callable) -> Callable:
    return lambda: keras.Sequential([_network(num_classes=0), *(each() for each in build)])


def _dense(**settings) -> Callable:
    return lambda: layers.Dense(3, **settings)


def _towers() -> keras.Model:
    inputs = keras.Input(SHAPE)
    left, right = (_network(num_classes=0, model_name=name) for name in ("left", "right"))
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([left(inputs), right(inputs)])))


def _both_pools(network: keras.Model) -> keras.KerasTensor:
    maps = _maps(network)
    both = layers.Concatenate()([layers.GlobalMaxPooling2D()(maps), layers.GlobalAveragePooling2D()(maps)])
    return layers.Dense(3, name="logits")(both)


def _own(layer: keras.Layer) -> Callable:
    """Return a form of a model with BatchNorm after a convolution, of which one is of the user's type."""

    def build(network: keras.Model) -> keras.KerasTensor:
        convolution = layer if isinstance(layer, layers.Conv2D) else layers.Conv2D(8, 1)
        norm = layer if isinstance(layer, layers.BatchNormalization) else layers.BatchNormalization()
        maps = norm(convolution(_maps(network)))
        return layers.Dense(3)(layers.GlobalAveragePooling2D()(maps))

    return lambda: _reheaded(build)()


def _adapted(inputs: keras.KerasTensor, backbone: keras.Model) -> keras.KerasTensor:
    normalization = layers.Normalization()
    normalization.adapt(9.0 * _images(16) + 3.0)
    return layers.Dense(3)(backbone(normalization(inputs)))


# Model, whether its outputs are probabilities, and whether its head is linear in the averages of feature maps.
MODELS = {
    "network": (_network, False, True),
    "prefixed layers": (lambda: _network(model_name="mine"), False, True),
    "nested network": (lambda: keras.Sequential([_network()]), False, True),
    "dense": (_sequential(_dense()), False, True),
    "dropout": (_sequential(lambda: layers.Dropout(0.2), _dense()), False, True),
    "softmax in the head": (_sequential(_dense(activation="softmax")), True, True),
    "softmax named logits": (
        _reheaded(lambda each: layers.Dense(3, "softmax", name="logits")(_pooled(each))),
        True,
        True,
    ),
    "softmax layer": (_sequential(_dense(), layers.Softmax), True, True),
    "float32 softmax": (_sequential(_dense(), lambda: layers.Activation("softmax", dtype="float32")), True, True),
    "softmax of the network": (_reheaded(lambda each: layers.Softmax()(each.output)), True, True),
    "softmax operation": (_reheaded(lambda each: keras.ops.softmax(each.output)), True, True),
    "hidden layer": (_sequential(lambda: layers.Dense(5, "relu"), _dense()), False, False),
    "hidden layer, logits": (
        _reheaded(lambda each: layers.Dense(3, name="logits")(layers.Dense(5, "relu")(_pooled(each)))),
        False,
        False,
    ),
    "normalized features": (_sequential(layers.BatchNormalization, _dense()), False, False),
    "max pooling": (
        _reheaded(lambda each: layers.Dense(3, name="logits")(layers.GlobalMaxPooling2D(name="x")(_maps(each)))),
        False,
        False,
    ),
    "both poolings": (_reheaded(_both_pools), False, False),
    "flat maps": (_reheaded(lambda each: layers.Dense(3)(layers.Flatten()(_maps(each)))), False, False),
    "frozen backbone": (
        _functional(lambda inputs, each: layers.Dense(3)(each(inputs, training=False))),
        False,
        True,
    ),
    "augmentation": (
        _functional(lambda inputs, each: layers.Dense(3)(each(layers.RandomFlip()(inputs)))),
        False,
        True,
    ),
    "rescaling": (
        _functional(lambda inputs, each: layers.Dense(3)(each(layers.Rescaling(2.0, offset=-1.0)(inputs)))),
        False,
        True,
    ),
    "adapted normalization": (_functional(_adapted), False, True),
    "own convolution": (_own(_CenteredConv(8, 1)), False, True),
    "own BatchNorm": (_own(_ShiftedNorm()), False, True),
    "own dropout": (_sequential(lambda: _ActiveDropout(0.5), _dense()), False, False),
    "operation": (_functional(lambda inputs, each: layers.Dense(3)(each(2.0 * inputs - 1.0))), False, True),
    "two towers": (_towers, False, False),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_canonical_model_has_the_same_probabilities(name):
    create, are_probabilities, linear = MODELS[name]
    model, images = create(), _images()
    expected = np.asarray(model(images, training=False))
    canonical = canonical_model(model)
    assert (canonical is model) == (name == "network")
    assert canonical.layers[-1].name == "logits"
    assert has_linear_head(canonical) == linear
    for each in (canonical, fold(canonical)):
        logits = each(images, training=False)
        found = tf.nn.softmax(logits) if are_probabilities else logits
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert model.count_params() == canonical.count_params() or "logits" in name or name in ("max pooling", "flat maps")


SIGMOIDS = {
    "in the head": _sequential(_dense(activation="sigmoid")),
    "named logits": _reheaded(lambda each: layers.Dense(3, "sigmoid", name="logits")(_pooled(each))),
    "layer": _sequential(_dense(), lambda: layers.Activation("sigmoid")),
    "of the network": _reheaded(lambda each: keras.ops.sigmoid(each.output)),
}


@pytest.mark.parametrize("name", ["layer", *(pytest.param(name, marks=LONG) for name in SIGMOIDS if name != "layer")])
def test_a_model_with_sigmoids_is_exported_for_any_number_of_classes(name, tmp_path):
    model, images = SIGMOIDS[name](), _images()
    np.testing.assert_allclose(tf.sigmoid(canonical_model(model)(images)), model(images), rtol=1e-3, atol=1e-4)
    path = export_model(model, tmp_path, preprocess=PREPROCESS, labels=LABELS)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    expected = model(PREPROCESS.normalize(tf.constant(pixels / 255.0, tf.float32)), training=False)
    np.testing.assert_allclose(_predictions(path, pixels), expected, atol=2e-4)
    assert Predictor(path).thresholds == [0.5] * 3


NOT_EXPORTED = {
    "sigmoid and softmax": (
        _sequential(_dense(activation="sigmoid"), layers.Softmax),
        r"has sigmoid and softmax in succession at the end",
    ),
    "relu": (_sequential(_dense(activation="relu")), r"has the activation 'relu' at the end"),
    "two softmaxes": (
        _sequential(_dense(activation="softmax"), layers.Softmax),
        r"has two softmaxes in succession at the end",
    ),
    "no head": (lambda: _network(num_classes=0), r"resnet8_w32 has no head: create it with num_classes > 0"),
    "feature maps": (lambda: _network(features=("stage1",)), r"needs a model with one input and one output"),
    "map of classes": (_reheaded(lambda each: layers.Conv2D(3, 1)(_maps(each))), r"has no head: its output \(None, "),
    "two outputs": (
        lambda: (lambda each: keras.Model(each.input, [each.output, _pooled(each)]))(_network()),
        r"needs a model with one input and one output",
    ),
    "lambda": (_sequential(lambda: layers.Lambda(lambda each: 2 * each), _dense()), r"'lambda.*', Lambda, cannot be"),
    "random at inference": (
        _sequential(lambda: _MonteCarloDropout(0.5), _dense()),
        r"changes a variable at inference \('.*'\), as random layers do, and cannot be frozen; targets hub",
    ),
    "average of networks": (
        _functional(lambda inputs, each: layers.Add()([layers.Dense(3)(each(inputs)), layers.Dense(3)(each(inputs))])),
        r"comes from 'add.*', Add. An export needs a Dense layer of logits at the end",
    ),
}


def _with_lora(model: keras.Model) -> keras.Model:
    """Adapt all kernels of a model by LoRA (Hu et al. 2021), as after training."""
    generator = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Conv2D | layers.Dense):
            layer.enable_lora(2, lora_alpha=6)
            layer.lora_kernel_b.assign(generator.normal(0.0, 0.1, layer.lora_kernel_b.shape))
    return model


@pytest.mark.parametrize("name", ["network", "softmax in the head"])
def test_lora_is_merged_into_the_kernels(name):
    keras.utils.set_random_seed(0)  # with some weights, the adapters change probabilities by little
    model, images = MODELS[name][0](), _images()
    before = np.asarray(model(images, training=False))
    expected = np.asarray(_with_lora(model)(images, training=False))
    assert np.abs(expected - before).max() > 0.05
    canonical = canonical_model(model)
    open_model = hub.reusable_model(canonical, PREPROCESS, weight_decay=0.0)[1]
    for each in (canonical, fold(canonical), open_model):
        logits = each(images, training=False)
        found = tf.nn.softmax(logits) if MODELS[name][1] else logits
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert not [each.path for each in (*fold(canonical).weights, *open_model.weights) if "lora" in each.path]


@pytest.mark.parametrize("stem", ["auto", "whitening"])
def test_a_hub_export_of_a_frozen_network_is_trainable(stem):
    inputs, backbone = keras.Input(SHAPE), _network(num_classes=0, **({} if stem == "auto" else {"stem": stem}))
    model = keras.Model(inputs, layers.Dense(3)(backbone(inputs)))
    backbone.trainable = False
    holder, open_model = hub.reusable_model(canonical_model(model), PREPROCESS, weight_decay=0.1)
    statistics = ("moving_mean", "moving_variance")
    frozen = [each.path for each in open_model.non_trainable_variables if each.name not in statistics]
    assert len(frozen) == (stem == "whitening"), frozen
    assert all("stem_conv/kernel" in path for path in frozen)
    assert len(holder.trainable_variables) + len(frozen) == len(model.weights) - sum(
        each.name in statistics for each in model.weights
    )
    assert len(holder.regularization_losses) == len([each for each in model.weights if each.name == "kernel"]) - len(
        frozen
    )
    images = tf.constant(_images())
    in_inference, in_training = (holder.__call__(images, training=training) for training in (False, True))
    np.testing.assert_allclose(in_inference, model(PREPROCESS.normalize(images)), rtol=1e-3, atol=1e-4)
    assert np.abs(in_training - in_inference).max() > 0.01, "statistics of the batch"
    assert not backbone.trainable


def _mixed(activation: str) -> keras.Model:
    """Return a model whose head and pooling have the policy of mixed precision, and whose outputs are float32."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return _sequential(_dense(), lambda: layers.Activation(activation, dtype="float32"))()
    finally:
        keras.config.set_dtype_policy("float32")


def _pooled_again(network: keras.Model) -> keras.KerasTensor:
    pooled = layers.GlobalAveragePooling2D(name="pool", dtype="mixed_bfloat16")(_maps(network))
    return layers.Dense(3, name="logits", dtype="mixed_bfloat16")(pooled)


@pytest.mark.parametrize(
    ("create", "are_probabilities"),
    [(lambda: _mixed("softmax"), True), (_reheaded(_pooled_again), False)],
    ids=["dense", "named logits"],
)
def test_the_features_and_logits_of_a_mixed_network_are_float32(create, are_probabilities):
    model, images = create(), _images()
    canonical = canonical_model(model)
    assert {canonical.get_layer(name).compute_dtype for name in ("pool", "logits")} == {"float32"}
    _, open_model = hub.reusable_model(canonical, PREPROCESS, weight_decay=0.0)
    expected = np.asarray(model(images, training=False), np.float32)
    for each in (canonical, open_model):
        logits = each(images, training=False)
        assert logits.dtype == tf.float32
        np.testing.assert_allclose(tf.nn.softmax(logits) if are_probabilities else logits, expected, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["softmax", pytest.param("sigmoid", marks=pytest.mark.long)])
def test_a_mixed_network_is_exported_for_fine_tuning(activation, tmp_path):
    model = _mixed(activation)
    path = export_model(model, tmp_path, target="hub", labels=LABELS)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    expected = model(PREPROCESS.normalize(tf.constant(pixels / 255.0, tf.float32)), training=False)
    np.testing.assert_allclose(_predictions(path, pixels), expected, atol=0.02)
    assert Predictor(path).thresholds == (None if activation == "softmax" else [0.5] * 3)


@pytest.mark.parametrize("target", ["hub", "hub_features"])
def test_a_network_of_one_size_has_no_hub_export(target, tmp_path):
    with pytest.raises(
        UserError, match=r"^a hub export takes inputs of any size, and .* takes \(16, 16\) only: .*"
    ) as caught:
        export_model(MODELS["flat maps"][0](), tmp_path / "export", target=target, preprocess=PREPROCESS, labels=LABELS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "export").exists()


def test_names_of_classes_that_are_selected_differ(tmp_path):
    with pytest.raises(
        UserError, match=r"^classes 0 and 2 have the same name, 'a'; the selected classes of an example"
    ):
        export_model(_network(), tmp_path / "export", labels=("a", "b", "a"), thresholds=[0.5] * 3)


def test_one_class_takes_a_threshold(tmp_path):
    """The softmax of one logit is 1 for all images."""
    network = _network(num_classes=1)
    with pytest.raises(UserError, match=r"^the softmax of resnet8_w32 is always 1, .* thresholds=\[0.5\] takes its"):
        export_model(network, tmp_path / "export", labels=["a"])
    path = export_model(network, tmp_path / "export", labels=["a"], thresholds=[0.5])
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    logits = network(PREPROCESS.normalize(tf.constant(images / 255.0, tf.float32)), training=False)
    np.testing.assert_allclose(_predictions(path, images), tf.sigmoid(logits), atol=1e-4)


@pytest.mark.parametrize("name", NOT_EXPORTED)
def test_other_models_are_refused_by_their_graph(name, tmp_path):
    create, reason = NOT_EXPORTED[name]
    with pytest.raises(UserError, match=reason) as caught:
        export_model(create(), tmp_path / "export", preprocess=PREPROCESS, labels=LABELS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "export").exists()


class _Subclass(keras.Model):
    """A model whose outputs are computed by a method."""

    def __init__(self, network: keras.Model):
        super().__init__()
        self.network = network

    def call(self, inputs):
        return 2 * self.network(inputs)


class _FunctionalSubclass(keras.Model):
    """A Functional model whose class has a method of its own, which changes no output."""

    def describe(self) -> str:
        return self.name


def test_subclasses_are_exported_if_the_graph_is_what_they_compute(tmp_path):
    network = _network()
    subclass = _Subclass(network)
    subclass(_images())
    with pytest.raises(UserError, match=r"is a _Subclass with a method `call`; an export needs a Functional model"):
        export_model(subclass, tmp_path / "export", preprocess=PREPROCESS, labels=LABELS)
    canonical = canonical_model(_FunctionalSubclass(network.input, network.output))
    np.testing.assert_allclose(canonical(_images()), network(_images()), rtol=1e-5)


def _predictions(path: Path, images: np.ndarray) -> np.ndarray:
    return Predictor(path).predict_batch([tf.io.encode_png(each).numpy() for each in images])["probabilities"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"),
    [
        *(("softmax layer", target) for target in ("serving", "hub", "keras")),
        ("hidden layer, logits", "serving"),
        *(
            pytest.param(name, target, marks=LONG)
            for name in ("softmax in the head", "hidden layer", "rescaling", "two towers")
            for target in ("serving", "hub", "keras", "litert", "onnx", "openvino")
        ),
    ],
)
def test_probabilities_of_an_export_are_those_of_the_model(name, target, tmp_path):
    for package in {"litert": ("ai_edge_litert",), "onnx": ("onnxruntime", "tf2onnx"), "openvino": ("openvino",)}.get(
        target, ()
    ):
        pytest.importorskip(package)
    create, are_probabilities, linear = MODELS[name]
    model = create()
    path = export_model(model, tmp_path, target=target, preprocess=PREPROCESS, labels=LABELS)
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    outputs = model(PREPROCESS.normalize(tf.constant(images / 255.0, tf.float32)), training=False)
    expected = outputs if are_probabilities else tf.nn.softmax(outputs)
    np.testing.assert_allclose(_predictions(path, images), expected, atol=2e-4)
    if target in ("serving", "hub"):
        assert ("explain" in tf.saved_model.load(str(path)).signatures) == linear
    if not linear:
        with pytest.raises(UserError, match=r"has no Grad-CAM heatmaps: export an image network .* one layer after"):
            next(Predictor(path).explain([images[0]]))


def _grad_cam(model: keras.Model, maps: keras.KerasTensor, inputs: tf.Tensor) -> np.ndarray:
    """Return Grad-CAM of the best class from gradients, as in Selvaraju et al. 2017, sec. 3.1."""
    both = keras.Model(model.input, [maps, model.output])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        found, outputs = both(inputs, training=False)
        best = tf.math.log(tf.reduce_max(outputs, axis=1) / (1 - tf.reduce_max(outputs, axis=1)))
    weights = tf.reduce_mean(tape.gradient(best, found), axis=[1, 2])
    evidence = tf.nn.relu(tf.einsum("bhwf,bf->bhw", found, weights)).numpy()
    return evidence / evidence.max(axis=(1, 2), keepdims=True)


@pytest.mark.slow
@pytest.mark.long
def test_heatmaps_of_a_softmax_head_are_those_of_the_gradients_of_its_logits(tmp_path):
    network = _network()
    model = keras.Model(network.input, layers.Dense(2, "softmax", name="logits")(_pooled(network)))
    path = export_model(model, tmp_path, preprocess=PREPROCESS, labels=("a", "b"))
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
    inputs = tf.constant(PREPROCESS.normalize(tf.constant(images / 255.0, tf.float32)))
    # With two classes, log(p / (1 - p)) is the difference of the logits; its gradient is that of the weights.
    kernel = model.layers[-1].kernel.numpy()
    model.layers[-1].kernel.assign(np.stack([kernel[:, 0], -kernel[:, 0]], axis=1))
    model.layers[-1].bias.assign([0.0, 0.0])
    path = export_model(model, tmp_path, preprocess=PREPROCESS, labels=("a", "b"))
    signature = tf.saved_model.load(str(path)).signatures["explain"]
    encoded = tf.constant([tf.io.encode_png(each).numpy() for each in images])
    expected = _grad_cam(model, _maps(network), inputs)
    np.testing.assert_allclose(signature(image_bytes=encoded)["heatmaps"], expected, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "preprocess"),
    [
        *((name, True) for name in ("network", "prefixed layers", "nested network", "dense", "softmax layer")),
        *((name, True) for name in ("hidden layer", "frozen backbone", "two towers")),
        *((name, False) for name in ("softmax named logits", "hidden layer, logits", "both poolings", "rescaling")),
        *((name, False) for name in ("augmentation", "operation")),
    ],
)
def test_preprocessing_is_that_of_the_network_or_must_be_given(name, preprocess, tmp_path):
    """Never those of ImageNet, and never numbers for labels."""
    model = MODELS[name][0]()
    reason = (
        r"the class names of .* are unknown; pass labels=\[...\], 3 names" if preprocess else r"the preprocessing of"
    )
    with pytest.raises(UserError, match=reason):
        export_model(model, tmp_path / "export")
    with pytest.raises(UserError, match=r"preprocess" if not preprocess else r"pass labels=\[...\], 3 names"):
        export_model(model, tmp_path / "export", labels=LABELS if not preprocess else None)
    assert not (tmp_path / "export").exists()


@pytest.mark.slow
@pytest.mark.long
def test_what_is_kept_is_exported(tmp_path):
    network = _network()
    network.labels = LABELS
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    wrapped = keras.Sequential([loaded, layers.Softmax()])
    for number, model in enumerate((loaded, wrapped), start=1):
        export = Predictor(export_model(model, tmp_path / "models"))
        assert (export.path.name, export.labels, export.preprocess) == (str(number), LABELS, PREPROCESS)
    inner = _network(num_classes=0)
    inner.preprocess = resnet_tf.ImagePreprocess(size=(16, 16))
    inputs = keras.Input(SHAPE)
    outputs = layers.Dense(3)(layers.Concatenate()([_network(num_classes=0, model_name="x")(inputs), inner(inputs)]))
    with pytest.raises(UserError, match=r"the preprocessing of .* is unknown"):
        export_model(keras.Model(inputs, outputs), tmp_path / "other", labels=LABELS)


def test_an_untrained_network_has_defaults_and_a_warning(tmp_path, caplog):
    fresh = create_model("resnet8_w32", num_classes=3, input_shape=SHAPE)
    path = export_model(fresh, tmp_path / "fresh", target="keras")
    assert "resnet8_w32 is untrained and has no preprocessing" in caplog.text
    assert read_export(path).metadata["labels"] == ["0", "1", "2"]
    fresh.compile("sgd", "mse")
    fresh.fit(_images(4), np.zeros((4, 3)), verbose=0)
    with pytest.raises(UserError, match=r"the preprocessing of resnet8_w32 is unknown; pass preprocess="):
        export_model(fresh, tmp_path / "trained")
    with pytest.raises(UserError, match=r"the class names of resnet8_w32 are unknown; pass labels="):
        export_model(fresh, tmp_path / "trained", preprocess=PREPROCESS)


@pytest.mark.parametrize("name", ["dense", "no head"])
def test_features_of_nested_models_are_exported(name, tmp_path):
    model = _sequential(_dense())() if name == "dense" else keras.Sequential([_network(num_classes=0)])
    path = export_model(model, tmp_path, target="hub_features")
    images = _images()
    expected = model.layers[0](PREPROCESS.normalize(tf.constant(images)), training=False)
    np.testing.assert_allclose(tf.saved_model.load(str(path))(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_a_hub_export_computes_as_the_model_in_both_modes(training, tmp_path):
    """Also after `backbone(inputs, training=False)`, which Keras replaces by the mode of the outermost call."""
    model, images = MODELS["frozen backbone"][0](), _images()
    path = export_model(model, tmp_path, target="hub", labels=LABELS)
    found = tf.saved_model.load(str(path))(images, training=training)
    expected = model(PREPROCESS.normalize(tf.constant(images)), training=training)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", ["serving", *(pytest.param(target, marks=LONG) for target in ("hub", "keras"))])
def test_an_adapted_normalization_is_exported(target, tmp_path):
    """Regression: its count of examples was refused, and copies had mean 0 and variance 1."""
    model, images = MODELS["adapted normalization"][0](), _images()
    path = export_model(model, tmp_path, target=target, preprocess=PREPROCESS, labels=LABELS)
    expected = model(PREPROCESS.normalize(tf.constant(images)), training=False)
    np.testing.assert_allclose(Predictor(path).logits(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_architecture_of_an_export_is_compared(tmp_path):
    network = create_model("plain20", num_classes=2, input_shape=(32, 32, 3), model_name="mine")
    path = export_model(network, tmp_path / "hub", target="hub")
    again = create_model("plain20", num_classes=2, input_shape=(32, 32, 3), weights=path)
    np.testing.assert_array_equal(again.get_layer("logits").kernel, network.get_layer("mine_logits").kernel)
    with pytest.raises(UserError, match=r"were written for mine, a network with shortcut='none'; .* Use plain20$"):
        create_model("resnet20", num_classes=2, input_shape=(32, 32, 3), weights=path)


@pytest.mark.slow
@pytest.mark.long
def test_the_documented_models_are_exported(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (block,) = [each for each in blocks if " keras.Sequential([backbone" in each]
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/serving.md", "exec"), {})
    first, second = (Predictor(tmp_path / "models" / "pets" / number) for number in "12")
    assert first.labels == second.labels == ("cat", "dog")
    assert second.preprocess.std == pytest.approx((1 / 255,) * 3)
