"""Whitening stem beside scikit-learn's principal component analysis, and in training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.feature_extraction.image import extract_patches_2d

from resnet_tf.config import override
from resnet_tf.core.errors import UserError
from resnet_tf.data import pipeline
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import create_preprocess
from resnet_tf.model.create import create_model
from resnet_tf.model.whitening import whiten_stem, whitening_kernel
from resnet_tf.training.run import load_run
from resnet_tf.workflows.train import train_and_evaluate

GENERATOR = np.random.default_rng(0)
# Smooth images: neighboring pixels are correlated, and so are channels.
IMAGES = np.cumsum(GENERATOR.normal(size=(40, 12, 10, 3)), axis=1).cumsum(axis=3).astype(np.float32)


def test_kernels_are_the_principal_axes_of_patches():
    kernel = whitening_kernel(IMAGES).reshape(12, 24)
    patches = np.concatenate([extract_patches_2d(image, (2, 2)) for image in IMAGES]).reshape(-1, 12)
    reference = PCA(whiten=True).fit(patches)
    expected = reference.components_ / np.sqrt(reference.explained_variance_ + 5e-4)[:, None]
    for ours, theirs in zip(kernel.T[:12], expected, strict=True):  # axes have no sign
        np.testing.assert_allclose(ours * np.sign(ours @ theirs), theirs, rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(kernel[:, 12:], -kernel[:, :12])


def test_kernels_do_not_amplify_rounding_in_gray_images():
    """A network that trains in bfloat16 would take the rounding errors of absent colors for a feature."""
    gray = np.repeat(IMAGES[..., :1], 3, axis=-1) * [1.0, 1.1, 0.9] + [0.3, 0.1, -0.2]  # as normalization changes it
    kernel = whitening_kernel(gray.astype(np.float32))
    assert np.count_nonzero(np.abs(kernel).max(axis=(0, 1, 2))) == 8, "four axes and their negatives"
    patches = np.concatenate([extract_patches_2d(image, (2, 2)) for image in gray]).reshape(-1, 12)
    rounded = patches.astype(tf.bfloat16.as_numpy_dtype).astype(np.float32)
    outputs, inexact = patches @ kernel.reshape(12, 24), rounded @ kernel.reshape(12, 24)
    assert np.abs(outputs - inexact).std() < 0.02 * outputs.std()


@pytest.mark.parametrize("dimensions", [1, 2])
def test_outputs_of_the_stem_are_white(dimensions):
    examples = IMAGES if dimensions == 2 else IMAGES[:, :, 0]
    model = create_model(
        "resnet8_w64", input_shape=examples.shape[1:], num_classes=3, stem="whitening", dimensions=dimensions
    )
    whiten_stem(model, examples)
    stem = keras.Model(model.input, model.get_layer("stem_conv").output)
    outputs = stem.predict(examples, verbose=0)
    half = outputs.shape[-1] // 2
    assert outputs.shape[1:] == (*(size - 1 for size in examples.shape[1:-1]), 2 * half)
    assert half == 3 * 2**dimensions
    covariance = np.cov(outputs.reshape(-1, 2 * half)[:, :half], rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(half), atol=0.02)
    assert not any("stem" in each.path for each in model.trainable_variables)


def test_training_computes_the_kernels_and_leaves_them(tiny_config, tmp_path):
    config = override(tiny_config, {"model.stem": "whitening", "train.epochs": 2})
    train_and_evaluate(config, tmp_path)
    kernel = load_run(tmp_path).model.get_layer("stem_conv").kernel.numpy()
    source = open_source(config.data)
    preprocess = create_preprocess(config.data)
    examples = pipeline.sample_examples(source.train, preprocess, 1000)
    assert len(examples) == min(1000, source.train.num_examples)
    np.testing.assert_array_equal(kernel, whitening_kernel(preprocess.from_batch(examples).numpy()))


def test_inputs_smaller_than_the_kernel_are_refused():
    with pytest.raises(UserError, match="too small"):
        create_model("resnet_article", input_shape=(1, 1, 3), num_classes=3, stem="whitening")
