"""Test a trained run or an exported model; every picture counts once.

python -m resnet_tf.evaluate --workdir=DIR
python -m resnet_tf.evaluate --model=DIR/export/serving
python -m resnet_tf.evaluate --model=DIR/export/serving --data=photos/ --json
python -m resnet_tf.evaluate --model=DIR/export/serving --report=page/       also a page of figures and mistakes

A run that is tested on its own data has its page, DIR/report/index.html, written anew.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from resnet_tf.config import command_line, override, parse_assignments
from resnet_tf.core.errors import UserError

if TYPE_CHECKING:
    from resnet_tf.core.metrics import Evaluation

    # The figures, the names of the classes, and what writes the page to a directory.
    Tested = tuple[Evaluation, Sequence[str], Callable[[Path], Path]]

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "run directory to test", flag_values=FLAGS)
MODEL = flags.DEFINE_string("model", "", "exported model to test, instead of --workdir", flag_values=FLAGS)
DATA = flags.DEFINE_string("data", "", "other data than it was trained on, as in data.source", flag_values=FLAGS)
CHECKPOINT = command_line.checkpoint_flag(FLAGS)
SET = flags.DEFINE_multi_string(
    "set", [], "override a data key, as in --set data.eval_split=val; repeatable", flag_values=FLAGS
)
JSON = flags.DEFINE_bool("json", False, "print one JSON object", flag_values=FLAGS)
CLASSES = flags.DEFINE_bool("classes", False, "also each class's recall, and what it is taken for", flag_values=FLAGS)
FLIP = flags.DEFINE_bool("flip", False, "mean logits of a picture and its mirror; for --workdir", flag_values=FLAGS)
REPORT = flags.DEFINE_string(
    "report",
    "",
    "directory for a page of figures and mistakes; empty is WORKDIR/report for a run on its own data",
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    command_line.no_arguments(arguments)
    if bool(WORKDIR.value) == bool(MODEL.value):
        raise UserError("give either --workdir=DIR or --model=EXPORTED")
    if FLIP.value and MODEL.value:
        raise UserError("--flip takes --workdir=DIR: an exported model answers as it was exported")
    changes = parse_assignments([*SET.value, *([f"data.source={DATA.value}"] if DATA.value else [])])
    evaluation, class_names, write_page = (_test_run if WORKDIR.value else _test_export)(changes)
    if JSON.value:
        print(json.dumps(evaluation.to_dict() | (evaluation.classes(class_names) if CLASSES.value else {})))
    else:
        print(evaluation)
        if CLASSES.value:
            print(evaluation.describe_classes(class_names))
    if REPORT.value:
        print(f"report  {write_page(Path(REPORT.value))}", file=sys.stderr)
    elif WORKDIR.value and not (changes or FLIP.value):
        try:
            print(f"report  {write_page(Path(WORKDIR.value) / 'report')}", file=sys.stderr)
        except UserError as error:  # somebody else's run can be tested all the same
            print(f"no report: {error}", file=sys.stderr)


def _test_run(changes: dict[str, str]) -> "Tested":
    from resnet_tf.data.sources import open_source
    from resnet_tf.training.evaluation import evaluate_run
    from resnet_tf.training.run import load_run
    from resnet_tf.workflows.reporting import write_run_report

    run = load_run(WORKDIR.value, checkpoint=CHECKPOINT.value)
    data = override(run.config, changes).data
    source = open_source(data)
    evaluation = evaluate_run(run, source, batch_size=data.batch_size, flip=FLIP.value)
    return evaluation, run.labels, lambda directory: write_run_report(directory, run, evaluation, source)


def _test_export(changes: dict[str, str]) -> "Tested":
    from resnet_tf.core.metrics import Evaluation
    from resnet_tf.data.sources import check_classes, open_source
    from resnet_tf.serving.predictor import Predictor
    from resnet_tf.workflows.reporting import write_export_report

    predictor = Predictor(MODEL.value)
    source = open_source(override(predictor.config, changes).data)
    check_classes(predictor.labels, source)
    evaluation = Evaluation(*predictor.logits(source.test))
    return evaluation, predictor.labels, lambda directory: write_export_report(directory, predictor, evaluation, source)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
