"""CIFAR-10 in less than an hour on a CPU: `cifar10_fast` with a wider network, more epochs and stronger augmentation.

    python -m resnet_tf.train --config=cifar10_wide --workdir=runs/wide
    python -m resnet_tf.evaluate --workdir=runs/wide --flip

Widths of airbench94 (Jordan 2024); cutout (DeVries and Taylor 2017) and crops of 4 pixels, against overfitting in more
epochs. docs/training.md has its results.
"""

from resnet_tf.config import Config, load_config


def get_config() -> Config:
    network = ["model.name=resnet8_pool_wide"]
    augment = ["augment.pad_crop=4", "augment.cutout=8"]
    return load_config("cifar10_fast", [*network, *augment, "train.epochs=33", "train.eval_every=3"])
