"""Measure gradients of plain and residual networks of growing depth at initialization, and plot them.

    python benchmarks/depth.py --out=docs/depth.png

Left: norm of the gradient of the loss with respect to each 3x3 kernel. Right: correlation of the gradients with respect
to the input at two points, against their distance on the straight line between two images (Balduzzi et al. 2017, The
Shattered Gradients Problem). Images are the digits of the package, enlarged to 32 pixels. Prints a Markdown table.
"""

import argparse
from importlib import resources
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import resnet_tf
from resnet_tf.report.plots import save_figure

LAYERS = (20, 56, 110)
POINTS = 64
HEAD = (
    f"| network | layers | norm, first layer | norm, last layer | correlation at distance 1/{POINTS} "
    f"| at distance 8/{POINTS} |\n|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/depth.png")
    parser.add_argument("--seeds", type=int, default=3, help="number of networks over which curves are averaged")
    arguments = parser.parse_args()
    images, labels = _images()
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    norms_axes, correlation_axes = figure.subplots(1, 2)
    print(HEAD)
    for network, shortcut, style in (("plain", "none", "--"), ("residual", "pad", "-")):
        for index, layers in enumerate(LAYERS):
            norms, correlations = [], []
            for seed in range(arguments.seeds):
                keras.utils.set_random_seed(seed)
                model = resnet_tf.create_model(
                    f"resnet{layers}", num_classes=10, input_shape=(32, 32, 3), shortcut=shortcut
                )
                norms.append(gradient_norms(model, images, labels))
                correlations.append(input_gradient_correlations(model, images))
            norms, correlations = np.mean(norms, 0), np.mean(correlations, 0)
            label = f"{network}, {layers} layers"
            norms_axes.semilogy(np.linspace(0, 1, len(norms)), norms, style, color=f"C{index}", label=label)
            distances = np.arange(len(correlations)) / POINTS
            correlation_axes.plot(distances, correlations, style, color=f"C{index}", label=label)
            near, far = (round(correlations[step], 2) + 0.0 for step in (1, 8))  # no -0.00
            print(f"| {network} | {layers} | {norms[0]:.3g} | {norms[-1]:.3g} | {near:.2f} | {far:.2f} |", flush=True)
    norms_axes.set(
        title="gradient of the loss, by layer", xlabel="relative depth (0: first layer, 1: last layer)", ylabel="norm"
    )
    correlation_axes.set(
        title="gradient with respect to the input",
        xlabel="distance (1: from one image to another)",
        ylabel="correlation",
    )
    for axes in (norms_axes, correlation_axes):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, Path(arguments.out))


def gradient_norms(model: keras.Model, images: tf.Tensor, labels: np.ndarray) -> np.ndarray:
    """Return the norm of the gradient of each 3x3 kernel, first to last, with batch statistics in BatchNorm."""
    kernels = [layer.kernel.value for layer in model.layers if layer.name.endswith(("conv1", "conv2", "stem_conv"))]
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    return np.array([float(tf.norm(gradient)) for gradient in tape.gradient(loss, kernels)])


def input_gradient_correlations(model: keras.Model, images: tf.Tensor) -> np.ndarray:
    """Return the correlation of input gradients at points k steps apart, k = 0, 1, ..., averaged along the line."""
    fraction = tf.reshape(tf.linspace(0.0, 1.0, POINTS + 1), [-1, 1, 1, 1])
    line = (1 - fraction) * images[0] + fraction * images[1]
    with tf.GradientTape() as tape:
        tape.watch(line)
        output = tf.reduce_sum(model(line, training=True)[:, 0])
    gradients = tf.reshape(tape.gradient(output, line), [POINTS + 1, -1]).numpy()
    gradients -= gradients.mean(1, keepdims=True)
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    products = gradients @ gradients.T
    return np.array([np.diagonal(products, step).mean() for step in range(POINTS // 2)])


def _images() -> tuple[tf.Tensor, np.ndarray]:
    """Return 64 digits, float32 [64, 32, 32, 3] with mean 0 and variance 1, and their labels, int64 [64]."""
    with resources.files("resnet_tf.data.sources").joinpath("digits.npz").open("rb") as file:
        archive = np.load(file)
        images, labels = archive["images"][:64, ..., np.newaxis], archive["labels"][:64].astype(np.int64)
    images = tf.image.resize(np.repeat(images, 3, axis=-1).astype(np.float32), [32, 32], "bicubic")
    return (images - tf.reduce_mean(images)) / tf.math.reduce_std(images), labels


if __name__ == "__main__":
    main()
