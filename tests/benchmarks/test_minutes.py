"""benchmarks/minutes.py: cases, results that are kept, and one tiny run of each of our methods."""

import gzip
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA, import_torch_zoo

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import minutes  # noqa: E402

from resnet_tf import create_model  # noqa: E402
from resnet_tf.core.files import append_json_lines, read_json_lines  # noqa: E402

WEIGHTS = SHARED_DATA / "cifar_resnet" / "resnet20-12fca82f.th"
TINY = ("model.name=resnet8_w32", "runtime.precision=float32", "train.epochs=1", "data.image_size=8")


def _arguments(tmp_path, *arguments: str) -> list[str]:
    return ["--minutes=10,2", f"--results={tmp_path / 'r.jsonl'}", *arguments]


def test_cases_with_a_result_are_skipped(tmp_path, monkeypatch, capsys):
    measured = []
    (tmp_path / "train").mkdir()
    monkeypatch.setattr(minutes, "measure", lambda case, settings, scratch: measured.append(case.key) or {"top1": 0.5})
    append_json_lines(tmp_path / "r.jsonl", [{"data": "photos", "minutes": 2.0, "method": "auto", "top1": 0.7}])
    for _ in range(2):
        minutes.main(_arguments(tmp_path, f"--data=photos={tmp_path}", "--methods=auto,pytorch"))
    assert [(each["minutes"], each["method"]) for each in measured] == [(2, "pytorch"), (10, "auto"), (10, "pytorch")]
    assert len(read_json_lines(tmp_path / "r.jsonl")) == 4
    assert len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(SystemExit, match="unknown methods fastai; there are auto, fixed, pytorch"):
        minutes.main(_arguments(tmp_path, "--methods=fastai"))


def test_the_digits_are_written_as_an_archive(tmp_path):
    arrays = np.load(minutes.write_digits(tmp_path / "digits.npz"))
    assert arrays["x_train"].shape == (898, 8, 8, 1)
    assert arrays["x_test"].max() == 255


def test_fashion_mnist_is_written_as_an_archive(tmp_path):
    for prefix, count in (("train", 3), ("t10k", 2)):
        images = struct.pack(">HBBIII", 0, 8, 3, count, 28, 28) + bytes(range(count)) * 784
        labels = struct.pack(">HBBI", 0, 8, 1, count) + bytes(range(count))
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    arrays = np.load(minutes.prepare(tmp_path, tmp_path / "fashion"))
    assert arrays["x_train"].shape == (3, 28, 28)
    assert arrays["x_train"].ravel()[:4].tolist() == [0, 1, 2, 0]
    assert arrays["y_test"].tolist() == [0, 1]


def test_photos_of_imagenet_are_labeled_by_their_order(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(10):
        (photos / f"{index}.jpg").touch()
    folder = minutes.prepare(photos, tmp_path / "split")
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    assert found == [
        *("test/animal/0.jpg", "test/thing/4.jpg", "test/thing/8.jpg"),
        *("train/animal/1.jpg", "train/animal/2.jpg", "train/animal/3.jpg"),
        *(f"train/thing/{index}.jpg" for index in (5, 6, 7, 9)),
    ]


def test_cases_have_the_weights_of_their_data(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    measured = []
    monkeypatch.setattr(minutes, "measure", lambda case, settings, scratch: measured.append(case) or {"top1": 0.5})
    data = [f"--data=photos={tmp_path}", f"--data=others={tmp_path}", f"--weights=photos=resnet20:{tmp_path / 'x.th'}"]
    minutes.main(_arguments(tmp_path, *data, "--methods=auto", "--minutes=2"))
    found = [(each.data, each.network, each.weights) for each in measured]
    assert found == [("photos", "resnet20", str(tmp_path / "x.th")), ("others", "", "")]


@pytest.mark.slow
@pytest.mark.long
def test_a_tiny_run_of_each_method(tmp_path):
    settings = [f"--settings={each}" for each in TINY]
    minutes.main(["--minutes=0.7", f"--results={tmp_path / 'r.jsonl'}", "--methods=auto,fixed", *settings])
    rows = read_json_lines(tmp_path / "r.jsonl")
    assert [row["method"] for row in rows] == ["auto", "fixed"]
    for row in rows:
        assert 0 <= row["top1"] <= 1
        assert (row["network"], row["image_size"]) == ("resnet8_w32", 8)
        assert json.dumps(row)


@pytest.mark.slow
def test_pytorch_trains_on_an_archive(tmp_path):
    import_torch_zoo("torchvision")
    minutes.main(["--minutes=0.1", f"--results={tmp_path / 'r.jsonl'}", "--methods=pytorch"])
    (row,) = read_json_lines(tmp_path / "r.jsonl")
    assert 0 <= row["top1"] <= 1
    assert row["planned_epochs"] >= 1


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.is_file(), reason="trained weights are not beside the checkout")
def test_pytorch_fine_tunes_the_weights_of_this_package():
    import_torch_zoo("torchvision")
    torch = pytest.importorskip("torch")
    import minutes_torch

    network = minutes_torch.pretrained(WEIGHTS, 2).eval()
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    ours = create_model("resnet20", num_classes=0, input_shape=(32, 32, 3), weights=WEIGHTS)
    with torch.no_grad():
        theirs = network[:-1](torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(theirs, ours.predict(images), rtol=1e-4, atol=1e-5)
    frozen, cycle = minutes_torch.cycles(network, 9, is_pretrained=True)
    trained = sum(each.numel() for group, _ in cycle.groups for each in group)
    assert trained == sum(each.numel() for each in network.parameters())
    assert (frozen.epochs, cycle.epochs) == (1, 8)
    assert sum(each.numel() for group, _ in frozen.groups for each in group) == 2 * 688 + 2 * 65
