"""Your own images in the minutes you have: network, image size, epochs and augmentation are chosen for the time.

    python -m resnet_tf.train --config=auto --set data.source=photos/
    python -m resnet_tf.train --config=auto --set data.source=photos/ --set train.minutes=30

The speed of the machine is measured for some seconds. The log states each choice with its reason, and `config.json`
holds all of them; keys that you set keep their values. The result depends on your images.
"""

from resnet_tf.config import AUTO_SIZE, Config, DataConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(source="photos", image_size=AUTO_SIZE, exif_orientation=True), train=TrainConfig(minutes=10)
    )
