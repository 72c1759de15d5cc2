"""One-dimensional networks, [N, L, C]: outputs of PyTorch, and training."""

import keras
import numpy as np
import pytest

from resnet_tf.core.errors import UserError
from resnet_tf.model.create import create_model
from resnet_tf.model.layers import BatchNormalization, PadShortcut
from resnet_tf.model.weights.mapping import to_torchvision
from resnet_tf.model.zoo import get_arch


def _torch_resnet18():
    """Return torchvision's network with every operation in one dimension."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1 = nn.Conv1d(inputs, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm1d(width)
            self.conv2 = nn.Conv1d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm1d(width)
            if stride > 1:
                self.downsample = nn.Sequential(nn.Conv1d(inputs, width, 1, stride, bias=False), nn.BatchNorm1d(width))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv1d(2, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm1d(64)
            self.maxpool = nn.MaxPool1d(3, 2, 1)
            widths = (64, 64, 128, 256, 512)
            for stage in range(1, 5):
                blocks = [Block(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)]
                setattr(self, f"layer{stage}", nn.Sequential(*blocks, Block(widths[stage], widths[stage], 1)))
            self.fc = nn.Linear(512, 5)

        def forward(self, x):
            x = self.maxpool(self.bn1(self.conv1(x)).relu())
            for stage in range(1, 5):
                x = getattr(self, f"layer{stage}")(x)
            return self.fc(x.mean(2))

    return Network()


def test_a_network_of_one_dimension_answers_as_pytorchs():
    torch = pytest.importorskip("torch", reason="takes PyTorch")
    generator = np.random.default_rng(0)
    model = create_model("resnet18_1d", num_classes=5, input_shape=(200, 2))
    for variable in model.variables:
        low, high = (0.5, 1.5) if variable.path.endswith(("gamma", "variance")) else (-0.05, 0.05)
        variable.assign(generator.uniform(low, high, variable.shape))
    theirs = _torch_resnet18().eval()
    state = {name: torch.from_numpy(array) for name, array in to_torchvision(model).items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    signals = generator.normal(size=(3, 200, 2)).astype("float32")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(signals).transpose(1, 2)).numpy()
    logits = model(signals, training=False).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("resnet18", {}),
        ("resnet50_d", {"se_ratio": 1 / 16, "stochastic_depth": 0.2}),
        ("resnet50_d", {"output_stride": 8}),
        ("resnet50_v2", {"groups": 1}),
        ("resnet20", {}),
        ("resnext50_32x4d", {"norm": "group"}),
    ],
)
def test_every_block_has_a_form_in_one_dimension(name, knobs):
    """The output of each stage is as long as that of an image is wide."""
    depths = (2,) * len(get_arch(name).depths)
    wide = create_model(name, input_shape=(64, 64, 3), num_classes=3, depths=depths, **knobs)
    long = create_model(name, input_shape=(64, 3), num_classes=3, depths=depths, dimensions=1, **knobs)
    shapes = {layer.name: layer.output.shape for layer in wide.layers}
    for layer in long.layers:
        batch, *size, channels = layer.output.shape
        if len(size) == 1:
            assert (batch, *size, *size, channels) == shapes[layer.name], layer.name
    assert np.isfinite(long(np.ones((2, 64, 3), "float32"), training=True)).all()


@pytest.mark.parametrize("training", [False, True])
def test_normalization_of_signals_is_kerass(training):
    ours, theirs = BatchNormalization(), keras.layers.BatchNormalization()
    signals = np.random.default_rng(0).normal(3.0, 2.0, (4, 10, 5)).astype("float32")
    outputs = [np.asarray(layer(signals, training=training)) for layer in (ours, theirs)]
    np.testing.assert_allclose(*outputs, atol=1e-5)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_the_shortcut_of_signals_takes_every_second():
    signals = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("float32")
    expected = np.pad(signals[:, ::2], [(0, 0), (0, 0), (1, 2)])
    np.testing.assert_array_equal(PadShortcut(6, stride=2)(signals), expected)


def test_what_does_not_fit_is_refused():
    for shape in ((224, 224, 3), (16000,)):
        with pytest.raises(UserError, match=r"is not \(length, channels\), such as \(16000, 1\), which resnet18_1d"):
            create_model("resnet18_1d", input_shape=shape)
    with pytest.raises(UserError, match=r"input of 31 samples is too small for resnet18_1d, which needs at least 32;"):
        create_model("resnet18_1d", input_shape=(31, 1))
    with pytest.raises(UserError, match=r"standardize=True takes dimensions=2"):
        create_model("bit_r50x1", input_shape=(64, 1), dimensions=1)
