"""Signals, from an archive through training, evaluation and report to each type of export."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LONG, shallow, train_and_kill

from resnet_tf.config import AugmentConfig, Config, load_config
from resnet_tf.core.errors import UserError
from resnet_tf.data import pipeline
from resnet_tf.data.augmentation import mixing, transforms
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import ImagePreprocess, SignalPreprocess, create_preprocess
from resnet_tf.serving.export import export_model
from resnet_tf.serving.fold import fold
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training import default_settings
from resnet_tf.training.evaluation import evaluate_run
from resnet_tf.training.run import load_run
from resnet_tf.training.throughput import measure_training

EXAMPLE = Path(__file__).parents[1] / "examples" / "signals.py"
LENGTH, CHANNELS = 64, 2
PREPROCESS = SignalPreprocess(length=LENGTH, channels=CHANNELS, mean=(0.5, -1.0), std=(2.0, 0.5))


def _tones(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tones of a low or high frequency and random phase, float32 [count, 64, 2], and labels, int64 [count]."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    angles = 2 * np.pi * np.where(labels, 9, 3)[:, None, None] * np.linspace(0, 1, LENGTH)[:, None]
    waves = np.sin(angles + generator.uniform(0, 6, (count, 1, CHANNELS)))
    return (waves * PREPROCESS.std + PREPROCESS.mean).astype("float32"), labels


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tones.npz"
    (x_train, y_train), (x_test, y_test) = _tones(96, 0), _tones(20, 1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=["low", "high"])
    return path


def _config(archive: Path, *overrides: str) -> Config:
    settings = (
        f"data.source={archive}",
        f"data.length={LENGTH}",
        f"data.channels={CHANNELS}",
        "data.mean=0.5,-1",
        "data.std=2,0.5",
        "data.batch_size=32",
        "augment.pad_crop=4",
        "train.epochs=3",
    )
    return load_config("signals", [*settings, *overrides])


@pytest.fixture(scope="module")
def trained(archive, tmp_path_factory) -> Path:
    """Return the directory of a finished run. Tests must not write to it."""
    from resnet_tf.workflows.train import train_and_evaluate

    workdir = tmp_path_factory.mktemp("run")
    train_and_evaluate(_config(archive), workdir)
    return workdir


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory) -> Path:
    """Return the serving export of `trained`. Tests must not write to it."""
    return export_model(load_run(trained), tmp_path_factory.mktemp("export") / "tones")


def _batches(config: Config, *, start: int = 0) -> list[tuple[np.ndarray, ...]]:
    source, preprocess = open_source(config.data), create_preprocess(config.data)
    length = TrainingLength.of(config, source)
    return list(pipeline.train_batches(config, source, preprocess, length, start=start).as_numpy_iterator())


@pytest.mark.parametrize("memory", [0, 1024])
def test_an_epoch_has_each_signal_once_shifted_by_at_most_the_padding(archive, memory):
    config = _config(archive, f"data.memory_limit_mb={memory}")
    signals, labels = _tones(96, 0)
    padded = np.pad(signals, [(0, 0), (4, 4), (0, 0)])
    windows = np.stack([padded[:, offset : offset + LENGTH] for offset in range(9)], axis=1)
    batches = _batches(config)
    assert len(batches) == 9
    for epoch in range(3):
        examples, batch_labels, missing = (
            np.concatenate(arrays) for arrays in zip(*batches[3 * epoch : 3 * epoch + 3], strict=True)
        )
        assert examples.dtype == np.float32
        assert (missing == -1).all()
        equal = (examples[:, None, None] == windows).all(axis=(3, 4))  # [position in the epoch, example, offset]
        position, example, offset = np.nonzero(equal)
        np.testing.assert_array_equal(position, np.arange(96))
        assert sorted(example) == list(range(96))
        np.testing.assert_array_equal(batch_labels, labels[example])
        assert set(offset) == set(range(9))
    for batch, expected in zip(_batches(config, start=5), batches[5:], strict=True):
        for array, expected_array in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(array, expected_array)


def test_padding_is_zero():
    signals = tf.ones([3, 10, 2])
    cropped = transforms.pad_and_crop(signals, {"pad_row": tf.constant([0.0, 0.5, 0.99])}, 2).numpy()
    expected = [[0] * 2 + [1] * 8, [1] * 10, [1] * 8 + [0] * 2]
    np.testing.assert_array_equal(cropped[..., 0], expected)
    np.testing.assert_array_equal(cropped[..., 1], expected)


def test_mixup_blends_signals_and_their_labels():
    config, signals = AugmentConfig(mixup=0.4), np.random.default_rng(0).normal(size=(4, 6, 2)).astype("float32")
    mix = mixing.sample(0, tf.constant(0, tf.int64), 4, config, (6,))
    own = mix.numpy()[:, 0]
    assert np.ptp(own) > 0.01
    partner = [1, 0, 3, 2]
    expected = own[:, None, None] * signals + (1 - own)[:, None, None] * signals[partner]
    np.testing.assert_allclose(mixing.blend(tf.constant(signals), mix, config), expected, rtol=1e-6)
    targets = mixing.targets(tf.constant([0, 1, 2, 0], tf.int64), mix, config, num_classes=3, size=(6,)).numpy()
    identity = np.eye(3)[[0, 1, 2, 0]]
    np.testing.assert_allclose(targets, own[:, None] * identity + (1 - own)[:, None] * identity[partner], atol=1e-6)


def test_training_and_evaluation_normalize_equally(archive):
    config = _config(archive, "augment.pad_crop=0")
    source, preprocess = open_source(config.data), create_preprocess(config.data)
    assert preprocess == PREPROCESS
    signals, labels = _tones(20, 1)
    expected = (signals - PREPROCESS.mean) / PREPROCESS.std
    (inputs, batch_labels, indices), *_ = pipeline.eval_batches(source.validation, preprocess, 20).as_numpy_iterator()
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch_labels, labels)
    np.testing.assert_array_equal(indices, np.arange(20))
    examples = np.stack([preprocess.to_batch_element(signal) for signal in signals])
    np.testing.assert_allclose(preprocess.from_batch(tf.constant(examples)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.long
def test_a_resumed_run_ends_with_equal_weights(archive, trained, tmp_path):
    from resnet_tf.workflows.train import train_and_evaluate

    run = load_run(trained)
    evaluation = evaluate_run(run, open_source(run.config.data), batch_size=7)
    signals, labels = _tones(20, 1)
    logits = run.model((signals - PREPROCESS.mean) / PREPROCESS.std, training=False).numpy()
    np.testing.assert_allclose(evaluation.logits, logits, atol=1e-4 * np.abs(logits).max())
    np.testing.assert_array_equal(evaluation.targets, labels)
    with pytest.raises(UserError, match="mirror images, which signals do not have"):
        evaluate_run(run, open_source(run.config.data), batch_size=7, flip=True)

    config = _config(archive)
    train_and_kill(config, tmp_path / "run", epochs=1)
    train_and_evaluate(config, tmp_path / "run")
    for resumed, expected in zip(load_run(tmp_path / "run").model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(resumed, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("serving", "float32"),
        ("litert", "int8"),
        *(
            pytest.param("serving", "bfloat16", marks=LONG),
            pytest.param("hub", "float32", marks=LONG),
        ),
        *(pytest.param(each, "float32", marks=LONG) for each in ("keras", "litert", "onnx", "openvino")),
    ],
)
def test_every_export_predicts_like_the_run(trained, tmp_path, monkeypatch, capsys, target, precision):
    if package := {"onnx": "tf2onnx", "openvino": "openvino"}.get(target):
        pytest.importorskip(package, reason=f"needs {package}")
    run = load_run(trained)
    export = export_model(run, tmp_path / "export", target=target, precision=precision)
    predictor = Predictor(export)
    signals, labels = _tones(20, 1)
    expected = run.model((signals - PREPROCESS.mean) / PREPROCESS.std, training=False).numpy()
    tolerance = (1e-4 if precision == "float32" else 0.1) * np.abs(expected).max()
    np.testing.assert_allclose(predictor.logits(signals), expected, atol=tolerance)
    evaluation = predictor.evaluate(open_source(run.config.data).validation, batch_size=6)
    np.testing.assert_array_equal(evaluation.targets, labels)
    np.testing.assert_allclose(evaluation.logits, expected, atol=tolerance)
    np.save(tmp_path / "signal.npy", signals[3])
    (prediction,) = predictor([tmp_path / "signal.npy"])
    assert prediction.labels[0] == ("low", "high")[expected[3].argmax()]
    monkeypatch.chdir(export)
    if target != "hub":
        for block in re.findall(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL):
            exec(compile(block, "README.md", "exec"), {})
        assert capsys.readouterr().out.strip()


def test_the_serving_export_returns_features_and_labels(trained, served):
    run = load_run(trained)
    signatures = tf.saved_model.load(str(served)).signatures
    assert set(signatures) == {"serving_default", "features"}
    signals = tf.constant(_tones(5, 1)[0])
    answer = signatures["serving_default"](signals=signals)
    assert answer["top_labels"][0, 0].numpy().decode() == ("low", "high")[int(answer["logits"][0].numpy().argmax())]
    inner = keras.Model(run.model.input, run.model.layers[-2].output)
    expected = inner((signals - PREPROCESS.mean) / PREPROCESS.std, training=False).numpy()
    features = signatures["features"](signals=signals)["features"]
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
    records = list(tf.data.TFRecordDataset(str(served / "assets.extra" / "tf_serving_warmup_requests")))
    assert len(records) == 2
    with pytest.raises(UserError, match="has no Grad-CAM heatmaps: export an image network"):
        list(Predictor(served).explain([]))


@pytest.mark.slow
@pytest.mark.long
def test_the_hub_export_takes_other_lengths(trained, tmp_path):
    run = load_run(trained)
    module = tf.saved_model.load(str(export_model(run, tmp_path / "export", target="hub")))
    longer = np.concatenate([_tones(3, 1)[0]] * 2, axis=1)
    assert module(longer).shape == (3, 2)
    features = tf.saved_model.load(str(export_model(run, tmp_path / "features", target="hub_features")))
    assert features(longer).shape == (3, 512)


def test_every_normalization_of_a_one_dimensional_network_is_folded():
    model, generator = shallow("resnet18_1d", input_shape=(64, 2), num_classes=3), np.random.default_rng(0)
    for variable in model.variables:
        low, high = (0.5, 1.5) if variable.path.endswith(("gamma", "variance")) else (-0.1, 0.1)
        if "seed" not in variable.path:
            variable.assign(generator.uniform(low, high, variable.shape))
    folded = fold(model)
    assert not [layer for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]
    signals = generator.normal(size=(4, 64, 2)).astype("float32")
    expected = model(signals, training=False).numpy()
    np.testing.assert_allclose(folded(signals), expected, atol=1e-4 * np.abs(expected).max())


def test_a_network_without_preprocessing_is_exported_without_normalization(tmp_path):
    model = shallow("resnet18_1d", input_shape=(64, 3), num_classes=2)
    predictor = Predictor(export_model(model, tmp_path / "export"))
    assert predictor.preprocess == SignalPreprocess(length=64, channels=3)
    signals = np.random.default_rng(0).normal(size=(2, 64, 3)).astype("float32")
    np.testing.assert_allclose(predictor.logits(signals), model(signals, training=False), atol=1e-4)
    with pytest.raises(
        UserError, match=r"takes \(None, 3\), which has no default preprocessing; pass preprocess=ImagePreprocess"
    ):
        export_model(shallow("resnet18_1d", input_shape=(None, 3), num_classes=2), tmp_path / "open")
    with pytest.raises(
        UserError, match=r"preprocess returns inputs of shape \(64, 64, 3\), but resnet18_1d takes \(64, 3\)"
    ):
        export_model(model, tmp_path / "wrong", preprocess=ImagePreprocess(size=(64, 64)))
    with pytest.raises(UserError, match=r"does not apply to resnet18_1d: its input, signals, is not decoded"):
        export_model(model, tmp_path / "moved", default_signature="images")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.zeros((64, 3), "float32"), r"it is float32 \[64, 3\], not floating-point \[64, 2\]"),
        (np.zeros((64, 2), int), r"it is int64 \[64, 2\], not"),
        (np.full((64, 2), np.nan), r"it holds numbers that are not finite"),
        (b"\x93NUMPY", r"it is no \.npy file of numbers"),
        (b"", r"it is no \.npy file of numbers"),
    ],
)
def test_an_unreadable_signal_is_named(served, tmp_path, content, reason):
    predictor = Predictor(served)
    file = tmp_path / "one.npy"
    file.write_bytes(content) if isinstance(content, bytes) else np.save(file, content)
    with pytest.raises(UserError, match=rf"one\.npy' is not a readable signal: {reason}"):
        predictor([file])
    if not isinstance(content, bytes):
        with pytest.raises(UserError, match=r"signals of (shape|int64|float64)"):
            predictor.logits(content[None])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "augment.flip=true",
            r"augment\.flip does not apply to signals, which support augment\.mix_probability, augment\.mixup, ",
        ),
        ("augment.cutmix=1", r"augment\.cutmix does not apply to signals"),
        ("augment.random_resized_crop=true", r"augment\.random_resized_crop does not apply to signals"),
        ("train.defaults=photos", r"train\.defaults does not apply to signals"),
        ("train.start_size=16", r"train\.start_size does not apply to signals"),
        ("loss.teacher=there", r"loss\.teacher does not apply to signals"),
        ("data.mean=1,2,3", r"data\.mean has 3 values for data\.channels=2"),
    ],
)
def test_settings_of_images_are_refused(archive, override, message):
    with pytest.raises(UserError, match=message):
        default_settings.resolve(_config(archive, override))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"x_train": np.zeros((4, 64, 2), "uint8")},
            r"x_train of .* is uint8 \[4, 64, 2\]; data\.length=64 and",
        ),
        ({"x_train": np.zeros((4, 60, 2))}, r"take floating-point numbers \[N, 64, 2\]"),
        (
            {"x_test": np.where(np.arange(4)[:, None, None] == 2, np.inf, np.zeros((4, 64, 2)))},
            r"signal 2 is the first",
        ),
        ({"y_train": np.zeros(3, int)}, r"one for each of the 4 examples"),
    ],
)
def test_a_wrong_archive_is_refused(tmp_path, wrong, message):
    arrays = {"x_train": np.zeros((4, 64, 2)), "x_test": np.zeros((4, 64, 2))}
    labels = {"y_train": np.zeros(4, int), "y_test": np.zeros(4, int)}
    np.savez(tmp_path / "some.npz", **{**arrays, **labels, **wrong})
    with pytest.raises(UserError, match=message):
        open_source(_config(tmp_path / "some.npz").data)


def test_signals_need_an_archive_and_a_length(archive):
    with pytest.raises(UserError, match=r"signals come from an \.npz archive; data\.source is 'digits'"):
        open_source(_config(Path("digits")).data)
    with pytest.raises(UserError, match=r"is float32 \[96, 64, 2\]; images are uint8 .* signals take data\.length"):
        open_source(load_config("spectrograms", [f"data.source={archive}"]).data)


@pytest.mark.slow
@pytest.mark.long
def test_throughput_is_measured_on_random_signals(archive):
    assert measure_training(_config(archive, "data.source=nowhere.npz", "data.batch_size=4"), seconds=0.1) > 0


def test_a_plot_of_a_signal_shows_its_samples():
    ramp = np.linspace(-1, 1, 960)
    plot = PREPROCESS.plot(np.stack([ramp, 0 * ramp], axis=1))
    assert (plot.shape, plot.dtype) == ((64, 96, 1), np.uint8)
    first, second = (plot[rows, :, 0] == 0 for rows in (slice(32), slice(32, 64)))
    np.testing.assert_allclose(first.argmax(axis=0), np.linspace(31, 0, 97)[1:], atol=1)
    assert first.any(axis=0).all()
    assert set(np.nonzero(second)[0]) <= {15, 16}  # zero, in the middle
    assert PREPROCESS.plot(np.ones((5, 12))).shape == (12 * 16, 5, 1)


@pytest.mark.slow
@pytest.mark.long
def test_recipes_train_on_the_archives_of_the_example(tmp_path, command):
    out = tmp_path / "data"
    arguments = [sys.executable, str(EXAMPLE), f"--out={out}", "--train=400"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    archive = np.load(out / "spectrograms.npz")
    assert (archive["x_train"].dtype, archive["x_train"].shape) == (np.uint8, (400, 32, 32))
    for recipe, least, overrides in (("spectrograms", 0.9, ()), ("signals", 0.2, ("--train.epochs=1",))):
        source, workdir = f"--data.source={out / recipe}.npz", f"--workdir={tmp_path / recipe}"
        outcome = command("train", f"--config={recipe}", source, workdir, *overrides)
        assert outcome.code == 0, outcome.err
        assert float(outcome.out.split("top-1 ")[1].split()[0]) > least
        assert "100 of 100 validation examples have the same top-1 class" in outcome.out
        assert (tmp_path / recipe / "report" / "index.html").is_file()
    np.save(tmp_path / "one.npy", np.load(out / "signals.npz")["x_test"][0])
    outcome = command("predict", f"--model={tmp_path / 'signals' / 'export' / 'serving'}", str(tmp_path / "one.npy"))
    assert outcome.code == 0, outcome.err
    assert "one.npy\n  1  " in outcome.out


def test_spectrograms_have_time_to_the_right_and_frequency_upwards():
    """A tone of 1,000 Hz is a bright line in the eighth row from the bottom, each of which covers 125 Hz."""
    example = runpy.run_path(str(EXAMPLE))
    tone = np.sin(2 * np.pi * 1000 * np.arange(example["LENGTH"]) / example["RATE"]).astype("float32")
    spectrogram = example["make_spectrograms"](tone[None])[0]
    assert spectrogram.shape == (32, 32)
    rows = spectrogram.argmax(axis=0)
    np.testing.assert_array_equal(rows, 31 - (1000 // 125 - 1))
