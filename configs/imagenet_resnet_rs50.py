"""ImageNet with ResNet-RS-50 by the recipe of Bello et al., Revisiting ResNets, 2021.

    python -m resnet_tf.train --config=imagenet_resnet_rs50

Trained and tested on 160 pixels. RandAugment's magnitude of 10 out of 10 is 30 out of 30 here. Differences from
TensorFlow Models: ReLU, there swish; kernels are initialized by their fan-out, there by their fan-in; the last gamma of
each block starts at 0, there at 1; operations are torchvision's (no invert, solarize-add and cutout; solarize inverts
all levels, there none at this magnitude; translations by 72 pixels, there 100). The paper reaches 78.8 %. Not run here.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet_rs50", dropout=0.25),
        data=DataConfig(source="imagenet2012", eval_split="validation", image_size=160, batch_size=4096),
        augment=AugmentConfig(random_resized_crop=True, flip=True, policy="randaugment", policy_magnitude=30),
        train=TrainConfig(epochs=350, ema=0.9999),
        optimizer=OptimizerConfig(base_lr=0.1, weight_decay=4e-5, warmup_epochs=5),
        loss=LossConfig(label_smoothing=0.1),
    )
