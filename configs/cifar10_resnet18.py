"""CIFAR-10 with the ResNet-18 of ImageNet on a stem for small images, by kuangliu/pytorch-cifar's recipe.

    python -m resnet_tf.train --config=cifar10_resnet18

Source: github.com/kuangliu/pytorch-cifar, main.py. It reaches 93.02 %. Differences: kernels are normal, of variance
2 / fan-out, there uniform, of variance 1 / (3 fan-in), PyTorch's default; the last gamma of each block starts at 0,
there at 1. Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet18", stem="small"),
        data=DataConfig(
            source="cifar10",
            image_size=32,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
            crop_fraction=1.0,
            batch_size=128,
        ),
        augment=AugmentConfig(flip=True, pad_crop=4),
        train=TrainConfig(epochs=200),
        optimizer=OptimizerConfig(base_lr=0.2, warmup_epochs=0, weight_decay=5e-4, decay_all=True),
    )
