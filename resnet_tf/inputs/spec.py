"""What a network's input is: the one description that weights, checkpoints and exports carry along."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preprocess:
    """How a picture, or a signal, becomes the input of a network. `resnet_tf.data.preprocess` does what it says.

    >>> Preprocess.from_dict(Preprocess(size=(224, 224)).to_dict()).crop_fraction
    0.875

    A signal has its length already, and only its mean and its standard deviation are brought to 0 and 1:

    >>> Preprocess.of_signals(16000, channels=1).shape_before
    (16000, 1)

    Attributes:
        size: (height, width) of the network's input, in pixels; of signals, (length,), in samples.
        channels: 3 for colour, 1 for grey; of signals, any number.
        crop_fraction: side of the central crop over the resized shorter side; 1 keeps all of a square picture.
        interpolation: `bilinear` or `bicubic`, as PIL does it.
        antialias: widen the kernel where a picture is made smaller, as PIL and torchvision do; without it, as
            `tf.image.resize` does unless it is told otherwise.
        mean: subtracted from pixels in [0, 1], or from samples as they are, one value a channel, in the network's
            order of channels.
        std: divides what is left, one value a channel.
        channel_order: `rgb`, or `bgr` for networks that were trained on it (keras.applications' first ResNets).
        exif_orientation: turn a JPEG upright as its EXIF data say, which cameras rely on. The published figures on
            ImageNet ignore it.
        max_pixels: a picture whose header claims more is refused before it is decoded.
    """

    size: tuple[int, ...]
    channels: int = 3
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channel_order: str = "rgb"
    exif_orientation: bool = False
    max_pixels: int = 2**26

    @classmethod
    def of_signals(cls, length: int, *, channels: int) -> "Preprocess":
        """For signals that are fed as they are."""
        return cls(size=(length,), channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)

    @property
    def is_of_signals(self) -> bool:
        """Whether it is for networks of one dimension."""
        return len(self.size) == 1

    @property
    def shape_before(self) -> tuple[int, ...]:
        """What is normalised: (height, width, 3), RGB whatever the network takes, or (length, channels) of signals."""
        return (*self.size, self.channels if self.is_of_signals else 3)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """Read back what `to_dict` gave, also after a way through JSON."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return dataclasses.asdict(self)


# What published weights were trained on: torchvision's presets, keras.applications' preprocess_input, timm's
# configurations, akamaster/pytorch_resnet_cifar10's trainer.
TORCHVISION = Preprocess(size=(224, 224))
TIMM = Preprocess(size=(224, 224), interpolation="bicubic")
TIMM_BIT = Preprocess(size=(448, 448), crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
KERAS_V1 = Preprocess(
    size=(224, 224),
    mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),
    std=(1 / 255,) * 3,
    channel_order="bgr",
)
KERAS_V2 = Preprocess(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
CIFAR = Preprocess(size=(32, 32), crop_fraction=1.0)
