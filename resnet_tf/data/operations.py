"""The picture operations of AutoAugment and its successors, as PIL computes them, on batches.

Each is one of three things: a map of the plane, a table from old to new levels, or a blend with a degenerate picture.
So a batch in which every picture has an operation of its own takes one warp, one lookup and one blend.

Images are uint8 [B, H, W, C] with C of 1 or 3; `operations` are int32 [B], places in `OPERATIONS`; `magnitudes` float32
[B] mean what they mean to PIL. Reference: Cubuk et al., AutoAugment, 2018, table 6, in the units of torchvision's
`transforms.autoaugment`, with nearest neighbours and black outside.
"""

from collections.abc import Callable

import tensorflow as tf

OPERATIONS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert"),
)
_LEVELS = 256


def apply(images: tf.Tensor, operations: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
    """Apply to each picture its own operation; uint8 in and out."""
    for names, function in ((_MAPS, _warp), (_TABLES, _look_up), (_BLENDS, _blend)):
        places = tf.constant([OPERATIONS.index(name) for name in names])
        wanted = tf.reduce_any(operations[:, None] == places)
        images = tf.cond(
            wanted,
            lambda images=images, function=function: function(images, operations, magnitudes),
            lambda images=images: images,
        )
    return images


def luma(images: tf.Tensor) -> tf.Tensor:
    """Grey levels int32 [B, H, W, 1], rounded as PIL converts RGB to L."""
    levels = tf.cast(images, tf.int32)
    if images.shape[-1] == 1:
        return levels
    weights = tf.constant([19595, 38470, 7471])
    return tf.bitwise.right_shift(tf.reduce_sum(levels * weights, axis=-1, keepdims=True) + 0x8000, 16)


def _choose(operations: tf.Tensor, name: str, value: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
    """`value` for the pictures whose operation has this name."""
    chosen = operations == OPERATIONS.index(name)
    return tf.where(tf.reshape(chosen, [-1] + [1] * (otherwise.shape.rank - 1)), value, otherwise)


def _warp(images: tf.Tensor, operations: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
    """For each output pixel with its centre at (x, y), the input pixel at (a x + b y + c, d x + e y + f)."""
    height, width = images.shape[1:3]
    zero, one = tf.zeros_like(magnitudes), tf.ones_like(magnitudes)
    rows = tf.stack([one, zero, zero, zero, one, zero], axis=1)
    for name, coefficients in _MAPS.items():
        values = coefficients(magnitudes, zero, one, float(height), float(width))
        rows = _choose(operations, name, tf.stack(values, axis=1), rows)
    a, b, c, d, e, f = tf.unstack(rows, axis=1)
    # The operation counts from the corner pixel's centre, PIL from its corner, and one rounds where the other floors.
    c, f = c + (a + b - 1.0) / 2.0, f + (d + e - 1.0) / 2.0
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, c, d, e, f, zero, zero], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(warped, images.shape)


def _rotation(m: tf.Tensor, zero: tf.Tensor, one: tf.Tensor, height: float, width: float) -> list[tf.Tensor]:
    """By `m` degrees against the clock about the centre."""
    del zero, one
    angle = m * (3.141592653589793 / 180.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    row, column = height / 2.0, width / 2.0
    return [
        cosine,
        -sine,
        column - cosine * column + sine * row,
        sine,
        cosine,
        row - sine * column - cosine * row,
    ]


_MAPS: dict[str, Callable] = {
    "ShearX": lambda m, zero, one, height, width: [one, m, zero, zero, one, zero],
    "ShearY": lambda m, zero, one, height, width: [one, zero, zero, m, one, zero],
    # Whole pixels, as torchvision moves.
    "TranslateX": lambda m, zero, one, height, width: [one, zero, -_truncate(m), zero, one, zero],
    "TranslateY": lambda m, zero, one, height, width: [one, zero, zero, zero, one, -_truncate(m)],
    "Rotate": _rotation,
}


def _truncate(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.int32), values.dtype)


def _look_up(images: tf.Tensor, operations: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
    """Every level through a table of its picture and channel."""
    batch, channels = tf.shape(images)[0], images.shape[-1]
    levels = tf.range(_LEVELS, dtype=tf.float32)[None, None, :]
    unchanged = tf.tile(levels, [batch, channels, 1])
    tables = unchanged
    for name, table in _TABLES.items():
        values = tf.cond(
            tf.reduce_any(operations == OPERATIONS.index(name)),
            lambda table=table: tf.broadcast_to(table(images, magnitudes[:, None, None], levels), tf.shape(unchanged)),
            lambda: unchanged,
        )
        tables = _choose(operations, name, values, tables)
    flat = tf.reshape(_to_bytes(tables), [-1])
    offsets = tf.range(batch * channels) * _LEVELS
    return tf.gather(flat, tf.cast(images, tf.int32) + tf.reshape(offsets, [batch, 1, 1, channels]))


def _to_bytes(values: tf.Tensor) -> tf.Tensor:
    """As PIL stores what it computes: clipped, then cut to whole levels."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


def _contrast(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """About the mean grey, rounded."""
    mean = tf.reduce_mean(tf.cast(luma(images), tf.float32), axis=[1, 2, 3])
    mean = tf.floor(mean + 0.5)[:, None, None]
    return mean + (1.0 + m) * (levels - mean)


def _posterize(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """`m` bits are kept."""
    del images
    step = tf.pow(2.0, 8.0 - _truncate(m))
    return tf.floor(levels / step) * step


def _autocontrast(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """The darkest level of each channel becomes 0, the brightest 255."""
    del m
    values = tf.cast(images, tf.float64)
    low, high = (reduce(values, axis=[1, 2])[:, :, None] for reduce in (tf.reduce_min, tf.reduce_max))
    # Where the brightest level becomes 254.999... in double precision, PIL cuts it to 254, and so does this.
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = tf.floor(tf.cast(levels, tf.float64) * scale - low * scale)
    return tf.where(high > low, tf.cast(stretched, tf.float32), levels)


def _equalize(images: tf.Tensor, m: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Every level about equally often, channel by channel."""
    del m
    height, width, channels = images.shape[1:]
    values = tf.reshape(tf.transpose(tf.cast(images, tf.int32), [0, 3, 1, 2]), [-1, height * width])
    counts = tf.math.bincount(values, minlength=_LEVELS, maxlength=_LEVELS, axis=-1)
    brightest = tf.reduce_max(values, axis=1, keepdims=True)
    last = tf.gather(counts, brightest, batch_dims=1)
    step = (height * width - last) // 255
    table = (step // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // tf.maximum(step, 1)
    table = tf.where(step > 0, table, tf.range(_LEVELS)[None, :])
    return tf.cast(tf.reshape(table, [-1, channels, _LEVELS]), tf.float32)


_TABLES: dict[str, Callable] = {
    "Brightness": lambda images, m, levels: (1.0 + m) * levels,
    "Contrast": _contrast,
    "Posterize": _posterize,
    "Solarize": lambda images, m, levels: tf.where(levels < m, levels, 255.0 - levels),
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Invert": lambda images, m, levels: 255.0 - levels,
}


def _smooth(images: tf.Tensor) -> tf.Tensor:
    """PIL's SMOOTH filter, rounded; the border stays as it is. float32."""
    values = tf.cast(images, tf.float32)
    channels = images.shape[-1]
    kernel = tf.constant([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]])[:, :, None, None]
    inner = tf.nn.depthwise_conv2d(values, tf.tile(kernel, [1, 1, channels, 1]), [1, 1, 1, 1], "VALID") / 13.0
    inner = tf.pad(tf.floor(inner + 0.5), [[0, 0], [1, 1], [1, 1], [0, 0]])
    inside = tf.pad(tf.ones_like(inner[:1, 1:-1, 1:-1, :1], tf.bool), [[0, 0], [1, 1], [1, 1], [0, 0]])
    return tf.where(inside, inner, values)


def _blend(images: tf.Tensor, operations: tf.Tensor, magnitudes: tf.Tensor) -> tf.Tensor:
    """Away from, or beyond, a grey (Color) or a smoothed (Sharpness) picture."""
    values = tf.cast(images, tf.float32)
    degenerate = values
    for name, function in _BLENDS.items():
        degenerate = _choose(operations, name, function(images), degenerate)
    return _to_bytes(degenerate + (1.0 + magnitudes)[:, None, None, None] * (values - degenerate))


_BLENDS: dict[str, Callable] = {
    "Color": lambda images: tf.cast(luma(images), tf.float32),
    "Sharpness": _smooth,
}
