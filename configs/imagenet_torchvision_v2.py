"""ImageNet with ResNet-50 by torchvision's recipe of 2021 (ResNet50_Weights.IMAGENET1K_V2).

    python -m resnet_tf.train --config=imagenet_torchvision_v2

Source: pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-primitives. Its average moves by
1 - 0.99998, times 32 x 1024 / 600, once in 32 steps; here by a 32nd of that in each. It gives 80.86 %. Differences: the
last gamma of each block starts at 0, there at 1; crops are resized without antialiasing, there with it
(augment.antialias=true). Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet50"),
        data=DataConfig(
            source="imagenet2012", eval_split="validation", image_size=224, crop_fraction=224 / 232, batch_size=1024
        ),
        augment=AugmentConfig(
            random_resized_crop=True,
            flip=True,
            policy="trivialaugment",
            erasing=0.1,
            mixup=0.2,
            cutmix=1.0,
            repeats=4,
        ),
        train=TrainConfig(epochs=600, end_size=176, ema=1 - 2e-5 * 1024 / 600),
        optimizer=OptimizerConfig(base_lr=0.125, weight_decay=2e-5, warmup_epochs=5),
        loss=LossConfig(label_smoothing=0.1),
    )
