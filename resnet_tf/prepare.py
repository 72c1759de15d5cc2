"""Write a folder of images as sharded TFRecord files, which are faster to read and to move.

python -m resnet_tf.prepare --from=photos/ --to=prepared/
python -m resnet_tf.train --config=imagefolder --set data.source=prepared/

The folder holds split/class/file, or class/file, of which a fraction (--eval-fraction) becomes the split `test`. Files
are stored byte for byte.
"""

from absl import flags

import resnet_tf
from resnet_tf.config import command_line

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
FROM = flags.DEFINE_string("from", "", "folder of images to read", flag_values=FLAGS)
TO = flags.DEFINE_string("to", "", "directory to write; it must not exist, or be empty", flag_values=FLAGS)
EVAL_FRACTION = flags.DEFINE_float(
    "eval_fraction",
    0.1,
    "fraction of a folder of class/file that becomes the split `test`",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    command_line.no_arguments(arguments)
    command_line.require(FROM, TO)

    result = resnet_tf.prepare(FROM.value, TO.value, eval_fraction=EVAL_FRACTION.value)
    for name, split in result.splits.items():
        print(f"{name}: {split.examples:,} images in {split.files} file(s)")
    print(f"data.source={TO.value}")


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
