"""Event files of a run, read by TensorBoard."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import train_and_kill, writing_tensorboard
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def

from resnet_tf.core.files import read_json_lines
from resnet_tf.data import pipeline
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import create_preprocess
from resnet_tf.training.run import load_run
from resnet_tf.workflows.train import train_and_evaluate


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    with writing_tensorboard():
        train_and_evaluate(tiny_config, workdir)
    return workdir


@pytest.fixture(scope="module")
def events(run):
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    accumulator.Reload()
    return accumulator


def _images(events: EventAccumulator, tag: str) -> list[np.ndarray]:
    """Return the images of a tag, which follow their width and height."""
    assert events.summary_metadata[tag].plugin_data.plugin_name == "images"
    (event,) = events.Tensors(tag)
    return [np.asarray(Image.open(io.BytesIO(png))) for png in event.tensor_proto.string_val[2:]]


@pytest.mark.slow
def test_scalars_are_those_of_the_metrics_file(events, run):
    lines = read_json_lines(run / "metrics.jsonl")
    for name in set(lines[0]) - {"epoch", "step"}:
        found = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(name)]
        assert found == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]


def test_the_first_augmented_batch_is_stored(events, tiny_config):
    source, preprocess = open_source(tiny_config.data), create_preprocess(tiny_config.data)
    images, _ = pipeline.load_batch(tiny_config, source, preprocess, step=0)
    (grid,) = _images(events, "inputs")
    assert grid.shape == (64, 64)  # eight rows of eight digits of eight pixels
    for index in (0, 7, 8, 63):
        row, column = divmod(index, 8)
        np.testing.assert_array_equal(grid[8 * row : 8 * row + 8, 8 * column : 8 * column + 8], images[index, ..., 0])


def test_the_confusion_matrix_is_stored_as_an_image(events):
    (image,) = _images(events, "evaluation")
    assert image.shape == (440, 560, 4)
    assert image[..., :3].std() > 10


def test_tensorboard_reads_the_graph(events, run):
    assert events.summary_metadata["network"].plugin_data.plugin_name == "graph_keras_model"
    (event,) = events.Tensors("network")
    graph = keras_model_to_graph_def(json.loads(event.tensor_proto.string_val[0]))
    layers = {layer.name for layer in load_run(run).model.layers}
    assert {node.name.split("/")[-1] for node in graph.node} == layers


def test_the_configuration_is_text(events, tiny_config):
    (event,) = events.Tensors("config")
    assert tiny_config.to_json() in event.tensor_proto.string_val[0].decode()


@pytest.mark.slow
@pytest.mark.long
def test_a_resumed_run_does_not_store_the_first_batch_again(tiny_config, tmp_path):
    with writing_tensorboard():
        train_and_kill(tiny_config, tmp_path, epochs=1)
        train_and_evaluate(tiny_config, tmp_path)
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    accumulator.Reload()
    assert [event.step for event in accumulator.Tensors("inputs")] == [0]
    assert [event.step for event in accumulator.Tensors("loss")] == [7, 14]
