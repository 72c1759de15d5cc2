"""Pixel arithmetic: center crop, resizing of random crops, luma, and conversion to uint8."""

import tensorflow as tf

# ITU-R BT.601 as in PIL and tf.image, scaled to a sum of exactly 1 so that gray pixels keep their value.
_LUMA = (0.299, 0.587, 0.114)
# Interpolation -> kernel of ScaleAndTranslate.
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
INTERPOLATIONS = tuple(_KERNELS)


def center_crop(
    image: tf.Tensor, size: tuple[int, int], *, crop_fraction: float, interpolation: str, antialias: bool
) -> tf.Tensor:
    """Resize the shorter edge of an image to `min(size) / crop_fraction` and crop the center.

    Only pixels inside the crop are computed. Their values are those of a resize of the complete image followed by a
    crop, with sizes rounded as in torchvision's `Resize`.

    Args:
        image: uint8 [h, w, 3].
        size: (height, width) of the crop, in pixels.
        crop_fraction: size of the crop as a fraction of the shorter edge after resizing, in (0, 1].
        interpolation: one of `INTERPOLATIONS`.
        antialias: widen the kernel when the image is reduced.

    Returns:
        float32 [height, width, 3] in [0, 1].
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
