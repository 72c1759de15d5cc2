"""Write docs/api.md, the Python API, from the docstrings of the names that `resnet_tf` exports.

python docs/make_api.py             write the page
python docs/make_api.py --check     write nothing; exit code 1 if the page is out of date
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import resnet_tf
from resnet_tf.core.files import write_atomically

PAGE = Path(__file__).parent / "api.md"
GROUPS = {
    "Commands": (
        *("train", "TrainResult", "evaluate", "EvaluateResult", "predict", "export"),
        *("audit", "AuditResult", "compare", "CompareResult"),
        *("prepare", "PrepareResult", "preview", "plan", "Plan", "prove", "ProveResult"),
        *("benchmark", "BenchmarkResult", "ServingBenchmark"),
        *("convert", "ConvertResult", "push_to_hub", "demo", "DemoServer", "serve_data", "DataService"),
    ),
    "Networks": (
        *("create_model", "list_models", "list_weights", "WeightsTable", "PublishedWeights"),
        "load_from_hub",
        *("ResidualNetwork", "Arch", "BatchNormalization"),
    ),
    "Settings": ("load_config", "list_configs", "Config"),
    "Data": ("open_source", "Source", "Preprocess", "ImagePreprocess", "SignalPreprocess", "BandsPreprocess"),
    "Training": ("train_and_evaluate", "load_run", "Run"),
    "Evaluation": (
        *("evaluate_run", "Evaluation", "SingleLabelEvaluation", "MultiLabelEvaluation"),
        *("calibrate", "Calibration", "CalibrationCheck", "OutOfDistribution", "Robustness"),
    ),
    "Exports": ("export_model", "Predictor", "Prediction"),
    "Errors": ("UserError", "Interrupted"),
}
_NAMED = r"(\*{0,2}[\w.]+): (.*)"
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Reference", "References")


def main() -> None:
    text = "\n".join(_page())
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != text:
            sys.exit("docs/api.md is out of date; run python docs/make_api.py")
        return
    write_atomically(PAGE, text)


def _page() -> Iterator[str]:
    yield "# Python API\n"
    yield "Import every name from `resnet_tf`. `python docs/make_api.py` writes this page from the docstrings."
    for group, names in GROUPS.items():
        yield f"\n## {group}"
        for name in names:
            yield from _entry(name, getattr(resnet_tf, name))
    yield ""


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"\n### `{name}`\n"
    if inspect.isclass(thing):
        yield from _text(thing)
        for method, function in vars(thing).items():
            shown = method == "__call__" or not method.startswith("_")
            if isinstance(function, classmethod):
                function = function.__func__
            if shown and inspect.isfunction(function) and function.__doc__:
                yield f"\n```python\n{_signature(method, function)}\n```\n"
                yield from _text(function)
            elif shown and isinstance(function, property) and function.__doc__:
                yield f"\n- `.{method}`: {' '.join(inspect.cleandoc(function.__doc__).split())}"
    else:
        yield f"```python\n{_signature(name, thing)}\n```\n"
        yield from _text(thing)


def _signature(name: str, function: Any) -> str:
    """Return the signature as written in the source, which is the same under every version of Python."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{name}({ast.unparse(node.args)}){returns}"
    if len(line) <= 100:
        return line
    arguments = "".join(f"\n    {part}," for part in _split(ast.unparse(node.args)))
    return f"{name}({arguments}\n){returns}"


def _split(arguments: str) -> list[str]:
    """Split at the commas between arguments, but not at commas inside brackets."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "[(") - (character in "])")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _text(thing: Any) -> Iterator[str]:
    """Yield the docstring in Markdown, with sections as lists."""
    paragraphs = re.split(r"\n\n", inspect.cleandoc(thing.__doc__))
    for number, paragraph in enumerate(paragraphs):
        title, _, rest = paragraph.partition(":")
        if number:
            yield ""
        if paragraph.startswith(">>> "):
            yield f"```pycon\n{paragraph}\n```"
        elif title in SECTIONS and rest.startswith("\n"):
            yield f"**{title}**\n"
            yield from _items(textwrap.dedent(rest.strip("\n")))
        else:
            yield paragraph


def _items(block: str) -> Iterator[str]:
    """Yield a list item for each `name: meaning`, with indented continuation lines, or text without names unchanged."""
    if not re.match(_NAMED, block):
        yield block
        return
    for line in block.splitlines():
        named = re.match(_NAMED, line)
        if named:
            yield f"- `{named[1]}`: {named[2]}"
        else:
            yield f"{'  ' if line.startswith(' ') else '- '}{line.strip()}"


if __name__ == "__main__":
    main()
