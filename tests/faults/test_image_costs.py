"""Encoded images of every format: odd ones are decoded as PIL does or refused, and none costs much.

Decoders are native code: what could end the process runs in one of its own.
"""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from resnet_tf.core.errors import UserError
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.inputs.formats import jpeg
from resnet_tf.model.create import create_model
from resnet_tf.serving.export import export_model
from resnet_tf.serving.predictor import Predictor

MAX_SECONDS, MAX_MEGABYTES, MAX_BYTES = 2.0, 400, 2**20
PREPROCESS = ImagePreprocess(size=(32, 32))


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _encode(image: Image.Image, file_format: str, **settings) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, file_format, **settings)
    return encoded.getvalue()


def _patch(encoded: bytes, position: int, content: bytes) -> bytes:
    return encoded[:position] + content + encoded[position + len(content) :]


def _progressive(width: int, repeats: int, mode: str = "L") -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = _encode(Image.new(mode, (width, width)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * repeats + b"\xff\xd9"


def _sequential(width: int, segments: int, scans: int) -> bytes:
    """Return a JPEG with comments that look like the header of a scan, and with empty scans of one component."""
    data = _encode(Image.new("RGB", (width, width)), "JPEG")
    comment, scan = b"\xff\xfe\x00\x03\x03", b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    return data[: data.rindex(b"\xff\xda")] + comment * segments + scan * scans + b"\xff\xd9"


def _png(width: int, height: int, depth: int, color: int, *, interlaced: bool = False) -> bytes:
    """Return a black PNG of any bit depth and color type."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    row = 1 + (width * channels * depth + 7) // 8
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    compressor = zlib.compressobj(9)
    data = b"".join(compressor.compress(bytes(row)) for _ in range(height)) + compressor.flush()
    palette = [(b"PLTE", bytes(3))] if color == 3 else []
    chunks = [(b"IHDR", header), *palette, (b"IDAT", data), (b"IEND", b"")]
    parts = (
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _frames(file_format: str, count: int, size: tuple[int, int], **settings) -> bytes:
    frames = [Image.fromarray(_noise(size[1], size[0], 3) // (index % 9 + 1)) for index in range(count)]
    return _encode(frames[0], file_format, save_all=True, append_images=frames[1:], **settings)


def _gif_screen(width: int, height: int, screen: tuple[int, int]) -> bytes:
    return _patch(_encode(Image.new("P", (width, height)), "GIF"), 6, struct.pack("<HH", *screen))


PHOTO = Image.fromarray(_noise(40, 56, 3))
# Odd images that PIL reads: TensorFlow's decoders alone abort, refuse or change some of them.
READABLE = {
    "animated WebP": _frames("WEBP", 3, (56, 40), lossless=True),
    "animated WebP, lossy": _frames("WEBP", 3, (56, 40)),
    "WebP with alpha": _encode(PHOTO.convert("RGBA"), "WEBP", lossless=True),
    "animated GIF": _frames("GIF", 3, (56, 40)),
    "GIF, smaller screen": _gif_screen(56, 40, (10, 10)),
    "GIF, larger screen": _gif_screen(56, 40, (80, 60)),
    "BMP, 1 bit": _encode(PHOTO.convert("1"), "BMP"),
    "BMP, 8 bits": _encode(PHOTO.convert("P"), "BMP"),
    "BMP, gray": _encode(PHOTO.convert("L"), "BMP"),
    "BMP, more bytes": _encode(PHOTO, "BMP") + b"\0" * 7,
    "PNG, palette": _encode(PHOTO.convert("P"), "PNG"),
    "PNG, 1 bit": _encode(PHOTO.convert("1"), "PNG"),
    "PNG, gray and alpha": _encode(PHOTO.convert("LA"), "PNG"),
    "JPEG, progressive": _encode(PHOTO, "JPEG", progressive=True, quality=90),
    "JPEG, gray": _encode(PHOTO.convert("L"), "JPEG"),
}
TOLERANCE = {"animated WebP, lossy": 6, "JPEG, progressive": 6, "JPEG, gray": 2}


@pytest.mark.parametrize("name", READABLE)
def test_odd_images_are_decoded_as_by_pil(name):
    expected = np.asarray(Image.open(io.BytesIO(READABLE[name])).convert("RGB"))
    found = PREPROCESS.decode(tf.constant(READABLE[name])).numpy()
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= TOLERANCE.get(name, 0)


def _hostile() -> dict[str, bytes]:
    webp, gif = READABLE["animated WebP"], READABLE["animated GIF"]
    bmp, png, jpeg = (_encode(PHOTO, name) for name in ("BMP", "PNG", "JPEG"))
    cases = {
        "WebP, flag of an animation alone": _patch(_encode(PHOTO, "WEBP"), 12, b"VP8X"),
        "WebP, no frame": webp[: webp.index(b"ANMF")],
        "WebP, larger canvas claimed by a frame": webp.replace(b"ANMF", b"JUNK"),
        "GIF, no frame": gif[:13] + b";",
        "GIF, endless extensions": gif[:13] + b"\x21\xfe\x01x\x00" * 10_000,
        "GIF, empty frame": _patch(_gif_screen(56, 40, (56, 40)), 13, b"\x2c" + bytes(9)),
        "BMP, compressed": _patch(bmp, 30, struct.pack("<I", 1)),
        "BMP, pixels beyond the end": _patch(bmp, 10, struct.pack("<I", 2**31)),
        "BMP, largest sizes": _patch(bmp, 18, struct.pack("<ii", 2**31 - 1, -(2**31))),
        "BMP, no header": b"BM" + bytes(8),
        "PNG, no pixels": _patch(png, 16, struct.pack(">II", 0, 0)),
        "JPEG, no frame": jpeg[:20],
        "empty": b"",
        "text": b"not an image",
        "TIFF": _encode(PHOTO, "TIFF"),
    }
    stills = {name: _encode(PHOTO, name) for name in ("WebP", "GIF")} | {"BMP": bmp, "PNG": png, "JPEG": jpeg}
    for name, data in stills.items():
        for end in (2, 9, 14, 31, len(data) // 2):
            cases[f"{name}, {end} bytes"] = data[:end]
    return cases


_DECODE = """
import json, sys
import tensorflow as tf
from resnet_tf.inputs import ImagePreprocess
preprocess = ImagePreprocess(size=(32, 32))
for name, code in json.load(open(sys.argv[1])).items():
    example = tf.constant(bytes.fromhex(code))
    print(json.dumps([name, preprocess.explain_unreadable(example)]), flush=True)
"""


def test_hostile_images_are_refused_and_end_no_process(tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps({name: data.hex() for name, data in _hostile().items()}))
    command = [sys.executable, "-c", _DECODE, str(tmp_path / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    answers = dict(map(json.loads, done.stdout.splitlines()))
    assert done.returncode == 0, (list(answers)[-1:], done.stderr[-500:])
    assert answers.keys() == _hostile().keys()
    # TensorFlow shows the rows of a JPEG or PNG that is cut short only if it is asked to.
    accepted = {name for name, reason in answers.items() if not reason}
    assert not accepted, accepted


@pytest.mark.parametrize(
    ("segments", "message"), [(3, "100000 scans, too many"), (1100, "no scan after at most 1,024 segments")]
)
def test_segments_before_the_scans_of_a_jpeg_hide_no_scan(segments, message):
    encoded = _sequential(256, segments, 100_000)
    assert message in PREPROCESS.explain_unreadable(tf.constant(encoded))


def test_a_jpeg_of_many_segments_and_one_scan_is_decoded():
    data = READABLE["JPEG, gray"]
    found = PREPROCESS.decode(tf.constant(data[:2] + b"\xff\xfe\x00\x03\x03" * 1100 + data[2:]))
    np.testing.assert_array_equal(found, PREPROCESS.decode(tf.constant(data)))


_check_jpeg = tf.function(
    jpeg.check, input_signature=[tf.TensorSpec([], tf.string), *[tf.TensorSpec([], tf.int64)] * 2], autograph=False
)


def _is_decoded(decode, encoded: bytes) -> bool:
    try:
        decode(encoded)
    except (OSError, tf.errors.InvalidArgumentError):
        return False
    return True


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_short_is_refused_whatever_its_limits(progressive):
    """Scans are counted above half of `max_pixels`, and with many pairs of bytes like those of a scan."""
    photo = Image.fromarray(_noise(20, 30, 3)).resize((240, 160))
    whole = _encode(photo, "JPEG", quality=90, progressive=progressive)
    whole = whole[:2] + b"\xff\xfe\x00\x04\xff\xda" * 20 * progressive + whole[2:]

    def decode_counted(encoded: bytes) -> tf.Tensor:
        fault, checked = _check_jpeg(encoded, 240 * 160, 240 * 160 * (1 + progressive))
        assert fault == ""
        return PREPROCESS.decode(checked)

    decoders = [
        lambda encoded: Image.open(io.BytesIO(encoded)).load(),
        lambda encoded: PREPROCESS.decode(tf.constant(encoded)),
        decode_counted,
    ]
    start = whole.index(b"\xff\xda\x00")
    for length in (start + 20, (start + len(whole)) // 2, len(whole) - 3, len(whole) - 2, len(whole) - 1):
        assert not any(_is_decoded(decode, whole[:length]) for decode in decoders), length
    assert all(_is_decoded(decode, whole) for decode in decoders)
    np.testing.assert_array_equal(decode_counted(whole), PREPROCESS.decode(tf.constant(whole)))


# Small files with a large cost, each of at most 1 MB.
COSTLY = {
    "GIF, larger than its screen": lambda: _gif_screen(8000, 8000, (10, 10)),
    "GIF, 200 frames": lambda: _frames("GIF", 200, (60, 40)),
    "GIF, 12,000 tiny frames of a large screen": lambda: _many_frames(),
    "JPEG, 500 scans": lambda: _progressive(2048, 500),
    "JPEG, 3,000 scans": lambda: _progressive(512, 3000, "RGB"),
    "JPEG, 99,000 scans after 1,100 comments": lambda: _sequential(512, 1100, 99_000),
    "JPEG, large": lambda: _encode(Image.new("RGB", (8000, 8000)), "JPEG", quality=20),
    "JPEG, large and progressive": lambda: _encode(Image.new("RGB", (8000, 8000)), "JPEG", quality=5, progressive=True),
    "JPEG, wide": lambda: _encode(Image.new("RGB", (65000, 1000)), "JPEG", quality=20),
    "WebP, large and lossless": lambda: _encode(Image.new("RGB", (8192, 8192)), "WEBP", lossless=True),
    "WebP, large and lossy": lambda: _encode(Image.new("RGB", (8192, 8192)), "WEBP", quality=1),
    "WebP, wide": lambda: _encode(Image.new("RGB", (16383, 4000)), "WEBP", lossless=True),
    "PNG, large": lambda: _png(8192, 8192, 8, 2),
    "PNG, large, 16 bits and alpha": lambda: _png(8000, 8000, 16, 6),
    "PNG, large and interlaced": lambda: _png(8000, 8000, 8, 0, interlaced=True),
    "PNG, large, 1 bit": lambda: _png(8192, 8192, 1, 0),
    "PNG, wide": lambda: _png(2**20, 60, 8, 2),
    "BMP, 1 bit": lambda: _encode(Image.new("1", (2800, 2800)), "BMP"),
}


def _many_frames() -> bytes:
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\x00\x02\x02D\x01\x00"
    return b"GIF89a" + struct.pack("<HH", 4000, 4000) + b"\x80\x00\x00" + bytes(6) + frame * 12_000 + b";"


_MEASURE = """
import json, re, sys, time
from resnet_tf.serving.predictor import Predictor
predictor, cases = Predictor(sys.argv[1]), sys.argv[2:]
predictor(cases[0])

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

for path in cases[1:]:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets VmHWM, the largest VmRSS
    base, start = memory("VmRSS"), time.process_time()  # of all threads
    try:
        predictor(path)
        reason = ""
    except ValueError as error:
        reason = str(error)
    seconds = time.process_time() - start
    print(json.dumps([seconds, memory("VmHWM") - base, reason]))
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    model = create_model("resnet8_w32", num_classes=3, input_shape=(32, 32, 3))
    return export_model(model, tmp_path_factory.mktemp("export"), labels=list("abc"), preprocess=PREPROCESS)


@pytest.mark.slow
def test_no_small_image_takes_much_time_or_memory(export, tmp_path):
    """The time is CPU time, which other processes do not lengthen; its limit has a margin of four for slow machines."""
    (tmp_path / "small.png").write_bytes(_encode(PHOTO, "PNG"))
    paths = [str(tmp_path / "small.png")]
    for number, make in enumerate(COSTLY.values()):
        (tmp_path / f"{number}").write_bytes(content := make())
        assert len(content) <= MAX_BYTES
        paths.append(str(tmp_path / f"{number}"))
    command = [sys.executable, "-c", _MEASURE, str(export), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    for name, line in zip(COSTLY, done.stdout.splitlines(), strict=True):
        seconds, megabytes, reason = json.loads(line)
        print(f"{name}: {seconds:.2f} s, {megabytes:.0f} MB, {reason}")
        assert megabytes <= MAX_MEGABYTES, name
        assert seconds <= 4 * MAX_SECONDS, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GIF, larger than its screen", "half of max_pixels"),
        ("JPEG, 500 scans", "scans, too many for its number of pixels"),
        ("PNG, large, 16 bits and alpha", "max_pixels allows for its bits per pixel"),
    ],
)
def test_costly_images_are_refused_by_name(name, message, export, tmp_path):
    (tmp_path / "costly").write_bytes(COSTLY[name]())
    with pytest.raises(UserError, match=rf"costly' is not a readable image: .*{message}"):
        Predictor(export)(tmp_path / "costly")


def test_an_export_holds_a_bounded_number_of_large_images(export):
    """A batch of large images has the answers of its images one by one, in order."""
    images = [_encode(Image.new("RGB", (3000 + index, 2000), (40 * index, 0, 0)), "PNG") for index in range(6)]
    images.insert(2, _encode(PHOTO, "PNG"))
    predictor = Predictor(export)
    together = [each.probabilities for each in predictor(images, batch_size=7)]
    alone = [predictor(each).probabilities for each in images]
    np.testing.assert_allclose(together, alone, atol=1e-5)
