"""Real pictures, where they lie beside the project (see README of that folder); skipped elsewhere."""

import json
import tarfile

import pytest
from conftest import SHARED_DATA

ARCHIVE = SHARED_DATA / "cifar10_jpeg.tar.xz"
PHOTOS = SHARED_DATA / "imagenet_sample"


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.is_file(), reason="CIFAR-10 as JPEG files is not beside the checkout")
def test_cifar_as_a_folder_of_images_learns_by_flags_alone(command, tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:  # every fifth picture to train on, every tenth to test on
            step = 5 if member.name.startswith(("train", "./train")) else 10
            if member.isfile() and int(member.name.split("/")[-1].split(".")[0]) % step == 0:
                archive.extract(member, tmp_path / "cifar", filter="data")
    workdir = tmp_path / "run"
    outcome = command(
        "train",
        "--config=cifar10_resnet20",
        f"--data.source={tmp_path / 'cifar'}",
        "--set=train.epochs=3",
        f"--workdir={workdir}",
    )
    assert outcome.code == 0, outcome.err
    figures = json.loads(command("evaluate", f"--workdir={workdir}", "--json").out)
    assert figures["examples"] == 1000
    assert figures["top1"] > 0.35
    assert "1000 of 1000 test images answered alike" in outcome.out


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the ImageNet photos are not beside the checkout")
def test_photos_of_any_size_are_answered(command, tmp_path):
    from resnet_tf.model.zoo import create_model
    from resnet_tf.serving.artifact import export_model

    model = create_model("resnet18", num_classes=10, input_shape=(64, 64, 3))
    path = export_model(model, tmp_path / "export")
    files = sorted(str(file) for file in PHOTOS.glob("*.JPEG"))
    outcome = command("predict", f"--model={path}", "--json", *files)
    assert outcome.code == 0, outcome.err
    answers = [json.loads(line) for line in outcome.out.splitlines()]
    assert [answer["file"] for answer in answers] == files
    assert len(files) == 200
