"""Calibration, coverage and out-of-distribution detection, of published CIFAR-10 networks on data that did not fit.

    python benchmarks/trust.py measure --data=cifar10/ --weights=DIR --ood=fashion=DIR --ood=digits=digits
    python benchmarks/trust.py table       the table of docs/trust.md, from results/trust/cifar10.jsonl

The data are a folder with test/CLASS/*, of which no image trained the networks. The weights are the files of
akamaster/pytorch_resnet_cifar10. Each half of the images reports with the temperature and the threshold that the other
half fitted. A network that has a line in the results is skipped.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from resnet_tf.config import load_config
from resnet_tf.core import machine
from resnet_tf.core.calibration import UNCALIBRATED
from resnet_tf.core.calibration_check import calibrate, check_calibration
from resnet_tf.core.files import append_json_lines, read_json_lines, write_atomically
from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.core.out_of_distribution import separate
from resnet_tf.data.sources import open_source
from resnet_tf.inputs import ImagePreprocess
from resnet_tf.model.create import create_model
from resnet_tf.model.network import ResidualNetwork
from resnet_tf.training.evaluation import Evaluator

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "trust.md", ROOT / "results" / "trust" / "cifar10.jsonl"
FILES = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}
TARGET_PRECISION = 0.95
PREPROCESS = ImagePreprocess(size=(32, 32), crop_fraction=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_BATCH = 500


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the networks that have no result yet, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "table"))
    parser.add_argument("--data", type=Path, help="folder with test/CLASS/*")
    parser.add_argument("--weights", type=Path, help="directory of the weights files")
    parser.add_argument("--ood", action="append", default=[], help="NAME=SOURCE of other data; repeatable")
    arguments = parser.parse_args(argv)
    if arguments.action == "table":
        write_table(check_only=False)
        return
    others = dict(each.split("=", 1) for each in arguments.ood)
    known = {row["network"] for row in read_json_lines(RESULTS)} if RESULTS.exists() else set()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for network, file in FILES.items():
        if network not in known:
            append_json_lines(RESULTS, [measure(network, arguments.weights / file, arguments.data, others)])


def measure(network: str, weights: Path, data: Path, others: Mapping[str, str]) -> dict[str, Any]:
    """Return the metrics of a network.

    Args:
        network: name of the network.
        weights: its weights file.
        data: folder with test/CLASS/*.
        others: name -> `data.source` of other data.
    """
    model = create_model(network, num_classes=10, input_shape=(32, 32, 3), weights=str(weights))
    evaluation = _evaluate(model, str(data))
    calibration = calibrate(evaluation, target_precision=TARGET_PRECISION)
    evaluation = dataclasses.replace(evaluation, calibration=calibration)
    check = check_calibration(evaluation, cross_fitted=True)
    return {
        "network": network,
        "top1": evaluation.top(1),
        "top1_after": check.after.top(1),
        "temperature": calibration.temperature,
        "threshold": calibration.threshold,
        "target_precision": TARGET_PRECISION,
        **check.to_dict(),
        "ood": {name: _scores(evaluation, _evaluate(model, source, unlabeled=True)) for name, source in others.items()},
        "versions": machine.versions(),
    }


def _evaluate(model: ResidualNetwork, source: str, *, unlabeled: bool = False) -> SingleLabelEvaluation:
    """Evaluate a network on the test split of a source, whose labels are ignored if it has other classes."""
    settings = [f"data.source={source}", "data.train_split=test", "data.eval_split=test"]
    split = open_source(load_config("cifar10_resnet20", settings).data, for_training=False).validation
    if unlabeled:
        split = dataclasses.replace(split, labels=np.zeros(split.num_examples, np.int64))
    evaluator = Evaluator(model, split, PREPROCESS, batch_size=_BATCH, strategy=tf.distribute.get_strategy())
    evaluation = evaluator()
    assert isinstance(evaluation, SingleLabelEvaluation)
    return evaluation


def _scores(known: SingleLabelEvaluation, other: SingleLabelEvaluation) -> dict[str, Any]:
    """Return the separation by energies at temperature 1 and at that of the calibration, and by the confidence."""
    calibrated = dataclasses.replace(other, calibration=known.calibration)
    plain = dataclasses.replace(known, calibration=UNCALIBRATED)
    pairs = {
        "energy": (plain.energy, other.energy),
        "calibrated_energy": (known.energy, calibrated.energy),
        "confidence": (-plain.confidence, -other.confidence),
    }
    found = {name: separate(*pair, name) for name, pair in pairs.items()}
    rates = {
        f"{name}_{key}": getattr(each, key) for name, each in found.items() for key in ("auroc", "false_positive_rate")
    }
    return {"examples": len(other.targets), **rates}


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables in Markdown."""
    before_after = ("calibration_error", "loss", "brier_score")
    head = ("network", "top-1 (%)", "temperature", "calibration error (%)", "loss (nats)", "Brier score")
    lines = [_row((*head, "certain (%)", "of these right (%)")), _row(["---"] * 8)]
    for row in rows:
        error, loss, brier = ((row[f"{name}_before"], row[f"{name}_after"]) for name in before_after)
        cells = (row["network"], f"{100 * row['top1']:.2f}", f"{row['temperature']:.3f}")
        changes = (f"{100 * error[0]:.2f} → {100 * error[1]:.2f}", *(f"{a:.4f} → {b:.4f}" for a, b in (loss, brier)))
        lines.append(_row((*cells, *changes, f"{100 * row['coverage']:.1f}", f"{100 * row['precision']:.2f}")))
    scores = {"calibrated_energy": "energy", "energy": "energy at temperature 1", "confidence": "best probability"}
    lines += ["", _row(("network", "other data", *(f"{name}: AUROC, FPR95 (%)" for name in scores.values())))]
    lines.append(_row(["---"] * 5))
    for row in rows:
        for name, found in row["ood"].items():
            pairs = ((found[f"{key}_auroc"], found[f"{key}_false_positive_rate"]) for key in scores)
            cells = (f"{auroc:.4f}, {100 * rate:.1f}" for auroc, rate in pairs)
            lines.append(_row((row["network"], f"{name} ({found['examples']:,})", *cells)))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_table(*, check_only: bool) -> None:
    """Write the tables into the page.

    Raises:
        SystemExit: with `check_only`, if the page is out of date.
    """
    sys.path.append(str(ROOT / "benchmarks" / "results"))
    from table import insert

    old = PAGE.read_text()
    new = insert(old, "trust", render(read_json_lines(RESULTS)))
    if check_only and new != old:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} is out of date; run python benchmarks/trust.py table")
    write_atomically(PAGE, new)


if __name__ == "__main__":
    main()
