"""Real images in a folder next to the checkout, shared/data; without it, the tests are skipped."""

import json
import shutil

import pytest
import tensorflow as tf
from conftest import SHARED_DATA, extract_cifar, needs_cifar

import resnet_tf
from resnet_tf.config import load_config
from resnet_tf.data.sources import open_source
from resnet_tf.inputs.presets import CIFAR
from resnet_tf.model.create import create_model
from resnet_tf.serving.export import export_model
from resnet_tf.training.evaluation import Evaluator

PHOTOS = SHARED_DATA / "imagenet_sample"


@pytest.fixture(scope="module")
def cifar_test(tmp_path_factory):
    """Return a folder of the 10,000 test images."""
    return extract_cifar(tmp_path_factory.mktemp("cifar"), lambda split, number: split == "test")


@pytest.mark.slow
@pytest.mark.long
@needs_cifar
def test_a_folder_of_cifar_trains_with_flags_only(command, tmp_path):
    # Every fifth image for training, every tenth for evaluation.
    extract_cifar(tmp_path / "cifar", lambda split, number: number % {"train": 5, "test": 10}[split] == 0)
    workdir = tmp_path / "run"
    outcome = command(
        "train",
        "--config=cifar10_resnet20",
        f"--data.source={tmp_path / 'cifar'}",
        "--set=train.epochs=3",
        f"--workdir={workdir}",
    )
    assert outcome.code == 0, outcome.err
    metrics = json.loads(command("evaluate", f"--workdir={workdir}", "--json").out)
    assert metrics["examples"] == 1000
    assert metrics["top1"] > 0.35
    assert "1000 of 1000 validation examples have the same top-1 class" in outcome.out


@pytest.mark.slow
@needs_cifar
@pytest.mark.parametrize(
    ("name", "file", "correct"),
    [
        ("resnet20", "resnet20-12fca82f.th", 8103),
        pytest.param("resnet32", "resnet32-d509ac18.th", 8256, marks=pytest.mark.long),
    ],
)
def test_published_cifar_weights_have_the_accuracy_of_pytorch(
    cifar_test, tmp_path, command, monkeypatch, name, file, correct
):
    """The number of correct predictions equals that of the original PyTorch code on the same 10,000 JPEG files."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    shutil.copy(SHARED_DATA / "cifar_resnet" / file, tmp_path / "models")
    weights = tmp_path / f"{name}.weights.h5"
    outcome = command("convert", "--from=cifar10", f"--model={name}", "--num_classes=10", f"--to={weights}")
    assert outcome.code == 0, outcome.err
    model = create_model(name, num_classes=10, input_shape=(32, 32, 3), weights=weights)
    source = open_source(load_config("cifar10_resnet20", [f"data.source={cifar_test}", "data.train_split=test"]).data)
    assert model.labels == source.class_names
    strategy = tf.distribute.get_strategy()
    evaluation = Evaluator(model, source.validation, model.preprocess, batch_size=500, strategy=strategy)()
    assert int((evaluation.predictions == evaluation.targets).sum()) == correct


@pytest.mark.slow
@pytest.mark.long
@needs_cifar
@pytest.mark.parametrize(
    ("name", "file", "correct"),
    [("resnet20", "resnet20-12fca82f.th", 8103), ("resnet32", "resnet32-d509ac18.th", 8256)],
)
def test_openvino_in_8_bits_loses_little_accuracy(tmp_path, name, file, correct):
    """int8 with published weights, calibrated on training images: at most 0.3 points on the 10,000 test images."""
    extract_cifar(tmp_path)
    model = create_model(name, num_classes=10, input_shape=(32, 32, 3), weights=SHARED_DATA / "cifar_resnet" / file)
    model.preprocess = CIFAR
    data = load_config("cifar10_resnet20", [f"data.source={tmp_path}"]).data
    labels = open_source(data).class_names
    export = export_model(model, tmp_path / "export", target="openvino", precision="int8", labels=labels, data=data)
    evaluation = resnet_tf.evaluate(export, data=tmp_path).evaluation
    assert len(evaluation.targets) == 10_000
    assert (evaluation.predictions == evaluation.targets).sum() > correct - 30


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the ImageNet photos are not beside the checkout")
def test_predict_takes_photos_of_any_size(command, tmp_path):
    model = create_model("resnet18", num_classes=10, input_shape=(64, 64, 3))
    path = export_model(model, tmp_path / "export")
    files = sorted(str(file) for file in PHOTOS.glob("*.JPEG"))
    outcome = command("predict", f"--model={path}", "--json", *files)
    assert outcome.code == 0, outcome.err
    predictions = [json.loads(line) for line in outcome.out.splitlines()]
    assert [prediction["file"] for prediction in predictions] == files
    assert len(files) == 200
