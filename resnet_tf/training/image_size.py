"""Image size from the data: `data.image_size=auto`, without enlarging images unless pretrained weights need it."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_tf.config import AUTO_SIZE, Config, override
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import holds_weights
from resnet_tf.core.paths import user_path
from resnet_tf.data.sources import Source
from resnet_tf.data.sources.base import sample_sizes
from resnet_tf.inputs import Preprocess, input_type
from resnet_tf.model.options import STEM_STRIDES
from resnet_tf.model.weights import readers
from resnet_tf.model.weights.published import find_pretrained
from resnet_tf.model.zoo import get_arch

logger = logging.getLogger(__name__)

USUAL = 224  # training size of ImageNet networks, and the largest that is chosen
_CIFAR = 32  # training size of networks for CIFAR
SMALL = 64  # largest size of images that a stem without downsampling is for
_SMALLEST_FOR_WEIGHTS = 128  # the stem of ImageNet networks divides height and width by four


@dataclass(frozen=True)
class SizeChoice:
    """Settings for the size of the images, with the reason.

    Attributes:
        size: height and width of the model input, in pixels.
        is_small: whether the images are small, so that the stem does not downsample, and evaluation crops nothing.
        reason: for the log.
    """

    size: int
    is_small: bool
    reason: str


def choose_size(median: int, trained_size: int) -> SizeChoice:
    """Choose the size of the model input.

    Without pretrained weights it is at most that of the images, in steps of 32 pixels (4 below 64), up to 224. With
    weights it is at most their training size; images below 128 pixels are enlarged for weights of ImageNet.

    Args:
        median: median of the shorter edge of the images, in pixels.
        trained_size: size that the weights were trained at, in pixels; 0 without weights.
    """
    images = f"the images have {median:,} pixels (median of the shorter edge)"
    if trained_size:
        size = min(max(_SMALLEST_FOR_WEIGHTS, math.ceil(median / 32) * 32), trained_size)
        return SizeChoice(size, False, f"{images}, and the weights were trained at {trained_size}")
    size = max(median // 4 * 4, 4) if median < SMALL else min(median // 32 * 32, USUAL)
    return SizeChoice(size, size <= SMALL, images)


def resolve_size(config: Config, source: Source) -> Config:
    """Return the configuration with `data.image_size=auto` replaced by a size, and the stem and the crop that follow.

    For small images without weights, `model.stem` is `small` and `data.crop_fraction` is 1, unless they were set.
    """
    if config.data.image_size != AUTO_SIZE:
        return config
    if not input_type(config.data).is_resized:
        return without_data(config)
    choice = choose_size(median_size(source), trained_size(config))
    values: dict[str, Any] = {"data.image_size": choice.size}
    if choice.is_small:
        values |= {"data.crop_fraction": 1.0} | ({"model.stem": "small"} if downsamples(config.model.name) else {})
    settings = {key: value for key, value in values.items() if key in size_keys(config)}
    chosen = ", ".join(f"{key}={value}" for key, value in settings.items())
    logger.info("data.image_size=auto: %s, since %s", chosen, choice.reason)
    return override(config, settings)


def size_keys(config: Config) -> list[str]:
    """Return the settings that follow from the size of the images: those of `data.image_size=auto` that are not set."""
    if config.data.image_size != AUTO_SIZE:
        return []
    others = ("model.stem", "data.crop_fraction")
    return ["data.image_size", *(key for key in others if key not in config.explicit)]


def without_data(config: Config) -> Config:
    """Return the configuration with the usual size in place of `data.image_size=auto`, where no data are read.

    Raises:
        UserError: if `train.minutes` chooses the network from the data.
    """
    if config.train.minutes and "model.name" not in config.explicit:
        raise UserError(
            f"train.minutes={config.train.minutes:g} chooses the network from the data, which are not read here; "
            "set model.name"
        )
    return override(config, {"data.image_size": USUAL}) if config.data.image_size == AUTO_SIZE else config


def median_size(source: Source) -> int:
    """Return the median of the shorter edge of training images by their headers, in pixels; 224 if none is readable."""
    sizes = sample_sizes(source.train)
    return int(np.median(sizes.min(axis=1))) if len(sizes) else USUAL


def describe_enlargement(config: Config, source: Source) -> str:
    """Return a warning if the images are enlarged several times without need; otherwise nothing."""
    if not input_type(config.data).is_resized:
        return ""
    median, size = median_size(source), config.data.image_size
    choice = choose_size(median, trained_size(config))
    if size < 2 * median or choice.size >= size:
        return ""
    return (
        f"data.image_size={size} enlarges images of {median:,} pixels (median of the shorter edge): "
        f"{(size / choice.size) ** 2:,.0f} times the work of {choice.size} pixels, which data.image_size=auto chooses"
    )


def trained_size(config: Config) -> int:
    """Return the size that `model.weights` were trained at, in pixels; 0 without weights.

    If it is unknown, it is 32 for a stem that does not downsample, as those of CIFAR, and 224 for others.
    """
    weights = config.model.weights
    if not weights:
        return 0
    path, preprocess = user_path(weights), None
    if holds_weights(path):
        fields = readers.read(path).metadata.get("preprocess")
        preprocess = Preprocess.from_dict(fields) if fields else None
    elif name := find_pretrained(config.model.name, weights):
        preprocess = name.inputs[0]
    if preprocess:
        return min(preprocess.spatial_shape)
    return USUAL if downsamples(config.model.name, config.model.stem) else _CIFAR


def downsamples(network: str, stem: str = "") -> bool:
    """Return True for a network whose stem divides the height and width of images.

    Args:
        network: name of the network.
        stem: value of `model.stem`; empty for the network's own.
    """
    arch = get_arch(network)
    return arch.dimensions == 2 and STEM_STRIDES.get(stem or arch.stem, 1) > 1
