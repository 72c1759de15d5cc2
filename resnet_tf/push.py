"""Store the network of a run on the Hugging Face Hub.

python -m resnet_tf.push --workdir=DIR --to=hf://user/repo
python -m resnet_tf.push --workdir=DIR --to=hf://user/repo@branch --private --license=apache-2.0
"""

from absl import flags

import resnet_tf
from resnet_tf.config import command_line

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "run directory", flag_values=FLAGS)
CHECKPOINT = command_line.checkpoint_flag(FLAGS)
TO = flags.DEFINE_string("to", "", "repository, hf://user/repo or hf://user/repo@branch", flag_values=FLAGS)
PRIVATE = flags.DEFINE_bool(
    "private", None, "visibility of a new repository, by default the account's", flag_values=FLAGS
)
LICENSE = flags.DEFINE_string("license", "", "license for a new model card, such as apache-2.0", flag_values=FLAGS)
MESSAGE = flags.DEFINE_string("message", "", "commit message", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    """Run the command."""
    command_line.no_arguments(arguments)
    command_line.require(WORKDIR, TO)
    url = resnet_tf.push_to_hub(
        WORKDIR.value,
        TO.value,
        checkpoint=CHECKPOINT.value,
        private=PRIVATE.value,
        license=LICENSE.value,
        message=MESSAGE.value,
    )
    print(url)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
