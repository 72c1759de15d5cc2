"""Write the tables of docs/trust.md from results/audit/*.jsonl, the output of `benchmarks/audit.py`."""

import math
import sys
from pathlib import Path
from typing import Any

from resnet_tf.core.files import read_json_lines, write_atomically
from resnet_tf.core.text import markdown

PAGE = "docs/trust.md"
Rows = list[dict[str, Any]]


def update(root: Path, *, check_only: bool) -> None:
    """Rewrite the tables of the page.

    Raises:
        SystemExit: with `check_only`, if the page is out of date.
    """
    sys.path.insert(0, str(root / "benchmarks" / "results"))
    from table import insert

    rows = [row for path in sorted((root / "results" / "audit").glob("*.jsonl")) for row in read_json_lines(path)]
    old = (root / PAGE).read_text()
    new = insert(insert(old, "audit-planted", planted(rows)), "audit-real", real(rows))
    if check_only and new != old:
        raise SystemExit(f"{PAGE} is out of date; run python benchmarks/audit.py table")
    if new != old:
        write_atomically(root / PAGE, new)


def planted(rows: Rows) -> str:
    """Return the table of planted faults: precision and recall by case and list."""
    head = ("data", "images", "list", "planted", "found", "reported", "recall", "precision", "s, 2 cores")
    cells = [
        (
            row["case"],
            f"{row['images']:,}",
            row["list"].replace("_", " "),
            *(f"{row[name]:,}" for name in ("planted", "found", "reported")),
            *(f"{row[name]:.2f}" for name in ("recall", "precision")),
            _seconds(row),
        )
        for row in rows
        if "planted" in row
    ]
    return _markdown(head, cells)


def real(rows: Rows) -> str:
    """Return the table of findings in data as they are published."""
    head = ("data", "images", "list", "reported", "first findings", "s, 2 cores")
    cells = [
        (
            row["case"],
            f"{row['images']:,}",
            row["list"].replace("_", " "),
            f"{row['reported']:,}",
            "; ".join(
                f"{', '.join(map(markdown, each['paths']))}: {markdown(each['reason'])}" for each in row["first"][:2]
            ),
            _seconds(row),
        )
        for row in rows
        if "first" in row
    ]
    return _markdown(head, cells)


def _seconds(row: dict[str, Any]) -> str:
    """Return the seconds; empty if other work loaded the machine, which is stored as null and read as NaN."""
    return "" if math.isnan(row["seconds"]) else f"{row['seconds']:,.0f}"


def _markdown(head: tuple[str, ...], cells: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
