"""Start of a training: devices, data, and the settings that follow from them."""

from dataclasses import dataclass

import tensorflow as tf

from resnet_tf.config import Config
from resnet_tf.data.sources import Source, open_source
from resnet_tf.inputs import input_type
from resnet_tf.training import default_settings, runtime


@dataclass(frozen=True)
class Start:
    """Configuration, data and strategy of a training that begins.

    Attributes:
        config: configuration, with the settings that follow from the data.
        source: the opened data set.
        strategy: distribution strategy.
    """

    config: Config
    source: Source
    strategy: tf.distribute.Strategy


def start(config: Config, stored: Config | None = None) -> Start:
    """Start the devices, open the data, and derive the settings that follow from them.

    Args:
        config: see `load_config`.
        stored: configuration of the run that continues, see `default_settings.resolve`.

    Raises:
        UserError: as `default_settings.resolve`, or for devices that cannot be used.
    """
    input_type(config.data).check_config(config)
    strategy = runtime.start(config.runtime)  # a cluster must be joined before TensorFlow computes
    config = default_settings.with_existing_splits(config)
    source = open_source(config.data)
    replicas = strategy.num_replicas_in_sync
    return Start(default_settings.resolve(config, source, stored=stored, replicas=replicas), source, strategy)
