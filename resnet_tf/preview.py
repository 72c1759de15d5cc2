"""Draw the pictures that a recipe feeds to its network, cropped and augmented, with their labels.

python -m resnet_tf.preview --config=cifar10_resnet20 --out=grid.png
python -m resnet_tf.preview --config=imagefolder --set data.source=photos/ --set augment.policy=randaugment
python -m resnet_tf.preview --step=1000 --count=64                 the batch of a later step
"""

from pathlib import Path

from absl import flags

from resnet_tf.config import command_line, load_config
from resnet_tf.core.errors import UserError

FLAGS = flags.FlagValues()
CONFIG, SET = command_line.config_flags(FLAGS)
OUT = flags.DEFINE_string("out", "preview.png", "picture to write", flag_values=FLAGS)
STEP = flags.DEFINE_integer("step", 0, "training step whose batch is drawn", lower_bound=0, flag_values=FLAGS)
COUNT = flags.DEFINE_integer("count", 32, "pictures of the batch that are drawn", lower_bound=1, flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    command_line.no_arguments(arguments)
    config = load_config(CONFIG.value, overrides=SET.value)
    out = Path(OUT.value)
    if out.suffix != ".png" or not out.absolute().parent.is_dir():
        raise UserError(f"--out={OUT.value!r} must be a .png file in a directory that exists")

    from resnet_tf.data.sources import open_source
    from resnet_tf.training.default_settings import resolve
    from resnet_tf.workflows.reporting import draw_batch

    config = resolve(config)
    source = open_source(config.data)
    title = f"{Path(CONFIG.value).stem}: step {STEP.value} of {source.name}, {config.data.size_in_words}"
    print(draw_batch(out, config, source, step=STEP.value, count=COUNT.value, title=title))


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__, with_config=True)
