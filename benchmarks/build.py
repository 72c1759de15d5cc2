"""Measure the time to build a network, here and in keras.applications; interleaved rounds, medians.

    python benchmarks/build.py

`--json` prints one object per line: `case`, `milliseconds`, `ratio_to` (the network of keras.applications) and `ratio`.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import keras

import resnet_tf

# Name of a network here -> its name in keras.applications.
PAIRS = {"resnet50": "ResNet50", "resnet152": "ResNet152", "resnet152_v2": "ResNet152V2"}
WITHOUT_PEER = ("resnet1001_v2",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    # Imports and the first call are not measured.
    resnet_tf.create_model("resnet20", num_classes=10, input_shape=(32, 32, 3))
    for ours, theirs in PAIRS.items():
        times: dict[str, list[float]] = {ours: [], theirs: []}
        for _ in range(arguments.rounds):
            times[ours].append(_seconds(lambda name=ours: resnet_tf.create_model(name)))
            application = getattr(keras.applications, theirs)
            times[theirs].append(_seconds(lambda build=application: build(weights=None)))
        ratio = median(a / b for a, b in zip(times[ours], times[theirs], strict=True))
        row = {"case": ours, "milliseconds": 1000 * median(times[ours]), "ratio_to": theirs, "ratio": ratio}
        text = (
            f"{ours} {median(times[ours]):.2f} s, keras.applications {median(times[theirs]):.2f} s, ratio {ratio:.2f}"
        )
        print(json.dumps(row) if arguments.json else text, flush=True)
    for name in WITHOUT_PEER:
        seconds = _seconds(lambda name=name: resnet_tf.create_model(name, num_classes=10, input_shape=(32, 32, 3)))
        print(
            json.dumps({"case": name, "milliseconds": 1000 * seconds}) if arguments.json else f"{name} {seconds:.2f} s"
        )


def _seconds(build: Callable) -> float:
    keras.backend.clear_session()
    start = time.perf_counter()
    build()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
