"""Measure training loops (input, step, metrics, log): ours, the step alone, Keras's fit, PyTorch; interleaved.

    pip install '.[bench]' && python benchmarks/loop.py

ResNet-20 on random 32-pixel images in memory, padded, cropped and flipped, batch 128, SGD, 50 steps per epoch. "bare
step" is our compiled step on one cached batch. "Keras fit" is `model.fit` on the same network with stock layers and our
input pipeline, 50 steps per execution. "PyTorch" is an eager loop in channels_last that crops and flips tensors,
"torch.compile" the same with a compiled network. "two replicas" are two logical devices under MirroredStrategy. Each
case runs in its own process. `--json` prints one object per line: `case`, `images_per_second`, `ratio_to`, `ratio`.
"""

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rounds import measure, report

BATCH, STEPS, SIZE = 128, 50, 32
TORCH = ("PyTorch", "torch.compile")
RATIOS = [
    ("ours bfloat16", "bare step bfloat16"),
    ("ours float32", "bare step float32"),
    ("ours float32", "Keras fit float32"),
    ("ours float32", "PyTorch float32"),
    ("ours float32", "torch.compile float32"),
    ("ours bfloat16", "Keras fit bfloat16"),
    ("ours bfloat16", "Keras fit float32"),
    ("ours bfloat16", "PyTorch bfloat16"),
    ("ours bfloat16", "torch.compile bfloat16"),
    ("two replicas bfloat16", "ours bfloat16"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="measured epochs of 50 steps, after one epoch of warmup")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--torch-python", default=sys.executable, help="Python interpreter with torch")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        loop, precision = arguments.turn.rsplit(" ", 1)
        print(TURNS[loop](precision, arguments.epochs))
        return
    report(measure(_commands(arguments), arguments.rounds), RATIOS, as_json=arguments.json)


def _commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    flags = ["--epochs", str(arguments.epochs)]
    return {
        name: [arguments.torch_python if name.startswith(TORCH) else sys.executable, __file__, *flags, "--turn", name]
        for name in sorted({name for pair in RATIOS for name in pair})
    }


def _random_images() -> tuple[np.ndarray, np.ndarray]:
    """Return one epoch of images, uint8 [N, 32, 32, 3], and labels, int64 [N]."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (BATCH * STEPS, SIZE, SIZE, 3), np.uint8), np.arange(BATCH * STEPS) % 10


def _config(precision: str, epochs: int, folder: str, *overrides: str):
    from resnet_tf.config import load_config

    images, labels = _random_images()
    archive = Path(folder) / "random.npz"
    np.savez(archive, x_train=images, y_train=labels, x_test=images[:256], y_test=labels[:256])
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    settings = [f"data.source={archive}", f"train.epochs={epochs + 1}", f"runtime.precision={policy}"]
    return load_config("cifar10_resnet20", [*settings, *overrides])


def _ours(precision: str, epochs: int, *overrides: str) -> float:
    import keras

    import resnet_tf

    class Clock(keras.callbacks.Callback):
        """Seconds from the start of an epoch to its last step, without evaluation and checkpoint."""

        def __init__(self):
            super().__init__()
            self.start, self.last, self.seconds = 0.0, 0.0, []

        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.last = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds.append(self.last - self.start)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = _config(precision, epochs, folder, *overrides)
        resnet_tf.train_and_evaluate(config, Path(folder) / "run", callbacks=[clock])
    return epochs * STEPS * BATCH / sum(clock.seconds[1:])


def _replicas(precision: str, epochs: int) -> float:
    return _ours(precision, epochs, "runtime.strategy=mirrored", "runtime.logical_devices=2")


def _bare(precision: str, epochs: int) -> float:
    import tensorflow as tf

    from resnet_tf.data import pipeline
    from resnet_tf.data.sources import open_source
    from resnet_tf.training import runtime
    from resnet_tf.training.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        config = _config(precision, epochs, folder)
        trainer = Trainer(config, open_source(config.data), runtime.start(config.runtime))
    batches = pipeline.train_batches(config, trainer.source, trainer.preprocess, trainer.length, start=0)
    iterator = iter(batches.take(1).cache().repeat())
    trainer.step.run(iterator, tf.constant(STEPS))
    start = time.perf_counter()
    for _ in range(epochs):
        trainer.step.run(iterator, tf.constant(STEPS))[0].numpy()
    return epochs * STEPS * BATCH / (time.perf_counter() - start)


def _keras_fit(precision: str, epochs: int) -> float:
    import keras

    import resnet_tf
    from resnet_tf.data import pipeline
    from resnet_tf.data.sources import open_source
    from resnet_tf.inputs import create_preprocess
    from resnet_tf.model import blocks

    blocks.BatchNormalization = keras.layers.BatchNormalization
    with tempfile.TemporaryDirectory() as folder:
        config = _config(precision, epochs, folder)
        source, preprocess = open_source(config.data), create_preprocess(config.data)
    batches = pipeline.train_batches(config, source, preprocess, pipeline.TrainingLength.of(config, source), start=0)
    keras.config.set_dtype_policy(config.runtime.precision)
    model = resnet_tf.create_model("resnet20", num_classes=10, input_shape=(SIZE, SIZE, 3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=50)
    inputs = batches.map(lambda images, labels, missing: (preprocess.from_batch(images), labels))
    times = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()))
    model.fit(inputs, epochs=epochs + 1, steps_per_epoch=STEPS, verbose=0, callbacks=[clock])
    return epochs * STEPS * BATCH / (times[-1] - times[0])


def _torch(precision: str, epochs: int, *, compiled: bool = False) -> float:
    import torch
    from pytorch_cifar10 import FastBatches, resnet20, take_step

    model = resnet20().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    network = torch.compile(model) if compiled else model
    batches = FastBatches(*_random_images())
    start = 0.0
    for epoch in range(epochs + 1):
        if epoch == 1:
            start = time.perf_counter()
        for images, labels in batches:
            take_step(network, optimizer, images, labels, bfloat16=precision == "bfloat16")
    return epochs * STEPS * BATCH / (time.perf_counter() - start)


TURNS: dict[str, Callable[[str, int], float]] = {
    "ours": _ours,
    "two replicas": _replicas,
    "bare step": _bare,
    "Keras fit": _keras_fit,
    "PyTorch": _torch,
    "torch.compile": functools.partial(_torch, compiled=True),
}

if __name__ == "__main__":
    main()
