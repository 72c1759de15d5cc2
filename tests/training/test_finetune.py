"""Fine-tuning: trainable layers, layer-wise decay, progressive resizing, and distillation."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CORRUPTIONS

import resnet_tf
from resnet_tf.config import Config, DataConfig, TrainConfig, load_config, override
from resnet_tf.core.errors import UserError
from resnet_tf.core.files import read_json_lines
from resnet_tf.core.targets import SINGLE_LABEL
from resnet_tf.data.sources import open_source
from resnet_tf.model.create import create_model
from resnet_tf.training import runtime
from resnet_tf.training.resize import resize
from resnet_tf.training.teacher import Teacher
from resnet_tf.training.trainer import Trainer, size_in_epoch
from resnet_tf.training.workdir import check_workdir
from resnet_tf.workflows.train import train_and_evaluate


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = create_model("resnet8_w32", num_classes=10, input_shape=(8, 8, 1))
    path = tmp_path_factory.mktemp("weights") / "start.weights.h5"
    model.save_weights(path)
    return path


def _trainer(digits_arrays, *settings) -> Trainer:
    base = [f"data.source={digits_arrays}", "model.name=resnet8_w32", "data.batch_size=64", "train.epochs=3"]
    base += ["optimizer.base_lr=0.01", "optimizer.warmup_epochs=0", "runtime.precision=float32"]
    config = load_config("digits", [*base, *settings])
    return Trainer(config, open_source(config.data), runtime.start(config.runtime))


def _moved(trained: Trainer, count: int) -> dict[str, float]:
    """Return the largest change of each variable in `count` steps: path -> change."""
    before = {each.path: each.numpy() for each in trained.model.weights}
    metrics, _ = trained.take(trained.batches(), count)
    trained.state.add(metrics, batch_size=64)
    return {each.path: np.abs(each.numpy() - before[each.path]).max() for each in trained.model.weights}


def test_a_probe_moves_the_head_alone(digits_arrays, weights):
    trained = _trainer(digits_arrays, f"model.weights={weights}", "train.finetune=probe")
    moved = _moved(trained, 3)
    assert {path for path, distance in moved.items() if distance} == {"logits/kernel", "logits/bias"}
    slots = [each.path for each in trained.optimizer.variables if "momentum" in each.path]
    assert len(slots) == 2, "frozen variables have no optimizer slots"


def test_first_the_head_then_all(digits_arrays, weights):
    trained = _trainer(digits_arrays, f"model.weights={weights}", "train.finetune=head_then_all")
    first = _moved(trained, trained.length.steps_per_epoch)
    assert {path for path, distance in first.items() if distance} == {"logits/kernel", "logits/bias"}
    second = _moved(trained, 6)
    # While the last gamma of a block is almost 0, the other gammas of the block have almost no gradient.
    assert [path for path, distance in second.items() if not distance and not path.endswith("gamma")] == []


def test_a_head_is_trained_with_its_dropout_and_a_body_at_inference(digits_arrays, weights):
    settings = ["train.finetune=head_then_all", "model.dropout=0.5", "model.stochastic_depth=0.5"]
    trained = _trainer(digits_arrays, f"model.weights={weights}", *settings)
    images, labels, _ = next(trained.batches())
    before = trained.model.non_trainable_variables
    _, state, (loss, *_) = trained.step.gradients(images, labels, head_only=True)
    changed = [old for old, new in zip(before, state, strict=True) if np.any(old.numpy() != new.numpy())]
    assert [each is trained.model.get_layer("dropout").seed_generator.state for each in changed] == [True]
    logits = trained.model(trained.preprocess.from_batch(images), training=False)
    without = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    assert abs(loss - tf.reduce_sum(without)) > 0.01


def test_frozen_batch_norm_does_not_change(digits_arrays, weights):
    moved = _moved(_trainer(digits_arrays, f"model.weights={weights}", "train.freeze_batch_norm=true"), 2)
    for path, distance in moved.items():
        assert (distance == 0) == ("_bn" in path or "norm" in path), path


@pytest.mark.slow
def test_earlier_blocks_have_lower_learning_rates(digits_arrays):
    settings = ["optimizer.momentum=0", "optimizer.weight_decay=0"]
    undecayed = _moved(_trainer(digits_arrays, *settings), 1)
    moved = _moved(_trainer(digits_arrays, *settings, "optimizer.layer_decay=0.5"), 1)
    kernels = [path for path in moved if path.endswith("kernel")]
    blocks = list(dict.fromkeys(path.split("_conv")[0].split("_shortcut")[0] for path in kernels))
    assert blocks[0] == "stem"
    assert blocks[-1] == "logits/kernel"
    for path in kernels:
        distance = len(blocks) - 1 - blocks.index(path.split("_conv")[0].split("_shortcut")[0])
        assert moved[path] == pytest.approx(undecayed[path] * 0.5**distance, rel=1e-2), path


def test_a_probe_needs_pretrained_weights(digits_arrays):
    with pytest.raises(UserError, match=r"train.finetune=probe needs pretrained weights; set model.weights"):
        _trainer(digits_arrays, "train.finetune=probe")


def test_a_run_continues_where_the_file_of_its_initial_weights_has_moved(tiny_config, tmp_path):
    """Its checkpoint replaces them, and has their preprocessing; the file is not read at either path."""
    model = create_model("resnet8_w32", num_classes=10, input_shape=(8, 8, 1))
    model.preprocess = resnet_tf.ImagePreprocess(size=(8, 8), mean=(0.25,), std=(0.5,), channels=1)
    model.save_weights(weights := tmp_path / "start.weights.h5")
    settings = {"train.epochs": 1, "data.mean": "", "data.std": "", "model.weights": str(weights)}
    config = override(tiny_config, settings)
    first = train_and_evaluate(config, tmp_path / "run")
    weights.unlink()
    moved = {"model.weights": "/elsewhere/start.weights.h5"}
    assert train_and_evaluate(override(config, moved), tmp_path / "run") == first
    assert resnet_tf.load_run(tmp_path / "run").preprocess.mean == (0.25,)
    assert load_config(tmp_path / "run" / "config.json").model.weights == "/elsewhere/start.weights.h5"


@pytest.mark.parametrize(("key", "name"), [("model.weights", "start.h5"), ("loss.teacher", "serving")])
def test_files_of_a_run_may_move_and_not_be_exchanged(tiny_config, tmp_path, key, name):
    (tmp_path / "config.json").write_text(override(tiny_config, {key: f"/old/{name}"}).to_json())
    for accepted in (f"/old/{name}", f"/new/{name}"):
        check_workdir(tmp_path, override(tiny_config, {key: accepted}))
    for refused in ("/old/other", "imagenet", "", name):
        with pytest.raises(UserError, match=rf"another configuration \({key}='/old/{name}' there and '{refused}' now"):
            check_workdir(tmp_path, override(tiny_config, {key: refused}))
    (tmp_path / "config.json").write_text(override(tiny_config, {key: "imagenet"}).to_json())
    with pytest.raises(UserError, match=rf"another configuration \({key}='imagenet' there and '/new/imagenet' now"):
        check_workdir(tmp_path, override(tiny_config, {key: "/new/imagenet"}))
    (present := tmp_path / "old" / name).mkdir(parents=True)
    (tmp_path / "config.json").write_text(override(tiny_config, {key: str(present)}).to_json())
    with pytest.raises(UserError, match=rf"another configuration \({key}='{present}' there and '/new/{name}' now"):
        check_workdir(tmp_path, override(tiny_config, {key: f"/new/{name}"}))


def test_image_size_grows_over_the_epochs():
    config = Config(data=DataConfig(image_size=224), train=TrainConfig(epochs=8, start_size=128))
    sizes = [size_in_epoch(config, epoch) for epoch in range(8)]
    assert sizes == [128, 128, 160, 160, 192, 192, None, None]
    assert size_in_epoch(dataclasses.replace(config, train=TrainConfig(epochs=8)), 0) is None
    smaller = dataclasses.replace(config, train=TrainConfig(epochs=8, end_size=176))
    assert [size_in_epoch(smaller, epoch) for epoch in (0, 7)] == [176, 176]
    growing = dataclasses.replace(config, train=TrainConfig(epochs=8, start_size=96, end_size=160))
    assert [size_in_epoch(growing, epoch) for epoch in range(8)] == [96, 96, 96, 128, 128, 128, 160, 160]


@pytest.mark.slow
@pytest.mark.long
def test_a_run_with_progressive_resizing(digits_arrays, tmp_path):
    overrides = [f"data.source={digits_arrays}", "data.image_size=16", "train.start_size=8", "train.epochs=4"]
    overrides += ["data.eval_split=test[:100]", "model.name=resnet8_w32", "train.full_size_from=0.5"]
    result = train_and_evaluate(load_config("digits", overrides), tmp_path)
    assert [line["epoch"] for line in read_json_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert result["top1"] > 0.2
    run = resnet_tf.load_run(tmp_path)
    assert run.preprocess.size == (16, 16)
    assert resnet_tf.Predictor(resnet_tf.export_model(run, tmp_path / "models")).labels == run.labels


def _signature_logits(export, images: tf.Tensor) -> np.ndarray:
    """Return the logits of an export for gray images of any size, uint8 [B, H, W, 1]."""
    rgb = tf.image.grayscale_to_rgb(tf.cast(images, tf.float32) / 255)
    resized = tf.image.resize(rgb, (8, 8), antialias=True)
    return tf.saved_model.load(str(export)).signatures["images"](images=resized)["logits"].numpy()


@pytest.mark.parametrize("target", ["serving", pytest.param("hub", marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [(8, 8), (10, 14)], ids=str)
def test_a_teacher_is_compiled_by_xla(tiny_run, tiny_export, tmp_path, target, size):
    """Regression: an export also returns strings, the names of the classes, and TensorFlow's resize has no kernel.

    The classes of the student are in another order, as those of a folder and of a table of the same images may be.
    """
    run, export = resnet_tf.load_run(tiny_run), tiny_export
    order = np.random.default_rng(1).permutation(10)
    if target == "hub":
        export = resnet_tf.export_model(run, tmp_path, target=target)
    preprocess = dataclasses.replace(run.preprocess, size=size)
    teacher = Teacher(str(export), preprocess, tuple(run.labels[index] for index in order), SINGLE_LABEL)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, *size, 1), np.uint8))
    compiled = tf.function(lambda inputs: teacher(inputs, resize), jit_compile=True)
    logits = compiled(preprocess.from_batch(images)).numpy()
    np.testing.assert_allclose(logits, _signature_logits(export, images)[:, order], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [(), ("runtime.xla=true",), ("runtime.xla=true", "data.image_size=12")],
    ids=["as it is", "by XLA", "by XLA, resized"],
)
def test_distillation_loss_depends_only_on_the_teacher(digits_arrays, tiny_export, settings):
    """With a teacher weight of 1, the labels do not matter."""
    trained = _trainer(
        digits_arrays, f"loss.teacher={tiny_export}", "loss.teacher_weight=1", "loss.temperature=2", *settings
    )
    images, labels, _ = next(trained.batches())
    _, _, totals = trained.step._gradients(images, labels)  # compiled with `runtime.xla`
    _, _, others = trained.step._gradients(images, (labels + 1) % 10)
    assert totals[0] == others[0]
    teacher_logits = _signature_logits(tiny_export, images) / 2

    own = trained.model(trained.preprocess.from_batch(images), training=True).numpy() / 2
    chances, student = (np.exp(each - each.max(1, keepdims=True)) for each in (teacher_logits, own))
    chances, student = (each / each.sum(1, keepdims=True) for each in (chances, student))
    expected = 4 * (chances * np.log(chances / student)).sum()
    assert float(totals[0]) == pytest.approx(expected, rel=1e-3)


def test_a_teacher_of_other_classes_is_refused(digits_arrays, tmp_path):
    labels = [f"class{index}" for index in range(10)]
    model = create_model("resnet8_w32", num_classes=10, input_shape=(8, 8, 1))
    preprocess = resnet_tf.ImagePreprocess(size=(8, 8), mean=(0.5,), std=(0.5,), channels=1)
    path = resnet_tf.export_model(model, tmp_path, preprocess=preprocess, labels=labels)
    message = r"loss.teacher='.*' cannot be used: its classes differ from those of the data: class0, class1"
    with pytest.raises(UserError, match=message):
        _trainer(digits_arrays, f"loss.teacher={path}")
    message = r"loss.teacher='nowhere' cannot be used: no exported model at 'nowhere'"
    with pytest.raises(UserError, match=message):
        _trainer(digits_arrays, "loss.teacher=nowhere")


@pytest.mark.parametrize("name", ["saved_model.pb", "assets.extra/resnet_tf.json", "assets.extra/sha256.json"])
@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_corrupt_teacher_is_not_loaded(digits_arrays, tiny_export, tmp_path, monkeypatch, name, corrupt):
    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail("it was loaded"))
    shutil.copytree(tiny_export, tmp_path / "1")
    corrupt(tmp_path / "1" / name)
    with pytest.raises(UserError, match=r"loss.teacher='.*' cannot be used: exported model '.*/1' is corrupt: "):
        _trainer(digits_arrays, f"loss.teacher={tmp_path}")


def test_a_teacher_that_takes_no_images_is_refused(digits_arrays, tiny_run, tmp_path):
    path = resnet_tf.export_model(resnet_tf.load_run(tiny_run), tmp_path, target="hub_features")
    with pytest.raises(UserError, match=r"it is an export for hub_features, not for serving or hub"):
        _trainer(digits_arrays, f"loss.teacher={path}")
