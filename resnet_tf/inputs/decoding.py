"""Image decoding with TensorFlow operations, which are also part of exported models.

An example is an encoded image (JPEG, PNG, BMP, WebP or the first frame of a GIF), string scalar; or pixels, uint8
[h, w, 1 or 3]. Alpha channels are dropped, as in PIL's `convert("RGB")`.

Before TensorFlow decodes an image, its bytes are checked: `formats` bounds time and memory of each format.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from resnet_tf.inputs import headers, orientation
from resnet_tf.inputs.base import ChooseWindow
from resnet_tf.inputs.deferred import deferred
from resnet_tf.inputs.formats import binary, bmp, frames
from resnet_tf.inputs.formats.inspection import inspect, inspect_jpeg

# The method of PIL. TensorFlow's default is less exact, which lowers the accuracy of pretrained networks, and is not
# faster with a vectorized JPEG library.
_DCT = "INTEGER_ACCURATE"
_PARALLEL = 16  # largest number of images decoded in parallel; tf.data uses at most one thread per core
_RATIOS = (1, 2, 4, 8)  # factors by which the JPEG library can downscale while it decodes
_UNPARSED = "corrupt or cut short"
_UPRIGHT = 1  # EXIF orientation

# From an encoded image, string scalar, and the largest number of its pixels, int64 scalar, to a crop, float32
# [height, width, 3].
Crop = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Decoder:
    """Decoder of images to RGB.

    Attributes:
        max_pixels: largest number of pixels; an image with more, according to its header, is rejected before decoding.
            Encodings that take more time or memory per pixel than a JPEG with one scan have a lower limit.
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
        pixels, rotation = self.decode_stored(example)
        return pixels if rotation is None else orientation.rotate(pixels, rotation)

    def decode_stored(
        self, example: tf.Tensor, max_pixels: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Decode one image without rotation; see `decode`.

        Args:
            example: as for `decode`.
            max_pixels: a lower limit, int64 scalar.

        Returns:
            RGB as stored, uint8 [h, w, 3], and the EXIF orientation to rotate it by, int32 scalar; None for pixels, and
            if orientations are not applied.
        """
        if example.dtype == tf.uint8:
            return example if example.shape[-1] == 3 else tf.image.grayscale_to_rgb(example), None
        pixels = _traced(self, "_decode_encoded")(example, self._limit(max_pixels))
        return pixels, self._orientation(example)

    def fault(self, example: tf.Tensor, max_pixels: tf.Tensor | None = None) -> tf.Tensor:
        """Return the reason to refuse an encoded image before it is decoded, string scalar; empty if there is none.

        Raises:
            tf.errors.InvalidArgumentError: if the header of a JPEG is corrupt.
        """
        return _traced(self, "_inspect")(example, self._limit(max_pixels)).fault

    def _limit(self, max_pixels: tf.Tensor | None) -> tf.Tensor:
        return tf.constant(self.max_pixels, tf.int64) if max_pixels is None else max_pixels

    @property
    def _too_large(self) -> str:
        return f"its header claims more than max_pixels={self.max_pixels:,}"

    def _inspect(self, encoded: tf.Tensor, max_pixels: tf.Tensor) -> frames.Frame:
        return inspect(encoded, max_pixels, self._too_large)

    def _inspect_jpeg(self, encoded: tf.Tensor, max_pixels: tf.Tensor) -> frames.Frame:
        return inspect_jpeg(encoded, max_pixels, self._too_large)

    def _decode_encoded(self, encoded: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
        frame = _traced(self, "_inspect")(encoded, max_pixels)
        checked = binary.between(frame.encoded, binary.zero_unless(frame.fault), tf.int32.max)
        decoders = {
            "BMP": lambda: bmp.decode(checked),
            "other": lambda: tf.io.decode_image(checked, channels=3, expand_animations=False),
        }
        others = [deferred(decoders.get(name, decoders["other"])) for name in headers.FORMATS]
        pixels = tf.cond(
            tf.io.is_jpeg(checked),
            lambda: tf.io.decode_jpeg(checked, channels=3, dct_method=_DCT),
            lambda: tf.switch_case(headers.non_jpeg_format(checked), others),
        )
        return frames.put_on_canvas(tf.ensure_shape(pixels, (None, None, 3)), frame)

    def _orientation(self, encoded: tf.Tensor) -> tf.Tensor | None:
        """Return the EXIF orientation of an encoded image, int32 scalar; None if orientations are not applied."""
        if not self.exif_orientation:
            return None
        return tf.cond(tf.io.is_jpeg(encoded), lambda: headers.exif_orientation(encoded), lambda: _UPRIGHT)

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
            frame = _traced(self, "_inspect_jpeg")(example, self._limit(None))
            rotation = headers.exif_orientation(example) if self.exif_orientation else None
            offset, size = _choose_stored(choose, tf.cast(frame.size, tf.int32), rotation)
            window = tf.concat([offset, size], 0) + binary.zero_unless(frame.fault)

            def at_scale(ratio: int) -> tf.Tensor:
                return tf.raw_ops.DecodeAndCropJpeg(
                    contents=frame.encoded, crop_window=window // ratio, channels=3, ratio=ratio, dct_method=_DCT
                )

            pixels = tf.switch_case(ratio_index(size), [functools.partial(at_scale, ratio) for ratio in _RATIOS])
            return (
                pixels if rotation is None else orientation.rotate(tf.ensure_shape(pixels, (None, None, 3)), rotation)
            )

        def decode_other() -> tf.Tensor:
            image, _ = self.decode_stored(example)
            offset, size = choose(tf.shape(image)[:2])
            window = tf.slice(image, tf.concat([offset, [0]], 0), tf.concat([size, [3]], 0))
            ratio = tf.gather(tf.constant(_RATIOS), ratio_index(size))
            return tf.cast(tf.round(tf.image.resize(window, size // ratio, method="area")), tf.uint8)

        if example.dtype == tf.uint8:
            window = decode_other()
        else:
            window = tf.cond(tf.io.is_jpeg(example), decode_jpeg, deferred(decode_other))
        return tf.ensure_shape(window, (None, None, 3))

    def decode_batch(self, encoded: tf.Tensor, crop: Crop, size: tuple[int, int]) -> tf.Tensor:
        """Decode and crop a batch of images to float32 [B, height, width, 3].

        Images are decoded in parallel, those with many pixels after the others, and only so many at a time that they
        have `max_pixels` together. This bounds the memory for a batch.

        Args:
            encoded: encoded images, string [B].
            crop: see `Crop`.
            size: (height, width) of the crops, in pixels.

        Raises:
            tf.errors.InvalidArgumentError: if `decode` rejects an image; the message states the image's index in the
                batch.
        """
        count = tf.size(encoded, out_type=tf.int64)
        small, large = (tf.constant(limit, tf.int64) for limit in (self.max_pixels // _PARALLEL, self.max_pixels))
        indices, images = _readable(lambda index: crop(encoded[index], small), tf.range(count), size)

        def decode_large(index: tf.Tensor) -> tf.Tensor:
            image = encoded[index]
            # Corrupt images, which have no fault, are not decoded again.
            fault = tf.where(self.fault(image, small) == "", _UNPARSED, "")
            return crop(binary.between(image, binary.zero_unless(fault), tf.int32.max), large)

        def with_large() -> tuple[tf.Tensor, tf.Tensor]:
            others = tf.sets.difference(tf.range(count)[tf.newaxis], indices[tf.newaxis]).values
            found, crops = _readable(decode_large, others, size, parallel=self._parallel(encoded, others))
            order = tf.argsort(tf.concat([indices, found], 0))
            return tf.gather(tf.concat([indices, found], 0), order), tf.gather(tf.concat([images, crops], 0), order)

        indices, images = tf.cond(tf.size(indices, tf.int64) < count, deferred(with_large), lambda: (indices, images))
        unreadable = tf.sets.difference(tf.range(count)[tf.newaxis], indices[tf.newaxis]).values
        explain = deferred(lambda: self._explain(encoded, unreadable[0]))
        explanation = tf.cond(tf.size(unreadable) > 0, explain, lambda: "")
        with tf.control_dependencies([tf.debugging.Assert(tf.size(unreadable) == 0, [explanation])]):
            return tf.ensure_shape(images, (None, *size, 3))

    def _parallel(self, encoded: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        """Return how many of the images may be decoded in parallel, so that together they have `max_pixels`, int64."""

        def pixels(index: tf.Tensor) -> tf.Tensor:
            image = encoded[index]
            # Only the header of a JPEG states the true size.
            return tf.cond(
                tf.io.is_jpeg(image),
                lambda: tf.reduce_prod(headers.jpeg_size(image)),
                lambda: tf.constant(self.max_pixels, tf.int64),
            )

        sizes = tf.data.Dataset.from_tensor_slices(indices).map(pixels).ignore_errors(log_warning=False)
        largest = sizes.with_options(_plain_options()).reduce(tf.constant(1, tf.int64), tf.maximum)
        return tf.clip_by_value(self.max_pixels // largest, 1, _PARALLEL)

    def _explain(self, encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Return an error message for the unreadable image at `index`, string scalar."""
        # The reason is empty if the header is acceptable, or if `fault` fails because the header cannot be parsed.
        faults = tf.data.Dataset.from_tensors(encoded[index]).map(self.fault).ignore_errors(log_warning=False)
        reason = faults.concatenate(tf.data.Dataset.from_tensors("")).take(1).get_single_element()
        reason = tf.where(tf.equal(reason, ""), _UNPARSED, reason)
        return tf.strings.join(["image ", tf.strings.as_string(index), " of the batch cannot be read: ", reason])


@functools.cache
def _traced(decoder: Decoder, method: str) -> Callable[[tf.Tensor, tf.Tensor], Any]:
    """Return a method of a decoder that is traced once, since pipelines and signatures contain it several times."""
    signature = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)]
    return tf.function(getattr(decoder, method), input_signature=signature, autograph=False)


def _readable(
    function: Callable[[tf.Tensor], tf.Tensor],
    indices: tf.Tensor,
    size: tuple[int, int],
    *,
    parallel: int | tf.Tensor = _PARALLEL,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode and crop the images at some indices, skipping unreadable ones.

    Args:
        function: function from the index of an image to its crop, float32 [height, width, 3].
        indices: indices of the images, int64 [n].
        size: (height, width) of the crops, in pixels.
        parallel: number of images decoded in parallel.

    Returns:
        The indices of the readable images in their order, int64 [m], and their crops, float32 [m, height, width, 3].
    """

    def crop_at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index, tf.cond(index < 0, lambda: tf.zeros([*size, 3]), lambda: function(index))

    # `ignore_errors` skips unreadable images, so the indices in the output show which images are missing. Index -1 is a
    # black image, because `get_single_element` needs a batch even if no image is readable.
    images = tf.data.Dataset.from_tensor_slices(tf.concat([[-1], indices], 0)).map(crop_at, num_parallel_calls=parallel)
    images = images.ignore_errors(log_warning=False).batch(tf.size(indices, tf.int64) + 1)
    found, crops = images.with_options(_plain_options()).get_single_element()
    return found[1:], crops[1:]


def _plain_options() -> tf.data.Options:
    """Return options without autotuning and graph optimization, which take longer than they save in one batch."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _choose_stored(choose: ChooseWindow, stored: tf.Tensor, rotation: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Choose a window of the upright image, and return its offset and size in the image as stored."""
    if rotation is None:
        return choose(stored)
    shape = orientation.upright_shape(stored, rotation)
    return orientation.stored_window(shape, *choose(shape), rotation)
