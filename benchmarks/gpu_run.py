"""Second half of benchmarks/gpu.py: compare the compiled steps with the reference, and time them against PyTorch."""

import importlib.metadata
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gpu_cases import (
    TOLERANCES,
    Case,
    Variable,
    batch,
    differences,
    initial_values,
    load_expected,
    load_variables,
    run,
)
from gpu_program import Program

OURS = "ours"


@dataclass(frozen=True)
class Step:
    """A compiled case, its variables, and the reference values."""

    case: Case
    program: Program
    variables: tuple[Variable, ...]
    expected: dict[str, np.ndarray]


def load(case: Case, directory: Path) -> Step:
    """Load the files of a case and compile its step."""
    variables = load_variables(case, directory)
    program = Program(directory / f"{case.name}.hlo", len(variables))
    _log(f"{case.title}: compiled for {program.device} in {program.seconds:.0f} s")
    return Step(case, program, variables, load_expected(case, directory))


def check(step: Step) -> dict[str, Any]:
    """Return the differences from the reference by quantity, and `passed`: all are within the tolerances."""
    program, case = step.program, step.case

    def on_device(values, images, labels):
        return program(program.put(values), *program.put([images, labels]))

    found = run(on_device, step.variables, case).sampled()
    compared = differences(found, step.expected, step.variables)
    passed = True
    for quantity, (largest, median_) in TOLERANCES[case.precision].items():
        row = compared[quantity]
        within = row["relative"] <= largest and row["median"] <= median_
        passed &= within
        _log(
            f"{case.title}, {quantity}: largest difference {row['absolute']:.2g}, relative {row['relative']:.2g} (at "
            f"most {largest:g}), median {row['median']:.2g} (at most {median_:g}): {'passed' if within else 'FAILED'}"
        )
    return {"passed": passed, "differences": compared}


def time_against(step: Step, peers: Sequence[str], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return images per second of this step and of each PyTorch mode, one value per round; turns alternate."""
    import gpu_torch  # compilation and check need no PyTorch

    arrays = batch(step.case)
    turns = {OURS: _our_turn(step, *arrays)}
    turns |= {f"PyTorch {mode}": _torch_turn(gpu_torch.timed_step(step.case, *arrays, mode)) for mode in peers}
    counts = {}
    for name, turn in turns.items():
        turn(10)  # compile and warm up
        counts[name] = max(3, round(seconds * 10 / turn(10)))
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        names = list(turns) if number % 2 == 0 else list(turns)[::-1]
        for name in names:
            rates[name].append(counts[name] * step.case.batch / turns[name](counts[name]))
    for name, values in rates.items():
        _log(f"{step.case.title}, {name}: {', '.join(f'{each:,.0f}' for each in values)} images/s")
    return rates


def report(step: Step, checks: dict[str, Any], rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return one row per peer: medians over the rounds, and the checks of the same network."""
    case = step.case
    common = {
        "device": step.program.device,
        "batch": case.batch,
        "versions": _versions(),
        "compile_seconds": round(step.program.seconds, 1),
        "checks": {name: each for name, each in checks.items() if name.startswith(case.network)},
    }
    rows = []
    for peer, values in rates.items():
        if peer == OURS:
            continue
        ratios = [a / b for a, b in zip(rates[OURS], values, strict=True)]
        row = {"case": f"{case.title} {OURS}", "images_per_second": median(rates[OURS])}
        row |= {"ratio_to": f"{case.title} {peer}", "ratio": median(ratios)}
        rows.append(
            row | {"least": min(ratios), "most": max(ratios), "peer_images_per_second": median(values)} | common
        )
    return rows


def _our_turn(step: Step, *arrays: np.ndarray) -> Callable[[int], float]:
    """Return a function that runs `count` consecutive steps and returns the seconds."""
    program = step.program
    values = program.put(initial_values(step.variables))
    images, labels = program.put(arrays)

    def turn(count: int) -> float:
        nonlocal values
        start = time.perf_counter()
        for _ in range(count):
            values, loss = program(values, images, labels)
        _require_finite(float(loss), OURS)  # waits for the device
        return time.perf_counter() - start

    return turn


def _torch_turn(step: Callable[[], Any]) -> Callable[[int], float]:
    def turn(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            loss = step()
        _require_finite(loss.item(), "PyTorch")  # waits for the device
        return time.perf_counter() - start

    return turn


def _require_finite(loss: float, name: str) -> None:
    if not np.isfinite(loss):
        raise SystemExit(f"the loss of {name} is {loss}; its speed is meaningless")


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch", "torchvision")}


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
