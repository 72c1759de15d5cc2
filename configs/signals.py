"""Signals: one-dimensional ResNet-18 on raw samples.

    python examples/signals.py --out=signals/
    python -m resnet_tf.train --config=signals --set data.source=signals/signals.npz

The example generates four classes of noisy signals. In your own data, x_train and x_test are floats
[N, length, channels].
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet18_1d"),
        data=DataConfig(source="signals/signals.npz", length=2048, channels=1, batch_size=64),
        augment=AugmentConfig(pad_crop=128),
        train=TrainConfig(epochs=12),
        optimizer=OptimizerConfig(name="adamw", base_lr=0.004, warmup_epochs=1, weight_decay=0.01),
    )
