"""Start of a training: devices, data, and the settings that follow from them."""

from dataclasses import dataclass

import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data.sources import Source, open_source
from resnet_tf.inputs import input_type
from resnet_tf.training import default_settings, runtime
from resnet_tf.training.time_budget import Deadline, fit_into_minutes


@dataclass(frozen=True)
class Start:
    """Configuration, data and strategy of a training that begins.

    Attributes:
        config: configuration, with the settings that follow from the data.
        source: the opened data set.
        strategy: distribution strategy.
        deadline: end of the time of the run, `train.minutes`.
    """

    config: Config
    source: Source
    strategy: tf.distribute.Strategy
    deadline: Deadline


def start(config: Config, stored: Config | None = None) -> Start:
    """Start the devices, open the data, and derive the settings that follow from them.

    Args:
        config: see `load_config`.
        stored: configuration of the run that continues, see `default_settings.resolve`.

    Raises:
        UserError: as `default_settings.resolve`, or for devices that cannot be used.
    """
    deadline = Deadline(config.train.minutes)
    input_type(config.data).check_config(config)
    strategy = runtime.start(config.runtime)  # a cluster must be joined before TensorFlow computes
    config = default_settings.with_existing_splits(config)
    source = open_source(config.data)
    if config.train.minutes and not (stored and stored.train.minutes):
        config = fit_into_minutes(config, source, strategy, deadline)
    replicas = strategy.num_replicas_in_sync
    config = default_settings.resolve(config, source, stored=stored, replicas=replicas)
    return Start(config, source, strategy, deadline)
