"""Plot a training batch of a recipe, cropped and augmented, with its labels.

python -m resnet_tf.preview photos/                                a data source, with the recipe auto
python -m resnet_tf.preview --config=cifar10_resnet20 --out=grid.png
python -m resnet_tf.preview --config=imagefolder --set data.source=photos/ --set augment.policy=randaugment
python -m resnet_tf.preview --step=1000 --count=64                 the batch of a later step
"""

from pathlib import Path

from absl import flags

import resnet_tf
from resnet_tf.config import command_line, load_config

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
CONFIG, SET = command_line.config_flags(FLAGS)
OUT = flags.DEFINE_string("out", "preview.png", "PNG file to write", flag_values=FLAGS)
STEP = flags.DEFINE_integer("step", 0, "training step of the plotted batch", lower_bound=0, flag_values=FLAGS)
COUNT = flags.DEFINE_integer("count", 32, "plotted examples of the batch", lower_bound=1, flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    """Run the command."""
    recipe, overrides = command_line.recipe_or_data(arguments, CONFIG, SET)
    config, name = load_config(recipe, overrides=overrides), Path(recipe).stem
    print(resnet_tf.preview(config, OUT.value, step=STEP.value, count=COUNT.value, name=name))


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__, with_config=True)
