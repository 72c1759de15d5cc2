"""Published weights by name: URL, hash, accuracy, preprocessing and labels."""

import dataclasses
from dataclasses import dataclass
from math import floor
from pathlib import Path

from resnet_tf.core.class_names import CIFAR10, imagenet_labels
from resnet_tf.core.errors import UserError, closest
from resnet_tf.inputs import ImagePreprocess, presets
from resnet_tf.model.zoo import get_arch

_ALIASES = {"imagenet": imagenet_labels(), "cifar10": CIFAR10}


@dataclass(frozen=True)
class Pretrained:
    """Published weights file.

    Attributes:
        url: URL of the file.
        digest: algorithm and hash of the file, `md5:...` or `sha256:...`, as far as published; PyTorch puts the first
            eight digits into the file name. Empty for a file whose SHA-256 the server states with each download.
        top1: published top-1 accuracy in percent, with the first of `inputs`.
        inputs: the preprocessing at each published input size.
        labels: names of the classes.
    """

    url: str
    digest: str
    top1: float
    inputs: tuple[ImagePreprocess, ...]
    labels: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """File name in the cache: that of the URL; for a repository of the Hugging Face Hub, with the repository's."""
        repository, is_hub, _ = self.url.partition("/resolve/")
        name = self.url.rsplit("/", 1)[1]
        return "--".join(repository.split("/")[-2:]) + Path(name).suffix if is_hub else name

    def preprocess_at(self, height: int | None, width: int | None) -> ImagePreprocess:
        """Return the preprocessing for an input size; None selects the published size."""
        if height is None or width is None:
            return self.inputs[0]
        named = next((each for each in self.inputs if each.size == (height, width)), self.inputs[0])
        return named.with_size((height, width))


def list_weights(name: str) -> list[str]:
    """Return the names of the published weights of a network.

    `weights="imagenet"` selects the first with ImageNet's classes.

    Raises:
        UserError: for an unknown network.
    """
    get_arch(name)
    return list(PRETRAINED.get(name, ()))


def get_pretrained(name: str, weights: str) -> Pretrained:
    """Return published weights by name, or by data set: `imagenet` or `cifar10` select the first of a network.

    Raises:
        UserError: for an unknown name, with the available ones.
    """
    rows = PRETRAINED.get(name, {})
    if weights in rows:
        return rows[weights]
    if weights in _ALIASES:
        for row in rows.values():
            if row.labels == _ALIASES[weights]:
                return row
    raise UserError(f"unknown weights {weights!r} of {name}: {_hint(rows, weights)}")


def _hint(rows: dict[str, Pretrained], weights: str) -> str:
    networks = [network for network, others in PRETRAINED.items() if weights in others]
    there_are = f"there are {', '.join(rows)}" if rows else "there are none by name"
    if networks:
        return f"{there_are}; {weights!r} belongs to {', '.join(networks)}"
    if not rows or weights in _ALIASES:
        return f"{there_are}; or give a file"
    return f"did you mean {closest(weights, [*_ALIASES, *rows])}? A file has a suffix, such as .safetensors"


def _torch(folder: str, file: str, top1: float, *inputs: ImagePreprocess, labels: tuple[str, ...] = ()) -> Pretrained:
    """Return a file of PyTorch, whose name ends in the first digits of its SHA-256."""
    digest = file.rsplit("-", 1)[1].split(".")[0]
    return Pretrained(f"{folder}/{file}", f"sha256:{digest}", top1, inputs, labels or imagenet_labels())


def _torchvision(file: str, top1: float, *, resize: int = 256) -> Pretrained:
    """Return a row of torchvision 0.29, from the entry's `transforms` and `meta`."""
    inputs = dataclasses.replace(presets.TORCHVISION, crop_fraction=224 / resize)
    return _torch("https://download.pytorch.org/models", file, top1, inputs)


def _timm(release: str, file: str, top1: float, *crops: tuple[int, float]) -> Pretrained:
    """Return a row of timm 1.0.31: the configuration of a tag, and the accuracy of results-imagenet.csv."""
    folder = f"https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-{release}"
    # timm rounds the resized shorter edge down.
    inputs = (
        ImagePreprocess(size=(size, size), crop_fraction=size / floor(size / fraction), interpolation="bicubic")
        for size, fraction in crops
    )
    return _torch(folder, file, top1, *inputs)


def _keras(network: str, md5: str, top1: float) -> Pretrained:
    """Return a row of keras.applications: `WEIGHTS_HASHES` of Keras 3.15, accuracy of keras.io/api/applications."""
    inputs = presets.KERAS_V2 if network.endswith("v2") else presets.KERAS_V1
    file = f"{network}_weights_tf_dim_ordering_tf_kernels.h5"
    url = f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{file}"
    return Pretrained(url, f"md5:{md5}", top1, (inputs,), imagenet_labels())


def _akamaster(file: str, top1: float) -> Pretrained:
    """Return a row of github.com/akamaster/pytorch_resnet_cifar10; accuracy is 100 minus the error of its README."""
    folder = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
    return _torch(folder, file, top1, presets.CIFAR, labels=CIFAR10)


# The newest weights of torchvision come first: `weights="imagenet"` selects them.
PRETRAINED: dict[str, dict[str, Pretrained]] = {
    "resnet18": {
        "torchvision/IMAGENET1K_V1": _torchvision("resnet18-f37072fd.pth", 69.758),
        "timm/a1_in1k": _timm("rsb-weights", "resnet18_a1_0-d63eafa0.pth", 73.158, (288, 1.0), (224, 0.95)),
    },
    "resnet34": {
        "torchvision/IMAGENET1K_V1": _torchvision("resnet34-b627a593.pth", 73.314),
        "timm/a1_in1k": _timm("rsb-weights", "resnet34_a1_0-46f8f793.pth", 77.918, (288, 1.0), (224, 0.95)),
    },
    "resnet50": {
        "torchvision/IMAGENET1K_V2": _torchvision("resnet50-11ad3fa6.pth", 80.858, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("resnet50-0676ba61.pth", 76.130),
        "timm/a1_in1k": _timm("rsb-weights", "resnet50_a1_0-14fe96d1.pth", 81.214, (288, 1.0), (224, 0.95)),
    },
    "resnet101": {
        "torchvision/IMAGENET1K_V2": _torchvision("resnet101-cd907fc2.pth", 81.886, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("resnet101-63fe2227.pth", 77.374),
        "timm/a1h_in1k": _timm("rsb-weights", "resnet101_a1h-36d3f2aa.pth", 82.778, (288, 1.0), (224, 0.95)),
        "timm/a1_in1k": _timm("rsb-weights", "resnet101_a1_0-cdcb52a9.pth", 82.322, (288, 1.0), (224, 0.95)),
    },
    "resnet152": {
        "torchvision/IMAGENET1K_V2": _torchvision("resnet152-f82ba261.pth", 82.284, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("resnet152-394f9c45.pth", 78.312),
        "timm/a1h_in1k": _timm("rsb-weights", "resnet152_a1h-dc400468.pth", 83.450, (288, 1.0), (224, 0.95)),
        "timm/a1_in1k": _timm("rsb-weights", "resnet152_a1_0-2eee8a7a.pth", 82.732, (288, 1.0), (224, 0.95)),
    },
    "resnext50_32x4d": {
        "torchvision/IMAGENET1K_V2": _torchvision("resnext50_32x4d-1a0047aa.pth", 81.198, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("resnext50_32x4d-7cdf4587.pth", 77.618),
        "timm/a1h_in1k": _timm("rsb-weights", "resnext50_32x4d_a1h-0146ab0a.pth", 82.014, (288, 1.0), (224, 0.95)),
        "timm/a1_in1k": _timm("rsb-weights", "resnext50_32x4d_a1_0-b5a91a1d.pth", 81.466, (288, 1.0), (224, 0.95)),
    },
    "resnext101_32x8d": {
        "torchvision/IMAGENET1K_V2": _torchvision("resnext101_32x8d-110c445d.pth", 82.834, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("resnext101_32x8d-8ba56ff5.pth", 79.312),
    },
    "resnext101_64x4d": {
        "torchvision/IMAGENET1K_V1": _torchvision("resnext101_64x4d-173b62eb.pth", 83.246, resize=232),
    },
    "wide_resnet50_2": {
        "torchvision/IMAGENET1K_V2": _torchvision("wide_resnet50_2-9ba9bcbe.pth", 81.602, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("wide_resnet50_2-95faca4d.pth", 78.468),
    },
    "wide_resnet101_2": {
        "torchvision/IMAGENET1K_V2": _torchvision("wide_resnet101_2-d733dc28.pth", 82.510, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("wide_resnet101_2-32ee1156.pth", 78.848),
    },
    "resnet50_v1": {"keras": _keras("resnet50", "2cb95161c43110f7111970584f804107", 74.9)},
    "resnet101_v1": {"keras": _keras("resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5", 76.4)},
    "resnet152_v1": {"keras": _keras("resnet152", "100835be76be38e30d865e96f2aaae62", 76.6)},
    "resnet50_v2": {"keras": _keras("resnet50v2", "3ef43a0b657b3be2300d5770ece849e0", 76.0)},
    "resnet101_v2": {"keras": _keras("resnet101v2", "6343647c601c52e1368623803854d971", 77.2)},
    "resnet152_v2": {"keras": _keras("resnet152v2", "a49b44d1979771252814e80f8ec446f9", 78.0)},
    "resnet18_d": {
        "timm/ra2_in1k": _timm("weights", "resnet18d_ra2-48a79e06.pth", 73.794, (288, 0.95), (224, 0.875)),
    },
    "resnet34_d": {
        "timm/ra2_in1k": _timm("weights", "resnet34d_ra2-f8dcfcaf.pth", 78.436, (288, 0.95), (224, 0.875)),
    },
    "resnet50_d": {
        "timm/a1_in1k": _timm("rsb-weights", "resnet50d_a1_0-e20cff14.pth", 81.450, (288, 1.0), (224, 0.95)),
        "timm/ra2_in1k": _timm("weights", "resnet50d_ra2-464e36ba.pth", 81.356, (288, 0.95), (224, 0.875)),
    },
    "resnet101_d": {
        "timm/ra2_in1k": _timm("weights", "resnet101d_ra2-2803ffab.pth", 83.016, (320, 1.0), (256, 0.95)),
    },
    "resnet152_d": {
        "timm/ra2_in1k": _timm("weights", "resnet152d_ra2-5cac0439.pth", 83.684, (320, 1.0), (256, 0.95)),
    },
    "resnet200_d": {
        "timm/ra2_in1k": _timm("weights", "resnet200d_ra2-bdba9bf9.pth", 83.964, (320, 1.0), (256, 0.95)),
    },
    "seresnet50": {
        "timm/a1_in1k": _timm("rsb-weights", "seresnet50_a1_0-ffa00869.pth", 81.102, (288, 1.0), (224, 0.95)),
    },
    "seresnext50_32x4d": {
        "timm/racm_in1k": _timm("weights", "seresnext50_32x4d_racm-a304a460.pth", 82.196, (288, 0.95), (224, 0.875)),
    },
    "resnet_rs50": {
        "timm/tf_in1k": _timm("rs-weights", "resnetrs50_ema-6b53758b.pth", 79.896, (224, 0.91), (160, 0.91)),
    },
    "resnet_rs101": {
        "timm/tf_in1k": _timm("rs-weights", "resnetrs101_i192_ema-1509bbf6.pth", 82.284, (288, 0.94), (192, 0.94)),
    },
    "resnet_rs152": {
        "timm/tf_in1k": _timm("rs-weights", "resnetrs152_i256_ema-a9aff7f9.pth", 83.702, (320, 1.0), (256, 1.0)),
    },
    "resnet_rs200": {
        "timm/tf_in1k": _timm("tpu-weights", "resnetrs200_c-6b698b88.pth", 84.444, (320, 1.0), (256, 1.0)),
    },
    "resnet_rs270": {
        "timm/tf_in1k": _timm("rs-weights", "resnetrs270_ema-b40e674c.pth", 84.428, (352, 1.0), (256, 1.0)),
    },
    "resnet_rs350": {
        "timm/tf_in1k": _timm("rs-weights", "resnetrs350_i256_ema-5a1aa8f1.pth", 84.714, (384, 1.0), (288, 1.0)),
    },
    "resnet_rs420": {
        "timm/tf_in1k": _timm("rs-weights", "resnetrs420_ema-972dee69.pth", 85.006, (416, 1.0), (320, 1.0)),
    },
    "resnet20": {"akamaster/cifar10": _akamaster("resnet20-12fca82f.th", 91.73)},
    "resnet32": {"akamaster/cifar10": _akamaster("resnet32-d509ac18.th", 92.63)},
    "resnet44": {"akamaster/cifar10": _akamaster("resnet44-014dd654.th", 93.10)},
    "resnet56": {"akamaster/cifar10": _akamaster("resnet56-4bfd9763.th", 93.39)},
    "resnet110": {"akamaster/cifar10": _akamaster("resnet110-1d1ed7c2.th", 93.68)},
    "resnet1202": {"akamaster/cifar10": _akamaster("resnet1202-f3b1deed.th", 93.82)},
}
