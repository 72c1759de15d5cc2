"""Steps that benchmarks/tpu.py compiles for TPUs. Needs neither TensorFlow nor JAX."""

import dataclasses
import json
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Case:
    """A training or evaluation step.

    Attributes:
        recipe: name of a configuration.
        settings: overrides, `key=value`.
        classes: number of classes of the data.
        chips: number of chips among which the batch is divided.
        part: `training` or `evaluation`.
        distilled: learn from a teacher, a network of the same architecture.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    classes: int = 1000
    chips: int = 1
    part: str = "training"
    distilled: bool = False

    @property
    def name(self) -> str:
        """Name of the files of the case."""
        changes = (each.split(".", 1)[-1].replace("=", "_").replace(",", "_") for each in self.settings)
        facts = [f"{self.chips}_chips"] * (self.chips > 1) + ["distilled"] * self.distilled
        facts += [self.part] * (self.part != "training")
        return "-".join((self.recipe, *changes, *facts)).replace("/", "_")

    def of_batch(self, size: int) -> "Case":
        """Return the case with another number of images in a batch."""
        return dataclasses.replace(self, settings=(*self.settings, f"data.batch_size={size}"))

    @classmethod
    def load(cls, path: Path) -> "list[Case]":
        """Read the cases that `dump` wrote."""
        return [cls(**each | {"settings": tuple(each["settings"])}) for each in json.loads(path.read_text())]


def dump(cases: list[Case], path: Path) -> None:
    """Write cases to a file."""
    path.write_text(json.dumps([dataclasses.asdict(each) for each in cases]))


_DERIVED = ("train.defaults=none",)  # settings that follow from data, of which there are none here
CIFAR = (
    *("cifar10_fast", "cifar10_wide", "cifar10_longtail", "cifar10_resnet18", "cifar10_resnet20", "cifar10_resnet32"),
    *("cifar10_resnet56", "cifar10_resnet110", "cifar10_wrn_28_10"),
    *("digits", "fashion_mnist", "signals", "spectrograms"),
)
PHOTOS = {
    "imagenet_resnet50": (),
    "imagenet_resnet50_v15": (),
    "imagenet_resnet_rs50": (),
    "imagenet_rsb_a1": (),
    "imagenet_rsb_a2": (),
    "imagenet_rsb_a3": (),
    "imagenet_torchvision_v2": (),
    "imagefolder": (),
    "auto": (),  # what it chooses for data and time is in the other recipes
    "finetune": (*_DERIVED, "train.finetune=full"),
    "bit_finetune": _DERIVED,
}
# A batch that every step fits: what a step is made of does not depend on it. Its length in examples does not either.
_SMALL = ("data.batch_size=32",)
RECIPES = [
    *(Case(recipe, _SMALL, 10) for recipe in CIFAR),
    *(Case(recipe, settings + _SMALL) for recipe, settings in PHOTOS.items()),
]
# One network of each family that is no recipe's own.
_FAMILIES = (
    *("resnet34", "resnext50_32x4d", "wide_resnet50_2", "resnet50_v1", "resnet50_v2", "resnet50_d", "seresnet50"),
    *("plain18", "resnet_article", "resnet164_v2"),
)
FAMILIES = [Case("imagefolder", (f"model.name={name}", *_SMALL)) for name in _FAMILIES]
FAMILIES += [dataclasses.replace(each, part="evaluation") for each in FAMILIES]
FAMILIES += [
    dataclasses.replace(each, part="evaluation")
    for each in RECIPES
    if each.recipe in ("digits", "signals", "imagenet_resnet50", "bit_finetune", "imagenet_resnet_rs50")
]
# Settings that change the step, each once, on a small network.
_OPTIONS = (
    ("runtime.precision=mixed_float16",),
    ("runtime.precision=float32",),
    ("train.start_size=16",),
    ("train.end_size=24",),
    ("train.accumulate=4",),
    ("train.ema=0.999",),
    ("train.freeze_batch_norm=true",),
    ("optimizer.clip_norm=1",),
    ("optimizer.name=lamb",),
    ("optimizer.name=lars",),
    ("optimizer.name=muon",),
    ("optimizer.name=adamw",),
    ("augment.mixup=0.2", "augment.cutmix=1"),
    ("loss.name=focal", "loss.focal_gamma=2"),
    ("loss.name=binary",),
    ("loss.logit_adjustment=1",),
    ("loss.class_weights=inverse",),
    ("model.dropout=0.1", "model.stochastic_depth=0.1"),
)
OPTIONS = [
    *(Case("cifar10_resnet20", (*settings, *_SMALL), 10) for settings in _OPTIONS),
    Case("cifar10_resnet20", _SMALL, 10, distilled=True),
    Case("cifar10_resnet20", _SMALL, 10, chips=4),
    Case("cifar10_resnet20", ("runtime.sync_batch_norm=true", *_SMALL), 10, chips=4),
    Case("cifar10_resnet20", ("augment.mixup=0.2", "train.ema=0.999", "train.accumulate=2", *_SMALL), 10, chips=4),
]
LARGE = Case("imagenet_resnet50_v15", ("data.batch_size=128",))
# Compiled in a quarter of the time that 32 images take.
_RESNET20 = Case("cifar10_resnet20", ("data.batch_size=8",), 10)
_FOUR = OPTIONS[-1]
TRANSLATED = [*RECIPES, *FAMILIES, *OPTIONS, LARGE, _RESNET20]
QUICK = [_RESNET20, _FOUR, dataclasses.replace(_RESNET20, part="evaluation"), RECIPES[-1], OPTIONS[2]]
COMPILED = [_RESNET20, _FOUR, LARGE]  # the last one in minutes, the others in seconds
# Bytes of a chip's memory that programs can use: published gigabytes.
# https://cloud.google.com/tpu/docs/v5e and https://cloud.google.com/tpu/docs/v6e
CHIPS = {"v5e:2x2": 16e9, "v6e:2x2": 32e9}
# Every ImageNet recipe, and the networks that people train instead of its ResNet-50.
MEASURED = [
    Case("imagenet_resnet50_v15"),
    *(Case(recipe) for recipe in PHOTOS if recipe.startswith("imagenet") and recipe != "imagenet_resnet50_v15"),
    *(Case("imagenet_resnet50_v15", (f"model.name={name}",)) for name in ("resnet18", "resnet101", "resnet50_d")),
    *(Case("imagenet_resnet50_v15", (f"model.name={name}",)) for name in ("resnext50_32x4d", "seresnet50")),
]
