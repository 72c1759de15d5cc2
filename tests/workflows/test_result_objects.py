"""The functions behind the commands, and the objects that they return."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import resnet_tf
from resnet_tf import UserError
from resnet_tf.data import sources


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


def test_plan_opens_the_data_once(tiny_config, tmp_path, opened):
    plan = resnet_tf.plan(tiny_config, path=tmp_path / "batch.png", name="digits")
    assert opened.call_count == 1
    assert plan.first_batch.stat().st_size > 5000
    values = plain(plan)
    assert values == {**plan.facts, "first batch": str(tmp_path / "batch.png")}
    assert str(plan).splitlines()[0] == f"network        {values['network']}"
    assert "first batch" not in resnet_tf.plan(tiny_config).to_dict()


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
