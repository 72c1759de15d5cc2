"""Measure the speed of the input, of the training step, or of an export.

python -m resnet_tf.benchmark --what=input --config=imagefolder --set data.source=photos/    the limiting stage
python -m resnet_tf.benchmark --what=train --model=resnet50                                  on random pixels
python -m resnet_tf.benchmark --what=serving --model=resnet50                                in float32 and bfloat16
python -m resnet_tf.benchmark --what=serving --model=runs/photos/export/litert --json        an existing export
"""

import itertools
from pathlib import Path

from absl import flags

import resnet_tf
from resnet_tf.config import Config, command_line, load_config, override, parse_assignments
from resnet_tf.core import files
from resnet_tf.core.paths import user_path

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
CONFIG, SET = command_line.config_flags(FLAGS)
WHAT = flags.DEFINE_enum("what", "input", ["input", "train", "serving"], "measured part", flag_values=FLAGS)
MODEL = flags.DEFINE_string(
    "model",
    "",
    "network by name instead of the recipe's, in batches of 32; for serving, also an export",
    flag_values=FLAGS,
)
SECONDS = flags.DEFINE_float(
    "seconds", 5.0, "duration of each measurement, in seconds", lower_bound=0.1, flag_values=FLAGS
)
JSON = flags.DEFINE_bool("json", False, "print one JSON object per measurement", flag_values=FLAGS)

_UNITS = {"images_per_second": ("images per second", 0), "milliseconds": ("milliseconds", 2)}  # title, decimals


def main(arguments: list[str]) -> None:
    """Run the command."""
    command_line.no_arguments(arguments)
    result = resnet_tf.benchmark(_subject(), what=WHAT.value, seconds=SECONDS.value)
    if JSON.value:
        for line in result.lines():
            print(files.to_json(line))
        return
    title, decimals = _UNITS[result.unit]
    for subject, measurements in itertools.groupby(result.measurements, lambda each: each.subject):
        subject = subject or (Path(CONFIG.value).stem if WHAT.value == "input" else "")
        print(f"{subject}: {title}" if subject else title)
        for each in measurements:
            print(f"  {each.case:<24} {each.value:>12,.{decimals}f}")
    if result.verdict:
        print(result.verdict)


def _subject() -> Config | Path:
    """Return the configuration or the export that the flags name."""
    if WHAT.value == "serving" and MODEL.value and user_path(MODEL.value).exists():
        return user_path(MODEL.value)
    if MODEL.value and not FLAGS["config"].present:
        return override(Config(), {"data.batch_size": 32, "model.name": MODEL.value, **parse_assignments(SET.value)})
    config = load_config(CONFIG.value, overrides=SET.value)
    return override(config, {"model.name": MODEL.value}) if MODEL.value else config


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__, with_config=True)
