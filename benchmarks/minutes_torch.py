"""Train a ResNet-18 of torchvision for a number of minutes with the defaults of fastai, for `benchmarks/minutes.py`.

    python benchmarks/minutes_torch.py --data=photos/ --minutes=10

Defaults of `vision_learner(...).fit_one_cycle` (Howard and Gugger, fastai, 2020): AdamW with betas 0.95 to 0.85 and
0.99, weight decay 0.01, one cycle up to 0.001 in the first quarter, batches of 64, flips, and random crops of 224
pixels; small images keep their size. The number of epochs follows from the time of the first steps. Prints one JSON
object.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from peers import import_torchvision
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

torchvision = import_torchvision()
from torchvision.transforms import v2 as transforms  # noqa: E402

BATCH, SIZE, SMALL = 64, 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMED_STEPS = 10  # after a first one
MARGIN = 0.85  # fraction of the measured speed that is counted on


def open_data(path: Path) -> tuple[Dataset, Dataset, int]:
    """Return the training and the test split, and the number of classes."""
    scale = [transforms.ToDtype(torch.float32, scale=True), transforms.Normalize(MEAN, STD)]
    if path.suffix == ".npz":
        arrays = np.load(path)
        splits = []
        for split in ("train", "test"):
            images = torch.from_numpy(arrays[f"x_{split}"])
            images = (images if images.ndim == 4 else images[..., None]).permute(0, 3, 1, 2)
            images = transforms.Compose(scale)(images.expand(-1, 3, -1, -1))
            splits.append(TensorDataset(images, torch.from_numpy(arrays[f"y_{split}"].astype(np.int64).ravel())))
        return splits[0], splits[1], int(arrays["y_train"].max()) + 1
    first = torchvision.datasets.ImageFolder(path / "train")
    small = max(first[0][0].size) <= SMALL
    size = max(first[0][0].size) if small else SIZE
    crop = transforms.RandomCrop(size, padding=4) if small else transforms.RandomResizedCrop(size, (0.35, 1.0))
    train = transforms.Compose([transforms.ToImage(), crop, transforms.RandomHorizontalFlip(), *scale])
    center = [transforms.Resize(size), transforms.CenterCrop(size)]
    test = transforms.Compose([transforms.ToImage(), *center, *scale])
    folders = [torchvision.datasets.ImageFolder(path / name, each) for name, each in (("train", train), ("test", test))]
    return folders[0], folders[1], len(first.classes)


def endless(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of one epoch after the other."""
    while True:
        yield from loader


def train(path: Path, minutes: float) -> dict[str, float | int | str]:
    """Train for a time, and return the accuracy on the test split, epochs and steps."""
    end = time.monotonic() + 60 * minutes
    train_split, test_split, classes = open_data(path)
    batch = min(BATCH, len(train_split))  # type: ignore[arg-type]
    loader = DataLoader(train_split, batch, shuffle=True, drop_last=True)
    network = torchvision.models.resnet18(num_classes=classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.95, 0.99), weight_decay=0.01, eps=1e-5)
    batches, loss = endless(loader), nn.CrossEntropyLoss(label_smoothing=0.0)

    def step() -> None:
        images, labels = next(batches)
        value = loss(network(images), labels)
        optimizer.zero_grad()  # after the forward pass, which is faster
        value.backward()
        optimizer.step()

    initial = {name: value.clone() for name, value in network.state_dict().items()}
    step()
    start = time.monotonic()
    for _ in range(TIMED_STEPS):
        step()
    seconds = (time.monotonic() - start) / TIMED_STEPS
    network.load_state_dict(initial)
    optimizer.state.clear()
    evaluation = len(test_split) / batch * seconds / 2  # type: ignore[arg-type]
    steps_per_epoch = len(loader)
    epochs = max(1, math.floor((end - time.monotonic() - evaluation) * MARGIN / seconds / steps_per_epoch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        1e-3,
        total_steps=epochs * steps_per_epoch + 1,
        pct_start=0.25,
        base_momentum=0.85,
        max_momentum=0.95,
        div_factor=25,
        final_div_factor=1e5 / 25,
    )
    taken = 0
    while taken < epochs * steps_per_epoch and time.monotonic() + evaluation < end:
        step()
        schedule.step()
        taken += 1
    network.eval()
    correct = 0
    with torch.inference_mode():
        for images, labels in DataLoader(test_split, batch):
            correct += int((network(images).argmax(1) == labels).sum())
    return {
        "top1": correct / len(test_split),  # type: ignore[arg-type]
        "network": "torchvision resnet18",
        "batch_size": batch,
        "epochs": round(taken / steps_per_epoch, 2),
        "planned_epochs": epochs,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train/CLASS/* and test/CLASS/*, or .npz")
    parser.add_argument("--minutes", type=float, required=True)
    arguments = parser.parse_args()
    print(json.dumps(train(arguments.data, arguments.minutes)))
