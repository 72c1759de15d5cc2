"""Evaluate a run or an exported model; every example counts once.

python -m resnet_tf.evaluate DIR                                             a run, or an exported model
python -m resnet_tf.evaluate --workdir=DIR
python -m resnet_tf.evaluate --model=DIR/export/serving
python -m resnet_tf.evaluate --model=DIR/export/serving --data=photos/ --json
python -m resnet_tf.evaluate --model=DIR/export/serving --report=page/       also write a report page
python -m resnet_tf.evaluate --model=DIR/export/serving --ood=textures/      also out-of-distribution detection
python -m resnet_tf.evaluate --workdir=DIR --corruptions                     also measure robustness

Evaluation of a run on its own data rewrites its report, DIR/report/index.html.

A SavedModel is a program: load exports of people you trust. The manifest of an export detects corruption; it does not
show who wrote the files.
"""

import sys

from absl import flags

import resnet_tf
from resnet_tf.config import CONFIG_FILE, command_line
from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.paths import user_path
from resnet_tf.core.text import printable

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "run directory", flag_values=FLAGS)
MODEL = flags.DEFINE_string("model", "", "exported model, instead of --workdir", flag_values=FLAGS)
DATA = flags.DEFINE_string("data", "", "data set other than that of training; values of data.source", flag_values=FLAGS)
CHECKPOINT = command_line.checkpoint_flag(FLAGS)
SET = flags.DEFINE_multi_string(
    "set", [], "override a data key, as in --set data.eval_split=val; repeatable", flag_values=FLAGS
)
JSON = flags.DEFINE_bool("json", False, "print one JSON object", flag_values=FLAGS)
CLASSES = flags.DEFINE_bool(
    "classes", False, "also the recall and the most frequent confusion of each class", flag_values=FLAGS
)
OOD = flags.DEFINE_string(
    "ood",
    "",
    "out-of-distribution data set, to measure how well the energy detects its examples",
    flag_values=FLAGS,
)
FLIP = flags.DEFINE_bool(
    "flip", False, "average logits over image and mirror image; needs --workdir", flag_values=FLAGS
)
CORRUPTIONS = flags.DEFINE_bool(
    "corruptions", False, "also evaluate with 15 common corruptions in five severities", flag_values=FLAGS
)
REPORT = flags.DEFINE_string(
    "report",
    "",
    "directory of the report page; empty is WORKDIR/report for a run on its own data",
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    path, workdir, model = command_line.optional_argument(arguments), WORKDIR.value, MODEL.value
    if sum(map(bool, (path, workdir, model))) != 1:
        raise UserError("give either --workdir=DIR or --model=EXPORTED")
    if path:
        workdir, model = (path, "") if (user_path(path) / CONFIG_FILE).is_file() else ("", path)
    if FLIP.value and model:
        raise UserError("--flip needs --workdir=DIR; predictions of an exported model are fixed")
    if CHECKPOINT.value and model:
        raise UserError("--checkpoint needs --workdir=DIR; an exported model has the weights of one checkpoint")
    subject = resnet_tf.load_run(workdir, checkpoint=CHECKPOINT.value) if workdir else resnet_tf.Predictor(model)
    result = resnet_tf.evaluate(
        subject,
        data=DATA.value,
        overrides=SET.value,
        flip=FLIP.value,
        ood=OOD.value,
        corruptions=CORRUPTIONS.value,
    )
    if JSON.value:
        print(files.to_json(result.to_dict(classes=CLASSES.value)))
    else:
        print(result.evaluation)
        if result.calibration:
            print(f"calibration  {result.calibration}")
        if result.out_of_distribution:
            print(f"ood  {printable(str(result.out_of_distribution))}")
        if CLASSES.value:
            print(result.evaluation.describe_classes(result.class_names))
        if result.robustness:
            print(result.robustness.describe(), result.robustness.summary, sep="\n")
    if REPORT.value:
        print(f"report  {result.write_report(REPORT.value)}", file=sys.stderr)
    elif result.report_directory:
        try:
            print(f"report  {result.write_report(result.report_directory)}", file=sys.stderr)
        except UserError as error:  # the run may be somebody else's
            print(f"no report: {error}", file=sys.stderr)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
