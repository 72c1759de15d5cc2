"""Batches from a tf.data service in other processes equal local ones, in the same order."""

import contextlib
import itertools
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.config import load_config
from resnet_tf.core.errors import UserError
from resnet_tf.data import pipeline, service
from resnet_tf.data.pipeline import Shard, TrainingLength
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import create_preprocess


@contextlib.contextmanager
def _server(*flags: str):
    """Run `python -m resnet_tf.data_service`; yield its process and the address that it prints."""
    command = [sys.executable, "-m", "resnet_tf.data_service", "--host=127.0.0.1", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip().removeprefix("data.service=")
            yield process, address.replace("localhost", "127.0.0.1")
        finally:
            process.kill()


def _config(photos, address="", epochs=30):
    overrides = [f"data.source={photos}", f"train.epochs={epochs}", "data.batch_size=4", "data.image_size=32"]
    return load_config("imagefolder", [*overrides, "augment.cutmix=1", f"data.service={address}"])


def _batches(config, start=0, shard=None):
    source, preprocess = open_source(config.data), create_preprocess(config.data)
    length = TrainingLength.of(config, source)
    batches = pipeline.train_batches(config, source, preprocess, length, start=start, shard=shard or Shard())
    return batches.as_numpy_iterator()


def _exhaust(batches, limit):
    for _ in range(limit):
        next(batches)


@pytest.mark.parametrize("late", [True, False])
def test_a_late_worker_is_waited_for(monkeypatch, late):
    """One worker sends all its batches before the first one of the other, which is late or died."""
    monkeypatch.setattr(service, "_MAX_BUFFERED", 4)
    monkeypatch.setattr(service, "_LATE", 60.0 if late else 0.5)
    monkeypatch.setattr(service, "_check_address", lambda address: None)
    monkeypatch.setattr(service, "_wait_for_worker", lambda address, seconds: None)
    monkeypatch.setattr(service, "_service", lambda address: lambda dataset: dataset)
    steps = tf.data.Dataset.range(10)
    received = [0, 2, 3, 4, 5, 6, 7, 8, 9, 1] if late else itertools.chain([0], itertools.count(2))
    monkeypatch.setattr(service, "_receive", lambda *arguments: ((number, number) for number in received))
    batches = service.distribute(tf.data.Dataset.zip(steps, steps), "grpc://127.0.0.1:9", start=0, end=10, seconds=60)
    if late:
        assert [int(value) for (value,) in batches.as_numpy_iterator()] == list(range(10))
    else:
        lost = "lost step 1: has one of its workers died"
        with pytest.raises(UserError, match=lost), service.translate_service_errors():
            list(batches)


@pytest.mark.slow
def test_service_batches_equal_local_ones_and_a_lost_worker_is_reported(photos, monkeypatch):
    """Servers of TensorFlow listen on all addresses; this test connects to 127.0.0.1 only."""
    with _server("--port=0") as (first, address), _server(f"--dispatcher={address}") as (second, _):
        for start, shard in ((0, Shard()), (31, Shard(1, 2))):
            local = list(_batches(_config(photos), start, shard))
            remote = list(_batches(_config(photos, address), start, shard))
            assert len(local) == 90 - start
            for batch, reference in zip(remote, local, strict=True):
                for part, expected in zip(batch, reference, strict=True):
                    np.testing.assert_array_equal(part, expected)
        endless = _batches(_config(photos, address, epochs=100_000))
        for _ in range(20):
            next(endless)
        second.kill()
        second.wait(timeout=30)
        monkeypatch.setattr(service, "_LATE", 1.0)
        lost = rf"the data service at {address} lost step \d+: has one of its workers"
        with pytest.raises(UserError, match=lost), service.translate_service_errors():
            _exhaust(endless, 5000)
        first.send_signal(signal.SIGTERM)
        first.wait(timeout=30)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost:5050", r"data.service='localhost:5050' is not the address of a dispatcher; expected grpc://HOST"),
        ("grpc://127.0.0.1:9", r"data.service='grpc://127.0.0.1:9' does not answer .*resnet_tf.data_service --port=9"),
        ("grpc://.host:9", r"data.service='grpc://.host:9' is not the address of a dispatcher; expected grpc://HOST"),
        (
            f"grpc://{'a' * 64}:9",
            r"data.service='grpc://a+:9' is not the address of a dispatcher; expected grpc://HOST",
        ),
        (f"grpc://localhost:{'1' * 5000}", r"1' is not the address of a dispatcher; expected grpc://HOST"),
        ("grpc://127.0.0.1:99999", r"data.service='grpc://127.0.0.1:99999' does not answer"),
    ],
)
def test_invalid_addresses_are_reported(photos, address, message):
    with pytest.raises(UserError, match=message):
        _batches(_config(photos, address))


def test_the_command_reports_invalid_addresses(command):
    outcome = command("data_service", "--dispatcher=somewhere")
    assert outcome.code == 2
    assert outcome.err == (
        "error: --dispatcher='somewhere' is not the address of a dispatcher; expected grpc://HOST:PORT\n"
    )
