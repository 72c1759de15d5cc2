"""Decoding of encoded images, in graph operations, so that an export carries it along.

An example is a JPEG, PNG, BMP, GIF (of which the first frame counts) or WebP, a string scalar; or pixels, uint8
[h, w, 1 or 3]. Transparency is dropped, as PIL's `convert("RGB")` drops it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from resnet_tf.inputs import headers
from resnet_tf.inputs.base import ChooseWindow

# As accurate as PIL. TensorFlow's default is a rougher one, which costs networks trained elsewhere some right answers,
# and no faster where the JPEG library has vector instructions.
_DCT = "INTEGER_ACCURATE"
_PARALLEL = 16  # images decoded at a time, at most; there are no more threads than cores
_RATIOS = (1, 2, 4, 8)  # by which the JPEG library scales down while it decodes


@dataclass(frozen=True)
class Decoder:
    """Decodes images to RGB.

    Attributes:
        max_pixels: an image whose header claims more is refused before it is decoded.
        exif_orientation: turn a JPEG upright as its EXIF data say.
    """

    max_pixels: int
    exif_orientation: bool

    def decode(self, example: tf.Tensor) -> tf.Tensor:
        """Return uint8 [height, width, 3].

        Raises:
            tf.errors.InvalidArgumentError: for an example that is no such image, is corrupt, or claims too many pixels.
        """
        if example.dtype == tf.uint8:
            return example if example.shape[-1] == 3 else tf.image.grayscale_to_rgb(example)

        def of_jpeg() -> tf.Tensor:
            sound = self._checked(headers.size_of_jpeg(example))
            image = tf.io.decode_jpeg(tf.strings.substr(example, sound, tf.int32.max), channels=3, dct_method=_DCT)
            return _upright(image, headers.exif_orientation(example)) if self.exif_orientation else image

        def of_others() -> tf.Tensor:
            sound = tf.strings.substr(example, self._checked(headers.size_of_others(example)), tf.int32.max)
            is_bmp_or_webp = tf.reduce_any(tf.strings.substr(sound, 0, 2) == ["BM", "RI"])
            return tf.cond(
                is_bmp_or_webp,
                lambda: _decode_bmp_or_webp(sound),
                lambda: tf.io.decode_image(sound, channels=3, expand_animations=False),
            )

        return tf.ensure_shape(tf.cond(tf.io.is_jpeg(example), of_jpeg, of_others), (None, None, 3))

    def decode_window(self, example: tf.Tensor, choose: ChooseWindow, *, at_least: tuple[int, int]) -> tf.Tensor:
        """Return a window of an image, uint8 [h, w, 3], for training; of a JPEG, no more than that is decoded.

        A window of at least twice, four or eight times the size that is needed is scaled down by that while it is
        decoded.

        Args:
            example: as for `decode`.
            choose: from the image's (height, width), int32 [2], to the window's offset and size, both int32 [2].
            at_least: (height, width) below which a window is not scaled down.
        """

        def ratio_index(size: tf.Tensor) -> tf.Tensor:
            spare = tf.reduce_min(size // tf.constant(at_least))
            return sum(tf.cast(spare >= ratio, tf.int32) for ratio in _RATIOS[1:])

        def of_jpeg() -> tf.Tensor:
            stored = tf.cast(headers.size_of_jpeg(example), tf.int32)
            orientation = headers.exif_orientation(example) if self.exif_orientation else None
            offset, size = _choose_stored(choose, stored, orientation)
            window = tf.concat([offset, size], 0) + self._checked(stored)

            def at_scale(ratio: int) -> tf.Tensor:
                return tf.raw_ops.DecodeAndCropJpeg(
                    contents=example, crop_window=window // ratio, channels=3, ratio=ratio, dct_method=_DCT
                )

            pixels = tf.switch_case(ratio_index(size), [functools.partial(at_scale, ratio) for ratio in _RATIOS])
            return pixels if orientation is None else _upright(tf.ensure_shape(pixels, (None, None, 3)), orientation)

        def of_others() -> tf.Tensor:
            image = self.decode(example)
            offset, size = choose(tf.shape(image)[:2])
            window = tf.slice(image, tf.concat([offset, [0]], 0), tf.concat([size, [3]], 0))
            ratio = tf.gather(tf.constant(_RATIOS), ratio_index(size))
            return tf.cast(tf.round(tf.image.resize(window, size // ratio, method="area")), tf.uint8)

        window = of_others() if example.dtype == tf.uint8 else tf.cond(tf.io.is_jpeg(example), of_jpeg, of_others)
        return tf.ensure_shape(window, (None, None, 3))

    def decode_batch(
        self, encoded: tf.Tensor, crop: Callable[[tf.Tensor], tf.Tensor], size: tuple[int, int]
    ) -> tf.Tensor:
        """Decode and crop a batch: string [B] -> float32 [B, height, width, 3].

        Args:
            encoded: encoded images.
            crop: from a decoded image, uint8 [h, w, 3], to float32 [height, width, 3].
            size: (height, width) of the crops.

        Raises:
            tf.errors.InvalidArgumentError: for an image that `decode` refuses, by its index in the batch.
        """
        count = tf.size(encoded, out_type=tf.int64)

        def crop_at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.cond(index < 0, lambda: tf.zeros([*size, 3]), lambda: crop(self.decode(encoded[index])))
            return index, image

        # A dataset, because it continues after an image that fails: its output says which one did. It begins with a
        # black image, because it must not be empty.
        readable = tf.data.Dataset.range(-1, count).map(crop_at, num_parallel_calls=_PARALLEL)
        readable = readable.ignore_errors(log_warning=False).batch(count + 1).with_options(_plain_options())
        indices, images = readable.get_single_element()
        lost = tf.sets.difference(tf.range(count)[tf.newaxis], indices[tf.newaxis, 1:]).values
        explanation = tf.cond(tf.size(lost) > 0, lambda: self._explain(encoded, lost[0]), lambda: "")
        with tf.control_dependencies([tf.debugging.Assert(tf.size(lost) == 0, [explanation])]):
            return tf.ensure_shape(images[1:], (None, *size, 3))

    def _explain(self, encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Return which of the encoded images cannot be read, and what is wrong with its header, a string scalar."""

        def fault(image: tf.Tensor) -> tf.Tensor:
            is_jpeg = tf.io.is_jpeg(image)
            size = tf.cond(is_jpeg, lambda: headers.size_of_jpeg(image), lambda: headers.size_of_others(image))
            return self._header_fault(size)

        # A header that cannot be parsed itself has no fault to name.
        faults = tf.data.Dataset.from_tensors(encoded[index]).map(fault).ignore_errors(log_warning=False)
        reason = faults.concatenate(tf.data.Dataset.from_tensors("")).take(1).get_single_element()
        reason = tf.where(tf.equal(reason, ""), "corrupt or cut short", reason)
        return tf.strings.join(["image ", tf.strings.as_string(index), " of the batch cannot be read: ", reason])

    def _checked(self, size: tf.Tensor) -> tf.Tensor:
        """Return 0, int32; fail for a header, (height, width), that is unknown or claims too many pixels.

        The decoded pixels must depend on it. It fails by parsing the message as a number: an assertion has a state for
        TensorFlow, and under op determinism it would take the whole pipeline apart into single steps.
        """
        fault = self._header_fault(size)
        return tf.strings.to_number(tf.where(tf.equal(fault, ""), "0", fault), tf.int32)

    def _header_fault(self, size: tf.Tensor) -> tf.Tensor:
        """Return what is wrong with a header, (height, width), a string scalar; empty for nothing."""
        pixels = tf.reduce_prod(tf.cast(size, tf.int64))
        many = f"its header claims more than max_pixels={self.max_pixels:,}"
        unknown = "not a JPEG, PNG, BMP, GIF or WebP image, or one without pixels"
        return tf.where(pixels > 0, tf.where(pixels <= self.max_pixels, "", many), unknown)


def _plain_options() -> tf.data.Options:
    """Return options for a dataset of one batch, which is too short to be tuned or rearranged."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _decode_bmp_or_webp(encoded: tf.Tensor) -> tf.Tensor:
    """TensorFlow gives these as they are stored only: with transparency, or as indices into a BMP's palette."""
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


# How the stored pixels of each EXIF orientation lie: transposed, then upside down, then mirrored.
_TRANSPOSED, _UPSIDE_DOWN, _MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def _is(orientation: tf.Tensor, group: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(orientation == tf.constant(group))


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return stored pixels [h, w, 3] as they are to be seen."""
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
    choose: ChooseWindow, stored: tf.Tensor, orientation: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the window that `choose` takes of the upright image, in the stored one."""
    if orientation is None:
        return choose(stored)
    transposed = _is(orientation, _TRANSPOSED)
    shape = tf.where(transposed, tf.reverse(stored, [0]), stored)
    offset, size = choose(shape)
    flipped = tf.stack([_is(orientation, _UPSIDE_DOWN), _is(orientation, _MIRRORED)])
    offset = tf.where(flipped, shape - offset - size, offset)
    return tuple(tf.where(transposed, tf.reverse(pair, [0]), pair) for pair in (offset, size))
