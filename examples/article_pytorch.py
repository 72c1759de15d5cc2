"""The article's five-convolution network in PyTorch, with the residual connections that its code omits.

    python examples/article_pytorch.py

Compare with article_keras.py: both files have the same structure. docs/pytorch_and_tensorflow.md explains them.
"""

import article_digits
import torch
from torch import nn


class ResidualConv(nn.Module):
    """Compute relu(x + bn(conv(x))), with a projection of x if the width changes."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=1e-5, momentum=0.1)
        self.downsample = nn.Identity()
        if inputs != width:
            projection = nn.Conv2d(inputs, width, 1, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(width, eps=1e-5, momentum=0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.downsample(x) + self.bn1(self.conv1(x)))


class ArticleNet(nn.Module):
    """Residual convolutions of 64, 64, 128, 128 and 256 channels, global average pooling, and a linear head."""

    def __init__(self, channels: int = 1, num_classes: int = 10):
        super().__init__()
        self.layer1 = nn.Sequential(ResidualConv(channels, 64), ResidualConv(64, 64))
        self.layer2 = nn.Sequential(ResidualConv(64, 128), ResidualConv(128, 128))
        self.layer3 = nn.Sequential(ResidualConv(128, 256))
        self.fc = nn.Linear(256, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def train(model: nn.Module, *, steps: int, learning_rate: float = 0.01) -> list[float]:
    """Train for `steps` steps of SGD with momentum; return the loss of each step."""
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9)
    losses = []
    model.train()
    for images, labels in article_digits.batches(steps):
        logits = model(torch.from_numpy(images).permute(0, 3, 1, 2))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def evaluate(model: nn.Module) -> float:
    """Return the accuracy on the test images, in [0, 1]."""
    _, _, images, labels = article_digits.load()
    logits = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    return float((logits.argmax(1).numpy() == labels).mean())


if __name__ == "__main__":
    torch.manual_seed(0)
    model = ArticleNet()
    losses = train(model, steps=200)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, test accuracy {evaluate(model):.4f}")
