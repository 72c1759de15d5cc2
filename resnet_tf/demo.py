"""Open a local page that classifies dropped images with an exported model.

python -m resnet_tf.demo DIR/export/serving                   or --model=DIR/export/serving
python -m resnet_tf.demo --model=DIR/export/hub --port=0      on a free port

The page shows probabilities and Grad-CAM overlays, of several files at once; for one-dimensional networks it takes .npy
files. It needs the package gradio (pip install 'resnet_tf[demo]'), is reached from this machine only unless --host is
set, and loads nothing from the internet. Stop it with Ctrl-C or SIGTERM.

A SavedModel is a program: load exports of people you trust. The manifest of an export detects corruption; it does not
show who wrote the files.
"""

from absl import flags

import resnet_tf
from resnet_tf.config import command_line
from resnet_tf.core.errors import UserError
from resnet_tf.core.signals import ended_by_sigterm

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
MODEL = flags.DEFINE_string("model", "", "exported model, or the directory of its versions", flag_values=FLAGS)
HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "address to listen at; 0.0.0.0 lets other machines use the page", flag_values=FLAGS
)
PORT = flags.DEFINE_integer(
    "port", 7860, "port of the page; 0 selects a free port", lower_bound=0, upper_bound=65535, flag_values=FLAGS
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    model = command_line.optional_argument(arguments)
    if bool(model) == bool(MODEL.value):
        raise UserError("give one exported model, as in --model=DIR/export/serving/1")
    with ended_by_sigterm(), resnet_tf.demo(model or MODEL.value, host=HOST.value, port=PORT.value) as page:
        print(page.address, flush=True)
        page.join()


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
