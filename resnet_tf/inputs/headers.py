"""Headers of encoded images: format, size and orientation, read in graph operations without decoding."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from resnet_tf.inputs.formats import binary

_HEAD = 32  # bytes, enough for the header of every format except JPEG


@dataclass(frozen=True)
class _Header:
    """Position and encoding of height and width in the header of an image format.

    Each size is `number % modulus // divisor + added`, where `number` is stored in the bytes at the given offsets, or 0
    if there are none.

    Attributes:
        name: name of the format.
        signature: offset -> bytes by which the format is recognized.
        height: offsets of the bytes of the height, the least significant byte first.
        width: offsets of the bytes of the width, the least significant byte first.
        moduli: one for the height, one for the width.
        divisors: one for the height, one for the width.
        added: added to both sizes.
        signed: sizes are signed; a BMP stores a negative height if its rows run from top to bottom.
    """

    name: str
    signature: dict[int, bytes]
    height: range
    width: range
    moduli: tuple[int, int] = (2**32, 2**32)
    divisors: tuple[int, int] = (1, 1)
    added: int = 0
    signed: bool = False


# Order matters: the first matching signature decides.
_HEADERS = (
    _Header("PNG", {0: b"\x89PNG"}, range(23, 19, -1), range(19, 15, -1)),
    _Header("GIF", {0: b"GIF8"}, range(8, 10), range(6, 8)),
    _Header("BMP", {0: b"BM", 14: b"\x0c\0\0\0"}, range(20, 22), range(18, 20)),  # header of 12 bytes, of OS/2
    _Header("BMP", {0: b"BM"}, range(22, 26), range(18, 22), signed=True),
    # WebP, RFC 9649: lossy, lossless, extended.
    _Header("WebP", {0: b"RIFF", 8: b"WEBPVP8 "}, range(28, 30), range(26, 28), moduli=(2**14, 2**14)),
    _Header(
        "WebP", {0: b"RIFF", 8: b"WEBPVP8L"}, range(21, 25), range(21, 25), (2**28, 2**14), divisors=(2**14, 1), added=1
    ),
    _Header("WebP", {0: b"RIFF", 8: b"WEBPVP8X"}, range(27, 30), range(24, 27), added=1),
    _Header("other", {}, range(0), range(0)),
)
FORMATS = tuple(dict.fromkeys(each.name for each in _HEADERS))  # those that are not JPEG
_FORMAT_INDICES = [FORMATS.index(each.name) for each in _HEADERS]
_WEIGHTS = np.zeros((len(_HEADERS), 2, _HEAD), np.int64)
_SIGNATURES = np.full((len(_HEADERS), _HEAD), -1, np.int64)
for _format, _header in enumerate(_HEADERS):
    for _axis, _offsets in enumerate((_header.height, _header.width)):
        _WEIGHTS[_format, _axis, list(_offsets)] = 256 ** np.arange(len(_offsets))
    for _start, _bytes in _header.signature.items():
        _SIGNATURES[_format, _start : _start + len(_bytes)] = list(_bytes)
_MODULI, _DIVISORS = np.array([(each.moduli, each.divisors) for each in _HEADERS], np.int64).swapaxes(0, 1)
_ADDED, _SIGNED = (np.array([[getattr(each, name)] for each in _HEADERS]) for name in ("added", "signed"))

_MAX_SEGMENTS = 16  # before that with EXIF data, which cameras write first
_EXIF_NAME = b"Exif\0\0"  # before the data of EXIF
_ORIENTATION = 0x0112
_LONG = 4  # type of numbers of 4 bytes; the orientation is usually one of 2 bytes


def jpeg_size(encoded: tf.Tensor) -> tf.Tensor:
    """Return (height, width), int64 [2], according to the header of a JPEG.

    Args:
        encoded: image bytes, string scalar.

    Raises:
        tf.errors.InvalidArgumentError: if the header is corrupt.
    """
    return tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64)


def non_jpeg_size(encoded: tf.Tensor) -> tf.Tensor:
    """Return (height, width), int64 [2], according to the header of a PNG, GIF, BMP or WebP.

    The result is (0, 0) for any other format.

    Args:
        encoded: image bytes, string scalar.
    """
    head = _head(encoded)
    # One product and one comparison for all formats: separate operations for each format take longer than decoding a
    # small image.
    sizes = tf.linalg.matvec(_WEIGHTS, head) % _MODULI // _DIVISORS + _ADDED
    sizes = tf.where(_SIGNED, tf.minimum(sizes, 2**32 - sizes), sizes)
    return tf.gather(sizes, _find_header(head))


def stored_size(example: tf.Tensor) -> tf.Tensor:
    """Return (height, width), int64 [2], of an encoded image, string scalar, or of pixels, uint8 [h, w, C].

    The result is (0, 0) for an unknown format.

    Raises:
        tf.errors.InvalidArgumentError: if the header of a JPEG is corrupt.
    """
    if example.dtype != tf.string:
        return tf.shape(example, tf.int64)[:2]
    return tf.cond(tf.io.is_jpeg(example), lambda: jpeg_size(example), lambda: non_jpeg_size(example))


def non_jpeg_format(encoded: tf.Tensor) -> tf.Tensor:
    """Return the index in `FORMATS`, int32 scalar; that of the last for any other format."""
    return tf.gather(_FORMAT_INDICES, _find_header(_head(encoded)))


def _head(encoded: tf.Tensor) -> tf.Tensor:
    """Return the first bytes of an encoded image, int64 [32]; bytes beyond its end are 0."""
    return tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD), tf.int64)


def _find_header(head: tf.Tensor) -> tf.Tensor:
    """Return the index in `_HEADERS` of the header that begins with the bytes `head`, int64 [32]; int64 scalar."""
    return tf.argmax(tf.reduce_all((head == _SIGNATURES) | (_SIGNATURES < 0), axis=1))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)  # contained several times in a pipeline
def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation of a JPEG, int32 scalar from 1 (upright) to 8; 1 if absent or invalid.

    Reads only the headers of the first segments, and the first directory of the EXIF data.

    Reference: Exif 2.32, tag 0x0112.

    Args:
        encoded: image bytes, string scalar.
    """

    def read_segment(position: tf.Tensor) -> tf.Tensor:
        """Return marker, length and name of the segment at an offset, int64 [3]."""
        return binary.numbers(encoded, position, [2, 2, 4], big_endian=True)

    def is_skipped(_: tf.Tensor, segment: tf.Tensor) -> tf.Tensor:
        application_or_comment = (segment[0] // 16 == 0xFFE) | (segment[0] == 0xFFFE)
        return application_or_comment & ~_is_exif(segment)

    def skip(position: tf.Tensor, segment: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        following = position + 2 + segment[1]
        return following, read_segment(following)

    start = tf.constant(2, tf.int64)
    position, segment = tf.while_loop(is_skipped, skip, (start, read_segment(start)), maximum_iterations=_MAX_SEGMENTS)
    return tf.cond(_is_exif(segment), lambda: _read_orientation(encoded, position + 10), lambda: tf.constant(1))


def orientation_of(exif: bytes) -> int:
    """Return the orientation in EXIF data, as `exif_orientation` does; a name at their beginning may be absent."""
    return int(_read_orientation(tf.constant(exif.removeprefix(_EXIF_NAME)), tf.constant(0, tf.int64)))


def _is_exif(segment: tf.Tensor) -> tf.Tensor:
    return (segment[0] == 0xFFE1) & (segment[2] == 0x45786966)  # APP1, "Exif"


def _read_orientation(encoded: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Return the orientation in the EXIF data at an offset, int32 scalar; 1 if absent or invalid."""
    little = binary.numbers(encoded, tiff, [2])[0] == 0x4949

    def number(position: tf.Tensor, size: int) -> tf.Tensor:
        both = (binary.numbers(encoded, position, [size], big_endian=big_endian)[0] for big_endian in (False, True))
        return tf.where(little, *both)

    directory = tiff + number(tiff + 4, 4)
    start, count = directory + 2, number(directory, 2)
    data = tf.io.decode_raw(binary.between(encoded, start, start + 12 * count), tf.uint8)
    pairs = tf.reshape(tf.cast(data[: tf.size(data) // 12 * 12], tf.int32), [-1, 6, 2])
    pairs = tf.where(little, tf.reverse(pairs, [2]), pairs)
    tag, type_, _, _, first, second = tf.unstack(256 * pairs[..., 0] + pairs[..., 1], axis=1)
    high, low = (tf.where(little, *each) for each in ((second, first), (first, second)))
    found = tf.where(type_ == _LONG, 2**16 * high + low, first)
    orientation = tf.reduce_max(tf.where(tag == _ORIENTATION, found, 1))
    return tf.where((orientation >= 1) & (orientation <= 8), orientation, 1)
