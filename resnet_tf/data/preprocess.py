"""The one preprocessing: testing, every signature of an export and `predict` all call these functions.

It is written in graph operations, so that an export carries it along and a picture gives the same logits everywhere.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.errors import UserError
from resnet_tf.spec import Preprocess

# ITU-R BT.601, as PIL and tf.image have it, but summing to exactly 1 so that grey stays grey.
_LUMA = (0.299, 0.587, 0.114)
# As accurate as PIL. TensorFlow's default is a rougher one, which costs networks trained elsewhere some right answers,
# and no faster where the JPEG library has vector instructions.
_DCT = "INTEGER_ACCURATE"
_RATIOS = (1, 2, 4, 8)  # by which the JPEG library scales down while it decodes
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


def from_config(data: DataConfig, weights: Preprocess | None = None) -> Preprocess:
    """What the `data` group of a configuration asks for; what it leaves open is as the weights want it.

    Args:
        data: its empty `mean` and `std` and its `channel_order` of `auto` are left open.
        weights: the preprocessing that the first weights came with; without it, ImageNet's.

    Raises:
        UserError: if what is left open has another number of channels.
    """
    base = weights or Preprocess(size=(data.image_size, data.image_size))
    mean, std = data.mean or base.mean, data.std or base.std
    if {len(mean), len(std)} - {1, data.channels}:
        raise UserError(
            f"data.channels={data.channels} takes data.mean and data.std of its own: the default has {base.channels}"
        )
    return Preprocess(
        size=(data.image_size, data.image_size),
        channels=data.channels,
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        mean=_one_a_channel(mean, data.channels),
        std=_one_a_channel(std, data.channels),
        channel_order=base.channel_order if data.channel_order == "auto" else data.channel_order,
    )


def from_bytes(encoded: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """Encoded pictures, string [B] -> network input, float32 [B, height, width, channels]."""
    signature = tf.TensorSpec((*spec.size, 3), tf.float32)
    images = tf.map_fn(lambda item: center_crop(decode(item), spec), encoded, fn_output_signature=signature)
    return normalize(images, spec)


def decode_window(
    encoded: tf.Tensor, choose: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], *, at_least: tuple[int, int]
) -> tf.Tensor:
    """Only a window of a picture, uint8 [h, w, 3] RGB, for training: of a JPEG, no more than that is decoded.

    A window of at least twice, four or eight times the size that is needed is scaled down by that while it is decoded.

    Args:
        encoded: as for `decode`.
        choose: from the picture's (height, width), int32 [2], to the window's offset and size, both int32 [2].
        at_least: (height, width) below which a window is not scaled down.
    """

    def ratio_place(size: tf.Tensor) -> tf.Tensor:
        spare = tf.reduce_min(size // tf.constant(at_least))
        return sum(tf.cast(spare >= ratio, tf.int32) for ratio in _RATIOS[1:])

    def of_jpeg() -> tf.Tensor:
        offset, size = choose(tf.image.extract_jpeg_shape(encoded)[:2])
        window = tf.concat([offset, size], 0)

        def at_scale(ratio: int) -> tf.Tensor:
            return tf.raw_ops.DecodeAndCropJpeg(
                contents=encoded, crop_window=window // ratio, channels=3, ratio=ratio, dct_method=_DCT
            )

        return tf.switch_case(ratio_place(size), [functools.partial(at_scale, ratio) for ratio in _RATIOS])

    def of_others() -> tf.Tensor:
        image = decode(encoded)
        offset, size = choose(tf.shape(image)[:2])
        window = tf.slice(image, tf.concat([offset, [0]], 0), tf.concat([size, [3]], 0))
        ratio = tf.gather(tf.constant(_RATIOS), ratio_place(size))
        return tf.cast(tf.round(tf.image.resize(window, size // ratio, method="area")), tf.uint8)

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_others), (None, None, 3))


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """One JPEG, PNG, BMP or GIF (its first frame), a string scalar -> uint8 [height, width, 3] RGB."""
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=_DCT),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def center_crop(image: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """Resize the shorter side to size / crop_fraction and cut out the centre.

    Takes uint8 [h, w, 3] and returns float32 [height, width, 3] in [0, 1]. Only the pixels inside the crop are
    computed; the numbers are those of a whole resize followed by a crop, sides rounded as in torchvision's Resize.
    """
    shape = tf.shape(image)[:2]
    shorter = tf.round(tf.constant(min(spec.size), tf.float32) / spec.crop_fraction)
    resized = tf.floor(tf.cast(shape, tf.float32) * shorter / tf.cast(tf.reduce_min(shape), tf.float32) + 1e-4)
    resized = tf.maximum(resized, tf.constant(spec.size, tf.float32))
    offset = tf.round((resized - tf.constant(spec.size, tf.float32)) / 2)
    crop = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[tf.newaxis] / 255.0,
        size=spec.size,
        scale=resized / tf.cast(shape, tf.float32),
        translation=-offset,
        kernel_type=_KERNELS[spec.interpolation],
        antialias=True,
    )[0]
    return tf.clip_by_value(crop, 0.0, 1.0)  # a cubic kernel overshoots


def normalize(images: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """RGB float32 [..., 3] in [0, 1] -> network input, float32 [..., channels]."""
    return standardize(to_channels(images, spec), spec)


def to_channels(images: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """RGB [..., 3] -> [..., channels], float or uint8: unchanged, or its luma."""
    images = tf.convert_to_tensor(images)
    if spec.channels == 3:
        return images
    grey = luma(tf.cast(images, tf.float32))
    return grey if images.dtype.is_floating else tf.cast(tf.round(grey), images.dtype)


def luma(images: tf.Tensor) -> tf.Tensor:
    """The brightness of RGB float32 [..., 3], [..., 1]."""
    return tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)


def to_bytes(pixels: tf.Tensor) -> tf.Tensor:
    """[0, 1] -> the nearest of 256 levels, uint8; `from_pixels` starts from them."""
    return tf.cast(tf.round(pixels * 255.0), tf.uint8)


def from_pixels(pixels: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """Pictures of the network's size and channels, uint8 [..., channels] -> network input, float32."""
    return standardize(tf.cast(pixels, tf.float32) / 255.0, spec)


def standardize(images: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """Bring channels into the network's order, subtract the mean of each and divide by its standard deviation."""
    if spec.channel_order == "bgr":
        images = images[..., ::-1]
    return (images - tf.constant(spec.mean)) / tf.constant(spec.std)


def _one_a_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values * channels if len(values) == 1 else values
