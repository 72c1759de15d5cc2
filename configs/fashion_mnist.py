"""Fashion-MNIST with ResNet-20: the network, batch and decay of Zhong et al. 2017 in a fifth of their epochs.

    python -m resnet_tf.train --config=fashion_mnist --workdir=runs/fashion
    python -m resnet_tf.evaluate --workdir=runs/fashion --flip

For a folder of the four IDX files instead of TFDS, add --set data.source=fashion-mnist/ to the first.

The paper trains 300 epochs with a step schedule: 95.61 % with flips and crops of 4 pixels, 95.98 % with random erasing.
One cycle (Smith and Topin 2017) and averaged weights need fewer epochs, for which weaker augmentation is better: flips
in every other epoch (Jordan 2024), crops of 2 pixels, no erasing. Logits are averaged over each image and its mirror
image, as in Jordan 2024.
"""

from resnet_tf.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model=ModelConfig(name="resnet20"),
        data=DataConfig(
            source="fashion_mnist",
            image_size=28,
            channels=1,
            mean=(0.2860,),
            std=(0.3530,),
            crop_fraction=1.0,
            batch_size=128,
        ),
        augment=AugmentConfig(alternating_flip=True, pad_crop=2),
        train=TrainConfig(epochs=56, ema=0.999, eval_every=4),
        optimizer=OptimizerConfig(base_lr=0.2, schedule="one_cycle", nesterov=True, weight_decay=5e-4, decay_all=True),
    )
