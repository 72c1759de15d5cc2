"""Write the tables of results into README.md and docs/, from results/*/metrics.jsonl.

    python benchmarks/results/table.py             rewrite the tables
    python benchmarks/results/table.py --check     write nothing; exit code 1 if a table is out of date

Accuracy is the validation accuracy after the last epoch, or the output of `evaluate` if the row has such a command; ±
is the sample standard deviation over seeds. Minutes are the number of epochs times the median training time of an
epoch, plus the number of evaluations times their median time, so that other load on the machine for some epochs does
not count. Images/s is the median over the epochs.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plan import FAST, PYTORCH, TABLES, WIDE, Row, Run, Table

from resnet_tf.config import Config, load_config
from resnet_tf.config.effects import REQUIREMENTS
from resnet_tf.core.files import read_json_lines, write_atomically
from resnet_tf.core.text import counted

RESULTS = Path(__file__).parents[2] / "results"
HEAD = ("", "accuracy (%)", "seeds", "epochs", "minutes", "images/s", "published (%)", "command")
# Stored runs with so many batches in an epoch omit at most 1 % of their examples, as `data.drop_remainder=auto` does;
# those of long-tailed CIFAR-10 omit 118 of 12,406.
_MANY_BATCHES = 96
COST = ("docs/serving.md", "cost")  # page and section of results/cost.json
AVERAGING = ("docs/training.md", "averaging")  # page and section of the last epochs of FAST and WIDE
MINUTES = ("docs/benchmarks.md", "minutes")  # page and section of results/minutes/results.jsonl


@dataclass(frozen=True)
class Metrics:
    """Metrics of a run: accuracy in [0, 1], epochs, minutes, and images per second."""

    accuracy: float
    epochs: int
    minutes: float
    images_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = []
    tables = [(each.page, each.name, render(each)) for each in TABLES]
    tables += [(*AVERAGING, render_averaging()), (*COST, render_cost()), (*MINUTES, render_minutes())]
    for page, name, lines in tables:
        path = RESULTS.parent / page
        old = path.read_text()
        new = insert(old, name, lines)
        if new != old:
            stale.append(f"{page}: {name}")
            if not arguments.check:
                write_atomically(path, new)
    if arguments.check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python benchmarks/results/table.py")


def insert(page: str, name: str, table: str) -> str:
    """Return the page with `table` between `<!-- results: NAME -->` and `<!-- end -->`."""
    section = re.compile(rf"(<!-- results: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(section.findall(page)) != 1:
        raise SystemExit(f"the page needs '<!-- results: {name} -->' and '<!-- end -->' once")
    return section.sub(lambda marks: f"{marks[1]}{table}{marks[2]}", page)


def render(table: Table) -> str:
    """Return the table in Markdown: rows with finished runs, and rows that are not run here."""
    return _markdown(HEAD, [_cells(row) for row in table.rows if not row.run_here or any(map(finished, row.runs))])


def render_averaging() -> str:
    """Return the accuracies of the same runs by their last weights, by averaged ones, and with mirror images, too."""
    head = ("", "weights of the last step (%)", "averaged weights (%)", "and averaged logits (%)", "seeds")
    rows = []
    for runs in (FAST, WIDE):
        done = [RESULTS / run.name for run in runs if finished(run)]
        if not done:
            continue
        last = [read_json_lines(folder / "metrics.jsonl")[-1] for folder in done]
        mirrored = [json.loads((folder / "evaluation.json").read_text())["top1"] for folder in done]
        values = ([each["val_raw_top1"] for each in last], [each["val_top1"] for each in last], mirrored)
        rows.append((f"`{runs[0].config}`", *map(_percent, values), _seeds(len(done), len(runs))))
    return _markdown(head, rows)


def render_cost() -> str:
    """Return the table of results/cost.json, or an empty string without this file."""
    if not (RESULTS / "cost.json").exists():
        return ""
    head = ("network", "precision", "accuracy (%)", "MB", "images/s, batch 1", "images/s, batch 32")
    rows = [
        (
            row["network"],
            row["precision"],
            f"{100 * row['top1']:.2f}",
            f"{row['megabytes']:.2f}",
            *(f"{rate:,.0f}" for rate in row["images_per_second"].values()),
        )
        for row in json.loads((RESULTS / "cost.json").read_text())
    ]
    return _markdown(head, rows)


def render_minutes() -> str:
    """Return the table of the results of `benchmarks/minutes.py`: the highest accuracy of each row is bold."""
    rows: dict[tuple[str, float], dict[str, dict[str, Any]]] = {}
    for each in read_json_lines(RESULTS / "minutes" / "results.jsonl"):
        rows.setdefault((each["data"], each["minutes"]), {})[each["method"]] = each
    names = list(dict.fromkeys(name for name, _ in rows))
    cells = []
    for name, minutes in sorted(rows, key=lambda key: (names.index(key[0]), key[1])):
        methods = rows[name, minutes]
        best = max(each["top1"] for each in methods.values())
        auto = methods.get("auto")
        chosen = f"`{auto['network']}`, {auto['image_size']} pixels, {counted(auto['epochs'], 'epoch')}" if auto else ""
        results = (_accuracy_in_minutes(methods.get(each), best) for each in ("auto", "fixed", "pytorch"))
        cells.append((name, f"{minutes:g}", *results, chosen))
    return _markdown(("data", "minutes", "`auto`", "fixed recipe", "PyTorch", "chosen by `auto`"), cells)


def _accuracy_in_minutes(row: dict[str, Any] | None, best: float) -> str:
    if row is None:
        return ""
    percent = f"{100 * row['top1']:.2f} %"
    return f"{f'**{percent}**' if row['top1'] == best else percent} in {row['total_minutes']:.1f}"


def finished(run: Run) -> bool:
    return (RESULTS / run.name / "metrics.jsonl").exists()


def read(run: Run) -> Metrics:
    """Return the metrics of a finished run.

    Raises:
        SystemExit: if the stored configuration is not that of the run's command.
    """
    folder = RESULTS / run.name
    if run.config != PYTORCH and (other := _other_settings(run)):
        raise SystemExit(f"results/{run.name} is not a run of {run.command}: {', '.join(other)} differ")
    epochs = read_json_lines(folder / "metrics.jsonl")
    evaluations = [epoch["val_seconds"] for epoch in epochs if "val_seconds" in epoch]
    training = statistics.median(epoch["train_seconds"] for epoch in epochs)
    final = folder / "evaluation.json"
    return Metrics(
        accuracy=json.loads(final.read_text())["top1"] if run.evaluate else epochs[-1]["val_top1"],
        epochs=len(epochs),
        minutes=(len(epochs) * training + len(evaluations) * statistics.median(evaluations)) / 60,
        images_per_second=statistics.median(epoch["images_per_second"] for epoch in epochs),
    )


def _other_settings(run: Run) -> list[str]:
    """Return keys with an effect in which a stored run differs from its command.

    `train.defaults` may change keys at their default.

    Runs on the CPU that were stored before `runtime.xla` had the value `auto` were run as `auto` runs there. Runs that
    were stored before `data.drop_remainder` existed omitted the rest, as `auto` does in an epoch of many batches.
    """
    stored, documented = load_config(RESULTS / run.name / "config.json"), load_config(run.config, run.overrides)
    found, expected, defaults = stored.values, documented.values, Config().values
    derived = documented.train.defaults != "none"
    found["runtime.xla"] = "auto" if found["runtime.xla"] == "false" else found["runtime.xla"]
    if expected["data.drop_remainder"] == "auto" and found["data.drop_remainder"] == "true":
        found["data.drop_remainder"] = "auto" if _batches(run) >= _MANY_BATCHES else "true"
    differing = [key for key in expected if found[key] != expected[key] and _has_effect(documented, key)]
    return [key for key in differing if not (derived and expected[key] == defaults[key])]


def _has_effect(config: Config, key: str) -> bool:
    return all(is_met(config) for _, is_met in REQUIREMENTS.get(key, ()))


def _batches(run: Run) -> int:
    """Return the number of complete batches in an epoch of a stored run."""
    return int(read_json_lines(RESULTS / run.name / "metrics.jsonl")[0]["step"])


def _cells(row: Row) -> tuple[str, ...]:
    if not row.run_here:
        return (row.title, "not run here", "", "", "", "", row.published, f"`{row.runs[0].command}`")
    runs = [read(run) for run in row.runs if finished(run)]
    return (
        row.title,
        _percent([run.accuracy for run in runs]),
        _seeds(len(runs), len(row.runs)),
        str(runs[0].epochs),
        f"{statistics.mean(run.minutes for run in runs):.1f}",
        f"{statistics.mean(run.images_per_second for run in runs):,.0f}",
        row.published,
        f"`{row.runs[0].command}`",
    )


def _percent(fractions: Sequence[float]) -> str:
    """Return the mean of some fractions in percent, and their standard deviation if there are several."""
    percents = [100 * each for each in fractions]
    spread = f" ± {statistics.stdev(percents):.2f}" if len(percents) > 1 else ""
    return f"**{statistics.mean(percents):.2f}**{spread}"


def _seeds(finished: int, planned: int) -> str:
    return str(planned) if finished == planned else f"{finished} of {planned}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table without empty columns, or an empty string without rows."""
    if not rows:
        return ""
    kept = [column for column, name in enumerate(head) if not name or any(row[column] for row in rows)]
    lines = ["| " + " | ".join(row[column] for column in kept) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(kept), *lines[1:]]) + "\n"


if __name__ == "__main__":
    main()
