"""Image operations of AutoAugment, RandAugment and TrivialAugment on batches, equal to those of PIL.

Each operation is an affine map, a lookup table of gray levels, or a blend with a degenerate image. It takes and returns
uint8 [B, H, W, C], with C of 1 or 3; magnitudes are float32 [B], in the units of torchvision's
`transforms.autoaugment`. Affine maps use nearest-neighbor interpolation and fill with black.

Reference: Cubuk et al., AutoAugment, 2018, table 6.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from resnet_tf.core.native_log import silence_unsupported_types

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
_LEVELS = 256


def apply(images: tf.Tensor, operations: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
    """Apply one operation to each image.

    Args:
        images: uint8 [B, H, W, C], with C of 1 or 3.
        operations: indices in `NAMES`, int32 [B].
        magnitudes: float32 [B].

    Returns:
        uint8 [B, H, W, C].
    """
    functions = list(OPERATIONS.values())
    if images.shape[0] == 1:
        branches = [lambda function=function: function(images, magnitudes) for function in functions]
        return tf.ensure_shape(tf.switch_case(operations[0], branches), images.shape)
    values = (images, magnitudes, tf.range(tf.shape(images)[0]))
    groups = [tf.dynamic_partition(value, operations, len(functions)) for value in values]
    results = [function(*group) for function, *group in zip(functions, *groups[:2], strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(groups[2], results), images.shape)


def _affine(coefficients: Callable[[tf.Tensor, tuple[float, float]], dict[str, tf.Tensor]]) -> Operation:
    """Return an operation that takes output pixel (x, y) from input pixel (a x + b y + c, d x + e y + f).

    `coefficients` maps magnitudes and the center (row, column) to the coefficients that differ from the identity.
    """

    def operation(images: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
        height, width = images.shape[1:3]
        zero, one = tf.zeros_like(magnitudes), tf.ones_like(magnitudes)
        values = {"a": one, "b": zero, "c": zero, "d": zero, "e": one, "f": zero}
        values |= coefficients(magnitudes, (height / 2.0, width / 2.0))
        a, b, c, d, e, f = values.values()
        # The origin is the center of the corner pixel for the kernel, which rounds, and its corner for PIL, which
        # floors.
        c, f = c + (a + b - 1.0) / 2.0, f + (d + e - 1.0) / 2.0
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=tf.stack([a, b, c, d, e, f, zero, zero], axis=1),
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="NEAREST",
            fill_mode="CONSTANT",
        )

    return operation


def _rotation(m: tf.Tensor, center: tuple[float, float]) -> dict[str, tf.Tensor]:
    """Return the coefficients of a counterclockwise rotation by `m` degrees about the center."""
    cosine, sine = tf.cos(m * (math.pi / 180.0)), tf.sin(m * (math.pi / 180.0))
    row, column = center
    return {
        "a": cosine,
        "b": -sine,
        "c": column - cosine * column + sine * row,
        "d": sine,
        "e": cosine,
        "f": row - sine * column - cosine * row,
    }


def _lookup(new_levels: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]) -> Operation:
    """Return an operation that maps each gray level through a table.

    `new_levels(images, magnitudes [B, 1, 1], levels [1, 1, 256])` returns a table that broadcasts to [B, C, 256].
    """

    def operation(images: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
        batch, channels = tf.shape(images)[0], images.shape[-1]
        levels = tf.range(_LEVELS, dtype=tf.float32)[None, None, :]
        tables = new_levels(images, magnitudes[:, None, None], levels)
        flat = tf.reshape(tf.broadcast_to(_to_uint8(tables), [batch, channels, _LEVELS]), [-1])
        offsets = tf.range(batch * channels) * _LEVELS
        return tf.gather(flat, tf.cast(images, tf.int32) + tf.reshape(offsets, [batch, 1, 1, channels]))

    return operation


def _contrast(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Scale levels about the mean of the gray image, rounded, by a factor of 1 + m."""
    mean = tf.floor(tf.reduce_mean(tf.cast(_luma(images), tf.float32), axis=[1, 2, 3]) + 0.5)[:, None, None]
    return mean + (1.0 + m) * (levels - mean)


def _posterize(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Keep the `m` most significant bits."""
    del images
    step = tf.pow(2.0, 8.0 - _truncate(m))
    return tf.floor(levels / step) * step


def _autocontrast(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Stretch the levels of each channel to 0 to 255."""
    del m
    low, high = (
        tf.cast(reduce(images, axis=[1, 2])[:, :, None], tf.float64) for reduce in (tf.reduce_min, tf.reduce_max)
    )
    # In float64, as in PIL: where rounding makes the brightest level 254.999..., both truncate to 254.
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = tf.floor(tf.cast(levels, tf.float64) * scale - low * scale)
    return tf.where(high > low, tf.cast(stretched, tf.float32), levels)


def _equalize(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Equalize the histogram of each channel."""
    del m, levels
    silence_unsupported_types()
    height, width, channels = images.shape[1:]
    values = tf.reshape(tf.transpose(tf.cast(images, tf.int32), [0, 3, 1, 2]), [-1, height * width])
    index = tf.range(tf.shape(values)[0])[:, None]
    counts = tf.math.bincount(tf.reshape(values + index * _LEVELS, [-1]), minlength=tf.size(index) * _LEVELS)
    counts = tf.reshape(counts, [-1, _LEVELS])
    last = tf.gather(counts, tf.reduce_max(values, axis=1, keepdims=True), batch_dims=1)
    step = (height * width - last) // 255
    table = (step // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // tf.maximum(step, 1)
    table = tf.where(step > 0, table, tf.range(_LEVELS)[None, :])
    return tf.cast(tf.reshape(table, [-1, channels, _LEVELS]), tf.float32)


def _blend(degenerate: Callable[[tf.Tensor], tf.Tensor]) -> Operation:
    """Return an operation that scales the difference from a degenerate image by a factor of 1 + m."""

    def operation(images: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
        values, base = tf.cast(images, tf.float32), degenerate(images)
        return _to_uint8(base + (1.0 + magnitudes)[:, None, None, None] * (values - base))

    return operation


def _smooth(images: tf.Tensor) -> tf.Tensor:
    """Apply PIL's SMOOTH filter: a 3x3 box of ones with center 5, divided by 13 and rounded; the border is unchanged.

    Returns float32 [B, H, W, C].
    """
    values = tf.cast(images, tf.float32)
    if min(images.shape[1:3]) < 3:  # border only
        return values
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = tf.floor((box + 4.0 * values[:, 1:-1, 1:-1]) / 13.0 + 0.5)
    middle = tf.concat([values[:, 1:-1, :1], inner, values[:, 1:-1, -1:]], axis=2)
    return tf.concat([values[:, :1], middle, values[:, -1:]], axis=1)


def _luma(images: tf.Tensor) -> tf.Tensor:
    """Convert to gray levels, int32 [B, H, W, 1], rounded as PIL's conversion from RGB to L."""
    levels = tf.cast(images, tf.int32)
    if images.shape[-1] == 1:
        return levels
    red, green, blue = tf.split(levels, 3, axis=-1)
    return tf.bitwise.right_shift(19595 * red + 38470 * green + 7471 * blue + 0x8000, 16)


def _truncate(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.int32), values.dtype)


def _to_uint8(values: tf.Tensor) -> tf.Tensor:
    """Clip to 0 to 255 and truncate, as PIL does."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda images, magnitudes: images,
    "ShearX": _affine(lambda m, center: {"b": m}),
    "ShearY": _affine(lambda m, center: {"d": m}),
    # Whole pixels, as in torchvision.
    "TranslateX": _affine(lambda m, center: {"c": -_truncate(m)}),
    "TranslateY": _affine(lambda m, center: {"f": -_truncate(m)}),
    "Rotate": _affine(_rotation),
    "Brightness": _lookup(lambda images, m, levels: (1.0 + m) * levels),
    "Color": _blend(lambda images: tf.cast(_luma(images), tf.float32)),
    "Contrast": _lookup(_contrast),
    "Sharpness": _blend(_smooth),
    "Posterize": _lookup(_posterize),
    "Solarize": _lookup(lambda images, m, levels: tf.where(levels < m, levels, 255.0 - levels)),
    "AutoContrast": _lookup(_autocontrast),
    "Equalize": _lookup(_equalize),
    "Invert": _lookup(lambda images, m, levels: 255.0 - levels),
}
NAMES = tuple(OPERATIONS)
