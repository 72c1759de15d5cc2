"""List published weights with their accuracy, image size, size and license.

python -m resnet_tf.weights                    all
python -m resnet_tf.weights 'resnet50*'        those of networks by a pattern
python -m resnet_tf.weights bit_r50x1 --json   one JSON object a line
"""

import json

from absl import flags

import resnet_tf
from resnet_tf.config import command_line

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
JSON = flags.DEFINE_bool("json", False, "print one JSON object a line", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    """Run the command."""
    rows = resnet_tf.list_weights(command_line.optional_argument(arguments) or "*")
    print("\n".join(json.dumps(row.to_dict()) for row in rows) if JSON.value else rows)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
