"""Folded and frozen networks compared with the original ones."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import shallow

from resnet_tf.model.create import create_model
from resnet_tf.serving import freeze as freezing
from resnet_tf.serving.fold import fold
from resnet_tf.serving.freeze import freeze, is_freezable

FAMILIES = ["resnet50", "resnet50_v1", "resnet50_v2", "resnet34_d", "resnext50_32x4d", "resnet_rs50", "bit_r50x1"]
FAMILIES += ["resnet20", "wrn_16_4", "plain20", "resnet_article"]


def _with_random_weights(name: str, **settings) -> keras.Model:
    """Return a shallow network with random scales, offsets, biases and BatchNorm statistics, as after training."""
    model = shallow(name, input_shape=(64, 64, 3), num_classes=7, **settings)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(generator.uniform(0.5, 2.0, weight.shape))
        elif "kernel" not in weight.path and "seed" not in weight.path:
            weight.assign(generator.normal(0.0, 0.3, weight.shape))
    return model


IMAGES = np.random.default_rng(1).normal(size=(3, 64, 64, 3)).astype("float32")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folded_network_computes_the_same_logits(name):
    model = _with_random_weights(name)
    before = model.get_weights()
    expected = model(IMAGES, training=False).numpy()
    folded = fold(model)
    np.testing.assert_allclose(folded(IMAGES, training=False), expected, atol=2e-5 * np.abs(expected).max())
    assert not [layer for layer in folded.layers if isinstance(layer, keras.layers.Dropout)]
    if name not in ("resnet50_v2", "bit_r50x1", "wrn_16_4"):  # pre-activation networks
        assert not [layer for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for weight, original in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)


def test_variables_are_bfloat16_except_those_of_the_head():
    model = _with_random_weights("resnet50")
    folded = fold(model, "bfloat16")
    dtypes = {variable.dtype for variable in folded.variables if not variable.path.startswith("logits")}
    assert dtypes == {"bfloat16"}
    assert folded.get_layer("logits").kernel.dtype == "float32"
    expected, found = model(IMAGES, training=False).numpy(), folded(IMAGES, training=False).numpy()
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < difference < 0.05


def test_a_frozen_network_has_no_variables():
    model = fold(_with_random_weights("resnet50"))
    function = freeze(model).get_concrete_function()
    assert not function.variables
    graph = function.graph.as_graph_def()
    assert not [node for node in graph.node if "Variable" in node.op]
    np.testing.assert_allclose(function(tf.constant(IMAGES))[0], model(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_frozen_network_of_silu_is_saved(tmp_path):
    """TensorFlow cannot save the custom gradient of SiLU."""
    model = fold(create_model("resnet8_w32", num_classes=7, input_shape=(64, 64, 3), activation="silu"))
    holder = tf.Module()
    holder.network = freeze(model)
    tf.saved_model.save(holder, str(tmp_path))
    (found,) = tf.saved_model.load(str(tmp_path)).network(tf.constant(IMAGES))
    np.testing.assert_allclose(found, model(IMAGES), rtol=1e-4, atol=1e-5)


def test_a_network_too_large_for_a_graph_keeps_its_variables(monkeypatch):
    monkeypatch.setattr(freezing, "MAX_FROZEN_BYTES", 1000)
    model = fold(_with_random_weights("resnet20"))
    assert not is_freezable(model)
    monkeypatch.undo()
    assert is_freezable(model)
    weights = SimpleNamespace(shape=(25_000_000,), value=SimpleNamespace(dtype=tf.float32))
    assert is_freezable(SimpleNamespace(variables=19 * [weights]))
    assert not is_freezable(SimpleNamespace(variables=30 * [weights]))  # more bytes than an int32 holds
    monkeypatch.setattr(freezing, "MAX_FROZEN_BYTES", 1000)
    np.testing.assert_allclose(freeze(model)(tf.constant(IMAGES))[0], model(IMAGES), rtol=1e-4, atol=1e-5)
