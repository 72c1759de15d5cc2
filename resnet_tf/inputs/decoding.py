"""Image decoding with TensorFlow operations, which are also part of exported models.

An example is an encoded image (JPEG, PNG, BMP, WebP or the first frame of a GIF), string scalar; or pixels, uint8
[h, w, 1 or 3]. Alpha channels are dropped, as in PIL's `convert("RGB")`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from resnet_tf.inputs import headers
from resnet_tf.inputs.base import ChooseWindow

# The method of PIL. TensorFlow's default is less exact, which lowers the accuracy of pretrained networks, and is not
# faster with a vectorized JPEG library.
_DCT = "INTEGER_ACCURATE"
_PARALLEL = 16  # largest number of images decoded in parallel; tf.data uses at most one thread per core
_RATIOS = (1, 2, 4, 8)  # factors by which the JPEG library can downscale while it decodes
_TO_END = tf.int32.max  # length for tf.strings.substr


@dataclass(frozen=True)
class Decoder:
    """Decoder of images to RGB.

    Attributes:
        max_pixels: largest number of pixels; an image with more, according to its header, is rejected before decoding.
        exif_orientation: rotate a JPEG upright according to its EXIF orientation.
    """

    max_pixels: int
    exif_orientation: bool

    def decode(self, example: tf.Tensor) -> tf.Tensor:
        """Decode one image to RGB, uint8 [height, width, 3].

        Args:
            example: encoded image, string scalar; or pixels, uint8 [h, w, 1 or 3].

        Raises:
            tf.errors.InvalidArgumentError: if the format is not supported, the image is corrupt, or its header states
                more than `max_pixels` pixels.
        """
        if example.dtype == tf.uint8:
            return example if example.shape[-1] == 3 else tf.image.grayscale_to_rgb(example)

        def decode_jpeg() -> tf.Tensor:
            start = self._check_size(headers.jpeg_size(example))
            image = tf.io.decode_jpeg(tf.strings.substr(example, start, _TO_END), channels=3, dct_method=_DCT)
            return _upright(image, headers.exif_orientation(example)) if self.exif_orientation else image

        def decode_other() -> tf.Tensor:
            start = self._check_size(headers.non_jpeg_size(example))
            checked = tf.strings.substr(example, start, _TO_END)
            # The first bytes of a BMP are "BM", those of a WebP "RIFF".
            is_bmp_or_webp = tf.reduce_any(tf.strings.substr(checked, 0, 2) == ["BM", "RI"])
            return tf.cond(
                is_bmp_or_webp,
                lambda: _decode_bmp_or_webp(checked),
                lambda: tf.io.decode_image(checked, channels=3, expand_animations=False),
            )

        return tf.ensure_shape(tf.cond(tf.io.is_jpeg(example), decode_jpeg, decode_other), (None, None, 3))

    def decode_window(self, example: tf.Tensor, choose: ChooseWindow, *, at_least: tuple[int, int]) -> tf.Tensor:
        """Decode a window of an image, uint8 [h, w, 3], for training; a JPEG is decoded in the window only.

        A window is downscaled by 8, 4 or 2, the largest factor that leaves it no smaller than `at_least`. A JPEG is
        downscaled while it is decoded.

        Args:
            example: as for `decode`.
            choose: maps the (height, width) of the image, int32 [2], to offset (top, left) and size (height, width)
                of the window, both int32 [2].
            at_least: smallest (height, width) of a downscaled window, in pixels.
        """

        def ratio_index(size: tf.Tensor) -> tf.Tensor:
            largest_ratio = tf.reduce_min(size // tf.constant(at_least))
            return sum(tf.cast(largest_ratio >= ratio, tf.int32) for ratio in _RATIOS[1:])

        def decode_jpeg() -> tf.Tensor:
            stored = tf.cast(headers.jpeg_size(example), tf.int32)
            orientation = headers.exif_orientation(example) if self.exif_orientation else None
            offset, size = _choose_stored(choose, stored, orientation)
            window = tf.concat([offset, size], 0) + self._check_size(stored)

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
            tf.errors.InvalidArgumentError: if `decode` rejects an image; the message states the image's index in the
                batch.
        """
        count = tf.size(encoded, out_type=tf.int64)

        def crop_at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.cond(index < 0, lambda: tf.zeros([*size, 3]), lambda: crop(self.decode(encoded[index])))
            return index, image

        # `ignore_errors` skips unreadable images, so the indices in the output show which images are missing. Index -1
        # is a black image, because `get_single_element` needs a batch even if no image is readable.
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

        # The reason is empty if the header is acceptable, or if `fault` fails because the header cannot be parsed.
        faults = tf.data.Dataset.from_tensors(encoded[index]).map(fault).ignore_errors(log_warning=False)
        reason = faults.concatenate(tf.data.Dataset.from_tensors("")).take(1).get_single_element()
        reason = tf.where(tf.equal(reason, ""), "corrupt or cut short", reason)
        return tf.strings.join(["image ", tf.strings.as_string(index), " of the batch cannot be read: ", reason])

    def _check_size(self, size: tf.Tensor) -> tf.Tensor:
        """Return 0, int32, if the (height, width) in a header is acceptable; raise an error otherwise.

        Callers add the 0 to an argument of the decoder, so that TensorFlow checks the size before it decodes.
        `to_number` fails for an error message and shows it. An assertion would be a stateful operation, with which
        tf.data runs sequentially under op determinism.
        """
        fault = self._header_fault(size)
        return tf.strings.to_number(tf.where(tf.equal(fault, ""), "0", fault), tf.int32)

    def _header_fault(self, size: tf.Tensor) -> tf.Tensor:
        """Return an error message for the (height, width) in a header, string scalar; empty if acceptable."""
        pixels = tf.reduce_prod(tf.cast(size, tf.int64))
        too_large = f"its header claims more than max_pixels={self.max_pixels:,}"
        unknown = "not a JPEG, PNG, BMP, GIF or WebP image, or one without pixels"
        return tf.where(pixels > 0, tf.where(pixels <= self.max_pixels, "", too_large), unknown)


def _plain_options() -> tf.data.Options:
    """Return options without autotuning and graph optimization, which take longer than they save in one batch."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _decode_bmp_or_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a BMP or WebP to RGB.

    `tf.io.decode_image` does not drop alpha channels, and decodes a BMP with a palette to indices of colors.
    """
    encoded = headers.flag_alpha_of_animated_webp(encoded)
    stored = tf.io.decode_image(encoded, channels=0, expand_animations=False)

    def from_palette() -> tf.Tensor:
        # A BMP begins with a file header of 14 bytes (offset of the pixels at byte 10) and an info header (its size at
        # byte 14). The palette lies between info header and pixels, with 4 bytes (BGR and padding) per color. It has at
        # most 256 colors, so the lower two bytes of both numbers suffice.
        head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=18), tf.int32)
        info_size, end = (tf.reduce_sum(head[offset : offset + 2] * [1, 256]) for offset in (14, 10))
        begin = 14 + info_size
        entries = tf.io.decode_raw(tf.strings.substr(encoded, begin, end - begin), tf.uint8)
        colors = tf.reshape(entries[: tf.size(entries) // 4 * 4], [-1, 4])
        return tf.gather(tf.reverse(colors[:, :3], [1]), tf.cast(stored[..., 0], tf.int32))

    return tf.cond(tf.shape(stored)[-1] == 1, from_palette, lambda: stored[..., :3])


# EXIF orientations that need each of the operations, in this order: transpose, flip vertically, flip horizontally.
_TRANSPOSED, _FLIPPED_VERTICALLY, _FLIPPED_HORIZONTALLY = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def _is_in(orientation: tf.Tensor, group: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(orientation == tf.constant(group))


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotate and mirror an image, uint8 [h, w, 3], from its EXIF orientation to upright."""
    for group, transform in (
        (_TRANSPOSED, lambda pixels: tf.transpose(pixels, [1, 0, 2])),
        (_FLIPPED_VERTICALLY, lambda pixels: tf.reverse(pixels, [0])),
        (_FLIPPED_HORIZONTALLY, lambda pixels: tf.reverse(pixels, [1])),
    ):
        image = tf.cond(
            _is_in(orientation, group), functools.partial(transform, image), functools.partial(tf.identity, image)
        )
    return image


def _choose_stored(
    choose: ChooseWindow, stored: tf.Tensor, orientation: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Choose a window of the upright image, and return its offset and size in the image as stored."""
    if orientation is None:
        return choose(stored)
    transposed = _is_in(orientation, _TRANSPOSED)
    shape = tf.where(transposed, tf.reverse(stored, [0]), stored)
    offset, size = choose(shape)
    flipped = tf.stack([_is_in(orientation, _FLIPPED_VERTICALLY), _is_in(orientation, _FLIPPED_HORIZONTALLY)])
    offset = tf.where(flipped, shape - offset - size, offset)
    return tuple(tf.where(transposed, tf.reverse(pair, [0]), pair) for pair in (offset, size))
