"""Augmentation with stateless operations: what happens to an image follows from the seed and its place in the run.

Images are float32 [B, H, W, C] in [0, 1]; `numbers` are uniform in [0, 1), one row an image and one column a use.
"""

import math

import tensorflow as tf

from resnet_tf.config import AugmentConfig
from resnet_tf.data.preprocess import resize_window
from resnet_tf.spec import Preprocess

# Each use has its own column, so that turning one operation on or off leaves the others as they were.
_COLUMNS = ("flip", "pad_row", "pad_column", "angle", "zoom", "shift_row", "shift_column")


def random_numbers(seed: int, examples: tf.Tensor) -> tf.Tensor:
    """Uniform numbers for the images at places `examples` (int64 [B]) of the run, float32 [B, uses]."""

    def one(example: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([len(_COLUMNS)], seed=example_seed(seed, example))

    return tf.map_fn(one, examples, fn_output_signature=tf.TensorSpec([len(_COLUMNS)], tf.float32))


def example_seed(seed: int, example: tf.Tensor) -> tf.Tensor:
    """The seed, int64 [2], of the image at place `example` of the run."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(example, tf.int64)])


def augment_batch(images: tf.Tensor, numbers: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Apply what `config` asks for to a batch, in a fixed order."""
    uniform = dict(zip(_COLUMNS, tf.unstack(numbers, axis=1), strict=True))
    if config.shift or config.scale or config.rotation:
        images = random_affine(images, uniform, config)
    if config.pad_crop:
        images = pad_and_crop(images, uniform, config.pad_crop)
    if config.flip:
        mirrored = tf.reverse(images, axis=[2])
        images = tf.where(uniform["flip"][:, None, None, None] < 0.5, mirrored, images)
    return images


def random_affine(images: tf.Tensor, uniform: dict[str, tf.Tensor], config: AugmentConfig) -> tf.Tensor:
    """Turn, zoom and move about the centre, bilinearly; what comes in from outside is 0."""
    angle, zoom, shift_row, shift_column = (
        (2.0 * uniform[name] - 1.0) * amount
        for name, amount in (
            ("angle", math.radians(config.rotation)),
            ("zoom", config.scale),
            ("shift_row", config.shift),
            ("shift_column", config.shift),
        )
    )
    height, width = images.shape[1:3]
    row, column = (height - 1) / 2, (width - 1) / 2
    cosine, sine, zero = tf.cos(angle) * tf.exp(-zoom), tf.sin(angle) * tf.exp(-zoom), tf.zeros_like(angle)
    # The operation wants, for each output pixel (x, y), the input pixel (a x + b y + c, d x + e y + f).
    c = column - cosine * column + sine * row - shift_column
    f = row - sine * column - cosine * row - shift_row
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([cosine, -sine, c, sine, cosine, f, zero, zero], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def pad_and_crop(images: tf.Tensor, uniform: dict[str, tf.Tensor], padding: int) -> tf.Tensor:
    """Pad every side with `padding` black pixels and crop the old size at a random place."""
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    top, left = (tf.cast(uniform[name] * (2 * padding + 1), tf.int32)[:, None] for name in ("pad_row", "pad_column"))
    rows = tf.gather(padded, top + tf.range(height), axis=1, batch_dims=1)
    columns = tf.gather(tf.transpose(rows, [0, 2, 1, 3]), left + tf.range(width), axis=1, batch_dims=1)
    return tf.transpose(columns, [0, 2, 1, 3])


def random_resized_crop(image: tf.Tensor, spec: Preprocess, *, seed: int, example: tf.Tensor) -> tf.Tensor:
    """A random 8 to 100 % of the area at an aspect ratio of 3/4 to 4/3, resized (Szegedy et al. 2015).

    Takes uint8 [h, w, 3] and returns float32 [height, width, 3] in [0, 1].
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.zeros([1, 0, 4]),
        seed=example_seed(seed, example),
        min_object_covered=0.0,
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.slice(image, begin, size)
    scale = tf.constant(spec.size, tf.float32) / tf.cast(tf.shape(window)[:2], tf.float32)
    return resize_window(window, spec, scale=scale, offset=tf.zeros([2]))
