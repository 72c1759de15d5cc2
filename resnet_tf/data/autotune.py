"""Datasets without the autotuner of tf.data, with explicit parallelism."""

import tensorflow as tf


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return the dataset with deterministic order and with the parallelism and the buffers that it specifies.

    The destructor of an iterator waits for the autotuner's thread, which is notified before it counts as canceled
    (`CancellationManager::StartCancel`) and so often sleeps until its next period: 10 ms at first, doubled each time,
    up to one minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.with_options(options)
