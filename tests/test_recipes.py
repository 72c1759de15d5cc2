"""Published recipes compared with their sources: learning rates by epoch, image sizes, augmentation."""

import dataclasses
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import import_torch_zoo

from resnet_tf.config import AugmentConfig, Config, list_configs, load_config
from resnet_tf.data.augmentation import mixing, operations, policies
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.model.zoo import MODELS
from resnet_tf.training.learning_rate import learning_rate
from resnet_tf.training.trainer import size_in_epoch

CIFAR = 50_000
IMAGENET = 1_281_167
OWN = (
    "auto",
    "digits",
    "imagefolder",
    "finetune",
    "cifar10_fast",
    "cifar10_wide",
    "fashion_mnist",
    "signals",
    "spectrograms",
)  # recipes of this package
# Recipes whose sources initialize the last gamma of each block with 0: `zero_init_last` of timm.
ZERO_GAMMA = ("imagenet_rsb_a1", "imagenet_rsb_a2", "imagenet_rsb_a3")
# Recipes whose sources resize random crops with PIL: torchvision and timm.
PIL_CROPS = ("imagenet_resnet50", "imagenet_torchvision_v2", "imagenet_rsb_a2", "imagenet_rsb_a3")
BY_DEFAULTS = ("bit_finetune",)  # settings depend on the size of the data: tests/training/test_default_settings.py
HE_CIFAR = {
    "epochs": 164,  # 64,000 steps
    "batch": 128,
    "optimizer": "sgd, momentum 0.9, decay 0.0001 of all",
    "learning rates": {0: 0.1, 81: 0.1, 82: 0.01, 122: 0.01, 123: 0.001, 163: 0.001},  # 32,000 and 48,000 steps
    "training size": 32,
    "evaluation size": "32 of 32",
    "augmentation": {"flip": True, "pad_crop": 4},
    "loss": "cross_entropy",
}
INCEPTION = {"random_resized_crop": True, "flip": True}  # 8 to 100 % of the image
RSB = {
    "batch": 2048,
    "evaluation size": "224 of 236",  # a crop of 0.95
    "interpolation": "bicubic",
    "optimizer": "lamb, decay 0.02 of kernels, gradient norm 1.0",  # that of timm's Lamb by default
}
# Magnitudes of RandAugment are up to 10 in the papers and up to 30 here: `test_magnitudes_are_those_of_the_papers`.
RSB_AUGMENTATION = {**INCEPTION, "policy": "randaugment", "cutmix": 1.0}
SOURCES = {
    "cifar10_resnet20": {"network": "resnet20", **HE_CIFAR},
    "cifar10_resnet32": {"network": "resnet32", **HE_CIFAR},
    "cifar10_resnet56": {"network": "resnet56", **HE_CIFAR},
    "cifar10_resnet110": {
        "network": "resnet110",
        **HE_CIFAR,
        "learning rates": {0: 0.0, 1: 0.1, 81: 0.1, 82: 0.01, 123: 0.001},
    },
    "cifar10_wrn_28_10": {
        "network": "wrn_28_10",
        "epochs": 200,
        "batch": 128,
        "optimizer": "sgd, Nesterov momentum 0.9, decay 0.0005 of all",
        "learning rates": {0: 0.1, 59: 0.1, 60: 0.02, 119: 0.02, 120: 0.004, 159: 0.004, 160: 0.0008, 199: 0.0008},
        "training size": 32,
        "evaluation size": "32 of 32",
        "augmentation": {"flip": True, "pad_crop": 4},
        "loss": "cross_entropy",
    },
    "cifar10_longtail": {
        "network": "resnet32",
        "epochs": 200,
        "batch": 128,
        "long tail": 100,
        "optimizer": "sgd, momentum 0.9, decay 0.0002 of all",
        "learning rates": {0: 0.0, 5: 0.1, 159: 0.1, 160: 1e-3, 179: 1e-3, 180: 1e-5, 199: 1e-5},
        "training size": 32,
        "evaluation size": "32 of 32",
        "augmentation": {"flip": True, "pad_crop": 4},
        "loss": "cross_entropy",
    },
    "cifar10_resnet18": {
        "network": "resnet18, stem=small",
        "epochs": 200,
        "batch": 128,
        "optimizer": "sgd, momentum 0.9, decay 0.0005 of all",
        "learning rates": {0: 0.1, 100: 0.05, 200: 0.0},
        "training size": 32,
        "evaluation size": "32 of 32",
        "augmentation": {"flip": True, "pad_crop": 4},
        "loss": "cross_entropy",
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2023, 0.1994, 0.2010),
    },
    "imagenet_resnet50": {
        "network": "resnet50",
        "epochs": 90,
        "batch": 256,
        "optimizer": "sgd, momentum 0.9, decay 0.0001 of all",
        "learning rates": {0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 89: 0.001},
        "training size": 224,
        "evaluation size": "224 of 256",
        "augmentation": INCEPTION,
        "loss": "cross_entropy",
    },
    "imagenet_resnet50_v15": {
        "network": "resnet50",
        "epochs": 90,
        "batch": 2048,
        "optimizer": "sgd, momentum 0.875, decay 3.0517578125e-05 of kernels",
        "learning rates": {0: 0.0, 8: 2.048, 49: 1.024, 90: 0.0},  # --lr 2.048 --warmup 8
        "training size": 224,
        "evaluation size": "224 of 256",
        "augmentation": INCEPTION,
        "loss": "cross_entropy, smoothing 0.1",
    },
    "imagenet_rsb_a1": {
        "network": "resnet50, stochastic_depth=0.05",
        **RSB,
        "batch": 2046,  # 2,048, a multiple of 2 x 3: pairs of images, three repeats
        "epochs": 600,
        "learning rates": {0: 0.0, 5: 5e-3, 302.5: 2.5e-3, 600: 0.0},
        "optimizer": "lamb, decay 0.01 of kernels, gradient norm 1.0",
        "training size": 224,
        "augmentation": {**RSB_AUGMENTATION, "policy_magnitude": 3 * 7, "mixup": 0.2, "repeats": 3},
        "loss": "binary, smoothing 0.1, threshold 0.2",
    },
    "imagenet_rsb_a2": {
        "network": "resnet50, stochastic_depth=0.05",
        **RSB,
        "batch": 2046,  # 2,048, a multiple of 2 x 3: pairs of images, three repeats
        "epochs": 300,
        "learning rates": {0: 0.0, 5: 5e-3, 152.5: 2.5e-3, 300: 0.0},
        "training size": 224,
        "augmentation": {**RSB_AUGMENTATION, "policy_magnitude": 3 * 7, "mixup": 0.1, "repeats": 3},
        "loss": "binary, threshold 0.2",
    },
    "imagenet_rsb_a3": {
        "network": "resnet50",
        **RSB,
        "epochs": 100,
        "learning rates": {0: 0.0, 5: 8e-3, 52.5: 4e-3, 100: 0.0},
        "training size": 160,
        "augmentation": {**RSB_AUGMENTATION, "policy_magnitude": 3 * 6, "mixup": 0.1},
        "loss": "binary, threshold 0.2",
    },
    "imagenet_torchvision_v2": {
        "network": "resnet50",
        "epochs": 600,
        "batch": 1024,
        "optimizer": "sgd, momentum 0.9, decay 2e-05 of kernels",
        "learning rates": {0: 0.0, 5: 0.5, 302.5: 0.25, 600: 0.0},
        "training size": 176,
        "evaluation size": "224 of 232",
        "augmentation": {
            **INCEPTION,
            "policy": "trivialaugment",
            "erasing": 0.1,
            "mixup": 0.2,
            "cutmix": 1.0,
            "repeats": 4,
        },
        "loss": "cross_entropy, smoothing 0.1",
        # train.py in torchvision/references/classification: alpha = (1 - 0.99998) * batch size * steps / epochs, with a
        # batch of 8 x 128 images, applied every 32 steps.
        "ema": pytest.approx(1 - (1 - 0.99998) * (8 * 128 * 32 / 600) / 32),
    },
    "imagenet_resnet_rs50": {
        "network": "resnet_rs50, dropout=0.25",
        "epochs": 350,
        "batch": 4096,
        "optimizer": "sgd, momentum 0.9, decay 4e-05 of kernels",
        "learning rates": {0: 0.0, 5: 1.6, 177.5: 0.8, 350: 0.0},  # 0.1 per 256 images
        "training size": 160,
        "evaluation size": "160 of 183",
        "augmentation": {**INCEPTION, "policy": "randaugment", "policy_magnitude": 3 * 10},
        "loss": "cross_entropy, smoothing 0.1",
        "ema": 0.9999,
    },
}


def test_every_published_recipe_has_a_source():
    assert sorted([*SOURCES, *OWN, *BY_DEFAULTS]) == list_configs()


@pytest.mark.parametrize("name", SOURCES)
def test_a_recipe_agrees_with_its_source(name):
    source, images = SOURCES[name], {"cifar10": CIFAR, "imagenet": IMAGENET}
    recipe = resolve(load_config(name), epochs_of_rates=source["learning rates"], images=images[name.split("_")[0]])
    print("\n".join(f"{key}: {value}" for key, value in recipe.items()))
    assert recipe == {
        "long tail": 1.0,
        "interpolation": "bilinear",
        "ema": 0.0,
        **PIXELS,
        **source,
        "learning rates": recipe["learning rates"],
    }
    config = load_config(name)
    assert config.data.batch_size % mixing.group_size(config.augment) == 0
    for epoch, rate in source["learning rates"].items():
        # The tolerance allows for epochs that end between two steps.
        assert recipe["learning rates"][epoch] == pytest.approx(rate, rel=1e-3, abs=1e-9), (
            f"learning rate in epoch {epoch}"
        )


@pytest.mark.parametrize("name", SOURCES)
def test_another_initialization_of_the_last_gamma_is_stated(name):
    """Of Goyal et al. 2017, which blocks with pre-activation do not have."""
    arch = MODELS[load_config(name).model.name]
    starts_at_zero = arch.zero_gamma and not arch.preactivation
    stated = "the last gamma of each block starts at 0, there at 1" in _docstring(name)
    assert stated == (starts_at_zero and name not in ZERO_GAMMA)


@pytest.mark.parametrize("name", PIL_CROPS)
def test_crops_without_antialiasing_are_stated(name):
    """PIL antialiases; `augment.antialias` takes a third to a half of the time of decoding and resizing in addition."""
    stated = "crops are resized without antialiasing" in _docstring(name) or "in imagenet_rsb_a2" in _docstring(name)
    assert stated != load_config(name).augment.antialias


def _docstring(name: str) -> str:
    text = runpy.run_path(str(Path(__file__).parents[1] / "configs" / f"{name}.py"))["__doc__"]
    return " ".join(text.split())


# Magnitude of each operation at level M of 10: timm/data/auto_augment.py, with the size of the image in pixels as 1.
LEVELS = {
    "Rotate": lambda level: 30 * level / 10,
    **dict.fromkeys(("ShearX", "ShearY"), lambda level: 0.3 * level / 10),
    **dict.fromkeys(("TranslateX", "TranslateY"), lambda level: 0.45 * level / 10),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), lambda level: 0.9 * level / 10),
    "Solarize": lambda level: 256 - int(256 * level / 10),
}


@pytest.mark.parametrize(
    ("name", "level"),
    [("imagenet_rsb_a1", 7), ("imagenet_rsb_a2", 7), ("imagenet_rsb_a3", 6), ("imagenet_resnet_rs50", 10)],
)
def test_magnitudes_are_those_of_the_papers(name, level):
    table = policies._magnitudes(policies.RANDAUGMENT_BINS, (1, 1))
    for operation, expected in LEVELS.items():
        found = table[operations.NAMES.index(operation), load_config(name).augment.policy_magnitude]
        assert found == pytest.approx(expected(level), rel=0.015), operation


@pytest.mark.slow
@pytest.mark.parametrize("operation", LEVELS)
def test_levels_are_those_of_timm(operation):
    augment = import_torch_zoo("timm.data.auto_augment")
    # Of inc1; `SolarizeAdd` is another operation.
    name = next(each for each in augment._RAND_INCREASING_TRANSFORMS if each.startswith(operation))
    for level in range(11):
        (argument,) = augment.LEVEL_TO_ARG[name](level, {})
        argument = abs(argument - 1) if operation in ("Brightness", "Color", "Contrast", "Sharpness") else abs(argument)
        assert LEVELS[operation](level) == pytest.approx(argument)


PIXELS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # torchvision's for ImageNet


def resolve(config: Config, *, epochs_of_rates: Iterable[float], images: int) -> dict[str, Any]:
    """Return the settings of a configuration in the terms of its source.

    Args:
        config: configuration of the recipe.
        epochs_of_rates: epochs, possibly fractional, at which the learning rate is computed.
        images: number of training images.
    """
    model, data, optimizer, loss = config.model, config.data, config.optimizer, config.loss
    knobs = {"stem": model.stem, "stochastic_depth": model.stochastic_depth, "dropout": model.dropout}
    steps = images // data.batch_size
    rate = learning_rate(config, TrainingLength(steps, steps * config.train.epochs))
    changed = {
        key: value
        for key, value in dataclasses.asdict(config.augment).items()
        if value != getattr(AugmentConfig(), key)
    }
    momentum = f", {'Nesterov ' if optimizer.nesterov else ''}momentum {optimizer.momentum}"
    last = config.train.epochs - 1
    return {
        "network": ", ".join([model.name, *(f"{knob}={value}" for knob, value in knobs.items() if value)]),
        "epochs": config.train.epochs,
        "batch": data.batch_size,
        "long tail": data.long_tail,
        "optimizer": (
            f"{optimizer.name}{momentum if optimizer.name == 'sgd' else ''}, decay {optimizer.weight_decay} of "
            f"{'all' if optimizer.decay_all else 'kernels'}"
            f"{f', gradient norm {optimizer.clip_norm}' if optimizer.clip_norm else ''}"
        ),
        "learning rates": {epoch: float(rate(round(epoch * steps))) for epoch in epochs_of_rates},
        "training size": size_in_epoch(config, last) or data.image_size,
        "evaluation size": f"{data.image_size} of {round(data.image_size / data.crop_fraction)}",
        "interpolation": data.interpolation,
        "augmentation": changed,
        "loss": (
            loss.name
            + (f", smoothing {loss.label_smoothing}" if loss.label_smoothing else "")
            + (f", threshold {loss.target_threshold}" if loss.target_threshold else "")
        ),
        "ema": config.train.ema,
        "mean": data.mean or PIXELS["mean"],
        "std": data.std or PIXELS["std"],
    }
