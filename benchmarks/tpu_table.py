"""Write the tables of docs/accelerators.md from results/tpu/*.jsonl, the output of `benchmarks/tpu.py measure`."""

from pathlib import Path
from typing import Any

import tpu_cases
from gpu_table import read, rewrite
from tpu_search import largest, next_batch

from resnet_tf.config import load_config
from resnet_tf.training.trainer import size_in_epoch

Rows = list[dict[str, Any]]
# Peak FLOP/s in bfloat16 and bytes/s of memory of a chip, as published on the pages that `tpu_cases.CHIPS` cites.
PEAKS = {"TPU v5 lite": ("v5e", 197e12, 819e9), "TPU v6 lite": ("v6e", 918e12, 1640e9)}
# Published bytes/s between the chips of a slice, for each chip: 1,600 and 3,584 Gbit/s (the same pages).
LINKS = {"v5e": 200e9, "v6e": 448e9}
SLICES = (1, 4, 8, 64, 256)  # chips
CHIPS_OF_A_HOST = 8
SCALED = "imagenet_resnet50_v15"


def update(root: Path, *, check_only: bool) -> None:
    """Rewrite the table of the page; see `gpu_table.rewrite`."""
    rows = found(read(root / "results" / "tpu"))
    tables = {"tpu-memory": render(rows), "tpu-scaling": render_scaling(rows)}
    rewrite(root, tables, command="python benchmarks/tpu.py table", check_only=check_only)


def found(rows: Rows) -> Rows:
    """Return the compilations of the largest batches, of the steps and chips whose search is complete."""
    searches = [
        [row for row in rows if (row["case"], row["topology"]) == (case.name, topology)]
        for case in tpu_cases.MEASURED
        for topology in tpu_cases.CHIPS
    ]
    return [dict(row) for each in searches if next_batch(each, 1) is None and (row := largest(each))]


def render(rows: Rows) -> str:
    """Return the table of the largest batches, followed by a line of versions."""
    head = (
        *("network, recipe, training size", "chip", "largest batch that fits", "temporaries, GiB"),
        *("weights and state, GiB", "GFLOP an image", "MB accessed an image", "bound: ms a step", "bound: images/s"),
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


def render_scaling(rows: Rows) -> str:
    """Return the table of a model of a data-parallel step on N chips: computing, then a ring all-reduce of gradients.

    In a ring, each chip sends 2 (N - 1) / N times the gradient (Patarasuk and Yuan, Bandwidth optimal all-reduce
    algorithms for clusters of workstations, 2009), in float32.
    """
    head = ("chip", "chips", "batch", "computing, ms", "all-reduce, MB a chip", "all-reduce, ms", "of a chip's speed")
    head = (*head, "images/s", "images/s that each host of 8 chips decodes")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        if row["case"] == SCALED:
            lines += ["| " + " | ".join(_scaling_cells(row, chips)) + " |" for chips in SLICES]
    return "\n".join(lines) + "\n"


def _scaling_cells(row: dict[str, Any], chips: int) -> tuple[str, ...]:
    name, *_ = PEAKS[row["chip"]]
    seconds, sent = bound(row), 2 * (chips - 1) / chips * 4 * row["weights"]
    exchange = sent / LINKS[name]
    rate = chips * row["batch"] / (seconds + exchange)
    return (
        name,
        f"{chips}",
        f"{chips * row['batch']:,}",
        f"{1000 * seconds:.1f}",
        f"{sent / 1e6:.0f}",
        f"{1000 * exchange:.2f}",
        f"{100 * seconds / (seconds + exchange):.1f} %",
        f"{rate:,.0f}",
        f"{rate * min(CHIPS_OF_A_HOST, chips) / chips:,.0f}",
    )


def bound(row: dict[str, Any]) -> float:
    """Return the least time of a step, in seconds (Williams et al., Roofline, 2009)."""
    _, flops, bandwidth = PEAKS[row["chip"]]
    return max(row["flops"] / flops, row["bytes_accessed"] / bandwidth)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    name, batch, seconds = PEAKS[row["chip"]][0], row["batch"], bound(row)
    case = next(each for each in tpu_cases.MEASURED if each.name == row["case"])
    config = load_config(case.recipe, case.settings)
    size = size_in_epoch(config, 0) or config.data.image_size
    return (
        f"{config.model.name}, {case.recipe}, {size}x{size}",
        name,
        f"{batch:,}",
        f"{row['temporaries'] / 2**30:.2f}",
        f"{row['arguments'] / 2**30:.2f}",
        f"{row['flops'] / batch / 1e9:.1f}",
        f"{row['bytes_accessed'] / batch / 1e6:.0f}",
        f"{1000 * seconds:.0f}",
        f"{batch / seconds:,.0f}",
    )
