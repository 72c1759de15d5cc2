"""`benchmark --what=serving`: exports of a run, of a network and of an export, stored in the run and in its report."""

import dataclasses
import html
import json
import shlex
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

import resnet_tf
from resnet_tf.config import Config
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_measurement import ExportMeasurement, Latency, Throughput
from resnet_tf.core.export_metadata import Export
from resnet_tf.core.serving_benchmark import ServingBenchmark
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.serving import export_benchmark, runners
from resnet_tf.serving.export import TARGETS
from resnet_tf.serving.export_benchmark import measure_export
from resnet_tf.training.measurements import write_measurement
from resnet_tf.training.run import Run
from resnet_tf.workflows import serving_benchmark
from resnet_tf.workflows.serving_benchmark import list_candidates

SPEEDS = {"serving float32": 10.0, "litert float32": 5.0, "litert int8": 1.0}  # milliseconds of one image


def fixed(directory: Path, *, seconds: float, input_type: type = ImagePreprocess) -> ExportMeasurement:
    """Return a measurement without a new process, of an export that `few_exports` wrote."""
    target, precision = directory.name.split()
    milliseconds = SPEEDS[directory.name]
    latency = tuple(Latency(batch, batch * milliseconds, 2 * batch * milliseconds, 9) for batch in (1, 8, 32))
    throughput = (Throughput(8, 1, 1000 / milliseconds),)
    return ExportMeasurement(target, precision, latency, throughput, seconds, 1.5, 900.0, 90.0, 0.125)


@pytest.fixture
def few_exports(monkeypatch):
    """Limit the benchmark to three exports with the speeds of `SPEEDS`; a fourth is refused, and ONNX is missing."""

    def write(source, directory: Path, *, target: str, precision: str, **known) -> Path:
        if (target, precision) == ("serving", "bfloat16"):
            raise UserError("export rejected: its logit drift is too large")
        return directory / f"{target} {precision}"

    targets = {"serving": ("float32", "bfloat16"), "litert": ("float32", "int8"), "onnx": ("float32",)}
    monkeypatch.setattr(serving_benchmark, "export_model", write)
    monkeypatch.setattr(serving_benchmark, "measure_export", fixed)
    monkeypatch.setattr(serving_benchmark, "TARGETS", targets)
    monkeypatch.setattr(runners, "MODULES", {"onnx": ("no_onnxruntime",)})
    monkeypatch.setattr(serving_benchmark, "bfloat16_flags", lambda: {"amx_bf16"})


@pytest.fixture
def workdir(tiny_run, tmp_path):
    """Return a copy of a run."""
    return shutil.copytree(tiny_run, tmp_path / "run 1")


def test_the_benchmark_of_a_run_is_stored_and_reported(workdir, few_exports, command):
    outcome = command("benchmark", "--what=serving", f"--workdir={workdir}")
    assert outcome.code == 0, outcome.err
    *_, missing, refused, sentence, export = outcome.out.splitlines()
    assert missing == "not measured: onnx: it needs pip install 'resnet_tf[onnx]'"
    assert refused == "not measured: serving bfloat16: export rejected: its logit drift is too large"
    assert sentence.startswith("Deploy litert int8 for single images: 1.00 ms (10.0 times as fast as serving float32);")
    assert shlex.split(export)[:3] == ["python", "-m", "resnet_tf.export"]
    assert shlex.split(export)[3:] == [f"--workdir={workdir}", "--target=litert", "--precision=int8"]
    run = resnet_tf.load_run(workdir)
    known = run.serving
    assert [each.name for each in known.exports] == list(SPEEDS)
    assert known.reference == pytest.approx(run.metrics["top1"])
    assert (known.network, known.examples, known.max_accuracy_drop) == ("resnet8_w32", 100, 0.01)
    for each in known.lines():
        assert each["accuracy_change_points"] == pytest.approx(100 * (0.125 - run.metrics["top1"]))
    _check_page(workdir / "report" / "index.html", known)


def _check_page(page: Path, known: resnet_tf.ServingBenchmark) -> None:
    text = page.read_text()
    assert "Exports on this machine" in text
    assert html.escape(known.recommendation.sentence) in text
    for name, *values in known.rows():
        cells = "".join(f'<td class="number">{value}</td>' for value in values)
        assert f'<td class="name">{name}</td>{cells}' in text
    for note in known.notes:
        assert html.escape(note) in text
    for name in ("latency", "throughput", "accuracy"):
        assert (page.parent / f"export_{name}.png").is_file()


@pytest.mark.slow
def test_a_run_that_cannot_be_written_is_measured(workdir, few_exports, caplog):
    (workdir / "serving.json").mkdir()
    known = resnet_tf.benchmark(resnet_tf.load_run(workdir), what="serving", seconds=0.1)
    assert len(known.exports) == 3
    assert "the measurements are not stored in the run: cannot write" in caplog.text


def test_values_of_other_weights_are_not_used(tmp_path):
    run = Run(tmp_path, Config(), 7, model=None, metrics={})
    assert run.serving is None
    known = ServingBenchmark("resnet50", "top1", None, 0, 0.01, 5.0, "CPU", 2, (fixed(Path("litert int8"), seconds=1),))
    write_measurement(tmp_path, run.identity, known)
    assert run.serving == known
    assert dataclasses.replace(run, step=8).serving is None
    assert dataclasses.replace(run, weights_sha256="1").serving is None
    (tmp_path / "serving.json").write_text("{}")
    with pytest.raises(UserError, match=r"serving\.json' is invalid; delete it to measure again: it has no step"):
        _ = run.serving


def test_every_target_is_a_candidate_or_has_a_reason(monkeypatch):
    monkeypatch.setattr(serving_benchmark, "bfloat16_flags", lambda: {"avx512_bf16"})
    candidates, omitted = list_candidates()
    left_out = {each.target for each in omitted}
    assert set(candidates) == {(name, each) for name in {*TARGETS} - left_out for each in TARGETS[name]}
    assert {("serving", "bfloat16"), ("hub", "float32"), ("keras", "float32")} <= set(candidates)
    monkeypatch.setattr(serving_benchmark, "bfloat16_flags", set)
    find_spec = util.find_spec
    missing = ("openvino", "tf2onnx", "ai_edge_litert")
    monkeypatch.setattr(runners, "find_spec", lambda name: None if name in missing else find_spec(name))
    candidates, omitted = list_candidates()
    assert candidates == [("serving", "float32"), ("hub", "float32"), ("keras", "float32")]
    assert [str(each) for each in omitted] == [
        "serving bfloat16: the processor has no bfloat16 instructions",
        "hub_features: it returns features; 'hub' is the same network with its head",
        "litert: it needs pip install 'resnet_tf[litert]'",
        "onnx: it needs pip install 'resnet_tf[onnx]'",
        "openvino: it needs pip install 'resnet_tf[openvino]'",
    ]


def test_a_network_by_name_has_no_accuracy(few_exports, command):
    arguments = ["--what=serving", "--model=resnet8_w32", "--data.image_size=8", "--json", "--seconds=0.1"]
    outcome = command("benchmark", *arguments)
    assert outcome.code == 0, outcome.err
    *exports, summary = map(json.loads, outcome.out.splitlines())
    assert [f"{each['target']} {each['precision']}" for each in exports] == list(SPEEDS)
    assert {each["accuracy_change_points"] for each in exports} == {None}
    assert (summary["network"], summary["reference"], "exports" in summary) == ("resnet8_w32", None, False)
    assert summary["recommendation"].endswith("accuracy was not measured.")


@pytest.mark.slow
def test_an_export_is_measured_in_a_new_process(tiny_export, tiny_run, command):
    outcome = command("benchmark", "--what=serving", f"--model={tiny_export}", "--seconds=0.1", "--json")
    assert outcome.code == 0, outcome.err
    export, summary = map(json.loads, outcome.out.splitlines())
    assert (export["target"], export["precision"], summary["network"]) == ("serving", "float32", "resnet8_w32")
    assert [each["batch"] for each in export["latency"]] == [1, 8, 32]
    for each in export["latency"]:
        assert 0 < each["p50_milliseconds"] <= each["p99_milliseconds"]
        assert each["calls"] >= 1
    assert [(each["threads"], each["batch"]) for each in export["throughput"][:4]] == [(1, 1), (1, 8), (1, 32), (8, 1)]
    assert export["memory_mb"] > export["model_memory_mb"] > 0
    assert export["disk_mb"] == pytest.approx(
        sum(file.stat().st_size for file in tiny_export.rglob("*") if file.is_file()) / 1e6
    )
    assert export["accuracy"] == pytest.approx(resnet_tf.load_run(tiny_run).metrics["top1"], abs=1e-6)
    assert summary["reference"] == pytest.approx(export["accuracy"], abs=1e-6)


@pytest.mark.parametrize("seconds", [(4.5, 1.5), (1.5, 1.6)])
def test_the_first_answer_is_the_sooner_one_of_two_processes(seconds, monkeypatch):
    """The first process starts while the memory of the one that wrote the export is being freed."""
    commands = []

    def run(command, **options):
        answer = {"first_answer_seconds": seconds[len(commands)]}
        commands.append(command[3:])
        stored = dataclasses.asdict(fixed(Path("litert int8"), seconds=1)) | answer if "all" in command else answer
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(stored), stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    known = measure_export(Path("export"), seconds=0.1, input_type=ImagePreprocess)
    assert known == dataclasses.replace(fixed(Path("litert int8"), seconds=1), first_answer_seconds=1.5)
    origin = "resnet_tf.inputs.images"
    assert commands == [[origin, "all", "export", "0.1"], [origin, "first_answer", "export"]]


@pytest.mark.slow
def test_the_failure_of_a_process_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^no exported model at '.*nowhere'$"):
        measure_export(tmp_path / "nowhere", seconds=0.1, input_type=ImagePreprocess)


def test_a_missing_package_is_left_to_the_loader_to_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    preprocess = resnet_tf.ImagePreprocess(size=(8, 8))
    export = Export(tmp_path, {"target": "onnx", "labels": ["cat"], "preprocess": preprocess.to_dict()})
    prepared = export_benchmark._prepare(export)
    with pytest.raises(UserError, match=r"^ONNX models need the package onnxruntime: pip install 'resnet_tf\[onnx\]'$"):
        export_benchmark._load(export, prepared)


def test_a_killed_process_is_named(monkeypatch):
    killed = subprocess.CompletedProcess((), -9, stdout="", stderr="a warning\nKilled\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: killed)
    with pytest.raises(UserError, match=r"^its process ended with exit code -9: Killed$"):
        measure_export(Path("export"), seconds=0.1, input_type=ImagePreprocess)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workdir=nowhere",), "--workdir=DIR goes with --what=serving"),
        (("--what=serving", "--workdir=nowhere"), "'nowhere' is not a run directory: it has no config.json"),
        (("--what=serving", "--workdir=nowhere", "--model=resnet18"), "without --model, --config and --set"),
        (("--what=serving", "--workdir=nowhere", "--config=digits"), "without --model, --config and --set"),
        (("--what=serving", "--workdir=nowhere", "--data.batch_size=4"), "without --model, --config and --set"),
        (("--what=serving", "--model=."), "is not a model exported by resnet_tf"),
        (("--what=serving", "--model=.", "--config=digits"), "--model=EXPORTED goes without --config and --set"),
        (("--what=serving", "--model=resnet51"), "unknown model 'resnet51'; did you mean"),
    ],
)
def test_mistakes_are_one_line(arguments, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("benchmark", *arguments)
    assert outcome.code == 2
    assert (outcome.out, outcome.err.count("\n")) == ("", 1)
    assert outcome.err.startswith("error: ")
    assert message in outcome.err


@pytest.mark.slow
@pytest.mark.long
def test_all_exports_of_a_run(workdir, tmp_path, command):
    """The accuracies are those of `evaluate`, for each target that is exported again."""
    outcome = command("benchmark", "--what=serving", f"--workdir={workdir}", "--seconds=0.1", "--json")
    assert outcome.code == 0, outcome.err
    *exports, summary = map(json.loads, outcome.out.splitlines())
    reference = resnet_tf.evaluate(workdir).to_dict()["top1"]
    assert (summary["metric"], summary["reference"]) == ("top1", pytest.approx(reference))
    candidates, _ = list_candidates()
    assert [(each["target"], each["precision"]) for each in exports] == candidates
    for each in exports:
        target, precision = each["target"], each["precision"]
        path = resnet_tf.export(workdir, tmp_path / f"{target}_{precision}", target=target, precision=precision)
        accuracy = resnet_tf.evaluate(path).to_dict()["top1"]
        assert each["accuracy"] == pytest.approx(accuracy, abs=1e-9)
        assert each["accuracy_change_points"] == pytest.approx(100 * (accuracy - reference), abs=1e-6)
        assert (each["note"], each["first_answer_seconds"] > 0) == ("", True)
    assert [each.name for each in resnet_tf.load_run(workdir).serving.exports] == [
        " ".join(each) for each in candidates
    ]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    "network", [("--model=resnet8_w32", "--data.image_size=32"), ("--model=resnet18_1d", "--data.length=64")]
)
def test_all_exports_of_a_network_with_random_weights(network, command):
    outcome = command("benchmark", "--what=serving", *network, "--seconds=0.1", "--json")
    assert outcome.code == 0, outcome.err
    *exports, summary = map(json.loads, outcome.out.splitlines())
    measured = {(each["target"], each["precision"]) for each in exports}
    omitted = {(each["target"], each["precision"]) for each in summary["omitted"] if "rejected" in each["reason"]}
    assert measured | omitted == set(list_candidates()[0])
    assert {target for target, _ in measured} == {target for target, _ in list_candidates()[0]}
    assert {each["note"] for each in exports} == {"accuracy was not measured: its metadata name no data"}
