"""Time the input of a recipe, stage by stage, beside what its model takes.

python -m resnet_tf.benchmark --what=input --config=cifar10_resnet20 --set data.source=cifar10
python -m resnet_tf.benchmark --what=input --config=imagefolder --set data.source=photos/ --json
"""

import json
from pathlib import Path

from absl import flags

from resnet_tf import cli
from resnet_tf.config import load_config

FLAGS = flags.FlagValues()
CONFIG, SET = cli.config_flags(FLAGS)
flags.DEFINE_enum("what", "input", ["input"], "what to time", flag_values=FLAGS)
SECONDS = flags.DEFINE_float("seconds", 5.0, "time for each stage", lower_bound=0.1, flag_values=FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object a stage", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    config = load_config(CONFIG.value, overrides=SET.value)

    from resnet_tf.training.throughput import measure_input

    found = measure_input(config, seconds=SECONDS.value)
    cases = {**found.stages, f"{config.model.name} takes": found.model}
    if JSON.value:
        for case, rate in cases.items():
            print(json.dumps({"case": case, "images_per_second": round(rate, 1)}))
        return
    print(f"{Path(CONFIG.value).stem}: images per second")
    for case, rate in cases.items():
        print(f"  {case:<24} {rate:>12,.0f}")
    print(found.verdict)


if __name__ == "__main__":
    cli.run(main, FLAGS, doc=__doc__, with_config=True)
