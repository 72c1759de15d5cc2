"""Measure the throughput of the input pipeline or the training step, or compare exports and recommend one.

python -m resnet_tf.benchmark --what=input --config=imagefolder --set data.source=photos/    the limiting stage
python -m resnet_tf.benchmark --what=train --model=resnet50                                  on random pixels
python -m resnet_tf.benchmark --what=serving --workdir=runs/photos                           all exports of a run
python -m resnet_tf.benchmark --what=serving --model=resnet50                                with random weights
python -m resnet_tf.benchmark --what=serving --model=runs/photos/export/litert --json        an existing export

--what=serving exports to every target and precision whose package is installed, and measures each export in a new
process on the CPU: p50 and p99 of the latency, best throughput of several threads, accuracy, size, memory and the time
to the first prediction. With --workdir, the table is stored in DIR/serving.json and shown by DIR/report/index.html.
"""

import shlex
from pathlib import Path

from absl import flags

import resnet_tf
from resnet_tf.config import Config, command_line, load_config, override, parse_assignments
from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import user_path

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
CONFIG, SET = command_line.config_flags(FLAGS)
WHAT = flags.DEFINE_enum("what", "input", ["input", "train", "serving"], "measured part", flag_values=FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "for serving, run directory whose exports are measured", flag_values=FLAGS)
MODEL = flags.DEFINE_string(
    "model",
    "",
    "network by name instead of the recipe's, in batches of 32; for serving, also an export",
    flag_values=FLAGS,
)
SECONDS = flags.DEFINE_float(
    "seconds", 5.0, "duration of each measurement, in seconds", lower_bound=0.1, flag_values=FLAGS
)
JSON = flags.DEFINE_bool(
    "json",
    False,
    "print one JSON object per measurement; for serving, one more with the recommendation",
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    command_line.no_arguments(arguments)
    result = resnet_tf.benchmark(_subject(), what=WHAT.value, seconds=SECONDS.value)
    if JSON.value:
        for line in result.lines():
            print(files.to_json(line))
    if isinstance(result, resnet_tf.ServingBenchmark):
        _print_serving(result)
    elif not JSON.value:
        recipe = Path(command_line.chosen_config(CONFIG, SET.value)).stem
        print(f"{recipe}: images per second" if WHAT.value == "input" else "images per second")
        for each in result.measurements:
            print(f"  {each.case:<24} {each.images_per_second:>12,.0f}")
        if result.verdict:
            print(result.verdict)


def _print_serving(result: "resnet_tf.ServingBenchmark") -> None:
    """Print the table, or with --json an object with everything beside the exports, and the command of the export."""
    if JSON.value:
        print(files.to_json({name: value for name, value in result.to_dict().items() if name != "exports"}))
        return
    print(result.describe())
    chosen = result.recommendation.latency
    if chosen and WORKDIR.value:
        workdir = shlex.quote(f"--workdir={WORKDIR.value}")
        print(f"python -m resnet_tf.export {workdir} --target={chosen.target} --precision={chosen.precision}")


def _subject() -> "Config | resnet_tf.Run | Path":
    """Return the configuration, the run or the export that the flags name."""
    is_configured = bool(SET.value) or FLAGS["config"].present
    if WORKDIR.value:
        if WHAT.value != "serving" or MODEL.value or is_configured:
            raise UserError("--workdir=DIR goes with --what=serving, and without --model, --config and --set")
        return resnet_tf.load_run(WORKDIR.value)
    if WHAT.value == "serving" and MODEL.value and user_path(MODEL.value).exists():
        if is_configured:
            raise UserError("--model=EXPORTED goes without --config and --set: an export is measured as it is")
        return user_path(MODEL.value)
    if MODEL.value and not FLAGS["config"].present:
        return override(Config(), {"data.batch_size": 32, "model.name": MODEL.value, **parse_assignments(SET.value)})
    config = load_config(command_line.chosen_config(CONFIG, SET.value), overrides=SET.value)
    return override(config, {"model.name": MODEL.value}) if MODEL.value else config


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__, with_config=True)
