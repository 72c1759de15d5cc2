"""Augmentation policies compared with torchvision's tables and the probabilities of the papers."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import import_torch_zoo

from resnet_tf.config import AugmentConfig
from resnet_tf.data.augmentation import operations, policies, transforms
from resnet_tf.data.augmentation.operations import NAMES
from resnet_tf.inputs import ImagePreprocess

SIZE = (32, 48)
UNIFORM = dict(
    zip(
        transforms._COLUMNS,
        tf.unstack(transforms.random_numbers(0, tf.constant(0, tf.int64), 20_000), axis=1),
        strict=True,
    )
)


def _sampled(policy: str, **settings) -> list[tuple[np.ndarray, np.ndarray]]:
    settings = {"layers": 2, "magnitude": 9} | settings
    return [(indices.numpy(), values.numpy()) for indices, values in policies.sample(policy, UNIFORM, SIZE, **settings)]


def _frequencies(indices: np.ndarray) -> dict[str, float]:
    return {name: float(np.mean(indices == index)) for index, name in enumerate(NAMES)}


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_operations_and_signs_are_equally_likely(policy):
    layers = _sampled(policy, layers=3)
    assert len(layers) == {"randaugment": 3, "trivialaugment": 1}[policy]
    for indices, values in layers:
        frequencies = _frequencies(indices)
        assert frequencies.pop("Invert") == 0
        np.testing.assert_allclose(list(frequencies.values()), 1 / 14, atol=0.01)
        for name in ("Rotate", "Brightness", "ShearY"):
            signs = values[(indices == NAMES.index(name)) & (values != 0)] > 0
            assert 0.45 < signs.mean() < 0.55
        for name in ("Solarize", "Posterize"):
            assert (values[indices == NAMES.index(name)] >= 0).all()
    if policy == "randaugment":
        assert np.mean(layers[0][0] == layers[1][0]) == pytest.approx(1 / 14, abs=0.01), "layers are independent"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "reference", "arguments"),
    [
        ("randaugment", "RandAugment", (31, SIZE)),
        ("trivialaugment", "TrivialAugmentWide", (31,)),
        ("autoaugment_imagenet", "AutoAugment", (10, SIZE)),
    ],
)
def test_magnitudes_equal_torchvision(policy, reference, arguments):
    transform = getattr(import_torch_zoo("torchvision").transforms, reference)()
    space = transform._augmentation_space(*arguments)
    bins = arguments[0]
    table = policies._wide_magnitudes() if policy == "trivialaugment" else policies._magnitudes(bins, SIZE)
    assert set(space) == set(NAMES) - {"Identity" if policy.startswith("auto") else "Invert"}
    for name, (values, signed) in space.items():
        found = table[NAMES.index(name)]
        np.testing.assert_allclose(found, np.broadcast_to(values.numpy(), found.shape), rtol=1e-5, atol=1e-5)
        assert (name in policies._SIGNED) == signed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet", "cifar10"])
def test_autoaugment_policies_equal_torchvision(name):
    transforms = import_torch_zoo("torchvision").transforms
    reference = transforms.AutoAugment(transforms.AutoAugmentPolicy(name)).policies
    plain = [
        tuple((operation, probability, strength or 0) for operation, probability, strength in pair)
        for pair in reference
    ]
    assert list(policies._AUTOAUGMENT[f"autoaugment_{name}"]) == plain


def test_autoaugment_operations_are_applied_with_their_probabilities():
    """Expected frequency of each first operation, from the table of the paper."""
    (first, values), _ = _sampled("autoaugment_cifar10")
    expected = dict.fromkeys(NAMES, 0.0)
    for (name, probability, _), _ in policies._AUTOAUGMENT["autoaugment_cifar10"]:
        expected[name] += probability / 25
        expected["Identity"] += (1 - probability) / 25
    for name, frequency in _frequencies(first).items():
        assert frequency == pytest.approx(expected[name], abs=0.012)
    brightness = np.abs(values[first == NAMES.index("Brightness")])
    np.testing.assert_allclose(np.unique(brightness.round(4)), [0.3, 0.6], atol=1e-4)  # bins 3 and 6 of 0 to 9


@pytest.mark.parametrize("policy", ["autoaugment_cifar10", "autoaugment_imagenet"])
def test_both_operations_of_a_sub_policy_are_applied(policy):
    pairs = policies._AUTOAUGMENT[policy]
    layers = [indices for indices, _ in _sampled(policy)]
    assert len(layers) == 2
    for layer, indices in enumerate(layers):
        expected = dict.fromkeys(NAMES, 0.0)
        for pair in pairs:
            name, probability, _ = pair[layer]
            expected[name] += probability / 25
            expected["Identity"] += (1 - probability) / 25
        assert _frequencies(indices) == pytest.approx(expected, abs=0.012)
    possible = {(one, two) for (a, _, _), (b, _, _) in pairs for one in (a, "Identity") for two in (b, "Identity")}
    assert {(NAMES[one], NAMES[two]) for one, two in zip(*layers, strict=True)} <= possible


def test_magnitudes_are_those_of_the_bins():
    """Rotations of RandAugment at bin 9 of 0 to 30, and of TrivialAugment at all bins."""
    for indices, values in _sampled("randaugment", magnitude=9):
        np.testing.assert_allclose(np.abs(values[indices == NAMES.index("Rotate")]), 30 * 9 / 30, rtol=1e-6)
    ((indices, values),) = _sampled("trivialaugment")
    found = np.unique(np.abs(values[indices == NAMES.index("Rotate")]).round(3))
    np.testing.assert_allclose(found, 135 * np.arange(31) / 30, atol=1e-3)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment", "autoaugment_imagenet"])
def test_augment_batch_applies_the_sampled_operations(policy):
    images = np.random.default_rng(0).integers(0, 256, (12, *SIZE, 3), np.uint8)
    numbers = transforms.random_numbers(1, tf.constant(77, tf.int64), 12)
    config = AugmentConfig(policy=policy, policy_layers=2, policy_magnitude=15)
    found = transforms.augment_batch(tf.constant(images), numbers, config, ImagePreprocess(size=SIZE)).numpy()
    uniform = dict(zip(transforms._COLUMNS, tf.unstack(numbers, axis=1), strict=True))
    expected = tf.constant(images)
    for indices, magnitudes in policies.sample(policy, uniform, SIZE, layers=2, magnitude=15):
        expected = operations.apply(expected, indices, magnitudes)
    np.testing.assert_array_equal(found, expected)
    assert np.mean(found != images) > 0.3
