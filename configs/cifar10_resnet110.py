"""CIFAR-10 with ResNet-110 by the recipe of He et al. 2015, sec. 4.2, as cifar10_resnet20 but for its warmup.

    python -m resnet_tf.train --config=cifar10_resnet110

The paper waits at a learning rate of 0.01 for about 400 steps; here it rises to 0.1 within an epoch, of 390. The paper
reaches 93.57 %, and 93.39 +- 0.16 over five runs. Not run here.
"""

from resnet_tf.config import Config, load_config


def get_config() -> Config:
    return load_config("cifar10_resnet20", ["model.name=resnet110", "optimizer.warmup_epochs=1"])
