"""Interleaved measurement of programs: one process per case and round, medians over the rounds."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

Rates = dict[str, list[float]]


def measure(commands: Mapping[str, Sequence[str]], rounds: int) -> Rates:
    """Run each command once per round, one process at a time, and log the results to stderr.

    Args:
        commands: case -> command whose last line on stdout is a number of images per second.
        rounds: number of rounds.

    Returns:
        Images per second of each case, one value per round, without cases in bfloat16 on a processor without
        instructions for it, where they would take minutes.
    """
    rates: Rates = {case: [] for case in without_emulated(commands)}
    for _ in range(rounds):
        for case in rates:
            command = commands[case]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            rates[case].append(float(output.stdout.splitlines()[-1]))
            print(f"{case}: {rates[case][-1]:.1f} images/s", file=sys.stderr)
    return rates


def without_emulated(cases: Iterable[str]) -> list[str]:
    """Return the cases without those in bfloat16 if the processor has no instructions for it, and name these.

    The import of `resnet_tf` turns oneDNN on for TensorFlow in the processes of the cases, also in those of peers.
    """
    from resnet_tf.core.machine import bfloat16_flags  # not in a turn of another Python interpreter

    emulated = [case for case in cases if "bfloat16" in case and not bfloat16_flags()]
    if emulated:
        print(f"the processor has no bfloat16 instructions; not measured: {', '.join(emulated)}", file=sys.stderr)
    return [case for case in cases if case not in emulated]


def ratios(rates: Rates, case: str, peer: str) -> list[float]:
    """Return the speed of `case` relative to `peer` in each round."""
    return [a / b for a, b in zip(rates[case], rates[peer], strict=True)]


def measured_pairs(rates: Rates, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs (case, peer) of which both were measured."""
    return [pair for pair in pairs if set(pair) <= rates.keys()]


def report(rates: Rates, pairs: Iterable[tuple[str, str]], *, as_json: bool) -> None:
    """Print the median images per second of each case, and the median ratio of each pair (case, peer).

    As JSON, one object per pair; a case that is compared with no peer has an object without `ratio_to` and `ratio`.
    """
    compared = measured_pairs(rates, pairs)
    speeds = {case: round(median(values), 1) for case, values in rates.items()}
    for case, speed in speeds.items():
        if not as_json:
            print(f"{case}: {speed} images/s")
        elif case not in dict(compared):
            print(json.dumps({"case": case, "images_per_second": speed}))
    for case, peer in compared:
        values = ratios(rates, case, peer)
        row = {"case": case, "images_per_second": speeds[case], "ratio_to": peer, "ratio": round(median(values), 3)}
        text = f"{case} against {peer}: {row['ratio']:.2f} ({min(values):.2f} to {max(values):.2f})"
        print(json.dumps(row) if as_json else text)
