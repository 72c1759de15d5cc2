"""Unusual images are decoded as by PIL; unreadable ones are skipped in training and refused in evaluation."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import random
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from resnet_tf.config import load_config
from resnet_tf.core.errors import UserError
from resnet_tf.core.machine import resident_memory
from resnet_tf.data import pipeline, unreadable
from resnet_tf.data.pipeline import TrainingLength
from resnet_tf.data.sources import open_source
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.inputs import ImagePreprocess, Preprocess, create_preprocess
from resnet_tf.workflows.train import train_and_evaluate

PREPROCESS = ImagePreprocess(size=(16, 16))
WAVES = np.sin(np.mgrid[:48, :60].sum(axis=0) / 6)[..., None] * [1.0, 0.5, -1.0]
IMAGE = Image.fromarray(np.round(127.5 + 127.5 * WAVES).astype(np.uint8))


def _encoded(file_format: str, image: Image.Image = IMAGE, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _transparent() -> Image.Image:
    image = IMAGE.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def _sixteen_bits() -> Image.Image:
    return Image.fromarray((np.mgrid[:48, :60].sum(axis=0) * 600).astype(np.uint16))


def _animated_webp(image: Image.Image = IMAGE, **options) -> bytes:
    """Two frames; without transparency, the header has no alpha flag, which made TensorFlow abort the process."""
    return _encoded("WEBP", image, save_all=True, append_images=[image.rotate(180)], **options)


READABLE = {
    "progressive JPEG": _encoded("JPEG", progressive=True),
    "gray JPEG": _encoded("JPEG", IMAGE.convert("L")),
    "CMYK JPEG": _encoded("JPEG", IMAGE.convert("CMYK")),
    "palette PNG": _encoded("PNG", IMAGE.quantize(32)),
    "transparent PNG": _encoded("PNG", _transparent()),
    "transparent palette PNG": _encoded("PNG", _transparent().quantize(32)),
    "gray PNG with alpha": _encoded("PNG", _transparent().convert("LA")),
    "1-bit PNG": _encoded("PNG", IMAGE.convert("1")),
    "interlaced GIF": _encoded("GIF", IMAGE.quantize(32), interlace=1),
    "palette BMP": _encoded("BMP", IMAGE.quantize(32)),
    "gray BMP": _encoded("BMP", IMAGE.convert("L")),
    "transparent BMP": _encoded("BMP", _transparent()),
    "transparent WebP": _encoded("WEBP", _transparent(), lossless=True, exact=True),
    "animated WebP": _animated_webp(),
    "animated lossless WebP": _animated_webp(lossless=True),
    "animated transparent WebP": _animated_webp(_transparent(), lossless=True, exact=True),
    "animated WebP with metadata": _animated_webp(exif=Image.Exif().tobytes(), icc_profile=bytes(128)),
}


@pytest.mark.parametrize("name", READABLE)
def test_unusual_images_are_decoded_as_by_pil(name):
    decoded = PREPROCESS.decode(tf.constant(READABLE[name])).numpy().astype(int)
    opened = Image.open(io.BytesIO(READABLE[name]))
    expected = np.asarray((opened.convert("RGBA") if "transparency" in opened.info else opened).convert("RGB"), int)
    assert np.abs(decoded - expected).max() <= (2 if "CMYK" in name else 0)


def test_16_bits_are_reduced_to_the_upper_8():
    decoded = PREPROCESS.decode(tf.constant(_encoded("PNG", _sixteen_bits()))).numpy()
    np.testing.assert_array_equal(decoded[..., 0], np.asarray(_sixteen_bits()) >> 8)


def test_the_first_frame_of_an_animation_is_decoded():
    frames = [IMAGE, IMAGE.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    encoded = _encoded("GIF", frames[0], save_all=True, append_images=frames[1:])
    first = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(PREPROCESS.decode(tf.constant(encoded)), first)


def _claiming(encoded: bytes, width: int, height: int) -> bytes:
    """Return an image with another size in its header."""
    headers = {b"\xff\xd8": (">HH", (48, 60), (height, width)), b"\x89P": (">II", (60, 48), (width, height))}
    layout, old, new = headers[encoded[:2]]
    return encoded.replace(struct.pack(layout, *old), struct.pack(layout, *new), 1)


UNREADABLE = {
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"not an image", "not a JPEG, PNG, BMP, GIF or WebP image"),
    "truncated.jpg": (_encoded("JPEG", quality=98)[:900], "Invalid JPEG data"),
    "truncated.png": (_encoded("PNG")[:300], "Invalid PNG data"),
    "scan.tiff.jpg": (_encoded("TIFF"), "not a JPEG, PNG, BMP, GIF or WebP image"),
    "bomb.jpg": (_claiming(_encoded("JPEG"), 30_000, 40_000), "its header claims more than max_pixels=67,108,864"),
    "bomb.png": (_claiming(_encoded("PNG"), 60_000, 60_000), "its header claims more than max_pixels=67,108,864"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_images_have_a_reason(name):
    encoded, reason = UNREADABLE[name]
    assert reason in PREPROCESS.explain_unreadable(tf.constant(encoded))
    assert PREPROCESS.explain_unreadable(tf.constant(READABLE["gray JPEG"])) == ""


@pytest.fixture
def mixed_folder(tmp_path):
    """Write 20 training images, some with a wrong suffix, each unreadable image of `UNREADABLE`, and 6 test images."""
    for index in range(26):
        split, label = ("train" if index < 20 else "test"), ("a", "b")[index % 2]
        folder = tmp_path / "photos" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((24, 24, 3), 10 * index % 256, np.uint8)
        file_format = ("JPEG", "PNG")[index // 2 % 2]
        Image.fromarray(pixels).save(folder / f"{index}.jpg", file_format)
    for name, (encoded, _) in UNREADABLE.items():
        (tmp_path / "photos" / "train" / "a" / name).write_bytes(encoded)
    return tmp_path / "photos"


def _config(folder, *overrides):
    keys = [f"data.source={folder}", "data.image_size=16", "data.batch_size=9", "train.epochs=4"]
    return load_config("imagefolder", [*keys, *overrides])


def _setup(config):
    source = open_source(config.data)
    return source, create_preprocess(config.data), TrainingLength.of(config, source)


@pytest.mark.parametrize("stream", [True, False])
def test_training_skips_and_lists_unreadable_images(mixed_folder, tmp_path, stream):
    config = _config(
        mixed_folder, "data.max_unreadable_fraction=0.5", f"augment.random_resized_crop={str(stream).lower()}"
    )
    source, preprocess, length = _setup(config)
    unreadable = UnreadableExamples(source.train, preprocess, config.data, tmp_path / "unreadable.jsonl")
    complete = list(
        pipeline.train_batches(config, source, preprocess, length, start=0, unreadable=unreadable).as_numpy_iterator()
    )
    for _, _, missing in complete:
        unreadable.record(missing)
    assert unreadable.count == len(UNREADABLE)
    lines = [json.loads(line) for line in (tmp_path / "unreadable.jsonl").read_text().splitlines()]
    assert {os.path.basename(line["file"]) for line in lines} == set(UNREADABLE)
    for line in lines:
        assert UNREADABLE[os.path.basename(line["file"])][1] in line["reason"]
    for images, labels, _ in complete:
        assert len(images) == len(labels) == 9
        grays = images.mean(axis=(1, 2, 3))
        assert (grays[labels == 0] // 10 % 2 == 0).all() or not stream, "labels are those of the replacements"
    later = pipeline.train_batches(
        config, source, preprocess, length, start=5, unreadable=unreadable
    ).as_numpy_iterator()
    for batch, reference in zip(later, complete[5:], strict=True):
        for part, expected in zip(batch, reference, strict=True):
            np.testing.assert_array_equal(part, expected)
    again = UnreadableExamples(source.train, preprocess, config.data, tmp_path / "unreadable.jsonl")
    assert again.count == 0, "listed files may have been repaired"
    again.record(np.concatenate([missing for _, _, missing in complete]))
    assert len((tmp_path / "unreadable.jsonl").read_text().splitlines()) == len(UNREADABLE)


@pytest.fixture
def mixed_shard(tmp_path):
    """Write a Parquet file of 20 training images and 4 of validation; the training images 3, 5 and 8 are unreadable."""
    encoded = [b"no" if number in (3, 5, 8) else READABLE["gray JPEG"] for number in range(24)]
    split = ["train"] * 20 + ["validation"] * 4
    table = pd.DataFrame({"image": encoded, "label": ["a", "b"] * 12, "split": split})
    table.to_parquet(tmp_path / "images.parquet")
    return tmp_path / "images.parquet"


def test_unreadable_rows_of_one_file_are_counted_and_listed(mixed_shard, tmp_path, caplog):
    config = _config(mixed_shard, "data.max_unreadable_fraction=0.5")
    source, preprocess, _ = _setup(config)
    for _ in range(2):
        examples = UnreadableExamples(source.train, preprocess, config.data, tmp_path / "unreadable.jsonl")
        examples.record(np.array([3, -1, 5, 3, 8]))
        assert examples.count == 3
    lines = [json.loads(line) for line in (tmp_path / "unreadable.jsonl").read_text().splitlines()]
    assert [(line["file"], line["row"]) for line in lines] == [(str(mixed_shard), row) for row in (4, 6, 9)]
    assert f"skipped unreadable image {mixed_shard}, row 9: " in caplog.text


def test_unreadable_rows_of_one_file_are_limited(mixed_shard):
    config = _config(mixed_shard, "data.max_unreadable_fraction=0.1")
    source, preprocess, _ = _setup(config)
    examples = UnreadableExamples(source.train, preprocess, config.data)
    examples.record(np.array([3, 5]))
    with pytest.raises(UserError, match=r"3 of 20 images .*max_unreadable_fraction=0.1; last: .*parquet, row 9: "):
        examples.record(np.array([8]))


def test_a_fraction_at_the_limit_is_accepted():
    """0.29 * 100 is less than 29 in floating-point numbers."""
    found = SimpleNamespace(_split=SimpleNamespace(num_examples=100, corruption=(), name="train"), _path=None)
    found._known, found._preprocess = {(): {"file": "cut.jpg", "reason": "cut short"}}, PREPROCESS
    for count in range(100):
        found.count, found._limit = count, count / 100
        UnreadableExamples._check(found)
        found.count += 1
        with pytest.raises(UserError, match=rf"^{count + 1} of 100 images of split 'train' are unreadable"):
            UnreadableExamples._check(found)


def test_every_location_is_counted_and_described():
    """The keys of `Split.locate`, of records, tables, and arrays."""
    for key, text in (("offset", "offset 8"), ("row", "row 8"), ("index", "index 8")):
        location = {"file": "f", key: 8}
        assert unreadable._describe_location(location) == f"f, {text}"
        assert UnreadableExamples._key(location) != UnreadableExamples._key({"file": "f", key: 9})


def test_a_batch_without_readable_images_is_black_and_missing(tmp_path):
    for split, name, label in (("train", "x.jpg", "a"), ("train", "y.jpg", "b"), ("test", "x.jpg", "a")):
        folder = tmp_path / split / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no")
    config = _config(tmp_path, "data.batch_size=2", "data.max_unreadable_fraction=1")
    source, preprocess, length = _setup(config)
    images, labels, missing = next(iter(pipeline.train_batches(config, source, preprocess, length, start=0)))
    assert images.numpy().max() == 0
    assert sorted(missing.numpy()) == [0, 1]
    assert labels.shape == [2]


@pytest.mark.slow
def test_too_many_unreadable_images_end_the_run_and_are_listed(command, mixed_folder, tmp_path):
    keys = ["--set", "data.image_size=32", "--set", "data.batch_size=9", "--set", "model.name=resnet8_w32"]
    arguments = ["--config=imagefolder", "--data.source", str(mixed_folder), *keys, f"--workdir={tmp_path / 'run'}"]
    outcome = command("train", *arguments)
    assert outcome.code == 2
    assert "of 27 images of split 'train' are unreadable, more than data.max_unreadable_fraction=0.01" in outcome.err
    assert "Traceback" not in outcome.err
    assert (tmp_path / "run" / "unreadable.jsonl").read_text().count("\n") >= 1


@pytest.mark.slow
def test_training_continues_with_some_unreadable_images(mixed_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    keys = ["data.image_size=32", "data.batch_size=8", "model.name=resnet8_w32", "train.epochs=2"]
    keys += [f"data.source={mixed_folder}", "data.max_unreadable_fraction=0.5", "optimizer.warmup_epochs=0"]
    train_and_evaluate(load_config("imagefolder", [*keys, "augment.mixup=0.2"]), tmp_path / "run")
    lines = (tmp_path / "run" / "unreadable.jsonl").read_text().splitlines()
    assert f"skipped {len(lines)} unreadable examples; see" in caplog.text


def test_evaluation_reports_an_unreadable_image(mixed_folder):
    config = _config(mixed_folder, "data.eval_split=train")
    source, preprocess, _ = _setup(config)
    with (
        pytest.raises(UserError, match=r"split 'train' cannot be evaluated: .*(jpg): "),
        unreadable.translate_read_errors(source.validation, preprocess),
    ):
        list(pipeline.eval_batches(source.validation, preprocess, 4))


def test_evaluation_reports_a_missing_file(mixed_folder):
    config = _config(mixed_folder, "data.max_unreadable_fraction=0.01")
    source, preprocess, _ = _setup(config)
    gone = next((mixed_folder / "test" / "a").iterdir())
    gone.unlink()
    with (
        pytest.raises(UserError, match=rf"cannot be evaluated: {gone}: .*No such file"),
        unreadable.translate_read_errors(source.validation, preprocess),
    ):
        list(pipeline.eval_batches(source.validation, preprocess, 4))


def test_max_pixels_is_part_of_the_preprocessing(mixed_folder):
    config = _config(mixed_folder, "data.max_pixels=100")
    preprocess = create_preprocess(config.data)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))).max_pixels == 100
    assert "max_pixels=100" in preprocess.explain_unreadable(tf.constant(_encoded("JPEG")))
    assert dataclasses.replace(preprocess, max_pixels=48 * 60).explain_unreadable(tf.constant(_encoded("JPEG"))) == ""


def _mutated(generator: random.Random, seeds: list[bytes]) -> bytes:
    """Return an image with some bytes changed, removed, duplicated or replaced by those of another image."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        start = generator.randrange(len(data)) if generator.random() < 0.5 else generator.randrange(min(64, len(data)))
        mutation = generator.randrange(6)
        if mutation == 0:
            data[start] ^= 1 << generator.randrange(8)
        elif mutation == 1:
            data[start] = generator.choice((0, 1, 127, 128, 254, 255))
        elif mutation == 2:
            del data[start + 1 :]
        elif mutation == 3:
            data[start:start] = data[start : start + generator.randrange(1, 64)]
        elif mutation == 4:
            other = generator.choice(seeds)
            data[start:] = other[generator.randrange(len(other)) :]
        else:
            data[start : start + 4] = struct.pack(generator.choice(("<I", ">I")), generator.getrandbits(32))
        if not data:
            break
    return bytes(data)


def fuzz(count: int, seed: int) -> None:
    """Decode `count` mutated images, each completely and a window of it, as in training and serving."""
    preprocess = ImagePreprocess(size=(16, 16), exif_orientation=True, max_pixels=2**22)
    signature = [tf.TensorSpec([], tf.string)]
    full = tf.function(lambda encoded: tf.shape(preprocess.decode(encoded)), input_signature=signature)

    def half(shape):
        return shape // 4, tf.maximum(shape // 2, 1)

    window = tf.function(
        lambda encoded: tf.shape(preprocess.decode_window(encoded, half, at_least=(16, 16))),
        input_signature=signature,
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    small = IMAGE.resize((30, 24))
    seeds = [_encoded("JPEG", small, exif=exif), _encoded("JPEG", small, progressive=True), _encoded("PNG", small)]
    seeds += [
        _encoded("GIF", small.quantize(16), save_all=True, append_images=[small.rotate(90)]),
        _encoded("BMP", small),
    ]
    seeds += [_encoded("WEBP", small), _encoded("WEBP", small, lossless=True), _encoded("PNG", _sixteen_bits())]
    seeds += [_animated_webp(small), _animated_webp(small, lossless=True)]
    generator, read = random.Random(seed), 0
    for _ in range(count):
        encoded = tf.constant(_mutated(generator, seeds))
        for decode in (full, window):
            try:
                height, width, channels = decode(encoded).numpy()
            except tf.errors.InvalidArgumentError:
                continue
            assert channels == 3
            assert height * width <= 2**22
            read += 1
    # The maximum of `resource.getrusage` includes that of the process that started this one.
    print(json.dumps({"read": read, "peak_mb": resident_memory(peak=True)}))


def decode_all_webp_flags() -> None:
    """Decode static and animated WebPs with every value of the flags in their header."""
    decode = tf.function(PREPROCESS.decode, input_signature=[tf.TensorSpec([], tf.string)])
    for encoded in (
        *(READABLE["animated WebP"], READABLE["animated lossless WebP"], READABLE["animated transparent WebP"]),
        *(READABLE["transparent WebP"], _encoded("WEBP", exif=Image.Exif().tobytes())),
    ):
        for flags in range(256):
            changed = bytearray(encoded)
            changed[20] = flags
            with contextlib.suppress(tf.errors.InvalidArgumentError):
                assert decode(tf.constant(bytes(changed))).shape == (48, 60, 3)
    print(json.dumps({"end": True}))


def _in_a_child(call: str) -> dict:
    """Call a function of this file in a subprocess, which an error in a decoder may abort."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    child = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'tests/data'); import test_unreadable as t; t.{call}"],
        cwd=root,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout.splitlines()[-1])


@pytest.mark.slow
def test_no_webp_flags_abort_the_process():
    assert _in_a_child("decode_all_webp_flags()") == {"end": True}


@pytest.mark.slow
@pytest.mark.long
def test_mutated_images_do_not_crash_or_exceed_the_memory_limit():
    """The limit is the memory of TensorFlow and a few images of `max_pixels`, 12 MB each."""
    one, many = (_in_a_child(f"fuzz({count}, {seed})") for count, seed in ((1, 0), (20_000, 1)))
    assert many["read"] > 2000, "many mutated images are readable"
    assert many["peak_mb"] < one["peak_mb"] + 200
