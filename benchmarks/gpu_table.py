"""Write the tables of docs/accelerators.md from results/gpu/*.jsonl, the output of `benchmarks/gpu.py run --json`."""

import sys
from pathlib import Path
from typing import Any

from gpu_cases import CASES, QUANTITIES, TOLERANCES

from resnet_tf.core.files import read_json_lines, write_atomically

PAGE = "docs/accelerators.md"
Rows = list[dict[str, Any]]
PEERS = {
    "PyTorch eager": "PyTorch, eager",
    "PyTorch torch.compile": "PyTorch, `torch.compile`",
    "PyTorch reduce-overhead": 'PyTorch, `torch.compile(mode="reduce-overhead")`',
}


def update(root: Path, *, check_only: bool) -> None:
    """Rewrite the tables of the page; see `rewrite`."""
    rows = read(root / "results" / "gpu")
    tables = {"gpu-speed": speed(rows), "gpu-check": check(rows)}
    rewrite(root, tables, command="python benchmarks/gpu.py table", check_only=check_only)


def rewrite(root: Path, tables: dict[str, str], *, command: str, check_only: bool) -> None:
    """Insert tables into the page, by the names of their blocks.

    Raises:
        SystemExit: with `check_only`, if the page is out of date; the message names the command that writes it.
    """
    sys.path.insert(0, str(root / "benchmarks" / "results"))
    from table import insert

    old = new = (root / PAGE).read_text()
    for name, table in tables.items():
        new = insert(new, name, table)
    if check_only and new != old:
        raise SystemExit(f"{PAGE} is out of date; run {command}")
    if new != old:
        write_atomically(root / PAGE, new)


def read(directory: Path) -> Rows:
    """Return the rows of all files in the directory, in alphabetical order of the files."""
    return [row for path in sorted(directory.glob("*.jsonl")) for row in read_json_lines(path)]


def speed(rows: Rows) -> str:
    """Return the table of images per second, here and in PyTorch, followed by a line of versions."""
    head = ("GPU", "bfloat16 training step", "ours, images/s", "against", "images/s", "ratio (least to most)")
    versions = dict.fromkeys(", ".join(f"{name} {number}" for name, number in row["versions"].items()) for row in rows)
    return _markdown(head, [_speed_cells(row) for row in rows]) + f"\nVersions: {'; '.join(versions)}.\n"


def _speed_cells(row: dict[str, Any]) -> tuple[str, ...]:
    title, peer = row["ratio_to"].split(" bfloat16 ")
    (case,) = (each for each in CASES.values() if each.title == f"{title} bfloat16")
    stem = ", 3x3 stem" if case.small_stem else ""
    return (
        row["device"],
        f"{case.network}{stem}, {case.size} pixels, batch {case.batch}",
        f"{row['images_per_second']:,.0f}",
        PEERS[peer],
        f"{row['peer_images_per_second']:,.0f}",
        f"**{row['ratio']:.2f}** ({row['least']:.2f} to {row['most']:.2f})",
    )


def check(rows: Rows) -> str:
    """Return the table of relative differences from the reference: largest and median, with their tolerances."""
    head = ("GPU", "network", "precision", *("losses", *QUANTITIES))
    cells = {}
    for row in rows:
        for name, compared in row["checks"].items():
            case = CASES[name]
            dtype = case.title.rsplit(" ", 1)[-1]
            found = [_differences(compared["differences"][each], case.precision, each) for each in head[3:]]
            title = f"{case.network}, {case.size} pixels, batch {case.batch}, {case.steps} step(s)"
            cells[row["device"], name] = (row["device"], title, dtype, *found)
    return _markdown(head, list(cells.values()))


def _differences(found: dict[str, float], precision: str, quantity: str) -> str:
    largest, median = TOLERANCES[precision][quantity]
    return f"{found['relative']:.1e} of {largest:g}, {found['median']:.1e} of {median:g}"


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"
