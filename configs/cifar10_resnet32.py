"""CIFAR-10 with ResNet-32 by the recipe of He et al. 2015, sec. 4.2, as cifar10_resnet20.

    python -m resnet_tf.train --config=cifar10_resnet32

The paper reaches 92.49 %. Not run here.
"""

from resnet_tf.config import Config, load_config


def get_config() -> Config:
    return load_config("cifar10_resnet20", ["model.name=resnet32"])
