"""Train a ResNet-18 of torchvision for a number of minutes with the defaults of fastai, for `benchmarks/minutes.py`.

    python benchmarks/minutes_torch.py --data=photos/ --minutes=10

Defaults of `vision_learner(...).fit_one_cycle` (Howard and Gugger, fastai, 2020): AdamW with betas 0.95 to 0.85 and
0.99, weight decay 0.01, one cycle up to 0.001 in the first quarter, batches of 64, flips, and random crops of 224
pixels, which two workers prepare; small images keep their size. The number of epochs follows from the time of the first
steps. With `--weights`, ResNet-20 for CIFAR-10 is fine-tuned at 32 pixels by the defaults of `fine_tune`: one epoch of
a new head, then all layers up to 0.001 in the first three tenths, with learning rates of 1/100 and 1/10 of that for the
first and the second half of the layers. At most 60 epochs with weights, and 200 without, are trained, as in this
package. Prints one JSON object.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peers import import_torchvision
from pytorch_cifar10 import resnet20
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

torchvision = import_torchvision()
from torchvision.transforms import v2 as transforms  # noqa: E402

BATCH, SIZE, SMALL, FINE_TUNED = 64, 224, 64, 32
WORKERS = 2  # as fastai on two cores
MOST_EPOCHS = {True: 60, False: 200}  # as of this package, with pretrained weights and from scratch
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMED_STEPS = 10  # after a first one
MARGIN = 0.85  # fraction of the measured speed that is counted on


def open_data(path: Path, photo_size: int = SIZE) -> tuple[Dataset, Dataset, int]:
    """Return the training and the test split, and the number of classes; photos get a size in pixels."""
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
    size = max(first[0][0].size) if small else photo_size
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


def pretrained(weights: Path, classes: int) -> nn.Sequential:
    """Create ResNet-20 of akamaster/pytorch_resnet_cifar10 with its weights and a new head."""
    network = resnet20()
    stored = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    names = (name for name in network.state_dict() if not name.endswith("num_batches_tracked"))
    # Names differ, and the order of the layers does not.
    network.load_state_dict(dict(zip(names, stored.values(), strict=True)), strict=False)
    network[-1] = nn.Linear(network[-1].in_features, classes)
    return network


@dataclass
class Cycle:
    """One cycle of the learning rate, with the argument names of fastai.

    Attributes:
        groups: parameter groups, each with its maximum learning rate.
        epochs: number of epochs.
        pct_start: fraction of the steps in which the learning rate increases.
        div_factor: ratio of the maximum to the initial learning rate.
    """

    groups: list[tuple[list[nn.Parameter], float]]
    epochs: int
    pct_start: float
    div_factor: float = 25.0


def cycles(network: nn.Module, epochs: int, *, is_pretrained: bool) -> list[Cycle]:
    """Return the cycle of `fit_one_cycle`, or with pretrained weights those of `fine_tune`."""
    if not is_pretrained:
        return [Cycle([(list(network.parameters()), 1e-3)], epochs, 0.25)]
    layers = list(network.children())
    first, second, head = layers[: len(layers) // 2], layers[len(layers) // 2 : -1], layers[-1]
    body = [module for layer in (*first, *second) for module in layer.modules()]
    norms = [each for module in body if isinstance(module, nn.BatchNorm2d) for each in module.parameters()]
    groups = [
        ([each for layer in half for each in layer.parameters()], rate)
        for half, rate in ((first, 1e-5), (second, 1e-4))
    ]
    new = list(head.parameters())
    return [
        Cycle([(norms, 2e-4), (new, 2e-3)], 1, 0.99),  # BatchNorm is not frozen
        Cycle([*groups, (new, 1e-3)], max(1, epochs - 1), 0.3, div_factor=5.0),
    ]


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Take a step."""
    value = functional.cross_entropy(network(images), labels)
    optimizer.zero_grad()  # after the forward pass, which is faster
    value.backward()
    optimizer.step()


def adamw(cycle: Cycle) -> torch.optim.Optimizer:
    """Create the optimizer of a cycle; parameters outside of its groups are frozen."""
    groups = [{"params": parameters, "lr": rate} for parameters, rate in cycle.groups]
    return torch.optim.AdamW(groups, betas=(0.95, 0.99), weight_decay=0.01, eps=1e-5)


def seconds_per_step(network: nn.Module, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return the duration of a step that trains all layers, measured on a copy of the network."""
    network = copy.deepcopy(network)
    optimizer = adamw(cycles(network, 1, is_pretrained=False)[0])
    step(network, optimizer, *next(batches))
    start = time.monotonic()
    for _ in range(TIMED_STEPS):
        step(network, optimizer, *next(batches))
    return (time.monotonic() - start) / TIMED_STEPS


def fit(network: nn.Module, cycle: Cycle, batches: Iterator, steps_per_epoch: int, end: float) -> int:
    """Train for a cycle, until a time at the latest; return the number of steps."""
    steps = cycle.epochs * steps_per_epoch
    optimizer = adamw(cycle)
    trained = {id(each) for parameters, _ in cycle.groups for each in parameters}
    for each in network.parameters():
        each.requires_grad = id(each) in trained
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [rate for _, rate in cycle.groups],
        total_steps=steps + 1,
        pct_start=cycle.pct_start,
        base_momentum=0.85,
        max_momentum=0.95,
        div_factor=cycle.div_factor,
        final_div_factor=1e5 / cycle.div_factor,
    )
    for taken in range(steps):
        if time.monotonic() > end:
            return taken
        step(network, optimizer, *next(batches))
        schedule.step()
    return steps


def train(path: Path, minutes: float, weights: Path | None = None) -> dict[str, float | int | str]:
    """Train for a time, and return the accuracy on the test split, epochs and steps."""
    end = time.monotonic() + 60 * minutes
    train_split, test_split, classes = open_data(path, FINE_TUNED if weights else SIZE)
    batch = min(BATCH, len(train_split))  # type: ignore[arg-type]
    workers = 0 if isinstance(train_split, TensorDataset) else WORKERS
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(train_split, batch, shuffle=True, drop_last=True, **options)
    network = pretrained(weights, classes) if weights else torchvision.models.resnet18(num_classes=classes)
    batches, steps_per_epoch = endless(loader), len(loader)
    seconds = seconds_per_step(network, batches)
    end -= len(test_split) / batch * seconds / 2  # type: ignore[arg-type]
    epochs = max(1, math.floor((end - time.monotonic()) * MARGIN / seconds / steps_per_epoch))
    epochs = min(epochs, MOST_EPOCHS[bool(weights)])
    taken = 0
    for cycle in cycles(network, epochs, is_pretrained=bool(weights)):
        taken += fit(network, cycle, batches, steps_per_epoch, end)
    network.eval()
    correct = 0
    with torch.inference_mode():
        for images, labels in DataLoader(test_split, batch, num_workers=workers):
            correct += int((network(images).argmax(1) == labels).sum())
    return {
        "top1": correct / len(test_split),  # type: ignore[arg-type]
        "network": "resnet20" if weights else "torchvision resnet18",
        "batch_size": batch,
        "epochs": round(taken / steps_per_epoch, 2),
        "planned_epochs": epochs,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train/CLASS/* and test/CLASS/*, or .npz")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--weights", type=Path, help="weights of ResNet-20 for CIFAR-10")
    arguments = parser.parse_args()
    print(json.dumps(train(arguments.data, arguments.minutes, arguments.weights)))
