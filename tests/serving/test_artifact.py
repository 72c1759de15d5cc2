"""Exports: equal logits for every signature, target and process, and atomic versions."""

import dataclasses
import io
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from conftest import CORRUPTIONS, LONG, load_once, verify
from PIL import Image

import resnet_tf
from resnet_tf.config import DataConfig
from resnet_tf.core import files
from resnet_tf.core.calibration import Calibration
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_metadata import MANIFEST, METADATA, read_export
from resnet_tf.core.targets import targets_of
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import ImagePreprocess, Preprocess
from resnet_tf.model.create import create_model
from resnet_tf.serving import export as exporting
from resnet_tf.serving import export_benchmark, runners
from resnet_tf.serving.drift import Drift, check_drift, measure_drift
from resnet_tf.serving.export import export_model, find_export
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.evaluation import evaluate_run
from resnet_tf.training.run import load_run


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run)


def test_what_is_set_on_the_model_of_a_run_applies_to_its_evaluation_and_its_export(tiny_run, tmp_path):
    """Regression: an export ignored labels and preprocessing of the model, and an evaluation its calibration."""
    run = load_run(tiny_run)
    run.model.calibration = Calibration((2.0,))
    source = open_source(run.config.data)
    evaluation = evaluate_run(run, source, batch_size=100)
    logits = evaluation.logits.astype(np.float64) / 2
    np.testing.assert_allclose(evaluation.probabilities, scipy.special.softmax(logits, axis=1), rtol=1e-6)
    run.model.labels = [f"digit {name}" for name in source.class_names]
    assert evaluate_run(run, source, batch_size=100).top(1) == evaluation.top(1)
    run.model.labels = ["zero", *source.class_names[1:]]
    assert resnet_tf.evaluate(run).evaluation.top(1) == evaluation.top(1)
    metadata = read_export(export_model(run, tmp_path / "drift", target="litert")).metadata
    assert metadata["drift"]["top1_before"] == pytest.approx(evaluation.top(1), abs=0.1)
    run.model.preprocess = dataclasses.replace(run.preprocess, mean=(0.1,))
    metadata = read_export(export_model(run, tmp_path / "unchanged", target="keras")).metadata
    assert metadata["labels"] == ["zero", *map(str, range(1, 10))] == list(run.labels)
    assert Preprocess.from_dict(metadata["preprocess"]).mean == (0.1,)
    assert metadata["calibration"]["temperatures"] == [2.0]
    run.model.labels = None
    with pytest.raises(UserError, match=r"^labels of the model of the run is None; set model.labels$"):
        export_model(run, tmp_path, target="keras")


def test_signatures_and_their_outputs(tiny_export):
    signatures = load_once(tiny_export).signatures
    assert set(signatures) == {"serving_default", "images", "features", "classify", "explain"}
    for name, dtype, shape in (("serving_default", tf.string, [None]), ("images", tf.float32, [None, 8, 8, 3])):
        (taken,) = signatures[name].structured_input_signature[1].values()
        assert (taken.dtype, taken.shape.as_list()) == (dtype, shape)
        outputs = {
            key: (value.dtype, value.shape.as_list()) for key, value in signatures[name].structured_outputs.items()
        }
        assert outputs == {
            "logits": (tf.float32, [None, 10]),
            "probabilities": (tf.float32, [None, 10]),
            "top_classes": (tf.int64, [None, 5]),
            "top_scores": (tf.float32, [None, 5]),
            "top_labels": (tf.string, [None, 5]),
            "energy": (tf.float32, [None]),
        }
    assert list(signatures["serving_default"].structured_input_signature[1]) == ["image_bytes"]
    assert signatures["features"].structured_outputs["features"].shape.as_list() == [None, 128]


def test_signatures_and_predictor_agree_with_the_network(run, tiny_export, tiny_images):
    images = tf.stack([run.preprocess.center_crop(run.preprocess.decode(tf.constant(item))) for item in tiny_images])
    expected = run.model(run.preprocess.normalize(images), training=False).numpy()
    signatures = load_once(tiny_export).signatures
    by_bytes = signatures["serving_default"](image_bytes=tf.constant(tiny_images))
    by_images = signatures["images"](images=images)
    for outputs in (by_bytes, by_images):
        np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
        calibrated = expected / run.calibration.temperature
        probabilities = np.exp(calibrated) / np.exp(calibrated).sum(1, keepdims=True)
        np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
        order = np.argsort(-probabilities, axis=1)[:, :5]
        np.testing.assert_array_equal(outputs["top_classes"], order)
        np.testing.assert_allclose(outputs["top_scores"], np.take_along_axis(probabilities, order, 1), atol=1e-5)
        np.testing.assert_array_equal(outputs["top_labels"], np.array(run.labels, dtype=bytes)[order])
    predictions = Predictor(tiny_export)(tiny_images)
    assert [prediction.indices[0] for prediction in predictions] == expected.argmax(1).tolist()


def test_images_of_any_size_and_format_in_one_batch(tiny_export):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    images = [tf.io.encode_png(pixels), tf.io.encode_jpeg(pixels[:11]), tf.io.encode_png(pixels[:, :7, :1])]
    assert len(Predictor(tiny_export)([bytes(image.numpy()) for image in images])) == 3


def test_a_new_process_computes_the_same_logits(run, tiny_export):
    evaluation = evaluate_run(run, open_source(run.config.data), batch_size=64)
    result = verify(tiny_export, evaluation.logits, batch_size=32)
    assert result.examples == result.same_top1 == 100
    assert result.largest_difference < 1e-5
    with pytest.raises(UserError, match=r"differ from those of the model: verified in a new process"):
        verify(tiny_export, evaluation.logits + np.eye(100, 10) * 0.1, batch_size=32)


@pytest.mark.parametrize("count", [0, -2, 1.5])
def test_a_number_of_examples_to_evaluate_is_positive(run, tiny_export, count):
    split = open_source(run.config.data).validation
    with pytest.raises(UserError, match=r"^count (must be at least 1|takes a whole number), got "):
        Predictor(tiny_export).evaluate(split, count=count)


def test_an_export_is_found_again_if_it_answers_as_a_new_one_would(run, tiny_export):
    def with_settings(**settings):
        export = dataclasses.replace(run.config.export, **settings)
        return dataclasses.replace(run, config=dataclasses.replace(run.config, export=export))

    assert find_export(run, tiny_export.parent) == tiny_export
    assert find_export(with_settings(verify_examples=7, max_accuracy_drop=0.5), tiny_export.parent) == tiny_export
    assert find_export(run, tiny_export.parent / "none") is None
    assert find_export(with_settings(top_k=1), tiny_export.parent) is None
    assert find_export(dataclasses.replace(run, step=run.step + 1), tiny_export.parent) is None
    weights = run.model.get_weights()
    run.model.set_weights([2 * each for each in weights])
    other = find_export(run, tiny_export.parent)
    run.model.set_weights(weights)
    assert other is None, "a run that began anew in its directory reaches the same steps with other weights"


def _add_version(export, version, **changes):
    """Copy an export to another version with other metadata."""
    copy = shutil.copytree(export, export.parent / version)
    (copy / METADATA).write_text(json.dumps(read_export(export).metadata | changes))
    (copy / MANIFEST).unlink()
    files.write_manifest(copy, MANIFEST)
    return copy


def test_an_export_is_found_below_newer_ones_that_answer_otherwise(run, tiny_export, tmp_path, caplog):
    """Regression: the newest version was verified against logits in float32, whatever its precision."""
    own = shutil.copytree(tiny_export, tmp_path / "1")
    _add_version(own, "2", precision="bfloat16")
    _add_version(own, "3", calibration={"temperatures": [7.0], "biases": [0.0]})
    _add_version(own, "4", target="hub")
    _add_version(own, "5", weights_sha256="of an earlier run")
    (_add_version(own, "6") / "saved_model.pb").write_bytes(b"")
    assert find_export(run, tmp_path) == own
    assert "6' is corrupt: " in caplog.text
    assert find_export(run, _add_version(own, "7").parent).name == "7"


def test_metadata_is_complete(run, tiny_export):
    metadata = read_export(tiny_export).metadata
    assert metadata["labels"] == list(run.labels)
    assert Preprocess.from_dict(metadata["preprocess"]) == run.preprocess
    assert metadata["metrics"] == run.metrics
    assert metadata["parameters"] == run.model.count_params()
    assert metadata["config"] == json.loads(run.config.to_json())
    assert set(metadata["versions"]) == {"resnet_tf", "tensorflow", "keras", "numpy", "python"}


def test_versions_count_up_and_are_never_overwritten(run, tmp_path):
    paths = [export_model(run, tmp_path / "models") for _ in range(2)]
    assert [path.name for path in paths] == ["1", "2"]
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"1", "2"}
    assert Predictor(tmp_path / "models").path.name == "2"


@pytest.mark.slow
def test_a_bare_model_is_exported_with_its_own_preprocess_and_labels(tmp_path):
    model = create_model("resnet20", num_classes=2, input_shape=(32, 32, 3))
    path = export_model(model, tmp_path / "a", preprocess=ImagePreprocess(size=(32, 32)), labels=["cat", "dog"])
    image = bytes(tf.io.encode_png(np.zeros((40, 40, 3), np.uint8)).numpy())
    assert set(Predictor(path)([image])[0].labels) == {"cat", "dog"}
    with pytest.raises(UserError, match=r"3 labels for the 2 classes of resnet20"):
        export_model(model, tmp_path / "b", labels=["a", "b", "c"])
    with pytest.raises(
        UserError, match=r"preprocess returns inputs of shape \(64, 64, 3\), but resnet20 takes \(32, 32, 3\)"
    ):
        export_model(model, tmp_path / "b", preprocess=ImagePreprocess(size=(64, 64)))
    gray = create_model("resnet20", num_classes=2, input_shape=(32, 32, 1))
    with pytest.raises(UserError, match=r"no default preprocessing; pass preprocess=ImagePreprocess"):
        export_model(gray, tmp_path / "b")
    with pytest.raises(UserError, match=r"has no head: create it"):
        export_model(create_model("resnet20", num_classes=0, input_shape=(32, 32, 3)), tmp_path / "b")
    with pytest.raises(UserError, match=r"unknown target 'servin'; did you mean 'serving'"):
        export_model(model, tmp_path / "b", target="servin")
    with pytest.raises(UserError, match=r"unknown precision 'float3'; did you mean 'float32'"):
        export_model(model, tmp_path / "b", precision="float3")
    assert not (tmp_path / "b").exists()


def test_a_directory_with_other_files_is_rejected_unchanged(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"contains files that are not exports \(thesis.txt\)"):
        export_model(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match=r"thesis.txt' is a file; exports need a directory"):
        export_model(run, tmp_path / "thesis.txt")


FILES = ("saved_model.pb", "fingerprint.pb", "variables/variables.index", "assets.extra/resnet_tf.json")
FILES += ("assets.extra/labels.txt", "assets.extra/sha256.json", "assets.extra/tf_serving_warmup_requests")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_corrupt_export_is_rejected_before_loading(tiny_export, tmp_path, monkeypatch, name, corrupt):
    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail("it was loaded"))
    shutil.copytree(tiny_export, tmp_path / "1")
    assert set(FILES) <= {path.relative_to(tiny_export).as_posix() for path in tiny_export.rglob("*")}
    corrupt(tmp_path / "1" / name)
    with pytest.raises(UserError, match=r"exported model '.*/1' is corrupt: .*; export it again"):
        Predictor(tmp_path)


def test_a_manifest_with_a_path_outside_is_corrupt(tiny_export, tmp_path):
    shutil.copytree(tiny_export, tmp_path / "1")
    listed = tmp_path / "1" / MANIFEST
    listed.write_text(listed.read_text().replace("fingerprint.pb", "/fingerprint.pb"))
    with pytest.raises(UserError, match=r"is corrupt: .*sha256.json lists '/fingerprint.pb', which lies outside"):
        Predictor(tmp_path)


def test_a_directory_of_another_program_is_rejected(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(UserError, match=r"is not a model exported by resnet_tf: 'assets.extra/resnet_tf.json' is miss"):
        Predictor(tmp_path)


def test_a_failed_export_leaves_no_files(run, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "{{node SaveV2}} x; No space left on device [Op:SaveV2]")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(UserError, match=r"cannot write to '.*': x; No space left on device$"):
        export_model(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_graph_reports_the_index_of_an_unreadable_image(tiny_export, tiny_images):
    """The message of the graph itself, which clients without this package receive."""
    predict = load_once(tiny_export).signatures["serving_default"]
    huge = bytearray(tiny_images[0])
    huge[16:24] = (2**20).to_bytes(4, "big") * 2
    photo = tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).numpy()
    for unreadable, reason in (
        (b"", "the file is empty"),
        (b"nonsense", "not a JPEG, PNG, BMP, GIF or WebP image"),
        (tiny_images[0][:60], "corrupt or cut short"),
        (photo[:200], "corrupt or cut short"),
        (photo[:12], "corrupt or cut short"),
        (bytes(huge), "its header claims more than max_pixels=67,108,864"),
    ):
        for index in (0, 2):
            batch = [tiny_images[0]] * 3
            batch[index] = unreadable
            with pytest.raises(tf.errors.InvalidArgumentError, match=rf"image {index} of the batch .*: {reason}"):
                predict(image_bytes=tf.constant(batch))
    assert predict(image_bytes=tf.constant(tiny_images))["logits"].shape == (16, 10)


def test_the_first_frame_of_an_animated_webp_is_used(tiny_export):
    """TensorFlow decodes 4 channels into a buffer for 3, which aborts the process."""
    first, second = (np.full((16, 16, 3), value, np.uint8) for value in (40, 200))
    animated, still = io.BytesIO(), io.BytesIO()
    Image.fromarray(first).save(animated, "WEBP", save_all=True, append_images=[Image.fromarray(second)], lossless=True)
    Image.fromarray(first).save(still, "PNG")
    predict = load_once(tiny_export).signatures["serving_default"]
    # In two batches, as the index in a batch changes the last bit on processors without AVX-512.
    ours, expected = (predict(image_bytes=tf.constant([each.getvalue()]))["logits"] for each in (animated, still))
    np.testing.assert_array_equal(ours, expected)


def test_an_unreadable_image_is_named_and_the_next_request_works(tiny_export, tiny_images):
    predictor = Predictor(tiny_export)
    with pytest.raises(
        UserError, match=r"image 1 of the batch is not a readable image: not a JPEG, PNG, BMP, GIF or WebP"
    ):
        predictor.predict_batch([tiny_images[0], b"nonsense"])
    assert len(predictor(tiny_images)) == len(tiny_images)
    with pytest.raises(UserError, match=r"cannot read 'nowhere.jpg': No such file"):
        predictor(["nowhere.jpg"])


def test_pixels_of_another_shape_dtype_or_range_are_rejected(tiny_export):
    predictor = Predictor(tiny_export)
    pixels = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype("float32")
    assert predictor.logits(pixels).shape == (2, 10)
    for wrong, message in (
        (pixels[0], r"shape \(8, 8, 3\); expected \[B, 8, 8, 3\]"),
        (pixels[:, :7], r"shape \(2, 7, 8, 3\); expected"),
        ((pixels * 255).astype(np.uint8), r"images of uint8; expected float32 in \[0, 1\]"),
        (pixels * 255, r"images from .* to 2\d\d.*; expected RGB in \[0, 1\]"),
        (pixels * np.nan, r"images from nan to nan"),
    ):
        with pytest.raises(UserError, match=message):
            predictor.logits(wrong)


def test_classify_takes_serialized_examples(run, tiny_export, tiny_images):
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[item]))}
            )
        ).SerializeToString()
        for item in tiny_images
    ]
    model = load_once(tiny_export)
    outputs = model.signatures["classify"](inputs=tf.constant(examples))
    expected = model.signatures["serving_default"](image_bytes=tf.constant(tiny_images))["probabilities"]
    np.testing.assert_allclose(outputs["scores"], expected, atol=1e-6)
    assert outputs["classes"].numpy().tolist() == [[label.encode() for label in run.labels]] * 16


def test_heatmaps_equal_grad_cam(run, tiny_export, tiny_images):
    """Selvaraju et al. 2017, eq. 1 and 2, with gradients by tf.GradientTape."""
    model, preprocess = run.model, run.preprocess
    last = keras.Model(model.input, [model.get_layer("pool").input, model.output])
    with tf.GradientTape() as tape:
        maps, _ = last(preprocess.from_encoded(tf.constant(tiny_images)), training=False)
        tape.watch(maps)
        best = tf.reduce_max(model.get_layer("logits")(model.get_layer("pool")(maps)), axis=1)
    weights = tf.reduce_mean(tape.gradient(best, maps), axis=[1, 2])
    expected = tf.nn.relu(tf.einsum("bhwf,bf->bhw", maps, weights)).numpy()
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-12)
    explain = load_once(tiny_export).signatures["explain"]
    found = explain(image_bytes=tf.constant(tiny_images))["heatmaps"]
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "target",
    [
        "serving",
        *(pytest.param(each, marks=LONG) for each in ("hub", "litert", "keras", "onnx", "openvino")),
    ],
)
def test_targets_compute_the_same_logits(run, tiny_export, tiny_images, tmp_path, target):
    for package in {"litert": ["ai_edge_litert"], "onnx": ["tf2onnx", "onnxruntime"], "openvino": ["openvino"]}.get(
        target, []
    ):
        pytest.importorskip(package)
    path = export_model(run, tmp_path, target=target)
    expected, found = Predictor(tiny_export).predict_batch(tiny_images), Predictor(path).predict_batch(tiny_images)
    for name in ("logits", "probabilities"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    assert Predictor(path)(tiny_images)[0].labels == Predictor(tiny_export)(tiny_images)[0].labels
    with pytest.raises(UserError, match=r"image 1 of the batch is not a readable image"):
        Predictor(path).predict_batch([tiny_images[0], b"nonsense"])


@pytest.mark.parametrize("target", ["hub", "hub_features"])
def test_a_network_is_initialized_from_a_hub_export(run, tmp_path, target):
    path, head = export_model(run, tmp_path, target=target), target == "hub"
    name, shape = run.config.model.name, run.model.input_shape[1:]
    found = create_model(name, num_classes=len(run.labels), input_shape=shape, weights=path, new_head=not head)
    expected = {each.path: each.numpy() for each in run.model.variables if head or not each.path.startswith("logits")}
    assert len(expected) > 40
    for variable in found.variables:
        if variable.path in expected:
            np.testing.assert_array_equal(variable.numpy(), expected.pop(variable.path), err_msg=variable.path)
    assert not expected
    assert found.preprocess == run.preprocess
    assert found.labels == (run.labels if head else None)


def test_initialization_from_an_export_without_variables_is_rejected(run, tiny_export, tmp_path):
    name, shape = run.config.model.name, run.model.input_shape[1:]
    with pytest.raises(UserError, match=r"contains constants instead of variables; export the run with --target=hub"):
        create_model(name, num_classes=len(run.labels), input_shape=shape, weights=tiny_export)
    message = r"weights are read from a file, or from a hub export: '.*' is not a model exported by resnet_tf"
    with pytest.raises(UserError, match=message):
        create_model(name, num_classes=len(run.labels), input_shape=shape, weights=tmp_path)


def test_initialization_from_a_run_names_the_command_that_exports_it(run, tiny_run):
    name, shape = run.config.model.name, run.model.input_shape[1:]
    command = f"python -m resnet_tf.export --workdir={tiny_run} --target=hub"
    message = f"'{tiny_run}' is a run; export it with {command}, and take '{tiny_run}/export/hub'"
    for path in (tiny_run, tiny_run / "checkpoints", *(tiny_run / "checkpoints").iterdir()):
        with pytest.raises(UserError, match=re.escape(message)):
            create_model(name, num_classes=len(run.labels), input_shape=shape, weights=path)


def test_the_drift_of_bfloat16_is_logged_and_stored(run, tmp_path, tiny_images, caplog):
    caplog.set_level("INFO", "resnet_tf")
    path = export_model(run, tmp_path, precision="bfloat16")
    drift = read_export(path).metadata["drift"]
    assert drift["examples"] == 100
    assert drift["data"] == "split 'test[:100]'"
    assert 0 < drift["logits"] < 0.05
    assert abs(drift["top1_before"] - run.metrics["top1"]) < 1e-9
    assert "serving bfloat16: " in caplog.text
    assert Predictor(path).predict_batch(tiny_images)["logits"].dtype == np.float32


def test_one_trace_of_a_model_serves_batches_of_any_size(run):
    shapes = []

    def model(inputs, training):
        shapes.append(inputs.shape.as_list())
        return run.model(inputs, training=training)

    logits = runners.keras_logits(model, run.preprocess)
    images = np.random.default_rng(0).uniform(size=(5, 8, 8, 3)).astype("float32")
    expected = run.model(run.preprocess.normalize(images), training=False)
    for count in (1, 2, 3, 5):
        np.testing.assert_allclose(logits(images[:count]), expected[:count], atol=1e-5)
    assert shapes == [list(run.model.input_shape)]


@pytest.fixture
def open_data(tmp_path):
    """Return a function that writes labels and class names, and opens them for a model with other class names."""

    def opened(labels, class_names, of_model):
        images = np.zeros((len(labels), 8, 8, 3), np.uint8)
        names = {"class_names": class_names} if class_names else {}
        arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
        np.savez(tmp_path / "data.npz", **arrays, **names)
        data = DataConfig(source=str(tmp_path / "data.npz"), image_size=8)
        return exporting._open_data(data, of_model).validation.labels.tolist()

    return opened


@pytest.mark.parametrize(
    ("class_names", "of_model", "expected"),
    [
        (["a", "b", "c"], ["a", "b", "c"], [0, 1, 2]),
        (["b", "c", "a"], ["a", "b", "c"], [1, 2, 0]),
        (["b", "d", "e"], ["a", "b", "c", "d", "e"], [1, 3, 4]),
        ([], ["a", "b", "c"], [0, 1, 2]),
        (["a", "b", "c"], ["0", "1", "2"], [0, 1, 2]),
    ],
)
def test_the_data_of_an_export_have_the_classes_of_the_model(open_data, class_names, of_model, expected):
    assert open_data(np.arange(3), class_names, of_model) == expected


def test_the_label_sets_of_an_export_have_the_classes_of_the_model(open_data):
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    assert open_data(labels, ["a", "b"], ["b", "x", "a"]) == [[False, False, True], [True, False, True], [False] * 3]


@pytest.mark.parametrize(
    ("class_names", "of_model"),
    [
        (["a", "b", "c"], ["a", "b"]),  # a class was added
        (["a", "b", "c"], ["a", "b", "d"]),
        ([], ["a", "b"]),
        ([], ["1", "2", "3"]),  # another numbering
    ],
)
def test_data_of_other_classes_are_refused_by_an_export(open_data, class_names, of_model):
    with pytest.raises(UserError, match=r"^the model has the classes .*, but '.*data\.npz' has "):
        open_data(np.arange(3), class_names, of_model)


def test_a_loss_of_accuracy_is_noticed_with_classes_in_another_order(tmp_path):
    names, shifted = ["a", "b", "c"], ["b", "c", "a"]
    model = create_model("resnet8_w32", num_classes=3, input_shape=(8, 8, 3))
    preprocess = ImagePreprocess(size=(8, 8), crop_fraction=1.0)
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    best = model(preprocess.normalize(images / np.float32(255)), training=False).numpy().argmax(axis=1)
    labels = np.array([shifted.index(names[index]) for index in best])
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "data.npz", **arrays, class_names=shifted)
    data = DataConfig(source=str(tmp_path / "data.npz"), image_size=8)
    source = exporting._exportable(model, preprocess, names, data, needs_head=True)
    source = dataclasses.replace(source, settings=dataclasses.replace(source.settings, max_logit_drift=1e9))
    wrong = np.eye(3)[[(best[0] + 1) % 3]]
    with pytest.raises(UserError, match=r"top-1 1\.0000 to 0\.\d+; the accuracy drop exceeds"):
        exporting._checked_drift(source, Mock(logits=lambda inputs: wrong.repeat(len(inputs), axis=0)))


def test_an_export_with_too_much_drift_is_rejected(run, tmp_path):
    strict = dataclasses.replace(
        run,
        config=dataclasses.replace(run.config, export=dataclasses.replace(run.config.export, max_logit_drift=1e-6)),
    )
    with pytest.raises(UserError, match=r"export rejected: .*; the logit drift exceeds export.max_logit_drift=1e-06"):
        export_model(strict, tmp_path / "models", precision="bfloat16")
    assert not (tmp_path / "models").exists()
    drift = Drift(100, "split 'test'", 90, 0.01, 0.95, 0.90)
    with pytest.raises(
        UserError, match=r"top-1 0.9500 to 0.9000; the accuracy drop exceeds export.max_accuracy_drop=0.01"
    ):
        check_drift(drift, max_logit_drift=0.25, max_accuracy_drop=0.01)


def test_drift_is_that_of_numpy():
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=(2, 60, 4)).astype(np.float32)
    labels = before.argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 4
    batches = [(np.arange(start, start + 20), labels[start : start + 20]) for start in (0, 20, 40)]
    drift = measure_drift(before.__getitem__, after.__getitem__, batches, "x")
    assert drift.logits == pytest.approx(np.sqrt(np.mean((after - before) ** 2)) / before.std(), rel=1e-5)
    assert drift.same_top1 == np.sum(before.argmax(axis=1) == after.argmax(axis=1))
    assert drift.top1_before == pytest.approx(50 / 60)
    assert drift.top1_after == pytest.approx(np.mean(after.argmax(axis=1) == labels))
    with pytest.raises(UserError, match=r"the accuracy drop exceeds export.max_accuracy_drop=0.3"):
        check_drift(drift, max_logit_drift=9.0, max_accuracy_drop=0.3)
    with pytest.raises(UserError, match=r"the logit drift exceeds export.max_logit_drift=9.0"):
        check_drift(dataclasses.replace(drift, logits=float("nan")), max_logit_drift=9.0, max_accuracy_drop=1.0)


def test_accuracies_of_a_drift_are_those_of_an_evaluation():
    """Of multi-label targets, examples without a class do not count."""
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=(2, 60, 4)).round().astype(np.float32)  # with equal logits, as of int8
    labels = generator.random((60, 4)) < 0.3
    for targets in (labels, labels.argmax(axis=1)):
        drift = measure_drift(before.__getitem__, after.__getitem__, [(np.arange(60), targets)], "x")
        for found, logits in ((drift.top1_before, before), (drift.top1_after, after)):
            assert found == pytest.approx(targets_of(targets).evaluate(targets, logits).top(1))
    drift = measure_drift(before.__getitem__, after.__getitem__, [(np.arange(60), np.zeros_like(labels))], "x")
    assert (drift.top1_before, drift.top1_after) == (None, None)


@pytest.mark.parametrize("points", [0, 1, 2, 5])
def test_a_drop_at_the_limit_is_accepted(points):
    """0.81 - 0.80 is more than 0.01 in floating-point numbers."""
    for before in range(points, 101):
        drift = Drift(100, "split 'test'", 90, 0.01, before / 100, (before - points) / 100)
        check_drift(drift, max_logit_drift=0.25, max_accuracy_drop=points / 100)
        with pytest.raises(UserError, match=r"the accuracy drop exceeds"):
            check_drift(
                dataclasses.replace(drift, top1_after=drift.top1_after - 0.001),
                max_logit_drift=0.25,
                max_accuracy_drop=points / 100,
            )


def test_int8_of_a_bare_model_needs_data(tmp_path):
    model = create_model("resnet20", num_classes=2, input_shape=(32, 32, 3))
    with pytest.raises(UserError, match=r"int8 needs examples for calibration: pass data=DataConfig"):
        export_model(model, tmp_path / "models", target="litert", precision="int8")
    assert not (tmp_path / "models").exists()
    path = export_model(model, tmp_path / "models", precision="bfloat16")
    assert read_export(path).metadata["drift"]["data"] == "random"


def test_features_are_exported_without_a_head(run, tmp_path):
    backbone = create_model("resnet20", num_classes=0, input_shape=(32, 32, 3))
    path = export_model(backbone, tmp_path, target="hub_features")
    assert tf.saved_model.load(str(path))(tf.zeros([1, 32, 32, 3])).shape == (1, 64)
    with pytest.raises(UserError, match=r"returns features and has no classes to predict"):
        Predictor(path)
    assert export_benchmark._main("first_answer", str(path)) == {
        "error": f"{str(path)!r} returns features and has no classes to predict"
    }


@pytest.mark.slow
@pytest.mark.long
def test_a_predictor_is_thread_safe(tiny_export, tiny_images):
    """10,000 predictions in 8 threads with one predictor; resident memory grows by less than 5 %."""
    predictor = Predictor(tiny_export)
    expected = [prediction.indices for prediction in predictor(tiny_images)]

    def is_expected(number: int) -> bool:
        return predictor([tiny_images[number % 16]])[0].indices == expected[number % 16]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_expected, range(2000)))
        before = _resident_bytes()
        assert sum(pool.map(is_expected, range(10_000))) == 10_000
    assert _resident_bytes() < 1.05 * before


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
