"""Handwritten digits, 8x8 gray, embedded in the package: the default. Result and wall time are in the README.

    python -m resnet_tf.train

Muon (Jordan 2024) and smoothed labels need a fifth of the epochs of SGD with momentum, at higher accuracy.
"""

from resnet_tf.config import (
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RuntimeConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet8_w32"),
        data=DataConfig(
            source="digits", image_size=8, channels=1, mean=(0.3,), std=(0.38,), crop_fraction=1.0, batch_size=128
        ),
        augment=AugmentConfig(shift=1.0, scale=0.1, rotation=10.0),
        train=TrainConfig(epochs=24),
        optimizer=OptimizerConfig(
            name="muon",
            base_lr=0.025,
            schedule="linear",
            warmup_epochs=3,
            momentum=0.85,
            nesterov=True,
            weight_decay=0.1,
        ),
        loss=LossConfig(label_smoothing=0.1),
        runtime=RuntimeConfig(precision="float32", deterministic=True),
    )
