"""Augmentation transforms of images and signals; random numbers depend on seed and position in the run only.

All transforms take a batch. `uniform` maps each use of random numbers to float32 [B] in [0, 1).
"""

import math
from collections.abc import Callable, Iterator, Mapping

import tensorflow as tf

from resnet_tf.config import AugmentConfig
from resnet_tf.core.native_log import silence_unsupported_types
from resnet_tf.data.augmentation import operations, policies
from resnet_tf.data.augmentation.policies import Uniform
from resnet_tf.inputs import Preprocess
from resnet_tf.inputs.pixels import luma, to_uint8

# Each use has its own column, so that enabling one operation does not change the random numbers of another.
_COLUMNS = (
    *("flip", "pad_row", "pad_column", "angle", "zoom", "shift_row", "shift_column"),
    *("brightness", "contrast", "saturation", "hue"),
    *("erase", "erase_area", "erase_ratio", "erase_row", "erase_column", "cutout_row", "cutout_column"),
    *policies.COLUMNS,
)
_PHILOX = 1
_CROP_CANDIDATES = 10
# Optional uses have separate streams of random numbers, so that enabling them does not change `_COLUMNS`.
_CROP_STREAM = 1
MIX_STREAM = 2
_FLIP_STREAM = 3


def random_numbers(
    seed: int, first: tf.Tensor, count: tf.Tensor | int, *, uses: int = len(_COLUMNS), stream: int = 0
) -> tf.Tensor:
    """Return uniform random numbers for consecutive examples of a run.

    Reference: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011 (Philox).

    Args:
        seed: seed of the run.
        first: position of the first example in the run, an int64 scalar.
        count: number of examples.
        uses: random numbers of each example.
        stream: number of an independent stream.

    Returns:
        float32 [count, uses] in [0, 1). The numbers of an example do not depend on `first` and `count`.
    """
    counts = -(-uses // 4)  # Philox returns four numbers per counter value; each example has its own
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=[count, 4 * counts],
        key=tf.constant([seed], tf.uint64),
        counter=tf.stack([tf.cast(first * counts, tf.uint64), tf.constant(stream, tf.uint64)]),
        alg=_PHILOX,
    )
    return numbers[:, :uses]


def alternate_flips(seed: int, count: int) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return a function that makes horizontal flips alternate between epochs, for `augment.alternating_flip`.

    A random half of the examples, sampled once per run, is flipped in even epochs, the other half in odd epochs.

    Reference: Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, sec. 3.6.

    Args:
        seed: seed of the run.
        count: number of examples in the split.

    Returns:
        A function of the random numbers of a batch, float32 [B, uses], its indices in the split, int64 [B], and its
        epochs, int64 [B]; it returns the random numbers with the column `flip` replaced.
    """
    even = random_numbers(seed, tf.constant(0, tf.int64), count, uses=1, stream=_FLIP_STREAM)[:, 0] < 0.5

    def alternate(numbers: tf.Tensor, indices: tf.Tensor, epochs: tf.Tensor) -> tf.Tensor:
        flipped = tf.gather(even, indices) == (epochs % 2 == 0)
        return tf.concat([tf.where(flipped, 0.0, 1.0)[:, tf.newaxis], numbers[:, 1:]], axis=1)

    return alternate


class _Columns(Mapping[str, tf.Tensor]):
    """Random numbers by use, sliced on access, because most recipes need few columns."""

    def __init__(self, numbers: tf.Tensor):
        self._numbers = numbers

    def __getitem__(self, use: str) -> tf.Tensor:
        return self._numbers[:, _COLUMNS.index(use)]

    def __iter__(self) -> Iterator[str]:
        return iter(_COLUMNS)

    def __len__(self) -> int:
        return len(_COLUMNS)


def augment_batch(images: tf.Tensor, numbers: tf.Tensor, config: AugmentConfig, preprocess: Preprocess) -> tf.Tensor:
    """Apply the augmentations of `config` to a batch, in a fixed order.

    Args:
        images: `Preprocess.batch_dtype` [B, *input_shape], such as uint8 [B, H, W, C].
        numbers: random numbers of the batch from `random_numbers`, float32 [B, uses].
        config: augmentation settings; `Preprocess.check_config` has rejected settings of other input types.
        preprocess: preprocessing, whose mean fills erased areas.

    Returns:
        A batch of the dtype and shape of `images`.
    """
    uniform = _Columns(numbers)
    if config.pad_crop:
        images = pad_and_crop(images, uniform, config.pad_crop)
    if config.flip or config.alternating_flip:
        images = flip_left_right(images, uniform["flip"] < 0.5)
    if config.policy != "none":
        layers, magnitude = config.policy_layers, config.policy_magnitude
        sampled = policies.sample(config.policy, uniform, images.shape[1:3], layers=layers, magnitude=magnitude)
        for indices, magnitudes in sampled:
            images = operations.apply(images, indices, magnitudes)
    if any((config.shift, config.scale, config.rotation)):
        images = to_uint8(random_affine(tf.cast(images, tf.float32) / 255.0, uniform, config))
    if any((config.brightness, config.contrast, config.saturation, config.hue)):
        images = to_uint8(color_jitter(tf.cast(images, tf.float32) / 255.0, uniform, config))
    if config.erasing or config.cutout:
        color = preprocess.fill_value
    if config.erasing:
        images = random_erasing(images, uniform, config.erasing, color)
    if config.cutout:
        images = cutout(images, uniform, config.cutout, color)
    return images


def color_jitter(pixels: tf.Tensor, uniform: Uniform, config: AugmentConfig) -> tf.Tensor:
    """Jitter brightness, contrast and saturation by factors in [1 - x, 1 + x] and hue by up to x of the color circle.

    The order is fixed; that of torchvision's ColorJitter is random. Saturation and hue do not change gray images.

    Args:
        pixels: float32 [B, H, W, C] in [0, 1], with C of 1 or 3.
        uniform: random numbers by use.
        config: its `brightness`, `contrast`, `saturation` and `hue` apply.

    Returns:
        float32 [B, H, W, C] in [0, 1].
    """

    def factor(name: str) -> tf.Tensor:
        return (1.0 + getattr(config, name) * (2.0 * uniform[name] - 1.0))[:, None, None, None]

    def blended(pixels: tf.Tensor, other: tf.Tensor, name: str) -> tf.Tensor:
        return tf.clip_by_value(other + factor(name) * (pixels - other), 0.0, 1.0)

    colored = pixels.shape[-1] == 3
    if config.brightness:
        pixels = blended(pixels, tf.zeros_like(pixels), "brightness")
    if config.contrast:
        pixels = blended(pixels, tf.reduce_mean(_gray(pixels), axis=[1, 2], keepdims=True), "contrast")
    if config.saturation and colored:
        pixels = blended(pixels, _gray(pixels), "saturation")
    if config.hue and colored:
        hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(pixels), axis=-1)
        rotated = tf.math.floormod(hue + (factor("hue") - 1.0)[..., 0], 1.0)
        pixels = tf.image.hsv_to_rgb(tf.stack([rotated, saturation, value], axis=-1))
    return pixels


def _gray(pixels: tf.Tensor) -> tf.Tensor:
    return pixels if pixels.shape[-1] == 1 else luma(pixels)


def random_erasing(images: tf.Tensor, uniform: Uniform, probability: float, color: tf.Tensor) -> tf.Tensor:
    """Fill a random rectangle with one color: 2 to 33% of the area, at an aspect ratio (height / width) of 0.3 to 3.3.

    Rectangles longer than the image are clipped to it.

    Reference: Zhong et al., Random Erasing Data Augmentation, 2017.

    Args:
        images: uint8 [B, H, W, C].
        uniform: random numbers by use.
        probability: fraction of the images that get a rectangle.
        color: fill value of each channel, uint8 [C].

    Returns:
        uint8 [B, H, W, C].
    """
    height, width = images.shape[1:3]
    area = height * width * (0.02 + (0.33 - 0.02) * uniform["erase_area"])
    ratio = tf.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * uniform["erase_ratio"])
    rows = tf.minimum(tf.round(tf.sqrt(area * ratio)), float(height))
    columns = tf.minimum(tf.round(tf.sqrt(area / ratio)), float(width))
    top = tf.floor(uniform["erase_row"] * (height - rows + 1.0))
    left = tf.floor(uniform["erase_column"] * (width - columns + 1.0))
    rows = tf.where(uniform["erase"] < probability, rows, 0.0)
    return _fill_rectangles(images, color, top, top + rows, left, left + columns)


def cutout(images: tf.Tensor, uniform: Uniform, size: int, color: tf.Tensor) -> tf.Tensor:
    """Fill a square, centered at a random pixel and clipped to the image, with one color.

    Reference: DeVries and Taylor, Cutout, 2017.

    Args:
        images: uint8 [B, H, W, C].
        uniform: random numbers by use.
        size: height and width of the square, in pixels.
        color: fill value of each channel, uint8 [C].

    Returns:
        uint8 [B, H, W, C].
    """
    height, width = images.shape[1:3]
    top = tf.floor(uniform["cutout_row"] * height) - size // 2
    left = tf.floor(uniform["cutout_column"] * width) - size // 2
    return _fill_rectangles(images, color, top, top + size, left, left + size)


def _fill_rectangles(
    images: tf.Tensor, color: tf.Tensor, top: tf.Tensor, bottom: tf.Tensor, left: tf.Tensor, right: tf.Tensor
) -> tf.Tensor:
    """Set rows `top` to `bottom` - 1 and columns `left` to `right` - 1, float32 [B], to `color` [C]."""
    row, column = (tf.range(size, dtype=tf.float32)[None, :] for size in images.shape[1:3])
    in_rows = (row >= top[:, None]) & (row < bottom[:, None])
    in_columns = (column >= left[:, None]) & (column < right[:, None])
    return tf.where((in_rows[:, :, None] & in_columns[:, None, :])[..., None], color, images)


def random_affine(images: tf.Tensor, uniform: Uniform, config: AugmentConfig) -> tf.Tensor:
    """Translate at random, then rotate and zoom about the center, with bilinear interpolation and zero fill.

    A translation is scaled and rotated with the image. torchvision translates last, by at most `shift` in the result.

    Args:
        images: float32 [B, H, W, C].
        uniform: random numbers by use.
        config: its `rotation` (degrees), `scale` and `shift` (pixels) apply.

    Returns:
        float32 [B, H, W, C].
    """
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
    # Output pixel (x, y) is taken from input pixel (a x + b y + c, d x + e y + f).
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


def flip_left_right(images: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
    """Mirror the images [B, H, W, C] for which `flipped`, bool [B], is True."""
    if images.shape[0] == 1:
        return tf.cond(flipped[0], lambda: tf.reverse(images[0], axis=[1])[tf.newaxis], lambda: images)
    shape = tf.shape(images)
    # `tf.reverse` is several times faster in three dimensions than in four, and `tf.where` without broadcasting.
    rows = tf.reverse(tf.reshape(images, [-1, shape[2], shape[3]]), axis=[1])
    flat = tf.where(flipped[:, None], tf.reshape(rows, [shape[0], -1]), tf.reshape(images, [shape[0], -1]))
    return tf.ensure_shape(tf.reshape(flat, shape), images.shape)


def pad_and_crop(images: tf.Tensor, uniform: Uniform, padding: int) -> tf.Tensor:
    """Pad with zeros and crop to the original size at random offsets.

    Args:
        images: images [B, H, W, C], or signals [B, L, C].
        uniform: random numbers by use.
        padding: zeros at both ends of each axis, in pixels or samples.

    Returns:
        A batch of the dtype and shape of `images`.
    """
    silence_unsupported_types()
    *sizes, _ = images.shape[1:]
    cropped = tf.pad(images, [[0, 0], *[[padding, padding]] * len(sizes), [0, 0]])
    for axis, (size, use) in enumerate(zip(sizes, ("pad_row", "pad_column"), strict=False), start=1):
        order = list(range(images.shape.rank))
        order[1], order[axis] = axis, 1
        moved = tf.transpose(cropped, order) if axis > 1 else cropped
        moved = _crop(moved, uniform[use], padding, size)
        cropped = tf.transpose(moved, order) if axis > 1 else moved
    return cropped


def _crop(padded: tf.Tensor, uniform: tf.Tensor, padding: int, length: int) -> tf.Tensor:
    """Crop axis 1 to `length` at an offset of each example, in [0, 2 * padding]."""
    start = tf.cast(uniform * (2 * padding + 1), tf.int32)[:, None]
    return tf.gather(padded, start + tf.range(length), axis=1, batch_dims=1)


def sample_crops(seed: int, first: tf.Tensor, count: int, *, min_area: float) -> tf.Tensor:
    """Sample the random crops of consecutive examples of a run, for `random_resized_crop`.

    Args:
        seed: seed of the run.
        first: position of the first example in the run, an int64 scalar.
        count: number of examples.
        min_area: smallest crop, as a fraction of the image area.

    Returns:
        float32 [count, 11, 2]: ten candidate sizes, (height, width) divided by the square root of the image area, and
        the offset as a fraction of the margin that the crop leaves.
    """
    numbers = random_numbers(seed, first, count, uses=2 * _CROP_CANDIDATES + 2, stream=_CROP_STREAM)
    area = min_area + (1.0 - min_area) * numbers[:, :_CROP_CANDIDATES]
    log_ratio = math.log(4 / 3) * (2.0 * numbers[:, _CROP_CANDIDATES : 2 * _CROP_CANDIDATES] - 1.0)
    half = tf.exp(0.5 * log_ratio)
    candidates = tf.sqrt(area)[..., None] * tf.stack([1.0 / half, half], axis=-1)
    return tf.concat([candidates, numbers[:, tf.newaxis, -2:]], axis=1)


def random_resized_crop(example: tf.Tensor, crop: tf.Tensor, preprocess: Preprocess, *, antialias: bool) -> tf.Tensor:
    """Return a random crop of an image, at an aspect ratio of 3/4 to 4/3, resized to the input size.

    The crop is sampled as in torchvision's RandomResizedCrop: the first of ten candidates that fits, or else the
    largest center crop within the range of aspect ratios.

    Reference: Szegedy et al., Going Deeper with Convolutions, 2015.

    Args:
        example: an encoded image, of which only the crop is decoded, or pixels.
        crop: one element of `sample_crops`, float32 [11, 2].
        preprocess: preprocessing.
        antialias: antialias when resizing.

    Returns:
        uint8 [H, W, C].
    """
    return preprocess.crop_to_batch_element(example, lambda shape: _fit_crop(shape, crop), antialias=antialias)


def _fit_crop(shape: tf.Tensor, crop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return offset and size, int32 [2], of a crop of an image of `shape` (height, width)."""
    shape = tf.cast(shape, tf.float32)
    candidates = tf.round(crop[:-1] * tf.sqrt(tf.reduce_prod(shape)))
    # The largest center crop within the range of aspect ratios always fits.
    fallback = tf.minimum(shape, tf.round(tf.reverse(shape, [0]) * (4 / 3)))
    sizes = tf.concat([candidates, fallback[tf.newaxis]], axis=0)
    index = tf.argmax(tf.reduce_all((sizes <= shape) & (sizes >= 1), axis=1), output_type=tf.int32)
    size = sizes[index]
    margin = shape - size
    offset = tf.where(index == _CROP_CANDIDATES, margin / 2, crop[-1] * (margin + 1.0))
    return tf.cast(offset, tf.int32), tf.cast(size, tf.int32)
