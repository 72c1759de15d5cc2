"""Arithmetic of pixels: central and random crops, resizing, luma, and conversion to 256 levels."""

import tensorflow as tf

# ITU-R BT.601, as PIL and tf.image have it, but summing to exactly 1 so that gray stays gray.
_LUMA = (0.299, 0.587, 0.114)
# Interpolation -> kernel of ScaleAndTranslate.
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
INTERPOLATIONS = tuple(_KERNELS)


def center_crop(
    image: tf.Tensor, size: tuple[int, int], *, crop_fraction: float, interpolation: str, antialias: bool
) -> tf.Tensor:
    """Resize the shorter side to `size / crop_fraction` and cut out the center.

    Takes uint8 [h, w, 3] and returns float32 [height, width, 3] in [0, 1]. Only the pixels inside the crop are
    computed; the numbers are those of a whole resize followed by a crop, sizes rounded as in torchvision's Resize.
    """
    shape = tf.shape(image)[:2]
    shorter = tf.round(tf.constant(min(size), tf.float32) / crop_fraction)
    resized = tf.floor(tf.cast(shape, tf.float32) * shorter / tf.cast(tf.reduce_min(shape), tf.float32) + 1e-4)
    resized = tf.maximum(resized, tf.constant(size, tf.float32))
    offset = tf.round((resized - tf.constant(size, tf.float32)) / 2)
    crop = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[tf.newaxis] / 255.0,
        size=size,
        scale=resized / tf.cast(shape, tf.float32),
        translation=-offset,
        kernel_type=_KERNELS[interpolation],
        antialias=antialias,
    )[0]
    return tf.clip_by_value(crop, 0.0, 1.0)  # a cubic kernel overshoots


def resize_window(window: tf.Tensor, size: tuple[int, int], *, interpolation: str, antialias: bool) -> tf.Tensor:
    """Resize uint8 [h, w, 3], already scaled to less than twice the size, to uint8 [height, width, 3]."""
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
        # The remaining reduction is too small to need antialiasing, which would double the time.
        resize = {"bilinear": tf.raw_ops.ResizeBilinear, "bicubic": tf.raw_ops.ResizeBicubic}[interpolation]
        crop = resize(images=window[tf.newaxis], size=size, half_pixel_centers=True)[0]
    if interpolation == "bicubic":
        crop = tf.clip_by_value(crop, 0.0, 255.0)  # a cubic kernel overshoots
    return tf.cast(crop + 0.5, tf.uint8)


def luma(images: tf.Tensor) -> tf.Tensor:
    """Return the brightness of RGB float32 [..., 3], [..., 1]."""
    return tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Return the nearest of 256 levels, uint8, for values in [0, 1]."""
    return tf.cast(tf.round(pixels * 255.0), tf.uint8)
