"""Train a residual network, test it, export it, and check the export in a fresh process.

python -m resnet_tf.train                                          the embedded handwritten digits
python -m resnet_tf.train --config=NAME --workdir=DIR              a recipe; the same command continues a run
python -m resnet_tf.train --config=imagefolder --set data.source=photos/ --set model.name=resnet18
"""

import datetime
from pathlib import Path

from absl import flags

from resnet_tf import cli
from resnet_tf.config import load_config

FLAGS = flags.FlagValues()
CONFIG, SET = cli.config_flags(FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "run directory (default: runs/CONFIG-TIME)", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    config = load_config(CONFIG.value, overrides=SET.value)
    workdir = Path(WORKDIR.value or f"runs/{Path(CONFIG.value).stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}")

    from resnet_tf.training.loop import train_and_evaluate

    train_and_evaluate(config, workdir)


if __name__ == "__main__":
    cli.run(main, FLAGS, doc=__doc__, with_config=True)
