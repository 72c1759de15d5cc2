"""Convert a data set to sharded TFRecord files, which are faster to read and to copy.

python -m resnet_tf.prepare --from=photos/ --to=prepared/
python -m resnet_tf.prepare --from=labels.csv --set data.label_column=breed --to=prepared/
python -m resnet_tf.train --config=imagefolder --set data.source=prepared/

Any data source of images is taken, see docs/data.md. A folder of class/file, or a table without splits, is divided:
--eval-fraction of the images become the split `test`, the others `train`. Image files are stored unchanged.
"""

from absl import flags

import resnet_tf
from resnet_tf.config import command_line
from resnet_tf.core.text import counted, printable

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
FROM = flags.DEFINE_string("from", "", "folder, table, archive or name of a data set to read", flag_values=FLAGS)
TO = flags.DEFINE_string("to", "", "output directory; must be empty or not exist", flag_values=FLAGS)
EVAL_FRACTION = flags.DEFINE_float(
    "eval_fraction",
    0.1,
    "fraction of the images that becomes the split `test`, for data without splits",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)
SET = flags.DEFINE_multi_string(
    "set", [], "override a data key, as in --set data.label_column=breed; repeatable", flag_values=FLAGS
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    command_line.no_arguments(arguments)
    command_line.require(FROM, TO)

    result = resnet_tf.prepare(FROM.value, TO.value, eval_fraction=EVAL_FRACTION.value, overrides=SET.value)
    for name, split in result.splits.items():
        print(f"{printable(name)}: {counted(split.examples, 'image')} in {counted(split.files, 'file')}")
    print(f"data.source={TO.value}")


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
