"""Accuracy after a number of minutes: the recipe `auto`, a fixed recipe, and PyTorch with the defaults of fastai.

    python benchmarks/minutes.py --data=cifar10=cifar/ --data=photos=photos/ --minutes=2,10,30
    python benchmarks/minutes.py --data=photos=photos/ --weights=photos=resnet20:resnet20.th

Each case trains in a process of its own, one after the other, and adds a line to results/minutes/results.jsonl; cases
that have a line are skipped, so that the same command continues. A data set is a folder of train/CLASS/* and
test/CLASS/*, of the files of Fashion-MNIST, or of ImageNet's photos, which are labeled as animals or other things, or
an `.npz` archive; `digits` is that of the package, without a path. The minutes of this package include export,
verification and report; those of PyTorch the evaluation. `fixed` is the recipe `imagefolder`, or with pretrained
weights `finetune`, ended by a callback when its time is over. The accuracy is that of the last epoch: the best one
would be selected by the images that it is computed on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from photos import list_animals

from resnet_tf.core import machine
from resnet_tf.core.files import append_json_lines, read_json_lines
from resnet_tf.data.sources import idx

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "minutes" / "results.jsonl"
METHODS = ("auto", "fixed", "pytorch")
_FINISH_SECONDS = 60.0  # of export, verification and report after the last epoch of `fixed`
_SLACK = 4.0  # a case that takes more than this many times its minutes is ended


@dataclass(frozen=True)
class Case:
    """A training to measure.

    Attributes:
        data: name of the data set.
        source: its folder or archive.
        minutes: time of the training.
        method: one of `METHODS`.
        network: network of the pretrained weights, or empty.
        weights: file of pretrained weights, or empty.
    """

    data: str
    source: Path
    minutes: float
    method: str
    network: str = ""
    weights: str = ""

    @property
    def key(self) -> dict[str, Any]:
        """Fields that identify the line of the case."""
        return {"data": self.data, "minutes": self.minutes, "method": self.method}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the cases that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], help="NAME=PATH of a data set, or digits; repeatable")
    text = "NAME=NETWORK:FILE of pretrained weights for a data set; PyTorch reads those of ResNet-20; repeatable"
    parser.add_argument("--weights", action="append", default=[], help=text)
    parser.add_argument("--minutes", default="2,10,30", help="minutes, separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods, separated by commas")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of JSON Lines that results are added to")
    parser.add_argument("--settings", action="append", default=[], help="key=value for the runs of this package")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        print(json.dumps(_train(json.loads(arguments.child))))
        return
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for case in missing_cases(list_cases(arguments, Path(scratch)), arguments.results):
            row = case.key | measure(case, arguments.settings, Path(scratch)) | machine.describe()
            append_json_lines(arguments.results, [row])
            print(json.dumps(row))


def list_cases(arguments: argparse.Namespace, scratch: Path) -> list[Case]:
    """Return all cases of the command line, the short ones first."""
    sources = {}
    for text in arguments.data or ["digits"]:
        name, _, path = text.partition("=")
        sources[name] = prepare(Path(path).absolute(), scratch / name) if path else write_digits(scratch / "digits.npz")
    minutes = sorted(float(each) for each in arguments.minutes.split(","))
    methods = arguments.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        raise SystemExit(f"unknown methods {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    weights = {}
    for text in arguments.weights:
        name, _, rest = text.partition("=")
        network, _, file = rest.partition(":")
        weights[name] = network, str(Path(file).absolute())
    return [
        Case(name, source, each, method, *weights.get(name, ()))
        for each in minutes
        for name, source in sources.items()
        for method in methods
    ]


def missing_cases(cases: Sequence[Case], results: Path) -> Iterator[Case]:
    """Yield the cases without a line in the file of results."""
    present = [{key: line.get(key) for key in ("data", "minutes", "method")} for line in read_json_lines(results)]
    return (case for case in cases if case.key not in present)


def measure(case: Case, settings: Sequence[str], scratch: Path) -> dict[str, Any]:
    """Train a case in a new process; return its accuracy, its duration in minutes and its settings."""
    workdir = scratch / f"{case.data}-{case.minutes:g}-{case.method}"
    if case.weights:
        settings = [*settings, f"model.name={case.network}", f"model.weights={case.weights}"]
    request = {"source": str(case.source), "workdir": str(workdir), "settings": list(settings), **case.key}
    if case.method == "pytorch":
        program = [str(ROOT / "benchmarks" / "minutes_torch.py")]
        program += [f"--data={case.source}", f"--minutes={case.minutes}"]
        program += [f"--weights={case.weights}"] if case.weights else []
    else:
        program = [__file__, f"--child={json.dumps(request)}"]
    # Programs import their neighbors, which PYTHONSAFEPATH would hide.
    paths = [str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    start = time.monotonic()
    limit = 60 * case.minutes * _SLACK + 300
    command = [sys.executable, *program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{case.key} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"total_minutes": round((time.monotonic() - start) / 60, 3)}


def prepare(path: Path, target: Path) -> Path:
    """Return the path of a data set that this package and PyTorch read."""
    if path.is_file() or (path / "train").is_dir():
        return path
    if (path / "train-images-idx3-ubyte.gz").is_file():
        return write_fashion(path, target.with_suffix(".npz"))
    for split, label, file in list_animals(path):
        (target / split / label).mkdir(parents=True, exist_ok=True)
        (target / split / label / file.name).symlink_to(file)
    return target


def write_fashion(folder: Path, path: Path) -> Path:
    """Write the images of Fashion-MNIST, and their labels, as an archive, and return its path."""
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        arrays[f"x_{split}"] = idx.read_array(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
        arrays[f"y_{split}"] = idx.read_array(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
    np.savez(path, **arrays)
    return path


def write_digits(path: Path) -> Path:
    """Write the digits of the package as an archive, and return its path."""
    with resources.files("resnet_tf.data.sources").joinpath("digits.npz").open("rb") as file:
        stored = np.load(file)
        images, labels = np.round(stored["images"][..., np.newaxis] * (255 / 16)).astype(np.uint8), stored["labels"]
    half = len(images) // 2
    np.savez(path, x_train=images[:half], y_train=labels[:half], x_test=images[half:], y_test=labels[half:])
    return path


def _train(request: dict[str, Any]) -> dict[str, Any]:
    """Train with this package, and return accuracy and settings."""
    import keras

    import resnet_tf

    class StopInTime(keras.callbacks.Callback):
        """Ends a run when its time is over, less that of export and report."""

        def __init__(self, seconds: float):
            super().__init__()
            self._end = time.monotonic() + max(seconds - _FINISH_SECONDS, seconds / 2)

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if time.monotonic() > self._end:
                self.model.stop_training = True

    is_auto, minutes = request["method"] == "auto", request["minutes"]
    own = [f"train.minutes={minutes}"] if is_auto else []
    pretrained = any(each.startswith("model.weights=") for each in request["settings"])
    recipe = "auto" if is_auto else "finetune" if pretrained else "imagefolder"
    own += [f"data.source={request['source']}", "export.checkpoint=latest"]
    config = resnet_tf.load_config(recipe, [*own, *request["settings"]])
    callbacks = [] if is_auto else [StopInTime(60 * minutes)]
    result = resnet_tf.train(config, request["workdir"], callbacks=callbacks)
    assert result is not None
    chosen = result.run.config
    return {
        "top1": result.evaluation.top(1),
        "network": chosen.model.name,
        "weights": Path(chosen.model.weights).name,
        "image_size": chosen.data.image_size,
        "batch_size": chosen.data.batch_size,
        "epochs": len(read_json_lines(Path(request["workdir"]) / "metrics.jsonl")),
        "planned_epochs": chosen.train.epochs,
    }


if __name__ == "__main__":
    main()
