"""Comparison of two models: numbers, gates, exit codes, predictions files, and the page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score

import resnet_tf
from resnet_tf.core.calibration_check import check_calibration
from resnet_tf.core.errors import UserError
from resnet_tf.core.paired import Paired
from resnet_tf.data.sources import open_source
from resnet_tf.serving.predictor import Predictor
from resnet_tf.workflows import compare as workflow


@pytest.fixture(scope="module")
def changed(tiny_run):
    """Return the run with a higher logit of class 3, and its metrics."""
    run = resnet_tf.load_run(tiny_run)
    kernel, bias = run.model.layers[-1].get_weights()
    bias[3] += 3.0
    run.model.layers[-1].set_weights([kernel, bias])
    source = open_source(run.config.data, for_training=False)
    return run, resnet_tf.evaluate_run(run, source, batch_size=64)


@pytest.fixture(scope="module")
def predictor(tiny_export):
    return Predictor(tiny_export)


@pytest.fixture(scope="module")
def result(predictor, changed):
    gates = {"max_accuracy_drop": 0.001, "max_negative_flips": 1000, "min_class_recall": 0.9}
    return resnet_tf.compare(predictor, changed[0], latency=False, columns={"half": ["a", "b"] * 50}, **gates)


@pytest.fixture(scope="module")
def old_evaluation(predictor, tiny_config):
    return predictor.evaluate(open_source(tiny_config.data).validation)


def test_the_numbers_are_those_of_both_evaluations(result, changed, old_evaluation):
    new, comparison = changed[1], result.comparison
    targets = old_evaluation.targets
    before, after = old_evaluation.logits.argmax(1), new.logits.argmax(1)
    paired = comparison.paired
    assert paired.accuracies == pytest.approx((accuracy_score(targets, before), accuracy_score(targets, after)))
    assert paired.negative == np.sum((before == targets) & (after != targets)) > 3
    assert comparison.old.loss == pytest.approx(old_evaluation.loss)
    assert comparison.new.loss == pytest.approx(new.loss)
    # The split fitted both calibrations, so that each half of it reports with the fit on the other half.
    checks = [check_calibration(each, cross_fitted=True) for each in (old_evaluation, new)]
    assert comparison.calibration_errors == pytest.approx([each.after.calibration_error for each in checks])
    assert comparison.calibration_errors != pytest.approx(
        [each.calibrated.calibration_error for each in (old_evaluation, new)]
    )
    recalls = [recall_score(targets, each, labels=range(10), average=None) for each in (before, after)]
    slices = {each.name: each.paired for each in comparison.slices["class"]}
    for index, name in enumerate(comparison.class_names):
        assert slices[name].accuracies == pytest.approx((recalls[0][index], recalls[1][index]))
    changes = [each.paired.difference for each in comparison.slices["class"]]
    assert changes == sorted(changes)
    halves = {each.name: each.paired for each in comparison.slices["half"]}
    assert halves["a"].accuracies[1] == pytest.approx(accuracy_score(targets[::2], after[::2]))
    flips = comparison.negative_flips
    assert (after[flips] == 3).all()
    assert (np.diff(comparison.new.confidence[flips]) <= 0).all()


def test_gates_and_json(result, tmp_path):
    passed = {gate.name: gate.passed for gate in result.gates}
    assert passed == {"max_accuracy_drop": False, "max_negative_flips": True, "min_class_recall": False}
    values = json.loads(json.dumps(result.to_dict()))
    assert not values["passed"]
    assert values["preprocess_agrees"]
    assert len(values["flips"]) == values["negative_flips"] == result.comparison.paired.negative
    assert {"file", "split", "index", "class", "old", "new"} == set(values["flips"][0])
    assert values["flips"][0]["old"] == values["flips"][0]["class"] != values["flips"][0]["new"] == "3"
    assert values["old"]["bytes"] > values["old"]["parameters"] > 0
    assert values["new"]["bytes"] is None
    text = str(result.comparison)
    assert re.search(r"accuracy +0\.\d{4} to 0\.\d{4}: -0\.\d{4}, 95 % interval [-+]0\.\d+ to [-+]0\.\d+", text)
    assert "preprocessing  agrees" in text
    page = result.write_report(tmp_path / "page").read_text()
    assert page.count("<figure>") == min(len(values["flips"]), 24)
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", page)


@pytest.mark.parametrize(
    ("drop", "passes"),
    [(0.05, True), (0.049, False), (0.0, False)],
)
def test_a_gate_includes_its_limit(drop, passes):
    old = np.arange(100) < 90
    comparison = workflow.Comparison(
        "",
        *(workflow.Answers("", "", each.astype(int), np.ones(100)) for each in (old, np.arange(100) < 85)),
        targets=np.ones(100, int),
        class_names=["a", "b"],
        groups={"class": {"b": np.arange(100)}},
    )
    (gate,) = workflow.check_gates(comparison, max_accuracy_drop=drop)
    assert gate.passed == passes


@pytest.mark.parametrize(
    ("gate", "limit", "value", "passes"),
    [
        ("max_negative_flips", 8, 8, True),
        ("max_negative_flips", 7, 8, False),
        ("max_latency_ratio", 1.34, 4 / 3, True),
        ("max_latency_ratio", 1.33, 4 / 3, False),
    ],
)
def test_gates_of_flips_and_latency(gate, limit, value, passes):
    """With 8 negative and 3 positive flips, and a new model that is slower for one image and faster for 16."""
    correct = (np.arange(100) < 90, (np.arange(100) >= 8) & (np.arange(100) < 93))
    times = ({1: 3.0, 16: 40.0}, {1: 4.0, 16: 30.0})
    answers = [
        workflow.Answers("", "", each.astype(int), np.ones(100), milliseconds=milliseconds)
        for each, milliseconds in zip(correct, times, strict=True)
    ]
    comparison = workflow.Comparison("", *answers, targets=np.ones(100, int), class_names=["a", "b"], groups={})
    (found,) = workflow.check_gates(comparison, **{gate: limit})
    assert (found.value, found.passed) == (pytest.approx(value), passes)


def test_recalls_are_those_of_the_classes_whatever_the_slices():
    targets, predictions = np.repeat([0, 1, 3], 10), np.arange(30) // 8
    answers = workflow.Answers("", "", predictions, np.ones(30))
    comparison = workflow.Comparison("", answers, answers, targets, list("abcd"), {"class": {"all": np.arange(30)}})
    recalls = recall_score(targets, predictions, labels=[0, 1, 3], average=None)
    assert comparison.new_recalls == pytest.approx(dict(zip(["a", "b", "d"], recalls, strict=True)))
    (gate,) = workflow.check_gates(comparison, min_class_recall=0.7)
    assert (gate.value, gate.passed) == (pytest.approx(min(recalls)), False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": {"class": ["a"] * 100}}, "column 'class' has the name of the slices by class; give it another"),
        ({"by": ["shorter edge in pixels"]}, "column 'shorter edge in pixels' has the name of the slices by shorter"),
        ({"by": ["half"], "columns": {"half": ["a", "b"] * 50}}, "column 'half' is in both by and columns"),
        ({"checkpoint": "best"}, "checkpoint=best needs a run directory; an export or a loaded run has one"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(predictor, arguments, message, monkeypatch):
    monkeypatch.setattr(workflow, "evaluate", None)  # refused before the evaluation
    with pytest.raises(UserError, match=message):
        resnet_tf.compare(predictor, predictor, latency=False, **arguments)


def test_a_model_with_its_classes_in_another_order(predictor, changed, monkeypatch):
    """A run whose logits have other names predicts these names."""
    (run, evaluation), order = changed, np.random.default_rng(0).permutation(10)
    monkeypatch.setattr(run.model, "labels", [predictor.labels[index] for index in order])
    comparison = resnet_tf.compare(predictor, run, latency=False).comparison
    np.testing.assert_array_equal(comparison.new.predictions, order[evaluation.logits.argmax(1)])
    assert comparison.class_names == list(predictor.labels)
    monkeypatch.setattr(run.model, "labels", [*predictor.labels[:9], "other"])
    with pytest.raises(UserError, match=r"has no class '9', which the data have"):
        resnet_tf.compare(predictor, run, latency=False)


@pytest.fixture(scope="module")
def folder(tiny_images, old_evaluation, tmp_path_factory) -> Path:
    """Return a folder of class/file with the first images of the evaluation split."""
    root = tmp_path_factory.mktemp("digits")
    for index, content in enumerate(tiny_images):
        file = root / str(old_evaluation.targets[index]) / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    return root


def test_a_file_of_predictions_equals_its_model(folder, predictor, tmp_path):
    answers = tmp_path / "answers.jsonl"
    predictions = resnet_tf.predict(predictor, folder)
    answers.write_text("".join(f"{json.dumps(each.to_dict())}\n" for each in predictions))
    result = resnet_tf.compare(answers, predictor, data=str(folder))
    values = result.to_dict()
    assert (values["examples"], values["negative_flips"], values["positive_flips"]) == (16, 0, 0)
    assert values["old"]["calibration_error"] == pytest.approx(values["new"]["calibration_error"], abs=1e-5)
    assert values["preprocess_agrees"] is None
    assert "unknown for a predictions file" in str(result.comparison)
    assert "Unknown for a file of predictions" in result.write_report(tmp_path / "page").read_text()


def test_slices_by_a_column_of_the_table(folder, predictor, old_evaluation, tmp_path):
    files = sorted(folder.rglob("*.png"))
    rows = [
        f"{file.relative_to(folder)},{file.parent.name},{'left' if index % 2 else ''}"
        for index, file in enumerate(files)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["file,label,camera", *rows]))
    data = {"data": str(tmp_path / "table.csv"), "overrides": [f"data.image_folder={folder}"]}
    result = resnet_tf.compare(predictor, predictor, by=["camera"], **data)
    slices = {each.name: each.paired for each in result.comparison.slices["camera"]}
    assert {name: each.examples for name, each in slices.items()} == {"left": 8, "missing": 8}
    right = {
        str(folder / str(old_evaluation.targets[index]) / f"{index}.png"): old_evaluation.predictions[index]
        == old_evaluation.targets[index]
        for index in range(16)
    }
    expected = np.mean([right[str(file)] for file in files[1::2]])
    assert slices["left"].accuracies == pytest.approx((expected, expected))
    with pytest.raises(UserError, match=r"has no column 'camara'; did you mean 'camera'\?"):
        resnet_tf.compare(predictor, predictor, by=["camara"], **data)
    with pytest.raises(UserError, match="there is no column 'camera': the data do not come from a table"):
        resnet_tf.compare(predictor, predictor, by=["camera"])


@pytest.mark.slow
def test_the_command_prints_json_and_returns_1_for_a_gate(folder, tiny_export, tmp_path, command):
    answers = tmp_path / "answers.csv"
    answers.write_text(command("predict", f"--model={tiny_export}", "--csv", str(folder)).out)
    arguments = ("compare", str(tiny_export), str(answers), f"--set=data.source={folder}")
    outcome = command(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["negative_flips"] == 0
    failed = command(*arguments, "--min-class-recall=1", f"--report={tmp_path / 'page'}")
    assert failed.code == 1
    assert re.search(r"^FAILED  the recall of '\d' is 0\.\d+; the limit is 1$", failed.err, re.MULTILINE)
    assert "FAILED" in (tmp_path / "page" / "index.html").read_text()


def test_latencies_are_measured_in_turns(predictor, changed, monkeypatch):
    monkeypatch.setattr(workflow, "_SECONDS", 0.01)
    calls = []
    models = [(lambda inputs, name=name: calls.append((name, len(inputs))), changed[0].preprocess) for name in "ab"]
    old, new = workflow.measure_in_turns(models, 4, seconds=0.01)
    assert calls == [("a", 4), ("b", 4)] * (len(calls) // 2)
    assert 0 < min(old, new) < 1000
    comparison = resnet_tf.compare(predictor, changed[0], max_latency_ratio=1e9).comparison
    assert set(comparison.latency_ratios) == {1, 16}
    assert comparison.old.milliseconds[1] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "give two models"),
        (["a", "b", "c"], "give two models"),
        (["nowhere", "b"], "there is neither a run nor an exported model at 'nowhere'"),
        (["a", "b", "--train.epochs=3"], "train.epochs has no effect on `compare`, which takes keys of the group data"),
        (["a", "b", "--max-accuracy-drop=2"], "--max-accuracy-drop=2: expected a number in the range [0.0, 1.0]"),
        (["a", "b", "--max-negative-flips=-1"], "--max-negative-flips=-1: expected a non-negative whole number"),
        (["a", "b", "--min-class-recall=nan"], "min_class_recall must be a finite number, got nan"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    outcome = command("compare", *arguments)
    assert outcome.code == 2
    assert re.fullmatch(rf"error: {re.escape(message)}.*\n", outcome.err), outcome.err


def test_files_need_a_model_and_one_example_each(predictor, tmp_path):
    (tmp_path / "a.csv").write_text("file,label1,score1\n")
    with pytest.raises(UserError, match="two files of predictions: one of both must be"):
        resnet_tf.compare(tmp_path / "a.csv", tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"a file of '.*' holds several examples: give models"):
        resnet_tf.compare(predictor, tmp_path / "a.csv")
    with pytest.raises(UserError, match="a gate for the latency needs two models"):
        resnet_tf.compare(predictor, tmp_path / "a.csv", max_latency_ratio=2.0)


def test_statistics_without_changes_pass_every_gate(predictor):
    gates = {"max_accuracy_drop": 0.0, "max_negative_flips": 0, "min_class_recall": 0.0}
    result = resnet_tf.compare(predictor, predictor, latency=False, **gates)
    assert not result.failures
    assert result.comparison.paired.p_value == Paired(np.ones(3, bool), np.ones(3, bool)).p_value == 1.0
    assert "by class: no slice is worse" in str(result.comparison)
