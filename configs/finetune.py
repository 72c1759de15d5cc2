"""Fine-tuning on your own photos in minutes: first a new head, then all layers of ResNet-18.

    python -m resnet_tf.train --config=finetune --set data.source=photos/
    python -m resnet_tf.train --config=finetune --set data.source=photos/ --set model.name=resnet50

`train.defaults=photos` chooses epochs and batch, and `data.image_size=auto` the size; keys that you set keep their
values. The result depends on your photos.
"""

from resnet_tf.config import (
    AUTO_SIZE,
    AugmentConfig,
    Config,
    DataConfig,
    ExportConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet18", weights="imagenet", new_head=True),
        data=DataConfig(source="photos", image_size=AUTO_SIZE, exif_orientation=True),
        augment=AugmentConfig(random_resized_crop=True, min_crop_area=0.35, flip=True),
        train=TrainConfig(defaults="photos", finetune="head_then_all"),
        optimizer=OptimizerConfig(base_lr=0.08, warmup_epochs=1, nesterov=True),
        export=ExportConfig(checkpoint="best"),
    )
