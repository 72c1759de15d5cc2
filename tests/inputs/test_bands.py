"""Stacks of bands: float arrays with any number of channels, with weights for RGB."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.config import AUTO_SIZE, Config, DataConfig, load_config
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import BandsPreprocess, ImagePreprocess, Preprocess, create_preprocess, input_type
from resnet_tf.model.create import create_model
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.channels import adapt_channels
from resnet_tf.model.weights.mapping import to_torchvision
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.evaluation import Evaluator
from resnet_tf.training.run import create_network, load_run
from resnet_tf.training.start import start
from resnet_tf.workflows.plan import plan
from resnet_tf.workflows.train import train_and_evaluate

INSIDE = "Inside the file; the caller must not normalize"
SIZE, CHANNELS = 16, 13
BANDS = BandsPreprocess(size=(SIZE, SIZE), channels=CHANNELS, mean=(1000.0,), std=(500.0,))


def _stacks(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return reflectances of two classes, of which the second is brighter in the infrared."""
    labels = np.arange(count) % 2
    stacks = np.random.default_rng(seed).normal(1000, 500, (count, SIZE, SIZE, CHANNELS))
    stacks[labels == 1, ..., 7] += 1500
    return stacks.astype("float32"), labels


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """Return a network for RGB, and the path of its weights."""
    path = tmp_path_factory.mktemp("weights") / "rgb.safetensors"
    model = create_model("resnet8_w32", num_classes=5, input_shape=(32, 32, 3))
    readers.write_safetensors(path, to_torchvision(model), model.metadata.to_dict())
    return model, path


@pytest.fixture(scope="module")
def config(tmp_path_factory, rgb) -> Config:
    """Return the configuration of a run of two steps."""
    path = tmp_path_factory.mktemp("data") / "bands.npz"
    (x_train, y_train), (x_test, y_test) = _stacks(64, 0), _stacks(20, 1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=["soil", "leaf"])
    settings = (
        *(f"data.source={path}", "data.input_type=bands", f"data.image_size={SIZE}", f"data.channels={CHANNELS}"),
        *("data.mean=1000", "data.std=500", "data.batch_size=32", "train.epochs=1", "model.name=resnet8_w32"),
        *("augment.flip=true", "augment.pad_crop=2", "augment.erasing=0.5", "augment.cutmix=1", "augment.mixup=0.2"),
        *("augment.shift=0", "augment.scale=0", "augment.rotation=0", f"model.weights={rgb[1]}", "model.new_head=true"),
    )
    return load_config("digits", settings)


def test_the_configuration_selects_bands_with_the_weights_of_rgb(config, rgb):
    assert input_type(config.data) is BandsPreprocess
    network = create_network(config, num_classes=2, weights=config.model.weights)
    expected = adapt_channels(rgb[0].get_layer("stem_conv").kernel.numpy(), CHANNELS, method="repeat")
    np.testing.assert_array_equal(network.get_layer("stem_conv").kernel, expected)
    assert network.preprocess is None, "pixels in [0, 1] have other statistics"
    assert create_preprocess(config.data, ImagePreprocess(size=(8, 8))) == BANDS
    examples, _ = next(iter(open_source(config.data).validation.examples(1).as_numpy_iterator())), None
    np.testing.assert_array_equal(examples[0], _stacks(20, 1)[0][0])


@pytest.mark.slow
def test_bands_are_trained_exported_and_predicted(config, tmp_path):
    assert train_and_evaluate(config, tmp_path / "run")["step"] == 2
    run = load_run(tmp_path / "run")
    assert run.preprocess == BANDS
    predictor = Predictor(export_model(run, tmp_path / "export"))
    stacks, _ = _stacks(6, 2)
    expected = run.model((stacks - 1000) / 500, training=False).numpy()
    np.testing.assert_allclose(predictor.logits(stacks), expected, atol=1e-4 * np.abs(expected).max())
    np.save(tmp_path / "bands.npy", stacks[3])
    assert predictor(tmp_path / "bands.npy").indices[0] == expected[3].argmax()


def test_an_automatic_size_is_refused(config):
    data = dataclasses.replace(config.data, image_size=AUTO_SIZE)
    with pytest.raises(
        UserError, match=r"data\.image_size=auto .* bands are not resized: set data\.image_size to their"
    ):
        start(dataclasses.replace(config, data=data))


def _no_memory(*arguments):
    raise tf.errors.ResourceExhaustedError(None, None, "too large")


def test_messages_count_band_stacks(config):
    assert plan(config).facts["runs on"].startswith("1 replica of 32 band stacks (")
    model, split = create_network(config, num_classes=2), open_source(config.data).validation
    evaluator = Evaluator(model, split, BANDS, batch_size=20, strategy=tf.distribute.get_strategy())
    evaluator._predict = _no_memory
    with pytest.raises(UserError, match="out of memory in an evaluation of 20 band stacks at a time: too large"):
        evaluator()


def test_an_export_of_bands_counts_band_stacks_and_has_code_that_runs(tmp_path, monkeypatch, capsys):
    model = create_model("resnet8_w32", num_classes=2, input_shape=BANDS.input_shape)
    export = export_model(model, tmp_path / "export", preprocess=BANDS, labels=["soil", "leaf"])
    card = (export / "README.md").read_text()
    assert f"A stack of 13 bands of 16x16 pixels, not normalized.\n\n**{INSIDE}.** Subtract (1000.0, 1000.0, " in card
    np.save(tmp_path / "bands.npy", _stacks(1, 1)[0][0])
    monkeypatch.chdir(export)
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})
    assert re.fullmatch(
        r"\[b'(soil|leaf)' b'(soil|leaf)'\]\n\('(soil|leaf)', '(soil|leaf)'\)\n", capsys.readouterr().out
    )
    predictor = Predictor(export)
    predictor._runner.predict = _no_memory
    with pytest.raises(UserError, match="out of memory in a batch of 2 band stacks: too large"):
        predictor(_stacks(2, 1)[0])


def test_statistics_are_those_of_the_settings_of_other_bands_or_none():
    data = DataConfig(input_type="bands", image_size=SIZE, channels=4)
    plain = BandsPreprocess(size=(SIZE, SIZE), channels=4)
    assert create_preprocess(data) == plain
    assert (plain.mean, plain.std) == ((0.0,) * 4, (1.0,) * 4)
    weights = BandsPreprocess(size=(8, 8), channels=3, mean=(1.0, 2.0, 3.0), std=(4.0,))
    assert create_preprocess(data, weights).mean == (1.0, 2.0, 3.0, 1.0)
    with pytest.raises(UserError, match=r"data.mean has 2 values for data.channels=4"):
        load_config("digits", ["data.input_type=bands", "data.channels=4", "data.mean=1,2"])


def test_bands_survive_json():
    assert Preprocess.from_dict(BANDS.to_dict()) == BANDS
    assert BANDS.with_size((8, 4)).input_shape == (8, 4, CHANNELS)
    for size in ((0, 8), (8,), 8, (8.0, 8), (2**20, 8)):
        with pytest.raises(UserError, match="size"):
            BandsPreprocess(size=size, channels=3)
    with pytest.raises(UserError, match=r"has .* values; at most"):
        BandsPreprocess(size=(2**14, 2**14), channels=64)


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (13, 3)])
def test_plots_show_the_first_channels_in_their_range(channels, shown):
    example = np.random.default_rng(0).normal(1000, 500, (5, 6, channels)).astype(np.float32)
    found = BANDS.plot(example)
    assert (found.dtype, found.shape) == (np.uint8, (5, 6, shown))
    assert found.min(axis=(0, 1)).tolist() == [0] * shown
    assert found.max(axis=(0, 1)).tolist() == [255] * shown
    assert BANDS.plot(np.ones((2, 2, channels), np.float32)).max() == 0


def test_settings_of_images_are_refused(config):
    for key, value in {"augment.policy": "randaugment", "augment.random_resized_crop": True}.items():
        group, name = key.split(".")
        changed = dataclasses.replace(getattr(config, group), **{name: value})
        with pytest.raises(UserError, match=rf"{key} does not apply to bands, which support augment\.alternating"):
            BandsPreprocess.check_config(dataclasses.replace(config, **{group: changed}))
    with pytest.raises(UserError, match=r"got 13; float arrays of any number of channels take data\.input_type=bands"):
        ImagePreprocess.check_config(config)
    other = dataclasses.replace(config.data, channels=4)
    with pytest.raises(UserError, match=r"data\.image_size=16 and data\.channels=4 take floating-point numbers \[N"):
        open_source(other)
