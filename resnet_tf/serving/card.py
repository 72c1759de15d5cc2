"""Model card of an export: training data, output, metrics, speed, usage and limitations.

After Mitchell et al., Model Cards for Model Reporting, 2019.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from resnet_tf.core.calibration import UNCALIBRATED, Calibration
from resnet_tf.core.export_metadata import SAVED_MODELS
from resnet_tf.core.metrics import METRIC_TITLES
from resnet_tf.core.robustness import GROUPS, SEVERITIES, Robustness
from resnet_tf.core.text import counted, markdown, markdown_code, shortened, shows_top5
from resnet_tf.inputs import Preprocess
from resnet_tf.serving.runners import OPENVINO_HINTS

_MAX_LABELS, _MAX_LABEL = 20, 60  # labels, characters of a label

# Columns of the table of metrics, by their names in `Evaluation.to_dict`.
_METRICS = (
    *("mean_average_precision", "f1_micro", "f1_macro"),
    *("top1", "top5", "balanced_accuracy", "loss", "calibration_error"),
)

_TENSORFLOW_ALONE = """Python, with TensorFlow alone; `TF_ENABLE_ONEDNN_OPTS=1` in the environment makes it faster
on x86 processors without AVX-512 VNNI:
"""
# Usage examples by target, at most six lines of code each.
_USAGE = {
    "serving": _TENSORFLOW_ALONE
    + """
```python
import tensorflow as tf

model = tf.saved_model.load(".")
with open("{file}", "rb") as file:
    outputs = model.signatures["{signature}"]({argument}=tf.constant([file.read()]))
print(outputs["top_labels"][0].numpy(), outputs["top_scores"][0].numpy())
```

TensorFlow Serving, REST; the directory above this one is the server's `MODEL_BASE_PATH/NAME`:

```sh
curl -d "{{\\"signature_name\\": \\"{signature}\\", \\"instances\\": [{{\\"b64\\": \\"$(base64 -w0 {file})\\"}}]}}" \\
    http://127.0.0.1:8501/v1/models/NAME:predict
```
""",
    "serving of arrays": _TENSORFLOW_ALONE
    + """
```python
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(".")
{name} = tf.constant(np.load("{file}").reshape([1, {shape}]), tf.float32)
print(model.signatures["{signature}"]({name}={name})["top_labels"][0].numpy())
```

TensorFlow Serving, REST; the directory above this one is the server's `MODEL_BASE_PATH/NAME`:

```sh
python -c 'import json, numpy
print(json.dumps({{"instances": numpy.load("{file}").reshape([1, {shape}]).tolist()}}))' |
    curl -d @- http://127.0.0.1:8501/v1/models/NAME:predict
```
""",
    "hub": """Fine-tuning with TF Hub (`pip install tensorflow-hub tf_keras 'setuptools<82'`):

```python
import tensorflow_hub as hub
import tf_keras

layer = hub.KerasLayer(".", trainable=True)  # {model_input}
model = tf_keras.Sequential([layer])
model.compile("sgd", tf_keras.losses.{loss}(from_logits=True))
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
    "keras": """Keras (`pip install resnet_tf`, which registers its layers):

```python
import keras
import resnet_tf

model = keras.saving.load_model("model.keras")
with open("{file}", "rb") as file:
    inputs = model.preprocess.normalize(model.preprocess.decode_batch([file.read()]))
print(model(inputs))
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
_USAGE["openvino"] = """OpenVINO (`pip install openvino`):

```python
import numpy as np
import openvino

model = openvino.compile_model("model.xml", "CPU"{hint})
inputs = np.zeros([1, {shape}], np.float32)  # {range}
print(model({{"{name}": inputs}})["logits"])
```
"""
_USAGE["hub_features"] = _USAGE["hub"].replace(
    "model = tf_keras.Sequential([layer])", "model = tf_keras.Sequential([layer, tf_keras.layers.Dense(3)])"
)
_PACKAGE = """Python, with this package, for every export target:

```python
import resnet_tf

predictor = resnet_tf.Predictor(".")
print(predictor(["{file}"])[0].labels)
```
"""


def model_card(metadata: Mapping[str, Any], *, signature: str) -> str:
    """Return the model card in Markdown.

    Args:
        metadata: content of `assets.extra/resnet_tf.json`, see `ExportMetadata`.
        signature: name of the SavedModel signature that takes the first of `Preprocess.serving_inputs`.
    """
    preprocess = Preprocess.from_dict(metadata["preprocess"])
    sections = {
        f"# {markdown(metadata['model'])}": _summary(metadata, preprocess),
        "## Input": _input(metadata["target"], preprocess),
        "## Output": _labels(metadata["labels"], metadata.get("thresholds")),
        "## Metrics": "\n".join(_metrics(metadata)),
        "## Calibration": "\n".join(_calibration(metadata)),
        "## Robustness": "\n".join(_robustness(metadata)),
        "## Usage": _usage(metadata, preprocess, signature),
        "## Limitations": "\n".join(_limitations(metadata, preprocess)),
    }
    return "\n\n".join(f"{title}\n\n{text.strip()}" for title, text in sections.items() if text) + "\n"


def _last_part(name: str) -> str:
    """Return the last part of an absolute path, which only the machine of the training has; other names unchanged."""
    return os.path.basename(os.path.normpath(name)) if os.path.isabs(name) else name


def _summary(metadata: Mapping[str, Any], preprocess: Preprocess) -> str:
    target, precision = metadata["target"].replace("_", " "), metadata["precision"]
    plural, release = preprocess.plural, metadata["versions"]["resnet_tf"]
    lines = [
        f"A residual network of {counted(metadata['parameters'], 'parameter')} for {plural}, exported for {target} in "
        f"{precision} by resnet_tf {release}."
    ]
    if config := metadata.get("config"):
        data, train, model = config["data"], config["train"], config["model"]
        source, split = markdown_code(_last_part(data["source"])), markdown_code(data["train_split"])
        weights = markdown_code(_last_part(model["weights"]))
        stopped = f", which ended early after epoch {epoch}" if (epoch := metadata.get("stopped_epoch")) else ""
        start = f"initialized from {weights}" if model["weights"] else "randomly initialized"
        lines.append(
            f"Trained on split {split} of {source}, {start}. The weights are those after "
            f"{counted(metadata['step'], 'step')} with batch size {data['batch_size']}, in a run of "
            f"{counted(train['epochs'], 'epoch')}{stopped}. "
            "`assets.extra/resnet_tf.json` contains the complete configuration."
        )
    return "\n".join(lines)


def _input(target: str, preprocess: Preprocess) -> str:
    """Return the steps from an example to the network's input, those before the file and those inside it."""
    values, (first, *_) = preprocess.unnormalized_input.name, preprocess.serving_inputs()
    before, inside = "Before the file", "Inside the file; the caller must not normalize"
    if target == "keras":
        inside = "Also before the file"
    elif target in SAVED_MODELS and first.name != values:
        before = f"Inside the file for the input `{first.name}`, before the file for the input `{values}`"
    return f"**{before}.** {preprocess.description}\n\n**{inside}.** {preprocess.normalization}"


def _labels(labels: list[str], thresholds: list[float] | None) -> str:
    if not labels:
        return "Pooled features, float32; the network has no head."
    omitted = len(labels) - _MAX_LABELS
    more = f" and {omitted:,} more, in `assets.extra/labels.txt`" if omitted > 0 else ""
    names = ", ".join(markdown(shortened(label, _MAX_LABEL)) for label in labels[:_MAX_LABELS])
    text = f"{counted(len(labels), 'class')}: {names}{more}."
    if thresholds is None:
        return text
    return (
        f"{text} An example has any number of them: probabilities are sigmoids, and a class is selected from a "
        f"probability of its own on, {min(thresholds):.2f} to {max(thresholds):.2f}, the `thresholds` of "
        "`assets.extra/resnet_tf.json`. They give the largest F1 score of each class on the split of the metrics."
    )


def _metrics(metadata: Mapping[str, Any]) -> Iterator[str]:
    if metrics := metadata.get("metrics"):
        split = markdown_code(metadata["config"]["data"]["eval_split"])
        yield f"Metrics of the network in float32 on the {counted(metrics['examples'], 'example')} of split {split}:\n"
        classes = len(metadata["labels"])  # 0 for features
        left_out = {"top5"} if classes and not shows_top5(classes) else set()
        shown = {name: METRIC_TITLES[name] for name in _METRICS if name in {*metrics} - left_out}
        yield f"| {' | '.join(shown.values())} |\n{'|---' * len(shown)}|"
        yield f"| {' | '.join(f'{metrics[name]:.4f}' for name in shown)} |\n"
    if drift := metadata.get("drift"):
        accuracy = ""
        if drift["top1_before"] is not None:
            before, after = drift["top1_before"], drift["top1_after"]
            accuracy = f" Top-1 accuracy is {before:.4f} before the export and {after:.4f} after it."
        yield (
            f"The export has the same top-1 class as the network on {drift['same_top1']:,} of {drift['examples']:,} "
            f"examples ({markdown(str(drift['data']))}). The root mean square difference of its logits is "
            f"{drift['logits']:.2%} of their standard deviation.{accuracy}\n"
        )
    if speed := metadata.get("speed"):
        yield (
            f"Latency from decoded values to logits: {speed['milliseconds']:.3g} ms for one example. Throughput with "
            f"batch size {speed['batch']}: {speed['images_per_second']:,.0f} examples per second. Both are medians on "
            f"{counted(speed['cores'], 'core')}, {markdown(str(speed['processor']))}."
        )


def _calibration(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield the way from logits to probabilities, and metrics on examples that did not fit it."""
    known = Calibration.from_dict(metadata.get("calibration"))
    if known == UNCALIBRATED:
        return
    if "thresholds" in metadata:
        way = "sigmoids of the logits divided by the temperature of their class plus its bias (vector scaling)"
    else:
        way = f"the softmax of the logits divided by the temperature {known.temperature:.4f}"
    yield f"Probabilities are {way}, `calibration` of `assets.extra/resnet_tf.json`; logits are those of the network."
    if metadata["target"] == "openvino" or (metadata["target"] == "litert" and metadata["precision"] == "int8"):
        yield "The file returns logits; the temperature is that of the network in float32."
    if held_out := known.held_out:
        names = {"calibration_error": "calibration error", "loss": "loss", "brier_score": "Brier score"}
        pairs = (f"{title} {_change(held_out, name)}" for name, title in names.items())
        yield f"Before and after, each half of the split of the metrics with the fit on the other: {', '.join(pairs)}."
    if known.threshold is not None:
        yield (
            f"A prediction whose probability is below {known.threshold:.4f} is unsure. Of the others, "
            f"{known.target_precision:.1%} are to be right."
        )
        coverage, precision = ((known.held_out or {}).get(name) for name in ("coverage", "precision"))
        if coverage is not None and precision is not None:
            yield f"In the cross-fit, {coverage:.1%} of the predictions are certain; {precision:.1%} of them are right."


def _change(held_out: Mapping[str, float | None], name: str) -> str:
    before, after = (held_out.get(f"{name}_{when}") for when in ("before", "after"))
    return "unknown" if before is None or after is None else f"{before:.4f} to {after:.4f}"


def _robustness(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table, and a chart of the means of all severities in the language of Mermaid, which GitHub plots."""
    if "robustness" not in metadata:
        return
    robustness = Robustness.from_dict(metadata["robustness"])
    yield (
        "The network in float32 on the evaluated images, with the common corruptions of Hendrycks and Dietterich "
        "(2019). "
        f"{markdown(robustness.summary)}\n"
    )
    yield f"| corruption | mean | {' | '.join(f'severity {each}' for each in SEVERITIES)} |\n|---{'|---:' * 6}|"
    for name, values in robustness.scores.items():
        numbers = (robustness.mean_of([name]), *values)
        yield f"| {name.replace('_', ' ')} | {' | '.join(f'{value:.4f}' for value in numbers)} |"
    severities = ", ".join(map(str, (0, *SEVERITIES)))
    lines = "\n".join(
        f"    line [{', '.join(f'{value:.4f}' for value in (robustness.clean, *robustness.by_severity(names)))}]"
        for names in GROUPS.values()
    )
    groups = ", ".join(GROUPS)
    yield (
        f'\n```mermaid\nxychart-beta\n    title "{robustness.title} by severity: {groups}"\n'
        f'    x-axis "severity" [{severities}]\n    y-axis 0 --> 1\n{lines}\n```'
    )


def _usage(metadata: Mapping[str, Any], preprocess: Preprocess, signature: str) -> str:
    target, (*sizes, channels) = metadata["target"], preprocess.unnormalized_shape
    first, *_ = preprocess.serving_inputs()
    model_input = f"float32 [B, {preprocess.axes}, {channels}], {preprocess.value_range}, of any size"
    hint = OPENVINO_HINTS.get(metadata["precision"])
    values = {
        "argument": first.name,
        "name": preprocess.unnormalized_input.name,
        "file": f"../../{preprocess.example_file}",  # an export with further files is not loaded
        "range": preprocess.value_range,
        "signature": signature,
        "model_input": model_input,
        "loss": "BinaryCrossentropy" if metadata.get("thresholds") else "SparseCategoricalCrossentropy",
        "hint": f', {{"INFERENCE_PRECISION_HINT": "{hint}"}}' if hint else "",
        "shape": ", ".join(map(str, (*sizes, channels))),
    }
    if target == "serving" and first.dtype != tf.string:
        target = "serving of arrays"
    with_package = "" if target == "hub_features" else _PACKAGE
    usage = f"{_USAGE[target].format(**values)}\n{with_package.format(**values)}"
    return f"In the directory of this file, which takes no other files. {usage}"


def _limitations(metadata: Mapping[str, Any], preprocess: Preprocess) -> Iterator[str]:
    if metadata.get("thresholds"):
        yield "- The network selects none but its classes. F1 scores on other data are lower."
    elif metadata["labels"]:
        yield "- The network returns one of its classes for every input, also for inputs of none of them."
    if metadata.get("config"):
        yield f"- The metrics apply to examples similar to the evaluated split, not to other {preprocess.origins}."
    else:
        yield "- The training data are unknown to this package."
    if metadata["target"] != "keras":
        yield from (f"- {limit}" for limit in preprocess.limits)
    if metadata["precision"] == "bfloat16":
        yield "- bfloat16 is fast only on processors with bfloat16 instructions (AVX-512 BF16, AMX), slow on others."
