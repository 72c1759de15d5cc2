"""Input types: preprocessing of images, signals, stacks of bands, and registered types."""

from resnet_tf.inputs.arrays import ArrayPreprocess
from resnet_tf.inputs.bands import BandsPreprocess
from resnet_tf.inputs.base import (
    ChooseWindow,
    Preprocess,
    ServingInput,
    UnreadableError,
    create_preprocess,
    default_preprocess,
    find_origin,
    import_origin,
    input_type,
    register_input_type,
)
from resnet_tf.inputs.images import ImagePreprocess
from resnet_tf.inputs.pil import is_pil_image
from resnet_tf.inputs.signals import SignalPreprocess

__all__ = [
    "ArrayPreprocess",
    "BandsPreprocess",
    "ChooseWindow",
    "ImagePreprocess",
    "Preprocess",
    "ServingInput",
    "SignalPreprocess",
    "UnreadableError",
    "create_preprocess",
    "default_preprocess",
    "find_origin",
    "import_origin",
    "input_type",
    "is_pil_image",
    "register_input_type",
]
