"""The functions behind the commands, and the objects that they return."""

import dataclasses
import functools
import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import resnet_tf
from resnet_tf import CalibrationCheck, MultiLabelEvaluation, SingleLabelEvaluation, UserError
from resnet_tf.config import override
from resnet_tf.core.comparison import Answers, Comparison
from resnet_tf.core.paired import Paired
from resnet_tf.core.paired_multi_label import MultiLabelPaired
from resnet_tf.data import sources
from resnet_tf.data.audit.findings import Examples
from resnet_tf.data.sources import Split
from resnet_tf.data.sources.arrays import array_split
from resnet_tf.training.workdir import exclusive_workdir
from resnet_tf.workflows import evaluate as workflow


def plain(thing) -> dict:
    """`to_dict()` after a round trip through JSON; its repr is a single short line."""
    text = repr(thing)
    assert "\n" not in text
    assert "array(" not in text
    assert len(text) < 400
    return json.loads(json.dumps(thing.to_dict()))


@pytest.fixture
def opened(monkeypatch) -> Mock:
    """Mock that counts how often any module opens a data set."""
    spy = Mock(side_effect=sources.open_source)
    for name in ("workflows.preview", "workflows.evaluate", "training.start"):
        monkeypatch.setattr(f"resnet_tf.{name}.open_source", spy)
    return spy


@pytest.mark.slow
@pytest.mark.long
def test_train_does_all_of_it(tiny_config, tmp_path, opened):
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, epochs=1))
    result = resnet_tf.train(config, tmp_path / "run")
    assert opened.call_count == 1
    assert result.run.workdir == tmp_path / "run"
    assert result.evaluation.to_dict() == pytest.approx(result.run.metrics, abs=1e-6)
    assert result.report == tmp_path / "run" / "report" / "index.html"
    assert result.report.is_file()
    assert result.export == tmp_path / "run" / "export" / "serving" / "1"
    assert result.verification.same_top1 == result.verification.examples == 100
    values = plain(result)
    assert values["metrics"] == pytest.approx(result.run.metrics, abs=1e-6)
    assert (values["step"], Path(values["export"])) == (7, result.export)
    assert f"top1={result.run.metrics['top1']:.4f}" in repr(result)

    again = resnet_tf.train(config, tmp_path / "run")
    assert again.to_dict() == values, "a finished run is evaluated and verified, and not exported again"


def test_the_chief_alone_has_a_result(tiny_config, tiny_run, monkeypatch):
    monkeypatch.setattr("resnet_tf.workflows.train.is_chief", lambda runtime: False)
    assert resnet_tf.train(tiny_config, tiny_run) is None


@pytest.mark.slow
@pytest.mark.long
def test_evaluate_takes_runs_exports_and_their_directories(tiny_run, tiny_export, tmp_path):
    run, predictor = resnet_tf.load_run(tiny_run), resnet_tf.Predictor(tiny_export)
    for subject in (run, tiny_run, predictor, str(tiny_export), tiny_export.parent):
        result = resnet_tf.evaluate(subject)
        assert result.evaluation.to_dict() == pytest.approx(run.metrics, abs=1e-5)
        known = plain(result)
        assert known["cross_fitted"] is True
        assert {name: known[name] for name in run.metrics} == pytest.approx(run.metrics, abs=1e-5)
        detailed = result.to_dict(classes=True)
        assert (list(detailed["recall"]), np.sum(detailed["confusion"])) == (list(run.labels), 100)
    assert "data='digits/1.0.0'" in repr(result)
    page = result.write_report(tmp_path / "page")
    assert "serving, float32" in page.read_text()
    assert resnet_tf.evaluate(run).report_directory == tiny_run / "report"
    assert resnet_tf.evaluate(run, flip=True).report_directory is None
    fewer = resnet_tf.evaluate(run, overrides=["data.eval_split=test[:50]"])
    assert (fewer.report_directory, fewer.to_dict()["examples"]) == (None, 50)
    with pytest.raises(UserError, match="flip averages the logits of a run"):
        resnet_tf.evaluate(predictor, flip=True)
    with pytest.raises(UserError, match="there is neither a run nor an exported model at 'nowhere'"):
        resnet_tf.evaluate("nowhere")
    with pytest.raises(UserError, match=r"data.source='./nowhere': no such folder"):
        resnet_tf.evaluate(run, data="./nowhere")


def test_the_export_of_a_bare_model_is_evaluated_on_named_data(tiny_export, tmp_path, monkeypatch):
    """Its metadata have no configuration, whose defaults are the embedded digits with classes of the same names."""
    bare = resnet_tf.Predictor(tiny_export)
    del bare.metadata["config"]
    bare.config = resnet_tf.Config()
    evaluate = functools.partial(resnet_tf.evaluate, bare)
    for call in (
        evaluate,
        functools.partial(evaluate, overrides=["data.eval_split=test"]),
        functools.partial(evaluate, ood="digits"),
        functools.partial(evaluate, corruptions=True),
        functools.partial(resnet_tf.compare, bare, bare, latency=False),
    ):
        with pytest.raises(UserError, match=r"^the metadata of '.*' name no data; give --data="):
            call()
    images, labels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8), np.arange(20) % 10
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    result = evaluate(data=str(tmp_path / "own.npz"))
    assert result.to_dict()["examples"] == 20
    assert workflow._is_other(workflow._own_data(bare), bare.config.data), "digits may be out of distribution"
    reports = []
    monkeypatch.setattr("resnet_tf.workflows.reporting.write_page", lambda directory, report: reports.append(report))
    result.write_report(tmp_path / "page")
    assert reports[0].config == ""


def _evaluation() -> SingleLabelEvaluation:
    return SingleLabelEvaluation(np.array([0, 1]), np.eye(2))


def _split() -> Split:
    return array_split(Path("x.npz"), "train", np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1]), "")


def _answers() -> Answers:
    return Answers("model", "", np.array([0, 1]), np.array([0.9, 0.8]))


EVALUATION, SPLIT, ANSWERS = _evaluation(), _split(), _answers()


@pytest.mark.parametrize(
    "create",
    [
        _evaluation,
        _split,
        _answers,
        lambda: MultiLabelEvaluation(np.eye(2) > 0, np.eye(2)),
        lambda: CalibrationCheck(EVALUATION, EVALUATION, cross_fitted=False, certain=np.array([True, False])),
        lambda: Examples(SPLIT, ("train",), np.array([0, 1]), ("a", "b")),
        lambda: Comparison("data", ANSWERS, ANSWERS, np.array([0, 1]), ("a", "b"), {}),
        lambda: Paired(np.array([True, False]), np.array([True, False])),
        lambda: MultiLabelPaired(np.eye(2) > 0, (np.eye(2), np.eye(2)), (np.eye(2) > 0, np.eye(2) > 0)),
    ],
)
def test_objects_with_arrays_are_compared_by_identity(create):
    """Regression: `==` raised an error about the truth value of an array, and `hash` one about its type."""
    first, second = create(), create()
    assert first == first
    assert first != second
    assert len({first, second, first}) == 2


def test_evaluate_refuses_overrides_without_effect(tiny_run):
    run = resnet_tf.load_run(tiny_run)
    with pytest.raises(UserError, match=r"^export.calibrate has no effect on `evaluate`, which takes keys of"):
        resnet_tf.evaluate(run, overrides=["data.eval_split=test[:50]", "export.calibrate=false"])
    with pytest.raises(UserError, match=r"^data.label_column=breed has no effect: it needs a table as data.source$"):
        resnet_tf.evaluate(run, overrides=["data.label_column=breed"])
    with pytest.raises(UserError, match=r"unknown key 'data.sorce'; did you mean 'data.source'"):
        resnet_tf.evaluate(run, overrides=["data.sorce=x"])


def test_a_path_is_never_the_name_of_a_data_set(tiny_run, tmp_path, monkeypatch):
    """Regression: a `Path` drops the `./` of `./digits`, and the embedded digits were evaluated."""
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    with pytest.raises(UserError, match=f"'{tmp_path}/digits' has no folder"):
        resnet_tf.evaluate(tiny_run, data=Path("./digits"))


def test_plan_opens_the_data_once(tiny_config, tmp_path, opened):
    plan = resnet_tf.plan(tiny_config, path=tmp_path / "batch.png", name="digits")
    assert opened.call_count == 1
    assert plan.first_batch.stat().st_size > 5000
    values = plain(plan)
    assert values == {**plan.facts, "first batch": str(tmp_path / "batch.png")}
    assert str(plan).splitlines()[0] == f"network        {values['network']}"
    assert "first batch" not in resnet_tf.plan(tiny_config).to_dict()


def test_the_plan_of_a_run_directory_is_that_of_its_run(tiny_config, tiny_run, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    assert resnet_tf.plan(tiny_config, workdir=tiny_run).facts["resumes from"] == "step 14"
    with pytest.raises(UserError, match=r"another configuration \(data.batch_size=128 there and 64 now\)"):
        resnet_tf.plan(override(tiny_config, {"data.batch_size": 64}), workdir=tiny_run)
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before
    assert "resumes from" not in resnet_tf.plan(tiny_config, workdir=tmp_path / "new").facts
    assert not (tmp_path / "new").exists()
    used = exclusive_workdir(tmp_path / "used", tiny_config, name="")
    with used, pytest.raises(UserError, match=r"'.*used' is used by another training, process \d+ on "):
        resnet_tf.plan(tiny_config, workdir=tmp_path / "used")


def test_preview_prepare_and_convert(photos, tmp_path):
    config = resnet_tf.load_config("imagefolder", [f"data.source={photos}", "data.batch_size=4", "data.image_size=32"])
    assert resnet_tf.preview(config, tmp_path / "batch.png", step=3, count=2) == tmp_path / "batch.png"
    with pytest.raises(UserError, match=r"must be a \.png file in an existing directory"):
        resnet_tf.preview(config, tmp_path / "batch.jpg")

    prepared = resnet_tf.prepare(photos, tmp_path / "prepared")
    splits = {"test": {"examples": 6, "files": 1}, "train": {"examples": 12, "files": 1}}
    assert plain(prepared) == {"directory": str(tmp_path / "prepared"), "splits": splits}
    assert (
        len(
            resnet_tf.open_source(
                resnet_tf.load_config("imagefolder", [f"data.source={prepared.directory}"]).data
            ).class_names
        )
        == 2
    )

    resnet_tf.create_model("resnet20", num_classes=3).save_weights(tmp_path / "own.weights.h5")
    converted = resnet_tf.convert(tmp_path / "own.weights.h5", "resnet20", tmp_path / "to.safetensors", num_classes=3)
    assert plain(converted)["path"] == str(tmp_path / "to.safetensors")
    assert converted.path.stat().st_size > 1_000_000


def test_benchmark_measures_each_part(tiny_config, tiny_export):
    step = resnet_tf.benchmark(tiny_config, what="train", seconds=0.1)
    (line,) = plain(step)["measurements"]
    assert line == {"case": "resnet8_w32, 8 pixels, 128 in a step", "images_per_second": line["images_per_second"]}
    assert line["images_per_second"] > 0
    with pytest.raises(UserError, match="unknown benchmark 'servign'; did you mean 'serving'"):
        resnet_tf.benchmark(tiny_export, what="servign")
    with pytest.raises(UserError, match="the input benchmark takes a configuration"):
        resnet_tf.benchmark(tiny_export)


def test_export_writes_the_next_version(tiny_run, tmp_path):
    assert resnet_tf.export(tiny_run, tmp_path / "models") == tmp_path / "models" / "1"
    path = resnet_tf.export(tiny_run, tmp_path / "models", default_signature="images")
    assert path == tmp_path / "models" / "2"


@pytest.mark.slow
def test_predict_yields_a_prediction_for_each_file(tiny_export, photos, tmp_path):
    files = sorted(str(file) for file in (photos / "train").rglob("*.*"))
    expected = resnet_tf.Predictor(tiny_export)(files)
    found = list(resnet_tf.predict(tiny_export, photos / "train", batch_size=5, explain=tmp_path / "maps"))
    assert [each.file for each in found] == files
    assert [each.labels for each in found] == [each.labels for each in expected]
    assert [path.name for path in sorted((tmp_path / "maps").iterdir())][::11] == ["01_0.png", "12_5.png"]
    assert list(plain(found[0])) == ["file", "labels", "scores", "indices"]
    with pytest.raises(UserError, match="no exported model at 'nowhere'"):
        resnet_tf.predict("nowhere", files)  # at the call, not at the first prediction


def test_serve_data_serves_until_it_is_deleted():
    service = resnet_tf.serve_data(port=0, host="127.0.0.1")
    assert plain(service) == {"address": service.address}
    assert service.address.startswith("grpc://")
    with pytest.raises(UserError, match="'somewhere' is not the address of a dispatcher"):
        resnet_tf.serve_data(dispatcher="somewhere")


def test_runs_and_sources_describe_themselves(tiny_run, tiny_config):
    run = resnet_tf.load_run(tiny_run)
    values = plain(run)
    assert resnet_tf.load_config(tiny_run / "config.json").to_dict() == run.config.to_dict()
    assert (values["model"], values["step"], values["labels"]) == ("resnet8_w32", 14, [str(each) for each in range(10)])
    assert values["metrics"] == run.metrics
    assert repr(run) == f"Run({str(tiny_run)!r}, model='resnet8_w32', step=14, top1={run.metrics['top1']:.4f})"
    source = resnet_tf.open_source(tiny_config.data)
    assert repr(source) == f"Source({tiny_config.data.source!r}, 10 classes, train=898, test[:100]=100)"
    assert plain(source)["splits"][1] == {"name": "test[:100]", "examples": 100}
