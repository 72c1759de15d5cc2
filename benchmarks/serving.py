"""Measure exported models: ours, Keras's export, torch.compile, onnxruntime, OpenVINO; interleaved rounds, medians.

    pip install '.[bench]' && python benchmarks/serving.py

ResNet-50 at 224 pixels, float32 images to logits, batches of 1, 8 and 32. Normalization is part of our exports and of
the ONNX file; Keras and PyTorch receive normalized images. Each case is a process that keeps its model loaded and runs
for a short time on request; the cases alternate. "Keras export" is `model.export` of the same network with stock
layers; "torch.compile" runs in channels_last with freezing, and with autocast for bfloat16; onnxruntime and OpenVINO
run our ONNX file, OpenVINO with its precision hint, or in int8 after NNCF's post-training quantization of that file.
Prints the time of each export, the time to load an export and make a prediction in a new process that imported
TensorFlow, and the milliseconds per batch. `--json` prints one object per line: `case`, `milliseconds`, and for batches
`batch`, `ratio_to` and `ratio` (how many times faster). Without `--json`, the Markdown table of docs/benchmarks.md
follows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from rounds import without_emulated

BATCHES = (1, 8, 32)
SECONDS = 1.5  # per case, batch size and round
SIZE = 224
OURS = ("ours float32", "ours bfloat16", "ours int8", "ours openvino bfloat16", "ours openvino int8")
PEERS = (
    *("Keras export", "torch.compile float32", "torch.compile bfloat16", "onnxruntime float32"),
    *("OpenVINO float32", "OpenVINO bfloat16", "OpenVINO int8"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--torch-python", default=sys.executable, help="Python interpreter with torch and torchvision")
    parser.add_argument("--only", nargs="*", default=[*OURS, *PEERS], help="cases to measure; all by default")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(SERVERS[arguments.serve], arguments.folder)
        return
    arguments.only = without_emulated(arguments.only)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("export", *(each for each in SERVERS if each.startswith("first prediction"))):
            if name == "export" or name.removeprefix("first prediction of ") in arguments.only:
                for row in _ask(name, folder, arguments):
                    text = f"{row['case']}: {row['milliseconds'] / 1000:.2f} s"
                    print(json.dumps(row) if arguments.json else text, flush=True)
        _report(_measure(folder, arguments), as_json=arguments.json)


def _measure(folder: Path, arguments: argparse.Namespace) -> dict[tuple[str, int], list[float]]:
    """Return milliseconds per batch by case and batch size, one value per round."""
    servers = {name: _start(name, folder, arguments) for name in arguments.only}
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(arguments.rounds + 1):
        for batch in BATCHES:
            for name, server in servers.items():
                milliseconds = float(_request(server, str(batch)))
                if number:  # the first round is a warmup
                    times.setdefault((name, batch), []).append(milliseconds)
    for server in servers.values():
        server.communicate()
    return times


def _report(times: dict[tuple[str, int], list[float]], *, as_json: bool) -> None:
    """Print the median milliseconds of each case and batch size, and the median ratio to each peer.

    As JSON, one object per pair; a case that is compared with no peer has an object without `ratio_to` and `ratio`.
    """
    for (name, batch), values in times.items():
        row = {"case": name, "batch": batch, "milliseconds": round(median(values), 2)}
        peers = [peer for peer in PEERS if name in OURS and (peer, batch) in times]
        if not as_json:
            print(f"{name}, batch {batch}: {row['milliseconds']} ms")
        elif not peers:
            print(json.dumps(row))
        for peer in peers:
            ratios = [b / a for a, b in zip(values, times[peer, batch], strict=True)]
            ratio = round(median(ratios), 3)
            text = f"{name} against {peer}, batch {batch}: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(json.dumps(row | {"ratio_to": peer, "ratio": ratio}) if as_json else text)
    if not as_json:
        _print_table(times)


def _print_table(times: dict[tuple[str, int], list[float]]) -> None:
    """Print Markdown: milliseconds per batch, and how many times faster than Keras's export, medians of the rounds."""
    names, reference = list(dict.fromkeys(name for name, _ in times)), PEERS[0]
    print("\n| milliseconds a batch of |", " | ".join(map(str, BATCHES)), "|\n|---|" + "---|" * len(BATCHES))
    for name in names:
        cells = []
        for batch in BATCHES:
            own, peer = times[name, batch], times.get((reference, batch))
            ratio = f" ({median(b / a for a, b in zip(own, peer, strict=True)):.2f}x)" if peer else ""
            cells.append(f"{median(own):.4g}{ratio}")
        print(f"| {name} |", " | ".join(cells), "|")


def _start(name: str, folder: Path, arguments: argparse.Namespace) -> subprocess.Popen:
    python = arguments.torch_python if "torch" in name else sys.executable
    command = [python, __file__, "--serve", name, "--folder", str(folder)]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    _read(server)  # waits until the model is loaded
    return server


def _request(server: subprocess.Popen, request: str) -> str:
    assert server.stdin
    server.stdin.write(request + "\n")
    server.stdin.flush()
    return _read(server)


def _read(server: subprocess.Popen) -> str:
    """Return the next line that starts with '> '; libraries may print other lines."""
    assert server.stdout
    for line in server.stdout:
        if line.startswith("> "):
            return line[2:].strip()
    raise SystemExit(f"{server.args} ended with exit code {server.wait()}")


def _ask(name: str, folder: Path, arguments: argparse.Namespace) -> list[dict]:
    server = _start(name, folder, arguments)
    rows = json.loads(_request(server, "0"))
    server.communicate()
    return rows


Predict = Callable[[np.ndarray], np.ndarray]


def _serve(prepare: Callable[[Path], Predict | list[dict]], folder: Path) -> None:
    """For each batch size on standard input, print the milliseconds per batch; or print the rows of a finished task."""
    prepared = prepare(folder)
    print("> ready", flush=True)
    for line in sys.stdin:
        if isinstance(prepared, list):
            print("> " + json.dumps(prepared), flush=True)
            continue
        images = np.random.default_rng(0).uniform(size=(int(line), SIZE, SIZE, 3)).astype("float32")
        prepared(images)
        times, end = [], time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            prepared(images)
            times.append(time.perf_counter() - start)
        print(f"> {1000 * median(times)}", flush=True)


def _network():
    """Create ResNet-50 with random BatchNorm parameters and statistics.

    TensorFlow removes a bias of zeros, and then cannot fuse a convolution with the operations that follow it.
    """
    import keras

    import resnet_tf

    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    model = resnet_tf.create_model("resnet50")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            channels = layer.gamma.shape
            for variable, values in (
                (layer.gamma, generator.uniform(0.5, 1.5, channels)),
                (layer.beta, generator.normal(0.0, 0.1, channels)),
                (layer.moving_mean, generator.normal(0.0, 0.1, channels)),
                (layer.moving_variance, generator.uniform(0.5, 1.5, channels)),
            ):
                variable.assign(values)
    return model


def _export(folder: Path) -> list[dict]:
    """Write the exports of all cases, and return the milliseconds of each export."""
    import keras

    from resnet_tf.config import DataConfig
    from resnet_tf.inputs import ImagePreprocess
    from resnet_tf.model import blocks
    from resnet_tf.serving.export import export_model

    noise = np.random.default_rng(0).integers(0, 256, (64, SIZE, SIZE, 3), np.uint8)
    labels = np.arange(64) % 2
    np.savez(folder / "noise.npz", x_train=noise, y_train=labels, x_test=noise, y_test=labels)
    model, rows = _network(), []
    exports = {
        "float32": ("serving", "float32"),
        "bfloat16": ("serving", "bfloat16"),
        "int8": ("litert", "int8"),
        "onnx": ("onnx", "float32"),
        "openvino bfloat16": ("openvino", "bfloat16"),
        "openvino int8": ("openvino", "int8"),
    }
    for name in without_emulated(exports):
        target, precision = exports[name]
        data = DataConfig(source=str(folder / "noise.npz"), image_size=SIZE) if precision == "int8" else None
        start = time.perf_counter()
        path = export_model(
            model,
            folder / name,
            target=target,
            precision=precision,
            preprocess=ImagePreprocess(size=(SIZE, SIZE)),
            labels=[str(index) for index in range(model.output_shape[-1])],
            data=data,
        )
        rows.append({"case": f"export {name}", "milliseconds": round(1000 * (time.perf_counter() - start))})
        megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
        print(f"{name}: {megabytes:.1f} MB", file=sys.stderr)
    ours = blocks.BatchNormalization
    blocks.BatchNormalization = keras.layers.BatchNormalization
    _network().export(str(folder / "keras"), verbose=False)
    blocks.BatchNormalization = ours
    return rows


def _first_prediction(precision: str) -> Callable[[Path], list[dict]]:
    def measure(folder: Path) -> list[dict]:
        import tensorflow as tf

        from resnet_tf.serving.predictor import Predictor

        image = tf.io.encode_jpeg(np.zeros((300, 400, 3), np.uint8)).numpy()
        start = time.perf_counter()
        Predictor(folder / precision)([image])
        milliseconds = round(1000 * (time.perf_counter() - start))
        return [{"case": f"first prediction of ours {precision}", "milliseconds": milliseconds}]

    return measure


def _ours(precision: str) -> Callable[[Path], Predict]:
    def load(folder: Path) -> Predict:
        import tensorflow as tf

        model = tf.saved_model.load(str(folder / precision / "1"))
        signature = model.signatures["images"]
        # The tuple keeps a reference to the model, which owns the variables of the signature.
        return lambda images: (model, signature(images=tf.constant(images))["logits"].numpy())[1]

    return load


def _ours_int8(folder: Path) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(folder / "int8" / "1" / "model.tflite"), num_threads=os.cpu_count()).get_signature_runner()
    return lambda images: run(images=images)["logits"]


def _ours_openvino(precision: str) -> Callable[[Path], Predict]:
    def load(folder: Path) -> Predict:
        from resnet_tf.serving.predictor import Predictor

        return Predictor(folder / f"openvino {precision}").logits

    return load


def _keras_export(folder: Path) -> Predict:
    import tensorflow as tf

    model = tf.saved_model.load(str(folder / "keras"))
    return lambda images: model.serve(tf.constant(images)).numpy()


def _torch_compile(precision: str) -> Callable[[Path], Predict]:
    def load(folder: Path) -> Predict:
        import torch
        from peers import import_torchvision

        torch._inductor.config.freezing = True
        model = import_torchvision().models.resnet50().eval().to(memory_format=torch.channels_last)
        compiled = torch.compile(model)

        def predict(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                return compiled(torch.from_numpy(images).permute(0, 3, 1, 2)).float().numpy()

        for batch in BATCHES:
            predict(np.zeros((batch, SIZE, SIZE, 3), np.float32))
        return predict

    return load


def _onnx_file(folder: Path) -> str:
    (file,) = folder.rglob("model.onnx")
    return str(file)


def _onnxruntime(folder: Path) -> Predict:
    from onnxruntime import InferenceSession, SessionOptions

    session = InferenceSession(_onnx_file(folder), SessionOptions(), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def _openvino(precision: str) -> Callable[[Path], Predict]:
    def load(folder: Path) -> Predict:
        import openvino

        core = openvino.Core()
        model = core.read_model(_onnx_file(folder))
        hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if precision == "int8":
            import nncf

            del hints["INFERENCE_PRECISION_HINT"]
            images = np.load(folder / "noise.npz")["x_train"] / np.float32(255)
            model = nncf.quantize(model, nncf.Dataset([image[np.newaxis] for image in images]))
        compiled = core.compile_model(model, "CPU", hints)
        return lambda images: compiled({"images": images})[0]

    return load


SERVERS: dict[str, Callable[[Path], Predict | list[dict]]] = {
    "export": _export,
    "first prediction of ours float32": _first_prediction("float32"),
    "first prediction of ours bfloat16": _first_prediction("bfloat16"),
    "first prediction of ours int8": _first_prediction("int8"),
    "ours float32": _ours("float32"),
    "ours bfloat16": _ours("bfloat16"),
    "ours int8": _ours_int8,
    "ours openvino bfloat16": _ours_openvino("bfloat16"),
    "ours openvino int8": _ours_openvino("int8"),
    "Keras export": _keras_export,
    "torch.compile float32": _torch_compile("float32"),
    "torch.compile bfloat16": _torch_compile("bfloat16"),
    "onnxruntime float32": _onnxruntime,
    "OpenVINO float32": _openvino("f32"),
    "OpenVINO bfloat16": _openvino("bf16"),
    "OpenVINO int8": _openvino("int8"),
}

if __name__ == "__main__":
    main()
