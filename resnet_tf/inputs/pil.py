"""Conversion of PIL images to pixels.

PIL is an optional dependency: it is imported only for PIL images, which a caller creates with PIL.
"""

import sys
from typing import Any

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import headers, orientation

# `Image.format` of images whose EXIF orientation is applied, JPEGs as in `Decoder`; None: an image created in memory.
_WITH_ORIENTATION = (None, "JPEG", "MPO")


def is_pil_image(example: Any) -> bool:
    """Return whether an object is a `PIL.Image.Image`, without importing PIL."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(example, module.Image)


def to_pixels(image: Any, *, exif_orientation: bool) -> np.ndarray:
    """Convert a PIL image to RGB, uint8 [height, width, 3].

    The pixels equal those of `ImagePreprocess.decode` for the same file. Alpha channels are dropped. Of 16-bit
    channels, the upper 8 bits are kept.

    Args:
        image: `PIL.Image.Image` in any mode with 8 or 16 bits per channel.
        exif_orientation: rotate a JPEG upright according to its EXIF orientation.

    Raises:
        UserError: if the mode is not supported, or the file of the image is corrupt or incomplete.
    """
    if image.mode in ("F", "I"):
        raise UserError(f"a PIL image of mode {image.mode!r} has no fixed range of values; convert it to 'RGB' or 'L'")
    try:
        pixels = _to_rgb(image)
    except Exception as error:  # PIL's decoders have no common class of errors: a broken PNG is a SyntaxError
        raise UserError(f"PIL cannot read the image: {error}") from error
    if not exif_orientation or image.format not in _WITH_ORIENTATION:
        return pixels
    # Not `ImageOps.exif_transpose`, which also applies an orientation in XMP data.
    return orientation.rotate(pixels, headers.orientation_of(image.info.get("exif", b""))).numpy()


def _to_rgb(image: Any) -> np.ndarray:
    """Convert a PIL image as stored to RGB, uint8 [height, width, 3]."""
    if image.mode.startswith("I;16"):
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[..., np.newaxis], 3, axis=-1)
    if "transparency" in image.info:  # by way of RGBA, which keeps the color of transparent pixels
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
