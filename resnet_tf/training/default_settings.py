"""Default settings from the size of the data set and its images, selected by `train.defaults`."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from resnet_tf.config import AUTO_SIZE, Config, override
from resnet_tf.core.text import counted
from resnet_tf.data import pipeline
from resnet_tf.data.augmentation import mixing
from resnet_tf.data.sources import Source, Split, open_source, resolve_splits
from resnet_tf.inputs import input_type
from resnet_tf.training import planner
from resnet_tf.training.image_size import USUAL, choose_size, median_size, resolve_size, size_keys

logger = logging.getLogger(__name__)

_WARMUP = "optimizer.warmup_epochs"
_SPLITS = ("data.eval_split", "data.test_split")  # chosen when a run begins; see `data.sources.slices.resolve`


def with_existing_splits(config: Config, stored: Config | None = None) -> Config:
    """Return the configuration with the names of existing splits; see `data.sources.slices.resolve`.

    Args:
        config: see `load_config`.
        stored: configuration of the run that continues, whose validation and test split stay unless others are set.

    Raises:
        UserError: if the source does not exist.
    """
    if stored:
        now, before = config.values, stored.values
        kept = {key: before[key] for key in _SPLITS if key not in config.explicit}
        if any(now[key] != value for key, value in kept.items()):
            logger.info("settings of the run continue: %s", _join(kept))
        config = override(config, kept)
    return dataclasses.replace(config, data=resolve_splits(config.data, config.given))


def resolve(config: Config, source: Source | None = None, *, stored: Config | None = None, replicas: int = 1) -> Config:
    """Return the configuration with the settings that `train.defaults` and `data.image_size=auto` derive from the data.

    Without an explicit setting, warmup takes at most a tenth of the epochs: that of a recipe is for the recipe's
    epochs, and is shortened if `train.epochs` is set. A batch larger than the training split is reduced.

    Explicit settings are kept: keys in `config.given` (set by `--set` or a JSON file) and keys that a recipe set to a
    value other than the default. Settings that depend on another key use its explicit value. Resolving a configuration
    twice has no further effect.

    Args:
        config: see `load_config`.
        source: its data, opened if None, and if a setting follows from them.
        stored: configuration of the run that continues, or None for a new run. Settings are derived once, when a run
            begins, and kept when it continues.
        replicas: number of replicas, which a batch is divided among.

    Raises:
        UserError: if a setting does not apply to the input type, the data cannot be opened, or a derived setting
            contradicts an explicit one.
    """
    input_type(config.data).check_config(config)
    if stored:
        config = _keep_derived(config, stored)
    given = config.given
    if source is None and (config.train.defaults != "none" or config.data.image_size == AUTO_SIZE):
        source = open_source(config.data)
    if source:
        if config.train.defaults != "none":
            config = _derive(config, source)
        before = stored.data.batch_size if stored else 0
        config = with_smaller_batch(resolve_size(config, source), source.train, replicas, before=before)
    return _with_shorter_warmup(config, epochs_are_given="train.epochs" in given)


def _keep_derived(config: Config, stored: Config) -> Config:
    """Return the configuration with the settings that were derived when the run began, in place of deriving them."""
    now, before = config.values, stored.values
    keys = set(size_keys(config))
    if config.train.minutes and config.train.minutes == stored.train.minutes:
        keys |= set(planner.KEYS) - set(explicit_settings(config))
    if config.data.drop_remainder == "auto" and "data.drop_remainder" not in config.given:
        keys.add("data.drop_remainder")
    if config.train.defaults == stored.train.defaults != "none":
        settings = _Settings(config)
        _DEFAULTS[config.train.defaults](settings, 1, 1)  # the keys depend on no number
        keys |= set(settings.derived)
    if _is_shortened(config, epochs_are_given="train.epochs" in config.given | keys):
        keys.add(_WARMUP)
    kept = {key: before[key] for key in sorted(keys) if before[key] != now[key]}
    if kept:
        logger.info("settings of the run continue: %s", _join(kept))
    return override(config, {key: before[key] for key in keys})


def _derive(config: Config, source: Source) -> Config:
    settings = _Settings(config)
    _DEFAULTS[config.train.defaults](settings, 1, 1)
    if not settings.derived:
        return config
    size = median_size(source)
    settings = _Settings(config)
    _DEFAULTS[config.train.defaults](settings, source.train.num_examples, size)
    count = f"{source.train.num_examples:,}"
    derived = _join(settings.derived)
    logger.info("train.defaults=%s for %s images of %d pixels: %s", config.train.defaults, count, size, derived)
    return override(config, settings.derived)


def explicit_settings(config: Config) -> dict[str, Any]:
    """Return the settings that the user gave, and those of the recipe that differ from the defaults, key -> value."""
    explicit = config.explicit
    if config.data.image_size == AUTO_SIZE:
        del explicit["data.image_size"]
    return explicit


def _join(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _with_shorter_warmup(config: Config, *, epochs_are_given: bool) -> Config:
    """Return the configuration with a warmup that fits into the epochs, unless its length was set."""
    longest = config.train.epochs / 10
    if _is_shortened(config, epochs_are_given=epochs_are_given) and config.optimizer.warmup_epochs > longest:
        logger.info("%s=%g, a tenth of train.epochs=%d", _WARMUP, longest, config.train.epochs)
        config = override(config, {_WARMUP: longest})
    return dataclasses.replace(config, given=config.given | {_WARMUP})


def _is_shortened(config: Config, *, epochs_are_given: bool) -> bool:
    """Return True if the length of the warmup follows from the epochs.

    Args:
        config: configuration of the run.
        epochs_are_given: the epochs are not those that a recipe has with its warmup.
    """
    settings = config.optimizer
    is_default = settings.warmup_epochs == type(settings)().warmup_epochs
    return _WARMUP not in config.given and settings.schedule != "one_cycle" and (is_default or epochs_are_given)


class _Settings:
    """Settings of a configuration: explicit settings, and derived settings for the other keys.

    Attributes:
        derived: derived settings, key -> value.
    """

    def __init__(self, config: Config):
        self._explicit = config.explicit
        self.derived: dict[str, Any] = {}

    def derive(self, key: str, value: Any) -> Any:
        """Set a key to `value` unless it has an explicit setting, and return the resulting value."""
        if key in self._explicit:
            return self._explicit[key]
        self.derived[key] = value
        return value


def with_smaller_batch(config: Config, split: Split, replicas: int, *, before: int = 0) -> Config:
    """Return the configuration with a batch of at most the training split; the learning rate scales with the batch.

    Args:
        config: see `load_config`.
        split: the training split.
        replicas: number of replicas, which a batch is divided among.
        before: batch of the run that continues, 0 for none. It stays if it is more than half of the split, as one that
            was reduced for other replicas is, and divides among these.
    """
    size, count = config.data.batch_size, split.num_examples
    if size <= count:
        return config
    multiple = replicas * batch_group(config)
    reduced = max(count // multiple, 1) * multiple
    if count < 2 * before < 2 * size and before % multiple == 0:
        reduced = before
    if reduced >= size:
        return config
    examples = counted(count, "example")
    logger.info("data.batch_size=%d in place of %d: split %r has %s", reduced, size, split.name, examples)
    return override(config, {"data.batch_size": reduced})


def batch_group(config: Config) -> int:
    """Return the number that the batch of a replica is a multiple of, for micro-batches and mixed pairs."""
    return math.lcm(mixing.group_size(config.augment), config.train.accumulate)


def _bit(settings: _Settings, examples: int, size: int) -> None:
    """Derive BiT-HyperRule (Kolesnikov et al., Big Transfer, 2020, sec. 3.3; code: google-research/big_transfer).

    - Steps: 500 below 20,000 examples, 10,000 below 500,000, otherwise 20,000, rounded up to whole epochs.
    - Batch size: 512, or the number of examples if smaller.
    - Learning rate: linear warmup, then divided by ten three times. With an explicit `train.epochs`, warmup and decays
      keep their fractions of the run.
    - Image size: 128 pixels for images below 96 pixels, otherwise 480.
    - Mixup of 0.1 from 20,000 examples on.
    """
    if examples < 20_000:
        warmup, *decays, end = 100, 200, 300, 400, 500
    elif examples < 500_000:
        warmup, *decays, end = 500, 3_000, 6_000, 9_000, 10_000
    else:
        warmup, *decays, end = 500, 6_000, 12_000, 18_000, 20_000
    batch = settings.derive("data.batch_size", min(512, examples))
    steps_per_epoch = pipeline.steps_per_epoch(batch, examples, "auto")
    default_epochs = math.ceil(end / steps_per_epoch)
    epochs = settings.derive("train.epochs", default_epochs)
    scale = 1.0 if epochs == default_epochs else epochs * steps_per_epoch / end
    settings.derive("data.image_size", 128 if size < 96 else 480)
    settings.derive("train.eval_every", max(1, epochs // 20))
    settings.derive("optimizer.warmup_epochs", scale * warmup / steps_per_epoch)
    settings.derive("optimizer.decay_epochs", tuple(scale * decay / steps_per_epoch for decay in decays))
    settings.derive("augment.mixup", 0.1 if examples >= 20_000 else 0.0)


def _photos(settings: _Settings, examples: int, size: int) -> None:
    """Derive settings for fine-tuning ImageNet weights on a CPU.

    A run processes about 20,000 images, in 3 to 40 epochs. A fifth of the epochs, at least one, is for the head only.
    The image size is a multiple of 32 from 128 to 224 pixels: smaller images are enlarged, since the stem of ImageNet
    networks divides height and width by four.
    """
    epochs = settings.derive("train.epochs", min(max(3, round(20_000 / examples)), 40))
    settings.derive("train.head_epochs", max(1, epochs // 5))
    settings.derive("data.batch_size", min(32 if examples < 5_000 else 64, examples))
    settings.derive("data.image_size", choose_size(size, USUAL).size)


_DEFAULTS: dict[str, Callable[[_Settings, int, int], None]] = {"bit": _bit, "photos": _photos}
