"""Spectrograms of sounds as gray images of 32x32 pixels: ResNet-20.

    python examples/signals.py --out=signals/
    python -m resnet_tf.train --config=spectrograms --set data.source=signals/spectrograms.npz

The example generates four classes of noisy signals; the recipe `signals` trains on their samples. Images are not
flipped, since time has a direction.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet20"),
        data=DataConfig(
            source="signals/spectrograms.npz",
            image_size=32,
            channels=1,
            mean=(0.5,),
            std=(0.25,),
            crop_fraction=1.0,
            batch_size=64,
        ),
        augment=AugmentConfig(pad_crop=2),
        train=TrainConfig(epochs=20),
        optimizer=OptimizerConfig(base_lr=0.2, warmup_epochs=1, weight_decay=5e-4),
    )
