"""Start of a training: devices, data, and the settings that follow from them."""

import json
import zlib
from dataclasses import dataclass

import tensorflow as tf

from resnet_tf.config import Config, flatten, override
from resnet_tf.core.errors import UserError
from resnet_tf.data.sources import Source, open_source
from resnet_tf.inputs import input_type
from resnet_tf.training import default_settings, runtime
from resnet_tf.training.cluster import Cluster, describe_workers, translate_lost_workers
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
        stored: configuration of the run that continues, see `default_settings.resolve`; that of the chief applies to
            all workers.

    Raises:
        UserError: as `default_settings.resolve`, for devices that cannot be used, or if the workers of a cluster have
            different configurations.
        Interrupted: if another worker was lost.
    """
    input_type(config.data).check_config(config)
    strategy = runtime.start(config.runtime)  # a cluster must be joined before TensorFlow computes
    deadline = Deadline(config.train.minutes)  # after the wait for other workers or a TPU
    cluster = Cluster(strategy)
    with translate_lost_workers(cluster):
        check_workers_agree(config, cluster)  # now, as indexing the data may take long
        stored = _from_chief(stored, cluster)
    config = default_settings.with_existing_splits(config, stored)
    source = open_source(config.data)
    deadline.include_test(source)
    if config.train.minutes and not (stored and stored.train.minutes):
        with translate_lost_workers(cluster):
            config = fit_into_minutes(config, source, strategy, deadline)
    replicas = strategy.num_replicas_in_sync
    config = default_settings.resolve(config, source, stored=stored, replicas=replicas)
    return Start(config, source, strategy, deadline)


def check_workers_agree(config: Config, cluster: Cluster) -> None:
    """Refuse different configurations, on all workers, so that none waits for another one.

    Raises:
        UserError: naming the workers.
    """
    own = float(zlib.crc32(config.to_json().encode()))
    (chiefs,) = cluster.from_chief([own])
    if differing := cluster.where(own != chiefs):
        raise UserError(
            f"the configuration of {describe_workers(differing)} differs from that of the chief; all workers need the "
            "same"
        )


def _from_chief(stored: Config | None, cluster: Cluster) -> Config | None:
    """Return the chief's stored configuration on every worker: the others need no access to the run directory."""
    text = cluster.text_from_chief(stored.to_json() if stored else "")
    if cluster.is_chief:
        return stored
    return override(Config(), flatten(json.loads(text))) if text else None
