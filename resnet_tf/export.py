"""Export a run as the next version.

python -m resnet_tf.export --workdir=DIR                                     a SavedModel: DIR/export/serving/VERSION
python -m resnet_tf.export --workdir=DIR --precision=bfloat16                faster on processors with bfloat16
python -m resnet_tf.export --workdir=DIR --target=litert --precision=int8    for phones, calibrated on training images
python -m resnet_tf.export --workdir=DIR --target=hub                        for fine-tuning, like TF Hub modules
python -m resnet_tf.export --workdir=DIR --to=/models/digits                 writes /models/digits/VERSION
"""

from absl import flags

import resnet_tf
from resnet_tf.config import command_line

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "run directory", flag_values=FLAGS)
CHECKPOINT = command_line.checkpoint_flag(FLAGS)
TARGET = flags.DEFINE_string(
    "target", "serving", "serving, hub, hub_features, litert, keras, onnx or openvino", flag_values=FLAGS
)
PRECISION = flags.DEFINE_string(
    "precision",
    "auto",
    "float32 (auto); serving also bfloat16; litert also float16, dynamic, int8; openvino also bfloat16, int8",
    flag_values=FLAGS,
)
TO = flags.DEFINE_string("to", "", "directory of versions; empty is WORKDIR/export/TARGET", flag_values=FLAGS)
DEFAULT_SIGNATURE = flags.DEFINE_string(
    "default_signature",
    "serving_default",
    "serving_default, or images for clients that read only the default signature and send pixels",
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    path = resnet_tf.export(
        command_line.run_directory(arguments, WORKDIR.value, "export"),
        TO.value or None,
        checkpoint=CHECKPOINT.value,
        target=TARGET.value,
        precision=PRECISION.value,
        default_signature=DEFAULT_SIGNATURE.value,
    )
    print(path)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
