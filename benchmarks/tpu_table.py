"""Write the table of docs/accelerators.md from results/tpu/*.jsonl, the output of `benchmarks/tpu.py measure`."""

from pathlib import Path
from typing import Any

from gpu_table import read, rewrite

Rows = list[dict[str, Any]]
# Peak FLOP/s in bfloat16 and bytes/s of memory of a chip, as published on the pages that `tpu_cases.CHIPS` cites.
PEAKS = {"TPU v5 lite": ("v5e", 197e12, 819e9), "TPU v6 lite": ("v6e", 918e12, 1640e9)}


def update(root: Path, *, check_only: bool) -> None:
    """Rewrite the table of the page; see `gpu_table.rewrite`."""
    tables = {"tpu-memory": render(read(root / "results" / "tpu"))}
    rewrite(root, tables, command="python benchmarks/tpu.py table", check_only=check_only)


def render(rows: Rows) -> str:
    """Return the table of the largest batches, followed by a line of versions."""
    head = (
        *("training step", "chip", "largest batch", "temporaries, GiB", "weights and state, GiB"),
        *("GFLOP an image", "MB accessed an image", "bound: ms a step", "bound: images/s"),
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    versions = dict.fromkeys(
        ", ".join(
            f"{name} {number}" for name, number in (row["versions"] | {"tensorflow-tpu": row["tensorflow"]}).items()
        )
        for row in rows
    )
    return "\n".join(lines) + f"\n\nVersions: {'; '.join(versions)}.\n"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    name, flops, bandwidth = PEAKS[row["chip"]]
    batch = row["batch"]
    seconds = max(row["flops"] / flops, row["bytes_accessed"] / bandwidth)  # Williams et al. 2009, Roofline
    size = "x".join(map(str, row["image_shape"][:2]))
    return (
        f"{row['case'].replace('name_', '')}, {size}",
        name,
        f"{batch:,}",
        f"{row['temporaries'] / 2**30:.2f}",
        f"{row['arguments'] / 2**30:.2f}",
        f"{row['flops'] / batch / 1e9:.1f}",
        f"{row['bytes_accessed'] / batch / 1e6:.0f}",
        f"{1000 * seconds:.0f}",
        f"{batch / seconds:,.0f}",
    )
