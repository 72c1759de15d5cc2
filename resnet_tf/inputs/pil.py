"""Images of PIL, which is not a requirement: whoever passes one has imported it."""

import sys
from typing import Any

import numpy as np

from resnet_tf.core.errors import UserError

# Formats whose EXIF orientation counts, as it does in a file; None is an image that was processed in memory.
_WITH_ORIENTATION = (None, "JPEG", "MPO")


def is_pil_image(example: Any) -> bool:
    """Return whether an object is a `PIL.Image.Image`, without importing PIL."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(example, module.Image)


def to_pixels(image: Any, *, exif_orientation: bool) -> np.ndarray:
    """Return an image of PIL as `ImagePreprocess.decode` returns its file: uint8 [height, width, 3] RGB.

    Transparency is dropped, and of 16 bits the upper 8 are kept.

    Args:
        image: of any mode with 8 or 16 bits a channel.
        exif_orientation: turn the image upright as its EXIF data say, if it comes from a JPEG.

    Raises:
        UserError: for another mode, or a file that PIL cannot read to its end.
    """
    from PIL import ImageOps

    if image.mode in ("F", "I"):
        raise UserError(f"a PIL image of mode {image.mode!r} has no range; convert it to 'RGB' or 'L'")
    try:
        if exif_orientation and image.format in _WITH_ORIENTATION:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            gray = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(gray[..., np.newaxis], 3, axis=-1)
        if "transparency" in image.info:  # of a palette or one color: the color stays, the transparency goes
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UserError(f"PIL cannot read the image: {error}") from error
