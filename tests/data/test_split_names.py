"""Splits under any of their usual names, in every source that has splits."""

import dataclasses
import io
import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import write_imagenet_records
from PIL import Image

from resnet_tf import evaluate, load_config, load_run, train_and_evaluate
from resnet_tf.config import DataConfig, override
from resnet_tf.core.errors import UserError
from resnet_tf.data import sources
from resnet_tf.data.sources import list_splits, open_source, resolve_splits
from resnet_tf.data.sources.slices import use_of
from resnet_tf.training import default_settings
from resnet_tf.training.start import start
from resnet_tf.training.workdir import check_workdir, stored_config, write_config


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _write_folder(path, splits):
    for split in splits:
        for label in ("a", "b"):
            (path / split / label).mkdir(parents=True)
            for index in range(2):
                (path / split / label / f"{index}.PNG").write_bytes(_png(index))
    return path


def _write_npz(path, splits):
    pixels, labels = np.zeros((4, 4, 4, 3), np.uint8), np.arange(4) % 2
    np.savez(path / "data.npz", **{f"x_{name}": pixels for name in splits}, **{f"y_{name}": labels for name in splits})
    return path / "data.npz"


def _write_records(path, splits):
    for split in splits:
        examples = [(_png(index), index % 2, {}) for index in range(4)]
        write_imagenet_records(path / f"{split}-00000-of-00001", examples)
    return path


def _write_tfds(path, splits):
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
    )
    examples = [(index, {"image": io.BytesIO(_png(index)), "label": index % 2}) for index in range(4)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="four", version="1.0.0", features=features, split_datasets=dict.fromkeys(splits, examples), data_dir=path
    )
    return path


WRITERS = {"folder": _write_folder, "npz": _write_npz, "records": _write_records, "tfds": _write_tfds}

# Existing splits, settings -> the splits that are opened.
RESOLVED = {
    "usual": (["train", "test"], {}, ["train", "test"]),
    "validation in place of the default": (["train", "val"], {}, ["train", "val"]),
    "the default if there are both": (["train", "test", "val"], {}, ["train", "test"]),
    "other words": (["training", "testing"], {}, ["training", "testing"]),
    "another word for validation": (["train", "dev"], {"eval_split": "validation"}, ["train", "dev"]),
    "parts and sums": (
        ["train", "valid", "test"],
        {"train_split": "training[:50%]+val[50%:]", "eval_split": "val[:50%]"},
        ["train[:50%]+valid[50%:]", "valid[:50%]"],
    ),
    "a test split": (
        ["train", "val", "testing"],
        {"eval_split": "eval", "test_split": "test"},
        ["train", "val", "testing"],
    ),
}
# Existing splits, settings, and the message.
REFUSED = {
    "a split for another use": (["train", "test"], {"eval_split": "val"}, r"did you mean 'test'\? data.eval_split"),
    "a validation split as test split": (
        ["train", "val"],
        {"eval_split": "val", "test_split": "test"},
        r"did you mean 'val'\? data.test_split",
    ),
    "two that could be meant": (["train", "val", "valid"], {"eval_split": "dev"}, r"data.eval_split names the split"),
    "two for validation": (["train", "val", "dev"], {}, r"data.eval_split names the split"),
    "no training split": (["test", "val"], {}, r"data.train_split names the split"),
}


@pytest.mark.parametrize("source_type", WRITERS)
@pytest.mark.parametrize("name", RESOLVED)
def test_the_split_that_is_meant_is_opened_and_logged(tmp_path, caplog, source_type, name):
    present, settings, expected = RESOLVED[name]
    config = DataConfig(source=str(WRITERS[source_type](tmp_path, present)), **settings)
    caplog.set_level(logging.INFO)
    source = open_source(config)
    assert [split.name for split in source.splits.values()] == expected
    assert all(split.num_examples for split in source.splits.values())
    lines = [record.getMessage() for record in caplog.records if "in place of" in record.getMessage()]
    assert len(lines) == (list(config.splits) != expected)
    assert all(split in line for line in lines for split in present)
    assert set(list_splits(config)) == set(present)


@pytest.mark.parametrize("source_type", WRITERS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_split_that_is_missing_is_refused(tmp_path, source_type, name):
    present, settings, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        open_source(DataConfig(source=str(WRITERS[source_type](tmp_path, present)), **settings))


# Existing splits, settings -> the splits that a training begins with.
CHOSEN = {
    "a split for validation and one for testing": (["train", "val", "test"], {}, ["train", "val", "test"]),
    "other words": (["Training", "Valid", "Testing"], {}, ["Training", "Valid", "Testing"]),
    "the validation split was set": (["train", "val", "test"], {"eval_split": "test"}, ["train", "test"]),
    "no test split was set": (["train", "val", "test"], {"test_split": ""}, ["train", "val"]),
    "a test split was set": (["train", "val", "test"], {"test_split": "test[:50%]"}, ["train", "val", "test[:50%]"]),
    "training takes the validation split": (
        ["train", "val", "test"],
        {"train_split": "train+val"},
        ["train+val", "test"],
    ),
    "training takes all splits": (["train", "val", "test"], {"train_split": "all"}, ["all", "test"]),
    "training takes the test split": (["train", "val", "test"], {"train_split": "train+test"}, ["train+test", "val"]),
    "two for validation": (["train", "val", "dev", "test"], {}, ["train", "test"]),
    "two for testing": (["train", "val", "testing", "tst"], {}, ["train", "val"]),
    "none for validation": (["train", "test"], {}, ["train", "test"]),
    "none for testing": (["train", "val"], {}, ["train", "val"]),
}


@pytest.mark.parametrize("source_type", ["folder", "npz"])
@pytest.mark.parametrize("name", CHOSEN)
def test_a_training_chooses_by_the_validation_split(tmp_path, caplog, source_type, name):
    present, settings, expected = CHOSEN[name]
    config = DataConfig(source=str(WRITERS[source_type](tmp_path, present)), **settings)
    caplog.set_level(logging.INFO)
    resolved = resolve_splits(config, {f"data.{key}" for key in settings})
    assert list(resolved.splits) == expected
    assert resolve_splits(resolved, {f"data.{key}" for key in settings}) == resolved
    assert [split.name for split in open_source(resolved).splits.values()] == expected
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("data.")]
    assert len(lines) == (resolved != config)
    assert all("data.eval_split=" in line for line in lines)


def test_a_recipe_that_names_the_validation_split_keeps_it(tmp_path):
    path = _write_folder(tmp_path, ["train", "val", "test"])
    recipe = load_config("imagenet_resnet50", [f"data.source={path}"])
    assert default_settings.with_existing_splits(recipe).data.splits == ("train", "val")


def test_splits_without_labels_are_not_chosen(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for unlabeled, expected in (("test", ("train", "val")), ("val", ("train", "test"))):
        labels = {split: np.array([-1, -1] if split == unlabeled else [0, 1]) for split in ("train", "val", "test")}
        pixels = np.zeros((2, 4, 4, 3), np.uint8)
        arrays = {f"x_{split}": pixels for split in labels} | {f"y_{split}": each for split, each in labels.items()}
        np.savez(tmp_path / f"{unlabeled}.npz", **arrays)
        config = DataConfig(source=str(tmp_path / f"{unlabeled}.npz"))
        assert resolve_splits(config).splits == expected
        assert f"split '{unlabeled}' of '{config.source}' is not used: " in caplog.text


@pytest.mark.parametrize(("empty", "expected"), [("val", ("train", "test")), ("test", ("train", "val"))])
def test_splits_that_cannot_be_opened_are_not_chosen(tmp_path, caplog, empty, expected):
    caplog.set_level(logging.INFO)
    path = _write_folder(tmp_path, ["train", "val", "test"])
    for image in (path / empty).rglob("*.PNG"):
        image.unlink()
    assert resolve_splits(DataConfig(source=str(path))).splits == expected
    assert f"split '{empty}' of '{path}' is not used: no images under" in caplog.text


def test_the_validation_split_is_opened_only_for_a_choice(tmp_path, monkeypatch):
    path = _write_folder(tmp_path, ["train", "val"])
    monkeypatch.setattr(sources, "_is_usable", None)
    assert resolve_splits(DataConfig(source=str(path))).splits == ("train", "val")


def test_a_test_split_with_another_class_may_be_left_out(tmp_path):
    path = _write_folder(tmp_path, ["train", "val", "test"])
    (path / "test" / "unknown").mkdir()
    (path / "test" / "unknown" / "0.png").write_bytes(_png(0))
    with pytest.raises(UserError, match=r"'unknown' is in 'test' but not in 'train', .*\. data\.test_split= leaves it"):
        open_source(resolve_splits(DataConfig(source=str(path))))
    assert open_source(resolve_splits(DataConfig(source=str(path)), {"data.test_split"})).test is None


# Splits that a run stored, settings of the command that continues it -> its splits, or None where it is refused.
STORED = {
    "a run before the choice": (["train", "test"], [], ["train", "test"]),
    "the chosen splits": (["train", "val", "test"], [], ["train", "val", "test"]),
    "labels were added to the test split": (["train", "val"], [], ["train", "val"]),
    "a part": (["train", "test[:50%]"], [], ["train", "test[:50%]"]),
    "the same setting": (["train", "test"], ["data.eval_split=test"], ["train", "test"]),
    "another setting": (["train", "test"], ["data.eval_split=val"], None),
    "another training split": (["train[:50%]", "test"], [], None),
}


@pytest.mark.parametrize("name", STORED)
def test_a_run_keeps_its_splits(tmp_path, caplog, name):
    before, settings, expected = STORED[name]
    path = _write_folder(tmp_path / "photos", ["train", "val", "test"])
    keys = dict(zip(("data.train_split", "data.eval_split", "data.test_split"), before, strict=False))
    run = ["data.batch_size=2", "data.image_size=4", f"data.source={path}"]
    stored = load_config("digits", [*run, *(f"{key}={split}" for key, split in keys.items())])
    (tmp_path / "run").mkdir()
    write_config(tmp_path / "run", default_settings.resolve(stored))
    caplog.set_level(logging.INFO)
    started = start(load_config("digits", [*run, *settings]), stored_config(tmp_path / "run"))
    if expected is None:
        with pytest.raises(UserError, match="holds a run of another configuration"):
            check_workdir(tmp_path / "run", started.config)
        return
    check_workdir(tmp_path / "run", started.config)
    assert [split.name for split in started.source.splits.values()] == expected
    assert ("settings of the run continue: data.eval_split" in caplog.text) == (before[1:] != ["test"])


@pytest.mark.parametrize("folders", [("Train", "Valid"), ("TRAINING", "VAL"), ("train_set", "validation_set")])
def test_folders_of_splits_in_any_spelling(tmp_path, folders):
    source = open_source(DataConfig(source=str(_write_folder(tmp_path, folders))))
    assert [split.name for split in source.splits.values()] == list(folders)
    assert source.class_names == ("a", "b")


def test_a_split_of_a_recipe_may_have_another_use_and_one_that_was_set_may_not(tmp_path):
    path = _write_folder(tmp_path, ["train", "test"])
    recipe = load_config("imagenet_resnet50", [f"data.source={path}"])
    assert recipe.data.eval_split == "validation"
    resolved = default_settings.with_existing_splits(recipe)
    assert resolved.data.eval_split == "test"
    assert default_settings.with_existing_splits(resolved) == resolved
    with pytest.raises(UserError, match=r"no folder 'validation'.*did you mean 'test'"):
        open_source(resolve_splits(recipe.data, {"data.eval_split"}))


def test_evaluate_takes_the_split_of_other_data_that_is_meant(tiny_run, tmp_path):
    for label in range(10):
        (tmp_path / "Val" / str(label)).mkdir(parents=True)
        (tmp_path / "Val" / str(label) / "0.png").write_bytes(_png(label))
    assert evaluate(tiny_run, data=str(tmp_path)).source.validation.name == "Val"
    with pytest.raises(UserError, match="no folder 'test'"):
        evaluate(tiny_run, data=str(tmp_path), overrides=["data.eval_split=test"])
    (tmp_path / "test").symlink_to("Val")
    assert evaluate(tiny_run, data=str(tmp_path)).source.validation.name == "test", "the split that the run stored"


def test_evaluate_takes_the_test_split_of_a_run(tiny_run):
    run = load_run(tiny_run)
    splits = {"data.eval_split": "train[:20]", "data.test_split": run.config.data.eval_split}
    run = dataclasses.replace(run, config=override(run.config, splits))
    for data in ("", run.config.data.source):
        found = evaluate(run, data=data, overrides=[f"data.eval_split={splits['data.test_split']}"])
        assert found.source.validation.name == splits["data.test_split"]


@pytest.mark.parametrize(
    ("name", "use"),
    [
        *((each, "train") for each in ("train", "Training", "trn", "train_set", "train-images")),
        *((each, "validation") for each in ("val", "VALID", "validation", "eval", "dev", "val data")),
        *((each, "test") for each in ("test", "Testing", "testset")),
        *((each, "") for each in ("trainer", "evaluate", "cats", "", "set", "data", "train_1")),
    ],
)
def test_usual_names(name, use):
    assert use_of(name) == use


@pytest.mark.slow
def test_a_run_stores_the_split_that_it_evaluates_and_continues(tmp_path):
    path = _write_folder(tmp_path / "photos", ["Training", "val"])
    settings = [
        "model.name=resnet8_w32",
        "data.batch_size=4",
        "data.image_size=4",
        "train.epochs=1",
        "runtime.xla=false",
    ]
    config = load_config("digits", [f"data.source={path}", *settings])
    metrics = train_and_evaluate(config, tmp_path / "run")
    stored = load_config(tmp_path / "run" / "config.json").data
    assert (stored.train_split, stored.eval_split) == ("Training", "val")
    assert train_and_evaluate(config, tmp_path / "run")["step"] == metrics["step"] == 1
