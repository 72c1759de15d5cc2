"""The model card of an export: what it is, what it was trained on, how good and how fast it is, how to load it.

After Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from resnet_tf.inputs import Preprocess

_MOST_LABELS = 20

_SIX_LINES = {
    "serving": """Python, with TensorFlow alone:

```python
import tensorflow as tf

model = tf.saved_model.load(".")
with open("{file}", "rb") as file:
    answer = model.signatures["{signature}"]({argument}=tf.constant([file.read()]))
print(answer["top_labels"][0].numpy(), answer["top_scores"][0].numpy())
```

TensorFlow Serving, REST; the directory above this one is the server's `MODEL_BASE_PATH/NAME`:

```sh
curl -d "{{\\"instances\\": [{{\\"b64\\": \\"$(base64 -w0 {file})\\"}}]}}" \\
    http://127.0.0.1:8501/v1/models/NAME:predict
```
""",
    "serving of arrays": """Python, with TensorFlow alone:

```python
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(".")
{noun} = tf.constant(np.load("{file}").reshape([1, {shape}]), tf.float32)
print(model.signatures["{signature}"]({name}={noun})["top_labels"][0].numpy())
```

TensorFlow Serving, REST; the directory above this one is the server's `MODEL_BASE_PATH/NAME`:

```sh
python -c 'import json, numpy
print(json.dumps({{"instances": numpy.load("{file}").reshape([1, {shape}]).tolist()}}))' |
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
import resnet_tf

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


def model_card(metadata: Mapping[str, Any], *, signature: str) -> str:
    """The card in Markdown.

    Args:
        metadata: what lies in the export's `assets.extra/resnet_tf.json`.
        signature: the signature of the first of `Preprocess.serving_inputs`, of a SavedModel.
    """
    preprocess = Preprocess.from_dict(metadata["preprocess"])
    sections = {
        f"# {metadata['model']}": _summary(metadata, preprocess),
        "## Input": preprocess.description,
        "## Answers": _labels(metadata["labels"]),
        "## Figures": "\n".join(_figures(metadata)),
        "## How to load it": _loading(metadata, preprocess, signature),
        "## Limits": "\n".join(_limits(metadata, preprocess)),
    }
    return "\n\n".join(f"{title}\n\n{text.strip()}" for title, text in sections.items() if text) + "\n"


def _summary(metadata: Mapping[str, Any], preprocess: Preprocess) -> str:
    target, precision = metadata["target"].replace("_", " "), metadata["precision"]
    kind, release = preprocess.plural, metadata["versions"]["resnet_tf"]
    lines = [
        f"A residual network of {metadata['parameters']:,} parameters for {kind}, exported for {target} in {precision} "
        f"by resnet_tf {release}."
    ]
    if config := metadata.get("config"):
        data, train, model = config["data"], config["train"], config["model"]
        start = f"from {model['weights']!r}" if model["weights"] else "from a random start"
        lines.append(
            f"Trained on split {data['train_split']!r} of {data['source']!r}, {start}: the weights after "
            f"{metadata['step']:,} steps of {data['batch_size']} {kind}, in a run of {train['epochs']} epochs. "
            "`assets.extra/resnet_tf.json` has the whole configuration."
        )
    return "\n".join(lines)


def _labels(labels: list[str]) -> str:
    if not labels:
        return "Pooled features, float32; there is no class head."
    more = (
        f" and {len(labels) - _MOST_LABELS:,} more, in `assets.extra/labels.txt`" if len(labels) > _MOST_LABELS else ""
    )
    return f"{len(labels):,} classes: {', '.join(labels[:_MOST_LABELS])}{more}."


def _figures(metadata: Mapping[str, Any]) -> Iterator[str]:
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


def _loading(metadata: Mapping[str, Any], preprocess: Preprocess, signature: str) -> str:
    target, (*sizes, channels) = metadata["target"], preprocess.unnormalized_shape
    first, *_ = preprocess.serving_inputs()
    given = f"float32 [B, {preprocess.axes}, {channels}], {preprocess.value_range}, of any size"
    if target == "keras":
        given = f"normalized float32 [B, {preprocess.axes}, C] in, logits out"
    words = {
        "argument": first.name,
        "name": preprocess.unnormalized_input.name,
        "noun": preprocess.noun,
        "file": preprocess.example_file,
        "range": preprocess.value_range,
        "signature": signature,
        "given": given,
        "shape": ", ".join(map(str, (*sizes, channels))),
    }
    if target == "serving" and first.dtype != tf.string:
        target = "serving of arrays"
    own = "" if target == "hub_features" else _PACKAGE
    return f"From the directory of this file. {_SIX_LINES[target].format(**words)}\n{own.format(**words)}"


def _limits(metadata: Mapping[str, Any], preprocess: Preprocess) -> Iterator[str]:
    if metadata["labels"]:
        yield "- It names one of its classes whatever it is given, also where that is none of them."
    if metadata.get("config"):
        yield f"- The figures hold for examples like those that it was tested on, not for other {preprocess.origins}."
    else:
        yield "- What it was trained on is not known to this package."
    if metadata["target"] != "keras":
        yield from (f"- {limit}" for limit in preprocess.limits)
    if metadata["precision"] == "bfloat16":
        yield "- It is fast only where the processor computes in bfloat16 (AVX-512 BF16, AMX), and slow elsewhere."
