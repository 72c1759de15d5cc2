"""Measure what `audit` finds: faults are planted in a folder of images, and the findings are compared with them.

    python benchmarks/audit.py plant data/cifar10 --name=cifar10                   # a folder of split/class/file
    python benchmarks/audit.py plant data/cifar10 --name=cifar10 --model=EXPORT    # with the features of a network
    python benchmarks/audit.py plant data/photos --name=photos --classes=animals   # a folder of ImageNet's photos
    python benchmarks/audit.py real data/fashion-mnist --name=fashion_mnist --split=test       # nothing is planted
    python benchmarks/audit.py table                                               # write docs/trust.md

`plant` and `real` replace the rows of their case in results/audit/NAME.jsonl. Precision counts every finding that was
not planted as wrong, also true duplicates and label errors of the data.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import audit_table
from audit_plant import PLANTED, Planted, plant

import resnet_tf
from resnet_tf.core.files import append_json_lines, read_json_lines, write_json_lines
from resnet_tf.core.machine import cores, processor, versions
from resnet_tf.data.audit.findings import LISTS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "audit"
_SHOWN = 5  # findings of a list in a row of `real`


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("plant", "real", "table"))
    parser.add_argument("data", nargs="?", default="")
    parser.add_argument("--name", default="", help="name of the case, and of the file of its results")
    parser.add_argument("--model", default="", help="exported network")
    parser.add_argument("--split", default="", help="split that `real` audits; all by default")
    parser.add_argument("--images", type=int, default=0, help="largest number of images, a random part; 0 for all")
    parser.add_argument("--classes", choices=("folders", "animals"), default="folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loaded", action="store_true", help="other work loads the machine: store no seconds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="with `table`: write nothing, exit code 1 if out of date")
    arguments = parser.parse_args()
    if arguments.command == "table":
        audit_table.update(ROOT, check_only=arguments.check)
        return
    if not arguments.data or not arguments.name:
        parser.error(f"{arguments.command} needs a data set and --name")
    rows = (_plant if arguments.command == "plant" else _real)(arguments)
    path = arguments.results / f"{arguments.name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = {row["case"] for row in rows}
    kept = [row for row in read_json_lines(path) if row["case"] not in cases] if path.exists() else []
    write_json_lines(path, kept)
    append_json_lines(path, rows)


def _plant(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each list of findings, with the number of planted and found faults."""
    with tempfile.TemporaryDirectory(prefix="resnet_tf-audit-") as temporary:
        root = Path(temporary) / arguments.name
        planted = plant(
            Path(arguments.data),
            root,
            images=arguments.images,
            animals=arguments.classes == "animals",
            seed=arguments.seed,
        )
        start = time.perf_counter()
        found = resnet_tf.audit(root, model=arguments.model).to_dict()
        seconds = time.perf_counter() - start
    case = _case(arguments, found, seconds)
    return [case | {"list": name} | _score(found, planted, name) for name in PLANTED]


def _score(found: dict[str, Any], planted: Planted, name: str) -> dict[str, Any]:
    """Return the numbers of planted, found and reported faults, and precision and recall."""
    expected = planted.faults[name]
    wanted, _, issue = name.partition(": ")
    reported = [frozenset(each["paths"]) for each in found[wanted] if not issue or each["issue"] == issue]
    right = [each for each in expected if any(each <= paths for paths in reported)]
    correct = sum(any(each <= paths for each in expected) for paths in reported)
    return {
        "planted": len(expected),
        "found": len(right),
        "reported": len(reported),
        "recall": round(len(right) / max(len(expected), 1), 4),
        "precision": round(correct / max(len(reported), 1), 4),
    }


def _real(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each list of findings, with the first findings."""
    overrides = [f"data.{key}_split={arguments.split}" for key in ("train", "eval")] if arguments.split else []
    start = time.perf_counter()
    found = resnet_tf.audit(arguments.data, model=arguments.model, overrides=overrides).to_dict()
    case = _case(arguments, found, time.perf_counter() - start)
    root = str(Path(arguments.data))
    rows = []
    for name in LISTS:
        first = [
            {
                "paths": [path.removeprefix(root).lstrip("/:") for path in each["paths"][:4]],
                "reason": each["reason"],
                "score": each["score"],
            }
            for each in found[name][:_SHOWN]
        ]
        rows.append(case | {"list": name, "reported": len(found[name]), "first": first})
    return rows


def _case(arguments: argparse.Namespace, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    part = f" {arguments.split}" if arguments.split else f" ({arguments.images:,})" if arguments.images else ""
    case = f"{arguments.name}{part}"
    return {
        "case": f"{case}, {'features of a network' if arguments.model else 'without a network'}",
        "images": sum(each["examples"] for each in found["splits"]),
        "seconds": None if arguments.loaded else round(seconds, 1),
        "cores": cores(),
        "processor": processor(),
        "versions": versions(),
        "notes": found["notes"],
    }


if __name__ == "__main__":
    main()
