"""Batches are a function of (config, seed, step); evaluation takes every picture once."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow.python.framework import op_def_registry

from resnet_tf.config import AugmentConfig, load_config
from resnet_tf.core.errors import UserError
from resnet_tf.data import order, pipeline
from resnet_tf.data.pipeline import Shard, TrainingLength
from resnet_tf.data.sources import open_source
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.inputs import create_preprocess


def _arrays(folder):
    """The digits' training half as an archive."""
    path = folder / "digits.npz"
    if not path.exists():
        images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
        labels = load_digits().target
        np.savez(path, x_train=images[:300], y_train=labels[:300], x_test=images[300:350], y_test=labels[300:350])
    return path


def _setup(data_dir, photos, kind):
    if kind == "memory":
        config = load_config("digits", [f"data.data_dir={data_dir}", "train.epochs=3", "augment.flip=true"])
    elif kind == "stream":
        overrides = [f"data.data_dir={data_dir}", "train.epochs=3", "data.memory_limit_mb=0", "augment.pad_crop=1"]
        config = load_config("digits", [*overrides, "data.batch_size=100"])
    elif kind == "arrays":
        overrides = [f"data.source={_arrays(photos)}", "train.epochs=3", "data.batch_size=60", "data.memory_limit_mb=0"]
        config = load_config("digits", [*overrides, "augment.policy=trivialaugment"])
    else:
        overrides = [f"data.source={photos}", "train.epochs=3", "data.batch_size=4", "data.image_size=32"]
        config = load_config("imagefolder", [*overrides, "augment.mixup=0.3", "augment.cutmix=1"])
    source = open_source(config.data)
    return config, source, create_preprocess(config.data), TrainingLength.of(config, source)


@pytest.mark.parametrize("kind", ["memory", "stream", "arrays", "folder"])
def test_batch_k_is_the_same_wherever_the_run_started(data_dir, photos, kind):
    config, source, preprocess, length = _setup(data_dir, photos, kind)
    whole = list(pipeline.train_batches(config, source, preprocess, length, start=0).as_numpy_iterator())
    assert len(whole) == length.total_steps == 3 * length.steps_per_epoch
    for start in (1, length.steps_per_epoch, length.total_steps - 1):
        resumed = pipeline.train_batches(config, source, preprocess, length, start=start).as_numpy_iterator()
        for ours, theirs in zip(resumed, whole[start:], strict=True):
            for part, expected in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("kind", ["memory", "stream", "folder"])
def test_no_iterator_waits_for_an_autotuner(data_dir, photos, kind):
    """The end of one would wait for its thread, up to a minute."""
    config, source, preprocess, length = _setup(data_dir, photos, kind)
    tested = pipeline.eval_batches(source.validation, preprocess, 2)
    for batches in (
        pipeline.train_batches(config, source, preprocess, length, start=0),
        pipeline.among_replicas(tested, 2),
        source.validation.examples(),
        *pipeline.stages(config, source, preprocess, length).values(),
    ):
        assert batches.options().autotune.enabled is False


@pytest.mark.parametrize("channels", [1, 3])
def test_policies_apply_to_random_crops_of_arrays(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 48, channels), np.uint8)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    overrides = [f"data.source={tmp_path / 'a.npz'}", "data.image_size=32", "data.batch_size=20", "train.epochs=2"]
    config = load_config("imagefolder", [*overrides, "augment.policy=trivialaugment", "data.memory_limit_mb=0"])
    source, preprocess = open_source(config.data), create_preprocess(config.data)
    batches = pipeline.train_batches(config, source, preprocess, TrainingLength.of(config, source), start=0)
    for pixels, _, missing in batches.as_numpy_iterator():
        assert pixels.shape == (20, 32, 32, 3)
        assert pixels.std() > 10
        assert (missing == -1).all()


@pytest.mark.parametrize("limit", [1024, 0], ids=["memory", "stream"])
def test_every_picture_is_mirrored_in_every_other_epoch(tmp_path, limit):
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 3), np.uint8)
    labels = np.arange(60)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    overrides = [f"data.source={tmp_path / 'a.npz'}", f"data.memory_limit_mb={limit}", "data.image_size=6"]
    overrides += ["data.channels=3", "data.batch_size=20", "train.epochs=4", "augment.alternating_flip=true"]
    config = load_config("cifar10_resnet20", [*overrides, "augment.flip=false", "augment.pad_crop=0"])
    source, preprocess = open_source(config.data), create_preprocess(config.data)
    batches = pipeline.train_batches(config, source, preprocess, TrainingLength.of(config, source), start=0)
    mirrored = np.zeros((4, 60), bool)
    for step, (pixels, shown, _) in enumerate(batches.as_numpy_iterator()):
        for image, label in zip(pixels, shown, strict=True):
            mirrored[step // 3, label] = flipped = not np.array_equal(image, images[label])
            np.testing.assert_array_equal(image, images[label][:, ::-1] if flipped else images[label])
    np.testing.assert_array_equal(mirrored[0], ~mirrored[1])
    np.testing.assert_array_equal(mirrored[:2], mirrored[2:])
    assert 15 < mirrored[0].sum() < 45


@pytest.mark.parametrize("balance", ["none", "uniform"])
@pytest.mark.parametrize("kind", ["memory", "stream", "arrays", "folder"])
def test_two_workers_feed_what_one_feeds(data_dir, photos, kind, balance):
    config, source, preprocess, length = _setup(data_dir, photos, kind)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, balance=balance))
    whole = pipeline.train_batches(config, source, preprocess, length, start=1).as_numpy_iterator()
    parts = [
        pipeline.train_batches(config, source, preprocess, length, start=1, shard=Shard(index, 2)).as_numpy_iterator()
        for index in range(2)
    ]
    for expected, first, second in zip(whole, *parts, strict=True):
        for together, left, right in zip(expected, first, second, strict=True):
            assert len(left) == len(right)
            np.testing.assert_array_equal(np.concatenate([left, right]), together)


def test_step_one_million_reads_nothing_of_what_lies_before_it(photos):
    """All pictures but those of its own batch are gone."""
    overrides = [f"data.source={photos}", "train.epochs=1000000", "data.batch_size=4", "data.image_size=32"]
    config = load_config("imagefolder", overrides)
    source, preprocess = open_source(config.data), create_preprocess(config.data)
    length = TrainingLength.of(config, source)
    places = 4_000_000 + tf.range(4, dtype=tf.int64)
    examples = order.examples_at(config, source.train.labels, places_per_epoch=12)(places).numpy()
    for place in set(range(12)) - set(examples.tolist()):
        Path(source.train.locate(place)["file"]).unlink()
    images, labels, missing = next(iter(pipeline.train_batches(config, source, preprocess, length, start=1_000_000)))
    assert missing.numpy().max() == -1
    np.testing.assert_array_equal(labels, source.train.labels[examples])
    reds = images.numpy()[..., 0].mean(axis=(1, 2)) > images.numpy()[..., 2].mean(axis=(1, 2))
    np.testing.assert_array_equal(reds, labels.numpy() == 1)


# What op determinism leaves as it is, by `make_deterministic.cc` of TensorFlow 2.21: any other operation with a state
# would make it read and decode one picture after another.
_HARMLESS = {"TensorSliceDataset", "RangeDataset", "TFRecordDatasetV2"}


@pytest.mark.parametrize("kind", ["memory", "stream", "arrays", "folder"])
def test_op_determinism_leaves_the_pipeline_parallel(data_dir, photos, kind):
    config, source, preprocess, length = _setup(data_dir, photos, kind)
    batches = pipeline.train_batches(config, source, preprocess, length, start=0)
    graph = tf.compat.v1.GraphDef.FromString(batches._as_serialized_graph().numpy())
    nodes = [node for function in graph.library.function for node in function.node_def]
    calls = {function.signature.name for function in graph.library.function}
    present = {node.op for node in nodes} - calls
    definitions = {name: op_def_registry.get(name) for name in present}
    stateful = {name for name, definition in definitions.items() if definition.is_stateful}
    assert stateful - {"StatefulPartitionedCall", "If", "While", "Case"} <= _HARMLESS
    assert "ParallelMapDatasetV2" in present or kind == "memory"


@pytest.mark.parametrize("kind", ["memory", "stream", "arrays", "folder"])
def test_an_epoch_takes_no_picture_twice(data_dir, photos, kind):
    config, source, preprocess, length = _setup(data_dir, photos, kind)
    plain = dataclasses.replace(config, augment=AugmentConfig())
    batches = list(pipeline.train_batches(plain, source, preprocess, length, start=0).as_numpy_iterator())
    for epoch in range(3):
        images = [
            image.tobytes()
            for batch, *_ in batches[epoch * length.steps_per_epoch : (epoch + 1) * length.steps_per_epoch]
            for image in batch
        ]
        assert len(images) == length.steps_per_epoch * plain.data.batch_size
        # Two of the digits are pixel for pixel the same.
        assert len(set(images)) >= len(images) - 1


@pytest.mark.parametrize("kind", ["memory", "stream", "arrays", "folder"])
def test_batches_do_not_depend_on_tensorflows_own_seed(data_dir, photos, kind):
    """A run sets it to `runtime.seed`, whose default is 0."""
    config, source, preprocess, length = _setup(data_dir, photos, kind)
    first = []
    for seed in (0, 0, 5):
        tf.random.set_seed(seed)
        batches = pipeline.train_batches(config, source, preprocess, length, start=1)
        first.append(next(batches.as_numpy_iterator()))
    for images, labels, *_ in first[1:]:
        np.testing.assert_array_equal(images, first[0][0])
        np.testing.assert_array_equal(labels, first[0][1])


def test_epochs_and_seeds_differ(data_dir, photos):
    config, source, preprocess, length = _setup(data_dir, photos, "memory")
    labels = [
        batch[1] for batch in pipeline.train_batches(config, source, preprocess, length, start=0).as_numpy_iterator()
    ]
    assert not np.array_equal(labels[0], labels[length.steps_per_epoch])
    other = load_config("digits", [f"data.data_dir={data_dir}", "runtime.seed=1"])
    first = next(pipeline.train_batches(other, source, preprocess, length, start=0).as_numpy_iterator())
    assert not np.array_equal(labels[0], first[1])


def test_memory_and_stream_feed_the_same_pixels(data_dir, photos):
    """Without augmentation, and sorted, both roads give the images of the data set."""
    pictures = []
    for kind in ("memory", "stream"):
        config, source, preprocess, _ = _setup(data_dir, photos, kind)
        config = dataclasses.replace(config, augment=AugmentConfig())
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=898))
        batches = pipeline.train_batches(config, source, preprocess, TrainingLength.of(config, source), start=0)
        images, labels, *_ = next(batches.as_numpy_iterator())
        order = np.lexsort((*np.round(images.reshape(898, -1).T, 3), labels))
        pictures.append(images[order])
    np.testing.assert_allclose(*pictures, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 899, 1000])
def test_evaluation_takes_every_picture_once_in_order(data_dir, photos, batch_size):
    _, source, preprocess, _ = _setup(data_dir, photos, "memory")
    batches = list(pipeline.eval_batches(source.validation, preprocess, batch_size).as_numpy_iterator())
    assert {len(images) for images, _, _ in batches} == {batch_size}
    labels, places = (np.concatenate([batch[part] for batch in batches]) for part in (1, 2))
    assert labels[:899].tolist() == source.validation.labels.tolist()
    assert places.tolist() == [*range(899), *[-1] * (len(places) - 899)]


def test_a_test_that_is_repeated_reads_its_pictures_once(photos):
    source = open_source(load_config("imagefolder", [f"data.source={photos}"]).data)
    preprocess = create_preprocess(load_config("imagefolder", ["data.image_size=32"]).data)
    kept, read = (pipeline.eval_batches(source.validation, preprocess, 4, memory_limit_mb=limit) for limit in (1, 0))
    expected = list(read.as_numpy_iterator())
    list(kept.as_numpy_iterator())
    shutil.rmtree(photos / "test")
    for ours, theirs in zip(kept.as_numpy_iterator(), expected, strict=True):
        for part, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(part, other)
    with pytest.raises(tf.errors.NotFoundError):
        list(read.as_numpy_iterator())


def test_workers_share_an_evaluation_in_as_many_batches(data_dir, photos):
    _, source, preprocess, _ = _setup(data_dir, photos, "memory")
    found = []
    for index in range(3):
        batches = list(
            pipeline.eval_batches(source.validation, preprocess, 64, shard=Shard(index, 3)).as_numpy_iterator()
        )
        assert len(batches) == 5
        found += [place for *_, places in batches for place in places if place >= 0]
    assert found == list(range(899))


def test_replicas_take_the_parts_of_a_batch_in_order():
    batches = tf.data.Dataset.from_tensor_slices(np.arange(24).reshape(2, 6, 2)).map(lambda each: (each, each[:, 0]))
    parts = list(pipeline.among_replicas(batches, 3).as_numpy_iterator())
    assert [labels.tolist() for _, labels in parts] == [[0, 2], [4, 6], [8, 10], [12, 14], [16, 18], [20, 22]]
    assert {images.shape for images, _ in parts} == {(2, 2)}
    assert pipeline.among_replicas(batches, 1) is batches


def test_a_batch_larger_than_the_data_is_refused(data_dir):
    config = load_config("digits", [f"data.data_dir={data_dir}", "data.batch_size=899"])
    with pytest.raises(UserError, match=r"data.batch_size=899 is more than the 898 pictures of split 'train'"):
        TrainingLength.of(config, open_source(config.data))


def test_pictures_by_place(data_dir, photos):
    _, source, preprocess, _ = _setup(data_dir, photos, "memory")
    chosen = pipeline.load_examples(source.validation, preprocess, [5, 2])
    unreadable = UnreadableExamples(source.validation, preprocess, load_config("digits").data)
    images = pipeline.load_images(source.validation, preprocess, unreadable)
    for picture, place in zip(chosen, (5, 2), strict=True):
        np.testing.assert_array_equal(np.round(picture[..., :1] * 255), images[place])
