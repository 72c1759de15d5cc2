"""ImageNet with ResNet-50 by recipe A3 of Wightman et al., ResNet strikes back, 2021, table 2: A2 made cheap.

    python -m resnet_tf.train --config=imagenet_rsb_a3

Trained at 160 pixels, evaluated at 224. RandAugment's magnitude of 6 out of 10 is 18 out of 30 here. Differences from
the paper: those of crops and RandAugment in imagenet_rsb_a2. The paper reaches 78.1 %. Not run here.
"""

from resnet_tf.config import Config, load_config

_CHANGES = (
    "train.epochs=100",
    "train.end_size=160",
    "data.batch_size=2048",
    "augment.repeats=1",
    "augment.policy_magnitude=18",
    "model.stochastic_depth=0",
    "optimizer.base_lr=1e-3",
)


def get_config() -> Config:
    return load_config("imagenet_rsb_a2", _CHANGES)
