"""Export the newest checkpoint of a run as a SavedModel, under the next version number.

python -m resnet_tf.export --workdir=DIR                           writes DIR/export/serving/VERSION
python -m resnet_tf.export --workdir=DIR --to=/models/digits       writes /models/digits/VERSION
"""

from pathlib import Path

from absl import flags

from resnet_tf import cli
from resnet_tf.errors import UserError

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "run directory", flag_values=FLAGS)
TARGET = flags.DEFINE_string("target", "serving", "what to export for: serving", flag_values=FLAGS)
PRECISION = flags.DEFINE_string("precision", "auto", "float32, or auto, which takes it", flag_values=FLAGS)
TO = flags.DEFINE_string("to", "", "directory of versions; empty is WORKDIR/export/TARGET", flag_values=FLAGS)


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    if not WORKDIR.value:
        raise UserError("--workdir=DIR is missing: the run to export")
    directory = Path(TO.value or Path(WORKDIR.value) / "export" / TARGET.value)

    from resnet_tf.serving.artifact import export_model
    from resnet_tf.training.run import load_run

    run = load_run(WORKDIR.value)
    print(export_model(run, directory, target=TARGET.value, precision=PRECISION.value))


if __name__ == "__main__":
    cli.run(main, FLAGS, doc=__doc__)
