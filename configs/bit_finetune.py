"""Fine-tuning as Big Transfer does it, with steps, sizes and mixup by the size of the data (Kolesnikov et al. 2020).

    python -m resnet_tf.train --config=bit_finetune --set data.source=photos/

The weights are timm's. Source: github.com/google-research/big_transfer (bit_hyperrule.py, bit_pytorch/train.py); it
reaches 97.4 % on CIFAR-10 from 128 pixels of 160; here crops have 64 to 100 % of the area. Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="bit_r50x1", weights="timm/goog_in21k", new_head=True),
        data=DataConfig(source="photos", crop_fraction=1.0, exif_orientation=True),
        augment=AugmentConfig(random_resized_crop=True, min_crop_area=0.64, flip=True),
        train=TrainConfig(defaults="bit"),
        optimizer=OptimizerConfig(base_lr=0.0015, schedule="step", weight_decay=0.0),
    )
