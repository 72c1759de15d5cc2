"""Your own photos: a folder of split/class/file, ResNet-18 at the size of the photos up to 224 pixels, from scratch.

    python -m resnet_tf.train --config=imagefolder --set data.source=photos/

Crops, flips and normalization as torchvision's ImageNet reference trains; photos are turned as their cameras noted. The
result depends on your photos.
"""

from resnet_tf.config import AUTO_SIZE, AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet18"),
        data=DataConfig(source="photos", image_size=AUTO_SIZE, batch_size=64, exif_orientation=True),
        augment=AugmentConfig(random_resized_crop=True, flip=True),
        train=TrainConfig(epochs=90),
        optimizer=OptimizerConfig(base_lr=0.1, weight_decay=1e-4, warmup_epochs=5),
    )
