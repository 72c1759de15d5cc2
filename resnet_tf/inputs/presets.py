"""Preprocessing of published weights.

Sources: torchvision's presets, keras.applications' `preprocess_input`, timm's configurations, and the training script
of akamaster/pytorch_resnet_cifar10.
"""

from resnet_tf.inputs.images import ImagePreprocess

TORCHVISION = ImagePreprocess(size=(224, 224))
TIMM = ImagePreprocess(size=(224, 224), interpolation="bicubic")
TIMM_BIT = ImagePreprocess(size=(448, 448), crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
KERAS_V1 = ImagePreprocess(
    size=(224, 224),
    mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),
    std=(1 / 255,) * 3,
    channel_order="bgr",
)
KERAS_V2 = ImagePreprocess(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
CIFAR = ImagePreprocess(size=(32, 32), crop_fraction=1.0)
