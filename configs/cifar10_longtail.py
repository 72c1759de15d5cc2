"""CIFAR-10 with 100 times as many aeroplanes as lorries: ResNet-32 by the recipe of Cao et al., LDAM, 2019, sec. 4.

    python -m resnet_tf.train --config=cifar10_longtail
    python -m resnet_tf.train --config=cifar10_longtail --set loss.logit_adjustment=1

The test split stays even. Difference: kernels are initialized by their fan-out, there by their fan-in. Plain
cross-entropy reaches 70.36 % in the paper. Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet32"),
        data=DataConfig(source="cifar10", image_size=32, crop_fraction=1.0, long_tail=100, batch_size=128),
        augment=AugmentConfig(flip=True, pad_crop=4),
        train=TrainConfig(epochs=200),
        optimizer=OptimizerConfig(
            base_lr=0.2,
            schedule="step",
            decay_epochs=(160, 180),
            decay_factor=0.01,
            warmup_epochs=5,
            weight_decay=2e-4,
            decay_all=True,
        ),
    )
