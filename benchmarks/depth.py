"""What depth does to the gradient at initialisation, with residual connections and without: draws docs/depth.png.

    python benchmarks/depth.py --out=docs/depth.png

Left: the norm of the loss's gradient by layer. Right: how alike the gradients with respect to the input are at two
points a given distance apart, on the straight line between two pictures (Balduzzi et al. 2017, The Shattered Gradients
Problem).
Prints the figures that it draws. Pictures are the package's digits, enlarged to 32 pixels.
"""

import argparse
from importlib import resources

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import resnet_tf

LAYERS = (20, 56, 110)
POINTS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/depth.png")
    parser.add_argument("--seeds", type=int, default=3, help="networks over which curves are averaged")
    arguments = parser.parse_args()
    images, labels = _pictures()
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    norms_axes, alike_axes = figure.subplots(1, 2)
    for kind, shortcut, style in (("plain", "none", "--"), ("residual", "pad", "-")):
        for index, layers in enumerate(LAYERS):
            norms, alike = [], []
            for seed in range(arguments.seeds):
                keras.utils.set_random_seed(seed)
                model = resnet_tf.create_model(
                    f"resnet{layers}", num_classes=10, input_shape=(32, 32, 3), shortcut=shortcut
                )
                norms.append(gradient_norms(model, images, labels))
                alike.append(gradient_likeness(model, images))
            norms, alike = np.mean(norms, 0), np.mean(alike, 0)
            label = f"{kind}, {layers} layers"
            norms_axes.semilogy(np.linspace(0, 1, len(norms)), norms, style, color=f"C{index}", label=label)
            alike_axes.plot(np.arange(len(alike)) / POINTS, alike, style, color=f"C{index}", label=label)
            print(
                f"{label}: gradient norm {norms[0]:.3g} in the first layer, {norms[-1]:.3g} in the last; "
                f"likeness {alike[1]:.2f} after 1/{POINTS} of the way, {alike[8]:.2f} after 8/{POINTS}"
            )
    norms_axes.set(title="gradient of the loss, by layer", xlabel="depth (0 first, 1 last)", ylabel="norm")
    alike_axes.set(
        title="gradient with respect to the input",
        xlabel="distance (1: from one picture to another)",
        ylabel="correlation",
    )
    for axes in (norms_axes, alike_axes):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(arguments.out, dpi=100)


def gradient_norms(model: keras.Model, images: tf.Tensor, labels: np.ndarray) -> np.ndarray:
    """The norm of the gradient of each 3x3 kernel, first to last, batch statistics in BatchNorm."""
    kernels = [layer.kernel.value for layer in model.layers if layer.name.endswith(("conv1", "conv2", "stem_conv"))]
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    return np.array([float(tf.norm(gradient)) for gradient in tape.gradient(loss, kernels)])


def gradient_likeness(model: keras.Model, images: tf.Tensor) -> np.ndarray:
    """Correlation of input gradients at points k steps apart, k = 0, 1, ..., averaged along the line."""
    share = tf.reshape(tf.linspace(0.0, 1.0, POINTS + 1), [-1, 1, 1, 1])
    line = (1 - share) * images[0] + share * images[1]
    with tf.GradientTape() as tape:
        tape.watch(line)
        answer = tf.reduce_sum(model(line, training=True)[:, 0])
    gradients = tf.reshape(tape.gradient(answer, line), [POINTS + 1, -1]).numpy()
    gradients -= gradients.mean(1, keepdims=True)
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    products = gradients @ gradients.T
    return np.array([np.diagonal(products, step).mean() for step in range(POINTS // 2)])


def _pictures() -> tuple[tf.Tensor, np.ndarray]:
    """64 digits, float32 [64, 32, 32, 3] of mean 0 and variance 1, and their labels."""
    with resources.files("resnet_tf.data.sources").joinpath("digits.npz").open("rb") as file:
        archive = np.load(file)
        images, labels = archive["images"][:64, ..., np.newaxis], archive["labels"][:64].astype(np.int64)
    images = tf.image.resize(np.repeat(images, 3, axis=-1).astype(np.float32), [32, 32], "bicubic")
    return (images - tf.reduce_mean(images)) / tf.math.reduce_std(images), labels


if __name__ == "__main__":
    main()
