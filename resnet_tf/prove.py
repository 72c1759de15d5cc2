"""Train a run again in a new process, and compare weights and metrics bit by bit.

python -m resnet_tf.prove --workdir=DIR                     or `resnet-tf prove DIR`: the whole run
python -m resnet_tf.prove --workdir=DIR --steps=500         up to the first checkpoint at or after a step
python -m resnet_tf.prove --workdir=DIR --json              one JSON object

The exit code is 1 if something differs. What may explain that is listed: other versions, hardware, environment
variables or settings.
"""

import sys

from absl import flags

import resnet_tf
from resnet_tf.config import command_line
from resnet_tf.core import files

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "run directory", flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 0, "first step to reach; 0 is the whole run", lower_bound=0, flag_values=FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    """Run the command."""
    workdir = command_line.run_directory(arguments, WORKDIR.value, "prove")
    result = resnet_tf.prove(workdir, steps=STEPS.value)
    print(files.to_json(result.to_dict()) if JSON.value else result)
    if not result:
        sys.exit(1)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
