"""Convert weights from torchvision, timm, keras.applications and CIFAR repositories, or to PyTorch.

python -m resnet_tf.convert --from=resnet50.safetensors --model=resnet50 --to=resnet50.weights.h5
python -m resnet_tf.convert --from=resnet20-12fca82f.th --model=resnet20 --num-classes=10 --to=resnet20.weights.h5
python -m resnet_tf.convert --from=resnet50.weights.h5 --model=resnet50 --to=resnet50.safetensors
python -m resnet_tf.convert --from=torchvision/IMAGENET1K_V1 --model=resnet50 --to=resnet50.weights.h5
"""

from absl import flags

import resnet_tf
from resnet_tf.config import command_line

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
FROM = flags.DEFINE_string(
    "from",
    "",
    ".safetensors, .npz, .h5, .weights.h5, .keras or PyTorch pickle to read, or published weights by name",
    flag_values=FLAGS,
)
MODEL = flags.DEFINE_string("model", "", "network that the weights belong to, by name", flag_values=FLAGS)
TO = flags.DEFINE_string(
    "to", "", "file to write: .weights.h5 or .keras for Keras, .safetensors for PyTorch", flag_values=FLAGS
)
NUM_CLASSES = flags.DEFINE_integer(
    "num_classes", 1000, "classes of the head; 0 drops it", lower_bound=0, flag_values=FLAGS
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    command_line.no_arguments(arguments)
    command_line.require(FROM, MODEL, TO)

    result = resnet_tf.convert(FROM.value, MODEL.value, TO.value, num_classes=NUM_CLASSES.value)
    print(f"{result.path}: {result.model}, read as {result.dialect}")


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
