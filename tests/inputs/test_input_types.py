"""Input types: selection, files of earlier versions, and a custom input type."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf
from conftest import override_groups, shallow

from resnet_tf.config import Config, DataConfig, load_config
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import (
    ArrayPreprocess,
    ImagePreprocess,
    Preprocess,
    SignalPreprocess,
    base,
    create_preprocess,
    find_origin,
    import_origin,
    input_type,
    register_input_type,
)
from resnet_tf.inputs.base import resolve_statistics
from resnet_tf.model.create import convert_file, create_model
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.evaluation import evaluate_run
from resnet_tf.training.run import load_run
from resnet_tf.workflows.benchmark import benchmark
from resnet_tf.workflows.preview import preview
from resnet_tf.workflows.prove import prove
from resnet_tf.workflows.reporting import write_run_report
from resnet_tf.workflows.train import train, train_and_evaluate

PACKAGE = Path(__file__).parents[2] / "resnet_tf"
SIZE, CHANNELS, CLASSES = 12, 5, ("low", "high")
RECIPE = '''
from dataclasses import dataclass

from resnet_tf.config import Config
from resnet_tf.inputs import BandsPreprocess, register_input_type


@register_input_type("mel")
@dataclass(frozen=True, kw_only=True)
class MelPreprocess(BandsPreprocess):
    """Spectrograms of several microphones."""


def get_config():
    return Config()
'''


@register_input_type("stack")
@dataclass(frozen=True, kw_only=True)
class StackPreprocess(ArrayPreprocess):
    """Spectrograms of several microphones: float32 [height, width, channels], any number of channels."""

    size: tuple[int, int]

    noun: ClassVar[str] = "stack"
    plural: ClassVar[str] = "stacks"
    size_key: ClassVar[str] = "data.image_size"
    supported_augmentations: ClassVar[frozenset[str]] = ArrayPreprocess.supported_augmentations | {
        *("flip", "pad_crop", "erasing", "cutmix"),
    }
    example_file: ClassVar[str] = "stack.npy"
    axes: ClassVar[str] = "H, W"
    value_range: ClassVar[str] = "decibels"
    origins: ClassVar[str] = "microphones"

    @classmethod
    def from_config(cls, data, weights=None):
        *size, channels = cls.shape_from_config(data)
        own = cls(size=tuple(size), channels=channels)
        mean, std = resolve_statistics(data, weights or own)
        return dataclasses.replace(own, mean=mean, std=std)

    @classmethod
    def shape_from_config(cls, data):
        return data.image_size, data.image_size, data.channels

    def with_size(self, sizes):
        return dataclasses.replace(self, size=sizes)

    @property
    def input_shape(self):
        return *self.size, self.channels

    @property
    def size_text(self):
        return f"{self.size[0]} bands"

    @property
    def description(self):
        return f"A stack of {self.channels} spectrograms."

    def plot(self, example):
        return np.rint(255 * (np.tanh(example.mean(axis=-1, keepdims=True)) + 1) / 2).astype(np.uint8)


def _stacks(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise with a louder upper or lower half, a label that horizontal flips preserve."""
    labels = np.arange(count) % 2
    stacks = np.random.default_rng(seed).normal(size=(count, SIZE, SIZE, CHANNELS))
    stacks[labels == 1, : SIZE // 2] += 3.0
    stacks[labels == 0, SIZE // 2 :] += 3.0
    return (2.0 * stacks + np.arange(CHANNELS)).astype("float32"), labels


@pytest.fixture(scope="module")
def stacks_config(tmp_path_factory) -> Config:
    path = tmp_path_factory.mktemp("data") / "stacks.npz"
    (x_train, y_train), (x_test, y_test) = _stacks(32, 0), _stacks(14, 1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=CLASSES)
    settings = (
        *(f"data.source={path}", "data.input_type=stack", f"data.image_size={SIZE}", f"data.channels={CHANNELS}"),
        *("data.mean=0,1,2,3,4", "data.std=2", "data.batch_size=32", "train.epochs=1", "model.name=resnet8_w32"),
        *("augment.flip=true", "augment.pad_crop=2", "augment.erasing=0.5", "augment.cutmix=1", "augment.mixup=0.2"),
        *("runtime.precision=float32", "augment.shift=0", "augment.scale=0", "augment.rotation=0"),
    )
    return load_config("digits", settings)


@pytest.fixture(scope="module")
def stacks_run(stacks_config, tmp_path_factory):
    """Directory of a run of one step."""
    workdir = tmp_path_factory.mktemp("run")
    assert train_and_evaluate(stacks_config, workdir)["step"] == 1
    return load_run(workdir)


@pytest.mark.slow
def test_a_custom_type_is_trained_and_evaluated(stacks_run, stacks_config, tmp_path):
    preprocess = StackPreprocess(size=(SIZE, SIZE), channels=CHANNELS, mean=(0, 1, 2, 3, 4), std=(2,))
    assert stacks_run.preprocess == preprocess
    stacks, labels = _stacks(14, 1)
    inputs = (stacks - np.arange(CHANNELS)) / 2
    expected = stacks_run.model(inputs, training=False).numpy()
    source = open_source(stacks_config.data)
    evaluation = evaluate_run(stacks_run, source, batch_size=4)
    np.testing.assert_allclose(evaluation.logits, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(evaluation.targets, labels)
    mirrored = stacks_run.model(inputs[:, :, ::-1], training=False).numpy()
    flipped = evaluate_run(stacks_run, source, batch_size=4, flip=True).logits
    np.testing.assert_allclose(flipped, (expected + mirrored) / 2, atol=1e-4 * np.abs(expected).max())
    assert write_run_report(tmp_path / "report", stacks_run, evaluation, source).is_file()
    assert preview(stacks_config, tmp_path / "batch.png").is_file()


@pytest.mark.parametrize("target", ["serving", "keras"])
def test_a_custom_type_is_exported_and_predicted(stacks_run, tmp_path, target):
    export = export_model(stacks_run, tmp_path / target, target=target)
    assert json.loads((export / "assets.extra" / "resnet_tf.json").read_text())["preprocess"]["type"] == "stack"
    predictor = Predictor(export)
    stacks, labels = _stacks(14, 1)
    expected = stacks_run.model((stacks - np.arange(CHANNELS)) / 2, training=False).numpy()
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(predictor.logits(stacks), expected, atol=tolerance)
    evaluation = predictor.evaluate(open_source(stacks_run.config.data).validation, batch_size=4)
    np.testing.assert_array_equal(evaluation.targets, labels)
    np.testing.assert_allclose(evaluation.logits, expected, atol=tolerance)
    np.save(tmp_path / "stack.npy", stacks[3])
    for form in (tmp_path / "stack.npy", (tmp_path / "stack.npy").read_bytes(), stacks[3]):
        assert predictor(form).indices[0] == expected[3].argmax()
    card = (export / "README.md").read_text()
    assert "for stacks" in card
    assert "A stack of 5 spectrograms." in card
    assert "not to other microphones" in card
    np.save(tmp_path / "flat.npy", stacks[3, ..., 0])
    with pytest.raises(UserError, match=r"flat\.npy' is not a readable stack: it is float32 \[12, 12, 1\], not"):
        predictor([tmp_path / "flat.npy"])


def test_a_served_custom_type_has_its_own_argument(stacks_run, tmp_path):
    signatures = tf.saved_model.load(str(export_model(stacks_run, tmp_path / "export"))).signatures
    assert set(signatures) == {"serving_default", "features"}
    stacks = tf.constant(_stacks(3, 1)[0])
    assert signatures["serving_default"](stacks=stacks)["logits"].shape == (3, 2)
    assert signatures["features"](stacks=stacks)["features"].shape[0] == 3


@pytest.fixture
def _own_types(monkeypatch):
    """Keep the input types that a test registers from other tests."""
    monkeypatch.setattr(base, "_TYPES", dict(base._TYPES))


@pytest.mark.usefixtures("_own_types")
def test_another_process_runs_the_recipe_of_a_type(tmp_path, monkeypatch):
    (tmp_path / "recipe.py").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    load_config("recipe.py")
    origin = find_origin(input_type(DataConfig(input_type="mel")))
    assert origin == str(tmp_path / "recipe.py")
    monkeypatch.chdir("/")
    del base._TYPES["mel"]
    import_origin(origin)
    assert "mel" in base._TYPES


@pytest.mark.usefixtures("_own_types")
def test_another_process_imports_the_module_of_a_type(tmp_path, monkeypatch):
    (tmp_path / "module_of_mel.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    import_origin("module_of_mel")
    assert find_origin(input_type(DataConfig(input_type="mel"))) == "module_of_mel"
    assert find_origin(ImagePreprocess) == "resnet_tf.inputs.images"


@pytest.mark.usefixtures("_own_types")
def test_a_type_of_the_program_itself_is_refused_before_training(stacks_config, tmp_path):
    register_input_type("own")(type("Own", (StackPreprocess,), {"__module__": "__main__"}))
    config = override_groups(stacks_config, data={"input_type": "own"})
    with pytest.raises(UserError, match=r"^input type 'own' is defined in the program itself; define it in a module"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_own_types")
def test_a_type_of_a_recipe_is_verified_measured_and_proved(stacks_config, tmp_path):
    """In new processes, which have not loaded the recipe."""
    (tmp_path / "recipe.py").write_text(RECIPE)
    load_config(tmp_path / "recipe.py")
    data = {"input_type": "mel", "crop_fraction": DataConfig().crop_fraction}  # which has no effect on bands
    config = override_groups(stacks_config, data=data, runtime={"deterministic": True})
    result = train(config, tmp_path / "run")
    assert result.verification.same_top1 == result.verification.examples == 14
    (measured,) = benchmark(result.export, what="serving", seconds=0.1).exports
    assert measured.accuracy == pytest.approx(result.run.metrics["top1"])
    assert prove(tmp_path / "run")


def test_settings_that_a_type_does_not_support_are_refused(stacks_config):
    for key in ("augment.policy", "augment.random_resized_crop", "train.start_size"):
        value = {"augment.policy": "randaugment", "train.start_size": 8}.get(key, True)
        group, name = key.split(".")
        changed = dataclasses.replace(getattr(stacks_config, group), **{name: value})
        with pytest.raises(UserError, match=rf"{key} does not apply to stacks, which support augment\.cutmix, "):
            StackPreprocess.check_config(dataclasses.replace(stacks_config, **{group: changed}))
    with pytest.raises(UserError, match=r"data\.channels must be 3 \(RGB\) or 1 \(gray\), got 5"):
        ImagePreprocess.check_config(stacks_config)


def test_an_archive_that_does_not_fit_a_custom_type_is_refused(stacks_config):
    config = dataclasses.replace(stacks_config.data, image_size=16)
    with pytest.raises(UserError, match=r"data\.image_size=16 and data\.channels=5 take .* \[N, 16, 16, 5\]"):
        open_source(config)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ImagePreprocess),
        ({"length": 9}, SignalPreprocess),
        ({"input_type": "image", "length": 9}, ImagePreprocess),
        ({"input_type": "stack"}, StackPreprocess),
    ],
)
def test_the_configuration_selects_the_type(changes, expected):
    assert input_type(DataConfig(**changes)) is expected


def test_unknown_types_are_refused():
    with pytest.raises(UserError, match=r"unknown data\.input_type 'sginal'; did you mean 'signal'"):
        create_preprocess(DataConfig(input_type="sginal"))
    with pytest.raises(UserError, match=r"unknown input type 'video'; registered types: bands, image, signal.*import"):
        Preprocess.from_dict({"type": "video", "channels": 3})


def test_a_name_belongs_to_one_class():
    with pytest.raises(
        ValueError, match=r"input type 'image' is already registered for resnet_tf\.inputs\.images\.ImagePreprocess"
    ):
        register_input_type("image")(type("ImagePreprocess", (ArrayPreprocess,), {}))
    assert register_input_type("stack")(StackPreprocess) is StackPreprocess


@pytest.mark.parametrize(
    "preprocess",
    [
        ImagePreprocess(size=(8, 9), channels=1, mean=(0.3,), std=(0.4,), exif_orientation=True),
        SignalPreprocess(length=64, channels=2, mean=(0.5, -1.0), std=(2.0, 0.5)),
        StackPreprocess(size=(4, 4), channels=5),
    ],
    ids=lambda preprocess: preprocess.type_name,
)
def test_preprocessing_survives_json(preprocess):
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_one_statistic_applies_to_all_channels():
    assert SignalPreprocess(length=4, channels=3, mean=(0.5,)) == SignalPreprocess(
        length=4, channels=3, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)
    )
    with pytest.raises(UserError, match=r"mean=\(1\.0, 2\.0\) must have one value, or one for each of 3 channels"):
        SignalPreprocess(length=4, channels=3, mean=(1, 2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], r"expected the fields of a preprocessing as a JSON object, got \[1\]"),
        ({"nonsense": 1}, r"invalid preprocessing of type 'image': .*nonsense"),
        ({"type": "image"}, r"invalid preprocessing of type 'image': .*size"),
        ({"type": "image", "size": [8]}, r"invalid preprocessing of type 'image': size "),
        ({"type": "image", "size": [8, -8]}, r"size must be at least 1, got -8"),
        ({"type": "image", "size": [8, 8], "std": 1}, r"invalid preprocessing of type 'image': std "),
        (
            {"type": "image", "size": [8, 8], "interpolation": "sinc"},
            r"interpolation='sinc'; expected bilinear or bicubic",
        ),
        ({"type": "image", "size": [8, 8], "channel_order": "gbr"}, r"channel_order='gbr'; expected rgb or bgr"),
        (
            {"type": "signal", "length": "long", "channels": 1},
            r"invalid preprocessing of type 'signal': length is a string",
        ),
    ],
)
def test_invalid_descriptions_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Preprocess.from_dict(values)


def _earlier_description(preprocess: Preprocess) -> dict:
    """Return the stored form before input types had names: every field of images, signals with one size."""
    image = {"crop_fraction": 0.875, "interpolation": "bilinear", "antialias": True, "channel_order": "rgb"}
    image |= {"exif_orientation": False, "max_pixels": 2**26}
    values = {name: value for name, value in dataclasses.asdict(preprocess).items() if name != "length"}
    return {**image, "size": preprocess.spatial_shape, **values}


@pytest.fixture
def _earlier_version(monkeypatch):
    """Write files as before input types had names."""
    monkeypatch.setattr(Preprocess, "to_dict", _earlier_description)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("_earlier_version")
def test_files_of_earlier_versions_are_read(tmp_path, tiny_config):
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, epochs=1))
    train_and_evaluate(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.preprocess == create_preprocess(config.data)
    assert "type" not in run.preprocess.to_dict()
    export = export_model(run, tmp_path / "export")
    stored = json.loads((export / "assets.extra" / "resnet_tf.json").read_text())["preprocess"]
    assert (stored["size"], "type" in stored) == ([8, 8], False)
    assert Predictor(export).preprocess == run.preprocess


@pytest.mark.usefixtures("_earlier_version")
def test_weights_of_earlier_versions_are_read(tmp_path):
    network = {"name": "resnet8_w32", "num_classes": 2}
    preprocess = ImagePreprocess(size=(32, 32), channel_order="bgr", mean=(0.1, 0.2, 0.3))
    export_model(create_model(**network, input_shape=(32, 32, 3)), tmp_path, target="keras", preprocess=preprocess)
    source = tmp_path / "1" / "model.keras"
    for suffix in (".weights.h5", ".keras", ".safetensors"):
        target = tmp_path / f"weights{suffix}"
        convert_file(source, network["name"], target, num_classes=2)
        for file in (source, target):
            assert create_model(**network, input_shape=(32, 32, 3), weights=file).preprocess == preprocess


@pytest.mark.usefixtures("_earlier_version")
def test_signals_of_earlier_versions_are_read(tmp_path):
    model = shallow("resnet18_1d", input_shape=(64, 2), num_classes=2)
    preprocess = SignalPreprocess(length=64, channels=2, mean=(0.5, -1.0), std=(2.0, 0.5))
    export = export_model(model, tmp_path / "export", preprocess=preprocess)
    stored = json.loads((export / "assets.extra" / "resnet_tf.json").read_text())["preprocess"]
    assert (stored["size"], stored["interpolation"], "type" in stored) == ([64], "bilinear", False)
    assert Predictor(export).preprocess == preprocess


def test_no_other_directory_asks_for_the_input_type():
    question = re.compile(
        r"of_signals|data\.length|config\.length|\btype_name\b|\.(?:noun|plural) *[=!]="
        r"|(?:isinstance|issubclass)\(.*(?:Image|Signal|Array|Bands)Preprocess"
        r"|(?:\bis|\bis not|==|!=) (?:Image|Signal|Array|Bands)Preprocess"
        r"|len\(.*(?:size|sizes|spatial_shape|input_shape|shape_from_config\([\w.]*\))\) *[=!]= *(?:\d|_*[A-Z])"
    )
    for asked in (
        "if input_type(config.data) is not ImagePreprocess:",
        "if not issubclass(input_type(config.data), ImagePreprocess):",
        "return len(input_type(config.data).shape_from_config(config.data)) == _DIMENSIONS",
    ):
        assert question.search(asked)
    allowed = {"config/schema.py": ["data.length"]}
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        hits = question.findall(path.read_text())
        if not name.startswith("inputs/") and hits and set(hits) - set(allowed.get(name, ())):
            found[name] = hits
    assert not found
