"""Image preprocessing, compared with PIL and torchvision's documented arithmetic."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import import_torch_zoo
from PIL import Image

from resnet_tf.config import DataConfig
from resnet_tf.inputs import ImagePreprocess, Preprocess, create_preprocess, headers, orientation, pixels

PREPROCESS = ImagePreprocess(size=(24, 24))


def _image(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 5 + channel) * np.cos(columns / 7 - channel) for channel in range(3)]
    return np.round(127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)


def _torchvision(image: np.ndarray, size: int, resize: int, method: Image.Resampling) -> np.ndarray:
    """Return torchvision's Resize(resize) and CenterCrop(size) as documented, computed by PIL."""
    height, width = image.shape[:2]
    longer = int(resize * max(height, width) / min(height, width))
    new = (resize, longer) if width <= height else (longer, resize)
    resized = np.asarray(Image.fromarray(image).resize(new, method), np.float32)
    top, left = round((new[1] - size) / 2.0), round((new[0] - size) / 2.0)
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(100, 150), (150, 100), (64, 64), (333, 500), (40, 47)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_center_crop_is_torchvisions(shape, interpolation):
    image = _image(*shape)
    preprocess = ImagePreprocess(size=(56, 56), crop_fraction=0.875, interpolation=interpolation)
    crop = preprocess.center_crop(tf.constant(image)).numpy() * 255
    expected = _torchvision(image, 56, 64, Image.Resampling[interpolation.upper()])
    # PIL computes in 8-bit fixed point and rounds after each direction.
    assert np.abs(crop - expected).max() < 1.6
    assert np.abs(crop - expected).mean() < 0.5


def _timm(image: np.ndarray, size: tuple[int, int], crop_pct: float, method: Image.Resampling) -> np.ndarray:
    """Return timm's ResizeKeepRatio and CenterCrop for a size that is not square, computed by PIL."""
    covered = [math.floor(length / crop_pct) for length in size]
    ratio = min(length / least for length, least in zip(image.shape, covered, strict=False))
    height, width = (round(length / ratio) for length in image.shape[:2])
    resized = np.asarray(Image.fromarray(image).resize((width, height), method), np.float32)
    top, left = round((height - size[0]) / 2.0), round((width - size[1]) / 2.0)
    return resized[top : top + size[0], left : left + size[1]]


SHAPES = [(100, 150), (150, 100), (64, 64), (333, 77), (40, 47)]
SIZES = [(56, 40), (40, 56), (64, 32), (57, 56)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("crop_pct", "interpolation"), [(0.875, "bilinear"), (0.95, "bicubic"), (1.0, "bilinear")])
def test_center_crop_of_another_aspect_ratio_is_timms(size, crop_pct, interpolation):
    preprocess = ImagePreprocess(size=size, crop_fraction=crop_pct, interpolation=interpolation)
    assert preprocess.to_timm()["crop_pct"] == crop_pct
    assert PREPROCESS.with_timm_crop(size, crop_pct).crop_fraction == crop_pct
    for image in (_image(*shape) for shape in SHAPES):
        crop = preprocess.center_crop(tf.constant(image)).numpy() * 255
        expected = _timm(image, size, crop_pct, Image.Resampling[interpolation.upper()])
        assert np.abs(crop - expected).max() < 1.6
        assert np.abs(crop - expected).mean() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("size", [*SIZES, (56, 56)])
def test_transforms_of_timm_have_the_same_crop(size):
    timm = import_torch_zoo("timm")
    preprocess = ImagePreprocess(size=(24, 24), interpolation="bicubic").with_timm_crop(size, 0.9)
    theirs = timm.data.create_transform(size, crop_pct=0.9, interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3)
    for image in (_image(*shape) for shape in SHAPES):
        crop, expected = preprocess.center_crop(tf.constant(image)), theirs(Image.fromarray(image))
        assert np.abs(crop - expected.permute(1, 2, 0).numpy()).max() < 1.6 / 255


@pytest.mark.parametrize("rotation", range(1, 9))
def test_a_rotated_crop_of_another_aspect_ratio_is_that_of_the_upright_image(rotation):
    stored, settings = tf.constant(_image(90, 70)), {"crop_fraction": 0.9, "interpolation": "bilinear"}
    found = pixels.center_crop(stored, (56, 40), antialias=True, rotation=tf.constant(rotation), **settings)
    upright = orientation.rotate(stored, tf.constant(rotation))
    np.testing.assert_allclose(found, pixels.center_crop(upright, (56, 40), antialias=True, **settings), atol=1e-5)


def test_an_image_of_the_input_size_is_unchanged():
    image = _image(32, 32)
    crop = ImagePreprocess(size=(32, 32), crop_fraction=1.0).center_crop(tf.constant(image))
    np.testing.assert_array_equal(np.round(crop.numpy() * 255), image)


def test_normalize_by_hand():
    preprocess = ImagePreprocess(size=(2, 2), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    pixel = preprocess.normalize(tf.fill((1, 2, 2, 3), 0.6))[0, 0, 0]
    np.testing.assert_allclose(pixel, [1.0, 1.6, 0.3], rtol=1e-6)


def test_one_channel_is_the_luma_and_gray_stays_gray():
    preprocess = ImagePreprocess(size=(8, 8), channels=1, crop_fraction=1.0, mean=(0.0,), std=(1.0,))
    colors = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    expected = colors @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(preprocess.normalize(colors)[..., 0], expected, rtol=1e-6)
    gray = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4, 3, axis=2)
    pixels = preprocess.normalize(preprocess.center_crop(tf.constant(gray)))
    np.testing.assert_array_equal(np.round(pixels[..., 0] * 255), gray[..., 0])


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "GIF", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_file_format_is_read(file_format, mode):
    image = Image.fromarray(_image(20, 30)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    decoded = PREPROCESS.decode(tf.constant(buffer.getvalue())).numpy()
    size_of = headers.jpeg_size if file_format == "JPEG" else headers.non_jpeg_size
    assert size_of(tf.constant(buffer.getvalue())).numpy().tolist() == [20, 30]
    expected = np.asarray(Image.open(buffer).convert("RGB"), np.int32)
    np.testing.assert_array_equal(decoded, expected)


def test_preprocessing_survives_json():
    import json

    preprocess = ImagePreprocess(size=(8, 8), channels=1, mean=(0.3,), std=(0.4,))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_training_and_evaluation_normalize_equally():
    preprocess = ImagePreprocess(size=(4, 4), channel_order="bgr")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(
        preprocess.from_batch(tf.constant(pixels)), preprocess.normalize(tf.constant(pixels) / 255)
    )
    np.testing.assert_allclose(
        preprocess.from_batch(tf.constant(pixels))[..., 0], (pixels[..., 2] / 255 - 0.485) / 0.229, rtol=1e-4
    )


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_window_equals_a_crop_of_the_complete_image(file_format):
    rows, columns = np.mgrid[:60, :90]
    image = Image.fromarray(np.stack([rows * 4, columns * 2, rows + columns], -1).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=95)
    offset, size = tf.constant([8, 16]), tf.constant([24, 40])
    encoded = tf.constant(buffer.getvalue())
    window = PREPROCESS.decode_window(encoded, lambda shape: (offset + 0 * shape, size), at_least=(24, 24))
    complete = PREPROCESS.decode(tf.constant(buffer.getvalue())).numpy().astype(int)
    # Color is interpolated at the edge of the window as at the edge of the image; an offset by one pixel would change
    # values by 4.
    differences = np.abs(window.numpy() - complete[8:32, 16:56])
    assert differences.max() <= (6 if file_format == "JPEG" else 0)
    assert differences.mean() < 1.5


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize(("at_least", "ratio"), [((80, 130), 1), ((60, 120), 2), ((30, 40), 4), ((9, 9), 8)])
def test_large_windows_are_decoded_at_a_reduced_scale(at_least, ratio, file_format):
    rows, columns = np.mgrid[:160, :300]
    image = Image.fromarray(np.stack([rows, columns * 0.8, 0 * rows], -1).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=98)
    offset, size = tf.constant([16, 32]), tf.constant([120, 240])
    window = PREPROCESS.decode_window(
        tf.constant(buffer.getvalue()), lambda shape: (offset + 0 * shape, size), at_least=at_least
    ).numpy()
    assert window.shape == (120 // ratio, 240 // ratio, 3)
    means = np.asarray(image)[16:136, 32:272].reshape(120 // ratio, ratio, 240 // ratio, ratio, 3).mean(axis=(1, 3))
    assert np.abs(window[2:-2, 2:-2] - means[2:-2, 2:-2]).max() < 5


def test_unset_values_are_those_of_the_weights():
    weights = ImagePreprocess(size=(9, 9), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), channel_order="bgr")
    found = create_preprocess(DataConfig(image_size=32), weights)
    assert (found.size, found.mean, found.std, found.channel_order) == ((32, 32), weights.mean, weights.std, "bgr")
    found = create_preprocess(DataConfig(mean=(0.5,), std=(0.2,), channel_order="rgb"), weights)
    assert (found.mean, found.std, found.channel_order) == ((0.5,) * 3, (0.2,) * 3, "rgb")
    assert create_preprocess(DataConfig()) == ImagePreprocess(size=(224, 224))
    gray = create_preprocess(DataConfig(channels=1), weights)
    assert (gray.channels, gray.std) == (1, (1.0,))
    assert gray.mean == pytest.approx((0.2,))
    assert create_preprocess(DataConfig(channels=1)).mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))
    assert create_preprocess(DataConfig(channels=1, mean=(0.5,), std=(0.2,)), weights).mean == (0.5,)
