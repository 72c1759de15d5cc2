"""Generate noisy signals for one-dimensional networks, and their spectrograms for two-dimensional networks.

    python examples/signals.py --out=signals/

This writes signals.npz and spectrograms.npz, on which two recipes train:

    python -m resnet_tf.train --config=signals --set data.source=signals/signals.npz
    python -m resnet_tf.train --config=spectrograms --set data.source=signals/spectrograms.npz
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf

RATE, LENGTH, SIZE = 8000, 2048, 32  # samples per second, samples per signal, height and width of a spectrogram
CLASSES = ("rising", "falling", "steady", "pulsing")
DECIBELS = 40.0  # dynamic range of a spectrogram, below its maximum


def make_signals(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return signals, float32 [count, LENGTH], standard deviation 1 over all of them, and their classes, int64 [count].

    A signal is a sine of amplitude 1 between 300 and 2,500 Hz, in white noise of deviation 0.5, before scaling.
    """
    generator = np.random.default_rng(seed)
    classes = np.arange(count) % len(CLASSES)
    time = np.arange(LENGTH) / RATE
    low, high = generator.uniform(300, 1000, (count, 1)), generator.uniform(1500, 2500, (count, 1))
    slope = (high - low) / time[-1]
    phases = np.stack([low * time + slope * time**2 / 2, high * time - slope * time**2 / 2, high * time, high * time])
    waves = np.sin(2 * np.pi * (phases[classes, np.arange(count)] + generator.uniform(size=(count, 1))))
    pulses = np.sin(2 * np.pi * generator.uniform(15, 30, (count, 1)) * time) > 0
    waves = np.where((classes == CLASSES.index("pulsing"))[:, None], waves * pulses, waves)
    signals = waves + generator.normal(scale=0.5, size=waves.shape)
    return (signals / signals.std()).astype(np.float32), classes


def make_spectrograms(signals: np.ndarray) -> np.ndarray:
    """Return spectrograms, uint8 [N, 32, 32]: time from left to right, frequency upwards, brightness in dB."""
    transformed = tf.signal.stft(signals, frame_length=2 * SIZE, frame_step=(LENGTH - 2 * SIZE) // (SIZE - 1))
    power = tf.abs(transformed[:, :SIZE, 1 : SIZE + 1]).numpy() ** 2
    loudness = 10 * np.log10(power + 1e-9)
    relative = 1 + (loudness - loudness.max(axis=(1, 2), keepdims=True)) / DECIBELS
    return (255 * np.clip(relative, 0, 1)).astype(np.uint8).transpose(0, 2, 1)[:, ::-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of signals.npz and spectrograms.npz")
    parser.add_argument(
        "--train", type=int, default=1000, help="number of training signals; the validation split has a quarter of it"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train, test = make_signals(arguments.train, seed=0), make_signals(arguments.train // 4, seed=1)
    names = {"y_train": train[1], "y_test": test[1], "class_names": CLASSES}
    np.savez(arguments.out / "signals.npz", x_train=train[0], x_test=test[0], **names)
    images = {"x_train": make_spectrograms(train[0]), "x_test": make_spectrograms(test[0])}
    np.savez(arguments.out / "spectrograms.npz", **images, **names)


if __name__ == "__main__":
    main()
