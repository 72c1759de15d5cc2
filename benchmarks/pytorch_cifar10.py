"""Train the PyTorch reference of our CIFAR-10 results: same network, recipe, images and epochs.

    python benchmarks/pytorch_cifar10.py --data=cifar/ --style=usual --out=usual/     common loop
    python benchmarks/pytorch_cifar10.py --data=cifar/ --style=best --out=best/       tuned loop

`usual` is float32 with torchvision's transforms in a DataLoader with two workers, like akamaster/pytorch_resnet_cifar10
and kuangliu/pytorch-cifar. `best` is bfloat16 in channels_last, and crops and flips batches in the main process, since
workers would compete with the network for the cores. It is eager: `--compile` makes a step 3 % faster, but compilation
takes a minute, which cancels the gain in 20 epochs. `--data` is a folder of train/CLASS/* and test/CLASS/*. The metrics
in OUT/metrics.jsonl have the same names as in runs of this package.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from peers import import_torchvision
from PIL import Image
from torch import nn
from torch.nn import functional

BATCH = 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions and the parameter-free shortcut, option A of He et al. 2015."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.missing = stride, width - inputs

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.missing:
            half = self.missing // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return functional.relu(x + y)


def resnet20() -> nn.Module:
    """Create ResNet-20 with the initialization of He et al. 2015 (section 4.2)."""
    layers, inputs = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for width in (16, 32, 64):
        for _ in range(3):
            layers.append(Block(inputs, width, 2 if width > inputs else 1))
            inputs = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class Images(torch.utils.data.Dataset):
    """Images in memory, converted to PIL images one at a time, like torchvision.datasets.CIFAR10."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def usual_batches(images: np.ndarray, labels: np.ndarray) -> torch.utils.data.DataLoader:
    """Return batches that torchvision shuffles, crops and flips, one image at a time."""
    transforms = import_torchvision().transforms
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    dataset = Images(images, labels, transform)
    return torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=2, drop_last=True)


class FastBatches:
    """Batches that are shuffled, cropped and flipped one batch at a time, from one tensor of padded images."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.size, self.padded, self.labels = pixels.shape[-1], functional.pad(pixels, (4, 4, 4, 4)), labels

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order, labels = torch.randperm(len(self.labels)), torch.as_tensor(self.labels)
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            rows, columns = torch.randint(0, 9, (2, BATCH, 1)) + torch.arange(self.size)
            columns = torch.where(torch.rand(BATCH, 1) < 0.5, columns, columns.flip(1))
            pixels = self.padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
            yield normalized(pixels.permute(0, 3, 1, 2)), labels[chosen]


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """Normalize images: uint8 [B, 3, H, W] -> float32 [B, 3, H, W] in channels_last."""
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    return ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def take_step(model, optimizer, images: torch.Tensor, labels: torch.Tensor, *, bfloat16: bool) -> tuple[float, int]:
    """Take one training step; return the loss and the number of correct predictions."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(images).float()
        loss = functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), int((logits.argmax(1) == labels).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("usual", "best"), required=True)
    parser.add_argument("--compile", action="store_true", help="compile the network with torch.compile")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--decay-epochs", type=int, nargs="+", default=(10, 15))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("pytorch_cifar10"), help="directory of metrics.jsonl")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    best = arguments.style == "best"
    (images, labels), test = (_read(arguments.data / split) for split in ("train", "test"))
    batches = FastBatches(images, labels) if best else usual_batches(images, labels)
    network = resnet20().to(memory_format=torch.channels_last) if best else resnet20()
    model = torch.compile(network) if arguments.compile else network
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, arguments.decay_epochs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "metrics.jsonl").open("w") as file:
        for epoch in range(arguments.epochs):
            metrics = _epoch(model, optimizer, batches, test, bfloat16=best)
            schedule.step()
            print(json.dumps({"epoch": epoch + 1} | metrics), file=file, flush=True)
            print(json.dumps({"epoch": epoch + 1} | metrics), flush=True)


def _epoch(model, optimizer, batches, test, *, bfloat16: bool) -> dict[str, float]:
    model.train()
    start, steps = time.perf_counter(), []
    for images, labels in batches:
        steps.append(take_step(model, optimizer, images, labels, bfloat16=bfloat16))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    metrics = _evaluate(model, *test, bfloat16=bfloat16)
    loss, correct = np.mean(steps, axis=0)
    return metrics | {
        "loss": loss,
        "top1": correct / BATCH,
        "images_per_second": len(steps) * BATCH / seconds,
        "train_seconds": seconds,
        "val_seconds": time.perf_counter() - start,
    }


@torch.no_grad()
def _evaluate(model, images: np.ndarray, labels: np.ndarray, *, bfloat16: bool) -> dict[str, float]:
    model.eval()
    logits = []
    for start in range(0, len(labels), BATCH):
        inputs = normalized(torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits.append(model(inputs).float())
    logits, targets = torch.cat(logits), torch.from_numpy(labels)
    accuracy = (logits.argmax(1) == targets).float().mean().item()
    return {"val_loss": functional.cross_entropy(logits, targets).item(), "val_top1": accuracy}


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 [N, 32, 32, 3], and labels, int64 [N]; classes are in alphabetical order."""
    classes = sorted(each.name for each in folder.iterdir())
    files = [(file, label) for label, name in enumerate(classes) for file in sorted((folder / name).iterdir())]
    return np.stack([np.asarray(Image.open(file)) for file, _ in files]), np.array([label for _, label in files])


if __name__ == "__main__":
    main()
