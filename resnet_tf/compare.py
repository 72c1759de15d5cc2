"""Compare a new model with the one in use; exit code 1 if a stated gate is not met.

python -m resnet_tf.compare export/serving/1 export/serving/2             exports of any target, or run directories
python -m resnet_tf.compare OLD NEW --set data.source=photos/             on other data than the evaluation split of OLD
python -m resnet_tf.compare OLD NEW --max-accuracy-drop=0.01 --max-negative-flips=5 --report=page/
python -m resnet_tf.compare answers.csv NEW                               answers of `predict --csv` or `predict --json`

It prints the difference of the accuracies with its interval, the number of examples that were right and are wrong now,
classes and image sizes that became worse, calibration, latency and size. Exit code 2 stands for a mistake, such as a
missing model.

A SavedModel is a program: load exports of people you trust. The manifest of an export detects corruption; it does not
show who wrote the files.
"""

import sys

from absl import flags

import resnet_tf
from resnet_tf.config import command_line
from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.text import printable

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
SET = flags.DEFINE_multi_string(
    "set", [], "override a data key, as in --set data.source=photos/; repeatable", flag_values=FLAGS
)
BY = flags.DEFINE_multi_string(
    "by", [], "column of the table that data.source names, to slice by; repeatable", flag_values=FLAGS
)
CHECKPOINT = command_line.checkpoint_flag(FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object", flag_values=FLAGS)
REPORT = flags.DEFINE_string("report", "", "directory of a page with plots and images", flag_values=FLAGS)
LATENCY = flags.DEFINE_bool("latency", True, "measure the latency of both models", flag_values=FLAGS)
ACCURACY_DROP = flags.DEFINE_float(
    "max_accuracy_drop", None, "gate: largest loss of accuracy, fraction in [0, 1]", 0.0, 1.0, flag_values=FLAGS
)
NEGATIVE_FLIPS = flags.DEFINE_integer(
    "max_negative_flips", None, "gate: most examples that were right and are wrong now", 0, flag_values=FLAGS
)
LATENCY_RATIO = flags.DEFINE_float(
    "max_latency_ratio", None, "gate: largest latency relative to the old model", 0.0, flag_values=FLAGS
)
CLASS_RECALL = flags.DEFINE_float(
    "min_class_recall", None, "gate: smallest recall of any class, fraction in [0, 1]", 0.0, 1.0, flag_values=FLAGS
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    if len(arguments) != 2:
        raise UserError("give two models, the one in use and its replacement: resnet-tf compare OLD NEW")
    old, new = arguments
    result = resnet_tf.compare(
        old,
        new,
        overrides=SET.value,
        checkpoint=CHECKPOINT.value,
        by=BY.value,
        latency=LATENCY.value,
        max_accuracy_drop=ACCURACY_DROP.value,
        max_negative_flips=NEGATIVE_FLIPS.value,
        max_latency_ratio=LATENCY_RATIO.value,
        min_class_recall=CLASS_RECALL.value,
    )
    print(files.to_json(result.to_dict()) if JSON.value else result.comparison)
    if REPORT.value:
        print(f"report  {result.write_report(REPORT.value)}", file=sys.stderr)
    for gate in result.gates:
        print(f"{'passed' if gate.passed else 'FAILED'}  {printable(gate.text)}", file=sys.stderr)
    if result.failures:
        sys.exit(1)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
