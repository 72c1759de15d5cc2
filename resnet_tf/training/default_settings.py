"""Default settings from the data: `train.defaults` fills in what a configuration leaves at its defaults."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from resnet_tf.config import Config, DataConfig, flatten, override
from resnet_tf.data.sources import Split, open_source
from resnet_tf.inputs import create_preprocess, input_type

logger = logging.getLogger(__name__)

_MEASURED = 32  # images, whose median shorter side counts


def resolve(config: Config) -> Config:
    """Return the configuration of a run, with the settings that `train.defaults` derives from its data.

    A rule changes no key in `config.given` (set by `--set` or a JSON file) and none that a recipe set to other than its
    default; what it derives from such a key follows the value that applies. A resolved configuration is returned as it
    is.

    Raises:
        UserError: for settings that do not apply to the input type, data that cannot be opened, or derived settings
            that contradict those that were given.
    """
    input_type(config.data).check_config(config)
    if config.train.defaults == "none":
        return config
    source = open_source(config.data)
    shorter_side = _median_shorter_side(source.train)
    settings = _Settings(config)
    _RULES[config.train.defaults](settings, source.train.num_examples, shorter_side)
    derived = ", ".join(f"{key}={value}" for key, value in settings.derived.items())
    count = f"{source.train.num_examples:,}"
    logger.info("train.defaults=%s for %s images of %d pixels: %s", config.train.defaults, count, shorter_side, derived)
    return override(config, settings.derived)


class _Settings:
    """The values that apply: those of a configuration where it sets them, otherwise those that a rule derives.

    Attributes:
        derived: key -> value, for the keys that the configuration leaves open.
    """

    def __init__(self, config: Config):
        self._values, defaults = (flatten(each.to_dict()) for each in (config, Config()))
        self._fixed = config.given | {key for key, value in self._values.items() if value != defaults[key]}
        self.derived: dict[str, Any] = {}

    def settle(self, key: str, value: Any) -> Any:
        """Derive `value` for a key that is open; return the value that applies."""
        if key in self._fixed:
            return self._values[key]
        self.derived[key] = value
        return value


def _median_shorter_side(split: Split) -> int:
    """Median shorter side of the first images, in pixels; unreadable images are left to the run."""
    preprocess = create_preprocess(DataConfig())
    readable = [image for image, _ in split.examples(_MEASURED) if not preprocess.explain_unreadable(image)]
    return int(np.median([min(preprocess.decode(image).shape[:2]) for image in readable] or [0]))


def _bit(settings: _Settings, examples: int, shorter_side: int) -> None:
    """BiT-HyperRule of Kolesnikov et al., Big Transfer, 2020, sec. 3.3, as google-research/big_transfer has it.

    500, 10,000 or 20,000 steps of 512 images, with the learning rate divided by ten three times, mixup from 20,000
    images on, 128 pixels for small images and 480 for others. With fewer than 512 images, all of them make a step. A
    run ends with a whole epoch, so that it is up to one longer. In a run of other epochs, which `train.epochs` sets,
    warmup and decays lie at the same fractions of it.
    """
    if examples < 20_000:
        warmup, *decays, end = 100, 200, 300, 400, 500
    elif examples < 500_000:
        warmup, *decays, end = 500, 3_000, 6_000, 9_000, 10_000
    else:
        warmup, *decays, end = 500, 6_000, 12_000, 18_000, 20_000
    batch = settings.settle("data.batch_size", min(512, examples))
    steps_per_epoch = max(1, examples // batch)
    own_epochs = math.ceil(end / steps_per_epoch)
    epochs = settings.settle("train.epochs", own_epochs)
    scale = 1.0 if epochs == own_epochs else epochs * steps_per_epoch / end
    settings.settle("data.image_size", 128 if shorter_side < 96 else 480)
    settings.settle("train.eval_every", max(1, epochs // 20))
    settings.settle("optimizer.warmup_epochs", scale * warmup / steps_per_epoch)
    settings.settle("optimizer.decay_epochs", tuple(scale * decay / steps_per_epoch for decay in decays))
    settings.settle("augment.mixup", 0.1 if examples >= 20_000 else 0.0)


def _photos(settings: _Settings, examples: int, shorter_side: int) -> None:
    """For ImageNet weights and a small processor: about 20,000 images are trained on, each at least three times.

    Images below 128 pixels are enlarged to that, as the first layers of such networks take a quarter of it.
    """
    epochs = settings.settle("train.epochs", min(max(3, round(20_000 / examples)), 40))
    settings.settle("train.head_epochs", max(1, epochs // 5))
    settings.settle("data.batch_size", min(32 if examples < 5_000 else 64, examples))
    settings.settle("data.image_size", min(max(128, math.ceil(shorter_side / 32) * 32), 224))


_RULES: dict[str, Callable[[_Settings, int, int], None]] = {"bit": _bit, "photos": _photos}
