"""Very deep networks train: each fits one fixed batch of 64 digits."""

from importlib import resources

import keras
import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.model.create import create_model


# Measured over seeds 0 to 3: resnet110 takes 36 to 41 steps, resnet164_v2 25 to 27.
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("resnet110", 50),
        *((name, 40) for name in ("resnet164_v2", "resnet1001_v2")),
    ],
)
def test_deep_networks_fit_a_batch(name, steps):
    keras.utils.set_random_seed(0)
    with (resources.files("resnet_tf.data.sources") / "digits.npz").open("rb") as file:
        archive = np.load(file)
        images, labels = archive["images"][:64, ..., np.newaxis] / 16, archive["labels"][:64].astype("int64")
    images = tf.constant(images, tf.float32)
    model = create_model(name, num_classes=10, input_shape=(8, 8, 1), zero_gamma=True)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss, tf.reduce_mean(tf.cast(tf.argmax(logits, 1) == labels, tf.float32))

    for _ in range(steps):
        loss, accuracy = step()
    assert float(accuracy) == 1.0
    assert float(loss) < 0.1
