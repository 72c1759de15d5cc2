"""Datasets without tf.data's autotuner: each says itself what runs side by side."""

import tensorflow as tf


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, read in its order, with the parallelism and the buffers that it was written with.

    The end of an iterator waits for the autotuner's thread. That is woken before it counts as canceled
    (`CancellationManager::StartCancel`), so it often goes back to sleep until its next turn: 10 ms after the first one,
    then ever twice as long, up to a minute. Tests of three seconds took five or ten.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.with_options(options)
