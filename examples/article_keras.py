"""The article's five-convolution network in Keras, with the residual connections that its code omits.

    python examples/article_keras.py

Compare with article_pytorch.py: both files have the same structure. docs/pytorch_and_tensorflow.md explains them.
`resnet_tf.create_model("resnet_article")` creates the same network.
"""

import article_digits
import keras
import tensorflow as tf
from keras import layers


def residual_conv(x: keras.KerasTensor, width: int, *, name: str) -> keras.KerasTensor:
    """Return relu(x + bn(conv(x))), with a projection of x if the width changes."""
    y = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    y = layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_conv1_bn")(y)
    if x.shape[-1] != width:
        x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_shortcut_conv")(x)
        x = layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_shortcut_conv_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def article_net(channels: int = 1, num_classes: int = 10) -> keras.Model:
    """Create the network: residual convolutions of 64, 64, 128, 128 and 256 channels, global pooling, logits."""
    inputs = x = layers.Input((None, None, channels), name="images")
    x = residual_conv(x, 64, name="stage1_block1")
    x = residual_conv(x, 64, name="stage1_block2")
    x = residual_conv(x, 128, name="stage2_block1")
    x = residual_conv(x, 128, name="stage2_block2")
    x = residual_conv(x, 256, name="stage3_block1")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="article")


def train(model: keras.Model, *, steps: int, learning_rate: float = 0.01) -> list[float]:
    """Train for `steps` steps of SGD with momentum; return the loss of each step."""
    optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
    losses = []
    for images, labels in article_digits.batches(steps):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses.append(float(loss))
    return losses


def evaluate(model: keras.Model) -> float:
    """Return the accuracy on the test images, in [0, 1]."""
    _, _, images, labels = article_digits.load()
    logits = model(images, training=False)
    return float((logits.numpy().argmax(1) == labels).mean())


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    model = article_net()
    losses = train(model, steps=200)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, test accuracy {evaluate(model):.4f}")
