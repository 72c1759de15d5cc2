"""Image headers and EXIF orientations, compared with PIL."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from resnet_tf.inputs import ImagePreprocess, headers

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8))
PREPROCESS = ImagePreprocess(size=(16, 16), exif_orientation=True)


def _encoded(file_format: str, image: Image.Image = IMAGE, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _extended_webp() -> bytes:
    return _encoded("WEBP", IMAGE.convert("RGBA"), exif=Image.Exif().tobytes())


def _upside_down_bmp() -> bytes:
    """Return a BMP whose rows run from top to bottom, which is stored as a negative height."""
    data = bytearray(_encoded("BMP"))
    data[22:26] = struct.pack("<i", -37)
    return bytes(data)


def _os2_bmp() -> bytes:
    """Return a BMP with the header of OS/2, of 12 bytes."""
    data = _encoded("BMP")
    start = int.from_bytes(data[10:14], "little")
    return data[:10] + struct.pack("<IIHHHH", 26, 12, 53, 37, 1, 24) + data[start:]


@pytest.mark.parametrize(
    "encoded",
    [
        _encoded("PNG"),
        _encoded("GIF"),
        _encoded("BMP"),
        _upside_down_bmp(),
        _os2_bmp(),
        _encoded("WEBP"),
        _encoded("WEBP", lossless=True),
        _extended_webp(),
    ],
    ids=["png", "gif", "bmp", "bmp upside down", "bmp of OS/2", "webp lossy", "webp lossless", "webp extended"],
)
def test_sizes_are_read_from_the_header(encoded):
    assert Image.open(io.BytesIO(encoded)).size == (53, 37)
    assert headers.non_jpeg_size(tf.constant(encoded)).numpy().tolist() == [37, 53]


def test_large_sizes_and_unknown_formats():
    png = bytearray(_encoded("PNG"))
    png[16:24] = struct.pack(">II", 2**32 - 1, 70_000)
    assert headers.non_jpeg_size(tf.constant(bytes(png))).numpy().tolist() == [70_000, 2**32 - 1]
    lossless = bytearray(_encoded("WEBP", lossless=True))
    lossless[21:25] = struct.pack("<I", (9_999 << 14) | 16_383)
    assert headers.non_jpeg_size(tf.constant(bytes(lossless))).numpy().tolist() == [10_000, 16_384]
    for unknown in (b"", b"\x89", b"II*\x00" + bytes(40), b"RIFF....WAVE", bytes(100)):
        assert headers.non_jpeg_size(tf.constant(unknown)).numpy().tolist() == [0, 0]


def _photo(orientation: int, **options) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    return _encoded("JPEG", exif=exif, quality=95, **options)


def _exif(entry: bytes, order: str = ">") -> bytes:
    """Return a segment with EXIF data of one entry, in big-endian or little-endian order."""
    tiff = {">": b"MM\x00\x2a", "<": b"II\x2a\x00"}[order] + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(tiff)) + b"Exif\x00\x00" + tiff


def _big_endian(orientation: int) -> bytes:
    """Return a JPEG with EXIF data in big-endian order, after a comment and an ICC profile."""
    exif = _exif(struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0))
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 5) + b"hello"
    profile = b"\xff\xe2" + struct.pack(">H", 2 + 300) + bytes(300)
    return b"\xff\xd8" + comment + profile + exif + _encoded("JPEG", quality=95)[2:]


def _long(orientation: int, order: str = ">") -> bytes:
    """Return a JPEG whose orientation is a number of 4 bytes."""
    return b"\xff\xd8" + _exif(struct.pack(f"{order}HHII", 0x0112, 4, 1, orientation), order) + _photo(1)[2:]


def _long_little_endian(orientation: int) -> bytes:
    return _long(orientation, "<")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("write", [_photo, _big_endian, _long, _long_little_endian])
def test_photos_are_rotated_upright_as_by_pil(write, orientation):
    encoded = tf.constant(write(orientation))
    assert headers.exif_orientation(encoded).numpy() == orientation
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded.numpy()))))
    np.testing.assert_array_equal(PREPROCESS.decode(encoded), upright)
    ignored = ImagePreprocess(size=(16, 16)).decode(encoded)
    np.testing.assert_array_equal(ignored, np.asarray(Image.open(io.BytesIO(encoded.numpy()))))
    offset, size = tf.constant([8, 5]), tf.constant([20, 24])
    window = PREPROCESS.decode_window(encoded, lambda shape: (offset + 0 * shape, size), at_least=(20, 24))
    assert window.shape == (20, 24, 3)
    differences = np.abs(window.numpy().astype(int) - upright[8:28, 5:29])
    assert differences[2:-2, 2:-2].max() <= 12, (
        "color is interpolated at the edge of the window as at the edge of the image"
    )


XMP = b'http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
# JPEG -> the orientation that is applied.
PHOTOS = {
    "EXIF": (_photo(6), 6),
    "EXIF, mirrored": (_big_endian(7), 7),
    "a number of 4 bytes": (_long(8), 8),
    "a number of 4 bytes that is out of range": (_long(2**16 + 6), 1),
    "XMP alone": (b"\xff\xd8\xff\xe1" + struct.pack(">H", 2 + len(XMP)) + XMP + _encoded("JPEG")[2:], 1),
    "none": (_encoded("JPEG"), 1),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_an_image_of_pil_has_the_pixels_of_its_file(name):
    encoded, orientation = PHOTOS[name]
    assert headers.exif_orientation(tf.constant(encoded)).numpy() == orientation
    for preprocess in (PREPROCESS, ImagePreprocess(size=(16, 16))):
        image = Image.open(io.BytesIO(encoded))
        pixels = preprocess.decode(tf.constant(preprocess.encode(image)))
        np.testing.assert_array_equal(pixels, preprocess.decode(tf.constant(encoded)))


def test_the_orientation_is_found_behind_a_long_color_profile():
    profile = b"\xff\xe2" + struct.pack(">H", 60_000) + bytes(59_998)
    encoded = b"\xff\xd8" + 4 * profile + _photo(6)[2:]
    assert Image.open(io.BytesIO(encoded)).getexif()[0x0112] == 6
    assert headers.exif_orientation(tf.constant(encoded)).numpy() == 6


def test_the_crop_of_a_rotated_photo_is_chosen_in_the_upright_image():
    shapes = []

    def choose(shape):
        shapes.append(shape.numpy().tolist())
        return tf.constant([0, 0]), tf.constant([16, 16])

    tf.config.run_functions_eagerly(True)
    try:
        PREPROCESS.decode_window(tf.constant(_photo(6)), choose, at_least=(16, 16))
    finally:
        tf.config.run_functions_eagerly(False)
    assert shapes == [[53, 37]]


@pytest.mark.parametrize(
    "encoded",
    [
        _encoded("JPEG"),
        _photo(9),
        _photo(0),
        _photo(6)[:30],
        b"\xff\xd8\xff\xe1\xff\xffExif\x00\x00II*\x00\xff\xff\xff\xff",
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 40,
        b"\xff\xd8\xff",
    ],
    ids=["none", "out of range", "zero", "cut off", "wild offset", "no end", "nothing"],
)
def test_pixels_are_unchanged_without_a_valid_orientation(encoded):
    assert headers.exif_orientation(tf.constant(encoded)).numpy() == 1
