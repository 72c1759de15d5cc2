"""Examples for several machines: manifests follow the schemas of Kubernetes, and workers meet on one machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from resnet_tf.training.cluster import read_tf_config

ROOT = Path(__file__).parents[1]
MANIFESTS = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))
# Stands for a training: counts the signals of a second.
WORKER = """
import signal, sys, time
received = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *arguments: received.append(1))
print("ready", flush=True)
while not received:
    time.sleep(0.01)
time.sleep(0.5)
print(len(received), "signal", flush=True)
sys.exit(75)
"""
KUBERNETES = "1.31"  # podFailurePolicy is stable from this release on


def _documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", MANIFESTS, ids=[path.name for path in MANIFESTS])
def test_manifests_follow_the_schemas(path):
    for document in _documents(path):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        document["spec"]["misspelled"] = 1
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_pods_describe_one_cluster(tmp_path, monkeypatch):
    service, job = _documents(ROOT / "examples" / "kubernetes" / "workers.yaml")
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (workers,) = (each["value"] for each in container["env"] if each["name"] == "WORKERS")
    assert int(workers) == spec["completions"] == spec["parallelism"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert service["metadata"]["name"] == spec["template"]["spec"]["subdomain"]
    (tmp_path / "python").write_text('#!/bin/sh\necho "$TF_CONFIG"\n')  # instead of the training
    (tmp_path / "python").chmod(0o755)
    clusters = []
    for index in range(int(workers)):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WORKERS": workers}
        environment["JOB_COMPLETION_INDEX"] = str(index)
        done = subprocess.run(container["command"], env=environment, capture_output=True, text=True, check=True)
        monkeypatch.setenv("TF_CONFIG", done.stdout)
        assert read_tf_config().index == index
        clusters.append(json.loads(done.stdout)["cluster"]["worker"])
    name = job["metadata"]["name"]
    assert clusters == [[f"{name}-{index}.{name}:2222" for index in range(int(workers))]] * int(workers)


@pytest.mark.parametrize("arguments", [[], ["0"], ["two"], ["--config=digits"]])
def test_the_number_of_workers_is_missing(arguments):
    command = [sys.executable, ROOT / "examples" / "workers.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the first argument is the number of workers")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_workers_get_one_signal(tmp_path, number):
    """Regression: a worker got Ctrl-C from the terminal as well, and ended without a checkpoint."""
    (tmp_path / "resnet_tf").mkdir()
    (tmp_path / "resnet_tf" / "__init__.py").touch()
    (tmp_path / "resnet_tf" / "train.py").write_text(WORKER)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, ROOT / "examples" / "workers.py", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **pipes) as started:
        lines = [started.stdout.readline() for _ in range(2)]
        assert all("ready" in line for line in lines), lines
        os.killpg(started.pid, number)  # what a terminal does
        lines, _ = started.communicate(timeout=60)
    assert started.returncode == 75, lines
    assert sorted(lines.splitlines()) == [f"[{index}] 1 signal" for index in range(2)]


@pytest.mark.slow
def test_a_mistake_ends_all_workers():
    command = [sys.executable, ROOT / "examples" / "workers.py", "2", "--config=digit"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    for index in range(2):
        assert f"[{index}] error: unknown config 'digit'; did you mean 'digits'" in done.stdout
