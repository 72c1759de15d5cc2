"""ImageNet with ResNet-50 in 90 epochs: the recipe of He et al. 2015 as torchvision's references train it.

    python -m resnet_tf.train --config=imagenet_resnet50

Source: github.com/pytorch/vision, references/classification (ResNet50_Weights.IMAGENET1K_V1). It gives 76.13 %.
Differences: the last gamma of each block starts at 0, there at 1; crops are resized without antialiasing, there with it
(augment.antialias=true). Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet50"),
        data=DataConfig(source="imagenet2012", eval_split="validation", image_size=224, batch_size=256),
        augment=AugmentConfig(random_resized_crop=True, flip=True),
        train=TrainConfig(epochs=90),
        optimizer=OptimizerConfig(
            base_lr=0.1, schedule="step", decay_epochs=(30, 60), warmup_epochs=0, weight_decay=1e-4, decay_all=True
        ),
    )
