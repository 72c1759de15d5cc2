"""Training batches are a function of (config, seed, step); evaluation reads every example once."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import LONG, override_groups
from sklearn.datasets import load_digits
from tensorflow.python.framework import op_def_registry

from resnet_tf.config import AugmentConfig, load_config
from resnet_tf.core.errors import UserError
from resnet_tf.data import order, pipeline
from resnet_tf.data.pipeline import Shard, TrainingLength
from resnet_tf.data.sources import open_source
from resnet_tf.data.unreadable import UnreadableExamples
from resnet_tf.inputs import create_preprocess

EVALUATED = 201


def _arrays(folder):
    """Return an archive of digits."""
    path = folder / "digits.npz"
    if not path.exists():
        images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
        labels = load_digits().target
        np.savez(path, x_train=images[:300], y_train=labels[:300], x_test=images[300:350], y_test=labels[300:350])
    return path


def _setup(data_dir, photos, source_type):
    digits = [f"data.data_dir={data_dir}", "data.train_split=train[:250]", f"data.eval_split=test[:{EVALUATED}]"]
    if source_type == "memory":
        config = load_config("digits", [*digits, "train.epochs=3", "augment.flip=true"])
    elif source_type == "stream":
        overrides = [*digits, "train.epochs=3", "data.memory_limit_mb=0", "augment.pad_crop=1"]
        config = load_config("digits", [*overrides, "data.batch_size=100"])
    elif source_type == "arrays":
        overrides = [f"data.source={_arrays(photos)}", "train.epochs=3", "data.batch_size=60", "data.memory_limit_mb=0"]
        config = load_config("digits", [*overrides, "augment.policy=trivialaugment"])
    else:
        overrides = [f"data.source={photos}", "train.epochs=3", "data.batch_size=4", "data.image_size=32"]
        config = load_config("imagefolder", [*overrides, "augment.mixup=0.3", "augment.cutmix=1"])
    source = open_source(config.data)
    return config, source, create_preprocess(config.data), TrainingLength.of(config, source)


@pytest.mark.parametrize(
    "source_type",
    [
        "stream",
        "folder",
        pytest.param("memory", marks=LONG),
        pytest.param("arrays", marks=LONG),
    ],
)
def test_batches_do_not_depend_on_the_first_step(data_dir, photos, source_type):
    config, source, preprocess, length = _setup(data_dir, photos, source_type)
    complete = list(pipeline.train_batches(config, source, preprocess, length, start=0).as_numpy_iterator())
    assert len(complete) == length.total_steps == 3 * length.steps_per_epoch
    for start in (length.steps_per_epoch, length.total_steps - 1):
        resumed = pipeline.train_batches(config, source, preprocess, length, start=start).as_numpy_iterator()
        for batch, reference in zip(resumed, complete[start:], strict=True):
            for part, expected in zip(batch, reference, strict=True):
                np.testing.assert_array_equal(part, expected)


@pytest.mark.slow
@pytest.mark.parametrize("source_type", ["memory", "stream", "folder"])
def test_no_dataset_has_an_autotuner(data_dir, photos, source_type):
    """The destructor of an iterator waits for the thread of the autotuner, up to one minute."""
    config, source, preprocess, length = _setup(data_dir, photos, source_type)
    evaluation = pipeline.eval_batches(source.validation, preprocess, 2)
    for batches in (
        pipeline.train_batches(config, source, preprocess, length, start=0),
        pipeline.split_among_replicas(evaluation, 2),
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
def test_every_image_is_mirrored_in_every_other_epoch(tmp_path, limit):
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source_type", "balance"),
    [
        ("stream", "uniform"),
        ("folder", "none"),
        *(
            pytest.param(source_type, balance, marks=LONG)
            for source_type, balance in (
                *(("stream", "none"), ("folder", "uniform"), ("memory", "none"), ("memory", "uniform")),
                *(("arrays", "none"), ("arrays", "uniform")),
            )
        ),
    ],
)
def test_two_workers_have_the_batches_of_one(data_dir, photos, source_type, balance):
    config, source, preprocess, length = _setup(data_dir, photos, source_type)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, balance=balance))
    complete = pipeline.train_batches(config, source, preprocess, length, start=1).as_numpy_iterator()
    parts = [
        pipeline.train_batches(config, source, preprocess, length, start=1, shard=Shard(index, 2)).as_numpy_iterator()
        for index in range(2)
    ]
    for expected, first, second in zip(complete, *parts, strict=True):
        for together, left, right in zip(expected, first, second, strict=True):
            assert len(left) == len(right)
            np.testing.assert_array_equal(np.concatenate([left, right]), together)


@pytest.mark.slow
def test_step_one_million_reads_no_earlier_examples(photos):
    """All images that are not in its batch are deleted."""
    overrides = [f"data.source={photos}", "train.epochs=1000000", "data.batch_size=4", "data.image_size=32"]
    config = load_config("imagefolder", overrides)
    source, preprocess = open_source(config.data), create_preprocess(config.data)
    length = TrainingLength.of(config, source)
    positions = 4_000_000 + tf.range(4, dtype=tf.int64)
    indices = order.examples_at(config, source.train.labels, positions_per_epoch=12)(positions).numpy()
    for index in set(range(12)) - set(indices.tolist()):
        Path(source.train.locate(index)["file"]).unlink()
    images, labels, missing = next(iter(pipeline.train_batches(config, source, preprocess, length, start=1_000_000)))
    assert missing.numpy().max() == -1
    np.testing.assert_array_equal(labels, source.train.labels[indices])
    reds = images.numpy()[..., 0].mean(axis=(1, 2)) > images.numpy()[..., 2].mean(axis=(1, 2))
    np.testing.assert_array_equal(reds, labels.numpy() == 1)


# Stateful operations that op determinism ignores, by `make_deterministic.cc` of TensorFlow 2.21; with any other one,
# images are read and decoded one after another.
_IGNORED = {"TensorSliceDataset", "RangeDataset", "TFRecordDatasetV2"}


@pytest.mark.parametrize("source_type", ["memory", "stream", "arrays", "folder"])
def test_the_pipeline_is_parallel_with_op_determinism(data_dir, photos, source_type):
    config, source, preprocess, length = _setup(data_dir, photos, source_type)
    batches = pipeline.train_batches(config, source, preprocess, length, start=0)
    graph = tf.compat.v1.GraphDef.FromString(batches._as_serialized_graph().numpy())
    nodes = [node for function in graph.library.function for node in function.node_def]
    calls = {function.signature.name for function in graph.library.function}
    present = {node.op for node in nodes} - calls
    definitions = {name: op_def_registry.get(name) for name in present}
    stateful = {name for name, definition in definitions.items() if definition.is_stateful}
    assert stateful - {"StatefulPartitionedCall", "If", "While", "Case"} <= _IGNORED
    assert "ParallelMapDatasetV2" in present or source_type == "memory"


@pytest.mark.slow
@pytest.mark.parametrize("source_type", ["memory", "stream", "arrays", "folder"])
def test_an_epoch_has_no_example_twice(data_dir, photos, source_type):
    config, source, preprocess, length = _setup(data_dir, photos, source_type)
    plain = override_groups(dataclasses.replace(config, augment=AugmentConfig()), data={"drop_remainder": "true"})
    length = TrainingLength.of(plain, source)
    batches = list(pipeline.train_batches(plain, source, preprocess, length, start=0).as_numpy_iterator())
    for epoch in range(3):
        images = [
            image.tobytes()
            for batch, *_ in batches[epoch * length.steps_per_epoch : (epoch + 1) * length.steps_per_epoch]
            for image in batch
        ]
        assert len(images) == length.steps_per_epoch * plain.data.batch_size
        # Two of the digits are identical.
        assert len(set(images)) >= len(images) - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "source_type",
    [
        "folder",
        pytest.param("memory", marks=LONG),
        pytest.param("stream", marks=LONG),
        pytest.param("arrays", marks=LONG),
    ],
)
def test_batches_do_not_depend_on_the_global_seed_of_tensorflow(data_dir, photos, source_type):
    """Training sets it to `runtime.seed`, by default 0."""
    config, source, preprocess, length = _setup(data_dir, photos, source_type)
    first = []
    for seed in (0, 5):
        tf.random.set_seed(seed)
        batches = pipeline.train_batches(config, source, preprocess, length, start=1)
        first.append(next(batches.as_numpy_iterator()))
    for images, labels, *_ in first[1:]:
        np.testing.assert_array_equal(images, first[0][0])
        np.testing.assert_array_equal(labels, first[0][1])


@pytest.mark.slow
def test_epochs_and_seeds_differ(data_dir, photos):
    config, source, preprocess, length = _setup(data_dir, photos, "memory")
    labels = [
        batch[1] for batch in pipeline.train_batches(config, source, preprocess, length, start=0).as_numpy_iterator()
    ]
    assert not np.array_equal(labels[0], labels[length.steps_per_epoch])
    other = load_config("digits", [f"data.data_dir={data_dir}", "runtime.seed=1"])
    first = next(pipeline.train_batches(other, source, preprocess, length, start=0).as_numpy_iterator())
    assert not np.array_equal(labels[0], first[1])


def test_memory_and_stream_return_the_same_pixels(data_dir, photos):
    """Without augmentation, and sorted, both return the images of the data set."""
    results = []
    for source_type in ("memory", "stream"):
        config, source, preprocess, _ = _setup(data_dir, photos, source_type)
        config = dataclasses.replace(config, augment=AugmentConfig())
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=250))
        batches = pipeline.train_batches(config, source, preprocess, TrainingLength.of(config, source), start=0)
        images, labels, *_ = next(batches.as_numpy_iterator())
        order = np.lexsort((*np.round(images.reshape(250, -1).T, 3), labels))
        results.append(images[order])
    np.testing.assert_allclose(*results, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 50, EVALUATED, 1000])
def test_evaluation_reads_every_example_once_in_order(data_dir, photos, batch_size):
    _, source, preprocess, _ = _setup(data_dir, photos, "memory")
    batches = list(pipeline.eval_batches(source.validation, preprocess, batch_size).as_numpy_iterator())
    assert {len(images) for images, _, _ in batches} == {batch_size}
    labels, indices = (np.concatenate([batch[part] for batch in batches]) for part in (1, 2))
    assert labels[:EVALUATED].tolist() == source.validation.labels.tolist()
    assert indices.tolist() == [*range(EVALUATED), *[-1] * (len(indices) - EVALUATED)]


def test_a_repeated_evaluation_reads_its_images_once(photos):
    source = open_source(load_config("imagefolder", [f"data.source={photos}"]).data)
    preprocess = create_preprocess(load_config("imagefolder", ["data.image_size=32"]).data)
    cached, uncached = (
        pipeline.eval_batches(source.validation, preprocess, 4, memory_limit_mb=limit) for limit in (1, 0)
    )
    expected = list(uncached.as_numpy_iterator())
    list(cached.as_numpy_iterator())
    shutil.rmtree(photos / "test")
    for batch, reference in zip(cached.as_numpy_iterator(), expected, strict=True):
        for part, other in zip(batch, reference, strict=True):
            np.testing.assert_array_equal(part, other)
    with pytest.raises(tf.errors.NotFoundError):
        list(uncached.as_numpy_iterator())


def test_workers_have_equal_numbers_of_evaluation_batches(data_dir, photos):
    _, source, preprocess, _ = _setup(data_dir, photos, "memory")
    found = []
    for worker in range(3):
        batches = list(
            pipeline.eval_batches(source.validation, preprocess, 16, shard=Shard(worker, 3)).as_numpy_iterator()
        )
        assert len(batches) == 5
        found += [index for *_, indices in batches for index in indices if index >= 0]
    assert found == list(range(EVALUATED))


class _Hosts:
    """Strategy of two hosts with two replicas each, as of a slice of a TPU pod: two inputs in one process."""

    num_replicas_in_sync = 4

    def distribute_datasets_from_function(self, create):
        return [create(tf.distribute.InputContext(2, index, num_replicas_in_sync=4)) for index in range(2)]


def _of_replicas(hosts) -> list[tuple[np.ndarray, ...]]:
    """Return the batches of two hosts, from the parts of their replicas in order."""
    parts = [list(each.as_numpy_iterator()) for each in hosts]
    batches = []
    for step in range(0, len(parts[0]), 2):
        own = [*parts[0][step : step + 2], *parts[1][step : step + 2]]
        batches.append(tuple(np.concatenate(arrays) for arrays in zip(*own, strict=True)))
    return batches


@pytest.mark.parametrize("source_type", ["memory", "stream"])
def test_hosts_of_a_slice_have_the_batches_of_one(data_dir, photos, source_type):
    config, source, preprocess, length = _setup(data_dir, photos, source_type)

    def train(shard):
        return pipeline.train_batches(config, source, preprocess, length, start=length.total_steps - 2, shard=shard)

    found, expected = _of_replicas(pipeline.distribute(train, _Hosts())), list(train(Shard()).as_numpy_iterator())
    for ours, theirs in zip(found, expected, strict=True):
        for part, reference in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(part, reference)


def test_hosts_of_a_slice_evaluate_every_example_once(data_dir, photos):
    _, source, preprocess, _ = _setup(data_dir, photos, "memory")

    def evaluate(shard):
        return pipeline.eval_batches(source.validation, preprocess, 16, shard=shard)

    indices = np.concatenate([batch[-1] for batch in _of_replicas(pipeline.distribute(evaluate, _Hosts()))])
    assert sorted(indices[indices >= 0]) == list(range(EVALUATED))


def test_replicas_have_consecutive_parts_of_a_batch():
    batches = tf.data.Dataset.from_tensor_slices(np.arange(24).reshape(2, 6, 2)).map(lambda each: (each, each[:, 0]))
    parts = list(pipeline.split_among_replicas(batches, 3).as_numpy_iterator())
    assert [labels.tolist() for _, labels in parts] == [[0, 2], [4, 6], [8, 10], [12, 14], [16, 18], [20, 22]]
    assert {images.shape for images, _ in parts} == {(2, 2)}
    assert pipeline.split_among_replicas(batches, 1) is batches


def test_a_batch_larger_than_the_data_is_refused(data_dir):
    """Only if incomplete batches are omitted; `default_settings.resolve` reduces the batch otherwise."""
    settings = [f"data.data_dir={data_dir}", "data.batch_size=899", "data.drop_remainder=true"]
    config = load_config("digits", settings)
    with pytest.raises(UserError, match=r"data.batch_size=899 exceeds the 898 examples of split 'train'"):
        TrainingLength.of(config, open_source(config.data))


def test_load_examples_by_index(data_dir, photos):
    _, source, preprocess, _ = _setup(data_dir, photos, "memory")
    examples = pipeline.load_examples(source.validation, preprocess, [5, 2])
    unreadable = UnreadableExamples(source.validation, preprocess, load_config("digits").data)
    images = pipeline.load_images(source.validation, preprocess, unreadable)
    for example, index in zip(examples, (5, 2), strict=True):
        np.testing.assert_array_equal(np.round(example[..., :1] * 255), images[index])
