"""Settings that follow from the data: `train.rule` fills in what a configuration leaves at its defaults."""

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from resnet_tf.config import Config, DataConfig, flatten, override
from resnet_tf.data import preprocess
from resnet_tf.data.sources import Split, open_source

logger = logging.getLogger(__name__)

_MEASURED = 32  # pictures, whose middle side counts


def resolve(config: Config) -> Config:
    """The configuration that a run has: with the settings that `train.rule` derives from its data.

    A rule decides no key that differs from `Config()`: what a recipe or `--set` says stays. A resolved configuration
    comes back as it is.

    Raises:
        UserError: for data that cannot be opened.
    """
    if config.train.rule == "none":
        return config
    source = open_source(config.data)
    side = _middle_side(source.train)
    derived = _RULES[config.train.rule](source.train.num_examples, side)
    now, defaults = (flatten(dataclasses.asdict(each)) for each in (config, Config()))
    left = {key: value for key, value in derived.items() if now[key] == defaults[key]}
    settings = ", ".join(f"{key}={value}" for key, value in left.items())
    count = f"{source.train.num_examples:,}"
    logger.info("train.rule=%s for %s pictures of %d pixels: %s", config.train.rule, count, side, settings)
    return override(config, left)


def _middle_side(split: Split) -> int:
    """The median shorter side of the first pictures, in pixels; those that cannot be read are left to the run."""
    spec = preprocess.from_config(DataConfig())
    readable = [picture for picture, _ in split.examples(_MEASURED) if not preprocess.why_unreadable(picture, spec)]
    return int(np.median([min(preprocess.decode(picture, spec).shape[:2]) for picture in readable] or [0]))


def _bit(examples: int, side: int) -> dict[str, Any]:
    """BiT-HyperRule of Kolesnikov et al., Big Transfer, 2020, sec. 3.3, as google-research/big_transfer has it.

    500, 10,000 or 20,000 steps of 512 pictures, their rate divided by ten three times, mixup from 20,000 pictures on,
    128 pixels for small pictures and 480 for others. Where there are fewer than 512 pictures, all of them make a step.
    A run ends with a whole epoch, so it is up to one longer.
    """
    if examples < 20_000:
        warmup, *decays, end = 100, 200, 300, 400, 500
    elif examples < 500_000:
        warmup, *decays, end = 500, 3_000, 6_000, 9_000, 10_000
    else:
        warmup, *decays, end = 500, 6_000, 12_000, 18_000, 20_000
    batch = min(512, examples)
    steps = examples // batch  # an epoch
    epochs = math.ceil(end / steps)
    return {
        "data.batch_size": batch,
        "data.image_size": 128 if side < 96 else 480,
        "train.epochs": epochs,
        "train.test_every": max(1, epochs // 20),
        "optimizer.warmup_epochs": warmup / steps,
        "optimizer.decay_epochs": tuple(decay / steps for decay in decays),
        "augment.mixup": 0.1 if examples >= 20_000 else 0.0,
    }


def _photos(examples: int, side: int) -> dict[str, Any]:
    """For weights of ImageNet and a small processor: some 20,000 pictures are shown, each at least three times.

    Smaller pictures than 128 pixels are enlarged to that, as the first layers of such networks take a quarter of it.
    """
    epochs = min(max(3, round(20_000 / examples)), 40)
    return {
        "data.batch_size": min(32 if examples < 5_000 else 64, examples),
        "data.image_size": min(max(128, math.ceil(side / 32) * 32), 224),
        "train.epochs": epochs,
        "train.head_epochs": max(1, epochs // 5),
    }


_RULES: dict[str, Callable[[int, int], dict[str, Any]]] = {"bit": _bit, "photos": _photos}
