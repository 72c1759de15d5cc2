"""Table of published weights by network and name, and the constructors of its rows."""

import dataclasses
from collections.abc import Mapping

from resnet_tf.core.class_names import CIFAR10, imagenet_labels
from resnet_tf.inputs import ImagePreprocess, presets
from resnet_tf.model.weights.pretrained import Pretrained

_PYTORCH = "https://download.pytorch.org/models"
_FACEBOOK = "https://dl.fbaipublicfiles.com/semiweaksupervision/model_files"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1"
_HUB = "https://huggingface.co/timm"
_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/resnet"
# Pages of the published accuracies.
_TORCHVISION_PAGE = "docs.pytorch.org/vision/stable/models.html"
_TIMM_PAGE = "github.com/huggingface/pytorch-image-models, results-imagenet.csv"
_KERAS_PAGE = "keras.io/api/applications"
_AKAMASTER_PAGE = "github.com/akamaster/pytorch_resnet_cifar10, README"
_IMAGENET_21K_CLASSES = 21_843


def _digest(file: str) -> str:
    """Return the hash in the name of a file of PyTorch, which ends in the first digits of its SHA-256."""
    return f"sha256:{file.rsplit('-', 1)[1].split('.')[0]}"


def _torchvision(file: str, top1: float, *, resize: int = 256) -> Pretrained:
    """Return a row of torchvision 0.28, from the entry's `transforms` and `meta`."""
    inputs = dataclasses.replace(presets.TORCHVISION, crop_fraction=224 / resize)
    return Pretrained(
        url=f"{_PYTORCH}/{file}",
        digest=_digest(file),
        top1=top1,
        citation=_TORCHVISION_PAGE,
        license="BSD-3-Clause",
        inputs=(inputs,),
        labels=imagenet_labels(),
    )


def _timm(release: str, file: str, top1: float, *crops: tuple[int, float]) -> Pretrained:
    """Return a row of timm 1.0.31: the configuration of a tag, and the accuracy of results-imagenet.csv."""
    return Pretrained(
        url=f"{_TIMM}-{release}/{file}",
        digest=_digest(file),
        top1=top1,
        citation=_TIMM_PAGE,
        license="Apache-2.0",
        inputs=tuple(presets.TIMM.with_timm_crop((size, size), fraction) for size, fraction in crops),
        labels=imagenet_labels(),
    )


def _facebook(file: str, top1: float, *, folder: str = _FACEBOOK) -> Pretrained:
    """Return a row of weights trained on hashtags of photos (Yalniz et al. 2019; Mahajan et al. 2018), from timm."""
    return Pretrained(
        url=f"{folder}/{file}",
        digest=_digest(file),
        top1=top1,
        citation=_TIMM_PAGE,
        license="CC-BY-NC-4.0",
        inputs=(presets.TORCHVISION,),
        labels=imagenet_labels(),
    )


def _bit(variant: str, top1: float, **others: tuple[float, int, float]) -> dict[str, Pretrained]:
    """Return the rows of a BiT of timm: fine-tuned on ImageNet, further tags, and pretrained on ImageNet-21k.

    Args:
        variant: layers and width.
        top1: published accuracy of the weights that are fine-tuned on ImageNet.
        **others: tag -> accuracy, image size, and fraction of the crop.
    """
    bicubic = dataclasses.replace(presets.TIMM_BIT, interpolation="bicubic")
    tags: Mapping[str, tuple[float | None, ImagePreprocess]] = {
        "goog_in21k_ft_in1k": (top1, presets.TIMM_BIT),
        **{tag: (top1, bicubic.with_timm_crop((size, size), crop)) for tag, (top1, size, crop) in others.items()},
        "goog_in21k": (None, presets.TIMM_BIT.with_timm_crop((224, 224), 0.875)),
    }
    return {
        f"timm/{tag}": Pretrained(
            url=f"{_HUB}/resnetv2_{variant}_bit.{tag}/resolve/main/model.safetensors",
            digest="",
            top1=accuracy,
            citation=_TIMM_PAGE,
            license="Apache-2.0",
            inputs=(inputs,),
            labels=() if accuracy is None else imagenet_labels(),
            num_classes=_IMAGENET_21K_CLASSES if accuracy is None else 1000,
        )
        for tag, (accuracy, inputs) in tags.items()
    }


def _keras(network: str, md5: str, top1: float) -> Pretrained:
    """Return a row of keras.applications: `WEIGHTS_HASHES` of Keras 3.15, accuracy of keras.io/api/applications."""
    return Pretrained(
        url=f"{_KERAS}/{network}_weights_tf_dim_ordering_tf_kernels.h5",
        digest=f"md5:{md5}",
        top1=top1,
        citation=_KERAS_PAGE,
        license="MIT",  # of keras-applications, which published them, and of the networks of He et al.
        inputs=(presets.KERAS_V2 if network.endswith("v2") else presets.KERAS_V1,),
        labels=imagenet_labels(),
    )


def _akamaster(file: str, top1: float) -> Pretrained:
    """Return a row of github.com/akamaster/pytorch_resnet_cifar10; accuracy is 100 minus the error of its README."""
    return Pretrained(
        url=f"{_AKAMASTER}/{file}",
        digest=_digest(file),
        top1=top1,
        citation=_AKAMASTER_PAGE,
        license="BSD-2-Clause",
        inputs=(presets.CIFAR,),
        labels=CIFAR10,
        num_classes=10,
    )


# The newest weights of torchvision come first: `weights="imagenet"` selects them.
PRETRAINED: dict[str, dict[str, Pretrained]] = {
    "resnet18": {
        "torchvision/IMAGENET1K_V1": _torchvision("resnet18-f37072fd.pth", 69.758),
        "timm/a1_in1k": _timm("rsb-weights", "resnet18_a1_0-d63eafa0.pth", 73.158, (288, 1.0), (224, 0.95)),
        "timm/fb_swsl_ig1b_ft_in1k": _facebook("semi_weakly_supervised_resnet18-118f1556.pth", 73.282),
    },
    "resnet34": {
        "torchvision/IMAGENET1K_V1": _torchvision("resnet34-b627a593.pth", 73.314),
        "timm/a1_in1k": _timm("rsb-weights", "resnet34_a1_0-46f8f793.pth", 77.918, (288, 1.0), (224, 0.95)),
    },
    "resnet50": {
        "torchvision/IMAGENET1K_V2": _torchvision("resnet50-11ad3fa6.pth", 80.858, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("resnet50-0676ba61.pth", 76.130),
        "timm/a1_in1k": _timm("rsb-weights", "resnet50_a1_0-14fe96d1.pth", 81.214, (288, 1.0), (224, 0.95)),
        "timm/fb_swsl_ig1b_ft_in1k": _facebook("semi_weakly_supervised_resnet50-16a12f1b.pth", 81.182),
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
        "timm/fb_swsl_ig1b_ft_in1k": _facebook("semi_weakly_supervised_resnext50_32x4-72679e44.pth", 82.174),
    },
    "resnext101_32x8d": {
        "torchvision/IMAGENET1K_V2": _torchvision("resnext101_32x8d-110c445d.pth", 82.834, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("resnext101_32x8d-8ba56ff5.pth", 79.312),
        "timm/fb_swsl_ig1b_ft_in1k": _facebook("semi_weakly_supervised_resnext101_32x8-b4712904.pth", 84.302),
        "timm/fb_wsl_ig1b_ft_in1k": _facebook("ig_resnext101_32x8-c38310e5.pth", 82.698, folder=_PYTORCH),
    },
    "resnext101_64x4d": {
        "torchvision/IMAGENET1K_V1": _torchvision("resnext101_64x4d-173b62eb.pth", 83.246, resize=232),
        "timm/c1_in1k": _timm("tpu-weights", "resnext101_64x4d_c-0d0e0cc0.pth", 83.156, (288, 1.0), (224, 0.95)),
    },
    "wide_resnet50_2": {
        "torchvision/IMAGENET1K_V2": _torchvision("wide_resnet50_2-9ba9bcbe.pth", 81.602, resize=232),
        "torchvision/IMAGENET1K_V1": _torchvision("wide_resnet50_2-95faca4d.pth", 78.468),
        "timm/racm_in1k": _timm("weights", "wide_resnet50_racm-8234f177.pth", 82.280, (288, 0.95), (224, 0.875)),
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
        "timm/ra2_in1k": _timm("weights", "seresnet50_ra_224-8efdb4bb.pth", 81.284, (288, 0.95), (224, 0.875)),
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
    "bit_r50x1": _bit("50x1", 80.340, goog_distilled_in1k=(82.820, 224, 0.875)),
    "bit_r101x1": _bit("101x1", 82.342),
    "bit_r50x3": _bit("50x3", 84.020),
    "bit_r152x2": _bit(
        "152x2",
        84.510,
        goog_teacher_in21k_ft_in1k_384=(83.834, 384, 1.0),
        goog_teacher_in21k_ft_in1k=(82.876, 224, 0.875),
    ),
    "resnet20": {"akamaster/cifar10": _akamaster("resnet20-12fca82f.th", 91.73)},
    "resnet32": {"akamaster/cifar10": _akamaster("resnet32-d509ac18.th", 92.63)},
    "resnet44": {"akamaster/cifar10": _akamaster("resnet44-014dd654.th", 93.10)},
    "resnet56": {"akamaster/cifar10": _akamaster("resnet56-4bfd9763.th", 93.39)},
    "resnet110": {"akamaster/cifar10": _akamaster("resnet110-1d1ed7c2.th", 93.68)},
    "resnet1202": {"akamaster/cifar10": _akamaster("resnet1202-f3b1deed.th", 93.82)},
}
