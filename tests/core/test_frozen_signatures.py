"""Signatures of frozen SavedModels give the outputs of TensorFlow's loader, without its graphs."""

import gc
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.eager import context

from resnet_tf.core.errors import UserError
from resnet_tf.core.frozen_signatures import load_frozen
from resnet_tf.core.saved_models import load_saved_model, load_signatures
from resnet_tf.serving.predictor import Predictor


class _Linear(tf.Module):
    """A layer whose weight is a variable."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([[2.0], [3.0]])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="values")])
    def __call__(self, values):
        return {"total": values @ self.weight}


def _save(path, factor: float):
    function = tf.function(lambda values: {"scaled": factor * values, "same": values})
    tf.saved_model.save(
        tf.Module(), str(path), signatures=function.get_concrete_function(tf.TensorSpec([None], tf.float32, "values"))
    )
    return path


def _request(signature, images, encoded):
    ((name, argument),) = signature.structured_input_signature[1].items()
    if name == "inputs":
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded[0]]))
        example = tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))
        return {name: tf.constant([example.SerializeToString()])}
    return {name: tf.constant(encoded) if argument.dtype == tf.string else images}


def test_every_signature_equals_that_of_the_loader(tiny_export, tiny_images):
    frozen, loaded = load_frozen(tiny_export), load_saved_model(tiny_export)
    images = tf.random.uniform([3, 8, 8, 3], seed=0)
    assert set(frozen.signatures) == set(loaded.signatures)
    for name, expected in loaded.signatures.items():
        signature = frozen.signatures[name]
        types = [each.structured_input_signature[1] for each in (signature, expected)]
        assert types[0].keys() == types[1].keys()
        for key, argument in types[0].items():
            assert (argument.dtype, argument.shape) == (types[1][key].dtype, types[1][key].shape)
        assert {key: (each.dtype, each.shape.as_list()) for key, each in signature.structured_outputs.items()} == {
            key: (each.dtype, each.shape.as_list()) for key, each in expected.structured_outputs.items()
        }
        request = _request(signature, images, tiny_images)
        outputs, others = signature(**request), expected(**request)
        assert outputs.keys() == others.keys()
        for key, value in outputs.items():
            np.testing.assert_array_equal(value, others[key], err_msg=f"{name}: {key}")


def test_functions_of_the_same_name_are_kept_apart(tmp_path):
    first = load_frozen(_save(tmp_path / "a", 2.0))
    second = load_frozen(shutil.copytree(tmp_path / "a", tmp_path / "copy"))
    file = tmp_path / "copy" / "saved_model.pb"
    changed = SavedModel.FromString(file.read_bytes())
    for function in changed.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op == "Const" and node.attr["value"].tensor.dtype == tf.float32.as_datatype_enum:
                node.attr["value"].tensor.float_val[:] = [5.0]
    file.write_bytes(changed.SerializeToString())
    third = load_frozen(tmp_path / "copy")
    values = tf.constant([1.0, 2.0])
    for model, factor in ((first, 2), (second, 2), (third, 5)):
        outputs = model.signatures["serving_default"](values=values)
        np.testing.assert_array_equal(outputs["scaled"], factor * values)
        np.testing.assert_array_equal(outputs["same"], values)


def test_a_predictor_can_take_the_standard_loader(tiny_export, tiny_images):
    gc.collect()
    before = _frozen_functions()
    standard = Predictor(tiny_export, standard_loader=True)
    assert _frozen_functions() <= before
    expected = Predictor(tiny_export).predict_batch(tiny_images)
    for name, value in standard.predict_batch(tiny_images).items():
        np.testing.assert_array_equal(value, expected[name])


def _frozen_functions() -> set[str]:
    return {name for name in context.context().list_function_names() if name.startswith("frozen_")}


def test_functions_are_removed_with_their_signatures(tmp_path):
    gc.collect()
    before = _frozen_functions()
    signature = load_frozen(_save(tmp_path / "a", 2.0)).signatures["serving_default"]
    gc.collect()
    np.testing.assert_array_equal(signature(values=tf.constant([1.0]))["scaled"], [2.0])
    assert _frozen_functions() > before
    del signature
    gc.collect()
    assert _frozen_functions() == before


def test_a_model_with_variables_is_left_to_the_loader(tmp_path):
    module = _Linear()
    tf.saved_model.save(module, str(tmp_path / "a"), signatures=module.__call__)
    assert load_frozen(tmp_path / "a") is None
    signature = load_signatures(tmp_path / "a").signatures["serving_default"]
    np.testing.assert_array_equal(signature(values=tf.constant([[1.0, 1.0]]))["total"], [[5.0]])


def test_a_model_without_its_function_is_left_to_the_loader_which_refuses_it(tmp_path):
    file = _save(tmp_path / "a", 2.0) / "saved_model.pb"
    changed = SavedModel.FromString(file.read_bytes())
    del changed.meta_graphs[0].graph_def.library.function[:]
    file.write_bytes(changed.SerializeToString())
    assert load_frozen(tmp_path / "a") is None
    with pytest.raises(UserError, match="a' cannot be loaded: "):
        load_signatures(tmp_path / "a")


@pytest.mark.parametrize("content", [b"no protocol buffer", None])
def test_a_corrupt_or_missing_graph_is_an_error_of_one_line(tmp_path, content):
    (tmp_path / "a").mkdir()
    if content is not None:
        (tmp_path / "a" / "saved_model.pb").write_bytes(content)
    with pytest.raises(UserError, match=r"a' cannot be loaded: [^\n]+$"):
        load_signatures(tmp_path / "a")
