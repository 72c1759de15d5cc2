"""Time the input of a recipe beside its training step, the step alone, or an export.

python -m resnet_tf.benchmark --what=input --config=imagefolder --set data.source=photos/    what limits the speed
python -m resnet_tf.benchmark --what=train --model=resnet50                                  on random pixels
python -m resnet_tf.benchmark --what=serving --model=resnet50                                float32, and bfloat16
python -m resnet_tf.benchmark --what=serving --model=runs/photos/export/litert --json        one that is there
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from resnet_tf.config import Config, command_line, load_config, override, parse_assignments
from resnet_tf.core.errors import UserError

if TYPE_CHECKING:
    import keras

FLAGS = flags.FlagValues()
CONFIG, SET = command_line.config_flags(FLAGS)
WHAT = flags.DEFINE_enum("what", "input", ["input", "train", "serving"], "what to time", flag_values=FLAGS)
MODEL = flags.DEFINE_string(
    "model",
    "",
    "network by name instead of the recipe's, 32 pictures in a step; for serving, or an export",
    flag_values=FLAGS,
)
SECONDS = flags.DEFINE_float("seconds", 5.0, "time for each figure", lower_bound=0.1, flag_values=FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object a figure", flag_values=FLAGS)

_BATCHES = (1, 8, 32)  # of an export


def main(arguments: list[str]) -> None:
    command_line.no_arguments(arguments)
    if WHAT.value == "serving" and MODEL.value and Path(MODEL.value).exists():
        _time_export(Path(MODEL.value))
        return
    if MODEL.value and not FLAGS["config"].present:
        config = override(Config(), {"data.batch_size": 32, "model.name": MODEL.value, **parse_assignments(SET.value)})
    else:
        config = load_config(CONFIG.value, overrides=SET.value)
        if MODEL.value:
            config = override(config, {"model.name": MODEL.value})
    {"input": _time_input, "train": _time_training, "serving": _time_serving}[WHAT.value](config)


def _time_input(config: Config) -> None:
    from resnet_tf.training.throughput import measure_input

    found = measure_input(config, seconds=SECONDS.value)
    _show(f"{Path(CONFIG.value).stem}: images per second", {**found.stages, f"{config.model.name} takes": found.model})
    if not JSON.value:
        print(found.verdict)


def _time_training(config: Config) -> None:
    from resnet_tf.training.throughput import measure_training

    rate = measure_training(config, seconds=SECONDS.value)
    data = config.data
    _show("images per second", {f"{config.model.name}, {data.size_in_words}, {data.batch_size} in a step": rate})


def _time_export(path: Path) -> None:
    from resnet_tf.serving.artifact import find_export
    from resnet_tf.serving.speed import measure_batches

    export = find_export(path)
    _show_batches(str(export), measure_batches(export, _BATCHES, seconds=SECONDS.value))


def _time_serving(config: Config) -> None:
    from resnet_tf.serving.export import export_model
    from resnet_tf.serving.speed import measure_batches
    from resnet_tf.training.runtime import choose_precision

    half = choose_precision("auto")[0] == "mixed_bfloat16"
    model = _network(config)
    with tempfile.TemporaryDirectory() as scratch:
        for precision in ("float32", *(["bfloat16"] if half else [])):
            export = export_model(model, Path(scratch) / precision, precision=precision)
            case = f"{config.model.name} {precision}"
            _show_batches(case, measure_batches(export, _BATCHES, seconds=SECONDS.value))


def _network(config: Config) -> "keras.Model":
    """The recipe's, with statistics as of a trained one: biases of zero would be optimised away."""
    import numpy as np

    from resnet_tf.data import preprocess
    from resnet_tf.training.run import create_network

    model, generator = create_network(config, num_classes=config.model.num_classes or 1000), np.random.default_rng(0)
    if None in model.input_shape[1:]:
        raise UserError(f"{config.model.name} takes pictures of any size here; train.end_size=0 gives it one to time")
    for variable in model.variables:
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith(("beta", "moving_mean")):
            variable.assign(generator.normal(0.0, 0.1, variable.shape))
    model.preprocess = preprocess.from_config(config.data)
    return model


def _show_batches(case: str, milliseconds: dict[int, float]) -> None:
    _show(f"{case}: milliseconds", {f"batch of {batch}": took for batch, took in milliseconds.items()}, case)


def _show(title: str, figures: dict[str, float], case: str = "") -> None:
    """`case` is what figures in milliseconds are of; others are images per second."""
    if JSON.value:
        unit = "milliseconds" if case else "images_per_second"
        for name, figure in figures.items():
            print(json.dumps({"case": f"{case}, {name}" if case else name, unit: round(figure, 2)}))
        return
    print(title)
    for name, figure in figures.items():
        print(f"  {name:<24} {figure:>12,.{2 if case else 0}f}")


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__, with_config=True)
