"""Pixel arithmetic: center crop, resizing of random crops, luma, and conversion to uint8."""

import numpy as np
import tensorflow as tf

from resnet_tf.inputs import orientation

# ITU-R BT.601 as in PIL and tf.image, scaled to a sum of exactly 1 so that gray pixels keep their value.
_LUMA = (0.299, 0.587, 0.114)
# Interpolation -> kernel of ScaleAndTranslate.
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
INTERPOLATIONS = tuple(_KERNELS)
_RADII = {"bilinear": 1.0, "bicubic": 2.0}  # of the kernels, in pixels


def center_crop(
    image: tf.Tensor,
    size: tuple[int, int],
    *,
    crop_fraction: float,
    interpolation: str,
    antialias: bool,
    rotation: tf.Tensor | None = None,
) -> tf.Tensor:
    """Resize an image, with its aspect ratio, until it covers `size / crop_fraction`, and crop the center.

    Only pixels inside the crop are computed, from uint8, and only they are rotated. Their values are those of a resize
    of the complete upright image followed by a crop, with sizes rounded as in torchvision and timm.

    Args:
        image: as stored, uint8 [h, w, 3].
        size: (height, width) of the crop, in pixels.
        crop_fraction: size of the crop as a fraction of the resized image, in (0, 1], on the axis where the image is
            the shorter one relative to the crop.
        interpolation: one of `INTERPOLATIONS`.
        antialias: widen the kernel when the image is reduced.
        rotation: EXIF orientation of the image, int32 scalar; None for an upright image.

    Returns:
        float32 [height, width, 3] in [0, 1].
    """
    stored = tf.shape(image)[:2]
    shape = stored if rotation is None else orientation.upright_shape(stored, rotation)
    shape = tf.cast(shape, tf.float64)
    resized = _resized_shape(shape, size, crop_fraction)
    crop_size = tf.constant(size, tf.float64)
    offset = tf.round((resized - crop_size) / 2)
    scale = resized / shape
    if rotation is not None:
        offset, crop_size = orientation.stored_window(resized, offset, crop_size, rotation)
        scale = orientation.upright_shape(scale, rotation)
    radius = _RADII[interpolation] * (tf.maximum(1 / scale, 1) if antialias else tf.ones_like(scale))
    part, start = _columns(image, (offset[1] / scale[1]) - radius[1], (offset[1] + crop_size[1]) / scale[1] + radius[1])
    crop = tf.raw_ops.ScaleAndTranslate(
        images=part[tf.newaxis],
        size=tf.cast(crop_size, tf.int32),
        scale=tf.cast(scale, tf.float32),
        translation=tf.cast(tf.stack([0.0, start]) * scale - offset, tf.float32),
        kernel_type=_KERNELS[interpolation],
        antialias=antialias,
    )[0]
    if rotation is not None:
        crop = tf.ensure_shape(orientation.rotate(crop, rotation), (*size, 3))
    return tf.clip_by_value(crop / 255.0, 0.0, 1.0)  # a cubic kernel overshoots


def _resized_shape(shape: tf.Tensor, size: tuple[int, int], crop_fraction: float) -> tf.Tensor:
    """Return the (height, width) to which `center_crop` resizes an image of a shape, both float64 [2]."""
    if size[0] == size[1]:  # as torchvision's Resize
        return tf.floor(shape * resized_edge(size, crop_fraction) / tf.reduce_min(shape) + 1e-4)
    covered = tf.constant(covered_shape(size, crop_fraction), tf.float64)
    return tf.round(shape / tf.reduce_min(shape / covered))  # as timm's ResizeKeepRatio


def resized_edge(size: tuple[int, int], crop_fraction: float) -> float:
    """Return the shorter edge, in whole pixels, to which `center_crop` resizes an image for a square crop."""
    return float(np.rint(min(size) / crop_fraction))


def covered_shape(size: tuple[int, int], crop_fraction: float) -> tuple[float, float]:
    """Return the (height, width), in whole pixels, that a resized image covers for a crop that is not square."""
    height, width = (float(np.floor(length / crop_fraction)) for length in size)  # as timm
    return height, width


def _columns(image: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the columns between two positions, uint8 [h, n, 3], and the index of the first one, float64.

    ScaleAndTranslate resizes rows before columns: its intermediate result has all columns, in float32. They are copied
    only from an image that is more than twice as wide as high, which bounds the memory for both.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    is_wide = width > 2 * height
    first = tf.where(is_wide, tf.maximum(tf.cast(tf.floor(first), tf.int32) - 1, 0), 0)
    last = tf.where(is_wide, tf.minimum(tf.cast(tf.math.ceil(last), tf.int32) + 1, width), width)
    return tf.slice(image, tf.stack([0, first, 0]), tf.stack([height, last - first, 3])), tf.cast(first, tf.float64)


def resize_window(window: tf.Tensor, size: tuple[int, int], *, interpolation: str, antialias: bool) -> tf.Tensor:
    """Resize a window, uint8 [h, w, 3] of less than twice the size, to uint8 [height, width, 3].

    Args:
        window: pixels that the decoder has already scaled down to less than twice `size`.
        size: (height, width) of the result, in pixels.
        interpolation: one of `INTERPOLATIONS`.
        antialias: widen the kernel when the window is reduced.
    """
    if antialias:
        resized = tf.constant(size) / tf.shape(window)[:2]
        crop = tf.raw_ops.ScaleAndTranslate(
            images=window[tf.newaxis],
            size=size,
            scale=tf.cast(resized, tf.float32),
            translation=[0.0, 0.0],
            kernel_type=_KERNELS[interpolation],
            antialias=True,
        )[0]
    else:
        # A reduction by less than two hardly aliases, and antialiasing would double the time.
        resize = {"bilinear": tf.raw_ops.ResizeBilinear, "bicubic": tf.raw_ops.ResizeBicubic}[interpolation]
        crop = resize(images=window[tf.newaxis], size=size, half_pixel_centers=True)[0]
    if interpolation == "bicubic":
        crop = tf.clip_by_value(crop, 0.0, 255.0)  # a cubic kernel overshoots
    return tf.cast(crop + 0.5, tf.uint8)


def luma(images: tf.Tensor) -> tf.Tensor:
    """Return the luma, float32 [..., 1], of RGB values, float32 [..., 3]."""
    return tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Quantize values in [0, 1] to the nearest of 256 levels, uint8."""
    return tf.cast(tf.round(pixels * 255.0), tf.uint8)
