"""CIFAR-10 with ResNet-20 by the recipe of He et al. 2015, sec. 4.2.

    python -m resnet_tf.train --config=cifar10_resnet20                             from TFDS
    python -m resnet_tf.train --config=cifar10_resnet20 --set data.source=cifar/    a folder of split/class/*.jpg

64,000 steps of 128, the learning rate of 0.1 divided by 10 after 32,000 and 48,000. The paper reaches 91.25 %.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet20"),
        data=DataConfig(source="cifar10", image_size=32, crop_fraction=1.0, batch_size=128),
        augment=AugmentConfig(flip=True, pad_crop=4),
        train=TrainConfig(epochs=164),
        optimizer=OptimizerConfig(
            base_lr=0.2, schedule="step", decay_epochs=(82, 123), warmup_epochs=0, weight_decay=1e-4, decay_all=True
        ),
    )
