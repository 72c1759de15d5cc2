"""A predictor returns the same prediction for an example in every format."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

import resnet_tf
from resnet_tf import ImagePreprocess, Predictor, UserError
from resnet_tf.config import DataConfig
from resnet_tf.serving.export import TARGETS

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
RUNNERS = [(target, precision) for target in TARGETS if target != "hub_features" for precision in TARGETS[target][:1]]


def _encoded(file_format: str, image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _export(directory: Path, **settings) -> Predictor:
    model = resnet_tf.create_model("resnet8_w32", num_classes=5, input_shape=(16, 16, 3))
    generator = np.random.default_rng(1)
    for variable in model.variables:  # so that logits differ clearly between classes
        if variable.path.endswith("kernel"):
            variable.assign(generator.normal(0, 0.2, variable.shape))
    target = settings.pop("target", "serving")
    preprocess = ImagePreprocess(size=(16, 16), **settings)
    return Predictor(resnet_tf.export_model(model, directory, target=target, preprocess=preprocess))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    return _export(tmp_path_factory.mktemp("export") / "plain")


def _probabilities_of_all_formats(predictor: Predictor, file: Path) -> list[np.ndarray]:
    opened = Image.open(file)
    forms = [str(file), file, file.read_bytes(), opened, opened.convert("RGB"), np.asarray(opened.convert("RGB"))]
    return [predictor(form).probabilities for form in forms]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), RUNNERS)
def test_every_format_has_the_same_prediction(tmp_path, target, precision):
    if package := {"onnx": "tf2onnx", "openvino": "openvino"}.get(target):
        pytest.importorskip(package, reason=f"requires {package}")
    predictor = _export(tmp_path / "export", target=target)
    (tmp_path / "a.png").write_bytes(_encoded("PNG", Image.fromarray(PIXELS)))
    expected, *others = _probabilities_of_all_formats(predictor, tmp_path / "a.png")
    assert expected.max() - expected.min() > 0.1
    for found in others:
        np.testing.assert_array_equal(found, expected)
    # PIL and TensorFlow decode a JPEG to the same pixels, to within one level, depending on their JPEG libraries.
    (tmp_path / "a.jpg").write_bytes(_encoded("JPEG", Image.fromarray(PIXELS)))
    expected, *others = _probabilities_of_all_formats(predictor, tmp_path / "a.jpg")
    np.testing.assert_allclose(others, [expected] * len(others), atol=0.01)


def test_single_examples_and_several(predictor, tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(_encoded("PNG", Image.fromarray(PIXELS)))
    single = predictor(file)
    assert isinstance(single, resnet_tf.Prediction)
    assert (single.file, predictor(PIXELS).file) == (str(file), "")
    for several in ([PIXELS] * 3, (PIXELS,) * 3, np.stack([PIXELS] * 3), iter([file, PIXELS, file.read_bytes()])):
        found = predictor(several, batch_size=2)
        assert [each.labels for each in found] == [single.labels] * 3
    paths, contents = [str(file)] * 3, [file.read_bytes()] * 3
    images = np.empty(3, object)
    images[:] = [PIXELS] * 3
    for array in (np.array(paths), np.array(paths, object), np.array(contents), pd.Series(paths), images):
        assert [each.labels for each in predictor(array)] == [single.labels] * 3
    assert predictor([file]) == [single]
    assert predictor([]) == []


def test_a_prediction_has_all_probabilities(predictor):
    prediction = predictor(PIXELS)
    assert (prediction.probabilities.dtype, prediction.probabilities.shape) == (np.float32, (5,))
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert prediction.scores == tuple(prediction.probabilities[list(prediction.indices)].tolist())
    assert (prediction.label, prediction.score) == (prediction.labels[0], prediction.scores[0])
    assert repr(prediction) == f"Prediction({prediction.label!r} {prediction.score:.4f}, best of 5 classes)"
    assert list(prediction.to_dict()) == ["file", "labels", "scores", "indices"]


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16"])
def test_pil_images_of_any_mode_are_decoded_like_their_file(predictor, mode):
    if mode == "I;16":
        image = Image.fromarray((np.mgrid[:30, :41].sum(axis=0) * 900).astype(np.uint16))
    else:
        image = Image.fromarray(PIXELS).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    assert image.mode == mode
    np.testing.assert_array_equal(predictor(image).probabilities, predictor(_encoded("PNG", image)).probabilities)


def test_a_gray_array_is_decoded_like_its_file(predictor):
    gray = PIXELS[..., :1]
    expected = predictor(_encoded("PNG", Image.fromarray(gray[..., 0]))).probabilities
    np.testing.assert_array_equal(predictor(gray).probabilities, expected)
    np.testing.assert_array_equal(predictor(tf.constant(gray)).probabilities, expected)


@pytest.mark.parametrize("upright", [True, False])
def test_the_exif_orientation_of_pil_images_is_applied_like_that_of_files(tmp_path, upright):
    predictor = _export(tmp_path / "export", exif_orientation=upright)
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = Image.fromarray(PIXELS).resize((64, 48), Image.Resampling.BICUBIC)
    for file_format in ("JPEG", "PNG"):  # the orientation of a PNG is ignored
        encoded = _encoded(file_format, smooth, exif=exif)
        opened = Image.open(io.BytesIO(encoded))
        turned = Image.open(io.BytesIO(encoded)).transpose(Image.Transpose.ROTATE_270)
        expected = predictor(encoded).probabilities
        np.testing.assert_allclose(predictor(opened).probabilities, expected, atol=0.01)
        as_turned = np.asarray(turned if upright and file_format == "JPEG" else opened)
        np.testing.assert_allclose(predictor(as_turned).probabilities, expected, atol=0.01)
        if file_format == "JPEG":
            np.testing.assert_allclose(predictor(opened.convert("RGB")).probabilities, expected, atol=0.01)
    other = predictor(np.asarray(opened if upright else turned)).probabilities
    assert np.abs(other - predictor(_encoded("JPEG", smooth, exif=exif)).probabilities).max() > 0.02


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (PIXELS / 255, "image 0: an array of float64 [30, 41, 3]; expected uint8 [height, width, 1 or 3]"),
        (PIXELS.astype(np.int64), "image 0: an array of int64 [30, 41, 3]; expected uint8"),
        (PIXELS[..., 0], "image 0: an array of uint8 [30, 41]; expected uint8 [height, width, 1 or 3]"),
        (PIXELS[..., :2], "image 0: an array of uint8 [30, 41, 2]; expected"),
        (PIXELS[:0], "image 0: an array of uint8 [0, 41, 3]; expected"),
        ([PIXELS, PIXELS[np.newaxis]], "image 1: an array of uint8 [1, 30, 41, 3]; expected"),
        ([PIXELS, 3], "image 1: an object of type int; expected a path, bytes, a PIL image, or an array"),
        (None, "image 0: an object of type NoneType; expected a path"),
        ([b""], "image 0 is not a readable image: the file is empty"),
        ([PIXELS, b"nonsense"], "image 1 is not a readable image: not a JPEG"),
        (
            Image.fromarray(PIXELS[..., 0].astype(np.float32)),
            "image 0: a PIL image of mode 'F' has no fixed range",
        ),
        ("nowhere.png", "cannot read 'nowhere.png': No such file"),
    ],
)
def test_other_types_and_shapes_are_rejected_by_index(predictor, wrong, message):
    with pytest.raises(UserError, match=re.escape(message)):
        predictor(wrong)


def test_an_incomplete_file_opened_by_pil_is_rejected(predictor):
    opened = Image.open(io.BytesIO(_encoded("JPEG", Image.fromarray(PIXELS))[:-200]))
    with pytest.raises(UserError, match="image 0: PIL cannot read the image: image file is truncated"):
        predictor(opened)


def test_a_corrupt_png_opened_by_pil_is_rejected(predictor):
    """PIL raises a SyntaxError if the header of a later part is corrupt."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    corrupt = bytearray(_encoded("PNG", Image.fromarray(noise)))
    corrupt[corrupt.find(b"IDAT", corrupt.find(b"IDAT") + 4)] = 0
    with pytest.raises(UserError, match="image 0: PIL cannot read the image: broken PNG file"):
        predictor(Image.open(io.BytesIO(bytes(corrupt))))


@pytest.mark.parametrize("target", ["serving", pytest.param("keras", marks=pytest.mark.slow)])
def test_an_evaluation_names_the_file_that_it_cannot_read(predictor, tmp_path, target):
    if target != "serving":
        predictor = _export(tmp_path / "export", target=target)
    for label in "01":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(5):
            (tmp_path / "photos" / label / f"{index}.png").write_bytes(_encoded("PNG", Image.fromarray(PIXELS)))
    (tmp_path / "photos" / "1" / "3.png").write_bytes(_encoded("PNG", Image.fromarray(PIXELS))[:60])
    split = resnet_tf.open_source(DataConfig(source=str(tmp_path / "photos"), train_split="all")).train
    with pytest.raises(UserError, match=r"photos/1/3.png is not a readable image: "):
        predictor.evaluate(split, batch_size=4)


@pytest.mark.slow
def test_max_pixels_applies_to_images_in_memory(tmp_path):
    predictor = _export(tmp_path / "export", max_pixels=1000)
    for form in (PIXELS, Image.fromarray(PIXELS)):
        with pytest.raises(UserError, match=r"image 0 is not a readable image: its header claims more than max_pixels"):
            predictor(form)


def test_explain_takes_every_format(predictor):
    for form in (PIXELS, Image.fromarray(PIXELS), _encoded("PNG", Image.fromarray(PIXELS))):
        ((crop, heatmap, label),) = predictor.explain([form])
        assert (crop.shape, heatmap.shape, label) == ((16, 16, 3), (16, 16), predictor(form).label)


def test_signals_are_files_or_arrays(tmp_path):
    model = resnet_tf.create_model("resnet18_1d", num_classes=3, input_shape=(64, 1))
    predictor = Predictor(resnet_tf.export_model(model, tmp_path / "export"))
    signal = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    np.save(tmp_path / "signal.npy", signal)
    expected = predictor(tmp_path / "signal.npy").probabilities
    for form in (signal, signal[:, 0], (tmp_path / "signal.npy").read_bytes()):
        np.testing.assert_array_equal(predictor(form).probabilities, expected)
    assert len(predictor(np.stack([signal] * 3))) == 3
    for wrong, message in (
        (signal[:60], "signal 0: an array of float32 [60, 1]; expected float32 [64, 1] or [64]"),
        (signal.astype(np.int16), "signal 0: an array of int16 [64, 1]; expected float32 [64, 1] or [64]"),
        ([signal, signal * np.nan], "signal 1 is not a readable signal: it holds numbers that are not finite"),
        (Image.fromarray(PIXELS), "signal 0: an object of type Image; expected a path, bytes, or an array"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            predictor(wrong)
