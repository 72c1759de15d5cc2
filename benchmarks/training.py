"""Measure training steps: ours, stock Keras layers, PyTorch; interleaved rounds, medians.

    pip install '.[bench]' && python benchmarks/training.py --case=resnet50 --case=resnet20

A step is the forward and backward pass and SGD with momentum, on one batch of random images in memory. Each case runs
in its own process, one at a time; those of TensorFlow use oneDNN, which TensorFlow leaves off by default on processors
without AVX-512 VNNI. `--json` prints one object per line: `case`, `images_per_second`, `ratio_to` (the
peer's case) and `ratio`.
"""

import argparse
import json
import sys
import time
from statistics import median

from rounds import Rates, measure, measured_pairs, ratios

# case -> (image size, batch size, classes)
SHAPES = {"resnet50": (224, 32, 1000), "resnet20": (32, 128, 10)}
RUNNERS = {
    "ours float32": ("ours", "float32"),
    "ours bfloat16": ("ours", "mixed_bfloat16"),
    "ours float32 without oneDNN": ("ours", "float32"),
    "stock Keras float32": ("keras", "float32"),
    "stock Keras bfloat16": ("keras", "mixed_bfloat16"),
    "PyTorch float32": ("torch", "float32"),
    "PyTorch bfloat16": ("torch", "mixed_bfloat16"),
    "torch.compile float32": ("torch.compile", "float32"),
    "torch.compile bfloat16": ("torch.compile", "mixed_bfloat16"),
}
TORCH = {"torch", "torch.compile"}
RATIOS = [
    ("ours float32", "ours float32 without oneDNN"),
    ("ours float32", "stock Keras float32"),
    ("ours bfloat16", "stock Keras float32"),
    ("ours bfloat16", "stock Keras bfloat16"),
    ("ours float32", "PyTorch float32"),
    ("ours bfloat16", "PyTorch bfloat16"),
    ("ours float32", "torch.compile float32"),
    ("ours bfloat16", "torch.compile bfloat16"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=SHAPES, help="repeatable; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds per case and round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--torch-python", default=sys.executable, help="Python interpreter with torch and torchvision")
    parser.add_argument("--turn", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        print(_turn(*arguments.turn, arguments.seconds))
        return
    for case in arguments.case or SHAPES:
        print(f"{case}:", file=sys.stderr)
        _report(case, measure(_commands(case, arguments), arguments.rounds), arguments.json)


def _commands(case: str, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each runner for one turn."""
    flags = ["--seconds", str(arguments.seconds), "--turn", case]
    return {
        name: [
            *(["env", "TF_ENABLE_ONEDNN_OPTS=0"] if "without oneDNN" in name else []),
            arguments.torch_python if framework in TORCH else sys.executable,
            __file__,
            *flags,
            framework,
            precision,
        ]
        for name, (framework, precision) in RUNNERS.items()
    }


def _report(case: str, rates: Rates, as_json: bool) -> None:
    if not as_json:
        print(f"\n| {case}: {SHAPES[case][0]} pixels, batch {SHAPES[case][1]} | images/s |\n|---|---|")
        for name, values in rates.items():
            print(f"| {name} | {median(values):.1f} |")
        print("\n| ratio | median | least | most |\n|---|---|---|---|")
    for ours, peer in measured_pairs(rates, RATIOS):
        values = ratios(rates, ours, peer)
        if as_json:
            row = {"case": f"{case} {ours}", "images_per_second": median(rates[ours])}
            print(json.dumps(row | {"ratio_to": f"{case} {peer}", "ratio": median(values)}))
        else:
            print(f"| {ours} / {peer} | **{median(values):.2f}** | {min(values):.2f} | {max(values):.2f} |")


def _turn(case: str, framework: str, precision: str, seconds: float) -> float:
    """Return images per second of one framework, after two steps of compilation and warmup."""
    step = (_torch_step if framework in TORCH else _keras_step)(case, framework, precision)
    for _ in range(2):
        step()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return count * SHAPES[case][1] / (time.perf_counter() - start)


def _keras_step(case: str, framework: str, precision: str):
    """Return a compiled step of this package's network, with this package's BatchNormalization or that of Keras."""
    import keras
    import tensorflow as tf

    import resnet_tf
    from resnet_tf.model import blocks

    if framework == "keras":
        blocks.BatchNormalization = keras.layers.BatchNormalization
    size, batch, classes = SHAPES[case]
    keras.config.set_dtype_policy(precision)
    model = resnet_tf.create_model(case, num_classes=classes, input_shape=(size, size, 3))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    images = tf.random.normal([batch, size, size, 3])
    labels = tf.random.uniform([batch], 0, classes, tf.int64)
    values = [variable.value for variable in model.trainable_variables]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply_gradients(zip(tape.gradient(loss, values), model.trainable_variables, strict=True))
        return loss

    return lambda: step().numpy()


def _torch_step(case: str, framework: str, precision: str):
    """Return a PyTorch step in channels_last: eager, or with the network and its loss compiled."""
    import torch

    size, batch, classes = SHAPES[case]
    model = _torch_network(case).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (batch,))

    def forward():
        return torch.nn.functional.cross_entropy(model(images), labels)

    if framework == "torch.compile":
        forward = torch.compile(forward)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
            loss = forward()
        optimizer.zero_grad()  # after the forward pass: before it, steps of ResNet-20 take 14 % longer
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _torch_network(case: str):
    import torch

    if case == "resnet50":
        from peers import import_torchvision

        return import_torchvision().models.resnet50()
    from pytorch_cifar10 import resnet20

    torch.manual_seed(0)
    return resnet20()


if __name__ == "__main__":
    main()
