"""Exports: the same answers through every door and in every process, whole or not there."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from resnet_tf.data import preprocess
from resnet_tf.data.sources import open_source
from resnet_tf.errors import UserError
from resnet_tf.model.create import create_model
from resnet_tf.serving import artifact
from resnet_tf.serving.artifact import export_model
from resnet_tf.serving.predictor import Predictor
from resnet_tf.serving.verify import verify
from resnet_tf.spec import Preprocess
from resnet_tf.training.evaluation import evaluate_run
from resnet_tf.training.run import load_run


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run)


@pytest.fixture(scope="module")
def export(run, tmp_path_factory):
    return export_model(run, tmp_path_factory.mktemp("models") / "digits")


@pytest.fixture(scope="module")
def encoded(run):
    return [image for image, _ in open_source(run.config.data).test.examples(16).as_numpy_iterator()]


def test_signatures_and_their_outputs(export):
    signatures = tf.saved_model.load(str(export)).signatures
    assert set(signatures) == {"serving_default", "images", "features"}
    for name, dtype, shape in (("serving_default", tf.string, [None]), ("images", tf.float32, [None, 8, 8, 3])):
        (spec,) = signatures[name].structured_input_signature[1].values()
        assert (spec.dtype, spec.shape.as_list()) == (dtype, shape)
        outputs = {
            key: (value.dtype, value.shape.as_list()) for key, value in signatures[name].structured_outputs.items()
        }
        assert outputs == {
            "logits": (tf.float32, [None, 10]),
            "probabilities": (tf.float32, [None, 10]),
            "top_classes": (tf.int64, [None, 5]),
            "top_scores": (tf.float32, [None, 5]),
            "top_labels": (tf.string, [None, 5]),
        }
    assert list(signatures["serving_default"].structured_input_signature[1]) == ["image_bytes"]
    assert signatures["features"].structured_outputs["features"].shape.as_list() == [None, 64]


def test_one_picture_gives_the_same_logits_through_every_door(run, export, encoded):
    images = tf.stack(
        [
            preprocess.center_crop(preprocess.decode(tf.constant(item), run.preprocess), run.preprocess)
            for item in encoded
        ]
    )
    expected = run.model(preprocess.normalize(images, run.preprocess), training=False).numpy()
    signatures = tf.saved_model.load(str(export)).signatures
    by_bytes = signatures["serving_default"](image_bytes=tf.constant(encoded))
    by_images = signatures["images"](images=images)
    for answer in (by_bytes, by_images):
        np.testing.assert_allclose(answer["logits"], expected, atol=1e-5)
        probabilities = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
        np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)
        order = np.argsort(-probabilities, axis=1)[:, :5]
        np.testing.assert_array_equal(answer["top_classes"], order)
        np.testing.assert_allclose(answer["top_scores"], np.take_along_axis(probabilities, order, 1), atol=1e-5)
        np.testing.assert_array_equal(answer["top_labels"], np.array(run.labels, dtype=bytes)[order])
    predictions = Predictor(export)(encoded)
    assert [prediction.indices[0] for prediction in predictions] == expected.argmax(1).tolist()


def test_pictures_of_any_size_and_kind_in_one_batch(export):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    kinds = [tf.io.encode_png(pixels), tf.io.encode_jpeg(pixels[:11]), tf.io.encode_png(pixels[:, :7, :1])]
    assert len(Predictor(export)([bytes(kind.numpy()) for kind in kinds])) == 3


def test_a_fresh_process_answers_alike(run, export):
    evaluation = evaluate_run(run, open_source(run.config.data), batch_size=64)
    result = verify(export, evaluation.logits, batch_size=32)
    assert result.examples == result.same_top1 == 100
    assert result.largest_difference < 1e-5
    with pytest.raises(UserError, match=r"does not answer as the model does"):
        verify(export, evaluation.logits + np.eye(100, 10) * 0.1, batch_size=32)


def test_metadata_says_everything(run, export):
    metadata = artifact.read_metadata(export)
    assert metadata["labels"] == list(run.labels)
    assert Preprocess.from_dict(metadata["preprocess"]) == run.preprocess
    assert metadata["metrics"] == run.metrics
    assert metadata["parameters"] == run.model.count_params()
    assert metadata["config"] == json.loads(run.config.to_json())
    assert set(metadata["versions"]) == {"resnet_tf", "tensorflow", "keras", "python"}


def test_versions_count_up_and_are_never_overwritten(run, tmp_path):
    paths = [export_model(run, tmp_path / "models") for _ in range(2)]
    assert [path.name for path in paths] == ["1", "2"]
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"1", "2"}
    assert Predictor(tmp_path / "models").path.name == "2"


def test_a_bare_model_is_exported_with_its_own_preprocess_and_labels(tmp_path):
    model = create_model("resnet20", num_classes=2, input_shape=(32, 32, 3))
    path = export_model(model, tmp_path / "a", preprocess=Preprocess(size=(32, 32)), labels=["cat", "dog"])
    picture = bytes(tf.io.encode_png(np.zeros((40, 40, 3), np.uint8)).numpy())
    assert set(Predictor(path)([picture])[0].labels) == {"cat", "dog"}
    with pytest.raises(UserError, match=r"3 labels for the 2 classes of resnet20"):
        export_model(model, tmp_path / "b", labels=["a", "b", "c"])
    with pytest.raises(UserError, match=r"preprocess gives \(64, 64, 3\), but resnet20 takes \(32, 32, 3\)"):
        export_model(model, tmp_path / "b", preprocess=Preprocess(size=(64, 64)))
    grey = create_model("resnet20", num_classes=2, input_shape=(32, 32, 1))
    with pytest.raises(UserError, match=r"say with preprocess=Preprocess"):
        export_model(grey, tmp_path / "b")
    with pytest.raises(UserError, match=r"has no class head"):
        export_model(create_model("resnet20", num_classes=0, input_shape=(32, 32, 3)), tmp_path / "b")
    with pytest.raises(UserError, match=r"unknown target 'servin'; did you mean 'serving'"):
        export_model(model, tmp_path / "b", target="servin")
    with pytest.raises(UserError, match=r"unknown precision 'float3'; did you mean 'float32'"):
        export_model(model, tmp_path / "b", precision="float3")
    assert not (tmp_path / "b").exists()


def test_a_place_that_holds_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds something else \(thesis.txt\)"):
        export_model(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("missing", ["saved_model.pb", "variables/variables.index", "assets.extra/resnet_tf.json"])
def test_an_incomplete_export_is_refused(export, tmp_path, missing):
    shutil.copytree(export, tmp_path / "1")
    (tmp_path / "1" / missing).unlink()
    with pytest.raises(UserError, match=rf"is not a model exported by resnet_tf: '{missing}' is missing"):
        Predictor(tmp_path / "1")


def test_a_damaged_export_is_refused(export, tmp_path):
    for name in ("saved_model.pb", "assets.extra/resnet_tf.json"):
        copy = tmp_path / name.replace("/", "_") / "1"
        shutil.copytree(export, copy)
        (copy / name).write_bytes((copy / name).read_bytes()[:100])
        with pytest.raises(UserError, match=r"(cannot be loaded|is damaged)"):
            Predictor(copy)


def test_what_is_no_picture_is_named_and_the_next_request_works(export, encoded):
    predictor = Predictor(export)
    with pytest.raises(
        UserError, match=r"picture 1 of the batch is no picture that can be read: not a JPEG, PNG, BMP, GIF or WebP"
    ):
        predictor.answer([encoded[0], b"nonsense"])
    assert len(predictor(encoded)) == len(encoded)
    with pytest.raises(UserError, match=r"cannot read 'nowhere.jpg': No such file"):
        predictor(["nowhere.jpg"])
