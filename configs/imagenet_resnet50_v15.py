"""ImageNet with ResNet-50 v1.5 by NVIDIA's recipe.

    python -m resnet_tf.train --config=imagenet_resnet50_v15
    python -m resnet_tf.train --config=imagenet_resnet50_v15 --set train.epochs=250 --set augment.mixup=0.2

Source: github.com/NVIDIA/DeepLearningExamples, resnet50v1.5. It gives 77.0 % in 90 epochs and 78.3 % in 250.
Differences: kernels are initialized by their fan-out, there by their fan-in; the last gamma of each block starts at 0,
there at 1. Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet50"),
        data=DataConfig(source="imagenet2012", eval_split="validation", image_size=224, batch_size=2048),
        augment=AugmentConfig(random_resized_crop=True, flip=True),
        train=TrainConfig(epochs=90),
        optimizer=OptimizerConfig(base_lr=0.256, momentum=0.875, weight_decay=1 / 32768, warmup_epochs=8),
        loss=LossConfig(label_smoothing=0.1),
    )
