"""The model card of an export: what it is, what it was trained on, how good and how fast it is, how to load it.

After Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from collections.abc import Iterator
from typing import Any

_MOST_LABELS = 20

_SIX_LINES = {
    "serving": """Python, with TensorFlow alone:

```python
import tensorflow as tf

model = tf.saved_model.load(".")
with open("cat.jpg", "rb") as file:
    answer = model.signatures["{signature}"](image_bytes=tf.constant([file.read()]))
print(answer["top_labels"][0].numpy(), answer["top_scores"][0].numpy())
```

TensorFlow Serving, REST; the directory above this one is the server's `MODEL_BASE_PATH/NAME`:

```sh
curl -d "{{\\"instances\\": [{{\\"b64\\": \\"$(base64 -w0 cat.jpg)\\"}}]}}" \\
    http://127.0.0.1:8501/v1/models/NAME:predict
```
""",
    "serving of signals": """Python, with TensorFlow alone:

```python
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(".")
signal = tf.constant(np.load("signal.npy").reshape([1, {shape}]), tf.float32)
print(model.signatures["{signature}"](signals=signal)["top_labels"][0].numpy())
```

TensorFlow Serving, REST; the directory above this one is the server's `MODEL_BASE_PATH/NAME`:

```sh
python -c 'import json, numpy
print(json.dumps({{"instances": numpy.load("signal.npy").reshape([1, {shape}]).tolist()}}))' |
    curl -d @- http://127.0.0.1:8501/v1/models/NAME:predict
```
""",
    "hub": """TF Hub, to be fine-tuned (`pip install tensorflow-hub tf_keras`):

```python
import tensorflow_hub as hub
import tf_keras

layer = hub.KerasLayer(".", trainable=True)  # {given}
model = tf_keras.Sequential([layer])
model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
```
""",
    "litert": """LiteRT (`pip install ai-edge-litert`):

```python
import numpy as np
from ai_edge_litert.interpreter import Interpreter

run = Interpreter("model.tflite").get_signature_runner()
inputs = np.zeros([1, {shape}], np.float32)  # {range}
print(run({name}=inputs)["logits"])
```
""",
    "keras": """Keras (`pip install resnet_tf`, for its layers):

```python
import keras
import resnet_tf.model

model = keras.saving.load_model("model.keras")
print(model.output_shape)  # {given}
```
""",
    "onnx": """ONNX Runtime (`pip install onnxruntime`):

```python
import numpy as np
from onnxruntime import InferenceSession

session = InferenceSession("model.onnx")
inputs = np.zeros([1, {shape}], np.float32)  # {range}
print(session.run(["logits"], {{"{name}": inputs}})[0])
```
""",
}
_SIX_LINES["hub_features"] = _SIX_LINES["hub"].replace(
    "model = tf_keras.Sequential([layer])", "model = tf_keras.Sequential([layer, tf_keras.layers.Dense(3)])"
)
_PACKAGE = """Python, with this package, whatever the kind of export:

```python
import resnet_tf

predictor = resnet_tf.Predictor(".")
print(predictor(["{file}"])[0].labels)
```
"""


def model_card(metadata: dict[str, Any], *, bytes_signature: str) -> str:
    """The card in Markdown.

    Args:
        metadata: what lies in the export's `assets.extra/resnet_tf.json`.
        bytes_signature: the signature that takes encoded pictures, of a SavedModel that has one.
    """
    sections = {
        f"# {metadata['model']}": _summary(metadata),
        "## Input": _input(metadata["preprocess"]),
        "## Answers": _labels(metadata["labels"]),
        "## Figures": "\n".join(_figures(metadata)),
        "## How to load it": _loading(metadata, bytes_signature),
        "## Limits": "\n".join(_limits(metadata)),
    }
    return "\n\n".join(f"{title}\n\n{text.strip()}" for title, text in sections.items() if text) + "\n"


def _summary(metadata: dict[str, Any]) -> str:
    target, precision = metadata["target"].replace("_", " "), metadata["precision"]
    kind = "signals" if _is_of_signals(metadata) else "pictures"
    lines = [f"A residual network of {metadata['parameters']:,} parameters for {kind}, exported for {target} in"]
    lines[0] += f" {precision} by resnet_tf {metadata['versions']['resnet_tf']}."
    if config := metadata.get("config"):
        data, train, model = config["data"], config["train"], config["model"]
        start = f"from {model['weights']!r}" if model["weights"] else "from a random start"
        lines.append(
            f"Trained on split {data['train_split']!r} of {data['source']!r}, {start}: the weights after "
            f"{metadata['step']:,} steps of {data['batch_size']} {kind}, in a run of {train['epochs']} epochs. "
            "`assets.extra/resnet_tf.json` has the whole configuration."
        )
    return "\n".join(lines)


def _is_of_signals(metadata: dict[str, Any]) -> bool:
    return len(metadata["preprocess"]["size"]) == 1


def _input(spec: dict[str, Any]) -> str:
    normalized = f"minus {_numbers(spec['mean'])}, divided by {_numbers(spec['std'])}"
    if len(spec["size"]) == 1:
        return f"A signal of {spec['size'][0]:,} samples in {spec['channels']} channel(s), {normalized}."
    height, width = spec["size"]
    color = "grey" if spec["channels"] == 1 else spec["channel_order"].upper()
    upright = ", turned upright by its EXIF data," if spec["exif_orientation"] else ""
    return (
        f"A picture of any size{upright} is resized ({spec['interpolation']}) until its middle of {height}x{width} "
        f"pixels holds {spec['crop_fraction']:.4g} of its shorter side, and cut to that. The network takes {color}: "
        f"values in [0, 1], {normalized}."
    )


def _labels(labels: list[str]) -> str:
    if not labels:
        return "Pooled features, float32; there is no class head."
    more = (
        f" and {len(labels) - _MOST_LABELS:,} more, in `assets.extra/labels.txt`" if len(labels) > _MOST_LABELS else ""
    )
    return f"{len(labels):,} classes: {', '.join(labels[:_MOST_LABELS])}{more}."


def _figures(metadata: dict[str, Any]) -> Iterator[str]:
    if figures := metadata.get("metrics"):
        split = metadata["config"]["data"]["eval_split"]
        yield f"On the {figures['examples']:,} examples of split {split!r}, the network in float32:\n"
        yield "| top-1 | top-5 | mean recall of the classes | loss (nats) | calibration error |\n|---|---|---|---|---|"
        names = ("top1", "top5", "balanced_accuracy", "loss", "calibration_error")
        yield f"| {' | '.join(f'{figures[name]:.4f}' for name in names)} |\n"
    if drift := metadata.get("drift"):
        accuracy = ""
        if drift["top1_before"] is not None:
            accuracy = f"; top-1 there {drift['top1_before']:.4f} before and {drift['top1_after']:.4f} after"
        yield (
            f"This export answers {drift['same_top1']:,} of {drift['examples']:,} examples ({drift['data']}) as the "
            f"network does; its logits differ by {drift['logits']:.2%} of their spread{accuracy}.\n"
        )
    if speed := metadata.get("speed"):
        yield (
            f"One example takes {speed['milliseconds']:.3g} ms from numbers to logits; in batches of {speed['batch']}, "
            f"{speed['images_per_second']:,.0f} are answered a second (medians on {speed['cores']} core(s), "
            f"{speed['processor']})."
        )


def _loading(metadata: dict[str, Any], bytes_signature: str) -> str:
    target, size, channels = metadata["target"], metadata["preprocess"]["size"], metadata["preprocess"]["channels"]
    if _is_of_signals(metadata):
        words = {"name": "signals", "file": "signal.npy", "axes": "L", "range": "samples"}
        target = "serving of signals" if target == "serving" else target
    else:
        words, channels = {"name": "images", "file": "cat.jpg", "axes": "H, W", "range": "RGB in [0, 1]"}, 3
    given = f"float32 [B, {words['axes']}, {channels}], {words['range']}, of any size"
    if target == "keras":
        given = f"normalised float32 [B, {words['axes']}, C] in, logits out"
    words |= {"signature": bytes_signature, "given": given, "shape": ", ".join(map(str, (*size, channels)))}
    own = "" if target == "hub_features" else _PACKAGE
    return f"From the directory of this file. {_SIX_LINES[target].format(**words)}\n{own.format(**words)}"


def _limits(metadata: dict[str, Any]) -> Iterator[str]:
    if metadata["labels"]:
        yield "- It names one of its classes whatever it is given, also where that is none of them."
    if metadata.get("config"):
        sources = "sensors" if _is_of_signals(metadata) else "cameras or places"
        yield f"- The figures hold for examples like those that it was tested on, not for other {sources}."
    else:
        yield "- What it was trained on is not known to this package."
    if metadata["target"] != "keras" and not _is_of_signals(metadata):
        yield "- Pixels are in [0, 1]: a graph cannot tell them from ones in [0, 255], and answers those wrongly."
    if metadata["precision"] == "bfloat16":
        yield "- It is fast only where the processor computes in bfloat16 (AVX-512 BF16, AMX), and slow elsewhere."


def _numbers(values: list[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
