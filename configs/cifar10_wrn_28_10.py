"""CIFAR-10 with WRN-28-10 by the recipe of Zagoruyko and Komodakis 2016, sec. 3.

    python -m resnet_tf.train --config=cifar10_wrn_28_10

Crops are padded with zeros, where the paper reflects. The paper reaches 96.00 %. Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="wrn_28_10"),
        data=DataConfig(source="cifar10", image_size=32, crop_fraction=1.0, batch_size=128),
        augment=AugmentConfig(flip=True, pad_crop=4),
        train=TrainConfig(epochs=200),
        optimizer=OptimizerConfig(
            base_lr=0.2,
            schedule="step",
            decay_epochs=(60, 120, 160),
            decay_factor=0.2,
            warmup_epochs=0,
            nesterov=True,
            weight_decay=5e-4,
            decay_all=True,
        ),
    )
