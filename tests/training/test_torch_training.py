"""The CIFAR recipe beside PyTorch: the same start, the same batches in the same order, the same first hundred steps."""

import numpy as np
import pytest
from conftest import extract_cifar, needs_cifar

from resnet_tf.config import load_config
from resnet_tf.data.sources import open_source
from resnet_tf.training import runtime
from resnet_tf.training.learning_rate import learning_rate
from resnet_tf.training.trainer import Trainer

pytestmark = [pytest.mark.slow, needs_cifar]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Directory of every fourth test image of CIFAR-10, as train/CLASS and test/CLASS."""
    root = tmp_path_factory.mktemp("cifar")
    extract_cifar(root, lambda split, number: split == "test" and number % 4 == 0)
    (root / "train").symlink_to(root / "test")
    return root


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["cifar10_resnet20", "cifar10_wrn_28_10"])
def test_the_first_hundred_steps_are_those_of_pytorch(cifar, recipe):
    """ResNet-20 under the recipe of He et al., and under that of the wide networks with Nesterov's momentum.

    At a thousandth of the recipe's learning rate, for the reason that the next test states. When the learning rate
    changes, the frameworks differ for some ten steps: the momentum of Keras, as of the paper's framework, accumulates
    steps, the one of PyTorch gradients, to which the new learning rate applies at once (Goyal et al. 2017, sec. 3,
    remark 2).
    """
    torch = pytest.importorskip("torch")
    trainer = _trainer(recipe, cifar, "optimizer.base_lr=0.0002")
    theirs = _torch_losses(torch, trainer, rate=1e-4, steps=100)
    ours = _losses(trainer, steps=100)
    print("largest difference", np.abs(ours / theirs - 1).max())
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert ours[-10:].mean() < 0.98 * ours[0]


@pytest.mark.slow
@pytest.mark.long
def test_at_the_full_rate_we_stay_exact_as_long_as_pytorch(cifar):
    """At 0.1 rounding grows a thousandfold within five steps: PyTorch's own float32 and float64 part by then."""
    torch = pytest.importorskip("torch")
    trainer = _trainer("cifar10_resnet20", cifar)
    exact = _torch_losses(torch, trainer, rate=0.1, steps=12, dtype=torch.float64)
    theirs = np.abs(_torch_losses(torch, trainer, rate=0.1, steps=12) / exact - 1)
    ours = np.abs(_losses(trainer, steps=12) / exact - 1)
    print("relative error after 1, 2, 5 and 10 steps:", ours[[0, 1, 4, 9]], theirs[[0, 1, 4, 9]])
    assert ours[0] < 1e-6
    assert ours[1] < 1e-3
    assert np.argmax(ours > 1e-2) >= 0.5 * np.argmax(theirs > 1e-2) > 0


def _trainer(recipe, cifar, *settings) -> Trainer:
    common = [f"data.source={cifar}", "model.name=resnet20", "runtime.precision=float32", "runtime.strategy=single"]
    config = load_config(recipe, [*common, *settings])
    return Trainer(config, open_source(config.data), runtime.start(config.runtime))


def _losses(trainer, *, steps) -> np.ndarray:
    return trainer.take(trainer.batches(), steps)[0][:, 0] / trainer.config.data.batch_size


def _torch_losses(torch, trainer, *, rate, steps, dtype=None) -> np.ndarray:
    """Of the steps that the trainer is about to take, by PyTorch's own optimizer."""
    settings, dtype = trainer.config.optimizer, dtype or torch.float32
    network = _torch_resnet20(torch, trainer.model).to(dtype)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=rate,
        momentum=0.9,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    ours = learning_rate(trainer.config, trainer.length)
    losses = []
    for step, (images, labels, *_) in zip(range(steps), trainer.batches(), strict=False):
        assert float(ours(step)) == pytest.approx(rate, rel=1e-6)
        inputs = trainer.preprocess.from_batch(images).numpy().transpose(0, 3, 1, 2)
        logits = network(torch.from_numpy(inputs).to(dtype))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels.numpy()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def _torch_resnet20(torch, model):
    """He et al. 2015, sec. 4.2, with the weights of `model`."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, channels, width, stride):
            super().__init__()
            self.stride, self.wider = stride, width - channels
            self.branch = nn.Sequential(
                nn.Conv2d(channels, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(width),
            )

        def forward(self, x):
            # Option A: every second pixel, and zeros for the new channels.
            skipped = x[:, :, :: self.stride, :: self.stride]
            skipped = nn.functional.pad(skipped, (0, 0, 0, 0, self.wider // 2, self.wider // 2))
            return torch.relu(self.branch(x) + skipped)

    blocks, channels = [], 16
    for width in (16, 32, 64):
        for index in range(3):
            blocks.append(Block(channels, width, 2 if index == 0 and width > 16 else 1))
            channels = width
    stem = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    network = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    ours = iter([layer for layer in model.layers if layer.get_weights()])
    with torch.no_grad():
        for module in network.modules():
            if not list(module.parameters(recurse=False)):
                continue
            kernel, *rest = map(torch.from_numpy, next(ours).get_weights())
            if kernel.ndim == 4:
                kernel = kernel.permute(3, 2, 0, 1)
            elif kernel.ndim == 2:
                kernel = kernel.T
            module.weight.copy_(kernel)
            if rest:
                module.bias.copy_(rest[0])
    return network
