"""ImageNet with ResNet-50 by recipe A1 of Wightman et al., ResNet strikes back, 2021, table 2: A2 for twice as long.

    python -m resnet_tf.train --config=imagenet_rsb_a1

Differences from the paper: see imagenet_rsb_a2. The paper reaches 80.4 %. Not run here.
"""

from resnet_tf.config import Config, load_config

_CHANGES = ("train.epochs=600", "augment.mixup=0.2", "optimizer.weight_decay=0.01", "loss.label_smoothing=0.1")


def get_config() -> Config:
    return load_config("imagenet_rsb_a2", _CHANGES)
