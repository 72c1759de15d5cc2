"""ImageNet with ResNet-50 by recipe A2 of Wightman et al., ResNet strikes back, 2021, table 2.

    python -m resnet_tf.train --config=imagenet_rsb_a2

RandAugment's magnitude of 7 out of 10 is 21 out of 30 here. Differences from the paper's rand-m7-mstd0.5-inc1 of timm:
magnitudes do not vary between images; both operations always apply (there with probability 0.5) and are torchvision's
(no invert and solarize-add, posterize removes fewer bits, borders are black); crops are resized without antialiasing; a
batch has 2,046 images (groups of three repeats, in pairs), not 2,048. The paper reaches 79.8 %. Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet50", stochastic_depth=0.05),
        data=DataConfig(
            source="imagenet2012",
            eval_split="validation",
            image_size=224,
            crop_fraction=0.95,
            interpolation="bicubic",
            batch_size=2046,
        ),
        augment=AugmentConfig(
            random_resized_crop=True,
            flip=True,
            policy="randaugment",
            policy_magnitude=21,
            mixup=0.1,
            cutmix=1.0,
            repeats=3,
        ),
        train=TrainConfig(epochs=300),
        optimizer=OptimizerConfig(
            name="lamb", base_lr=5e-3 * 256 / 2046, weight_decay=0.02, warmup_epochs=5, clip_norm=1.0
        ),
        loss=LossConfig(name="binary", target_threshold=0.2),
    )
