"""Handwritten digits, 8x8 gray, embedded in the package: the default.

    python -m resnet_tf.train

898 images train, 899 test (scikit-learn's documented split). See the README for the result, its spread over seeds and
the wall time.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, RuntimeConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet8_w32"),
        data=DataConfig(
            source="digits", image_size=8, channels=1, mean=(0.3,), std=(0.38,), crop_fraction=1.0, batch_size=64
        ),
        augment=AugmentConfig(shift=1.0, scale=0.1, rotation=10.0),
        train=TrainConfig(epochs=120),
        optimizer=OptimizerConfig(base_lr=0.4, nesterov=True, weight_decay=1e-3, warmup_epochs=5),
        runtime=RuntimeConfig(precision="float32", deterministic=True),
    )
