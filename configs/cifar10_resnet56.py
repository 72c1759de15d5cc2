"""CIFAR-10 with ResNet-56 by the recipe of He et al. 2015, sec. 4.2, as cifar10_resnet20.

    python -m resnet_tf.train --config=cifar10_resnet56

The paper reaches 93.03 %. Not run here.
"""

from resnet_tf.config import Config, load_config


def get_config() -> Config:
    return load_config("cifar10_resnet20", ["model.name=resnet56"])
