"""`audit`: a folder with planted faults of every type, its JSON, page and table; other sources; mistakes."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

import resnet_tf
from resnet_tf.config import Config, DataConfig, override, parse_assignments
from resnet_tf.core.errors import UserError
from resnet_tf.data.audit import tables
from resnet_tf.data.audit.checks import Checked
from resnet_tf.data.audit.findings import LISTS, Examples, Finding
from resnet_tf.data.audit.scan import Scan
from resnet_tf.data.sources import Source, Split, match_classes, open_source, resolve_splits
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.workflows import audit as workflow
from resnet_tf.workflows.audit import AuditResult

TRAIN, TEST = 24, 8  # images of each class


def _image(generator, label):
    """Return an image with structure: a dark class with vertical stripes, and a light one with horizontal ones."""
    coarse = generator.integers(0, 110, (6, 5, 3)) + (0, 140)[label]
    image = coarse.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    stripes = np.arange(48) // 4 % 2 == 1
    image[(slice(None), stripes[:40]) if label == 0 else stripes] ^= 60
    return image


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a folder of split/class/file with faults, and a function from a name in it to its path."""
    root = tmp_path_factory.mktemp("data") / "photos"
    generator = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for label, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(_image(generator, label)).save(root / split / name / f"{index}.png")

    def path(name):
        return str(root / name)

    def copy(source, target, change=lambda image: image, **options):
        with Image.open(path(source)) as image:
            change(image.copy()).save(path(target), **options)

    copy("train/dark/0.png", "train/dark/copy.bmp")
    copy("train/dark/1.png", "train/light/other.png")
    copy("test/light/0.png", "train/light/leak.png")
    copy("train/light/2.png", "test/light/small.jpg", lambda image: image.resize((30, 36)), quality=95)
    copy("train/dark/3.png", "train/dark/mirror.png", lambda image: image.transpose(Image.FLIP_LEFT_RIGHT))
    copy("train/dark/4.png", "train/dark/blurred.png", lambda image: image.filter(ImageFilter.GaussianBlur(6)))
    copy("train/dark/5.png", "train/dark/named.jpg", lambda image: Image.fromarray(_image(generator, 0)), format="PNG")
    (root / "train/dark/cut.png").write_bytes((root / "train/dark/6.png").read_bytes()[:200])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_image(generator, 1)).save(path("train/light/turned.jpg"), exif=exif)
    return root, path


@pytest.fixture(scope="module")
def result(planted):
    return resnet_tf.audit(planted[0])


@pytest.fixture(scope="module")
def values(result):
    return json.loads(json.dumps(result.to_dict()))


def _paths(found):
    return [tuple(sorted(each["paths"])) for each in found]


def test_every_list_names_the_planted_files_and_no_others(planted, values):
    _, path = planted

    def group(*names):
        return tuple(sorted(map(path, names)))

    copies = {
        "train/dark/0.png": "train/dark/copy.bmp",
        "train/dark/1.png": "train/light/other.png",
        "test/light/0.png": "train/light/leak.png",
    }
    assert set(values) == {"source", "splits", "notes", *LISTS}
    assert set(_paths(values["exact_duplicates"])) == {group(*pair) for pair in copies.items()}
    near = {group("train/light/2.png", "test/light/small.jpg"), group("train/dark/3.png", "train/dark/mirror.png")}
    assert near <= set(_paths(values["near_duplicates"]))
    matches = {tuple(sorted(each["paths"])): each["match"] for each in values["near_duplicates"]}
    assert matches[group("train/dark/3.png", "train/dark/mirror.png")] == "mirrored"
    leaks = {group("test/light/0.png", "train/light/leak.png"), group("train/light/2.png", "test/light/small.jpg")}
    assert set(_paths(values["leaks"])) == leaks
    assert all(each["splits"] == ["test", "train"] for each in values["leaks"])
    assert _paths(values["label_conflicts"]) == [group("train/dark/1.png", "train/light/other.png")]
    assert values["label_conflicts"][0]["labels"] == ["dark", "light"]
    assert _paths(values["unreadable"]) == [(path("train/dark/cut.png"),), (path("train/dark/named.jpg"),)]
    assert [each["score"] for each in values["unreadable"]] == [1, 0.5]
    assert (values["unreadable"][1]["format"], values["unreadable"][1]["suffix"]) == ("PNG", ".jpg")
    issues = {each["issue"]: each["paths"] for each in values["quality"]}
    assert issues["blurred"] == [path("train/dark/blurred.png")]
    assert issues["rotated"] == [path("train/light/turned.jpg")]


def test_the_mislabeled_copy_is_a_likely_label_error(planted, values):
    errors = {each["paths"][0]: each for each in values["label_errors"]}
    found = errors[planted[1]("train/light/other.png")]
    assert (found["given"], found["suggested"]) == (["light"], ["dark"])
    assert found["score"] > 0.5


def test_items_have_scores_in_order_and_describe_their_examples(values):
    for name in LISTS:
        scores = [each["score"] for each in values[name]]
        assert scores == sorted(scores, reverse=True), name
        assert all(0 < score <= 1 and each["reason"] for score, each in zip(scores, values[name], strict=True)), name
        for each in values[name]:
            assert [example["path"] for example in each["examples"]] == each["paths"]
            assert {"path", "split", "index", "classes"} == set(each["examples"][0])
    splits = {each["name"]: each for each in values["splits"]}
    assert splits["train"]["classes"] == {"dark": TRAIN + 5, "light": TRAIN + 3}
    assert splits["test"]["examples"] == 2 * TEST + 1
    assert splits["train"]["height"] == {"smallest": 40, "median": 48, "largest": 48}


def test_indices_are_those_of_the_split(planted, result, values):
    source = open_source(DataConfig(source=str(planted[0])))
    for each in (example for finding in values["leaks"] for example in finding["examples"]):
        split = source.train if each["split"] == "train" else source.validation
        assert split.locate(each["index"])["file"] == each["path"]


def test_the_page_has_the_findings_and_nothing_from_elsewhere(result, planted, tmp_path):
    page = result.write_report(tmp_path / "page").read_text()
    assert [each.name for each in (tmp_path / "page").iterdir()] == ["index.html"]
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", page)
    for name in ("cut.png", "mirror.png", "leak.png", "turned.jpg"):
        assert name in page
    assert page.count("<figure>") >= 12
    assert "readable images" in page


def test_the_table_leaves_the_bad_rows_out(result, planted, tmp_path):
    root, path = planted
    before = sorted(root.rglob("*"))
    table = result.write_table(root.parent / "list.csv")
    assert sorted(root.rglob("*")) == before
    found = open_source(DataConfig(source=str(root.parent / "list.csv")))
    kept = {
        split.name: {split.locate(index)["file"] for index in range(split.num_examples)}
        for split in found.splits.values()
    }
    assert table.kept == sum(map(len, kept.values()))
    assert table.kept + table.left_out == len([each for each in before if each.is_file()])
    assert table.settings == (f"data.source={table.path}",)
    left_out = {str(each) for each in before if each.is_file()} - kept["train"] - kept["test"]
    assert {path(f"train/{name}") for name in ("dark/cut.png", "dark/copy.bmp", "light/leak.png", "light/2.png")} <= (
        left_out
    )
    assert {path("train/dark/1.png"), path("train/light/other.png")} <= left_out
    assert path("test/light/0.png") in kept["test"]
    assert {path("train/dark/named.jpg"), path("train/dark/0.png")} <= kept["train"]
    assert found.class_names == ("dark", "light")
    files = [found.train.locate(index)["file"] for index in range(found.train.num_examples)]
    names = [found.class_names[label] for label in found.train.labels]
    assert names == [file.split("/")[-2] for file in files]


def test_a_table_in_another_folder_names_the_folder_of_the_images(result, planted, tmp_path):
    table = result.write_table(tmp_path / "list.csv", leave_out=["unreadable"])
    assert table.left_out == 1
    assert table.settings == (f"data.source={table.path}", f"data.image_folder={planted[0]}")
    config = DataConfig(source=str(table.path), image_folder=str(planted[0]))
    assert sum(split.num_examples for split in open_source(config).splits.values()) == table.kept
    with pytest.raises(UserError, match=r"an audit has no list 'leak'; did you mean 'leaks'"):
        result.write_table(tmp_path / "list.csv", leave_out=["leak"])
    with pytest.raises(UserError, match=r"must be a \.csv file"):
        result.write_table(tmp_path / "list.parquet")


def _archive(path, labels=None):
    generator = np.random.default_rng(1)
    classes = np.arange(40) % 2
    images = np.stack([np.pad(_image(generator, label), ((0, 0), (0, 8), (0, 0))) for label in classes])
    images[33], images[39] = images[2], images[31]
    labels = classes if labels is None else labels
    np.savez(path, x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])


@pytest.mark.slow
def test_arrays_are_named_by_split_and_index(tmp_path):
    _archive(tmp_path / "data.npz")
    values = resnet_tf.audit(str(tmp_path / "data.npz")).to_dict()
    path = tmp_path / "data.npz"
    assert set(_paths(values["exact_duplicates"])) == {
        (f"{path}:test:3", f"{path}:train:2"),
        (f"{path}:test:1", f"{path}:test:9"),
    }
    (leak,) = values["leaks"]
    assert [(each["split"], each["index"]) for each in leak["examples"]] == [("test", 3), ("train", 2)]
    with pytest.raises(UserError, match="in archives or records, without paths"):
        resnet_tf.audit(str(path), fix=tmp_path / "list.csv")


@pytest.mark.slow
def test_data_that_cannot_be_divided_are_one_split(planted, tmp_path):
    for index in range(3):
        (tmp_path / "single" / f"class{index}").mkdir(parents=True)
        shutil.copy(planted[1](f"train/dark/{index}.png"), tmp_path / "single" / f"class{index}")
    values = resnet_tf.audit(tmp_path / "single").to_dict()
    assert [(each["name"], each["examples"]) for each in values["splits"]] == [("all", 3)]
    assert values["notes"][0].startswith("the data are examined as one split: data.eval_fraction=0.1 leaves no image")
    assert any(each.startswith("label errors: 3 of 3 classes have fewer than 5") for each in values["notes"])


@pytest.mark.slow
def test_examples_with_several_labels(tmp_path):
    sets = np.stack([np.arange(40) % 2 == 0, np.arange(40) % 3 == 0], axis=1)
    sets[33] = ~sets[2]
    _archive(tmp_path / "data.npz", sets)
    values = resnet_tf.audit(str(tmp_path / "data.npz")).to_dict()
    assert len(values["label_conflicts"]) >= 1
    conflicts = [{path.partition("npz:")[2] for path in each["paths"]} for each in values["label_conflicts"]]
    assert {"test:3", "train:2"} in conflicts


@pytest.mark.slow
def test_groups_in_several_splits_are_leaks(planted, tmp_path):
    files = [str(each.relative_to(planted[0].parent)) for each in sorted(planted[0].rglob("*.png"))]
    files = [each for each in files if not each.endswith("cut.png")]
    frame = pd.DataFrame({"file": files, "label": [each.split("/")[2] for each in files]})
    frame["split"] = [each.split("/")[1] for each in files]
    frame["patient"] = [f"p{number}" for number in range(len(files))]
    frame.loc[[0, len(files) - 1], "patient"] = "anna"
    frame.to_csv(planted[0].parent / "table.csv", index=False)
    overrides = ["data.group_column=patient"]
    result = resnet_tf.audit(str(planted[0].parent / "table.csv"), overrides=overrides)
    (leak,) = (each for each in result.to_dict()["leaks"] if each["match"] == "group")
    assert leak["group"] == "anna"
    assert len(leak["paths"]) == 2
    table = result.write_table(planted[0].parent / "fixed.csv")
    assert "data.group_column=patient" in table.settings
    (planted[0].parent / "table.csv").unlink()
    (planted[0].parent / "fixed.csv").unlink()


@pytest.mark.slow
def test_features_of_an_export(tiny_export, planted):
    result = resnet_tf.audit(planted[0], model=tiny_export)
    assert len(result.findings["exact_duplicates"]) == 3


@pytest.mark.slow
def test_the_command_writes_page_json_and_table(planted, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("audit", str(planted[0]), "--json", "--fix=list.csv", "--leave-out=exact_duplicates")
    assert outcome.code == 0, outcome.err
    assert len(json.loads(outcome.out)["exact_duplicates"]) == 3
    assert (tmp_path / "audit" / "index.html").is_file()
    assert re.search(
        r"table   list\.csv: \d+ images, without 3; --set data\.source=list\.csv --set data\.image_folder=", outcome.err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a data set: resnet-tf audit photos/"),
        (["a", "b"], "unexpected argument 'b'"),
        (["nowhere/"], "data.source='nowhere/': no such folder or file"),
        (["digits", "--set", "train.epochs=3"], "train.epochs has no effect on `audit`"),
        (["digits", "--set", "data.length=8"], "`audit` examines images"),
        (["digits", "--model=nowhere"], "'nowhere'"),
        (["digits", "--fix=list.csv", "--leave-out=leak"], "an audit has no list 'leak'"),
        (["digits", "--fix=list.txt"], "--fix='list.txt' must be a .csv file"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    outcome = command("audit", *arguments)
    assert outcome.code == 2
    assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", outcome.err), outcome.err


def test_a_path_is_never_the_name_of_a_data_set(tmp_path, monkeypatch):
    """Regression: a `Path` drops the `./` of `./digits`, and the embedded digits were audited."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    with pytest.raises(UserError, match=f"'{tmp_path}/digits' has no folder"):
        resnet_tf.audit(Path("./digits"))


@pytest.mark.slow
def test_examples_are_described(result):
    assert re.search(r"train \d+", str(result))
    assert repr(result).startswith("AuditResult(")
    assert dataclasses.is_dataclass(result)


@pytest.mark.parametrize(
    ("names", "uses", "name", "group", "left_out"),
    [
        (("train", "test"), (), "near_duplicates", (0, 1), [1]),  # within a split
        (("train", "test"), (), "near_duplicates", (0, 1, 2, 3), [0, 1, 3]),
        (("train", "test"), (), "leaks", (0, 2, 3), [0]),
        (("test", "train"), (), "leaks", (0, 1, 2), [2]),
        (("fold0", "fold1"), (), "leaks", (0, 2), [0]),  # the last of splits without a known use
        (("fold0", "fold1"), (), "near_duplicates", (0, 2), [0]),
        (("train[:50%]", "train[50%:]"), (), "exact_duplicates", (1, 2), [1]),
        (("test", "fold1"), ("train", "validation"), "leaks", (0, 2), [0]),  # uses precede names
        (("fold0", "train"), ("test", "train"), "leaks", (0, 2), [2]),
    ],
)
def test_copies_are_left_out_of_the_split_that_metrics_depend_on_least(names, uses, name, group, left_out):
    labels = np.zeros(4, np.int64)
    examples = Examples(Split("all", labels, None, None), names, np.array([0, 0, 1, 1]), ("a",), uses)
    found = tables.choose_left_out(examples, {name: [Finding(group, 1.0, "")]}, [name])
    assert np.flatnonzero(found).tolist() == left_out


def test_splits_have_the_uses_of_the_configuration(planted):
    config = DataConfig(source=str(planted[0]), train_split="test", eval_split="train")
    changes = {"data.train_split": "test", "data.eval_split": "train"}
    _, examples, _ = workflow._open(config, changes)
    assert (examples.names, examples.uses) == (("test", "train"), ("train", "validation"))
    _, examples, _ = workflow._open(DataConfig(source=str(planted[0])), {})
    assert (set(examples.names), examples.uses) == ({"train", "test"}, ())


@pytest.mark.parametrize("parts", [("train[:75%]", "train[75%:]"), ("train[:50%]+train[75%:]", "train[50%:75%]")])
def test_slices_and_sums_are_written_as_splits_that_can_be_opened(planted, tmp_path, parts):
    names = dict(zip(("data.train_split", "data.eval_split", "data.test_split"), (*parts, "test"), strict=True))
    _, examples, _ = workflow._open(override(Config(), {"data.source": str(planted[0]), **names}).data, names)
    kept = np.zeros(len(examples.owners), bool)
    table = tables.write_table(tmp_path / "list.csv", examples, kept, DataConfig(source=str(planted[0])))
    config = override(Config(), parse_assignments(table.settings)).data
    found = open_source(resolve_splits(config))
    assert {use: split.name for use, split in found.splits.items()} == {
        "training": "train",
        "validation": "validation",
        "test": "test",
    }
    for owner, split in enumerate(found.splits.values()):
        files = {split.locate(index)["file"] for index in range(split.num_examples)}
        assert files == {examples.path(index) for index in np.flatnonzero(examples.owners == owner)}


# Class folders whose order is not that of their names in a table: names of ImageNet's identifiers, and numbers.
@pytest.mark.parametrize("folders", [("n01440764", "n01443537"), ("0", "10", "2")])
def test_a_model_is_evaluated_on_the_table_of_its_folder(tmp_path, folders):
    for index, folder in enumerate(folders):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.new("RGB", (4, 4), (index, number, 0)).save(tmp_path / folder / f"{number}.png")
    config = DataConfig(source=str(tmp_path), train_split="all", eval_split="all")
    own = open_source(config)
    examples = Examples.join({"all": own.train}, own.class_names)
    tables.write_table(tmp_path / "fixed.csv", examples, np.zeros(len(examples.owners), bool), config)
    other = open_source(dataclasses.replace(config, source=str(tmp_path / "fixed.csv")))
    assert other.class_names != own.class_names
    matched = match_classes(own.class_names, other)
    assert matched.class_names == own.class_names
    for index, label in enumerate(matched.validation.labels):
        assert matched.validation.locate(index)["file"].split("/")[-2] == folders[label]


def test_a_table_keeps_rows_without_a_group(tmp_path):
    for number in range(4):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    frame = pd.DataFrame({"file": [f"{number}.png" for number in range(4)], "label": list("abab")})
    frame.assign(patient=["anna", None, "anna", None]).to_csv(tmp_path / "table.csv", index=False)
    config = DataConfig(source=str(tmp_path / "table.csv"), train_split="all", eval_split="all", group_column="patient")
    source = open_source(config)
    examples = Examples.join({"all": source.train}, source.class_names)
    tables.write_table(tmp_path / "fixed.csv", examples, np.zeros(4, bool), config)
    assert pd.read_csv(tmp_path / "fixed.csv", keep_default_na=False)["patient"].tolist() == ["anna", "", "anna", ""]


def test_a_summary_has_no_control_characters():
    split = Split("x", np.zeros(1, np.int64), lambda index: index, lambda index: {"file": "x"})
    zeros = np.zeros(1, np.int64)
    scanned = Scan(np.ones(1, bool), {}, zeros, np.ones((1, 2), int), zeros, zeros, np.zeros((1, 1)), zeros)
    examples = Examples(split, ("bell\x07",), zeros, ("a",))
    checked = Checked(scanned, {name: [] for name in LISTS}, [])
    result = AuditResult("red\x1b[31m", examples, checked, DataConfig(), ImagePreprocess(size=(8, 8)))
    assert str(result).startswith("red\\x1b[31m: bell\\x07 1\nunreadable files")
    assert "\x1b" not in repr(result)
    assert repr(Source("x", ("a",), dataclasses.replace(split, name="bell\x07"), split)) == (
        "Source('x', 1 class, bell\\x07=1, x=1)"
    )
