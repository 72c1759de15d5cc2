"""The picture operations of AutoAugment and its successors, as PIL computes them, on batches.

Each is a map of the plane, a table from old to new levels, or a blend with a degenerate picture. It takes and gives
uint8 [B, H, W, C] with C of 1 or 3; magnitudes, float32 [B], mean what they mean to PIL.

Reference: Cubuk et al., AutoAugment, 2018, table 6, in the units of torchvision's `transforms.autoaugment`, with
nearest neighbors and black outside.
"""

import math
from collections.abc import Callable

import tensorflow as tf

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
_LEVELS = 256


def apply(images: tf.Tensor, operations: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
    """Apply to each picture an operation of its own: `operations` are int32 [B], places in `NAMES`."""
    functions = list(OPERATIONS.values())
    if images.shape[0] == 1:
        branches = [lambda function=function: function(images, magnitudes) for function in functions]
        return tf.ensure_shape(tf.switch_case(operations[0], branches), images.shape)
    values = (images, magnitudes, tf.range(tf.shape(images)[0]))
    groups = [tf.dynamic_partition(value, operations, len(functions)) for value in values]
    results = [function(*group) for function, *group in zip(functions, *groups[:2], strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(groups[2], results), images.shape)


def _map(coefficients: Callable[[tf.Tensor, tuple[float, float]], dict[str, tf.Tensor]]) -> Operation:
    """For each output pixel with its center at (x, y), the input pixel at (a x + b y + c, d x + e y + f)."""

    def operation(images: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
        height, width = images.shape[1:3]
        zero, one = tf.zeros_like(magnitudes), tf.ones_like(magnitudes)
        given = {"a": one, "b": zero, "c": zero, "d": zero, "e": one, "f": zero}
        given |= coefficients(magnitudes, (height / 2.0, width / 2.0))
        a, b, c, d, e, f = given.values()
        # The kernel counts from the corner pixel's center, PIL from its corner, and one rounds where the other floors.
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
    """By `m` degrees against the clock about the center."""
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


def _table(levels_of: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]) -> Operation:
    """Every level through a table [B, C, 256], or one that broadcasts to it."""

    def operation(images: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
        batch, channels = tf.shape(images)[0], images.shape[-1]
        levels = tf.range(_LEVELS, dtype=tf.float32)[None, None, :]
        tables = levels_of(images, magnitudes[:, None, None], levels)
        flat = tf.reshape(tf.broadcast_to(_to_bytes(tables), [batch, channels, _LEVELS]), [-1])
        offsets = tf.range(batch * channels) * _LEVELS
        return tf.gather(flat, tf.cast(images, tf.int32) + tf.reshape(offsets, [batch, 1, 1, channels]))

    return operation


def _contrast(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """About the mean gray, rounded."""
    mean = tf.floor(tf.reduce_mean(tf.cast(_luma(images), tf.float32), axis=[1, 2, 3]) + 0.5)[:, None, None]
    return mean + (1.0 + m) * (levels - mean)


def _posterize(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """`m` bits are kept."""
    del images
    step = tf.pow(2.0, 8.0 - _truncate(m))
    return tf.floor(levels / step) * step


def _autocontrast(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """The darkest level of each channel becomes 0, the brightest 255."""
    del m
    low, high = (
        tf.cast(reduce(images, axis=[1, 2])[:, :, None], tf.float64) for reduce in (tf.reduce_min, tf.reduce_max)
    )
    # Where the brightest level becomes 254.999... in double precision, PIL cuts it to 254, and so does this.
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = tf.floor(tf.cast(levels, tf.float64) * scale - low * scale)
    return tf.where(high > low, tf.cast(stretched, tf.float32), levels)


def _equalize(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Every level about equally often, channel by channel."""
    del m, levels
    height, width, channels = images.shape[1:]
    values = tf.reshape(tf.transpose(tf.cast(images, tf.int32), [0, 3, 1, 2]), [-1, height * width])
    rows = tf.range(tf.shape(values)[0])[:, None]
    counts = tf.math.bincount(tf.reshape(values + rows * _LEVELS, [-1]), minlength=tf.size(rows) * _LEVELS)
    counts = tf.reshape(counts, [-1, _LEVELS])
    last = tf.gather(counts, tf.reduce_max(values, axis=1, keepdims=True), batch_dims=1)
    step = (height * width - last) // 255
    table = (step // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // tf.maximum(step, 1)
    table = tf.where(step > 0, table, tf.range(_LEVELS)[None, :])
    return tf.cast(tf.reshape(table, [-1, channels, _LEVELS]), tf.float32)


def _blend(degenerate_of: Callable[[tf.Tensor], tf.Tensor]) -> Operation:
    """Away from a degenerate picture, or beyond it."""

    def operation(images: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
        values, degenerate = tf.cast(images, tf.float32), degenerate_of(images)
        return _to_bytes(degenerate + (1.0 + magnitudes)[:, None, None, None] * (values - degenerate))

    return operation


def _smooth(images: tf.Tensor) -> tf.Tensor:
    """PIL's SMOOTH filter (ones about a 5, over 13), rounded; the border stays as it is. float32."""
    values = tf.cast(images, tf.float32)
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = tf.floor((box + 4.0 * values[:, 1:-1, 1:-1]) / 13.0 + 0.5)
    middle = tf.concat([values[:, 1:-1, :1], inner, values[:, 1:-1, -1:]], axis=2)
    return tf.concat([values[:, :1], middle, values[:, -1:]], axis=1)


def _luma(images: tf.Tensor) -> tf.Tensor:
    """Gray levels int32 [B, H, W, 1], rounded as PIL converts RGB to L."""
    levels = tf.cast(images, tf.int32)
    if images.shape[-1] == 1:
        return levels
    red, green, blue = tf.split(levels, 3, axis=-1)
    return tf.bitwise.right_shift(19595 * red + 38470 * green + 7471 * blue + 0x8000, 16)


def _truncate(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.int32), values.dtype)


def _to_bytes(values: tf.Tensor) -> tf.Tensor:
    """As PIL stores what it computes: clipped, then cut to whole levels."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda images, magnitudes: images,
    "ShearX": _map(lambda m, center: {"b": m}),
    "ShearY": _map(lambda m, center: {"d": m}),
    # Whole pixels, as torchvision moves.
    "TranslateX": _map(lambda m, center: {"c": -_truncate(m)}),
    "TranslateY": _map(lambda m, center: {"f": -_truncate(m)}),
    "Rotate": _map(_rotation),
    "Brightness": _table(lambda images, m, levels: (1.0 + m) * levels),
    "Color": _blend(lambda images: tf.cast(_luma(images), tf.float32)),
    "Contrast": _table(_contrast),
    "Sharpness": _blend(_smooth),
    "Posterize": _table(_posterize),
    "Solarize": _table(lambda images, m, levels: tf.where(levels < m, levels, 255.0 - levels)),
    "AutoContrast": _table(_autocontrast),
    "Equalize": _table(_equalize),
    "Invert": _table(lambda images, m, levels: 255.0 - levels),
}
NAMES = tuple(OPERATIONS)
