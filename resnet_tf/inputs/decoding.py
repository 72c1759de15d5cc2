"""Image decoding in graph operations, which an export contains.

An example is a JPEG, PNG, BMP, GIF (first frame) or WebP, string scalar; or pixels, uint8 [h, w, 1 or 3]. Alpha
channels are dropped, as in PIL's `convert("RGB")`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from resnet_tf.inputs import headers
from resnet_tf.inputs.base import ChooseWindow

# As accurate as PIL. TensorFlow's default is less accurate, which costs pretrained networks some accuracy, and it is no
# faster if the JPEG library uses vector instructions.
_DCT = "INTEGER_ACCURATE"
_PARALLEL = 16  # most images decoded in parallel; tf.data uses at most one thread per core
_RATIOS = (1, 2, 4, 8)  # reductions that the JPEG library supports while decoding


@dataclass(frozen=True)
class Decoder:
    """Decoder of images to RGB.

    Attributes:
        max_pixels: largest number of pixels; an image whose header claims more is rejected before it is decoded.
        exif_orientation: rotate a JPEG upright according to its EXIF orientation.
    """

    max_pixels: int
    exif_orientation: bool

    def decode(self, example: tf.Tensor) -> tf.Tensor:
        """Decode one image to RGB, uint8 [height, width, 3].

        Args:
            example: encoded image, string scalar; or pixels, uint8 [h, w, 1 or 3].

        Raises:
            tf.errors.InvalidArgumentError: if the format is not supported, if the image is corrupt, or if its header
                claims more than `max_pixels`.
        """
        if example.dtype == tf.uint8:
            return example if example.shape[-1] == 3 else tf.image.grayscale_to_rgb(example)

        def decode_jpeg() -> tf.Tensor:
            start = self._checked(headers.jpeg_size(example))
            image = tf.io.decode_jpeg(tf.strings.substr(example, start, tf.int32.max), channels=3, dct_method=_DCT)
            return _upright(image, headers.exif_orientation(example)) if self.exif_orientation else image

        def decode_other() -> tf.Tensor:
            checked = tf.strings.substr(example, self._checked(headers.non_jpeg_size(example)), tf.int32.max)
            is_bmp_or_webp = tf.reduce_any(tf.strings.substr(checked, 0, 2) == ["BM", "RI"])
            return tf.cond(
                is_bmp_or_webp,
                lambda: _decode_bmp_or_webp(checked),
                lambda: tf.io.decode_image(checked, channels=3, expand_animations=False),
            )

        return tf.ensure_shape(tf.cond(tf.io.is_jpeg(example), decode_jpeg, decode_other), (None, None, 3))

    def decode_window(self, example: tf.Tensor, choose: ChooseWindow, *, at_least: tuple[int, int]) -> tf.Tensor:
        """Decode a window of an image, uint8 [h, w, 3], for training; only this part of a JPEG is decoded.

        A window of at least 2, 4 or 8 times the size `at_least` is reduced by this factor while it is decoded.

        Args:
            example: as for `decode`.
            choose: maps the image's (height, width), int32 [2], to offset and size of the window, both int32 [2].
            at_least: smallest (height, width) of the reduced window, in pixels.
        """

        def ratio_index(size: tf.Tensor) -> tf.Tensor:
            spare = tf.reduce_min(size // tf.constant(at_least))
            return sum(tf.cast(spare >= ratio, tf.int32) for ratio in _RATIOS[1:])

        def decode_jpeg() -> tf.Tensor:
            stored = tf.cast(headers.jpeg_size(example), tf.int32)
            orientation = headers.exif_orientation(example) if self.exif_orientation else None
            offset, size = _choose_stored(choose, stored, orientation)
            window = tf.concat([offset, size], 0) + self._checked(stored)

            def at_scale(ratio: int) -> tf.Tensor:
                return tf.raw_ops.DecodeAndCropJpeg(
                    contents=example, crop_window=window // ratio, channels=3, ratio=ratio, dct_method=_DCT
                )

            pixels = tf.switch_case(ratio_index(size), [functools.partial(at_scale, ratio) for ratio in _RATIOS])
            return pixels if orientation is None else _upright(tf.ensure_shape(pixels, (None, None, 3)), orientation)

        def decode_other() -> tf.Tensor:
            image = self.decode(example)
            offset, size = choose(tf.shape(image)[:2])
            window = tf.slice(image, tf.concat([offset, [0]], 0), tf.concat([size, [3]], 0))
            ratio = tf.gather(tf.constant(_RATIOS), ratio_index(size))
            return tf.cast(tf.round(tf.image.resize(window, size // ratio, method="area")), tf.uint8)

        window = (
            decode_other() if example.dtype == tf.uint8 else tf.cond(tf.io.is_jpeg(example), decode_jpeg, decode_other)
        )
        return tf.ensure_shape(window, (None, None, 3))

    def decode_batch(
        self, encoded: tf.Tensor, crop: Callable[[tf.Tensor], tf.Tensor], size: tuple[int, int]
    ) -> tf.Tensor:
        """Decode and crop a batch of images to float32 [B, height, width, 3].

        Args:
            encoded: encoded images, string [B].
            crop: maps a decoded image, uint8 [h, w, 3], to float32 [height, width, 3].
            size: (height, width) of the crops, in pixels.

        Raises:
            tf.errors.InvalidArgumentError: if `decode` rejects an image; it states the index in the batch.
        """
        count = tf.size(encoded, out_type=tf.int64)

        def crop_at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.cond(index < 0, lambda: tf.zeros([*size, 3]), lambda: crop(self.decode(encoded[index])))
            return index, image

        # A dataset continues after an image that fails, so that its output contains the indices of all readable
        # images. It begins with a black image, because it must not be empty.
        readable = tf.data.Dataset.range(-1, count).map(crop_at, num_parallel_calls=_PARALLEL)
        readable = readable.ignore_errors(log_warning=False).batch(count + 1).with_options(_plain_options())
        indices, images = readable.get_single_element()
        unreadable = tf.sets.difference(tf.range(count)[tf.newaxis], indices[tf.newaxis, 1:]).values
        explanation = tf.cond(tf.size(unreadable) > 0, lambda: self._explain(encoded, unreadable[0]), lambda: "")
        with tf.control_dependencies([tf.debugging.Assert(tf.size(unreadable) == 0, [explanation])]):
            return tf.ensure_shape(images[1:], (None, *size, 3))

    def _explain(self, encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Return an error message for the unreadable image at `index`, string scalar."""

        def fault(image: tf.Tensor) -> tf.Tensor:
            is_jpeg = tf.io.is_jpeg(image)
            size = tf.cond(is_jpeg, lambda: headers.jpeg_size(image), lambda: headers.non_jpeg_size(image))
            return self._header_fault(size)

        # A header that cannot be parsed raises an error in `fault`, and gets the general reason.
        faults = tf.data.Dataset.from_tensors(encoded[index]).map(fault).ignore_errors(log_warning=False)
        reason = faults.concatenate(tf.data.Dataset.from_tensors("")).take(1).get_single_element()
        reason = tf.where(tf.equal(reason, ""), "corrupt or cut short", reason)
        return tf.strings.join(["image ", tf.strings.as_string(index), " of the batch cannot be read: ", reason])

    def _checked(self, size: tf.Tensor) -> tf.Tensor:
        """Return 0, int32, if a header's (height, width) is acceptable, and raise an error otherwise.

        The decoded pixels must depend on the result. The error comes from parsing the message as a number: an assertion
        is a stateful operation, and under op determinism tf.data would run the pipeline sequentially.
        """
        fault = self._header_fault(size)
        return tf.strings.to_number(tf.where(tf.equal(fault, ""), "0", fault), tf.int32)

    def _header_fault(self, size: tf.Tensor) -> tf.Tensor:
        """Return the error in a header's (height, width), string scalar; empty if there is none."""
        pixels = tf.reduce_prod(tf.cast(size, tf.int64))
        too_large = f"its header claims more than max_pixels={self.max_pixels:,}"
        unknown = "not a JPEG, PNG, BMP, GIF or WebP image, or one without pixels"
        return tf.where(pixels > 0, tf.where(pixels <= self.max_pixels, "", too_large), unknown)


def _plain_options() -> tf.data.Options:
    """Return options without tuning and graph optimization, which cost more than they save for one batch."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _decode_bmp_or_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a BMP or WebP to RGB; TensorFlow itself keeps alpha channels, and the indices of a BMP's palette."""
    encoded = headers.flag_alpha_of_animated_webp(encoded)
    stored = tf.io.decode_image(encoded, channels=0, expand_animations=False)

    def from_palette() -> tf.Tensor:
        # The palette, in BGR order with at most 256 entries, ends at the offset of the pixels.
        head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=18), tf.int32)
        begin, end = (tf.reduce_sum(head[offset : offset + 2] * [1, 256]) for offset in (14, 10))
        begin += 14
        entries = tf.io.decode_raw(tf.strings.substr(encoded, begin, end - begin), tf.uint8)
        colors = tf.reshape(entries[: tf.size(entries) // 4 * 4], [-1, 4])
        return tf.gather(tf.reverse(colors[:, :3], [1]), tf.cast(stored[..., 0], tf.int32))

    return tf.cond(tf.shape(stored)[-1] == 1, from_palette, lambda: stored[..., :3])


# EXIF orientations whose stored pixels are transposed, then upside down, then mirrored.
_TRANSPOSED, _UPSIDE_DOWN, _MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def _is(orientation: tf.Tensor, group: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(orientation == tf.constant(group))


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotate and mirror stored pixels, uint8 [h, w, 3], from an EXIF orientation to upright."""
    for group, transform in (
        (_TRANSPOSED, lambda pixels: tf.transpose(pixels, [1, 0, 2])),
        (_UPSIDE_DOWN, lambda pixels: tf.reverse(pixels, [0])),
        (_MIRRORED, lambda pixels: tf.reverse(pixels, [1])),
    ):
        image = tf.cond(
            _is(orientation, group), functools.partial(transform, image), functools.partial(tf.identity, image)
        )
    return image


def _choose_stored(
    choose: ChooseWindow, stored: tf.Tensor, orientation: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Choose a window of the upright image, and return its offset and size in the stored image."""
    if orientation is None:
        return choose(stored)
    transposed = _is(orientation, _TRANSPOSED)
    shape = tf.where(transposed, tf.reverse(stored, [0]), stored)
    offset, size = choose(shape)
    flipped = tf.stack([_is(orientation, _UPSIDE_DOWN), _is(orientation, _MIRRORED)])
    offset = tf.where(flipped, shape - offset - size, offset)
    return tuple(tf.where(transposed, tf.reverse(pair, [0]), pair) for pair in (offset, size))
