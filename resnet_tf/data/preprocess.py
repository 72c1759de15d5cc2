"""The one preprocessing: testing, every signature of an export and `predict` all call these functions.

It is written in graph operations, so that an export carries it along and a picture gives the same logits everywhere.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from resnet_tf.config import DataConfig
from resnet_tf.core.errors import UserError, plain_reason
from resnet_tf.inputs import headers
from resnet_tf.inputs.spec import Preprocess

# ITU-R BT.601, as PIL and tf.image have it, but summing to exactly 1 so that grey stays grey.
_LUMA = (0.299, 0.587, 0.114)
# As accurate as PIL. TensorFlow's default is a rougher one, which costs networks trained elsewhere some right answers,
# and no faster where the JPEG library has vector instructions.
_DCT = "INTEGER_ACCURATE"
_AT_ONCE = 16  # pictures decoded, at most; there are no more threads than cores
_RATIOS = (1, 2, 4, 8)  # by which the JPEG library scales down while it decodes
# Names of the kernels of ScaleAndTranslate.
KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


def from_config(data: DataConfig, weights: Preprocess | None = None) -> Preprocess:
    """What the `data` group of a configuration asks for; what it leaves open is as the weights want it.

    Args:
        data: its empty `mean` and `std` and its `channel_order` of `auto` are left open.
        weights: the preprocessing that the first weights came with; without it, ImageNet's.

    Raises:
        UserError: if what is left open has another number of channels.
    """
    if data.length:
        own = Preprocess.of_signals(data.length, channels=data.channels)
    else:
        own = Preprocess(size=(data.image_size, data.image_size))
    base = weights or own
    mean, std = data.mean or base.mean, data.std or base.std
    if {len(mean), len(std)} - {1, data.channels}:
        raise UserError(
            f"data.channels={data.channels} takes data.mean and data.std of its own: the default has {base.channels}"
        )
    return Preprocess(
        size=own.size,
        channels=data.channels,
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        mean=_one_a_channel(mean, data.channels),
        std=_one_a_channel(std, data.channels),
        channel_order=base.channel_order if data.channel_order == "auto" else data.channel_order,
        antialias=data.antialias,
        exif_orientation=data.exif_orientation,
        max_pixels=data.max_pixels,
    )


def to_input(example: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """An example as its source has it -> network input, float32 [height, width, channels] or [length, channels]."""
    return normalize(before_normalization(example, spec), spec)


def before_normalization(example: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """An example as its source has it -> float32 of `spec.shape_before`: RGB in [0, 1], or samples."""
    if spec.is_of_signals:
        return tf.ensure_shape(example, spec.shape_before)
    return center_crop(decode(example, spec), spec)


def to_fed(example: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """An example as its source has it -> what is augmented and moved to the device, of `fed_type`, see `from_fed`."""
    example = before_normalization(example, spec)
    return example if spec.is_of_signals else to_channels(to_bytes(example), spec)


def fed_type(spec: Preprocess) -> tf.DType:
    """Pictures are fed as bytes, a quarter to move; signals as they are."""
    return tf.float32 if spec.is_of_signals else tf.uint8


def from_bytes(encoded: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """Encoded pictures, string [B] -> network input, float32 [B, height, width, channels]. Raises as `crops` does."""
    return normalize(crops(encoded, spec), spec)


def crops(encoded: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """Encoded pictures, string [B] -> RGB in [0, 1], float32 [B, height, width, 3].

    Raises:
        tf.errors.InvalidArgumentError: for a picture that `decode` refuses, by its place in the batch.
    """
    count = tf.size(encoded, out_type=tf.int64)

    def crop(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        picture = tf.cond(
            place < 0, lambda: tf.zeros([*spec.size, 3]), lambda: center_crop(decode(encoded[place], spec), spec)
        )
        return place, picture

    # A dataset, because it goes on behind a picture that fails: what comes out says which one did not. It begins with
    # an empty picture, as it must not be empty.
    readable = tf.data.Dataset.range(-1, count).map(crop, num_parallel_calls=_AT_ONCE).ignore_errors(log_warning=False)
    places, images = readable.batch(count + 1).with_options(_plain_options()).get_single_element()
    lost = tf.sets.difference(tf.range(count)[tf.newaxis], places[tf.newaxis, 1:]).values
    explanation = tf.cond(tf.size(lost) > 0, lambda: _explain(encoded, lost[0], spec), lambda: "")
    with tf.control_dependencies([tf.debugging.Assert(tf.size(lost) == 0, [explanation])]):
        return tf.ensure_shape(images[1:], (None, *spec.size, 3))


def _plain_options() -> tf.data.Options:
    """For a dataset of one batch: there is nothing to learn from it, and no time to rearrange it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _explain(encoded: tf.Tensor, place: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """Which of the encoded pictures cannot be read, and what its header tells: a string scalar."""
    picture = encoded[place]

    def fault(picture: tf.Tensor) -> tf.Tensor:
        is_jpeg = tf.io.is_jpeg(picture)
        size = tf.cond(is_jpeg, lambda: headers.size_of_jpeg(picture), lambda: headers.size_of_others(picture))
        return _header_fault(size, spec)

    # A header that fails itself has no fault to tell.
    faults = tf.data.Dataset.from_tensors(picture).map(fault).ignore_errors(log_warning=False)
    reason = faults.concatenate(tf.data.Dataset.from_tensors("")).take(1).get_single_element()
    reason = tf.where(tf.equal(reason, ""), "damaged or cut short", reason)
    return tf.strings.join(["picture ", tf.strings.as_string(place), " of the batch cannot be read: ", reason])


def decode_window(
    picture: tf.Tensor,
    choose: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    spec: Preprocess,
    *,
    at_least: tuple[int, ...],
) -> tf.Tensor:
    """Only a window of a picture, uint8 [h, w, 3] RGB, for training: of a JPEG, no more than that is decoded.

    A window of at least twice, four or eight times the size that is needed is scaled down by that while it is decoded.

    Args:
        picture: as for `decode`.
        choose: from the picture's (height, width), int32 [2], to the window's offset and size, both int32 [2].
        spec: as for `decode`.
        at_least: (height, width) below which a window is not scaled down.
    """

    def ratio_place(size: tf.Tensor) -> tf.Tensor:
        spare = tf.reduce_min(size // tf.constant(at_least))
        return sum(tf.cast(spare >= ratio, tf.int32) for ratio in _RATIOS[1:])

    def of_jpeg() -> tf.Tensor:
        stored = tf.cast(headers.size_of_jpeg(picture), tf.int32)
        orientation = headers.exif_orientation(picture) if spec.exif_orientation else None
        offset, size = _choose_stored(choose, stored, orientation)
        window = tf.concat([offset, size], 0) + _refused(stored, spec)

        def at_scale(ratio: int) -> tf.Tensor:
            return tf.raw_ops.DecodeAndCropJpeg(
                contents=picture, crop_window=window // ratio, channels=3, ratio=ratio, dct_method=_DCT
            )

        pixels = tf.switch_case(ratio_place(size), [functools.partial(at_scale, ratio) for ratio in _RATIOS])
        return pixels if orientation is None else _upright(tf.ensure_shape(pixels, (None, None, 3)), orientation)

    def of_others() -> tf.Tensor:
        image = decode(picture, spec)
        offset, size = choose(tf.shape(image)[:2])
        window = tf.slice(image, tf.concat([offset, [0]], 0), tf.concat([size, [3]], 0))
        ratio = tf.gather(tf.constant(_RATIOS), ratio_place(size))
        return tf.cast(tf.round(tf.image.resize(window, size // ratio, method="area")), tf.uint8)

    window = of_others() if picture.dtype == tf.uint8 else tf.cond(tf.io.is_jpeg(picture), of_jpeg, of_others)
    return tf.ensure_shape(window, (None, None, 3))


def decode(picture: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """One picture -> uint8 [height, width, 3] RGB.

    Args:
        picture: a JPEG, PNG, BMP, GIF (its first frame) or WebP, a string scalar; or pixels, uint8 [h, w, 1 or 3],
            which are brought to three channels. Transparency is dropped, as PIL's `convert("RGB")` drops it.
        spec: its `max_pixels` and `exif_orientation` count.

    Raises:
        tf.errors.InvalidArgumentError: for what is no such picture, is damaged, or claims too many pixels.
    """
    if picture.dtype == tf.uint8:
        return picture if picture.shape[-1] == 3 else tf.image.grayscale_to_rgb(picture)

    def of_jpeg() -> tf.Tensor:
        sound = _refused(headers.size_of_jpeg(picture), spec)
        image = tf.io.decode_jpeg(tf.strings.substr(picture, sound, tf.int32.max), channels=3, dct_method=_DCT)
        return _upright(image, headers.exif_orientation(picture)) if spec.exif_orientation else image

    def of_others() -> tf.Tensor:
        sound = tf.strings.substr(picture, _refused(headers.size_of_others(picture), spec), tf.int32.max)
        is_bmp_or_webp = tf.reduce_any(tf.strings.substr(sound, 0, 2) == ["BM", "RI"])
        return tf.cond(
            is_bmp_or_webp,
            lambda: _decode_bmp_or_webp(sound),
            lambda: tf.io.decode_image(sound, channels=3, expand_animations=False),
        )

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(picture), of_jpeg, of_others), (None, None, 3))


def _decode_bmp_or_webp(encoded: tf.Tensor) -> tf.Tensor:
    """TensorFlow gives these as they are stored only: with transparency, or as places in a BMP's palette."""
    encoded = headers.flag_alpha_of_animated_webp(encoded)
    stored = tf.io.decode_image(encoded, channels=0, expand_animations=False)

    def from_palette() -> tf.Tensor:
        # The palette, blue first, ends where the pixels begin; it has 256 entries or fewer.
        head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=18), tf.int32)
        begin, end = (tf.reduce_sum(head[at : at + 2] * [1, 256]) for at in (14, 10))
        begin += 14
        entries = tf.io.decode_raw(tf.strings.substr(encoded, begin, end - begin), tf.uint8)
        colors = tf.reshape(entries[: tf.size(entries) // 4 * 4], [-1, 4])
        return tf.gather(tf.reverse(colors[:, :3], [1]), tf.cast(stored[..., 0], tf.int32))

    return tf.cond(tf.shape(stored)[-1] == 1, from_palette, lambda: stored[..., :3])


def why_unreadable(picture: tf.Tensor, spec: Preprocess) -> str:
    """In a few words, why `decode` fails for a picture; empty if it does not, and for signals."""
    if spec.is_of_signals:
        return ""
    if picture.dtype == tf.string and not picture.numpy():
        return "the file is empty"
    try:
        decode(picture, spec)
    except tf.errors.OpError as error:
        return plain_reason(error)
    return ""


def _refused(size: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """0, an int32 scalar; it fails for a header, (height, width), that is unknown or claims too many pixels.

    What is decoded must depend on it. It fails by a number that is none, whose text is the message: an assertion has a
    state for TensorFlow, and under op determinism it would take the whole pipeline apart into single steps.
    """
    fault = _header_fault(size, spec)
    return tf.strings.to_number(tf.where(tf.equal(fault, ""), "0", fault), tf.int32)


def _header_fault(size: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """What is wrong with a header, (height, width), a string scalar; empty for nothing."""
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    many = f"its header claims more than max_pixels={spec.max_pixels:,}"
    unknown = "not a JPEG, PNG, BMP, GIF or WebP picture, or one without pixels"
    return tf.where(pixels > 0, tf.where(pixels <= spec.max_pixels, "", many), unknown)


# How the stored pixels of each EXIF orientation lie: transposed, then upside down, then mirrored.
_TRANSPOSED, _UPSIDE_DOWN, _MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def _is(orientation: tf.Tensor, group: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(orientation == tf.constant(group))


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Stored pixels [h, w, 3] as they are to be seen."""
    for group, change in (
        (_TRANSPOSED, lambda pixels: tf.transpose(pixels, [1, 0, 2])),
        (_UPSIDE_DOWN, lambda pixels: tf.reverse(pixels, [0])),
        (_MIRRORED, lambda pixels: tf.reverse(pixels, [1])),
    ):
        image = tf.cond(
            _is(orientation, group), functools.partial(change, image), functools.partial(tf.identity, image)
        )
    return image


def _choose_stored(
    choose: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], stored: tf.Tensor, orientation: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The window that `choose` takes of the upright picture, in the stored one."""
    if orientation is None:
        return choose(stored)
    transposed = _is(orientation, _TRANSPOSED)
    shape = tf.where(transposed, tf.reverse(stored, [0]), stored)
    offset, size = choose(shape)
    flipped = tf.stack([_is(orientation, _UPSIDE_DOWN), _is(orientation, _MIRRORED)])
    offset = tf.where(flipped, shape - offset - size, offset)
    return tuple(tf.where(transposed, tf.reverse(pair, [0]), pair) for pair in (offset, size))


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
        kernel_type=KERNELS[spec.interpolation],
        antialias=spec.antialias,
    )[0]
    return tf.clip_by_value(crop, 0.0, 1.0)  # a cubic kernel overshoots


def normalize(images: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """RGB float32 [..., 3] in [0, 1], or samples [..., channels] -> network input, float32 [..., channels]."""
    return standardize(to_channels(images, spec), spec)


def to_channels(images: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """RGB [..., 3] -> [..., channels], float or uint8: unchanged, or its luma. Signals are left alone."""
    images = tf.convert_to_tensor(images)
    if spec.channels == 3 or spec.is_of_signals:
        return images
    grey = luma(tf.cast(images, tf.float32))
    return grey if images.dtype.is_floating else tf.cast(tf.round(grey), images.dtype)


def luma(images: tf.Tensor) -> tf.Tensor:
    """The brightness of RGB float32 [..., 3], [..., 1]."""
    return tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)


def to_bytes(pixels: tf.Tensor) -> tf.Tensor:
    """[0, 1] -> the nearest of 256 levels, uint8; `from_fed` starts from them."""
    return tf.cast(tf.round(pixels * 255.0), tf.uint8)


def from_fed(fed: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """What `to_fed` gave, of any number of examples -> network input, float32."""
    return standardize(fed if spec.is_of_signals else tf.cast(fed, tf.float32) / 255.0, spec)


def standardize(images: tf.Tensor, spec: Preprocess) -> tf.Tensor:
    """Bring channels into the network's order, subtract the mean of each and divide by its standard deviation."""
    if spec.channel_order == "bgr":
        images = images[..., ::-1]
    if images.shape.rank != 4 or None in images.shape[1:]:
        return (images - tf.constant(spec.mean)) / tf.constant(spec.std)
    # By whole rows: TensorFlow is several times slower where it goes on over 3 numbers at a time.
    _, height, width, channels = images.shape
    rows = tf.reshape(images, [-1, height, width * channels])
    rows = (rows - tf.tile(tf.constant(spec.mean), [width])) / tf.tile(tf.constant(spec.std), [width])
    return tf.reshape(rows, [-1, height, width, channels])


def _one_a_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values * channels if len(values) == 1 else values
